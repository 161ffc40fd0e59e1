//! A namespace that is put in: built where nobody sees it, then put in place in one step.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::Arc,
};

use tokio::runtime::Handle;
use uuid::Uuid;

use super::{MovedLease, MovedLock, TransferStart};
use crate::{
    backend::{
        CommitOutcome, ContentType, Deadline, Entry, Key, Lineage, NamespaceName, Revision,
        Staging, Tip, entry_bytes,
    },
    store::{
        Store,
        error::{Refusal, StoreError},
        keys,
        read::ListQuery,
        record::{self, Hold, HoldDuration, LeaseRecord, LockRecord, Mark, Past},
        selector::Selector,
        settings::Settings,
    },
};

/// About how many entries, and bytes of them, are handed to the backend together.
const STEP: usize = 512;
const STEP_BYTES: u64 = 1 << 20;
/// How many leases or locks are looked at in one step.
const LOOK: usize = 1000;
/// How often it is tried to put it in place while others write there.
const MAX_ATTEMPTS: u32 = 64;

/// A namespace that is being put in. Dropped before it is finished, it leaves everything as it was.
pub struct Import {
    store: Arc<Store>,
    staging: Staging,
    replace: bool,
    /// The leases, with what hangs on them.
    leases: BTreeMap<u64, (MovedLease, LeaseRecord)>,
    /// The locks, each with the lease that it ends with.
    locks: HashMap<Key, Option<u64>>,
    pending: Vec<(Key, Entry)>,
    pending_bytes: u64,
    is_staged: bool,
}

/// What was put in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Imported {
    /// The last revision of the namespace now.
    pub revision: Revision,
    /// When it was done.
    pub time_ms: i64,
    /// The history that begins with it.
    pub lineage: Option<Lineage>,
}

impl Import {
    /// Begins.
    ///
    /// # Errors
    /// If the namespace is not empty, and not to be replaced.
    pub async fn begin(
        store: &Arc<Store>,
        start: &TransferStart,
        replace: bool,
    ) -> Result<Self, StoreError> {
        let mut import = Self {
            store: store.clone(),
            staging: Staging {
                namespace: start.namespace.clone(),
                id: Uuid::new_v4(),
                revision: start.revision,
                entries: 0,
            },
            replace,
            leases: BTreeMap::new(),
            locks: HashMap::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            is_staged: false,
        };
        // Rather now than after all has been sent; it is looked at again at the end.
        import.check_replaceable().await?;
        if start.settings != Settings::default() {
            let value = record::encode(&start.settings);
            import.put(keys::settings(), import.note(value, start.time_ms)).await?;
        }
        Ok(import)
    }

    /// Adds a lease; one that was added before is replaced.
    pub fn add_lease(&mut self, lease: MovedLease) {
        let MovedLease { id, ttl_ms, is_chosen, .. } = lease;
        let record = LeaseRecord { ttl_ms, is_chosen, keys: 0, locks: 0 };
        self.leases.insert(id, (lease, record));
    }

