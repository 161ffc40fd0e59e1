//! Leases as they are read: what is attached to them, and until when that lasts.

use super::{ReadState, Store, error::StoreError, keys, record::LeaseView};
use crate::backend::{Deadline, Key, NamespaceName, Revision, StoredEntry};

/// How many keys are looked at in one step.
const STEP: usize = 1000;

/// What is attached to a lease.
#[derive(Debug, Clone, Default)]
pub struct Attached {
    /// Keys, in order.
    pub keys: Vec<Key>,
    /// The names of locks, in order.
    pub locks: Vec<String>,
    /// Whether there are more.
    pub more: bool,
}

/// Until when leases last that entries are attached to, as of the revision of these.
///
/// They are looked up after the entries, at the same revision, and that tells whether an entry was alive at the time it
/// was read: a lease that has run out is never kept alive again, so one that lasts longer now than it did then was
/// alive then. One that ended with what was attached to it stands at that revision as it was last kept. One that is not
/// found was kept alive since, or it ended when nothing was attached to it any more, and what was detached from it was
/// alive at that moment; either was after the entries were read.
#[derive(Debug, Clone, Default)]
pub(super) struct Leases(Vec<(Key, Until)>);

/// Until when a lease lasts.
#[derive(Debug, Clone, Copy)]
enum Until {
    /// Until this moment, as was known at the revision.
    At(i64),
    /// It was alive when the entries were read. Until this moment, as is known by now, if it still is there.
    Later(Option<i64>),
}

impl Leases {
    /// When what has this deadline ends, as far as that is known.
    pub fn ends_ms(&self, deadline: &Deadline) -> Option<i64> {
        match deadline {
            Deadline::Never => None,
            Deadline::At(at_ms) => Some(*at_ms),
            Deadline::Of(lease) => match self.get(lease)? {
                Until::At(at_ms) => Some(at_ms),
                Until::Later(at_ms) => at_ms,
            },
        }
    }

    /// Whether an entry had ended at a time.
    pub fn is_due(&self, entry: &StoredEntry, time_ms: i64) -> bool {
        match &entry.deadline {
            Deadline::Of(lease) => {
                matches!(self.get(lease), Some(Until::At(at_ms)) if at_ms <= time_ms)
            }
            own => own.is_due(time_ms),
        }
    }

    fn get(&self, lease: &Key) -> Option<Until> {
        let place = self.0.binary_search_by(|(known, _)| known.cmp(lease)).ok()?;
        Some(self.0[place].1)
    }

    fn unknown<'a>(&self, entries: impl Iterator<Item = &'a StoredEntry>) -> Vec<Key> {
        let references = entries.filter_map(|entry| entry.deadline.reference());
        let mut unknown: Vec<Key> =
            references.filter(|lease| self.get(lease).is_none()).cloned().collect();
        unknown.sort_unstable();
        unknown.dedup();
        unknown
    }
}

impl Store {
    /// Adds the leases that entries read at a revision are attached to.
    pub(super) async fn look_up(
        &self,
        namespace: &NamespaceName,
        leases: &mut Leases,
        entries: impl Iterator<Item = &StoredEntry>,
        at: Revision,
    ) -> Result<(), StoreError> {
        let unknown = leases.unknown(entries);
        if unknown.is_empty() {
            return Ok(());
        }
        let then = self.backend.read(namespace, &unknown, Some(at)).await?.entries;
        let now = match then.iter().all(Option::is_some) {
            true => Vec::new(),
            false => self.backend.read(namespace, &unknown, None).await?.entries,
        };
        for (place, (lease, then)) in unknown.into_iter().zip(&then).enumerate() {
            let now = || Until::Later(now.get(place).and_then(|now| own_deadline(now.as_ref())));
            leases.0.push((lease, own_deadline(then.as_ref()).map_or_else(now, Until::At)));
        }
        leases.0.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(())
    }

    /// A lease, if there is one.
    pub async fn lease(
        &self,
        namespace: &NamespaceName,
        lease: u64,
    ) -> Result<(ReadState, Option<LeaseView>), StoreError> {
        let (state, found) = self.find_lease(namespace, lease).await?;
        Ok((state, found.map(|(view, _)| view)))
    }

