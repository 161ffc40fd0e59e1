//! The vocabulary all calls share.

use std::{
    fmt,
    ops::{Add, Bound, RangeBounds},
    str::FromStr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{Lease, LeaseId};

/// The number of a committed write of one namespace.
///
/// Revisions rise by one, never go back and never repeat under one name. Those of two namespaces cannot
/// be compared.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Revision(u64);

impl Revision {
    /// The revision of this number.
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<u64> for Revision {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

impl From<Revision> for u64 {
    fn from(revision: Revision) -> Self {
        revision.0
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A moment by the clock of the store: milliseconds since the Unix epoch.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment so many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn saturating_duration_since(self, earlier: Timestamp) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Timestamp;

    fn add(self, duration: Duration) -> Timestamp {
        let millis = i64::try_from(millis_rounded_up(duration)).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }
}

/// Rounds up to the next millisecond, so that a deadline never comes early.
impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self(0) + after,
            Err(before) => Self(
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis),
            ),
        }
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        let distance = Duration::from_millis(time.0.unsigned_abs());
        if time.0 < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The name of one unbroken history of a namespace: a UUID, or empty for a namespace that does not exist.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(String);

impl Lineage {
    /// The lineage of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the lineage of a namespace that does not exist.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<&str> for Lineage {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl From<String> for Lineage {
    fn from(name: String) -> Self {
        Self(name)
    }
}

impl From<&Lineage> for Lineage {
    fn from(lineage: &Lineage) -> Self {
        lineage.clone()
    }
}

impl From<Lineage> for String {
    fn from(lineage: Lineage) -> Self {
        lineage.0
    }
}

impl fmt::Display for Lineage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a watch has come to: save it, and [resume](crate::Watch::after) from it later.
///
/// Written as `REVISION@LINEAGE`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Cursor {
    /// The history that the revision belongs to.
    pub lineage: Lineage,
    /// Every matching event up to this one has been delivered.
    pub revision: Revision,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.revision, self.lineage)
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (revision, lineage) = text.split_once('@').ok_or(ParseCursorError(()))?;
        let revision: u64 = revision.parse().map_err(|_| ParseCursorError(()))?;
        Ok(Self { lineage: Lineage::from(lineage), revision: Revision(revision) })
    }
}

/// A text is not a [`Cursor`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a cursor is written REVISION@LINEAGE")]
pub struct ParseCursorError(());

/// The state of the namespace that an answer describes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Header {
    /// For a write that changed something, the revision of the change; else the revision read.
    pub revision: Revision,
    /// The time of the read or write, by the clock of the store.
    pub time: Timestamp,
}

impl Header {
    pub(crate) fn new(revision: u64, time_ms: i64) -> Self {
        Self { revision: Revision(revision), time: Timestamp(time_ms) }
    }
}

/// A value and the state it was answered from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer<T> {
    /// The state answered from.
    pub header: Header,
    /// What the call answers without its header.
    pub value: T,
}

impl<T> Answer<T> {
    pub(crate) fn new(revision: u64, time_ms: i64, value: T) -> Self {
        Self { header: Header::new(revision, time_ms), value }
    }
}

/// What is known of an entry beside its value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metadata {
    /// The key.
    pub key: String,
    /// What the value is, as its writer said; empty means unknown.
    pub content_type: String,
    /// 1 at creation, one more at every change. Starts again after a removal.
    pub version: u64,
    /// The revision that created the entry.
    pub create_revision: Revision,
    /// The revision of the last change: what compare-and-set goes by.
    pub mod_revision: Revision,
    /// When the entry was created.
    pub created_at: Timestamp,
    /// When the entry was last changed.
    pub updated_at: Timestamp,
    /// When the entry ends by its own TTL, if it does.
    pub expires_at: Option<Timestamp>,
    /// The lease that it ends with, if it does.
    pub lease_id: Option<LeaseId>,
}

/// A key with its value; `Entry<()>` is one whose value was not asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Everything else.
    pub metadata: Metadata,
}

impl<T> Entry<T> {
    /// The key.
    pub fn key(&self) -> &str {
        &self.metadata.key
    }

    /// The revision of the last change: what compare-and-set goes by.
    pub fn mod_revision(&self) -> Revision {
        self.metadata.mod_revision
    }

    /// The value alone.
    pub fn into_value(self) -> T {
        self.value
    }
}

/// When an entry is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Expiry {
    /// So long after the commit: 1 ms to 100 years, rounded up to whole milliseconds.
    Ttl(Duration),
    /// At this moment, at most 100 years ahead. If it has passed, the entry ends at once.
    At(Timestamp),
    /// As it is now; for a missing key the default of the namespace.
    Keep,
    /// Not by itself, whatever the default of the namespace.
    Never,
    /// With this lease.
    Lease(LeaseId),
}

