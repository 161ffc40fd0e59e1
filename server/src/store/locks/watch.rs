//! Watches of locks: who holds them, then what becomes of them. They read the same log as watches of keys.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

use async_stream::try_stream;
use futures::Stream;

use crate::{
    backend::{Change, Deadline, Lineage, LoggedChange, NamespaceName, Revision, Tip},
    store::{
        ReadState, Store,
        error::StoreError,
        keys::{self, Kind},
        namespace::Namespace,
        record::{self, LockRecord, LockView, LossCause},
        watch::{Follower, OpenWatch, Progress, Silence},
    },
};

/// How many locks are read at once.
const PAGE: usize = 1000;

/// Which locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LockSelector {
    /// The one of this name.
    Name(String),
    /// Those whose names begin with this.
    Prefix(String),
}

/// What to watch.
#[derive(Debug, Clone)]
pub struct LockWatchQuery {
    /// Which locks.
    pub which: LockSelector,
    /// What came after a revision; and whether to begin with the present state if that cannot be. Else the present
    /// state comes first.
    pub after: Option<(Revision, bool)>,
    /// The lineage that the revision belongs to.
    pub lineage: Option<String>,
    /// How long to say nothing.
    pub progress_interval: Duration,
}

/// What a watch of locks tells.
#[derive(Debug)]
pub enum LockWatchItem {
    /// First of all.
    Created {
        /// The history; `None`: the namespace does not exist.
        lineage: Option<Lineage>,
        /// Events after this revision will come.
        revision: Revision,
        /// Whether the start asked for was not possible.
        reset: bool,
        /// Whether the present state comes.
        initial: bool,
        /// The store's time.
        time_ms: i64,
    },
    /// A part of the present state.
    State {
        /// Locks in order of their names.
        locks: Vec<LockView>,
        /// The revision that they were read at.
        revision: Revision,
        /// The time of that.
        time_ms: i64,
        /// Whether that was all.
        end: bool,
    },
    /// The namespace came into being.
    Born {
        /// Its history.
        lineage: Lineage,
    },
    /// What happened.
    Events {
        /// In order.
        events: Vec<LockEvent>,
        /// Everything up to this revision is told with them.
        through: Revision,
    },
    /// Nothing for a while.
    Progress(Progress),
}

/// One change of one lock.
#[derive(Debug, Clone)]
pub struct LockEvent {
    /// What happened.
    pub kind: LockEventKind,
    /// The revision of the change.
    pub revision: Revision,
    /// When it was committed.
    pub time_ms: i64,
    /// The name of the lock.
    pub name: String,
    /// The token of the hold that it is about.
    pub token: Revision,
    /// The lock after it, while it is held.
    pub lock: Option<LockView>,
    /// Why it was taken away.
    pub reason: String,
}

/// What became of a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockEventKind {
    /// It was granted.
    Granted,
    /// It was given up.
    Released,
    /// Its time was over.
    Expired,
    /// It was taken away.
    Broken,
    /// It shows another value.
    ValueChanged,
}

impl Store {
    /// Watches the locks of a namespace, whether it exists or not. The stream ends with an error, or never.
    pub fn watch_locks(
        self: &Arc<Self>,
        name: &NamespaceName,
        mut query: LockWatchQuery,
    ) -> impl Stream<Item = Result<LockWatchItem, StoreError>> + Send + use<> {
        let store = self.clone();
        let namespace = self.namespace(name);
        try_stream! {
            let _open = OpenWatch::new(store.clone());
            let (tip, have, reset) = store.start_lock_watch(&namespace, &query).await?;
            // It may be as long as a request, and a watch lasts.
            query.lineage = None;
            let initial = have.is_none();
            let have = have.unwrap_or(tip.revision);
            let mut follower = Follower::after(&store, &namespace, &tip, have);
            let Tip { lineage, time_ms, .. } = tip;
            yield LockWatchItem::Created { lineage, revision: have, reset, initial, time_ms };
            let mut seen = Seen::default();
            let mut told_through = have;
            let mut after = None;
            let mut is_reading = initial;
            while is_reading {
                let (state, locks, last) = store.state(&namespace, &query, after.as_deref()).await?;
                is_reading = last.is_some();
                seen.note(last.clone(), state.revision);
                // Until then nothing can be missed by going on from there: what comes twice is left out.
                let revision = if is_reading { state.revision } else { seen.least() };
                told_through = told_through.max(seen.least());
                yield LockWatchItem::State {
                    locks,
                    revision,
                    time_ms: state.time_ms,
                    end: !is_reading,
                };
                after = last;
            }
            let mut silence = Silence::new(&store, query.progress_interval);
            loop {
                if let Some(batch) = silence.next(&store, &mut follower).await? {
                    let have = follower.have;
                    if let Some(lineage) = follower.take(&batch) {
                        yield LockWatchItem::Born { lineage };
                    }
                    let events = query.events(&batch.changes, have, &seen);
                    if let Some(last) = events.last() {
                        let told_ms = last.time_ms;
                        let events = store.with_leases(&namespace, events).await?;
                        yield LockWatchItem::Events { events, through: batch.through };
                        silence.end(&store, told_ms);
                    }
                }
                let through = follower.have.max(told_through);
                if let Some(progress) = silence.progress(&store, &namespace, through).await? {
                    yield LockWatchItem::Progress(progress);
                }
            }
        }
    }

