//! Answers to requests with an id, as they are kept: several of one client in one record.
//!
//! A record has the numbers of its requests, and a part for each commit that added to it:
//! `{"numbers":[17,18],"parts":[{"answers":[…],"at":[…]},{"answers":[…]}]}`. Of most records only the numbers are ever
//! read: whether a request came before is told by them, and another part is written on where the last one ends.
//!
//! A record is written by the last group of a commit, and the revisions that the commit gives are not known when it is
//! made. So what this very commit wrote is told by how many revisions came after it until the record was written:
//! with the revision of the record, which the backend notes, that is the revision. The next commit that adds to the
//! record writes that revision down.

use std::cell::Cell;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{base64, decode};
use crate::{
    backend::{
        ContentType, Created, Deadline, Entry, GroupIndex, GroupStamp, Key, NewDeadline, Revision,
        StoredEntry,
    },
    store::{
        RequestId,
        command::{EntryView, OperationReply, Reply, Set, SetReply},
        keys,
        workspace::Seen,
    },
};

/// How many requests of a client, by their numbers, share a record.
const PER_RECORD: u64 = 16;
/// Most bytes of values that are kept with an answer; of larger ones it is said that they are left out.
const MAX_VALUE_BYTES: usize = 4096;
/// About the most bytes that an answer keeps of lists; what is beyond is left out as if the list had been cut there.
const MAX_LIST_BYTES: usize = 65_536;

/// Names a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct RecordName {
    /// Whose answers it has.
    pub client: u64,
    /// The numbers of their requests, divided by how many share a record.
    pub bucket: u64,
}

impl RecordName {
    /// The record that has the answer to a request.
    pub fn of(request: &RequestId) -> Self {
        Self { client: request.client, bucket: Self::first_bucket(request.seq) }
    }

    /// The first bucket that has, or may have, answers to a request or to those after it.
    pub fn first_bucket(seq: u64) -> u64 {
        seq / PER_RECORD
    }

    /// The first request after those that may be in the record.
    pub fn end(self) -> u64 {
        (self.bucket + 1).saturating_mul(PER_RECORD)
    }

    /// The record under a key.
    pub fn parse(key: &Key) -> Option<Self> {
        let (client, bucket) = keys::parse_requests(key)?;
        Some(Self { client, bucket })
    }

    /// The key that it stands under.
    pub fn key(self) -> Key {
        keys::requests(self.client, self.bucket)
    }
}

/// What one commit added to a record.
#[derive(Debug, Deserialize)]
struct Part {
    answers: Vec<KeptAnswer>,
    /// Revision and time of the record then; absent of the last part: those that it has.
    at: Option<(u64, i64)>,
}

/// A record in full.
#[derive(Debug, Deserialize)]
struct Stored {
    parts: Vec<Part>,
}

/// How a record begins; a list of numbers follows, and what comes between that and the parts.
const HEAD: &[u8] = br#"{"numbers":"#;
const BETWEEN: &[u8] = br#","parts":["#;

/// What stands in the place of a record once the client is done with all its requests: a copy of one that comes late, by
/// whatever server, is not to be applied.
pub const DONE: &[u8] = br#"{"done":true}"#;

/// The numbers of the requests whose answers a record has; `None` if it cannot be read.
pub fn numbers(record: &[u8]) -> Option<Vec<u64>> {
    decode(record.get(HEAD.len()..end_of_numbers(record))?)
}

/// The answer to a request, if a record has it, with the stamp of the commit that kept it.
pub fn find(record: &StoredEntry, seq: u64) -> Option<(KeptAnswer, GroupStamp)> {
    let stored: Stored = decode(&record.value)?;
    stored.parts.into_iter().find_map(|Part { answers, at }| {
        let answer = answers.into_iter().find(|answer| answer.0 == seq)?;
        let written = at.map_or(stamp_of(record), |(revision, time_ms)| GroupStamp {
            revision: Revision(revision),
            time_ms,
        });
        Some((answer, written))
    })
}

/// A record that is being added to.
#[derive(Debug)]
pub struct RecordWriter {
    stored: Option<StoredEntry>,
    numbers: Vec<u64>,
    answers: Vec<u8>,
    count: u64,
}

impl RecordWriter {
    /// One that adds to a record that has these numbers, or makes a new one.
    pub fn new(stored: Option<StoredEntry>, numbers: Vec<u64>) -> Self {
        const ROOM: usize = 2048;
        Self { stored, numbers, answers: Vec::with_capacity(ROOM), count: 0 }
    }

