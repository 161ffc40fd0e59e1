//! What a backend answers.

use super::{
    BackendError, KeyRange, Lineage, NamespaceName, Position, Revision, SharedChange, StoredEntry,
};

/// How much a namespace holds in user keys, those due but not yet removed included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// How many keys.
    pub keys: u64,
    /// Bytes of keys, content types and values.
    pub bytes: u64,
}

/// Where a namespace stands: comes with every answer.
#[derive(Clone, Copy, Debug)]
pub struct Tip {
    /// What commits are conditioned on.
    pub position: Position,
    /// The last revision; that of the past if the namespace was deleted, 0 if it never was.
    pub revision: Revision,
    /// The store's time.
    pub time_ms: i64,
    /// Its history; `None`: it does not exist.
    pub lineage: Option<Lineage>,
    /// The last revision whose events are no longer held.
    pub compacted: Revision,
    /// That of the last clear, else 0 or the last revision before the namespace was made.
    pub cleared: Revision,
    /// What it holds.
    pub usage: Usage,
}

/// Answer of `read`.
#[derive(Debug)]
pub struct ReadAnswer {
    /// Where the namespace stands.
    pub tip: Tip,
    /// One slot a key, in the order asked.
    pub entries: Vec<Option<StoredEntry>>,
}

/// Answer of `scan`.
#[derive(Debug)]
pub struct ScanAnswer {
    /// Where the namespace stands.
    pub tip: Tip,
    /// Entries in order.
    pub entries: Vec<StoredEntry>,
    /// The part of the range not looked at yet; `None`: all was.
    pub next: Option<KeyRange>,
}

/// A change as the log tells it.
#[derive(Clone, Debug)]
pub struct LoggedChange {
    /// The change.
    pub change: SharedChange,
    /// The entry before it. Taken along at once: the log may forget it while this is on its way.
    pub previous: Option<StoredEntry>,
}

/// Answer of `changes`.
#[derive(Debug)]
pub struct Changes {
    /// Where the namespace stands.
    pub tip: Tip,
    /// The changes, in order.
    pub changes: Vec<LoggedChange>,
    /// Everything up to this revision is in them.
    pub through: Revision,
}

/// Answer of `history`.
#[derive(Debug)]
pub struct History {
    /// Where the namespace stands.
    pub tip: Tip,
    /// The changes, newest first.
    pub changes: Vec<SharedChange>,
    /// Whether more are held.
    pub more: bool,
}

/// A namespace in a listing.
#[derive(Clone, Debug)]
pub struct NamespaceInfo {
    /// Its name.
    pub name: NamespaceName,
    /// Where it stands.
    pub tip: Tip,
    /// How large its log is.
    pub log: LogShape,
    /// When it was made.
    pub created_at_ms: i64,
    /// The earliest deadline that waits.
    pub next_deadline_ms: Option<i64>,
}

/// What a listing tells of a namespace.
pub type Listed = Result<NamespaceInfo, Unreadable>;

/// A namespace of which nothing but its name can be told now.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// Its name.
    pub name: NamespaceName,
    /// Why not.
    pub error: BackendError,
}

/// How large the log of a namespace is.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogShape {
    /// How many events.
    pub events: u64,
    /// How many bytes.
    pub bytes: u64,
    /// When the oldest was made.
    pub oldest_ms: Option<i64>,
}

/// What a step of `trim` left.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trimmed {
    /// How large the log is now.
    pub log: LogShape,
    /// Whether there is more to forget.
    pub more: bool,
}

/// What another process that shares the state has left to be done.
#[derive(Clone, Debug)]
pub enum DueElsewhere {
    /// Something in a namespace.
    At {
        /// Its name.
        namespace: NamespaceName,
        /// Its earliest deadline, in milliseconds since the Unix epoch.
        deadline_ms: i64,
    },
    /// News may have been missed: any namespace may have something.
    Anywhere,
}

/// A lineage that another goes on from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ancestor {
    /// Its name.
    pub lineage: Lineage,
    /// The last of its revisions that was not lost.
    pub valid_through: Revision,
}
