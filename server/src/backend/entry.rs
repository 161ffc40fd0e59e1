//! Entries, and the changes that made them.

use std::{
    fmt,
    ops::Deref,
    sync::atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;
use uuid::Uuid;

use super::{ContentType, GroupStamp, Key};

/// What a change counts for in the log beside its key and value, so that many small ones stay within the memory
/// that the bounds of the log promise.
const LOG_OVERHEAD_BYTES: u64 = 128;

/// Counts the commits of a namespace that users can see.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// The next one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts all commits of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub struct Position(pub u64);

/// Names one unbroken history of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lineage(pub Uuid);

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// When an entry ends, in milliseconds since the Unix epoch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Deadline {
    /// Not by itself.
    Never,
    /// From this moment on it is not to be seen.
    At(i64),
    /// With the entry under another, internal key. To look that up is the store's: a backend keeps the
    /// reference and nothing more. Boxed, for most entries have none, and there are many.
    Of(Box<Key>),
}

impl Deadline {
    /// Whether the moment has come. Of a reference that is not known here.
    pub fn is_due(&self, time_ms: i64) -> bool {
        matches!(self, Self::At(at_ms) if *at_ms <= time_ms)
    }

    /// The key of the entry that it is that of.
    pub fn reference(&self) -> Option<&Key> {
        match self {
            Self::Of(key) => Some(key),
            Self::Never | Self::At(_) => None,
        }
    }
}

/// What a namespace holds under one key.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The value.
    pub value: Bytes,
    /// What the value is; empty: unknown.
    pub content_type: ContentType,
    /// 1 at creation, one more at every change.
    pub version: u64,
    /// The revision that created it.
    pub create_revision: Revision,
    /// The revision of its last change.
    pub mod_revision: Revision,
    /// When it was created.
    pub created_at_ms: i64,
    /// When it was last changed.
    pub updated_at_ms: i64,
    /// When it ends.
    pub deadline: Deadline,
}

/// Why a key was removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Removal {
    /// A request deleted it.
    Deleted,
    /// Its own TTL ended.
    Ttl,
    /// The lease that it was attached to ended.
    Lease,
    /// The lease that it was attached to was revoked.
    Revoked,
}

/// What a change was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChangeKind {
    /// A value was written.
    Set,
    /// Only the deadline changed.
    TtlChanged,
    /// The key was removed.
    Removed(Removal),
    /// All user keys were removed; the change has an empty key.
    Clear,
}

/// One change of one key: a record of the log, and at the same time a version of the entry.
#[derive(Debug)]
pub struct Change {
    /// The key.
    pub key: Key,
    /// The revision that made it.
    pub revision: Revision,
    /// When.
    pub time_ms: i64,
    /// What it was.
    pub kind: ChangeKind,
    /// The entry after it; none after a removal.
    pub entry: Option<Entry>,
    previous: Mutex<Option<SharedChange>>,
    /// Whether its bytes are counted in those of the log.
    counted: AtomicBool,
    /// Whether a later change of the same key has been made.
    replaced: AtomicBool,
    /// Whether a version that is not in the log took its place.
    superseded: AtomicBool,
}

/// A change, shared by the log, the index and whoever reads. Without a count of weak references, for there are many.
pub type SharedChange = triomphe::Arc<Change>;

// An allocator has blocks of 160 bytes, and the next are of 192: each key and each record of the log takes one.
#[cfg(target_pointer_width = "64")]
const _: () = assert!(size_of::<usize>() + size_of::<Change>() <= 160);

impl Change {
    /// A change that follows `previous`.
    pub fn new(
        key: Key,
        stamp: GroupStamp,
        kind: ChangeKind,
        entry: Option<Entry>,
        previous: Option<SharedChange>,
    ) -> Self {
        let GroupStamp { revision, time_ms } = stamp;
        let previous = Mutex::new(previous);
        let [counted, replaced, superseded] = [const { AtomicBool::new(false) }; 3];
        Self { key, revision, time_ms, kind, entry, previous, counted, replaced, superseded }
    }

    /// The change of the same key before it, while that is retained.
    pub fn previous(&self) -> Option<SharedChange> {
        self.previous.lock().clone()
    }

