//! All meaning: commands and the one path on which they are committed, reads, watches, expiry.

pub mod command;
mod committer;
pub mod error;
mod expiry;
pub mod glob;
pub mod keys;
mod known;
mod leases;
mod locks;
mod namespace;
mod read;
mod record;
mod requests;
mod retention;
pub mod selector;
pub mod settings;
#[cfg(test)]
mod tests;
mod transfer;
mod watch;
mod workspace;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use tokio::{sync::watch as value, task::JoinSet};

pub use command::Guard;
pub use committer::{Answer, RequestId, Submission, Work};
pub use leases::Attached;
pub use locks::{LockEvent, LockEventKind, LockSelector, LockWatchItem, LockWatchQuery};
pub use namespace::Pin;
pub use read::{Cursor, ListQuery, Page, ReadState, Snapshot};
pub use record::{HoldDuration, LeaseView, LockView, LossCause, Owner};
pub use transfer::{ExportItem, Import, Imported, MovedLease, MovedLock, TransferStart};
pub use watch::{Kinds, Matching, Place, Progress, WatchItem, WatchQuery, WatchStart};
pub use workspace::{MAX_REVISION_BYTES, MAX_REVISION_KEYS};

use self::{expiry::Deadlines, namespace::Namespace, settings::Settings};
use crate::{
    backend::{Backend, LogShape, NamespaceName, Usage},
    clock::Clock,
};

/// How a store is set up.
#[derive(Debug, Clone, Copy)]
pub struct StoreOptions {
    /// The settings that a namespace begins with.
    pub initial_settings: Settings,
    /// Most keys and locks of a lease, up to [`MAX_REVISION_KEYS`]: they end in one revision.
    pub max_lease_keys: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { initial_settings: Settings::default(), max_lease_keys: MAX_REVISION_KEYS }
    }
}

/// The state of all namespaces.
pub struct Store {
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
    options: StoreOptions,
    namespaces: RwLock<HashMap<NamespaceName, Arc<Namespace>>>,
    deadlines: Deadlines,
    counters: Counters,
}

/// What a store has done since it was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub commands: AtomicU64,
    pub commits: AtomicU64,
    pub expired: AtomicU64,
    pub watches: AtomicU64,
}

/// The counters of a store and what its namespaces hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// The store's time.
    pub time_ms: i64,
    /// How many namespaces there are.
    pub namespaces: u64,
    /// What they hold together.
    pub usage: Usage,
    /// How large their logs are together.
    pub log: LogShape,
    /// Commands run.
    pub commands: u64,
    /// Commits made.
    pub commits: u64,
    /// Entries removed by expiry.
    pub expired: u64,
    /// Watches open.
    pub watches: u64,
}

impl Store {
    /// A store over a backend. `clock` is what its timers go by; time itself comes from the backend.
    pub fn new(
        backend: Arc<dyn Backend>,
        clock: Arc<dyn Clock>,
        options: StoreOptions,
    ) -> Arc<Self> {
        Arc::new(Self {
            backend,
            clock,
            options,
            namespaces: RwLock::default(),
            deadlines: Deadlines::default(),
            counters: Counters::default(),
        })
    }

    /// Removes what is due and forgets old history, until `stop` says so.
    ///
    /// # Panics
    /// If a part of that does: the store must not go on without it.
    pub async fn maintain(self: Arc<Self>, mut stop: value::Receiver<bool>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(expiry::run(self.clone()));
        tasks.spawn(expiry::look(self.clone()));
        tasks.spawn(retention::run(self.clone()));
        tokio::select! {
            // Without its sender there is nobody left to serve: that, too, is the end.
            _ = stop.wait_for(|stop| *stop) => {}
            Some(Err(error)) = tasks.join_next() => {
                if let Ok(panic) = error.try_into_panic() {
                    std::panic::resume_unwind(panic);
                }
            }
        }
        tasks.shutdown().await;
    }

    /// The backend.
    pub fn backend(&self) -> &dyn Backend {
        &*self.backend
    }

    /// Sleeps by the clock of the store's timers.
    pub async fn sleep(&self, duration: Duration) {
        self.clock.sleep(duration).await;
    }

    /// Counts a read among the commands run.
    pub fn count_read(&self) {
        self.counters.commands.fetch_add(1, Ordering::Relaxed);
    }

    fn namespace(&self, name: &NamespaceName) -> Arc<Namespace> {
        if let Some(namespace) = self.namespaces.read().get(name) {
            return namespace.clone();
        }
        let mut namespaces = self.namespaces.write();
        let namespace = namespaces.entry(name.clone());
        namespace.or_insert_with(|| Arc::new(Namespace::new(name.clone()))).clone()
    }
}
