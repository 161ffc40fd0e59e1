//! What of a log is to be held.

use super::{LogShape, Revision};

/// What `trim` has to hold.
#[derive(Clone, Copy, Debug)]
pub enum Retain {
    /// Everything after this revision, and nothing before.
    After(Revision),
    /// What the bounds hold.
    Bounds(LogBounds),
}

/// Bounds of a log. A change is held while the log from it on is inside `max_events` and `max_bytes` and the
/// change not older than `since_ms`; beyond that it is spared while it is not older than `young_since_ms` or
/// comes after `pinned`, unless the log is over `ceiling_bytes`.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    /// Most events.
    pub max_events: u64,
    /// Most bytes.
    pub max_bytes: u64,
    /// Oldest time.
    pub since_ms: i64,
    /// What is not older than this is young.
    pub young_since_ms: i64,
    /// A revision that is being read: what follows it is to stay.
    pub pinned: Option<Revision>,
    /// The size from which nothing is spared.
    pub ceiling_bytes: u64,
}

impl LogBounds {
    /// Whether a log of this shape holds its oldest change, made at `oldest`.
    pub fn hold(&self, oldest: (Revision, i64), log: LogShape) -> bool {
        let (revision, time_ms) = oldest;
        let inside = log.events <= self.max_events
            && log.bytes <= self.max_bytes
            && time_ms >= self.since_ms;
        let spared =
            time_ms >= self.young_since_ms || self.pinned.is_some_and(|pinned| revision > pinned);
        inside || (spared && log.bytes <= self.ceiling_bytes)
    }
}
