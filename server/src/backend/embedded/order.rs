//! The order of keys, in a few bytes a key.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    ops::Bound::{self, Excluded, Included, Unbounded},
};

use crate::backend::Key;

/// How many places a run has at the most.
const RUN: usize = 128;

/// Places of keys in the order of these. What key is at a place is told from outside: an ordered map of the keys
/// themselves, with its nodes half empty, would take several times the memory.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// Runs of places, each under a key that is no greater than those in it, and greater than those before it.
    runs: BTreeMap<Key, Vec<u32>>,
}

impl Order {
    /// Adds the place of a key that is not there.
    pub fn insert<'a>(&mut self, place: u32, key_at: impl Fn(u32) -> &'a Key) {
        let key = key_at(place);
        let run = self.run_for(key);
        let index = run.partition_point(|other| key_at(*other) < key);
        if run.len() < RUN {
            run.insert(index, place);
            return;
        }
        // Who comes in order leaves full runs behind.
        let mut right = run.split_off(if index == RUN { RUN } else { RUN / 2 });
        if index < run.len() {
            run.insert(index, place);
        } else {
            right.insert(index - run.len(), place);
        }
        self.runs.insert(key_at(right[0]).clone(), right);
    }

    /// Removes the place of a key.
    pub fn remove<'a>(&mut self, key: &Key, key_at: impl Fn(u32) -> &'a Key) {
        let Some((least, run)) = self.runs.range_mut::<Key, _>(..=key).next_back() else {
            return;
        };
        let Ok(index) = run.binary_search_by(|place| key_at(*place).cmp(key)) else {
            return;
        };
        run.remove(index);
        if run.is_empty() {
            let least = least.clone();
            self.runs.remove(&least);
        } else if run.len() <= run.capacity() / 4 {
            run.shrink_to(run.capacity() / 2);
        }
    }

    /// The places of the keys within bounds, of which the first is before the second.
    pub fn range<'a>(
        &'a self,
        (start, end): (Bound<&'a Key>, Bound<&'a Key>),
        key_at: impl Fn(u32) -> &'a Key,
    ) -> impl DoubleEndedIterator<Item = u32> {
        let first = match start {
            Unbounded => None,
            Included(key) | Excluded(key) => self.runs.range::<Key, _>(..=key).next_back(),
        };
        let first = first.map_or(start, |(least, _)| Included(least));
        self.runs.range::<Key, _>((first, end)).flat_map(move |(_, run)| {
            let from = run.partition_point(|place| is_before(key_at(*place), start));
            let to = run.partition_point(|place| !is_after(key_at(*place), end));
            run[from..to].iter().copied()
        })
    }

    /// The run that a key belongs into.
    fn run_for(&mut self, key: &Key) -> &mut Vec<u32> {
        if self.runs.first_key_value().is_none_or(|(least, _)| key < least) {
            let first = self.runs.pop_first().map(|(_, run)| run).unwrap_or_default();
            self.runs.insert(key.clone(), first);
        }
        let run = self.runs.range_mut::<Key, _>(..=key).next_back();
        run.expect("the first run is under this key, or under one before it").1
    }
}

/// Whether a key is before all that this bound lets in.
fn is_before(key: &Key, start: Bound<&Key>) -> bool {
    match start {
        Included(start) => key < start,
        Excluded(start) => key <= start,
        Unbounded => false,
    }
}

/// Whether a key is after all that this bound lets in.
fn is_after(key: &Key, end: Bound<&Key>) -> bool {
    match end {
        Included(end) => key > end,
        Excluded(end) => key.cmp(end) != Ordering::Less,
        Unbounded => false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn key(place: u32) -> Key {
        // Not in the order of the places.
        Key::new(format!("{:08x}", place.reverse_bits()).as_bytes())
    }

    /// Does the same to an order and to an ordered set, and compares them.
    struct Both {
        order: Order,
        keys: Vec<Key>,
        set: BTreeSet<Key>,
    }

    impl Both {
        fn new(count: u32) -> Self {
            let keys = (0..count).map(key).collect();
            Self { order: Order::default(), keys, set: BTreeSet::new() }
        }

        fn insert(&mut self, place: u32) {
            self.order.insert(place, |place| &self.keys[place as usize]);
            self.set.insert(self.keys[place as usize].clone());
        }

        fn remove(&mut self, place: u32) {
            let key = &self.keys[place as usize];
            self.order.remove(key, |place| &self.keys[place as usize]);
            self.set.remove(key);
        }

        fn compare(&self, bounds: (Bound<&Key>, Bound<&Key>)) {
            let key_at = |place: u32| &self.keys[place as usize];
            let found = || self.order.range(bounds, key_at).map(key_at);
            assert!(found().eq(self.set.range::<Key, _>(bounds)));
            assert!(found().rev().eq(self.set.range::<Key, _>(bounds).rev()));
        }

        fn compare_all(&self) {
            self.compare((Unbounded, Unbounded));
            for (start, end) in [(7, 5), (100, 3), (2, 1), (64, 999)] {
                let (start, end) = (&key(start), &key(end));
                let (start, end) = (start.min(end), start.max(end));
                self.compare((Included(start), Unbounded));
                self.compare((Excluded(start), Unbounded));
                self.compare((Included(start), Excluded(end)));
                self.compare((Included(start), Included(end)));
                self.compare((Unbounded, Excluded(end)));
            }
        }
    }

    #[test]
    fn holds_what_an_ordered_set_holds() {
        let mut both = Both::new(1000);
        both.compare_all();
        for place in 0..1000 {
            both.insert(place);
        }
        both.compare_all();
        for place in (0..1000).filter(|place| place % 7 != 0) {
            both.remove(place);
        }
        both.compare_all();
        for place in (0..1000).rev().filter(|place| place % 7 != 0) {
            both.insert(place);
        }
        both.compare_all();
        for place in 0..1000 {
            both.remove(place);
        }
        both.compare_all();
        assert!(both.order.runs.is_empty());
    }

    #[test]
    fn keys_that_come_in_order_leave_full_runs() {
        let mut both = Both::new(1000);
        both.keys.sort();
        for place in 0..1000 {
            both.insert(place);
        }
        both.compare_all();
        assert_eq!(both.order.runs.len(), 1000_usize.div_ceil(RUN));
    }

    #[test]
    fn keys_that_come_backwards_share_runs() {
        let mut both = Both::new(1000);
        both.keys.sort();
        for place in (0..1000).rev() {
            both.insert(place);
        }
        both.compare_all();
        assert!(both.order.runs.len() <= 1000_usize.div_ceil(RUN / 2));
    }
}
