//! The embedded backends: one process owns the state and holds it in memory.
//!
//! The engine is the same for all of them; `memory:` is the engine alone.

mod cells;
mod commit;
mod durable;
pub mod files;
mod hand_over;
mod image;
pub mod journal;
pub mod kept_clock;
mod load;
pub mod options;
mod order;
mod snapshot;
mod space;
pub mod sqlite;
mod staging;
mod writer;

use std::{ops::Bound, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

pub use self::load::Loaded;
use self::{
    cells::{Cell, Cells},
    image::Image,
    journal::{Journal, LoadError},
    snapshot::{Beside, write_snapshot},
    writer::Writer,
};
use super::{
    Ancestor, Backend, BackendError, Begun, Changes, Commit, CommitOutcome, DueElsewhere, Entry,
    Generation, History, Key, KeyRange, Lineage, Listed, NamespaceInfo, NamespaceName, Position,
    ReadAnswer, Retain, Revision, ScanAnswer, SharedChange, Staging, StoredEntry, Tip, Trimmed,
    Usage, Write,
};
use crate::clock::Clock;

/// Bounds of a whole backend, over all its namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    /// Most keys.
    pub max_keys: Option<u64>,
    /// Most bytes of keys, content types and values; the logs are not counted.
    pub max_bytes: Option<u64>,
}

/// When what a journal has kept is written anew, or made durable, beside what the journal itself wants.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Intervals {
    /// Write a snapshot so long after the last one, if anything was committed.
    pub snapshot: Option<Duration>,
    /// Make durable what is not, for a journal that does not with each commit.
    pub sync: Option<Duration>,
}

/// The engine: all namespaces in memory, and perhaps a journal that makes them durable.
///
/// Invariant: a namespace's image is changed only under its write lock, and never for longer than one commit
/// or one bounded step, so that no reader waits for a long one.
pub struct Embedded {
    clock: Arc<dyn Clock>,
    capacity: Capacity,
    /// What all namespaces hold together; kept only where there is a capacity.
    used: Mutex<Usage>,
    cells: Arc<Cells>,
    /// The largest time that was kept: time outside of namespaces does not go back either.
    floor_ms: i64,
    /// Where commits become durable, if anywhere.
    writer: Option<Writer>,
    scheme: &'static str,
    durability: &'static str,
    writable: watch::Sender<bool>,
    /// Keeps how far the clock has come.
    _kept_clock: Option<AbortOnDropHandle<()>>,
}

impl Embedded {
    /// An engine without a past, nor a future beyond the process.
    pub fn new(clock: Arc<dyn Clock>, capacity: Capacity) -> Self {
        Self {
            clock,
            capacity,
            used: Mutex::default(),
            cells: Arc::default(),
            floor_ms: i64::MIN,
            writer: None,
            scheme: "memory",
            durability: "nothing: state is gone when the server stops",
            writable: watch::Sender::new(true),
            _kept_clock: None,
        }
    }

    /// An engine with what a journal has kept, which keeps its commits there. Loading blocks the caller's thread. To be
    /// called within a runtime.
    ///
    /// # Errors
    /// See [`LoadError`].
    pub fn with_journal(
        clock: Arc<dyn Clock>,
        mut journal: Box<dyn Journal>,
        intervals: Intervals,
    ) -> Result<Self, LoadError> {
        let (scheme, durability) = (journal.scheme(), journal.durability());
        let mut loaded = Loaded::default();
        journal.load(&mut loaded)?;
        let kept_clock = kept_clock::keep(&clock, journal.clock_file());
        let floor_ms = loaded.latest_ms();
        let copy = loaded.renew_copy(clock.now_ms().max(floor_ms));
        let cells: Arc<Cells> = Arc::new(loaded.into_cells());
        if copy {
            // What began anew must not begin anew once more after the next start.
            let snapshot = journal.begin_snapshot();
            let written = snapshot.and_then(|it| write_snapshot(&cells, it, &Beside::default()));
            written.map_err(LoadError::NotRestored)?;
        }
        let writable = watch::Sender::new(true);
        let writer =
            Writer::start(journal, cells.clone(), clock.clone(), intervals, writable.clone());
        let (capacity, used) = (Capacity::default(), Mutex::default());
        let writer = Some(writer);
        Ok(Self {
            clock,
            capacity,
            used,
            cells,
            floor_ms,
            writer,
            scheme,
            durability,
            writable,
            _kept_clock: kept_clock,
        })
    }

    fn cell(&self, namespace: &NamespaceName) -> Option<Arc<Cell>> {
        self.cells.get(namespace)
    }

    fn clock_ms(&self) -> i64 {
        self.clock.now_ms().max(self.floor_ms)
    }

