//! What keys hold, for the commands of a commit.

use std::{hash::BuildHasher as _, ops::Index, ops::IndexMut};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::backend::{GroupIndex, Key, StoredEntry};

/// What one key holds.
#[derive(Debug)]
pub(super) struct Slot<'a> {
    pub key: &'a Key,
    /// Before the command at hand.
    pub before: Before<'a>,
    /// Which of its writes the command at hand has made to it.
    pub now: Option<usize>,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Before<'a> {
    Absent,
    Stored(&'a StoredEntry),
    /// Written by this group, as this one of all writes.
    Written(GroupIndex, usize),
}

/// The place of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place(usize);

/// A slot for every key that was read.
#[derive(Debug)]
pub(super) struct Slots<'a> {
    slots: Vec<Slot<'a>>,
    table: HashTable<usize>,
    hasher: DefaultHashBuilder,
}

impl<'a> Slots<'a> {
    /// Slots for these keys, of which `count` are expected; what comes again is left out.
    pub fn new(
        entries: impl Iterator<Item = (&'a Key, Option<&'a StoredEntry>)>,
        count: usize,
    ) -> Self {
        let mut slots = Self {
            slots: Vec::with_capacity(count),
            table: HashTable::with_capacity(count),
            hasher: DefaultHashBuilder::default(),
        };
        for (key, stored) in entries {
            slots.add(key, stored.map_or(Before::Absent, Before::Stored));
        }
        slots
    }

    /// Where the slot of a key is.
    pub fn find(&self, key: &Key) -> Option<Place> {
        let hash = self.hasher.hash_one(key);
        self.table.find(hash, |place| self.slots[*place].key == key).map(|place| Place(*place))
    }

    fn add(&mut self, key: &'a Key, before: Before<'a>) {
        let Self { slots, table, hasher } = self;
        let entry = table.entry(
            hasher.hash_one(key),
            |place| slots[*place].key == key,
            |place| hasher.hash_one(slots[*place].key),
        );
        if let hashbrown::hash_table::Entry::Vacant(vacant) = entry {
            vacant.insert(slots.len());
            slots.push(Slot { key, before, now: None });
        }
    }
}

impl<'a> Index<Place> for Slots<'a> {
    type Output = Slot<'a>;

    fn index(&self, place: Place) -> &Slot<'a> {
        &self.slots[place.0]
    }
}

impl<'a> IndexMut<Place> for Slots<'a> {
    fn index_mut(&mut self, place: Place) -> &mut Slot<'a> {
        &mut self.slots[place.0]
    }
}
