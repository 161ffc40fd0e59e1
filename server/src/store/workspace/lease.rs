//! Leases: what hangs on them, and how they end.

use std::collections::BTreeMap;

use super::{Now, Workspace, seen::Seen};
use crate::{
    backend::{Key, NewDeadline, Removal, WriteOp},
    store::{
        error::Refusal,
        keys::{self, Kind},
        record::{self, LeaseRecord, LossCause, Mark},
    },
};

/// How long an id that a client chose is refused once its lease has ended.
const ENDED_MS: u64 = 3_600_000;

/// What is attached to a lease, or no longer.
#[derive(Debug, Clone, Copy, Default)]
struct Difference {
    keys: i64,
    locks: i64,
}

impl Workspace<'_> {
    /// A lease that is to be relied on.
    pub fn lease(&mut self, id: u64) -> Result<Seen, Refusal<Seen>> {
        self.get(&keys::lease(id)).ok_or(Refusal::LeaseNotFound { lease: id })
    }

    /// Writes a new lease.
    pub fn grant_lease(&mut self, lease: &Key, ttl_ms: u64, is_chosen: bool) -> Seen {
        let record = LeaseRecord { ttl_ms, is_chosen, keys: 0, locks: 0 };
        self.keep(lease, None, &record, NewDeadline::After(ttl_ms))
    }

    /// Lets a lease last its TTL from now, if it is there.
    pub fn keep_lease_alive(&mut self, lease: &Key) -> Option<Seen> {
        let current = self.get(lease)?;
        let record = self.lease_record(&current)?;
        Some(self.keep(lease, Some(&current), &record, NewDeadline::After(record.ttl_ms)))
    }

    /// Ends a lease with its keys and locks; answers how many there were. What hangs on it has been read.
    pub fn end_lease(&mut self, lease: &Key, removal: Removal) -> (u32, u32) {
        let related = self.related;
        let (Some(attached), Some(current)) = (related.leases.get(lease), self.held(lease)) else {
            return (0, 0);
        };
        let hangs = |seen: &Seen| seen.reference() == Some(lease);
        let (mut count, mut locks) = (0, 0);
        // Notes of what does hang on it are removed as by any detachment.
        for key in &attached.keys {
            if self.held(key).is_some_and(|seen| hangs(&seen)) {
                self.remove(key);
                count += 1;
            } else {
                self.note(keys::attached(lease, key), WriteOp::RemoveUnlogged);
            }
        }
        let cause = match removal {
            Removal::Revoked => LossCause::LeaseRevoked,
            Removal::Lease | Removal::Ttl | Removal::Deleted => LossCause::LeaseExpired,
        };
        for lock in &attached.locks {
            match self.held_lock(lock).filter(|(seen, _)| hangs(seen)) {
                Some((seen, hold)) => {
                    self.end_hold(lock, &seen, hold, cause.clone());
                    locks += 1;
                }
                None => self.note(keys::held(lease, lock), WriteOp::RemoveUnlogged),
            }
        }
        let is_chosen = self.lease_record(&current).is_some_and(|record| record.is_chosen);
        if let Some(id) = keys::lease_id(lease).filter(|_| is_chosen) {
            let mark = self.record_draft(None, &Mark {}, NewDeadline::After(ENDED_MS));
            self.note(keys::ended_lease(id), WriteOp::SetUnlogged(mark));
        }
        // Who reads a former revision still has to find until when it lasted, if it mattered.
        self.write(lease, if count + locks > 0 { Now::Removed } else { Now::Dropped });
        self.removal = removal;
        (count, locks)
    }

    /// Notes which keys and locks the command at hand attaches to leases, and which no longer.
    pub(super) fn settle_leases(&mut self) -> Result<(), Refusal<Seen>> {
        if !self.is_coordinated {
            return Ok(());
        }
        let mut differences: BTreeMap<Key, Difference> = BTreeMap::new();
        for index in 0..self.current.len() {
            let (place, now) = &self.current[index];
            let slot = &self.slots[*place];
            let (key, kind) = (slot.key, keys::kind(slot.key));
            if !matches!(kind, None | Some(Kind::Lock)) {
                continue;
            }
            let before = self.before(slot).and_then(|seen| seen.reference().cloned());
            let after = match now {
                Now::Written(draft, _) | Now::Kept(draft) => draft.deadline.reference().cloned(),
                Now::Removed | Now::Dropped => None,
            };
            if before == after {
                continue;
            }
            for (lease, sign) in [(before, -1), (after, 1)] {
                let Some(lease) = lease else { continue };
                let difference = differences.entry(lease.clone()).or_default();
                let (note, count) = match kind {
                    None => (keys::attached(&lease, key), &mut difference.keys),
                    Some(_) => (keys::held(&lease, key), &mut difference.locks),
                };
                *count += sign;
                let op = match sign {
                    1 => {
                        let mark = self.record_draft(None, &Mark {}, NewDeadline::Never);
                        WriteOp::SetUnlogged(mark)
                    }
                    _ => WriteOp::RemoveUnlogged,
                };
                self.note(note, op);
            }
        }
        differences.into_iter().try_for_each(|(lease, by)| self.count_attached(&lease, by))
    }

    fn count_attached(&mut self, lease: &Key, by: Difference) -> Result<(), Refusal<Seen>> {
        // One that ends with this very command counts nothing any more.
        let Some(current) = self.held(lease) else {
            return Ok(());
        };
        let Some(record) = self.lease_record(&current) else {
            return Ok(());
        };
        let add = |count: u32, by: i64| (i64::from(count) + by).max(0) as u32;
        let record = LeaseRecord {
            keys: add(record.keys, by.keys),
            locks: add(record.locks, by.locks),
            ..record
        };
        let limit = self.max_lease_keys as u64;
        let grows = by.keys + by.locks > 0;
        if grows && u64::from(record.keys + record.locks) > limit {
            return Err(Refusal::QuotaExceeded { quota: "max_lease_keys", limit });
        }
        let deadline = current.deadline();
        self.keep(lease, Some(&current), &record, deadline);
        Ok(())
    }

    fn lease_record(&self, seen: &Seen) -> Option<LeaseRecord> {
        match seen {
            Seen::Stored(stored) => {
                LeaseRecord::of(&stored.value, stored.mod_revision, self.tip.cleared)
            }
            Seen::Pending(pending) => record::decode(&pending.draft.value),
        }
    }

    /// Says that a server lives.
    pub fn keep_server_alive(&mut self, server: &Key, ttl_ms: u64) {
        let current = self.get(server);
        self.keep(server, current.as_ref(), &Mark {}, NewDeadline::After(ttl_ms));
    }
}