    /// Adds an answer that is not there yet.
    pub fn add(&mut self, answer: &KeptAnswer) {
        if self.count > 0 {
            self.answers.push(b',');
        }
        self.count += 1;
        self.numbers.push(answer.0);
        write_json(&mut self.answers, answer);
    }

    /// How many answers were added.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The record.
    pub fn finish(self) -> Bytes {
        const ROOM: usize = 512;
        let Self { stored, numbers, answers, .. } = self;
        let known = stored.as_ref().map_or(&b""[..], |stored| &stored.value);
        let mut json = Vec::with_capacity(known.len() + answers.len() + ROOM);
        json.extend_from_slice(HEAD);
        write_json(&mut json, &numbers);
        json.extend_from_slice(BETWEEN);
        let after = known.get(end_of_numbers(known)..);
        let parts = after.and_then(|after| after.strip_prefix(BETWEEN));
        // `…{"answers":[…]}]}` becomes `…{"answers":[…],"at":[…]},{"answers":[…]}]}`.
        if let Some((stored, open)) =
            stored.as_ref().zip(parts.and_then(|it| it.strip_suffix(b"}]}")))
        {
            let GroupStamp { revision, time_ms } = stamp_of(stored);
            json.extend_from_slice(open);
            json.extend_from_slice(br#","at":"#);
            write_json(&mut json, &(revision.0, time_ms));
            json.extend_from_slice(b"},");
        }
        json.extend_from_slice(br#"{"answers":["#);
        json.extend_from_slice(&answers);
        json.extend_from_slice(b"]}]}");
        json.into()
    }
}

/// An answer that is kept: number and fingerprint of its request, how many revisions before that of its part it was
/// committed, and what it was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptAnswer(u64, u64, u64, KeptReply);

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum KeptReply {
    /// Of a set that was answered by what it wrote and nothing else: the version, when the entry was created, if not by
    /// this, and its deadline. Most answers are such.
    Set(u64, Option<KeptStamp>, KeptDeadline),
    /// Any other.
    Other(Reply<KeptEntry>),
}

/// A revision and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum KeptStamp {
    /// As they are.
    At(u64, i64),
    /// So many revisions before that of the part, at its time.
    Back(u64),
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct KeptEntry {
    /// Absent: that which the request has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(with = "base64", default, skip_serializing_if = "Bytes::is_empty")]
    value: Bytes,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_value_omitted: bool,
    /// Absent: that which the request has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content_type: Option<String>,
    version: u64,
    /// Absent: when it was modified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    created: Option<KeptStamp>,
    /// Absent: by what was answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modified: Option<KeptStamp>,
    #[serde(default, skip_serializing_if = "KeptDeadline::is_never")]
    deadline: KeptDeadline,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptDeadline {
    #[default]
    Never,
    At(i64),
    /// So many milliseconds after the commit.
    After(u64),
    Of(String),
}

/// What is known of the revisions of a commit while it is being made.
#[derive(Debug, Clone, Copy)]
pub struct Revisions<'a> {
    /// The one that each group will have, if nobody else commits in between.
    pub expected: &'a [Revision],
    /// The last of them.
    pub last: Revision,
}

/// An answer to be kept, and what its parts are told by.
struct Keeping<'a> {
    /// What need not be said again.
    asked: Option<&'a Set>,
    group: GroupIndex,
    revisions: Revisions<'a>,
    /// How many bytes of values there is still room for.
    room: Cell<usize>,
}

impl KeptAnswer {
    /// The answer to a request, given by a group of this commit. Where it was a set, that says some of it.
    pub fn new(
        request: &RequestId,
        asked: Option<&Set>,
        reply: &Reply<Seen>,
        group: GroupIndex,
        revisions: Revisions<'_>,
    ) -> Self {
        let keeping = Keeping { asked, group, revisions, room: Cell::new(MAX_VALUE_BYTES) };
        let RequestId { seq, fingerprint, .. } = *request;
        Self(seq, fingerprint, revisions.back(group), keeping.reply(reply))
    }

    /// What its request is told from others by.
    pub fn fingerprint(&self) -> u64 {
        self.1
    }

    /// The same for a commit whose only revision is that of the record.
    pub fn of_whole(request: &RequestId, reply: &Reply<Seen>) -> Self {
        let revisions = Revisions { expected: &[], last: Revision(0) };
        Self::new(request, None, reply, GroupIndex(0), revisions)
    }

