//! Writes as the scripts take them that apply them: each key once, and each write in as few words as can be, for what costs
//! Redis most is the strings that its Lua makes of them.

use std::io::Write as _;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{
    read::is_internal,
    record::{log_bytes, rest},
};
use crate::backend::{
    Created, Draft, GroupIndex, Groups, Key, NewDeadline, Removal, Revision, Write, WriteOp,
    entry_bytes, is_logged,
};

/// What a commit writes, and which keys it has read.
pub(super) struct Writes {
    /// Which groups take a revision.
    pub logged: Vec<bool>,
    /// First those of users that are written, last internal ones that are; those that were read follow each other.
    keys: Vec<Key>,
    /// How many keys of users are written, and how many internal ones.
    written: [u64; 2],
    /// Where among the keys those begin that were read, and where they end.
    read: [usize; 2],
    /// Of how many keys of users an entry is left, of how many bytes, and by how many bytes the log grows.
    left: [u64; 3],
    words: Vec<Bytes>,
}

impl Writes {
    /// Arranges groups of writes, and the keys that they rely on.
    pub(super) fn of(groups: Groups, reads: &[Key]) -> Self {
        let logged = logged(&groups);
        let mut slots = Slots::default();
        let of_writes: Vec<usize> = groups.writes.iter().map(|write| slots.take(write)).collect();
        let only_read: Vec<Key> =
            reads.iter().filter(|key| !slots.note_read(key)).cloned().collect();
        let (keys, written, read) = slots.arrange(only_read);
        let starts = starts(&groups, &logged);
        let mut words = Vec::with_capacity(3 * groups.writes.len());
        for ((write, slot), start) in groups.writes.into_iter().zip(of_writes).zip(starts) {
            write_words(write, slots.all[slot].number, start, &mut words);
        }
        Self { logged, keys, written, read, left: slots.left(), words }
    }

    /// How many keys are written, and what that comes to.
    pub(super) fn counts(&self) -> impl Iterator<Item = Bytes> {
        self.written.iter().chain(&self.left).map(|count| count.to_string().into())
    }

    /// How many keys there are.
    pub(super) fn key_count(&self) -> Bytes {
        self.keys.len().to_string().into()
    }

    /// The numbers, from one on, of the first and the last key that was read.
    pub(super) fn read(&self) -> [Bytes; 2] {
        let [start, end] = self.read;
        [start + 1, end].map(|number| number.to_string().into())
    }

    /// The keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = Bytes> {
        self.keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes()))
    }

    /// The writes.
    pub(super) fn into_words(self) -> Vec<Bytes> {
        self.words
    }
}

/// The keys that are written.
#[derive(Default)]
struct Slots {
    all: Vec<Slot>,
    index: HashMap<Key, usize>,
    log_bytes: u64,
}

/// A key that is written.
struct Slot {
    key: Key,
    /// Its place among all keys that are written, from one on.
    number: usize,
    is_read: bool,
    /// How large the entry is that is left in the end, if one is.
    left: Option<u64>,
}

impl Slots {
    fn take(&mut self, write: &Write) -> usize {
        let Write { key, op } = write;
        if op.is_logged() {
            self.log_bytes += log_bytes(key, op);
        }
        let size = |draft: &Draft| entry_bytes(key, &draft.content_type, &draft.value);
        let left = op.draft().map(size);
        let index = *self.index.entry(key.clone()).or_insert(self.all.len());
        match self.all.get_mut(index) {
            Some(slot) => slot.left = left,
            None => {
                self.all.push(Slot { key: key.clone(), number: 0, is_read: false, left });
            }
        }
        index
    }

    /// Tells whether a key is written, and if so notes that it was read.
    fn note_read(&mut self, key: &Key) -> bool {
        let index = self.index.get(key);
        let slot = index.map(|index| &mut self.all[*index]);
        slot.map(|slot| slot.is_read = true).is_some()
    }

    /// Numbers what is written. Answers all keys in order, how many of users are written and how many internal ones,
    /// and where those are that were read.
    fn arrange(&mut self, only_read: Vec<Key>) -> (Vec<Key>, [u64; 2], [usize; 2]) {
        let mut keys = Vec::with_capacity(self.all.len() + only_read.len());
        let mut number = 0;
        let mut add = |keys: &mut Vec<Key>, internal: bool, read: bool| {
            let is_such =
                |slot: &&mut Slot| is_internal(&slot.key) == internal && slot.is_read == read;
            for slot in self.all.iter_mut().filter(is_such) {
                number += 1;
                slot.number = number;
                keys.push(slot.key.clone());
            }
        };
        add(&mut keys, false, false);
        let start = keys.len();
        add(&mut keys, false, true);
        let users = keys.len();
        keys.extend(only_read);
        let internals = keys.len();
        add(&mut keys, true, true);
        let end = keys.len();
        add(&mut keys, true, false);
        let written = [users as u64, (keys.len() - internals) as u64];
        (keys, written, [start, end])
    }