    /// Where a watch begins: after a revision, or with the present state; and whether that was not asked for.
    async fn start_lock_watch(
        &self,
        namespace: &Namespace,
        query: &LockWatchQuery,
    ) -> Result<(Tip, Option<Revision>, bool), StoreError> {
        let tip = self.tip(&namespace.name).await?;
        let Some((after, or_initial)) = query.after else {
            return Ok((tip, None, false));
        };
        match self.check_start(namespace, query.lineage.as_deref(), &tip, after).await {
            Ok(()) => Ok((tip, Some(after), false)),
            Err(error) if or_initial && error.is_lost_history() => Ok((tip, None, true)),
            Err(error) => Err(error),
        }
    }

    /// A part of the present state, and the last name looked at if there is more.
    async fn state(
        &self,
        namespace: &Namespace,
        query: &LockWatchQuery,
        after: Option<&str>,
    ) -> Result<(ReadState, Vec<LockView>, Option<String>), StoreError> {
        match &query.which {
            LockSelector::Prefix(prefix) => self.locks(&namespace.name, prefix, after, PAGE).await,
            LockSelector::Name(name) => {
                let (state, lock) = self.lock(&namespace.name, &keys::lock(name)).await?;
                Ok((state, lock.into_iter().collect(), None))
            }
        }
    }

    /// Fills in when holds end that last as long as leases, as far as these still live.
    async fn with_leases(
        &self,
        namespace: &Namespace,
        mut events: Vec<LockEvent>,
    ) -> Result<Vec<LockEvent>, StoreError> {
        let by_lease = |event: &LockEvent| event.lock.as_ref().and_then(ending_with);
        let leases: Vec<_> = events.iter().filter_map(by_lease).map(keys::lease).collect();
        if leases.is_empty() {
            return Ok(events);
        }
        let found = self.backend.read(&namespace.name, &leases, None).await?.entries;
        let mut found = found.into_iter();
        for event in &mut events {
            if let Some(lock) = event.lock.as_mut().filter(|lock| ending_with(lock).is_some()) {
                let deadline = found.next().flatten().map(|lease| lease.deadline.clone());
                lock.expires_at_ms = match deadline {
                    Some(Deadline::At(at_ms)) => at_ms,
                    _ => event.time_ms,
                };
            }
        }
        Ok(events)
    }
}

/// The lease that a hold ends with. One that is offered to a call that waits has a deadline of its own until it is taken.
fn ending_with(lock: &LockView) -> Option<u64> {
    lock.lease.filter(|_| lock.expires_at_ms == 0)
}

/// At which revisions the present state was read: what came until then is told with it.
#[derive(Default)]
struct Seen {
    /// By the last name of each part; the last part has none.
    parts: BTreeMap<String, Revision>,
    last: Option<Revision>,
}

impl Seen {
    fn note(&mut self, last: Option<String>, revision: Revision) {
        match last {
            Some(last) => {
                self.parts.insert(last, revision);
            }
            None => self.last = Some(revision),
        }
    }

    /// The revision that all of it is at or after.
    fn least(&self) -> Revision {
        self.parts.values().copied().chain(self.last).min().unwrap_or_default()
    }

    fn covers(&self, name: &str, revision: Revision) -> bool {
        let from = (Bound::Included(name), Bound::Unbounded);
        let part = self.parts.range::<str, _>(from).next().map(|(_, revision)| *revision);
        part.or(self.last).is_some_and(|read| revision <= read)
    }
}

impl LockWatchQuery {
    /// What happened after a revision, but for what the present state told already.
    fn events(&self, changes: &[LoggedChange], after: Revision, seen: &Seen) -> Vec<LockEvent> {
        let changes = changes.iter().map(|logged| &*logged.change);
        let later = changes.filter(|change| {
            change.revision > after && keys::kind(&change.key) == Some(Kind::Lock)
        });
        let events = later.filter_map(event);
        let asked = events.filter(|event| match &self.which {
            LockSelector::Name(name) => event.name == *name,
            LockSelector::Prefix(prefix) => event.name.starts_with(prefix.as_str()),
        });
        asked.filter(|event| !seen.covers(&event.name, event.revision)).collect()
    }
}

/// What a change of a lock was.
fn event(change: &Change) -> Option<LockEvent> {
    let entry = change.entry.as_ref()?;
    let name = keys::lock_name(&change.key);
    let mut event = LockEvent {
        kind: LockEventKind::Granted,
        revision: change.revision,
        time_ms: change.time_ms,
        name,
        token: entry.create_revision,
        lock: None,
        reason: String::new(),
    };
    match record::decode(&entry.value)? {
        LockRecord::Held(_) => {
            event.lock = LockView::of(&change.key, entry, None, 0);
            if entry.mod_revision > entry.create_revision {
                event.kind = LockEventKind::ValueChanged;
            }
        }
        LockRecord::Free(past) => {
            let ended = past.ended().into_iter().next()?;
            event.token = Revision(ended.token);
            event.kind = match ended.cause {
                LossCause::Expired | LossCause::LeaseExpired => LockEventKind::Expired,
                LossCause::Broken { reason } => {
                    event.reason = reason;
                    LockEventKind::Broken
                }
                LossCause::Released
                | LossCause::LeaseRevoked
                | LossCause::Abandoned
                | LossCause::Unknown => LockEventKind::Released,
            };
        }
    }
    Some(event)
}
