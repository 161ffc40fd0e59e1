//! What a namespace has, told in steps while others go on writing.
//!
//! Entries are read at one revision, held by a pin, and by one time: what had ended by then is left out. Leases and holds
//! are renewed without a revision, so that what they were at that revision may be known no more: then they are told as
//! they are now. They are first read at the revision, then as they are; one that is renewed in between comes again.

use std::{collections::BTreeSet, sync::Arc};

use async_stream::try_stream;
use futures::Stream;

use super::{MovedLease, MovedLock, TransferStart};
use crate::{
    backend::{Deadline, Entry, Key, KeyRange, NamespaceName, Revision, StoredEntry, Tip},
    store::{
        Store,
        error::StoreError,
        keys,
        leases::Leases,
        read::check_lineage,
        record::{self, LeaseRecord, LockRecord},
    },
};

/// How many keys are looked at in one step.
const STEP: usize = 1000;

/// A part of what a namespace has. Leases come before locks, and these before entries.
#[derive(Debug, Clone)]
pub enum ExportItem {
    /// First of all.
    Start(TransferStart),
    /// Leases.
    Leases(Vec<MovedLease>),
    /// Locks that are held.
    Locks(Vec<MovedLock>),
    /// Entries in the order of their keys.
    Entries(Vec<(Key, Entry)>),
}

impl Store {
    /// Tells what a namespace has; nothing if it does not exist.
    pub fn export(
        self: &Arc<Self>,
        name: &NamespaceName,
    ) -> impl Stream<Item = Result<ExportItem, StoreError>> + Send + use<> {
        let (store, name) = (self.clone(), name.clone());
        try_stream! {
            let Some(start) = store.start_export(&name).await? else {
                return;
            };
            let _pin = store.pin(&name, start.revision);
            let export = Export { store: &store, name: &name, start: &start };
            yield ExportItem::Start(start.clone());
            for at in [Some(start.revision), None] {
                let mut rest = Some(keys::leases_after(None));
                while let Some(range) = rest {
                    let (leases, next) = export.leases(&range, at).await?;
                    yield ExportItem::Leases(leases);
                    rest = next;
                }
            }
            for at in [Some(start.revision), None] {
                let mut rest = Some(keys::locks("", None));
                while let Some(range) = rest {
                    let (locks, next) = export.locks(&range, at).await?;
                    yield ExportItem::Locks(locks);
                    rest = next;
                }
            }
            let mut rest = Some(keys::all());
            while let Some(range) = rest {
                let (entries, next) = export.entries(&range).await?;
                yield ExportItem::Entries(entries);
                rest = next;
            }
        }
    }

    async fn start_export(
        &self,
        name: &NamespaceName,
    ) -> Result<Option<TransferStart>, StoreError> {
        self.count_read();
        let answer = self.backend.read(name, &[keys::settings()], None).await?;
        let settings = answer.entries.first().and_then(Option::as_ref);
        let settings = *self.namespace(name).settings(settings);
        let Tip { revision, lineage, time_ms, usage, .. } = answer.tip;
        let namespace = name.clone();
        Ok(lineage.is_some().then_some(TransferStart {
            namespace,
            settings,
            revision,
            lineage,
            time_ms,
            expected_entries: usage.keys,
        }))
    }
}

/// An export that is under way.
struct Export<'a> {
    store: &'a Store,
    name: &'a NamespaceName,
    start: &'a TransferStart,
}

