//! Names for requests, by which a server knows one again that is sent twice.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_proto::v1;
use slab::Slab;

/// Of how many namespaces the requests are counted apart before those where nothing is under way are
/// forgotten.
const MAX_IDLE_NAMESPACES: usize = 10_000;

/// Gives every write of a client an id, and knows which have been answered.
#[derive(Debug)]
pub(crate) struct RequestIds {
    client_id: Bytes,
    counters: Mutex<Counters>,
}

/// Keeps the id of a call, which is the same for all its attempts. As long as it is there, the call may be sent
/// again; once it is dropped, never.
#[derive(Debug)]
pub(crate) struct Ticket<'a> {
    ids: &'a RequestIds,
    /// The counter of its namespace, and its place among the calls under way.
    counter: usize,
    place: usize,
}

#[derive(Debug, Default)]
struct Counters {
    namespaces: HashMap<String, usize>,
    counters: Slab<Counter>,
    /// No id up to this is given by a counter that is made from now on. So a namespace can be forgotten,
    /// and none of its ids comes twice all the same.
    floor: u64,
}

/// Counts the requests to one namespace.
#[derive(Debug)]
struct Counter {
    last: u64,
    under_way: UnderWay,
}

/// The numbers of the calls that are under way, the lowest first: a list whose links are places in a slab.
#[derive(Debug, Default)]
struct UnderWay {
    places: Slab<Place>,
    first: Option<usize>,
    last: Option<usize>,
}

#[derive(Debug)]
struct Place {
    seq: u64,
    before: Option<usize>,
    after: Option<usize>,
}

impl RequestIds {
    pub(crate) fn new(client_id: [u8; 8]) -> Self {
        Self { client_id: Bytes::copy_from_slice(&client_id), counters: Mutex::default() }
    }

    /// An id for a call that is about to be sent.
    pub(crate) fn next(&self, namespace: &str) -> (Ticket<'_>, v1::RequestId) {
        let mut counters = self.counters();
        let index = counters.of(namespace);
        let counter = &mut counters.counters[index];
        let (place, seq, done_below) = counter.begin();
        drop(counters);
        let id = v1::RequestId { client_id: self.client_id.clone(), seq, done_below };
        (Ticket { ids: self, counter: index, place }, id)
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        // No method panics halfway through a change.
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.ids.counters().counters[self.counter].under_way.remove(self.place);
    }
}

impl Counters {
    /// The counter of a namespace.
    fn of(&mut self, namespace: &str) -> usize {
        if let Some(&index) = self.namespaces.get(namespace) {
            return index;
        }
        if self.namespaces.len() >= MAX_IDLE_NAMESPACES {
            self.forget_idle();
        }
        let counter = Counter { last: self.floor, under_way: UnderWay::default() };
        let index = self.counters.insert(counter);
        self.namespaces.insert(namespace.to_owned(), index);
        index
    }

    fn forget_idle(&mut self) {
        let Self { namespaces, counters, floor } = self;
        let is_idle = |index: usize| counters[index].under_way.first.is_none();
        let idle: Vec<_> = namespaces.extract_if(|_, index| is_idle(*index)).collect();
        for (_, index) in idle {
            *floor = counters.remove(index).last.max(*floor);
        }
    }
}

impl Counter {
    /// The next number, with its place, and the lowest that is still under way.
    fn begin(&mut self) -> (usize, u64, u64) {
        self.last += 1;
        let place = self.under_way.push(self.last);
        (place, self.last, self.under_way.lowest().unwrap_or(self.last))
    }
}

impl UnderWay {
    /// Adds a number greater than all before; answers its place.
    fn push(&mut self, seq: u64) -> usize {
        let place = self.places.insert(Place { seq, before: self.last, after: None });
        match self.last.replace(place) {
            Some(before) => self.places[before].after = Some(place),
            None => self.first = Some(place),
        }
        place
    }

    fn remove(&mut self, place: usize) {
        let Place { before, after, .. } = self.places.remove(place);
        match before {
            Some(before) => self.places[before].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.places[after].before = before,
            None => self.last = before,
        }
    }

    fn lowest(&self) -> Option<u64> {
        self.first.map(|place| self.places[place].seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> RequestIds {
        RequestIds::new([7; 8])
    }

    fn numbers((_, id): &(Ticket<'_>, v1::RequestId)) -> (u64, u64) {
        (id.seq, id.done_below)
    }

    #[test]
    fn each_namespace_counts_from_one() {
        let ids = ids();
        assert_eq!(numbers(&ids.next("a")), (1, 1));
        assert_eq!(numbers(&ids.next("a")), (2, 2));
        assert_eq!(numbers(&ids.next("b")), (1, 1));
        assert_eq!(ids.next("a").1.client_id, [7; 8].as_slice());
    }

    #[test]
    fn what_is_under_way_holds_back_what_is_done() {
        let ids = ids();
        let (first, second) = (ids.next("a"), ids.next("a"));
        drop(ids.next("a"));
        assert_eq!(numbers(&ids.next("a")), (4, 1));
        drop(first);
        assert_eq!(numbers(&ids.next("a")), (5, 2));
        drop(second);
        assert_eq!(numbers(&ids.next("a")), (6, 6));
    }

    #[test]
    fn places_are_used_again_in_any_order() {
        let ids = ids();
        let mut held: Vec<_> = (0..6).map(|_| ids.next("a")).collect();
        drop(held.remove(3));
        drop(held.pop());
        held.push(ids.next("a"));
        assert_eq!(numbers(&held[4]), (7, 1));
        drop(held.remove(0));
        drop(held.remove(0));
        assert_eq!(numbers(&ids.next("a")), (8, 3));
        drop(held);
        assert_eq!(numbers(&ids.next("a")), (9, 9));
        assert!(ids.counters().counters[0].under_way.places.len() <= 6);
    }

    #[test]
    fn idle_namespaces_are_forgotten_and_no_number_comes_twice() {
        let ids = ids();
        let held = ids.next("held");
        for _ in 0..4 {
            drop(ids.next("busy"));
        }
        for n in 0..MAX_IDLE_NAMESPACES {
            drop(ids.next(&n.to_string()));
        }
        assert!(ids.counters().namespaces.len() < MAX_IDLE_NAMESPACES);
        assert_eq!(numbers(&ids.next("busy")), (5, 5));
        assert_eq!(numbers(&ids.next("held")), (2, 1));
        drop(held);
        assert_eq!(numbers(&ids.next("held")), (3, 3));
    }
}
