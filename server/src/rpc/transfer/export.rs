//! What the store exports, as messages.

use std::{collections::HashSet, sync::Arc};

use async_stream::try_stream;
use futures::{Stream, StreamExt as _};
use holdfast_proto::v1::{
    LockOwner, TransferEnd, TransferItems, TransferLease, TransferLock, TransferPart,
    TransferStart, transfer_lock::Duration, transfer_part::Part,
};
use prost::Message as _;
use tonic::Status;

use super::{FORMAT, PART_BYTES, checksum::Checksum};
use crate::{
    backend::NamespaceName,
    rpc::{entry, namespace, status::Failure},
    store::{self, ExportItem, HoldDuration, MovedLease, MovedLock, Store},
};

/// How many names of namespaces are read at once.
const NAMES: usize = 1000;

/// The state of these namespaces, one after the other, each at a revision of its own. Those that do not exist are left out.
pub fn export(
    store: Arc<Store>,
    names: Vec<NamespaceName>,
) -> impl Stream<Item = Result<TransferPart, Status>> + Send {
    try_stream! {
        let mut told = HashSet::new();
        // Whoever is named twice is told of once: a second time it could not be imported.
        for name in names.into_iter().filter(|name| told.insert(name.clone())) {
            for await part in one(&store, &name) {
                yield part?;
            }
        }
    }
}

/// The same of all namespaces that there are, in the order of their names.
pub fn export_all(store: Arc<Store>) -> impl Stream<Item = Result<TransferPart, Status>> + Send {
    try_stream! {
        let mut after = None;
        loop {
            let infos = store.readable_namespaces("", after.as_ref(), NAMES).await;
            let infos = infos.map_err(Failure::from)?;
            let Some(last) = infos.last() else {
                return;
            };
            after = Some(last.name.clone());
            for info in infos {
                for await part in one(&store, &info.name) {
                    yield part?;
                }
            }
        }
    }
}

fn one(
    store: &Arc<Store>,
    name: &NamespaceName,
) -> impl Stream<Item = Result<TransferPart, Status>> + Send + use<> {
    let items = store.export(name);
    try_stream! {
        let mut end = TransferEnd::default();
        let mut checksum = Checksum::default();
        let mut has_begun = false;
        for await item in items {
            match item.map_err(Failure::from)? {
                ExportItem::Start(start) => {
                    has_begun = true;
                    yield part(Part::Start(encode_start(&start)));
                }
                item => {
                    let mut items = Batches::of(item);
                    while let Some(items) = items.next() {
                        count(&items, &mut end, &mut checksum);
                        yield part(Part::Items(items));
                    }
                }
            }
        }
        if has_begun {
            end.checksum = checksum.value();
            yield part(Part::End(end));
        }
    }
    .boxed()
}

fn part(part: Part) -> TransferPart {
    TransferPart { part: Some(part) }
}

/// Counts items that come or go.
pub(super) fn count(items: &TransferItems, end: &mut TransferEnd, checksum: &mut Checksum) {
    items.leases.iter().for_each(|lease| checksum.add_lease(lease));
    items.locks.iter().for_each(|lock| checksum.add_lock(lock));
    items.entries.iter().for_each(|entry| checksum.add_entry(entry));
    end.lease_count += items.leases.len() as u64;
    end.lock_count += items.locks.len() as u64;
    end.entry_count += items.entries.len() as u64;
}

/// What the store exports in one step, parted so that a message does not become too large.
enum Batches {
    Leases(std::vec::IntoIter<MovedLease>),
    Locks(std::iter::Peekable<std::vec::IntoIter<MovedLock>>),
    Entries(std::iter::Peekable<std::vec::IntoIter<(crate::backend::Key, crate::backend::Entry)>>),
}

impl Batches {
    fn of(item: ExportItem) -> Self {
        match item {
            ExportItem::Start(_) => Self::Leases(Vec::new().into_iter()),
            ExportItem::Leases(leases) => Self::Leases(leases.into_iter()),
            ExportItem::Locks(locks) => Self::Locks(locks.into_iter().peekable()),
            ExportItem::Entries(entries) => Self::Entries(entries.into_iter().peekable()),
        }
    }

    fn next(&mut self) -> Option<TransferItems> {
        let mut items = TransferItems::default();
        let mut room = PART_BYTES;
        match self {
            Self::Leases(leases) => items.leases.extend(leases.map(encode_lease)),
            Self::Locks(locks) => {
                while room > 0
                    && let Some(lock) = locks.next()
                {
                    let lock = encode_lock(lock);
                    room = room.saturating_sub(lock.encoded_len());
                    items.locks.push(lock);
                }
            }
            Self::Entries(entries) => {
                while let Some((key, entry)) = entries.peek() {
                    let size = entry.value.len() + key.as_bytes().len() + 128;
                    if size > room && !items.entries.is_empty() {
                        break;
                    }
                    room = room.saturating_sub(size);
                    items.entries.push(entry::encode(key, entry, true));
                    entries.next();
                }
            }
        }
        let is_empty =
            items.leases.is_empty() && items.locks.is_empty() && items.entries.is_empty();
        (!is_empty).then_some(items)
    }
}

fn encode_start(start: &store::TransferStart) -> TransferStart {
    TransferStart {
        format: FORMAT,
        namespace: start.namespace.as_str().into(),
        settings: Some(namespace::encode_settings(&start.settings)),
        revision: start.revision.0,
        lineage: entry::lineage(start.lineage),
        time_ms: start.time_ms,
        expected_entries: start.expected_entries,
    }
}

fn encode_lease(lease: MovedLease) -> TransferLease {
    let MovedLease { id, ttl_ms, granted_at_ms, expires_at_ms, is_chosen } = lease;
    TransferLease { id, ttl_ms, granted_at_ms, expires_at_ms, is_chosen }
}

fn encode_lock(lock: MovedLock) -> TransferLock {
    let store::Owner { id, who, reason, operation, client_version } = lock.owner;
    TransferLock {
        name: lock.name,
        token: lock.token.0,
        mod_revision: lock.mod_revision.0,
        version: lock.version,
        acquired_at_ms: lock.acquired_at_ms,
        updated_at_ms: lock.updated_at_ms,
        acquire_id: lock.acquire_id.to_vec().into(),
        owner: Some(LockOwner { id, who, reason, operation, client_version }),
        value: lock.value,
        duration: Some(match lock.duration {
            HoldDuration::Ttl(ttl_ms) => Duration::TtlMs(ttl_ms),
            HoldDuration::Lease(lease) => Duration::LeaseId(lease),
        }),
        expires_at_ms: lock.expires_at_ms,
    }
}
