//! The embedded backends: one process owns the state and holds it in memory.
//!
//! The engine is the same for all of them; `memory:` is the engine alone.

mod image;
mod space;

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use uuid::Uuid;

use self::image::Image;
use super::{
    Backend, BackendError, Change, Changes, Commit, CommitOutcome, Committed, GroupStamp, History,
    Key, KeyRange, Lineage, Moved, NamespaceInfo, NamespaceName, Position, ReadAnswer, Retain,
    Revision, ScanAnswer, StoredEntry, Tip, Trimmed, Usage,
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

/// The engine: all namespaces in memory.
///
/// Invariant: a namespace's image is changed only under its write lock, and never for longer than one commit
/// or one bounded step, so that no reader waits for a long one.
pub struct Embedded {
    clock: Arc<dyn Clock>,
    capacity: Capacity,
    /// What all namespaces hold together; kept only where there is a capacity.
    used: Mutex<Usage>,
    cells: RwLock<BTreeMap<NamespaceName, Arc<Cell>>>,
    /// Counts the namespaces that came into being: what wakes those who wait for one.
    births: watch::Sender<u64>,
}

/// A namespace, also a deleted one.
struct Cell {
    image: RwLock<Image>,
    /// Lineage and last revision, for those who wait.
    head: watch::Sender<(Option<Lineage>, Revision)>,
}

impl Embedded {
    /// An engine without a past.
    pub fn new(clock: Arc<dyn Clock>, capacity: Capacity) -> Self {
        Self {
            clock,
            capacity,
            used: Mutex::default(),
            cells: RwLock::default(),
            births: watch::Sender::new(0),
        }
    }

    fn cell(&self, namespace: &NamespaceName) -> Option<Arc<Cell>> {
        self.cells.read().get(namespace).cloned()
    }

    /// The first commit of a namespace. Where it is refused, there is still none.
    fn create(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        let mut cells = self.cells.write();
        if let Some(cell) = cells.get(namespace) {
            return self.commit_to(cell, commit);
        }
        let now_ms = self.clock.now_ms();
        let image = Image::new(Position(0), first_revision(now_ms), now_ms);
        let cell = Arc::new(Cell {
            head: watch::Sender::new((None, image.revision())),
            image: RwLock::new(image),
        });
        let outcome = self.commit_to(&cell, commit)?;
        if matches!(outcome, CommitOutcome::Committed(_)) {
            cells.insert(namespace.clone(), cell);
            drop(cells);
            self.births.send_modify(|births| *births += 1);
        }
        Ok(outcome)
    }

    /// A namespace that has never been.
    fn nowhere(&self) -> Tip {
        Tip {
            position: Position(0),
            revision: Revision(0),
            time_ms: self.clock.now_ms(),
            lineage: None,
            compacted: Revision(0),
            usage: Usage::default(),
        }
    }

    /// Refuses what would not fit, else counts it in. `before` and `after` are what the namespace holds.
    fn reserve(&self, added: Usage, removed: Usage) -> Result<(), BackendError> {
        if self.capacity == Capacity::default() {
            return Ok(());
        }
        let mut used = self.used.lock();
        let keys = used.keys + added.keys - removed.keys;
        let bytes = used.bytes + added.bytes - removed.bytes;
        for (what, limit, before, after) in [
            ("max_keys", self.capacity.max_keys, used.keys, keys),
            ("max_bytes", self.capacity.max_bytes, used.bytes, bytes),
        ] {
            if let Some(limit) = limit
                && after > limit
                && after > before
            {
                return Err(BackendError::Full { what, limit });
            }
        }
        *used = Usage { keys, bytes };
        Ok(())
    }

    fn commit_to(&self, cell: &Cell, commit: Commit<'_>) -> Result<CommitOutcome, BackendError> {
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock.now_ms());
        if let Some(moved) = moved(&image, &commit, now_ms) {
            return Ok(CommitOutcome::Moved(moved));
        }
        let before = image.revision();
        if commit.groups.is_empty() {
            return Ok(CommitOutcome::Committed(committed(&image, before, Vec::new(), now_ms)));
        }
        if self.capacity != Capacity::default() {
            let (added, removed) = image.difference(&commit.groups);
            self.reserve(added, removed)?;
        }
        if image.lineage.is_none() {
            image.lineage = Some(Lineage(Uuid::new_v4()));
            image.created_at_ms = now_ms;
        }
        let stamps = image.apply(commit.groups);
        let committed = committed(&image, before, stamps, now_ms);
        cell.announce(&image);
        Ok(CommitOutcome::Committed(committed))
    }
}

impl Cell {
    /// Tells those who wait.
    fn announce(&self, image: &Image) {
        let head = (image.lineage, image.revision());
        self.head.send_if_modified(|old| std::mem::replace(old, head) != head);
    }

    /// Versions are walked through without the lock, which may take long; that nothing of them was forgotten
    /// meanwhile has to be found out afterwards.
    fn still_readable(&self, at: Option<Revision>) -> Result<(), BackendError> {
        match at {
            Some(_) => check_readable(&self.image.read(), at),
            None => Ok(()),
        }
    }
}

