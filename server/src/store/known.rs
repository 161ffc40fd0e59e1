//! What keys hold since the last commit from here, where to read that again would take long.
//!
//! Who goes by it relies on it: the commit finds out if another server has changed it since.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::record::request;
use crate::backend::{
    Committed, Draft, GroupStamp, Groups, Key, ReadAnswer, StoredEntry, Tip, Write, WriteOp,
};

/// For how long it is used after nobody else was seen to have committed: of what no read set names, such as how much there is,
/// others change more and more.
const LASTS_MS: i64 = 100;
/// For how long it is held: a read that finds nothing committed since makes it good again.
const HELD_MS: i64 = 10_000;
/// About the most bytes of a namespace, and of all.
const MAX_BYTES: usize = 16 << 20;
const MAX_BYTES_OF_ALL: usize = 128 << 20;
/// What is larger is read as quickly as it is copied.
const MAX_VALUE_BYTES: usize = 16 << 10;
/// What an entry takes beside its key and value, about.
const ENTRY_OVERHEAD: usize = 256;

/// How many bytes all namespaces hold.
static BYTES_OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// What is known of a namespace.
#[derive(Default)]
pub struct Known {
    since: Mutex<Option<Since>>,
    /// Whether all that was asked for last was known.
    suffices: AtomicBool,
}

/// What is known since a commit.
struct Since {
    /// Where the namespace stands, as far as is known,
    tip: Tip,
    /// and what the clock of timers showed when that was seen.
    clock_ms: i64,
    entries: HashMap<Key, Option<StoredEntry>>,
    bytes: usize,
}

impl Known {
    /// What keys hold, if all are known.
    pub fn recall(&self, keys: &[Key], clock_ms: i64) -> Option<ReadAnswer> {
        let since = self.since.lock();
        let since = since.as_ref().filter(|since| clock_ms - since.clock_ms <= LASTS_MS);
        let answer = since.and_then(|since| {
            let entries = keys.iter().map(|key| since.entries.get(key).cloned());
            Some(ReadAnswer { tip: since.tip, entries: entries.collect::<Option<_>>()? })
        });
        self.suffices.store(answer.is_some(), Ordering::Relaxed);
        answer
    }

    /// Whether it is likely that what is asked for next is known.
    pub fn suffices(&self) -> bool {
        self.suffices.load(Ordering::Relaxed)
    }

    /// Takes in what was read, if that was after the last commit and before any other.
    pub fn learn(&self, keys: &[Key], answer: &ReadAnswer, clock_ms: i64) {
        let mut since = self.since.lock();
        let Some(since) = since.as_mut().filter(|it| it.tip.position == answer.tip.position) else {
            return;
        };
        (since.tip, since.clock_ms) = (answer.tip, clock_ms);
        for (key, entry) in keys.iter().zip(&answer.entries) {
            since.note(key, entry.clone());
        }
    }

    /// Takes in a commit and what it wrote.
    pub fn commit(&self, written: Groups, committed: &Committed, clock_ms: i64) {
        if written.is_empty() {
            return;
        }
        let mut since = self.since.lock();
        let tip = committed.tip;
        let next = since.as_ref().map(|since| since.tip.position.0 + 1);
        // Others may have written anything in between.
        let since = match since.as_mut().filter(|_| next == Some(tip.position.0)) {
            Some(since) => since,
            None => since.insert(Since::new(tip)),
        };
        (since.tip, since.clock_ms) = (tip, clock_ms);
        let stamps = &committed.stamps;
        let mut writes = written.writes.into_iter();
        let mut start = 0;
        for (end, stamp) in written.ends.into_iter().zip(stamps) {
            for write in writes.by_ref().take(end - start) {
                since.note_write(write, *stamp, stamps);
            }
            start = end;
        }
    }

    /// Forgets what is too old to be used.
    pub fn forget_old(&self, clock_ms: i64) {
        let mut since = self.since.lock();
        if since.as_ref().is_some_and(|since| clock_ms - since.clock_ms > HELD_MS) {
            *since = None;
        }
    }
}