    /// Adds a lock; one that was added before is replaced.
    ///
    /// # Errors
    /// If its lease was not added, and it is to last as long as that.
    pub async fn add_lock(&mut self, lock: MovedLock) -> Result<(), StoreError> {
        let key = keys::lock(&lock.name);
        let lease = match lock.duration {
            HoldDuration::Lease(id) if lock.expires_at_ms.is_none() => {
                if !self.leases.contains_key(&id) {
                    return Err(self.no_lease(id));
                }
                Some(id)
            }
            // One that was only offered to a call that waited ends by itself, whatever became of the lease.
            HoldDuration::Lease(_) | HoldDuration::Ttl(_) => None,
        };
        // One that comes again may have been taken by its holder meanwhile, and end with its lease now.
        if self.locks.insert(key.clone(), lease).flatten().is_none() {
            self.attach(lease, keys::held, &key, lock.updated_at_ms, |it| &mut it.locks).await?;
        }
        let hold = Hold {
            acquire_id: Uuid::from_bytes(lock.acquire_id),
            owner: lock.owner,
            value: lock.value,
            duration: lock.duration,
            call: None,
            is_offered: false,
            before: Past::default(),
        };
        let entry = Entry {
            value: record::encode(&LockRecord::Held(Box::new(hold))),
            content_type: ContentType::JSON,
            version: lock.version,
            create_revision: lock.token,
            mod_revision: lock.mod_revision.min(self.staging.revision),
            created_at_ms: lock.acquired_at_ms,
            updated_at_ms: lock.updated_at_ms,
            deadline: match (lock.expires_at_ms, lease) {
                (_, Some(lease)) => Deadline::Of(Box::new(keys::lease(lease))),
                (Some(at_ms), None) => Deadline::At(at_ms),
                (None, None) => Deadline::At(lock.updated_at_ms),
            },
        };
        self.put(key, entry).await
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// If its lease was not added.
    pub async fn add_entry(&mut self, key: Key, entry: Entry) -> Result<(), StoreError> {
        let lease = entry.deadline.reference().and_then(keys::lease_id);
        self.attach(lease, keys::attached, &key, entry.updated_at_ms, |it| &mut it.keys).await?;
        self.put(key, entry).await
    }

    /// Puts it in place.
    ///
    /// # Errors
    /// If the namespace is not empty, and not to be replaced; then it is as it was.
    pub async fn finish(mut self) -> Result<Imported, StoreError> {
        for (id, (lease, record)) in mem::take(&mut self.leases) {
            let value = record::encode(&record);
            let entry = Entry {
                created_at_ms: lease.granted_at_ms,
                deadline: Deadline::At(lease.expires_at_ms),
                ..self.note(value, lease.granted_at_ms)
            };
            self.put(keys::lease(id), entry).await?;
        }
        self.flush().await?;
        let store = self.store.clone();
        for _ in 0..MAX_ATTEMPTS {
            let at = self.check_replaceable().await?.position;
            let backend = store.backend();
            match backend.replace(&self.staging, at).await? {
                CommitOutcome::Committed(committed) => {
                    self.is_staged = false;
                    let namespace = store.namespace(&self.staging.namespace);
                    *namespace.kept.lock() = None;
                    store.note_commit(&namespace, &committed);
                    let stamp = committed.stamps.first();
                    let revision = stamp.map_or(committed.before, |stamp| stamp.revision);
                    let Tip { lineage, time_ms, .. } = committed.tip;
                    return Ok(Imported { revision, time_ms, lineage });
                }
                CommitOutcome::Moved(_) => {}
            }
        }
        Err(StoreError::Contended { attempts: MAX_ATTEMPTS })
    }

    /// Where the namespace stands, if it may be replaced there.
    async fn check_replaceable(&self) -> Result<Tip, StoreError> {
        let tip = self.store.tip(&self.staging.namespace).await?;
        let is_free = self.replace
            || tip.lineage.is_none()
            || self.store.holds_nothing(&self.staging.namespace).await?;
        if is_free {
            Ok(tip)
        } else {
            Err(StoreError::NotEmpty { namespace: self.staging.namespace.clone() })
        }
    }

    /// Notes that something is attached to a lease.
    async fn attach(
        &mut self,
        lease: Option<u64>,
        note: impl Fn(&Key, &Key) -> Key,
        what: &Key,
        time_ms: i64,
        count: impl Fn(&mut LeaseRecord) -> &mut u32,
    ) -> Result<(), StoreError> {
        let Some(id) = lease else {
            return Ok(());
        };
        let Some((_, record)) = self.leases.get_mut(&id) else {
            return Err(self.no_lease(id));
        };
        *count(record) += 1;
        let limit = self.store.options.max_lease_keys as u64;
        if u64::from(record.keys) + u64::from(record.locks) > limit {
            return Err(self.refuse(Refusal::QuotaExceeded { quota: "max_lease_keys", limit }));
        }
        let mark = self.note(record::encode(&Mark {}), time_ms);
        self.put(note(&keys::lease(id), what), mark).await
    }

    /// An internal record.
    fn note(&self, value: bytes::Bytes, time_ms: i64) -> Entry {
        Entry {
            value,
            content_type: ContentType::JSON,
            version: 1,
            create_revision: self.staging.revision,
            mod_revision: self.staging.revision,
            created_at_ms: time_ms,
            updated_at_ms: time_ms,
            deadline: Deadline::Never,
        }
    }

    async fn put(&mut self, key: Key, entry: Entry) -> Result<(), StoreError> {
        self.pending_bytes += entry_bytes(&key, &entry.content_type, &entry.value);
        self.pending.push((key, entry));
        match self.pending.len() >= STEP || self.pending_bytes >= STEP_BYTES {
            true => self.flush().await,
            false => Ok(()),
        }
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending_bytes = 0;
        self.is_staged = true;
        let entries = mem::take(&mut self.pending);
        self.staging.entries += entries.len() as u64;
        Ok(self.store.backend.stage(&self.staging, entries).await?)
    }

    fn no_lease(&self, lease: u64) -> StoreError {
        self.refuse(Refusal::LeaseNotFound { lease })
    }

    fn refuse(&self, refusal: Refusal<crate::store::command::EntryView>) -> StoreError {
        StoreError::Refused { refusal, revision: self.staging.revision }
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        if let (true, Ok(runtime)) = (self.is_staged, Handle::try_current()) {
            let (store, staging) = (self.store.clone(), self.staging.clone());
            runtime.spawn(async move { store.backend.discard(&staging).await });
        }
    }
}

impl Store {
    /// Whether there is neither a key nor a lock nor a lease.
    async fn holds_nothing(&self, name: &NamespaceName) -> Result<bool, StoreError> {
        let query = ListQuery {
            selector: Selector::all(),
            reverse: false,
            at: None,
            min_mod_revision: Revision(0),
        };
        let mut cursor = None;
        loop {
            let page = self.page(name, &query, cursor, 1, |_| true).await?;
            match page {
                page if !page.entries.is_empty() => return Ok(false),
                page if page.end => break,
                page => cursor = Some(page.cursor),
            }
        }
        let mut after = None;
        loop {
            let (_, leases, last) = self.leases(name, after, LOOK).await?;
            match last {
                _ if !leases.is_empty() => return Ok(false),
                None => break,
                last => after = last,
            }
        }
        let mut after: Option<String> = None;
        loop {
            let (_, locks, last) = self.locks(name, "", after.as_deref(), LOOK).await?;
            match last {
                _ if !locks.is_empty() => return Ok(false),
                None => return Ok(true),
                last => after = last,
            }
        }
    }
}
