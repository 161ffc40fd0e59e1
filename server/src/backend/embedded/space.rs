//! Keys in memory: by hash, in order, and by deadline.

use std::{collections::BTreeSet, hash::BuildHasher as _, hint::black_box, ops::Bound};

use hashbrown::{DefaultHashBuilder, HashTable};
use slab::Slab;

use super::order::Order;
use crate::backend::{Deadline, Key, KeyRange, SharedChange, entry_bytes};

/// How many deadlines that have moved on are put where they belong in one step.
const MAX_MOVED: usize = 1000;
/// Bytes that come from memory together on most processors, and how many times as many of a value are fetched at the most.
const CACHE_LINE: usize = 64;
const FETCHED_LINES: usize = 8;
/// The deadline of what has none.
const NEVER_MS: i64 = i64::MAX;

/// Keys of one kind, with their deadlines.
///
/// A key is looked up by its hash, which is several times as fast as by its order; the order is for ranges.
#[derive(Debug, Default)]
pub(super) struct Space {
    slots: Slab<Slot>,
    /// The places of slots by the hash of their keys.
    table: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// The places of slots in the order of their keys.
    order: Order,
    /// When to look at a key. Invariant: every slot whose entry has a deadline stands here exactly once, at
    /// that deadline or earlier: a deadline that moves on, as most do, costs nothing until it is reached.
    deadlines: BTreeSet<(i64, Key)>,
}

/// What is known of one key, also of one whose entry was removed while that is in the log.
#[derive(Debug)]
pub(super) struct Slot {
    pub newest: SharedChange,
    /// Where it stands among the deadlines, if before [`NEVER_MS`].
    indexed_at_ms: i64,
}

impl Space {
    pub fn get(&self, key: &Key) -> Option<&Slot> {
        self.find(self.hasher.hash_one(key), key).map(|place| &self.slots[place as usize])
    }

    /// Brings what these keys hold, as far as they are of this space, into the processor's caches, before each is looked up and
    /// its value sent: what is far away in memory comes for many at once, where otherwise each would be waited for.
    pub fn fetch(&self, keys: &[Key]) {
        let mut places: Vec<&u32> = Vec::with_capacity(keys.len());
        for key in keys {
            // One that has only a part of the hash in common is found seldom, and does no harm.
            places.extend(self.table.find(self.hasher.hash_one(key), |_| true));
        }
        let newest = || places.iter().map(|place| &self.slots[**place as usize].newest);
        for change in newest() {
            black_box(change.revision);
        }
        for change in newest() {
            black_box(change.key.as_bytes().len());
            let value = change.entry.as_ref().map_or(&[][..], |entry| &entry.value);
            for line in value.chunks(CACHE_LINE).take(FETCHED_LINES) {
                black_box(line[0]);
            }
        }
    }