impl Since {
    fn new(tip: Tip) -> Self {
        Self { tip, clock_ms: 0, entries: HashMap::new(), bytes: 0 }
    }

    fn note_write(&mut self, write: Write, stamp: GroupStamp, stamps: &[GroupStamp]) {
        let Write { key, op } = write;
        let draft = match op {
            WriteOp::Set(draft) | WriteOp::SetDeadline(draft) | WriteOp::SetUnlogged(draft) => {
                draft
            }
            WriteOp::Remove(_) => return self.note(&key, None),
            // Nobody asks for what is removed like that again.
            WriteOp::RemoveUnlogged => return self.forget(&key),
        };
        // The record of answers that its client is done with is not asked for again either.
        if draft.value.len() > MAX_VALUE_BYTES || draft.value == request::DONE {
            return self.forget(&key);
        }
        // It is a part of a message, which would stay as a whole.
        let value = Bytes::copy_from_slice(&draft.value);
        let entry = Draft { value, ..draft }.stamp(stamp, stamps);
        self.note(&key, Some(StoredEntry::alone(key.clone(), entry)));
    }

    fn note(&mut self, key: &Key, entry: Option<StoredEntry>) {
        let bytes = bytes(key, entry.as_ref());
        if bytes > ENTRY_OVERHEAD + MAX_VALUE_BYTES {
            return self.forget(key);
        }
        let is_full = self.bytes + bytes > MAX_BYTES
            || BYTES_OF_ALL.load(Ordering::Relaxed) + bytes > MAX_BYTES_OF_ALL;
        if is_full {
            self.entries.clear();
            self.count(0);
        }
        let former = self.entries.insert(key.clone(), entry);
        let freed = former.map_or(0, |former| self::bytes(key, former.as_ref()));
        self.count(self.bytes + bytes - freed);
    }

    fn forget(&mut self, key: &Key) {
        if let Some(former) = self.entries.remove(key) {
            self.count(self.bytes - bytes(key, former.as_ref()));
        }
    }

    /// Takes note of how much is held.
    fn count(&mut self, bytes: usize) {
        BYTES_OF_ALL.fetch_add(bytes, Ordering::Relaxed);
        BYTES_OF_ALL.fetch_sub(std::mem::replace(&mut self.bytes, bytes), Ordering::Relaxed);
    }
}

impl Drop for Since {
    fn drop(&mut self) {
        self.count(0);
    }
}