    /// A namespace that has never been.
    fn nowhere(&self) -> Tip {
        Tip {
            position: Position(0),
            revision: Revision(0),
            time_ms: self.clock_ms(),
            lineage: None,
            compacted: Revision(0),
            cleared: Revision(0),
            usage: Usage::default(),
        }
    }
}

#[async_trait]
impl Backend for Embedded {
    fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn durability(&self) -> &'static str {
        self.durability
    }

    fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    fn is_remote(&self) -> bool {
        false
    }

    async fn now_ms(&self) -> Result<i64, BackendError> {
        Ok(self.clock_ms())
    }

    async fn read(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        at: Option<Revision>,
    ) -> Result<ReadAnswer, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            let tip = self.nowhere();
            check_nowhere(at)?;
            return Ok(ReadAnswer { tip, entries: vec![None; keys.len()] });
        };
        let asked_ms = self.clock_ms();
        let (tip, newest) = loop {
            {
                let image = cell.image.read();
                check_readable(&image, at)?;
                let newest = image.newest_of(keys);
                if at.is_some() || !image.holds_up_an_end(newest.iter().flatten(), asked_ms) {
                    break (image.tip(self.clock_ms()), newest);
                }
            }
            cell.reaches(asked_ms).await;
        };
        let entry = |newest: Option<SharedChange>| StoredEntry::at(newest?, at);
        let entries = newest.into_iter().map(entry).collect();
        cell.still_readable(at)?;
        Ok(ReadAnswer { tip, entries })
    }

    async fn scan(
        &self,
        namespace: &NamespaceName,
        range: &KeyRange,
        at: Option<Revision>,
        reverse: bool,
        limit: usize,
    ) -> Result<ScanAnswer, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            let tip = self.nowhere();
            check_nowhere(at)?;
            return Ok(ScanAnswer { tip, entries: Vec::new(), next: None });
        };
        let asked_ms = self.clock_ms();
        let (tip, newest, next) = loop {
            {
                let image = cell.image.read();
                check_readable(&image, at)?;
                let (newest, next) = image.scan(range, reverse, limit);
                if at.is_some() || !image.holds_up_an_end(&newest, asked_ms) {
                    break (image.tip(self.clock_ms()), newest, next);
                }
            }
            cell.reaches(asked_ms).await;
        };
        let entry = |newest| StoredEntry::at(newest, at);
        let entries = newest.into_iter().filter_map(entry).collect();
        cell.still_readable(at)?;
        Ok(ScanAnswer { tip, entries, next })
    }

    async fn history(
        &self,
        namespace: &NamespaceName,
        key: &Key,
        before: Revision,
        limit: usize,
    ) -> Result<History, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(History { tip: self.nowhere(), changes: Vec::new(), more: false });
        };
        let (tip, newest) = {
            let image = cell.image.read();
            (image.tip(self.clock_ms()), image.newest(key))
        };
        let is_held =
            |change: &SharedChange| change.revision > tip.compacted || change.entry.is_some();
        let mut changes: Vec<_> = std::iter::successors(newest, |change| change.previous())
            .skip_while(|change| change.revision >= before)
            .filter(is_held)
            .take(limit + 1)
            .collect();
        let more = changes.len() > limit;
        changes.truncate(limit);
        Ok(History { tip, changes, more })
    }

    async fn commit(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        match self.begin(namespace, commit).await? {
            Begun::Ended(outcome) => Ok(outcome),
            Begun::UnderWay(committed) => committed.await.map(CommitOutcome::Committed),
        }
    }

    async fn begin(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<Begun, BackendError> {
        match &self.writer {
            None => self.commit_in_memory(namespace, commit).map(Begun::Ended),
            Some(writer) => self.begin_durably(writer, namespace, commit).await,
        }
    }

    fn read_under_way(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
    ) -> Option<(ReadAnswer, Generation)> {
        self.writer.as_ref()?;
        self.read_upon_commits(namespace, keys)
    }

    async fn settled(&self, namespace: &NamespaceName) {
        if let (Some(_), Some(cell)) = (&self.writer, self.cell(namespace)) {
            drop(cell.alone().await);
        }
    }

    async fn changes(
        &self,
        namespace: &NamespaceName,
        after: Revision,
        limit: usize,
        limit_bytes: u64,
    ) -> Result<Changes, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            check_nowhere(Some(after))?;
            let tip = self.nowhere();
            return Ok(Changes { tip, changes: Vec::new(), through: tip.revision });
        };
        let image = cell.image.read();
        let tip = image.tip(self.clock_ms());
        let compacted = BackendError::Compacted { oldest: tip.compacted };
        let after = image.resume_after(after).ok_or(compacted)?;
        if after > tip.revision {
            return Err(BackendError::Future { newest: tip.revision });
        }
        if limit == 0 {
            return Ok(Changes { tip, changes: Vec::new(), through: after });
        }
        let changes = image.changes(after, limit, limit_bytes);
        let last = changes.last().map(|last| last.change.revision);
        let is_end = last.is_none_or(|last| Some(last) == image.last_logged());
        let through = last.filter(|_| !is_end).unwrap_or(tip.revision);
        Ok(Changes { tip, changes, through })
    }

    async fn changed(
        &self,
        namespace: &NamespaceName,
        lineage: Option<Lineage>,
        after: Revision,
    ) -> Result<(), BackendError> {
        let mut births = self.cells.births();
        loop {
            if let Some(cell) = self.cell(namespace) {
                let mut head = cell.head.subscribe();
                // The sender lives as long as `cell`, so waiting cannot fail.
                let _ = head.wait_for(|(now, revision)| *now != lineage || *revision > after).await;
                return Ok(());
            }
            // The sender lives as long as the cells, so waiting cannot fail.
            let _ = births.changed().await;
        }
    }

    async fn expired(
        &self,
        namespace: &NamespaceName,
        limit: usize,
    ) -> Result<(Vec<Key>, Option<i64>), BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok((Vec::new(), None));
        };
        // While a commit is on its way, time stands still: who asks again and again would learn nothing.
        cell.reaches(self.clock_ms()).await;
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock_ms());
        Ok(image.expired(now_ms, limit))
    }

    async fn due_elsewhere(&self) -> DueElsewhere {
        // One process owns the state.
        std::future::pending().await
    }

    async fn ancestors(&self, _: &NamespaceName) -> Result<Vec<Ancestor>, BackendError> {
        // What is acknowledged is not lost, and a state that was damaged is not opened.
        Ok(Vec::new())
    }

    async fn trim(
        &self,
        namespace: &NamespaceName,
        retain: &Retain,
        limit: usize,
    ) -> Result<Trimmed, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            if let Retain::After(revision) = retain {
                check_nowhere(Some(*revision))?;
            }
            return Ok(Trimmed::default());
        };
        let mut image = cell.image.write();
        if let Retain::After(revision) = retain
            && *revision > image.revision()
        {
            return Err(BackendError::Future { newest: image.revision() });
        }
        let more = image.trim(retain, limit);
        Ok(Trimmed { log: image.log_shape(), more })
    }

    async fn clear(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        match &self.writer {
            None => self.clear_in_memory(namespace, at, valid_until_ms, records),
            Some(writer) => {
                self.clear_durably(writer, namespace, at, valid_until_ms, records).await
            }
        }
    }

    async fn delete(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        match &self.writer {
            None => self.delete_in_memory(namespace, at, valid_until_ms),
            Some(writer) => self.delete_durably(writer, namespace, at, valid_until_ms).await,
        }
    }

    async fn stage(
        &self,
        staging: &Staging,
        entries: Vec<(Key, Entry)>,
    ) -> Result<(), BackendError> {
        self.add_to_staging(staging, entries).await
    }

    async fn replace(
        &self,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        match &self.writer {
            None => self.replace_in_memory(staging, at),
            Some(writer) => self.replace_durably(writer, staging, at).await,
        }
    }

    async fn rewrite(&self) -> Result<(), BackendError> {
        match &self.writer {
            None => Ok(()),
            Some(writer) => writer.rewrite().await,
        }
    }

    async fn discard(&self, staging: &Staging) {
        self.drop_staging(staging).await;
    }

    async fn namespace(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Option<NamespaceInfo>, BackendError> {
        let now_ms = self.clock_ms();
        let cell = self.cell(namespace);
        Ok(cell.and_then(|cell| info(namespace, &cell.image.read(), now_ms)))
    }

    async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError> {
        let now_ms = self.clock_ms();
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let info = |name: &_, cell: &Cell| info(name, &cell.image.read(), now_ms).map(Ok);
        let is_asked = |name: &NamespaceName| name.as_str().starts_with(prefix);
        Ok(self.cells.collect((start, Bound::Unbounded), is_asked, info, limit))
    }
}

fn check_nowhere(at: Option<Revision>) -> Result<(), BackendError> {
    match at {
        Some(at) if at > Revision(0) => Err(BackendError::Future { newest: Revision(0) }),
        _ => Ok(()),
    }
}

fn check_readable(image: &Image, at: Option<Revision>) -> Result<(), BackendError> {
    match at {
        Some(at) if at < image.oldest_readable() => {
            Err(BackendError::Compacted { oldest: image.oldest_readable() })
        }
        Some(at) if at > image.revision() => Err(BackendError::Future { newest: image.revision() }),
        _ => Ok(()),
    }
}

fn info(name: &NamespaceName, image: &Image, now_ms: i64) -> Option<NamespaceInfo> {
    image.lineage.map(|_| NamespaceInfo {
        name: name.clone(),
        tip: image.tip(now_ms),
        log: image.log_shape(),
        created_at_ms: image.created_at_ms,
        next_deadline_ms: image.next_deadline_ms(),
    })
}