#[async_trait]
impl Backend for Embedded {
    fn scheme(&self) -> &'static str {
        "memory"
    }

    fn durability(&self) -> &'static str {
        "nothing: state is gone when the server stops"
    }

    async fn now_ms(&self) -> Result<i64, BackendError> {
        Ok(self.clock.now_ms())
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
        let (tip, newest) = {
            let image = cell.image.read();
            check_readable(&image, at)?;
            let newest: Vec<_> = keys.iter().map(|key| image.newest(key)).collect();
            (image.tip(self.clock.now_ms()), newest)
        };
        let entry = |newest: Option<Arc<Change>>| StoredEntry::at(newest?, at);
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
        let (tip, (newest, next)) = {
            let image = cell.image.read();
            check_readable(&image, at)?;
            (image.tip(self.clock.now_ms()), image.scan(range, reverse, limit))
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
            (image.tip(self.clock.now_ms()), image.newest(key))
        };
        let is_held =
            |change: &Arc<Change>| change.revision > tip.compacted || change.entry.is_some();
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
        if let Some(cell) = self.cell(namespace) {
            return self.commit_to(&cell, commit);
        }
        if commit.groups.is_empty() {
            return Ok(CommitOutcome::Committed(Committed::nothing(&self.nowhere())));
        }
        self.create(namespace, commit)
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
        let tip = image.tip(self.clock.now_ms());
        let compacted = BackendError::Compacted { oldest: tip.compacted };
        let after = image.resume_after(after).ok_or(compacted)?;
        if after > tip.revision {
            return Err(BackendError::Future { newest: tip.revision });
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
        let mut births = self.births.subscribe();
        loop {
            if let Some(cell) = self.cell(namespace) {
                let mut head = cell.head.subscribe();
                // The sender lives as long as `cell`, so waiting cannot fail.
                let _ = head.wait_for(|(now, revision)| *now != lineage || *revision > after).await;
                return Ok(());
            }
            // The sender is `self`'s, so waiting cannot fail.
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
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock.now_ms());
        Ok(image.expired(now_ms, limit))
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
    ) -> Result<CommitOutcome, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(CommitOutcome::Committed(Committed::nothing(&self.nowhere())));
        };
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock.now_ms());
        if at != image.position() || !is_in_time(valid_until_ms, now_ms) {
            return Ok(CommitOutcome::Moved(Moved { tip: image.tip(now_ms), changed: None }));
        }
        let before = image.revision();
        self.reserve(Usage::default(), image.tip(now_ms).usage)?;
        let (stamp, removed) = image.clear();
        let committed = committed(&image, before, vec![stamp], now_ms);
        cell.announce(&image);
        drop(image);
        drop_at_leisure(removed);
        Ok(CommitOutcome::Committed(committed))
    }

    async fn delete(&self, namespace: &NamespaceName) -> Result<Tip, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(self.nowhere());
        };
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock.now_ms());
        let tip = image.tip(now_ms);
        if tip.lineage.is_some() {
            self.reserve(Usage::default(), tip.usage)?;
            let deleted = image.deleted();
            let removed = std::mem::replace(&mut *image, deleted);
            cell.announce(&image);
            drop(image);
            drop_at_leisure(removed);
        }
        Ok(tip)
    }

    async fn namespace(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Option<NamespaceInfo>, BackendError> {
        let now_ms = self.clock.now_ms();
        let cell = self.cell(namespace);
        Ok(cell.and_then(|cell| info(namespace, &cell.image.read(), now_ms)))
    }

    async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<NamespaceInfo>, BackendError> {
        let now_ms = self.clock.now_ms();
        let start = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str()),
            _ => Bound::Included(prefix),
        };
        let cells = self.cells.read();
        let live = cells
            .range::<str, _>((start, Bound::Unbounded))
            .take_while(|(name, _)| name.as_str().starts_with(prefix))
            .filter_map(|(name, cell)| info(name, &cell.image.read(), now_ms));
        Ok(live.take(limit).collect())
    }
}

/// Where a namespace begins whose past is unknown.
fn first_revision(now_ms: i64) -> Revision {
    Revision(now_ms.max(0) as u64 * 1024)
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

fn moved(image: &Image, commit: &Commit<'_>, now_ms: i64) -> Option<Moved> {
    let changed = image.changed_since(commit.at, commit.reads);
    let unchanged = changed.as_ref().is_some_and(Vec::is_empty);
    let in_time = is_in_time(commit.valid_until_ms, now_ms);
    let exact = commit.exact_revision.is_none_or(|revision| revision == image.revision());
    let holds = unchanged && in_time && exact;
    (!holds).then(|| Moved { tip: image.tip(now_ms), changed })
}

fn is_in_time(valid_until_ms: Option<i64>, now_ms: i64) -> bool {
    valid_until_ms.is_none_or(|until_ms| now_ms <= until_ms)
}

fn committed(image: &Image, before: Revision, stamps: Vec<GroupStamp>, time_ms: i64) -> Committed {
    Committed {
        stamps,
        before,
        time_ms,
        next_deadline_ms: image.next_deadline_ms(),
        log: image.log_shape(),
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

/// Freeing a million entries takes a while: not on the caller's time.
fn drop_at_leisure(removed: impl Send + 'static) {
    tokio::task::spawn_blocking(move || drop(removed));
}