fn bytes(key: &Key, entry: Option<&StoredEntry>) -> usize {
    ENTRY_OVERHEAD + key.as_bytes().len() + entry.map_or(0, |entry| entry.value.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{
        ContentType, Created, Deadline, GroupIndex, LogShape, NewDeadline, Position, Removal,
        Revision, Usage,
    };

    const KEY: &[u8] = b"k";

    fn tip(position: u64) -> Tip {
        Tip {
            position: Position(position),
            revision: Revision(position),
            time_ms: 1000,
            lineage: None,
            compacted: Revision(0),
            cleared: Revision(0),
            usage: Usage::default(),
        }
    }

    fn set(value: &[u8]) -> WriteOp {
        WriteOp::Set(Draft {
            value: Bytes::copy_from_slice(value),
            content_type: ContentType::UNKNOWN,
            version: 1,
            created: Created::By(GroupIndex(0)),
            deadline: NewDeadline::After(5),
        })
    }

    /// Commits one write at a position, when the clock shows 0.
    fn commit(known: &Known, position: u64, key: &[u8], op: WriteOp) {
        let mut written = Groups::default();
        written.writes.push(Write { key: Key::new(key), op });
        written.end_group();
        let tip = tip(position);
        let committed = Committed {
            stamps: vec![GroupStamp { revision: tip.revision, time_ms: tip.time_ms }],
            before: Revision(position - 1),
            tip,
            next_deadline_ms: None,
            log: LogShape::default(),
        };
        known.commit(written, &committed, 0);
    }

    /// The values of keys, if all are known; absent keys have none.
    fn recall(known: &Known, keys: &[&[u8]]) -> Option<Vec<Option<Bytes>>> {
        let keys: Vec<_> = keys.iter().map(|key| Key::new(key)).collect();
        let answer = known.recall(&keys, 0)?;
        Some(answer.entries.iter().map(|it| it.as_ref().map(|it| it.value.clone())).collect())
    }

    #[test]
    fn what_was_committed_is_known_as_it_is_stored() {
        let known = Known::default();
        commit(&known, 8, KEY, set(b"v"));
        let answer = known.recall(&[Key::new(KEY)], 0).unwrap();
        let entry = answer.entries[0].clone().unwrap();
        assert_eq!((&entry.value[..], entry.mod_revision), (&b"v"[..], Revision(8)));
        assert_eq!((entry.create_revision, entry.created_at_ms), (Revision(8), 1000));
        assert_eq!(entry.deadline, Deadline::At(1005));
        assert_eq!(answer.tip.position, Position(8));
    }

    #[test]
    fn a_key_that_was_removed_is_known_to_be_absent_and_one_that_was_never_seen_is_not_known() {
        let known = Known::default();
        commit(&known, 1, KEY, set(b"v"));
        commit(&known, 2, KEY, WriteOp::Remove(Removal::Deleted));
        assert_eq!(recall(&known, &[KEY]), Some(vec![None]));
        assert_eq!(recall(&known, &[KEY, b"other"]), None);
        assert!(!known.suffices());
    }

    #[test]
    fn what_others_may_have_changed_in_between_is_forgotten() {
        let known = Known::default();
        commit(&known, 1, KEY, set(b"v"));
        commit(&known, 2, b"other", set(b"w"));
        assert!(recall(&known, &[KEY]).is_some());
        commit(&known, 4, b"other", set(b"x"));
        assert_eq!(recall(&known, &[KEY]), None);
        assert!(recall(&known, &[b"other"]).is_some());
    }

    #[test]
    fn only_reads_since_the_last_commit_are_taken_in() {
        let known = Known::default();
        let nothing = |position| ReadAnswer { tip: tip(position), entries: vec![None] };
        commit(&known, 1, b"other", set(b"v"));
        for (position, expected) in [(0, None), (2, None), (1, Some(vec![None]))] {
            known.learn(&[Key::new(KEY)], &nothing(position), 0);
            assert_eq!(recall(&known, &[KEY]), expected, "read at {position}");
        }
    }

    #[test]
    fn what_is_old_is_good_again_after_a_read_that_finds_nothing_committed_since() {
        let known = Known::default();
        commit(&known, 1, KEY, set(b"v"));
        let is_known = |clock_ms| known.recall(&[Key::new(KEY)], clock_ms).is_some();
        assert!(is_known(LASTS_MS) && !is_known(LASTS_MS + 1));
        known.forget_old(HELD_MS);
        known.learn(&[], &ReadAnswer { tip: tip(1), entries: Vec::new() }, HELD_MS);
        assert!(is_known(HELD_MS + LASTS_MS));
        known.forget_old(2 * HELD_MS + 1);
        assert!(!is_known(HELD_MS));
    }

    #[test]
    fn what_is_held_is_bounded() {
        let known = Known::default();
        let large = vec![b'x'; MAX_VALUE_BYTES];
        let count = 2 * MAX_BYTES / MAX_VALUE_BYTES;
        for number in 1..=count as u64 {
            commit(&known, number, &number.to_be_bytes(), set(&large));
            let since = known.since.lock();
            let since = since.as_ref().unwrap();
            let entries = since.entries.iter();
            let bytes: usize = entries.map(|(key, entry)| bytes(key, entry.as_ref())).sum();
            assert_eq!(bytes, since.bytes);
            assert!(bytes <= MAX_BYTES);
        }
        commit(&known, count as u64 + 1, KEY, set(&[b'x'; MAX_VALUE_BYTES + 1]));
        assert_eq!(recall(&known, &[KEY]), None);
    }
}
