//! Removes what is due before a command that names it runs.

use std::collections::BTreeSet;

use super::{MAX_REVISION_KEYS, Now, Seen, Workspace};
use crate::{
    backend::{Key, Removal},
    store::{
        command::{Command, Guard},
        keys::{self, Kind},
        record::LossCause,
    },
};

impl Workspace<'_> {
    /// Removes what a command or its guards name and what is due. Leases come first, for what hangs on them goes with
    /// them; one that was not read with that is left for later, which only the removal of what is due allows itself.
    pub(super) fn expire_due(&mut self, command: &Command, guards: &[Guard]) {
        let mut named = Vec::new();
        command.add_keys(&mut named);
        named.extend(guards.iter().map(|guard| guard.lock.clone()));
        let in_ranges = self.ranges.iter().flat_map(|range| range.entries.keys());
        let is_due = |key: &&Key| {
            let seen = self.slots.find(key).and_then(|place| self.before(&self.slots[place]));
            seen.is_some_and(|seen| self.is_due(&seen))
        };
        let due: BTreeSet<Key> = named.iter().chain(in_ranges).filter(is_due).cloned().collect();
        let (mut keys, mut others, mut locks) = (Vec::new(), Vec::new(), Vec::new());
        for key in due {
            match keys::kind(&key) {
                // It goes with its lease, which is due and still there: that was not read with what hangs on it.
                None | Some(Kind::Lock) if self.has_lease(&key) => {}
                None => keys.push(key),
                Some(Kind::Lock) => locks.push(key),
                Some(Kind::Other) => others.push(key),
                // It goes with the place, which is kept for a server that was only late.
                Some(Kind::Wait) => {}
                Some(Kind::Lease) => self.expire_lease(&key),
            }
        }
        // What hung on a lease has gone with it.
        let is_still_due = |key: &Key| self.held(key).is_some_and(|seen| self.is_due(&seen));
        keys.retain(is_still_due);
        locks.retain(is_still_due);
        for keys in keys.chunks(MAX_REVISION_KEYS) {
            for key in keys {
                self.remove(key);
            }
            self.expired += keys.len() as u64;
            self.finish_removal(Removal::Ttl);
        }
        for key in &others {
            self.write(key, Now::Dropped);
        }
        for lock in &locks {
            match self.held_lock(lock) {
                Some((seen, hold)) => self.end_hold(lock, &seen, hold, LossCause::Expired),
                None => self.write(lock, Now::Dropped),
            }
        }
        self.finish_removal(Removal::Ttl);
    }

    /// Whether the lease that a key is attached to, or a lock is held by, is there, due or not.
    fn has_lease(&self, key: &Key) -> bool {
        let attached = self.held(key);
        let lease = attached.as_ref().and_then(Seen::reference);
        lease.is_some_and(|lease| self.held(lease).is_some())
    }

    fn expire_lease(&mut self, lease: &Key) {
        let (keys, _) = self.end_lease(lease, Removal::Lease);
        self.expired += u64::from(keys);
        self.finish_removal(Removal::Lease);
    }

    /// Makes a group of what was removed because it was due, and another of the locks passed on thereby.
    fn finish_removal(&mut self, removal: Removal) {
        self.removal = removal;
        let settled = self.settle_leases();
        debug_assert!(settled.is_ok(), "what removes attaches nothing");
        self.finish_group(self.difference());
        if !self.freed.is_empty() {
            self.pass_on_freed();
            self.finish_group(self.difference());
        }
    }
}