    fn left(&self) -> [u64; 3] {
        let of_users = self.all.iter().filter(|slot| !slot.key.is_internal());
        let sizes = of_users.filter_map(|slot| slot.left);
        let (count, bytes) = sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
        [count, bytes, self.log_bytes]
    }
}

/// Which groups take a revision.
fn logged(groups: &Groups) -> Vec<bool> {
    let mut start = 0;
    let group = |end: &usize| {
        let group = &groups.writes[start..*end];
        start = *end;
        is_logged(group)
    };
    groups.ends.iter().map(group).collect()
}

/// What begins with each write: a group that takes a revision, one that takes none, or nothing.
fn starts(groups: &Groups, logged: &[bool]) -> Vec<u8> {
    let mut starts = vec![b'.'; groups.writes.len()];
    let mut start = 0;
    for (end, is_logged) in groups.ends.iter().zip(logged) {
        starts[start] = if *is_logged { b'+' } else { b'-' };
        start = *end;
    }
    starts
}

/// A word that says what to do, the number of the key, and the record after its time; where only the script knows
/// deadline or creation, these two before the rest.
fn write_words(write: Write, number: usize, start: u8, words: &mut Vec<Bytes>) {
    let Write { key, op } = write;
    let kind = match &op {
        WriteOp::Set(_) => b'S',
        WriteOp::SetDeadline(_) => b'T',
        WriteOp::SetUnlogged(_) => b'U',
        WriteOp::RemoveUnlogged => b'X',
        WriteOp::Remove(Removal::Deleted) => b'D',
        WriteOp::Remove(Removal::Ttl) => b'E',
        WriteOp::Remove(Removal::Lease) => b'L',
        WriteOp::Remove(Removal::Revoked) => b'R',
    };
    let log_bytes = log_bytes(&key, &op);
    let number = number.to_string().into();
    let completed = || Bytes::copy_from_slice(&[kind, start, b'*']);
    match op {
        WriteOp::Set(draft) | WriteOp::SetDeadline(draft) | WriteOp::SetUnlogged(draft) => {
            let deadline = deadline(&draft.deadline);
            match created(&draft, &deadline) {
                Ok(known) => {
                    let record = tail(&key, &draft, &known, log_bytes);
                    words.extend([Bytes::copy_from_slice(&[kind, start]), number, record]);
                }
                Err(created) => {
                    let record = tail(&key, &draft, "", log_bytes);
                    words.extend([completed(), number, deadline.into(), created.into(), record]);
                }
            }
        }
        WriteOp::Remove(_) => {
            let [never, created] = ["-", ""].map(|text| Bytes::from_static(text.as_bytes()));
            let record = format!(" {log_bytes} 0 0 0 0\n").into();
            words.extend([completed(), number, never, created, record]);
        }
        WriteOp::RemoveUnlogged => words.extend([Bytes::copy_from_slice(&[kind, start]), number]),
    }
}

/// The deadline as it stands in records; after a `+`, how long after the commit.
fn deadline(deadline: &NewDeadline) -> String {
    match deadline {
        NewDeadline::Never => "-".to_owned(),
        NewDeadline::Of(_) => "@".to_owned(),
        NewDeadline::At(at_ms) => at_ms.to_string(),
        NewDeadline::After(ttl_ms) => format!("+{ttl_ms}"),
    }
}

/// Deadline and creation as they stand in a record, if both are known and the index of deadlines is not concerned; else the
/// creation, after a `#` the group that makes it, counted from one.
fn created(draft: &Draft, deadline: &str) -> Result<String, String> {
    match (draft.created, &draft.deadline) {
        (Created::By(GroupIndex(index)), _) => Err(format!("#{}", index + 1)),
        (Created::Before(Revision(revision), time_ms), NewDeadline::Never | NewDeadline::Of(_)) => {
            Ok(format!(" {deadline} {revision} {time_ms}"))
        }
        (Created::Before(Revision(revision), time_ms), _) => Err(format!("{revision} {time_ms}")),
    }
}

/// A record from what is given on: its first fields, its sizes, and the rest.
fn tail(key: &Key, draft: &Draft, known: &str, log_bytes: u64) -> Bytes {
    let Draft { value, content_type, version, deadline, .. } = draft;
    let reference = deadline.reference();
    let size = entry_bytes(key, content_type, value);
    let length = value.len() + content_type.len() + reference.map_or(0, |it| it.as_bytes().len());
    let mut tail = Vec::with_capacity(128 + length);
    write!(tail, "{known} {log_bytes} {size} ").expect("memory takes all that is written");
    rest(*version, content_type, reference, value, &mut tail);
    tail.into()
}