impl From<Duration> for Expiry {
    fn from(ttl: Duration) -> Self {
        Self::Ttl(ttl)
    }
}

impl From<LeaseId> for Expiry {
    fn from(lease: LeaseId) -> Self {
        Self::Lease(lease)
    }
}

impl From<&Lease> for Expiry {
    fn from(lease: &Lease) -> Self {
        Self::Lease(lease.id())
    }
}

/// How long a key has to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ttl {
    /// There is no such key.
    Missing,
    /// It does not end by itself.
    Never,
    /// So long from the time of the answer; at least a millisecond.
    Remaining(Duration),
}

/// Which keys a call is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selector(pub(crate) SelectorKind);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SelectorKind {
    Key(String),
    Prefix(String),
    Range { start: Bytes, end: Option<Bytes> },
    Glob(String),
    All,
}

impl Selector {
    /// This one key.
    pub fn key(key: impl Into<String>) -> Self {
        Self(SelectorKind::Key(key.into()))
    }

    /// Every key that begins with this. An empty prefix is refused by the server: say [`Selector::all`].
    pub fn prefix(prefix: impl Into<String>) -> Self {
        Self(SelectorKind::Prefix(prefix.into()))
    }

    /// The keys of a range, by their bytes: `Selector::range("a".."b")`.
    pub fn range<K: AsRef<[u8]>>(range: impl RangeBounds<K>) -> Self {
        let start = match range.start_bound() {
            Bound::Included(key) => Bytes::copy_from_slice(key.as_ref()),
            Bound::Excluded(key) => next_key(key.as_ref()),
            Bound::Unbounded => Bytes::new(),
        };
        let end = match range.end_bound() {
            Bound::Included(key) => Some(next_key(key.as_ref())),
            Bound::Excluded(key) => Some(Bytes::copy_from_slice(key.as_ref())),
            Bound::Unbounded => None,
        };
        Self(SelectorKind::Range { start, end })
    }

    /// Every key that matches this pattern as a whole: `*` stands for any run of characters, `?` for any
    /// one, `[a-z]` for one of a set, `[!a-z]` for one not in it; `\` takes the next one literally.
    pub fn glob(pattern: impl Into<String>) -> Self {
        Self(SelectorKind::Glob(pattern.into()))
    }

    /// Every key of the namespace.
    pub fn all() -> Self {
        Self(SelectorKind::All)
    }
}

/// Whole milliseconds, rounded up: a TTL may last a little longer but never ends early.
pub(crate) fn millis_rounded_up(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// The first key after this one: keys have no NUL, so nothing lies between.
fn next_key(key: &[u8]) -> Bytes {
    let mut next = Vec::with_capacity(key.len() + 1);
    next.extend_from_slice(key);
    next.push(0);
    next.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_rounded_up_to_whole_milliseconds() {
        assert_eq!(millis_rounded_up(Duration::ZERO), 0);
        assert_eq!(millis_rounded_up(Duration::from_nanos(1)), 1);
        assert_eq!(millis_rounded_up(Duration::from_micros(1_001)), 2);
        assert_eq!(millis_rounded_up(Duration::from_millis(7)), 7);
        assert_eq!(millis_rounded_up(Duration::MAX), u64::MAX);
    }

    #[test]
    fn a_timestamp_goes_to_system_time_and_back() {
        for millis in [-1_500, 0, 1_700_000_000_123] {
            let time = Timestamp::from_millis(millis);
            assert_eq!(Timestamp::from(SystemTime::from(time)), time);
        }
    }

    #[test]
    fn a_cursor_goes_to_text_and_back() {
        let cursor = Cursor { lineage: Lineage::from("0b6c"), revision: Revision::new(17) };
        assert_eq!(cursor.to_string(), "17@0b6c");
        assert_eq!("17@0b6c".parse(), Ok(cursor));
        assert!("17".parse::<Cursor>().is_err());
        assert!("x@0b6c".parse::<Cursor>().is_err());
    }

    #[test]
    fn range_bounds_become_byte_bounds() {
        let kind = |selector: Selector| match selector.0 {
            SelectorKind::Range { start, end } => (start.to_vec(), end.map(|end| end.to_vec())),
            other => panic!("not a range: {other:?}"),
        };
        assert_eq!(kind(Selector::range("a".."b")), (b"a".to_vec(), Some(b"b".to_vec())));
        assert_eq!(kind(Selector::range("a"..="b")), (b"a".to_vec(), Some(b"b\0".to_vec())));
        assert_eq!(kind(Selector::range("a"..)), (b"a".to_vec(), None));
    }
}
