//! What an attempt has read and written. No I/O: reads come in with the state they are of.

use std::{
    collections::{BTreeMap, btree_map},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use holdfast_proto::v1;

use crate::{Error, Expiry, Header, wire};

/// What an attempt has gathered.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What was read of each key; none: it did not exist.
    reads: BTreeMap<String, Option<v1::Entry>>,
    writes: BTreeMap<String, Write>,
    /// A revision and time at which all reads held.
    snapshot: Option<Header>,
    /// Something read has changed: the attempt is void.
    pub(super) conflicted: bool,
    ended: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Write {
    Set { value: Bytes, content_type: String, expiry: Option<Expiry> },
    Delete,
}

/// What a read that was just recorded means for those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recorded {
    /// All reads are of one state.
    Consistent,
    /// They may not be.
    MustValidate,
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.reads.is_empty() && self.writes.is_empty()
    }

    fn check(&self) -> Result<(), Error> {
        if self.ended {
            Err(Error::TransactionEnded)
        } else if self.conflicted {
            Err(Error::Conflict { attempts: 1 })
        } else {
            Ok(())
        }
    }

    pub(super) fn write(&mut self, key: String, write: Write) -> Result<(), Error> {
        self.check()?;
        self.writes.insert(key, write);
        Ok(())
    }

    /// What a read of this key sees, as far as that is known without asking.
    pub(super) fn known(&self, key: &str) -> Result<Option<Option<v1::Entry>>, Error> {
        self.check()?;
        let Some(write) = self.writes.get(key) else {
            return Ok(self.reads.get(key).cloned());
        };
        Ok(Some(match write {
            Write::Delete => None,
            Write::Set { value, content_type, .. } => Some(v1::Entry {
                key: key.to_owned(),
                value: Some(value.clone()),
                content_type: content_type.clone(),
                ..Default::default()
            }),
        }))
    }

    pub(super) fn record(
        &mut self,
        key: &str,
        entry: Option<v1::Entry>,
        header: Header,
    ) -> Result<Recorded, Error> {
        self.check()?;
        let changed_at = entry.as_ref().map(|entry| entry.mod_revision);
        match self.reads.entry(key.to_owned()) {
            btree_map::Entry::Vacant(vacant) => {
                vacant.insert(entry);
            }
            btree_map::Entry::Occupied(_) => return Ok(Recorded::Consistent),
        }
        let Some(snapshot) = &mut self.snapshot else {
            self.snapshot = Some(header);
            return Ok(Recorded::Consistent);
        };
        if header.revision == snapshot.revision {
            let at_once = header.time == snapshot.time;
            snapshot.time = snapshot.time.max(header.time);
            self.check_deadlines()?;
            let may_have_ended = !at_once && self.has_read_leased();
            return Ok(if may_have_ended { Recorded::MustValidate } else { Recorded::Consistent });
        }
        // What has not changed since the snapshot was part of it.
        let held_then = header.revision > snapshot.revision
            && changed_at.is_some_and(|revision| revision <= snapshot.revision.get());
        Ok(if held_then { Recorded::Consistent } else { Recorded::MustValidate })
    }

    pub(super) fn keys_read(&self) -> Vec<String> {
        self.reads.keys().cloned().collect()
    }

    /// Takes the present revisions of `keys` for a check of all reads. False: it has to be done again,
    /// because another read came in between.
    pub(super) fn validate(
        &mut self,
        keys: &[String],
        revisions: Vec<Option<u64>>,
        header: Header,
    ) -> Result<bool, Error> {
        self.check()?;
        let changed = keys.iter().zip(revisions).any(|(key, now)| {
            let then = self.reads.get(key).and_then(Option::as_ref);
            then.map(|entry| entry.mod_revision) != now
        });
        if changed {
            return self.conflict();
        }
        let overtaken = self.snapshot.is_some_and(|snapshot| header.revision < snapshot.revision);
        if overtaken || keys.len() != self.reads.len() {
            return Ok(false);
        }
        self.snapshot = Some(header);
        Ok(true)
    }

    /// What was read live must not have ended by the time of the snapshot.
    fn check_deadlines(&mut self) -> Result<(), Error> {
        let Some(snapshot) = self.snapshot else {
            return Ok(());
        };
        let ended = self
            .reads
            .values()
            .flatten()
            .filter_map(|entry| entry.expires_at_ms)
            .any(|deadline| deadline <= snapshot.time.as_millis());
        if ended { self.conflict() } else { Ok(()) }
    }

    /// Whether the time at which something read ends is not told with it, but is that of its lease.
    fn has_read_leased(&self) -> bool {
        self.reads.values().flatten().any(|entry| entry.lease_id.is_some())
    }

    fn conflict<T>(&mut self) -> Result<T, Error> {
        self.conflicted = true;
        Err(Error::Conflict { attempts: 1 })
    }

    /// The one request that checks all reads and makes all writes.
    pub(super) fn into_request(self, namespace: String) -> v1::TransactRequest {
        v1::TransactRequest {
            namespace,
            compares: self.reads.into_iter().map(still_as_read).collect(),
            then: self.writes.into_iter().map(operation).collect(),
            ..Default::default()
        }
    }
}

