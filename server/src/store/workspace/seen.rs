//! Entries as commands see them.

use bytes::Bytes;

use crate::backend::{ContentType, Created, Draft, GroupIndex, Key, NewDeadline, StoredEntry};

/// An entry as a command sees it.
#[derive(Debug, Clone)]
pub enum Seen {
    /// As the backend holds it.
    Stored(StoredEntry),
    /// As a group of this commit writes it. Boxed, for it is large and handed on often.
    Pending(Box<Pending>),
}

/// An entry that a group of this commit writes.
#[derive(Debug, Clone)]
pub struct Pending {
    /// The key.
    pub key: Key,
    /// What is written.
    pub draft: Draft,
    /// Which group writes it.
    pub group: GroupIndex,
}

impl Seen {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Stored(stored) => stored.key(),
            Self::Pending(pending) => &pending.key,
        }
    }

    /// The value.
    pub fn value(&self) -> &Bytes {
        match self {
            Self::Stored(stored) => &stored.value,
            Self::Pending(pending) => &pending.draft.value,
        }
    }

    /// What the value is.
    pub fn content_type(&self) -> &ContentType {
        match self {
            Self::Stored(stored) => &stored.content_type,
            Self::Pending(pending) => &pending.draft.content_type,
        }
    }

    /// The version.
    pub fn version(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.version,
            Self::Pending(pending) => pending.draft.version,
        }
    }

    /// When it ends.
    pub fn deadline(&self) -> NewDeadline {
        match self {
            Self::Stored(stored) => stored.deadline.clone().into(),
            Self::Pending(pending) => pending.draft.deadline.clone(),
        }
    }

    /// The key of the entry that it ends with.
    pub fn reference(&self) -> Option<&Key> {
        match self {
            Self::Stored(stored) => stored.deadline.reference(),
            Self::Pending(pending) => pending.draft.deadline.reference(),
        }
    }

    /// The same for an answer in which no value travels.
    pub fn without_value(&self) -> Self {
        match self {
            Self::Stored(stored) => Self::Stored(stored.clone()),
            Self::Pending(pending) => {
                let mut pending = pending.clone();
                pending.draft.value = Bytes::new();
                Self::Pending(pending)
            }
        }
    }

    /// When it was created.
    pub fn created(&self) -> Created {
        match self {
            Self::Stored(stored) => Created::Before(stored.create_revision, stored.created_at_ms),
            Self::Pending(pending) => pending.draft.created,
        }
    }

    /// Whether its own deadline has passed at a moment.
    pub fn is_due(&self, time_ms: i64) -> bool {
        match self {
            Self::Stored(stored) => stored.deadline.is_due(time_ms),
            Self::Pending(pending) => {
                matches!(pending.draft.deadline, NewDeadline::At(at_ms) if at_ms <= time_ms)
            }
        }
    }
}