    /// A moment at or before the earliest deadline.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        self.deadlines.first().map(|(at_ms, _)| *at_ms)
    }

    /// Looks at up to `limit` keys in order; answers their newest changes and the range that is left.
    pub fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        limit: usize,
    ) -> (Vec<SharedChange>, Option<KeyRange>) {
        let slots = self.range(range);
        if reverse {
            collect(slots.rev(), limit, |last| KeyRange {
                start: range.start.clone(),
                end: Some(last.clone()),
            })
        } else {
            collect(slots, limit, |last| KeyRange {
                start: last.successor(),
                end: range.end.clone(),
            })
        }
    }

    /// The newest changes of up to `limit` keys that come after `after`, in order.
    pub fn newest_after(&self, after: Option<&Key>, limit: usize) -> Vec<SharedChange> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let places = self.order.range((start, Bound::Unbounded), |place| self.key_at(place));
        places.take(limit).map(|place| self.slots[place as usize].newest.clone()).collect()
    }

    /// The slots in a range, in the order of their keys.
    fn range<'a>(&'a self, range: &'a KeyRange) -> impl DoubleEndedIterator<Item = &'a Slot> {
        let places = self.order.range(range.bounds(), |place| self.key_at(place));
        places.map(|place| &self.slots[place as usize])
    }

    fn key_at(&self, place: u32) -> &Key {
        &self.slots[place as usize].newest.key
    }

    /// Makes the change that `change` builds from the newest one the newest; answers it, and the size of the
    /// entry that is gone.
    pub fn put(
        &mut self,
        key: Key,
        change: impl FnOnce(Key, Option<SharedChange>) -> SharedChange,
    ) -> (SharedChange, u64) {
        let hash = self.hasher.hash_one(&key);
        match self.find(hash, &key) {
            None => {
                let newest = change(key, None);
                let mut slot = Slot { newest: newest.clone(), indexed_at_ms: NEVER_MS };
                slot.index(&mut self.deadlines);
                self.insert(hash, slot);
                (newest, 0)
            }
            Some(place) => {
                let slot = &mut self.slots[place as usize];
                let gone = slot.newest.entry.as_ref();
                let gone =
                    gone.map_or(0, |entry| entry_bytes(&key, &entry.content_type, &entry.value));
                // The key that is there is shared on, so that all versions hold the same one.
                slot.newest = change(slot.newest.key.clone(), Some(slot.newest.clone()));
                let newest = slot.newest.clone();
                slot.index(&mut self.deadlines);
                (newest, gone)
            }
        }
    }

    /// The place of the slot of a key with this hash.
    fn find(&self, hash: u64, key: &Key) -> Option<u32> {
        let is_it = |place: &u32| self.slots[*place as usize].newest.key == *key;
        self.table.find(hash, is_it).copied()
    }

    fn insert(&mut self, hash: u64, slot: Slot) {
        let place = self.slots.insert(slot);
        let number = u32::try_from(place).expect("four thousand million keys need more memory");
        let Self { slots, table, hasher, order, .. } = self;
        let key_at = |place: u32| &slots[place as usize].newest.key;
        table.insert_unique(hash, number, |place| hasher.hash_one(key_at(*place)));
        order.insert(number, key_at);
    }

    /// Up to `limit` keys whose entries are due, in order of deadline; none of them if `limit` is 0, and not all
    /// if many deadlines had to be put where they belong.
    pub fn due_keys(&mut self, now_ms: i64, limit: usize) -> Vec<Key> {
        let mut due = Vec::new();
        let mut moved = Vec::new();
        for (at_ms, key) in &self.deadlines {
            if *at_ms > now_ms || due.len() == limit || moved.len() == MAX_MOVED {
                break;
            }
            match self.get(key).and_then(|slot| slot.newest.entry.as_ref()) {
                Some(entry) if entry.deadline == Deadline::At(*at_ms) => due.push(key.clone()),
                _ => moved.push(key.clone()),
            }
        }
        for key in moved {
            if let Some(place) = self.find(self.hasher.hash_one(&key), &key) {
                self.slots[place as usize].reindex(&mut self.deadlines);
            }
        }
        due
    }

    /// Removes what is known of the key of a tombstone, if that is the newest of it.
    pub fn forget_tombstone(&mut self, tombstone: &SharedChange) {
        self.take(&tombstone.key, |slot| SharedChange::ptr_eq(&slot.newest, tombstone));
    }

    /// Removes all that is known of a key.
    pub fn remove(&mut self, key: &Key) {
        self.take(key, |slot| slot.newest.key == *key);
    }

    fn take(&mut self, key: &Key, is_it: impl Fn(&Slot) -> bool) {
        let hash = self.hasher.hash_one(key);
        let Self { slots, table, order, deadlines, .. } = self;
        if let Ok(occupied) = table.find_entry(hash, |place| is_it(&slots[*place as usize])) {
            let (place, _) = occupied.remove();
            order.remove(key, |place| &slots[place as usize].newest.key);
            let slot = slots.remove(place as usize);
            if slot.indexed_at_ms < NEVER_MS {
                deadlines.remove(&(slot.indexed_at_ms, key.clone()));
            }
        }
    }
}

impl Slot {
    /// Keeps the place among the deadlines true after a change.
    fn index(&mut self, deadlines: &mut BTreeSet<(i64, Key)>) {
        let removed = self.newest.entry.is_none();
        if removed || self.deadline_ms() < self.indexed_at_ms {
            self.reindex(deadlines);
        }
    }

    fn reindex(&mut self, deadlines: &mut BTreeSet<(i64, Key)>) {
        let key = &self.newest.key;
        if self.indexed_at_ms < NEVER_MS {
            deadlines.remove(&(self.indexed_at_ms, key.clone()));
        }
        self.indexed_at_ms = self.deadline_ms();
        if self.indexed_at_ms < NEVER_MS {
            deadlines.insert((self.indexed_at_ms, key.clone()));
        }
    }

    fn deadline_ms(&self) -> i64 {
        match self.newest.entry.as_ref().map(|entry| &entry.deadline) {
            None | Some(Deadline::Never | Deadline::Of(_)) => NEVER_MS,
            Some(Deadline::At(at_ms)) => *at_ms,
        }
    }
}

/// Looks at up to `limit` slots; answers their newest changes and what `rest` makes of the last key.
fn collect<'a>(
    mut slots: impl Iterator<Item = &'a Slot>,
    limit: usize,
    rest: impl FnOnce(&Key) -> KeyRange,
) -> (Vec<SharedChange>, Option<KeyRange>) {
    let mut changes = Vec::new();
    let mut last = None;
    for slot in slots.by_ref().take(limit) {
        changes.push(slot.newest.clone());
        last = Some(&slot.newest.key);
    }
    let next = slots.next().and(last).map(rest);
    (changes, next)
}