    /// Where it was committed, and what it was, if a commit at `written` kept it.
    pub fn recall(
        self,
        asked: Option<&Set>,
        written: GroupStamp,
    ) -> (GroupStamp, Reply<EntryView>) {
        let Self(_, _, back, reply) = self;
        let at = KeptStamp::Back(back).resolve(written);
        let reply = match reply {
            KeptReply::Set(version, created, deadline) => {
                let entry = KeptEntry { version, created, deadline, ..KeptEntry::default() };
                Reply::Set(SetReply { entry, created: version == 1, previous: None })
            }
            KeptReply::Other(reply) => reply,
        };
        (at, reply.map(&|entry| entry.recall(asked, at, written)))
    }
}

impl KeptStamp {
    fn resolve(self, written: GroupStamp) -> GroupStamp {
        match self {
            Self::At(revision, time_ms) => GroupStamp { revision: Revision(revision), time_ms },
            Self::Back(revisions) => {
                let revision = Revision(written.revision.0.saturating_sub(revisions));
                GroupStamp { revision, ..written }
            }
        }
    }
}

impl Revisions<'_> {
    /// How many revisions before the last a group has its own; one that is not there took none.
    fn back(self, GroupIndex(group): GroupIndex) -> u64 {
        let revision = self.expected.get(group).copied().unwrap_or(self.last);
        self.last.0.saturating_sub(revision.0)
    }
}

impl Keeping<'_> {
    fn reply(&self, reply: &Reply<Seen>) -> KeptReply {
        if let Reply::Set(SetReply { entry: Seen::Pending(pending), previous: None, .. }) = reply
            && self.asked.is_some()
        {
            let created = self.created(pending.draft.created);
            let created = (created != self.stamp(self.group)).then_some(created);
            let deadline = KeptDeadline::of(pending.draft.deadline.clone());
            return KeptReply::Set(pending.draft.version, created, deadline);
        }
        let mut reply = reply.clone();
        shorten_lists(&mut reply);
        KeptReply::Other(reply.map(&|seen| self.entry(&seen)))
    }

    fn entry(&self, seen: &Seen) -> KeptEntry {
        let created = self.created(seen.created());
        let modified = match seen {
            Seen::Stored(stored) => KeptStamp::At(stored.mod_revision.0, stored.updated_at_ms),
            Seen::Pending(pending) => self.stamp(pending.group),
        };
        let room = &self.room;
        // The records of locks and leases are never large, and nothing can be told without them.
        let is_value_omitted = seen.value().len() > room.get() && !seen.key().is_internal();
        if !is_value_omitted {
            room.set(room.get().saturating_sub(seen.value().len()));
        }
        let is_asked = |asked: &&Set| asked.key == *seen.key();
        let asked_type = self.asked.map(|asked| &asked.content_type);
        KeptEntry {
            key: self.asked.filter(is_asked).is_none().then(|| text(seen.key().as_bytes())),
            value: if is_value_omitted { Bytes::new() } else { seen.value().clone() },
            is_value_omitted,
            content_type: (asked_type != Some(seen.content_type()))
                .then(|| text(seen.content_type())),
            version: seen.version(),
            created: (created != modified).then_some(created),
            modified: (modified != self.stamp(self.group)).then_some(modified),
            deadline: KeptDeadline::of(seen.deadline()),
        }
    }

    fn created(&self, created: Created) -> KeptStamp {
        match created {
            Created::Before(revision, time_ms) => KeptStamp::At(revision.0, time_ms),
            Created::By(group) => self.stamp(group),
        }
    }

    fn stamp(&self, group: GroupIndex) -> KeptStamp {
        KeptStamp::Back(self.revisions.back(group))
    }
}

impl KeptEntry {
    fn recall(self, asked: Option<&Set>, answered: GroupStamp, written: GroupStamp) -> EntryView {
        let modified = self.modified.map_or(answered, |stamp| stamp.resolve(written));
        let created = self.created.map_or(modified, |stamp| stamp.resolve(written));
        let asked_key = || asked.map_or(Key::new(b""), |asked| asked.key.clone());
        let asked_type = || asked.map_or(ContentType::UNKNOWN, |asked| asked.content_type.clone());
        let key = self.key.map_or_else(asked_key, |key| Key::new(key.as_bytes()));
        let entry = Entry {
            value: self.value,
            content_type: self.content_type.map_or_else(asked_type, |it| ContentType::from(&*it)),
            version: self.version,
            create_revision: created.revision,
            mod_revision: modified.revision,
            created_at_ms: created.time_ms,
            updated_at_ms: modified.time_ms,
            deadline: match self.deadline {
                KeptDeadline::Never => Deadline::Never,
                KeptDeadline::At(at_ms) => Deadline::At(at_ms),
                KeptDeadline::After(ttl_ms) => {
                    Deadline::At(modified.time_ms.saturating_add_unsigned(ttl_ms))
                }
                KeptDeadline::Of(key) => Deadline::Of(Box::new(Key::new(key.as_bytes()))),
            },
        };
        let view = Box::new((key, entry));
        match self.is_value_omitted {
            true => EntryView::WithoutValue(view),
            false => EntryView::Written(view),
        }
    }
}

