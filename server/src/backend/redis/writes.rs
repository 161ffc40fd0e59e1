//! Writes as the scripts take them that apply them: each key once, and each write in as few words as can be, for what costs
//! Redis most is the strings that its Lua makes of them.

use std::mem;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{
    read::is_internal,
    record::{NEVER, OF_KEY, empty_rest, log_bytes, rest},
};
use crate::backend::{
    Created, Draft, GroupIndex, Groups, Key, NewDeadline, Removal, Revision, Write, WriteOp,
    entry_bytes, is_logged,
};

/// What a commit writes, and which keys it has read.
pub(super) struct Writes {
    /// Which groups take a revision.
    pub logged: Vec<bool>,
    /// First those of users that are written, then internal ones; then those of both that are only removed without a trace;
    /// and at the end those that were read and not written.
    keys: Vec<Key>,
    /// How many there are of each.
    counts: [usize; 5],
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
        let only_read = reads.iter().filter(|key| !slots.note_read(key)).cloned().collect();
        let (keys, counts) = slots.arrange(only_read);
        let (left, starts) = (slots.left(), starts(&groups, &logged));
        let mut words = Words { all: Vec::with_capacity(2 * groups.writes.len()), last: None };
        for ((write, slot), start) in groups.writes.into_iter().zip(of_writes).zip(starts) {
            write_words(write, slots.all[slot].mention(), start, &mut words);
        }
        Self { logged, keys, counts, left, words: words.finish() }
    }

    /// How many keys are written in which way, and what that comes to.
    pub(super) fn counts(&self) -> impl Iterator<Item = Bytes> {
        let counts = self.counts[..4].iter().map(|count| count.to_string().into());
        counts.chain(self.left.iter().map(|count| count.to_string().into()))
    }

    /// How many keys were read and are not written.
    pub(super) fn only_read(&self) -> Bytes {
        self.counts[4].to_string().into()
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

/// Words as they are made.
struct Words {
    all: Vec<Bytes>,
    /// What the last write is said by, where that stands, and of how many in a row.
    last: Option<(Word, usize, usize)>,
}

/// Kind, start of a group, form, which key, whether that was read.
type Word = [u8; 5];

impl Words {
    /// Says what to do; where that is said already, it is so for one more.
    fn say(&mut self, word: Word) {
        match &mut self.last {
            Some((last, _, times)) if *last == word => *times += 1,
            _ => {
                self.count();
                self.last = Some((word, self.all.len(), 1));
                self.all.push(Bytes::copy_from_slice(&word));
            }
        }
    }

    /// Writes down of how many writes the last word is.
    fn count(&mut self) {
        if let Some((word, place, times)) = self.last
            && times > 1
        {
            self.all[place] = [&word[..], times.to_string().as_bytes()].concat().into();
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.count();
        self.all
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
    /// Whether it is only removed without a trace: nothing need be known of it.
    is_only_dropped: bool,
    is_mentioned: bool,
    /// How large the entry is that is left in the end, if one is.
    left: Option<u64>,
}

/// How a write says which key it is of.
enum Mention {
    /// The next one of its kind, and whether it was read.
    Next { letter: u8, is_read: bool },
    /// The one with this number, which was written before.
    Again(usize),
    /// It need not be said.
    Dropped,
}

impl Slots {
    fn take(&mut self, write: &Write) -> usize {
        let Write { key, op } = write;
        if op.is_logged() {
            self.log_bytes += log_bytes(key, op);
        }
        let size = |draft: &Draft| entry_bytes(key, &draft.content_type, &draft.value);
        let left = op.draft().map(size);
        let is_only_dropped = matches!(op, WriteOp::RemoveUnlogged);
        let index = *self.index.entry(key.clone()).or_insert(self.all.len());
        match self.all.get_mut(index) {
            Some(slot) => {
                slot.left = left;
                slot.is_only_dropped &= is_only_dropped;
            }
            None => self.all.push(Slot {
                key: key.clone(),
                number: 0,
                is_read: false,
                is_only_dropped,
                is_mentioned: false,
                left,
            }),
        }
        index
    }

    /// Tells whether a key is written and will be told to have been read with that; if so notes that it was.
    fn note_read(&mut self, key: &Key) -> bool {
        let index = self.index.get(key);
        let slot = index.map(|index| &mut self.all[*index]);
        slot.filter(|slot| !slot.is_only_dropped).map(|slot| slot.is_read = true).is_some()
    }

    /// Numbers what is written. Answers all keys in order, and how many there are of each kind.
    fn arrange(&mut self, only_read: Vec<Key>) -> (Vec<Key>, [usize; 5]) {
        let mut keys = Vec::with_capacity(self.all.len() + only_read.len());
        let kinds = [(false, false), (false, true), (true, false), (true, true)];
        let counts = kinds.map(|(is_dropped, internal)| {
            let before = keys.len();
            let is_such = |slot: &&mut Slot| {
                slot.is_only_dropped == is_dropped && is_internal(&slot.key) == internal
            };
            for slot in self.all.iter_mut().filter(is_such) {
                keys.push(slot.key.clone());
                slot.number = keys.len();
            }
            keys.len() - before
        });
        let [users, internals, dropped_users, dropped_internals] = counts;
        let counts = [users, internals, dropped_users, dropped_internals, only_read.len()];
        keys.extend(only_read);
        (keys, counts)
    }

    fn left(&self) -> [u64; 3] {
        let of_users = self.all.iter().filter(|slot| !slot.key.is_internal());
        let sizes = of_users.filter_map(|slot| slot.left);
        let (count, bytes) = sizes.fold((0, 0), |(count, sum), size| (count + 1, sum + size));
        [count, bytes, self.log_bytes]
    }
}

impl Slot {
    /// How the next of its writes says which key it is of.
    fn mention(&mut self) -> Mention {
        if self.is_only_dropped {
            return Mention::Dropped;
        }
        if mem::replace(&mut self.is_mentioned, true) {
            return Mention::Again(self.number);
        }
        let letter = match () {
            () if is_internal(&self.key) => b'i',
            () if self.key.is_internal() => b'o',
            () => b'u',
        };
        Mention::Next { letter, is_read: self.is_read }
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

/// A word that says what to do, unless the last one does, the number of the key if it has been written before, and the record
/// after its time; where only the script knows deadline or creation, these two before the rest.
fn write_words(write: Write, mention: Mention, start: u8, words: &mut Words) {
    let Write { op, .. } = write;
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
    let (letter, read, number) = match mention {
        Mention::Next { letter, is_read } => (letter, if is_read { b'r' } else { b'-' }, None),
        Mention::Again(number) => (b'n', b'-', Some(number)),
        // But for the beginning of a group there is nothing to be told.
        Mention::Dropped if start == b'.' => return,
        Mention::Dropped => (b'.', b'-', None),
    };
    let word = |form: u8| [kind, start, form, letter, read];
    let number = number.map(|number| number.to_string().into());
    match op {
        WriteOp::Set(draft) | WriteOp::SetDeadline(draft) | WriteOp::SetUnlogged(draft) => {
            let deadline = deadline(&draft.deadline);
            match created(&draft, &deadline) {
                Ok(known) => {
                    words.say(word(b'.'));
                    words.all.extend(number);
                    words.all.push(tail(&draft, &known));
                }
                Err(created) => {
                    words.say(word(b'*'));
                    words.all.extend(number);
                    words.all.extend([deadline.into(), created.into(), tail(&draft, "")]);
                }
            }
        }
        WriteOp::Remove(_) => {
            words.say(word(b'*'));
            words.all.extend(number);
            words.all.extend([Bytes::from_static(NEVER.as_bytes()), Bytes::new(), empty_rest()]);
        }
        WriteOp::RemoveUnlogged => {
            words.say(word(b'.'));
            words.all.extend(number);
        }
    }
}

/// The deadline as it stands in records; after a `+`, how long after the commit.
fn deadline(deadline: &NewDeadline) -> String {
    match deadline {
        NewDeadline::Never => NEVER.to_owned(),
        NewDeadline::Of(_) => OF_KEY.to_owned(),
        NewDeadline::At(at_ms) => format!("{:014}", at_ms.max(&0)),
        NewDeadline::After(ttl_ms) => format!("+{ttl_ms}"),
    }
}

/// Deadline and creation as they stand in a record, if both are known and the index of deadlines is not concerned; else the
/// creation, after a `#` the group that makes it, counted from one.
fn created(draft: &Draft, deadline: &str) -> Result<String, String> {
    match (draft.created, &draft.deadline) {
        (Created::By(GroupIndex(index)), _) => Err(format!("#{}", index + 1)),
        (Created::Before(Revision(revision), time_ms), NewDeadline::Never | NewDeadline::Of(_)) => {
            Ok(format!(" {deadline} {revision:016} {time_ms:014}"))
        }
        (Created::Before(Revision(revision), time_ms), _) => {
            Err(format!("{revision:016} {time_ms:014}"))
        }
    }
}

/// A record from what is given on: its first fields, and the rest.
fn tail(draft: &Draft, known: &str) -> Bytes {
    let Draft { value, content_type, version, deadline, .. } = draft;
    let reference = deadline.reference();
    let length = value.len() + content_type.len() + reference.map_or(0, |it| it.as_bytes().len());
    let mut tail = Vec::with_capacity(96 + length);
    tail.extend_from_slice(known.as_bytes());
    rest(*version, content_type, reference, value, &mut tail);
    tail.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_in_a_row_that_are_said_by_the_same_word_share_it() {
        let mut words = Words { all: Vec::new(), last: None };
        for (word, rest) in [(b"S+.ur", "a"), (b"S+.ur", "b"), (b"S+.u-", "c"), (b"S+.ur", "d")] {
            words.say(*word);
            words.all.push(rest.into());
        }
        assert_eq!(words.finish(), ["S+.ur2", "a", "b", "S+.u-", "c", "S+.ur", "d"]);
    }
}
