//! Requests with an id: what they were answered, so that they are not applied twice.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::{Workspace, seen::Seen};
use crate::{
    backend::{
        ContentType, Created, Draft, GroupIndex, GroupStamp, Key, NewDeadline, StoredEntry, Write,
        WriteOp,
    },
    store::{
        RequestId,
        command::{EntryView, Reply, Set},
        error::Refusal,
        record::request::{self, KeptAnswer, RecordName, RecordWriter, Revisions},
        requests::Added,
    },
};

/// How long an answer is kept at least.
const KEPT_MS: u64 = 600_000;
/// How long it is known at least that a client was done with what an answer was kept for.
const DONE_MS: i64 = 20_000;
/// It ends together with all of about a second: while anything is due, reads may take longer, and each end is a commit.
const DONE_STEP_MS: i64 = 1000;

/// The records of answers that requests of this commit have to do with.
#[derive(Debug, Default)]
pub(super) struct Records(BTreeMap<RecordName, Record>);

/// A record as it was read.
#[derive(Debug, Default)]
struct Record {
    /// Unless there is none, or none that can be read.
    stored: Option<StoredEntry>,
    /// The numbers of the requests that it has the answers to.
    numbers: Vec<u64>,
    /// Whether its client is done with all of them.
    is_done: bool,
}

/// An answer of this commit that is to be kept.
pub struct NewAnswer<'a> {
    /// What it answers.
    pub request: &'a RequestId,
    /// That, if it is a set.
    pub asked: Option<&'a Set>,
    /// The group of writes that it is of.
    pub group: GroupIndex,
    /// The answer.
    pub reply: &'a Reply<Seen>,
}

impl RequestId {
    /// The unlogged write that keeps the answer of a commit whose only revision is that of the record.
    pub fn write_alone(&self, stored: Option<StoredEntry>, reply: &Reply<Seen>) -> (Write, Added) {
        let mut writer = Record::of(stored).writer();
        writer.add(&KeptAnswer::of_whole(self, reply));
        keep(RecordName::of(self), writer, GroupIndex(0))
    }
}

impl Record {
    fn of(stored: Option<StoredEntry>) -> Self {
        if stored.as_ref().is_some_and(|record| record.value == request::DONE) {
            return Self { is_done: true, ..Self::default() };
        }
        let numbers = stored.as_ref().and_then(|record| request::numbers(&record.value));
        match numbers {
            Some(numbers) => Self { stored, numbers, is_done: false },
            None => Self::default(),
        }
    }

    fn writer(&self) -> RecordWriter {
        RecordWriter::new(self.stored.clone(), self.numbers.clone())
    }
}

impl Workspace<'_> {
    /// The answer that was given to a request before. `asked` is what it asks for now, if that is a set.
    pub fn recall(
        &mut self,
        request: &RequestId,
        asked: Option<&Set>,
    ) -> Result<Option<(GroupStamp, Reply<EntryView>)>, Refusal<Seen>> {
        let name = RecordName::of(request);
        let record = self.record(name);
        if record.is_done {
            return Err(Refusal::RequestDone { seq: request.seq, done_below: name.end() });
        }
        if !record.numbers.contains(&request.seq) {
            return Ok(None);
        }
        let found = record.stored.as_ref().and_then(|stored| request::find(stored, request.seq));
        match found {
            Some((answer, _)) if answer.fingerprint() != request.fingerprint => {
                Err(Refusal::RequestReused { seq: request.seq })
            }
            found => Ok(found.map(|(answer, written)| answer.recall(asked, written))),
        }
    }

    /// Adds answers to the writes of the last group. Answers what went into each record.
    pub fn keep_answers<'a>(&mut self, answers: impl Iterator<Item = NewAnswer<'a>>) -> Vec<Added> {
        let Some(last) = self.expected_revisions.last().copied() else {
            return Vec::new();
        };
        let mut writers = BTreeMap::new();
        for NewAnswer { request, asked, group, reply } in answers {
            let name = RecordName::of(request);
            let writer = writers.entry(name).or_insert_with(|| self.record(name).writer());
            let revisions = Revisions { expected: &self.expected_revisions, last };
            writer.add(&KeptAnswer::new(request, asked, reply, group, revisions));
        }
        let group = GroupIndex(self.groups.len() - 1);
        let mut kept = Vec::with_capacity(writers.len());
        for (record, writer) in writers {
            let (write, added) = keep(record, writer, group);
            kept.push(added);
            self.groups.writes.push(write);
        }
        if let Some(end) = self.groups.ends.last_mut() {
            *end = self.groups.writes.len();
        }
        kept
    }

    /// A record, read once for all requests of the commit.
    fn record(&mut self, name: RecordName) -> &Record {
        if !self.records.0.contains_key(&name) {
            let stored = match self.held(&name.key()) {
                Some(Seen::Stored(record)) if !record.deadline.is_due(self.tip.time_ms) => {
                    Some(record)
                }
                _ => None,
            };
            self.records.0.insert(name, Record::of(stored));
        }
        &self.records.0[&name]
    }
}

/// The write that says of a record that its client is done with it, when the time was last known to be `time_ms`.
pub fn done_with(name: RecordName, group: GroupIndex, time_ms: i64) -> Write {
    // The commit may come a while later than that.
    let steps = time_ms.saturating_add(DONE_MS) / DONE_STEP_MS + 2;
    let deadline = NewDeadline::At(steps.saturating_mul(DONE_STEP_MS));
    put(name.key(), Bytes::from_static(request::DONE), group, deadline)
}

fn keep(record: RecordName, writer: RecordWriter, group: GroupIndex) -> (Write, Added) {
    let (answers, stored) = (writer.count(), writer.finish());
    let added = Added { record, answers, record_bytes: stored.len() as u64 };
    (put(record.key(), stored, group, NewDeadline::After(KEPT_MS)), added)
}

fn put(key: Key, value: Bytes, group: GroupIndex, deadline: NewDeadline) -> Write {
    let draft = Draft {
        value,
        content_type: ContentType::JSON,
        version: 1,
        created: Created::By(group),
        deadline,
    };
    Write { key, op: WriteOp::SetUnlogged(draft) }
}
