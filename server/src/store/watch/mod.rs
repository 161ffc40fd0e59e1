//! Watches: an initial state, then every change after it, in order and once.
//!
//! One task per watched namespace, the hub, pulls the log and hands what it finds to all watches through a
//! bounded ring. A watch that falls out of the ring, because its reader is slow, pulls the log itself until it
//! has caught up. So a slow reader costs no memory and holds up nobody.
//!
//! Invariant: `have` is the revision up to which everything that matches was handed on; it moves only by a batch
//! that begins at or before it. Progress is told from the same place as events, so it cannot overtake them.

mod follower;
mod hub;
mod initial;
mod matching;
mod silence;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use async_stream::try_stream;
use futures::Stream;

pub(super) use self::{follower::Follower, hub::Hub, silence::Silence};
use self::{hub::Batch, initial::Initial};
pub use self::{
    matching::{Matching, Place},
    silence::Progress,
};
use super::{Cursor, Store, error::StoreError, namespace::Namespace, selector::Selector};
use crate::backend::{
    ChangeKind, Key, Lineage, LoggedChange, NamespaceName, Removal, Revision, StoredEntry, Tip,
};

/// Where a watch starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchStart {
    /// With what comes.
    Now,
    /// With what came after a revision.
    After {
        /// The revision; 0: from the first change of the namespace.
        revision: Revision,
        /// Start with the initial state if that is compacted, of another lineage, or not there yet.
        or_initial: bool,
    },
    /// With the live entries.
    Initial,
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct WatchQuery {
    /// Which keys: those that any of these selects. A clear is of all keys.
    pub selectors: Vec<Selector>,
    /// Where to start.
    pub start: WatchStart,
    /// The lineage that a start after a revision belongs to; empty: the namespace did not exist.
    pub lineage: Option<String>,
    /// Which kinds of change.
    pub kinds: Kinds,
    /// How long to say nothing.
    pub progress_interval: Duration,
}

/// Kinds of change to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kinds {
    /// Values written.
    pub set: bool,
    /// Deadlines changed.
    pub ttl_changed: bool,
    /// Keys deleted.
    pub deleted: bool,
    /// Keys that ended by their deadline.
    pub expired: bool,
    /// All keys removed at once.
    pub clear: bool,
}

impl Kinds {
    /// All of them.
    pub const ALL: Self =
        Self { set: true, ttl_changed: true, deleted: true, expired: true, clear: true };

    fn admit(self, kind: ChangeKind) -> bool {
        match kind {
            ChangeKind::Set => self.set,
            ChangeKind::TtlChanged => self.ttl_changed,
            ChangeKind::Removed(Removal::Deleted | Removal::Revoked) => self.deleted,
            ChangeKind::Removed(Removal::Ttl | Removal::Lease) => self.expired,
            ChangeKind::Clear => self.clear || self.deleted,
        }
    }
}

/// What a watch tells.
#[derive(Debug)]
pub enum WatchItem {
    /// First of all.
    Created {
        /// The history; `None`: the namespace does not exist.
        lineage: Option<Lineage>,
        /// Changes after this revision will come.
        revision: Revision,
        /// The last revision no longer held.
        compacted: Revision,
        /// Whether the start asked for was not possible, and an initial state comes instead.
        reset: bool,
        /// Whether an initial state comes.
        initial: bool,
        /// The store's time.
        time_ms: i64,
    },
    /// A part of the initial state.
    Initial {
        /// Entries in order of their keys.
        entries: Vec<StoredEntry>,
        /// The state that they are of.
        cursor: Cursor,
        /// Whether that was all.
        end: bool,
    },
    /// The namespace came into being.
    Born {
        /// Its history.
        lineage: Lineage,
    },
    /// Changes that match.
    Changes {
        /// In order, at least one.
        changes: Matching,
        /// Everything up to this revision is told with them.
        through: Revision,
    },
    /// Nothing that matches for a while.
    Progress(Progress),
}

impl Store {
    /// Watches a namespace, whether it exists or not. The stream ends with an error, or never.
    pub fn watch(
        self: &Arc<Self>,
        name: &NamespaceName,
        mut query: WatchQuery,
    ) -> impl Stream<Item = Result<WatchItem, StoreError>> + Send + use<> {
        let store = self.clone();
        let namespace = self.namespace(name);
        try_stream! {
            let _open = OpenWatch::new(store.clone());
            let start = store.start_watch(&namespace, &query).await?;
            // It may be as long as a request, and a watch lasts.
            query.lineage = None;
            yield start.created();
            let mut follower = Follower::after(&store, &namespace, &start.tip, start.have);
            if let Some(mut initial) = start.initial {
                while let Some(item) = initial.next(&store, &namespace, &query).await? {
                    yield item;
                }
                follower.pin = initial.pin;
            }
            let mut silence = Silence::new(&store, query.progress_interval);
            loop {
                if let Some(batch) = silence.next(&store, &mut follower).await? {
                    let have = follower.have;
                    if let Some(lineage) = follower.take(&batch) {
                        yield WatchItem::Born { lineage };
                    }
                    let changes = query.filter(&batch, have);
                    if let Some(last) = changes.places().last() {
                        let told_ms = changes.at(*last).change.time_ms;
                        yield WatchItem::Changes { changes, through: batch.through };
                        silence.end(&store, told_ms);
                    }
                }
                if let Some(progress) = silence.progress(&store, &namespace, follower.have).await? {
                    yield WatchItem::Progress(progress);
                }
            }
        }
    }

