//! Commits: what they write, what they rely on, and what becomes of them.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures::future::BoxFuture;

use super::{
    BackendError, ContentType, Deadline, Entry, Key, KeyRange, LogShape, Position, Removal,
    Revision, StoredEntry, Tip, Usage,
};

/// A deadline in the making: a TTL counts from the commit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NewDeadline {
    /// Not by itself.
    Never,
    /// At a moment, in milliseconds since the Unix epoch.
    At(i64),
    /// So many milliseconds after the commit.
    After(u64),
    /// With the entry under this key.
    Of(Key),
}

impl NewDeadline {
    /// What it becomes when committed at `time_ms`.
    pub fn from(self, time_ms: i64) -> Deadline {
        match self {
            Self::Never => Deadline::Never,
            Self::At(at_ms) => Deadline::At(at_ms),
            Self::After(ttl_ms) => Deadline::At(time_ms.saturating_add_unsigned(ttl_ms)),
            Self::Of(key) => Deadline::Of(Box::new(key)),
        }
    }

    /// The key of the entry that it is that of.
    pub fn reference(&self) -> Option<&Key> {
        match self {
            Self::Of(key) => Some(key),
            Self::Never | Self::At(_) | Self::After(_) => None,
        }
    }
}

impl From<Deadline> for NewDeadline {
    fn from(deadline: Deadline) -> Self {
        match deadline {
            Deadline::Never => Self::Never,
            Deadline::At(at_ms) => Self::At(at_ms),
            Deadline::Of(key) => Self::Of(*key),
        }
    }
}

/// Which group of a commit, counted from 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupIndex(pub usize);

/// When an entry in the making was created.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Created {
    /// By an earlier commit.
    Before(Revision, i64),
    /// By a group of the same commit, its own or one before.
    By(GroupIndex),
}

/// An entry in the making: the commit gives it its revision and time.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The value.
    pub value: Bytes,
    /// What the value is.
    pub content_type: ContentType,
    /// The version it will have.
    pub version: u64,
    /// When it was created.
    pub created: Created,
    /// When it is to end.
    pub deadline: NewDeadline,
}

impl Draft {
    /// The entry, once the stamp of its group and of those before are known. `stamps` has to reach up to
    /// the group that created it.
    pub fn stamp(self, stamp: GroupStamp, stamps: &[GroupStamp]) -> Entry {
        let created = match self.created {
            Created::Before(revision, time_ms) => GroupStamp { revision, time_ms },
            Created::By(GroupIndex(index)) => stamps.get(index).copied().unwrap_or(stamp),
        };
        Entry {
            value: self.value,
            content_type: self.content_type,
            version: self.version,
            create_revision: created.revision,
            mod_revision: stamp.revision,
            created_at_ms: created.time_ms,
            updated_at_ms: stamp.time_ms,
            deadline: self.deadline.from(stamp.time_ms),
        }
    }
}

/// What to do to one key.
#[derive(Clone, Debug)]
pub enum WriteOp {
    /// Write a value: a change of kind `Set`.
    Set(Draft),
    /// Change only the deadline: a change of kind `TtlChanged`.
    SetDeadline(Draft),
    /// Remove it.
    Remove(Removal),
    /// Write without a revision and without a trace in the log; replaces the newest version in place.
    SetUnlogged(Draft),
    /// Remove it without a revision and without a trace. Nothing happens if it is not there.
    RemoveUnlogged,
}

impl WriteOp {
    /// The entry it leaves; none after a removal.
    pub fn draft(&self) -> Option<&Draft> {
        match self {
            Self::Set(draft) | Self::SetDeadline(draft) | Self::SetUnlogged(draft) => Some(draft),
            Self::Remove(_) | Self::RemoveUnlogged => None,
        }
    }

    /// Whether it takes a revision.
    pub fn is_logged(&self) -> bool {
        !matches!(self, Self::SetUnlogged(_) | Self::RemoveUnlogged)
    }
}

/// One write; a group has at most one for a key.
#[derive(Clone, Debug)]
pub struct Write {
    /// The key.
    pub key: Key,
    /// What to do to it.
    pub op: WriteOp,
}