fn still_as_read((key, read): (String, Option<v1::Entry>)) -> v1::Compare {
    use v1::compare::Operand;
    let operand = match read {
        Some(entry) => Operand::ModRevision(entry.mod_revision),
        None => Operand::Exists(false),
    };
    v1::Compare { key, comparison: v1::Comparison::Equal as i32, operand: Some(operand) }
}

fn operation((key, write): (String, Write)) -> v1::Operation {
    use v1::operation::{Delete, Kind, Set};
    let kind = match write {
        Write::Set { value, content_type, expiry } => Kind::Set(Set {
            key,
            value,
            content_type,
            expiry: expiry.map(wire::expiry),
            return_previous: false,
        }),
        Write::Delete => Kind::Delete(Delete { key, return_previous: false }),
    };
    v1::Operation { kind: Some(kind) }
}

/// The state, shared between the closure's handle and the loop that runs the closure.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedState(Arc<Mutex<State>>);

impl SharedState {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // No method panics halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the attempt: a handle that outlives the closure can do no more.
    pub(super) fn take(&self) -> State {
        let ended = State { ended: true, ..Default::default() };
        std::mem::replace(&mut *self.lock(), ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, mod_revision: u64) -> Option<v1::Entry> {
        Some(v1::Entry {
            key: key.to_owned(),
            value: Some(Bytes::from_static(b"1")),
            mod_revision,
            ..Default::default()
        })
    }

    fn set(value: &'static str) -> Write {
        Write::Set {
            value: Bytes::from_static(value.as_bytes()),
            content_type: "application/json".to_owned(),
            expiry: None,
        }
    }

    #[test]
    fn own_writes_are_seen_and_hide_reads() {
        let mut state = State::default();
        state.record("a", entry("a", 3), Header::new(5, 0)).expect("a read");
        state.write("a".to_owned(), set("2")).expect("a write");
        let seen = state.known("a").expect("open").expect("known");
        assert_eq!(seen.expect("written").value.as_deref(), Some(&b"2"[..]));
        state.write("a".to_owned(), Write::Delete).expect("a write");
        assert_eq!(state.known("a").expect("open"), Some(None));
        assert_eq!(state.known("b").expect("open"), None);
    }

    #[test]
    fn the_request_compares_all_reads_and_makes_the_last_writes() {
        let mut state = State::default();
        state.record("a", entry("a", 3), Header::new(5, 0)).expect("a read");
        state.record("b", None, Header::new(5, 0)).expect("a read");
        state.write("c".to_owned(), set("1")).expect("a write");
        state.write("c".to_owned(), set("2")).expect("a write");
        state.write("a".to_owned(), Write::Delete).expect("a write");
        let request = state.into_request("n".to_owned());
        use v1::{compare::Operand, operation::Kind};
        let operands: Vec<_> = request
            .compares
            .into_iter()
            .map(|compare| (compare.key, compare.operand.expect("an operand")))
            .collect();
        assert_eq!(
            operands,
            [("a".to_owned(), Operand::ModRevision(3)), ("b".to_owned(), Operand::Exists(false))]
        );
        let kinds: Vec<_> = request.then.into_iter().filter_map(|op| op.kind).collect();
        assert!(matches!(&kinds[..], [Kind::Delete(a), Kind::Set(c)]
            if a.key == "a" && c.key == "c" && c.value == "2"));
    }

    #[test]
    fn reads_of_one_revision_are_consistent() {
        let mut state = State::default();
        for key in ["a", "b"] {
            let recorded = state.record(key, None, Header::new(5, 0));
            assert_eq!(recorded.expect("a read"), Recorded::Consistent);
        }
    }

    #[test]
    fn a_later_read_of_an_old_entry_is_part_of_the_snapshot() {
        let mut state = State::default();
        state.record("a", None, Header::new(5, 0)).expect("a read");
        let recorded = state.record("b", entry("b", 5), Header::new(9, 0));
        assert_eq!(recorded.expect("a read"), Recorded::Consistent);
    }

    #[test]
    fn a_later_read_of_a_new_or_missing_entry_checks_those_before() {
        for later in [entry("b", 8), None] {
            let mut state = State::default();
            state.record("a", entry("a", 3), Header::new(5, 0)).expect("a read");
            let recorded = state.record("b", later.clone(), Header::new(9, 0));
            assert_eq!(recorded.expect("a read"), Recorded::MustValidate);
            let keys = state.keys_read();
            let b = later.map(|entry| entry.mod_revision);
            let held = state.validate(&keys, vec![Some(3), b], Header::new(10, 0));
            assert!(held.expect("no conflict"));
            assert_eq!(state.snapshot, Some(Header::new(10, 0)));
        }
    }

    #[test]
    fn a_read_that_no_longer_holds_voids_the_attempt() {
        let mut state = State::default();
        state.record("a", entry("a", 3), Header::new(5, 0)).expect("a read");
        state.record("b", entry("b", 8), Header::new(9, 0)).expect("a read");
        let keys = state.keys_read();
        let held = state.validate(&keys, vec![Some(7), Some(8)], Header::new(10, 0));
        assert!(matches!(held, Err(Error::Conflict { .. })));
        assert!(state.conflicted);
        assert!(matches!(state.known("a"), Err(Error::Conflict { .. })));
        assert!(state.write("a".to_owned(), Write::Delete).is_err());
    }

    #[test]
    fn a_read_that_came_in_between_makes_the_check_run_again() {
        let mut state = State::default();
        state.record("a", entry("a", 3), Header::new(5, 0)).expect("a read");
        let keys = state.keys_read();
        state.record("b", entry("b", 4), Header::new(6, 0)).expect("a read");
        let checked = state.validate(&keys, vec![Some(3)], Header::new(10, 0));
        assert!(!checked.expect("no conflict"));
    }

    #[test]
    fn an_entry_that_ends_between_two_reads_voids_the_attempt() {
        let mut state = State::default();
        let mut ending = entry("a", 3);
        ending.as_mut().expect("an entry").expires_at_ms = Some(100);
        state.record("a", ending, Header::new(5, 99)).expect("a read");
        let recorded = state.record("b", None, Header::new(5, 100));
        assert!(matches!(recorded, Err(Error::Conflict { .. })));
    }

    #[test]
    fn an_entry_whose_lease_may_have_ended_between_two_reads_is_checked() {
        let mut leased = entry("a", 3);
        leased.as_mut().expect("an entry").lease_id = Some(7);
        for (time, recorded) in [(99, Recorded::Consistent), (100, Recorded::MustValidate)] {
            let mut state = State::default();
            state.record("a", leased.clone(), Header::new(5, 99)).expect("a read");
            let next = state.record("b", None, Header::new(5, time));
            assert_eq!(next.expect("a read"), recorded);
        }
        // What was read later may be what was still there earlier.
        let mut state = State::default();
        state.record("b", None, Header::new(5, 100)).expect("a read");
        let next = state.record("a", leased, Header::new(5, 99));
        assert_eq!(next.expect("a read"), Recorded::MustValidate);
        let keys = state.keys_read();
        let ended = state.validate(&keys, vec![None, None], Header::new(5, 101));
        assert!(matches!(ended, Err(Error::Conflict { .. })));
    }

    #[test]
    fn a_handle_that_outlives_the_closure_is_of_no_use() {
        let shared = SharedState::default();
        shared.lock().write("a".to_owned(), set("1")).expect("a write");
        assert_eq!(shared.take().writes.len(), 1);
        let write = shared.lock().write("a".to_owned(), set("2"));
        assert!(matches!(write, Err(Error::TransactionEnded)));
    }
}