    /// Finds out where a watch begins, and whether with an initial state.
    async fn start_watch(
        &self,
        namespace: &Arc<Namespace>,
        query: &WatchQuery,
    ) -> Result<Start, StoreError> {
        let tip = self.tip(&namespace.name).await?;
        match query.start {
            WatchStart::Now => Ok(Start::at(tip, tip.revision)),
            WatchStart::Initial => self.start_initial(namespace, query, tip, false).await,
            WatchStart::After { revision, or_initial } => {
                let lineage = query.lineage.as_deref();
                match self.check_start(namespace, lineage, &tip, revision).await {
                    Ok(()) => Ok(Start::at(tip, revision)),
                    Err(error) if or_initial && error.is_lost_history() => {
                        self.start_initial(namespace, query, tip, true).await
                    }
                    Err(error) => Err(error),
                }
            }
        }
    }

    /// Whether the log can be followed after a revision of this lineage.
    pub(super) async fn check_start(
        &self,
        namespace: &Namespace,
        expected: Option<&str>,
        tip: &Tip,
        after: Revision,
    ) -> Result<(), StoreError> {
        let lineage = tip.lineage.map(|lineage| lineage.to_string()).unwrap_or_default();
        // Who watched before there was a namespace has seen all of its history: nothing.
        let from_nothing = expected == Some("") && after == Revision(0);
        if let Some(expected) = expected.filter(|it| *it != lineage && !from_nothing) {
            let shared = self.shared_through(namespace, |it| it.to_string() == expected).await?;
            let valid_through = shared.unwrap_or_default();
            // A store that has lost writes goes on under another lineage; who saw none of them misses nothing.
            if shared.is_none() || after > valid_through {
                return Err(StoreError::LineageChanged { lineage: tip.lineage, valid_through });
            }
        }
        self.backend.changes(&namespace.name, after, 0, 0).await?;
        Ok(())
    }

    /// The last revision that a lineage shares with the present one, if that goes on from it.
    async fn shared_through(
        &self,
        namespace: &Namespace,
        is_asked: impl Fn(Lineage) -> bool,
    ) -> Result<Option<Revision>, StoreError> {
        let ancestors = self.backend.ancestors(&namespace.name).await?;
        let asked = ancestors.into_iter().find(|ancestor| is_asked(ancestor.lineage));
        Ok(asked.map(|ancestor| ancestor.valid_through))
    }

    async fn start_initial(
        &self,
        namespace: &Arc<Namespace>,
        query: &WatchQuery,
        tip: Tip,
        reset: bool,
    ) -> Result<Start, StoreError> {
        let mut initial = Initial::new(&query.selectors);
        initial.read(self, namespace).await?;
        let cursor = initial.cursor.as_ref();
        let (revision, time_ms, lineage) = cursor
            .map_or((tip.revision, tip.time_ms, tip.lineage), |cursor| {
                (cursor.revision, cursor.time_ms, cursor.lineage)
            });
        initial.pin = Some(namespace.pin(revision));
        let tip = Tip { time_ms, lineage, ..tip };
        Ok(Start { tip, have: revision, reset, initial: Some(initial) })
    }
}

/// Counts an open watch.
pub(super) struct OpenWatch(Arc<Store>);

impl OpenWatch {
    /// One more.
    pub fn new(store: Arc<Store>) -> Self {
        store.counters.watches.fetch_add(1, Ordering::Relaxed);
        Self(store)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.counters.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a watch begins.
struct Start {
    tip: Tip,
    have: Revision,
    reset: bool,
    initial: Option<Initial>,
}

impl Start {
    fn at(tip: Tip, have: Revision) -> Self {
        Self { tip, have, reset: false, initial: None }
    }

    fn created(&self) -> WatchItem {
        WatchItem::Created {
            lineage: self.tip.lineage,
            revision: self.have,
            compacted: self.tip.compacted,
            reset: self.reset,
            initial: self.initial.is_some(),
            time_ms: self.tip.time_ms,
        }
    }
}

impl WatchQuery {
    fn selects(&self, key: &Key) -> bool {
        self.selectors.iter().any(|selector| selector.contains(key))
    }

    /// The changes after a revision that match.
    fn filter(&self, batch: &Arc<Batch>, after: Revision) -> Matching {
        Matching::new(batch, |LoggedChange { change, .. }| {
            change.revision > after
                && self.kinds.admit(change.kind)
                && !change.key.is_internal()
                && (change.kind == ChangeKind::Clear || self.selects(&change.key))
        })
    }
}
