//! Requests with an id: what they were answered, so that they are not applied twice.

use std::collections::BTreeMap;

use super::{Workspace, seen::Seen};
use crate::{
    backend::{
        Created, Draft, GroupIndex, GroupStamp, Key, NewDeadline, StoredEntry, Write, WriteOp,
    },
    store::{
        RequestId,
        command::{EntryView, Reply},
        error::Refusal,
        keys,
        record::{
            self,
            request::{KeptAnswer, PER_RECORD, Requests, Revisions},
        },
    },
};

/// How long an answer is kept at least.
const KEPT_MS: u64 = 600_000;

/// The answers of this commit.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// By the keys of their records.
    new: BTreeMap<Key, Vec<NewAnswer>>,
}

/// An answer of this commit.
#[derive(Debug)]
struct NewAnswer {
    seq: u64,
    fingerprint: u64,
    /// The group of writes that it is of.
    group: GroupIndex,
    reply: Reply<Seen>,
}

impl RequestId {
    /// The key of the record that holds its answer.
    pub fn record_key(&self) -> Key {
        keys::requests(self.client, self.seq / PER_RECORD)
    }

    /// The answer that was given before, if there is one in the record.
    pub fn recall<E>(
        &self,
        record: Option<&StoredEntry>,
    ) -> Result<Option<(GroupStamp, Reply<EntryView>)>, Refusal<E>> {
        let Some(record) = record else {
            return Ok(None);
        };
        let Some(requests) = record::decode::<Requests>(&record.value) else {
            return Ok(None);
        };
        let Some(answer) = requests.answers.get(&self.seq) else {
            return Ok(None);
        };
        self.check(answer.fingerprint)?;
        Ok(Some(answer.recall(stamp_of(record))))
    }

    /// The unlogged write that keeps the answer of a commit whose only revision is that of the record.
    pub fn write_alone(&self, record: Option<&StoredEntry>, reply: Reply<Seen>) -> Write {
        let mut requests = settled(record);
        let answer = KeptAnswer::of_whole(self.fingerprint, reply);
        requests.answers.insert(self.seq, answer);
        write(self.record_key(), &requests, GroupIndex(0))
    }

    fn check<E>(&self, fingerprint: u64) -> Result<(), Refusal<E>> {
        if fingerprint == self.fingerprint {
            return Ok(());
        }
        Err(Refusal::RequestReused { seq: self.seq })
    }
}

impl Workspace<'_> {
    /// The answer that was given to a request before.
    pub fn recall(
        &self,
        request: &RequestId,
    ) -> Result<Option<(GroupStamp, Reply<EntryView>)>, Refusal<Seen>> {
        match self.held(&request.record_key()) {
            Some(Seen::Stored(record)) if !record.deadline.is_due(self.tip.time_ms) => {
                request.recall(Some(&record))
            }
            _ => Ok(None),
        }
    }

    /// Keeps the answer to a request that has changed something.
    pub fn keep_answer(&mut self, request: &RequestId, group: GroupIndex, reply: &Reply<Seen>) {
        let RequestId { seq, fingerprint, .. } = *request;
        let answer = NewAnswer { seq, fingerprint, group, reply: reply.clone() };
        self.answers.new.entry(request.record_key()).or_default().push(answer);
    }

    /// Adds the answers to the writes of the last group.
    pub(super) fn write_answers(&mut self) {
        let Some(last) = self.expected_revisions.last().copied() else {
            return;
        };
        for (key, new) in std::mem::take(&mut self.answers.new) {
            let stored = match self.held(&key) {
                Some(Seen::Stored(record)) if !record.deadline.is_due(self.tip.time_ms) => {
                    Some(record)
                }
                _ => None,
            };
            let mut requests = settled(stored.as_ref());
            for NewAnswer { seq, fingerprint, group, reply } in new {
                let revisions = Revisions { expected: &self.expected_revisions, last };
                let answer = KeptAnswer::new(fingerprint, &reply, group, revisions);
                requests.answers.insert(seq, answer);
            }
            let group = GroupIndex(self.groups.len() - 1);
            self.groups.writes.push(write(key, &requests, group));
        }
        if let Some(end) = self.groups.ends.last_mut() {
            *end = self.groups.writes.len();
        }
    }
}

/// The answers of a record, if there is one, told without regard to when it was written.
fn settled(record: Option<&StoredEntry>) -> Requests {
    let Some(record) = record else {
        return Requests::default();
    };
    let mut requests: Requests = record::decode(&record.value).unwrap_or_default();
    requests.settle(stamp_of(record));
    requests
}

fn stamp_of(record: &StoredEntry) -> GroupStamp {
    GroupStamp { revision: record.mod_revision, time_ms: record.updated_at_ms }
}

fn write(key: Key, requests: &Requests, group: GroupIndex) -> Write {
    let draft = Draft {
        value: record::encode(requests),
        content_type: record::JSON,
        version: 1,
        created: Created::By(group),
        deadline: NewDeadline::After(KEPT_MS),
    };
    Write { key, op: WriteOp::SetUnlogged(draft) }
}