/// Groups of writes; those of one group share a revision.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    /// The writes of all groups, one after the other.
    pub writes: Vec<Write>,
    /// Where each group ends.
    pub ends: Vec<usize>,
}

impl Groups {
    /// Makes a group of what was added to `writes` since the last one, if anything was.
    pub fn end_group(&mut self) {
        if self.writes.len() > self.ends.last().copied().unwrap_or_default() {
            self.ends.push(self.writes.len());
        }
    }

    /// How many groups there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

#[cfg(test)]
impl From<Vec<Vec<Write>>> for Groups {
    fn from(groups: Vec<Vec<Write>>) -> Self {
        let mut all = Self::default();
        for group in groups {
            all.writes.extend(group);
            all.end_group();
        }
        all
    }
}

/// Whether a group takes a revision.
pub fn is_logged(group: &[Write]) -> bool {
    group.iter().any(|write| write.op.is_logged())
}

/// What a commit relies on.
#[derive(Clone, Debug, Default)]
pub struct ReadSet {
    /// These keys,
    pub keys: Vec<Key>,
    /// and all keys in these ranges.
    pub ranges: Vec<KeyRange>,
}

/// What `commit` takes.
#[derive(Clone, Debug)]
pub struct Commit<'a> {
    /// The position at which the reads were made.
    pub at: Position,
    /// What must not have changed since.
    pub reads: &'a ReadSet,
    /// The writes.
    pub groups: Groups,
    /// The last moment at which the commit may happen.
    pub valid_until_ms: Option<i64>,
    /// Apply only if the revision still is this one: for who compared with a revision not yet given.
    pub exact_revision: Option<Revision>,
    /// Apply only if the namespace holds no more than this: for who keeps to a quota.
    pub most_before: Option<Usage>,
    /// Where the reads were made upon commits on their way: what these belong to.
    pub upon: Option<Generation>,
}

/// Tells commits on their way, each made upon the one before, from those after one of them was not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Generation(u64);

impl Generation {
    /// A new one: unlike all others of this process.
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

impl Default for Generation {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
impl<'a> Commit<'a> {
    /// One that depends on nothing but its reads.
    pub(super) fn plain(at: Position, reads: &'a ReadSet, groups: Groups) -> Self {
        let (valid_until_ms, exact_revision, most_before, upon) = (None, None, None, None);
        Self { at, reads, groups, valid_until_ms, exact_revision, most_before, upon }
    }
}

/// What became of a commit.
#[derive(Debug)]
pub enum CommitOutcome {
    /// It was applied.
    Committed(Committed),
    /// It was not: what it relied on had changed, or the time had passed.
    Moved(Moved),
}

/// How far a commit has come.
pub enum Begun {
    /// To its end.
    Ended(CommitOutcome),
    /// What it relied on held, and it is on its way. It will be made, unless it or one before it cannot be kept. Whether or
    /// not the answer is awaited.
    UnderWay(BoxFuture<'static, Result<Committed, BackendError>>),
}

/// The revision and time of one group.
#[derive(Clone, Copy, Debug)]
pub struct GroupStamp {
    /// Its revision, or the last one before it if it takes none.
    pub revision: Revision,
    /// When it was committed.
    pub time_ms: i64,
}

/// An applied commit.
#[derive(Debug)]
pub struct Committed {
    /// One stamp a group.
    pub stamps: Vec<GroupStamp>,
    /// The last revision before the commit.
    pub before: Revision,
    /// Where the namespace stands after it, at the time of the commit.
    pub tip: Tip,
    /// The earliest deadline that waits.
    pub next_deadline_ms: Option<i64>,
    /// How large the log is.
    pub log: LogShape,
}

impl Committed {
    /// A commit of nothing to a namespace that is not there.
    pub fn nothing(tip: &Tip) -> Self {
        Self {
            stamps: Vec::new(),
            before: tip.revision,
            tip: *tip,
            next_deadline_ms: None,
            log: LogShape::default(),
        }
    }
}

/// A commit that was not applied.
#[derive(Debug)]
pub struct Moved {
    /// Where the namespace stands now.
    pub tip: Tip,
    /// What changed in the read set since, as it is now; `None`: not known, read again.
    pub changed: Option<Vec<(Key, Option<StoredEntry>)>>,
}
