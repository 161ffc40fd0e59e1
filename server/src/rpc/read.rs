//! Reads of single keys, counts and histories.

use holdfast_proto::v1::{
    CountResponse, ExistsResponse, GetResponse, GetTtlResponse, HistoryResponse, get_ttl_response,
    pipeline_answer::Result as Outcome,
};

use super::{
    MESSAGE_BYTES, entry,
    entry_wire::{EntryAnswer, Shown},
    lease::{GetLease, ListLeases},
    list::{BatchGet, List},
    lock::{self, ListLocks},
    status::Failure,
};
use crate::{
    backend::{Key, NamespaceName, Revision, StoredEntry},
    store::{Snapshot, Store, selector::Selector},
};

/// A read of any kind.
pub(super) enum Read {
    /// A look at one key as it is now; many of them are done in one step.
    Lookup(Lookup),
    /// Any other.
    Query(Box<Query>),
}

/// A look at one key as it is now.
pub(super) struct Lookup {
    /// The key.
    pub key: Key,
    /// What to look for.
    pub look: Look,
}

/// What to look for at a key.
#[derive(Debug, Clone, Copy)]
pub(super) enum Look {
    /// The entry.
    Get,
    /// Whether there is one.
    Exists,
    /// How long it has to live.
    Ttl,
}

/// A read that is more than a look.
pub(super) enum Query {
    /// What a revision held.
    GetAt { key: Key, at: Revision },
    /// How many keys there are.
    Count(Selector),
    /// The changes of a key.
    History { key: Key, before: Option<Revision>, limit: usize },
    /// A page of entries.
    List(List),
    /// Several keys.
    BatchGet(BatchGet),
    /// Who holds a lock.
    GetLock(Key),
    /// A page of locks.
    ListLocks(ListLocks),
    /// What is known of a lease.
    GetLease(GetLease),
    /// A page of leases.
    ListLeases(ListLeases),
}

impl Read {
    /// Reads.
    pub async fn run(self, store: &Store, name: &NamespaceName) -> Result<Outcome, Failure> {
        match self {
            Self::Lookup(lookup) => lookup.run(store, name).await,
            Self::Query(query) => query.run(store, name).await,
        }
    }
}

impl Lookup {
    /// Looks at the key.
    pub async fn run(self, store: &Store, name: &NamespaceName) -> Result<Outcome, Failure> {
        store.count_read();
        let snapshot = store.read(name, &[self.key], None).await?;
        let found = snapshot.entries.first().and_then(Option::as_ref);
        Ok(self.look.answer(found, &snapshot))
    }
}

/// The answer to a get, from what was found in a snapshot.
pub(super) fn get_answer<'a>(
    found: Option<&'a StoredEntry>,
    snapshot: &Snapshot,
) -> EntryAnswer<'a> {
    EntryAnswer {
        revision: snapshot.revision.0,
        time_ms: snapshot.time_ms,
        entry: found.map(|entry| Shown { key: entry.key(), entry, with_value: true }),
        created: false,
    }
}

impl Look {
    /// The answer, from what was found in a snapshot.
    pub fn answer(self, found: Option<&StoredEntry>, snapshot: &Snapshot) -> Outcome {
        let (revision, time_ms) = (snapshot.revision.0, snapshot.time_ms);
        match self {
            Self::Get => {
                let entry = found.map(|entry| entry::stored(entry, true));
                Outcome::Get(GetResponse { revision, time_ms, entry })
            }
            Self::Exists => {
                Outcome::Exists(ExistsResponse { revision, time_ms, exists: found.is_some() })
            }
            Self::Ttl => {
                let ttl = Some(ttl(found, snapshot));
                Outcome::GetTtl(GetTtlResponse { revision, time_ms, ttl })
            }
        }
    }
}

impl Query {
    /// Reads.
    pub async fn run(self, store: &Store, name: &NamespaceName) -> Result<Outcome, Failure> {
        store.count_read();
        Ok(match self {
            Self::GetAt { key, at } => {
                let snapshot = store.read(name, &[key], Some(at)).await?;
                Look::Get.answer(snapshot.entries.first().and_then(Option::as_ref), &snapshot)
            }
            Self::Count(selector) => {
                let (count, state) = store.count(name, &selector).await?;
                let (revision, time_ms) = (state.revision.0, state.time_ms);
                Outcome::Count(CountResponse { revision, time_ms, count })
            }
            Self::History { key, before, limit } => {
                Outcome::History(history(store, name, &key, before, limit).await?)
            }
            Self::List(list) => Outcome::List(list.run(store, name).await?),
            Self::BatchGet(batch) => Outcome::BatchGet(batch.run(store, name).await?),
            Self::GetLock(key) => {
                let (state, found) = store.lock(name, &key).await?;
                Outcome::GetLock(lock::get_lock_response(&state, found))
            }
            Self::ListLocks(list) => Outcome::ListLocks(list.run(store, name).await?),
            Self::GetLease(get) => Outcome::GetLease(get.run(store, name).await?),
            Self::ListLeases(list) => Outcome::ListLeases(list.run(store, name).await?),
        })
    }
}

async fn history(
    store: &Store,
    name: &NamespaceName,
    key: &Key,
    before: Option<Revision>,
    limit: usize,
) -> Result<HistoryResponse, Failure> {
    let shown = entry::Shown { values: true, unchanged_values: true, previous: false };
    let found = store.history(name, key, before, limit).await?;
    let mut bytes = 0;
    let fitting = found.changes.iter().take_while(|change| {
        let is_first = bytes == 0;
        bytes += entry::event_size(change, None, shown);
        is_first || bytes <= MESSAGE_BYTES
    });
    let events: Vec<_> = fitting.map(|change| entry::event(change, None, shown)).collect();
    Ok(HistoryResponse {
        revision: found.tip.revision.0,
        time_ms: found.tip.time_ms,
        more: found.more || events.len() < found.changes.len(),
        events,
    })
}

fn ttl(found: Option<&StoredEntry>, snapshot: &Snapshot) -> get_ttl_response::Ttl {
    use get_ttl_response::{Missing, Never, Ttl};
    match found.map(|entry| snapshot.deadline_ms(entry)) {
        None => Ttl::Missing(Missing {}),
        Some(None) => Ttl::Never(Never {}),
        Some(Some(at_ms)) => Ttl::RemainingMs(at_ms.abs_diff(snapshot.time_ms)),
    }
}
