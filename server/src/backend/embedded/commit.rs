//! How commits are checked, and made in memory at once.

use uuid::Uuid;

use super::{Capacity, Embedded, Usage, cells::Cell, image::Image};
use crate::backend::{
    BackendError, Commit, CommitOutcome, Committed, GroupStamp, Lineage, Moved, NamespaceName,
    Position, Revision, Tip, Write,
};

impl Embedded {
    /// Commits on the caller's task, waiting for nothing.
    pub(super) fn commit_in_memory(
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
        let cell = self.cells.get_or_make(namespace, || self.unborn());
        let outcome = self.commit_to(&cell, commit);
        match outcome {
            Ok(CommitOutcome::Committed(_)) => self.cells.show(&cell),
            _ => self.cells.discard(namespace, cell),
        }
        outcome
    }

    pub(super) fn clear_in_memory(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(CommitOutcome::Committed(Committed::nothing(&self.nowhere())));
        };
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock_ms());
        if let Some(moved) = moved_or_due(&mut image, at, valid_until_ms, now_ms) {
            return Ok(CommitOutcome::Moved(moved));
        }
        let before = image.revision();
        self.reserve(Usage::default(), image.tip(now_ms).usage)?;
        let (stamp, removed) = image.clear(records);
        let committed = committed(&image, before, vec![stamp], now_ms);
        cell.announce(&image);
        drop(image);
        drop_at_leisure(removed);
        Ok(CommitOutcome::Committed(committed))
    }

    pub(super) fn delete_in_memory(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(Some(self.nowhere()));
        };
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock_ms());
        if moved_at_all(&image, at, valid_until_ms, now_ms).is_some() {
            return Ok(None);
        }
        let tip = image.tip(now_ms);
        if tip.lineage.is_some() {
            self.reserve(Usage::default(), tip.usage)?;
            let deleted = image.deleted();
            let removed = std::mem::replace(&mut *image, deleted);
            cell.announce(&image);
            drop(image);
            drop_at_leisure(removed);
        }
        Ok(Some(tip))
    }

    /// The image of a namespace that has no past.
    pub(super) fn unborn(&self) -> Image {
        let now_ms = self.clock_ms();
        Image::new(Position(0), first_revision(now_ms), now_ms)
    }

    /// Refuses what would not fit, else counts it in. `before` and `after` are what the namespace holds.
    pub(super) fn reserve(&self, added: Usage, removed: Usage) -> Result<(), BackendError> {
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
        let now_ms = image.time_ms(self.clock_ms());
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
            image.begin(new_lineage(), now_ms);
        }
        let stamps = image.apply(commit.groups);
        let committed = committed(&image, before, stamps, now_ms);
        cell.announce(&image);
        Ok(CommitOutcome::Committed(committed))
    }
}

/// The name of a history that begins.
pub(super) fn new_lineage() -> Lineage {
    Lineage(Uuid::new_v4())
}

/// Where a namespace begins whose past is unknown.
pub(super) fn first_revision(now_ms: i64) -> Revision {
    Revision(now_ms.max(0) as u64 * 1024)
}

pub(super) fn moved(image: &Image, commit: &Commit<'_>, now_ms: i64) -> Option<Moved> {
    if !is_upon(image, commit) {
        return Some(Moved { tip: image.tip(now_ms), changed: None });
    }
    let changed = image.changed_since(commit.at, commit.reads);
    let unchanged = changed.as_ref().is_some_and(Vec::is_empty);
    let in_time = is_in_time(commit.valid_until_ms, now_ms);
    let exact = commit.exact_revision.is_none_or(|revision| revision == image.revision());
    let fits = commit.most_before.is_none_or(|most| {
        let usage = image.tip(now_ms).usage;
        usage.keys <= most.keys && usage.bytes <= most.bytes
    });
    let holds = unchanged && in_time && exact && fits;
    (!holds).then(|| Moved { tip: image.tip(now_ms), changed })
}

/// Whether what a commit was made upon was kept, or is on its way.
pub(super) fn is_upon(image: &Image, commit: &Commit<'_>) -> bool {
    commit.upon.is_none_or(|generation| generation == image.under_way.generation())
}

/// What is due ends by itself, and is told so, before a clear.
pub(super) fn moved_or_due(
    image: &mut Image,
    at: Position,
    valid_until_ms: Option<i64>,
    now_ms: i64,
) -> Option<Moved> {
    let due = image.has_due_users(now_ms);
    let moved = moved_at_all(image, at, valid_until_ms, now_ms);
    moved.or_else(|| due.then(|| Moved { tip: image.tip(now_ms), changed: None }))
}

/// What a clear or a deletion relies on is everything.
pub(super) fn moved_at_all(
    image: &Image,
    at: Position,
    valid_until_ms: Option<i64>,
    now_ms: i64,
) -> Option<Moved> {
    let holds = at == image.position() && is_in_time(valid_until_ms, now_ms);
    (!holds).then(|| Moved { tip: image.tip(now_ms), changed: None })
}

pub(super) fn is_in_time(valid_until_ms: Option<i64>, now_ms: i64) -> bool {
    valid_until_ms.is_none_or(|until_ms| now_ms <= until_ms)
}

pub(super) fn committed(
    image: &Image,
    before: Revision,
    stamps: Vec<GroupStamp>,
    time_ms: i64,
) -> Committed {
    Committed {
        stamps,
        before,
        tip: image.tip(time_ms),
        next_deadline_ms: image.next_deadline_ms(),
        log: image.log_shape(),
    }
}

/// Freeing a million entries takes a while: not on the caller's time.
pub(super) fn drop_at_leisure(removed: impl Send + 'static) {
    tokio::task::spawn_blocking(move || drop(removed));
}