impl Export<'_> {
    /// Some leases as they were at a revision, or those that were renewed since, as they are; and the range that is left.
    async fn leases(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> Result<(Vec<MovedLease>, Option<KeyRange>), StoreError> {
        let (entries, _, next) = self.scan(range, at).await?;
        let told = entries.iter().filter(|entry| self.is_new(entry, at));
        // Also those that have ended since: what was attached to them then is told.
        let alive = told.filter(|entry| !entry.deadline.is_due(self.start.time_ms));
        Ok((alive.filter_map(moved_lease).collect(), next))
    }

    /// The same for locks that are held; not the holds that were granted since.
    async fn locks(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> Result<(Vec<MovedLock>, Option<KeyRange>), StoreError> {
        let (mut entries, tip, next) = self.scan(range, at).await?;
        let mut time_ms = self.start.time_ms;
        if at.is_none() {
            time_ms = tip.time_ms;
            entries.retain(|entry| {
                self.is_new(entry, at) && entry.create_revision <= self.start.revision
            });
            let keys: Vec<_> = entries.iter().map(|entry| entry.key().clone()).collect();
            let revision = Some(self.start.revision);
            let mut told = self.store.backend.read(self.name, &keys, revision).await?.entries;
            told.reverse();
            entries.retain(|_| told.pop().flatten().is_none());
        }
        let gone = self.gone_leases(&entries, time_ms).await?;
        let is_alive = |entry: &&StoredEntry| {
            let lease = entry.deadline.reference();
            !entry.deadline.is_due(time_ms) && lease.is_none_or(|lease| !gone.contains(lease))
        };
        let locks = entries.iter().filter(is_alive).filter_map(moved_lock).collect();
        Ok((locks, next))
    }

    /// Some entries, and the range that is left.
    async fn entries(
        &self,
        range: &KeyRange,
    ) -> Result<(Vec<(Key, Entry)>, Option<KeyRange>), StoreError> {
        let revision = self.start.revision;
        let (found, _, next) = self.scan(range, Some(revision)).await?;
        let mut leases = Leases::default();
        self.store.look_up(self.name, &mut leases, found.iter(), revision).await?;
        let unknown = found.iter().filter(|entry| {
            entry.deadline.reference().is_some() && leases.ends_ms(&entry.deadline).is_none()
        });
        let unknown: Vec<_> = unknown.cloned().collect();
        let gone = self.gone_leases(&unknown, self.start.time_ms).await?;
        let mut entries = Vec::with_capacity(found.len());
        for found in found {
            if leases.is_due(&found, self.start.time_ms) {
                continue;
            }
            let mut entry = Entry::clone(&found);
            if found.deadline.reference().is_some_and(|lease| gone.contains(lease)) {
                // It was alive then, and is not now: that is all that is known.
                entry.deadline = Deadline::At(self.start.time_ms.saturating_add(1));
            }
            entries.push((found.key().clone(), entry));
        }
        Ok((entries, next))
    }

    async fn scan(
        &self,
        range: &KeyRange,
        at: Option<Revision>,
    ) -> Result<(Vec<StoredEntry>, Tip, Option<KeyRange>), StoreError> {
        tokio::task::yield_now().await;
        let backend = &self.store.backend;
        match backend.scan(self.name, range, at, false, STEP).await {
            Ok(step) => {
                check_lineage(step.tip.lineage, self.start.lineage)?;
                Ok((step.entries, step.tip, step.next))
            }
            Err(error) => {
                // Where its revision went may be where the namespace went.
                let tip = self.store.tip(self.name).await?;
                check_lineage(tip.lineage, self.start.lineage)?;
                Err(error.into())
            }
        }
    }

    /// Whether a reading of the present state is the first that tells of it.
    fn is_new(&self, entry: &StoredEntry, at: Option<Revision>) -> bool {
        at.is_some() || entry.mod_revision > self.start.revision
    }

    /// Those of the leases of entries that had ended by a time, and those that are known no more: they were renewed after
    /// the revision, and have ended since.
    async fn gone_leases(
        &self,
        entries: &[StoredEntry],
        time_ms: i64,
    ) -> Result<BTreeSet<Key>, StoreError> {
        let leases: BTreeSet<_> =
            entries.iter().filter_map(|entry| entry.deadline.reference().cloned()).collect();
        let mut left: Vec<_> = leases.into_iter().collect();
        let mut gone = BTreeSet::new();
        for at in [Some(self.start.revision), None] {
            if left.is_empty() {
                break;
            }
            let found = self.store.backend.read(self.name, &left, at).await?.entries;
            let mut unknown = Vec::new();
            for (lease, found) in left.into_iter().zip(found) {
                match found {
                    Some(found) if !found.deadline.is_due(time_ms) => {}
                    Some(_) => drop(gone.insert(lease)),
                    None => unknown.push(lease),
                }
            }
            left = unknown;
        }
        gone.extend(left);
        Ok(gone)
    }
}

fn moved_lease(entry: &StoredEntry) -> Option<MovedLease> {
    let LeaseRecord { ttl_ms, is_chosen, .. } = record::decode(&entry.value)?;
    let Deadline::At(expires_at_ms) = entry.deadline else {
        return None;
    };
    let (id, granted_at_ms) = (keys::lease_id(entry.key())?, entry.created_at_ms);
    Some(MovedLease { id, ttl_ms, granted_at_ms, expires_at_ms, is_chosen })
}

fn moved_lock(entry: &StoredEntry) -> Option<MovedLock> {
    let LockRecord::Held(hold) = record::decode(&entry.value)? else {
        return None;
    };
    Some(MovedLock {
        name: keys::lock_name(entry.key()),
        token: entry.create_revision,
        mod_revision: entry.mod_revision,
        version: entry.version,
        acquired_at_ms: entry.created_at_ms,
        updated_at_ms: entry.updated_at_ms,
        acquire_id: hold.acquire_id.into_bytes(),
        owner: hold.owner,
        value: hold.value,
        expires_at_ms: match &entry.deadline {
            Deadline::At(at_ms) => Some(*at_ms),
            Deadline::Of(_) => None,
            Deadline::Never => return None,
        },
        duration: hold.duration,
    })
}