    /// A lease, if there is one, with what is attached to it: names of about `limit_bytes`.
    pub async fn lease_with_attached(
        &self,
        namespace: &NamespaceName,
        lease: u64,
        limit_bytes: usize,
    ) -> Result<(ReadState, Option<(LeaseView, Attached)>), StoreError> {
        loop {
            let (state, found) = self.find_lease(namespace, lease).await?;
            let Some((view, changed)) = found else {
                return Ok((state, None));
            };
            let attached = self.attached(namespace, lease, limit_bytes).await?;
            // What is attached or detached changes the lease in the same commit.
            let (_, again) = self.find_lease(namespace, lease).await?;
            let is_same = |(it, at): &(LeaseView, Revision)| {
                (*at, it.keys, it.locks) == (changed, view.keys, view.locks)
            };
            if again.as_ref().is_some_and(is_same) {
                return Ok((state, Some((view, attached))));
            }
            tokio::task::yield_now().await;
        }
    }

    /// A lease, if there is one, and the revision by which something was last attached or detached, or a later one.
    async fn find_lease(
        &self,
        namespace: &NamespaceName,
        lease: u64,
    ) -> Result<(ReadState, Option<(LeaseView, Revision)>), StoreError> {
        let key = keys::lease(lease);
        let answer = self.backend.read(namespace, &[key], None).await?;
        let tip = answer.tip;
        let found = answer.entries.into_iter().flatten().next();
        let found = found.filter(|entry| !entry.deadline.is_due(tip.time_ms)).and_then(|entry| {
            Some((LeaseView::of(entry.key(), &entry, tip.cleared)?, entry.mod_revision))
        });
        Ok((ReadState { revision: tip.revision, time_ms: tip.time_ms }, found))
    }

    async fn attached(
        &self,
        namespace: &NamespaceName,
        lease: u64,
        limit_bytes: usize,
    ) -> Result<Attached, StoreError> {
        let lease = keys::lease(lease);
        let mut attached = Attached::default();
        let mut bytes = 0;
        for (range, is_keys) in [(keys::attached_to(&lease), true), (keys::held_by(&lease), false)]
        {
            let mut rest = Some(range);
            while let Some(range) = rest {
                let step = self.backend.scan(namespace, &range, None, false, STEP).await?;
                for entry in &step.entries {
                    bytes += entry.key().as_bytes().len();
                    if bytes > limit_bytes {
                        attached.more = true;
                        return Ok(attached);
                    }
                    match is_keys {
                        true => attached.keys.push(keys::key_attached(entry.key())),
                        false => {
                            let lock = keys::lock_held(entry.key());
                            attached.locks.push(keys::lock_name(&lock));
                        }
                    }
                }
                rest = step.next;
            }
        }
        Ok(attached)
    }

    /// Up to `limit` leases with ids after `after`, and the last id looked at if there may be more.
    pub async fn leases(
        &self,
        namespace: &NamespaceName,
        after: Option<u64>,
        limit: usize,
    ) -> Result<(ReadState, Vec<LeaseView>, Option<u64>), StoreError> {
        let range = keys::leases_after(after);
        let step = self.backend.scan(namespace, &range, None, false, limit).await?;
        let tip = step.tip;
        let last = step.entries.last().and_then(|entry| keys::lease_id(entry.key()));
        let alive = step.entries.iter().filter(|entry| !entry.deadline.is_due(tip.time_ms));
        let views =
            alive.filter_map(|entry| LeaseView::of(entry.key(), entry, tip.cleared)).collect();
        let state = ReadState { revision: tip.revision, time_ms: tip.time_ms };
        Ok((state, views, last.filter(|_| step.next.is_some())))
    }
}

fn own_deadline(entry: Option<&StoredEntry>) -> Option<i64> {
    match entry?.deadline {
        Deadline::At(at_ms) => Some(at_ms),
        Deadline::Never | Deadline::Of(_) => None,
    }
}