fn shorten_lists(reply: &mut Reply<Seen>) {
    let Reply::Transact(transaction) = reply else {
        return;
    };
    let mut bytes = 0;
    for result in &mut transaction.results {
        let OperationReply::List { entries, more, .. } = result else {
            continue;
        };
        let fitting = entries.iter().take_while(|entry| {
            // About what else there is to an entry.
            bytes += entry.key().as_bytes().len() + 128;
            bytes <= MAX_LIST_BYTES
        });
        let fitting = fitting.count();
        *more |= fitting < entries.len();
        entries.truncate(fitting);
    }
}

impl KeptDeadline {
    fn of(deadline: NewDeadline) -> Self {
        match deadline {
            NewDeadline::Never => Self::Never,
            NewDeadline::At(at_ms) => Self::At(at_ms),
            NewDeadline::After(ttl_ms) => Self::After(ttl_ms),
            NewDeadline::Of(key) => Self::Of(text(key.as_bytes())),
        }
    }

    fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// Keys and content types are text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Where the list of numbers of a record ends.
fn end_of_numbers(record: &[u8]) -> usize {
    record.iter().position(|byte| *byte == b']').map_or(0, |end| end + 1)
}

fn write_json(json: &mut Vec<u8>, what: &impl Serialize) {
    serde_json::to_writer(json, what).expect("answers have nothing that JSON cannot say");
}

/// Where and when a record was written last.
fn stamp_of(record: &StoredEntry) -> GroupStamp {
    GroupStamp { revision: record.mod_revision, time_ms: record.updated_at_ms }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Change, ChangeKind, SharedChange};

    fn stored(revision: u64, value: Bytes) -> StoredEntry {
        let entry = Entry {
            value,
            content_type: ContentType::UNKNOWN,
            version: 1,
            create_revision: Revision(revision),
            mod_revision: Revision(revision),
            created_at_ms: 7,
            updated_at_ms: 7,
            deadline: Deadline::Never,
        };
        let stamp = GroupStamp { revision: Revision(revision), time_ms: 7 };
        let change = Change::new(Key::new(b"k"), stamp, ChangeKind::Set, Some(entry), None);
        StoredEntry::of(SharedChange::new(change)).unwrap()
    }

    /// What is answered with the number of the request, by the first of two groups of a commit.
    fn add(record: Option<StoredEntry>, seqs: &[u64]) -> Bytes {
        let numbers = record.as_ref().map_or(Vec::new(), |it| numbers(&it.value).unwrap());
        let mut writer = RecordWriter::new(record, numbers);
        let expected = [Revision(1), Revision(2)];
        for seq in seqs {
            let request = RequestId { client: 1, seq: *seq, done_below: 1, fingerprint: 9 };
            let revisions = Revisions { expected: &expected, last: Revision(2) };
            let reply = Reply::Increment(*seq as i64);
            writer.add(&KeptAnswer::new(&request, None, &reply, GroupIndex(0), revisions));
        }
        writer.finish()
    }

    #[test]
    fn answers_of_several_commits_keep_their_revisions() {
        let first = stored(100, add(None, &[3, 1]));
        let second = stored(200, add(Some(first), &[2]));
        let third = stored(300, add(Some(second), &[4, 5]));
        assert_eq!(numbers(&third.value).unwrap(), [3, 1, 2, 4, 5]);
        for (seq, revision) in [(1, 99), (3, 99), (2, 199), (4, 299), (5, 299)] {
            let (answer, written) = find(&third, seq).unwrap();
            let (at, reply) = answer.recall(None, written);
            assert_eq!(at.revision, Revision(revision));
            assert!(matches!(reply, Reply::Increment(value) if value == seq as i64));
        }
        assert!(find(&third, 6).is_none());
    }

    #[test]
    fn what_is_no_record_has_no_numbers() {
        for text in ["", "{}", "[", "{\"numbers\":[1", "{\"numbers\":[x]}"] {
            assert_eq!(numbers(text.as_bytes()), None, "{text}");
        }
    }
}