    /// Lets go of the changes before it; answers the one right before.
    pub fn forget_previous(&self) -> Option<SharedChange> {
        self.previous.lock().take()
    }

    /// Lets go of a change and of those before it, if that is the one right before this.
    pub fn forget(&self, change: &SharedChange) {
        self.previous.lock().take_if(|previous| SharedChange::ptr_eq(previous, change));
    }

    /// Whether a version that is not in the log took its place.
    pub fn is_superseded(&self) -> bool {
        self.superseded.load(Ordering::Relaxed)
    }

    /// Notes whether its bytes are counted in those of the log; answers whether they were.
    pub fn set_counted(&self, counted: bool) -> bool {
        self.counted.swap(counted, Ordering::Relaxed)
    }

    /// Notes that a later change of the same key has been made.
    pub fn set_replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    /// Whether a later change of the same key has been made.
    pub fn is_replaced(&self) -> bool {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Notes that a version which is not in the log takes the place of a newest one; answers what it is linked to: that, if
    /// it is in the log, or else the one before it that is.
    pub fn supersede(newest: SharedChange) -> Option<SharedChange> {
        newest.superseded.store(true, Ordering::Relaxed);
        // Of versions that no logged one has replaced, being counted is being in the log.
        let is_logged = |change: &SharedChange| change.counted.load(Ordering::Relaxed);
        match is_logged(&newest) {
            true => Some(newest),
            false => newest.previous().filter(is_logged),
        }
    }

    /// What it counts for in the bytes of the log: the key, the value if it was written, and what surrounds
    /// them. The value of a change of the deadline is that of the change before, and counted there.
    pub fn log_bytes(&self) -> u64 {
        let value = match (&self.entry, self.kind) {
            (Some(entry), ChangeKind::Set) => entry.value.len() + entry.content_type.len(),
            _ => 0,
        };
        LOG_OVERHEAD_BYTES + (self.key.as_bytes().len() + value) as u64
    }
}

impl Drop for Change {
    // A chain of versions may be a million long; dropping it by recursion would end the stack. (Where another lets go of
    // the same change at this moment, whoever is last goes on from there.)
    fn drop(&mut self) {
        let mut next = self.previous.get_mut().take();
        while let Some(mut change) = next.and_then(|change| SharedChange::try_unwrap(change).ok()) {
            next = change.previous.get_mut().take();
        }
    }
}

/// A change that left an entry, seen as that entry; sharing it costs no copy.
#[derive(Clone, Debug)]
pub struct StoredEntry(SharedChange);

impl StoredEntry {
    /// The entry that a change left, if it left one.
    pub fn of(change: SharedChange) -> Option<Self> {
        change.entry.is_some().then_some(Self(change))
    }

    /// An entry that is known without the change that left it.
    pub fn alone(key: Key, entry: Entry) -> Self {
        let stamp = GroupStamp { revision: entry.mod_revision, time_ms: entry.updated_at_ms };
        Self(SharedChange::new(Change::new(key, stamp, ChangeKind::Set, Some(entry), None)))
    }

    /// What a key whose newest change is this one holds, or held at a revision, as far as that is retained: not where it may have
    /// been renewed by then without a trace.
    pub fn at(newest: SharedChange, at: Option<Revision>) -> Option<Self> {
        let is_later = |version: &Change| at.is_some_and(|at| version.revision > at);
        if !is_later(&newest) {
            return Self::of(newest);
        }
        let mut version = newest;
        while is_later(&version) {
            version = version.previous()?;
        }
        Self::of(version).filter(|entry| !entry.0.is_superseded())
    }

    /// Its key.
    pub fn key(&self) -> &Key {
        &self.0.key
    }
}

impl Deref for StoredEntry {
    type Target = Entry;

    fn deref(&self) -> &Entry {
        self.0.entry.as_ref().expect("`of` takes only changes with an entry")
    }
}

/// What an entry counts for in the usage of its namespace; never zero.
pub fn entry_bytes(key: &Key, content_type: &[u8], value: &[u8]) -> u64 {
    (key.as_bytes().len() + content_type.len() + value.len()) as u64
}
