//! Names of namespaces, keys and ranges of keys.

use std::{borrow::Borrow, fmt, ops::Bound, sync::Arc};

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

/// A key: opaque bytes, ordered as such. A first byte of zero marks an internal one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<[u8]>);

impl Key {
    /// A key of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether users never see it.
    pub fn is_internal(&self) -> bool {
        self.0.first() == Some(&0)
    }

    /// Whether it is an internal one that goes with the keys of users when these are cleared.
    pub fn is_note(&self) -> bool {
        self.0.starts_with(&[0, 0])
    }

    /// The least key that is greater.
    pub fn successor(&self) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len() + 1);
        bytes.extend_from_slice(&self.0);
        bytes.push(0);
        Self(bytes.into())
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
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
