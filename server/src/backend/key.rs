//! Names of namespaces, keys and ranges of keys.

use std::{
    borrow::Borrow,
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    ops::Bound,
    sync::Arc,
};

use triomphe::ThinArc;

/// The name of a namespace; checked where it comes in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NamespaceName(Arc<str>);

impl NamespaceName {
    /// Takes a name that has been checked.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for NamespaceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A key: opaque bytes, ordered as such. A first byte of zero marks an internal one. A pointer wide, for there are many.
#[derive(Clone)]
pub struct Key(ThinArc<(), u8>);

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(ThinArc::from_header_and_slice((), bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0.slice
    }

    /// Whether users never see it.
    pub fn is_internal(&self) -> bool {
        self.as_bytes().first() == Some(&0)
    }

    /// Whether it is an internal one that goes with the keys of users when these are cleared.
    pub fn is_note(&self) -> bool {
        self.as_bytes().starts_with(&[0, 0])
    }

    /// The least key that is greater.
    pub fn successor(&self) -> Self {
        Self::new(&[self.as_bytes(), &[0]].concat())
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.0.heap_ptr() == other.0.heap_ptr() || self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

// As that of its bytes, which it is borrowed as.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

/// All keys from `start` on and before `end`. The one form that ranges, prefixes and globs resolve to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// The first key inside.
    pub start: Key,
    /// The first key outside; `None`: to the end.
    pub end: Option<Key>,
}

impl KeyRange {
    /// Whether the key lies inside.
    pub fn contains(&self, key: &Key) -> bool {
        *key >= self.start && self.end.as_ref().is_none_or(|end| key < end)
    }

    /// Whether no key can lie inside.
    pub fn is_empty(&self) -> bool {
        self.end.as_ref().is_some_and(|end| *end <= self.start)
    }

    /// The same for ordered maps.
    pub fn bounds(&self) -> (Bound<&Key>, Bound<&Key>) {
        let end = self.end.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        (Bound::Included(&self.start), end)
    }
}
