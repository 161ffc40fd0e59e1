//! Names for requests, by which a server knows one again that is sent twice.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_proto::v1;

/// Of how many namespaces the requests are counted apart before those where nothing is under way are
/// forgotten.
const MAX_IDLE_NAMESPACES: usize = 10_000;

/// Gives every write of a client an id, and knows which have been answered.
#[derive(Clone, Debug)]
pub(crate) struct RequestIds {
    client_id: Bytes,
    counters: Arc<Mutex<Counters>>,
}

/// The id of a call, the same for all its attempts. As long as it is there, the call may be sent again;
/// once it is dropped, never.
#[derive(Debug)]
pub(crate) struct Ticket {
    counters: Arc<Mutex<Counters>>,
    namespace: String,
    pub(crate) id: v1::RequestId,
}

#[derive(Debug, Default)]
struct Counters {
    namespaces: HashMap<String, Counter>,
    /// No id up to this is given by a counter that is made from now on. So a namespace can be forgotten,
    /// and none of its ids comes twice all the same.
    floor: u64,
}

/// Counts the requests to one namespace.
#[derive(Debug)]
struct Counter {
    last: u64,
    under_way: BTreeSet<u64>,
}

impl RequestIds {
    pub(crate) fn new(client_id: [u8; 8]) -> Self {
        Self { client_id: Bytes::copy_from_slice(&client_id), counters: Arc::default() }
    }

    /// An id for a call that is about to be sent.
    pub(crate) fn next(&self, namespace: &str) -> Ticket {
        let (seq, done_below) = lock(&self.counters).begin(namespace);
        Ticket {
            counters: Arc::clone(&self.counters),
            namespace: namespace.to_owned(),
            id: v1::RequestId { client_id: self.client_id.clone(), seq, done_below },
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        lock(&self.counters).end(&self.namespace, self.id.seq);
    }
}

impl Counters {
    /// The next number, and the lowest that is still under way.
    fn begin(&mut self, namespace: &str) -> (u64, u64) {
        if let Some(counter) = self.namespaces.get_mut(namespace) {
            return counter.begin();
        }
        if self.namespaces.len() >= MAX_IDLE_NAMESPACES {
            self.forget_idle();
        }
        let mut counter = Counter { last: self.floor, under_way: BTreeSet::new() };
        let begun = counter.begin();
        self.namespaces.insert(namespace.to_owned(), counter);
        begun
    }

    fn end(&mut self, namespace: &str, seq: u64) {
        if let Some(counter) = self.namespaces.get_mut(namespace) {
            counter.under_way.remove(&seq);
        }
    }

    fn forget_idle(&mut self) {
        let idle = self.namespaces.extract_if(|_, counter| counter.under_way.is_empty());
        self.floor = idle.map(|(_, counter)| counter.last).fold(self.floor, u64::max);
    }
}

impl Counter {
    fn begin(&mut self) -> (u64, u64) {
        self.last += 1;
        self.under_way.insert(self.last);
        (self.last, self.under_way.first().copied().unwrap_or(self.last))
    }
}

fn lock(counters: &Mutex<Counters>) -> MutexGuard<'_, Counters> {
    // No method panics halfway through a change.
    counters.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> RequestIds {
        RequestIds::new([7; 8])
    }

    fn numbers(ticket: &Ticket) -> (u64, u64) {
        (ticket.id.seq, ticket.id.done_below)
    }

    #[test]
    fn each_namespace_counts_from_one() {
        let ids = ids();
        assert_eq!(numbers(&ids.next("a")), (1, 1));
        assert_eq!(numbers(&ids.next("a")), (2, 2));
        assert_eq!(numbers(&ids.next("b")), (1, 1));
        assert_eq!(ids.next("a").id.client_id, [7; 8].as_slice());
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
    fn clones_share_their_numbers() {
        let ids = ids();
        let _held = ids.clone().next("a");
        assert_eq!(numbers(&ids.next("a")), (2, 1));
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
        assert!(lock(&ids.counters).namespaces.len() < MAX_IDLE_NAMESPACES);
        assert_eq!(numbers(&ids.next("busy")), (5, 5));
        assert_eq!(numbers(&ids.next("held")), (2, 1));
        drop(held);
        assert_eq!(numbers(&ids.next("held")), (3, 3));
    }
}
