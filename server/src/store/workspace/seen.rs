//! Entries as commands see them.

use bytes::Bytes;

use crate::backend::{Created, Draft, GroupIndex, Key, NewDeadline, StoredEntry};

/// An entry as a command sees it.
#[derive(Debug, Clone)]
pub enum Seen {
    /// As the backend holds it.
    Stored(StoredEntry),
    /// As a group of this commit writes it.
    Pending {
        /// The key.
        key: Key,
        /// What is written.
        draft: Draft,
        /// Which group writes it.
        group: GroupIndex,
    },
}

impl Seen {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Stored(stored) => stored.key(),
            Self::Pending { key, .. } => key,
        }
    }

    /// The value.
    pub fn value(&self) -> &Bytes {
        match self {
            Self::Stored(stored) => &stored.value,
            Self::Pending { draft, .. } => &draft.value,
        }
    }

    /// What the value is.
    pub fn content_type(&self) -> &Bytes {
        match self {
            Self::Stored(stored) => &stored.content_type,
            Self::Pending { draft, .. } => &draft.content_type,
        }
    }

    /// The version.
    pub fn version(&self) -> u64 {
        match self {
            Self::Stored(stored) => stored.version,
            Self::Pending { draft, .. } => draft.version,
        }
    }

    /// When it ends.
    pub fn deadline(&self) -> NewDeadline {
        match self {
            Self::Stored(stored) => stored.deadline.clone().into(),
            Self::Pending { draft, .. } => draft.deadline.clone(),
        }
    }

    /// The key of the entry that it ends with.
    pub fn reference(&self) -> Option<&Key> {
        match self {
            Self::Stored(stored) => stored.deadline.reference(),
            Self::Pending { draft, .. } => draft.deadline.reference(),
        }
    }

    /// The same for an answer in which no value travels.
    pub fn without_value(&self) -> Self {
        match self {
            Self::Stored(stored) => Self::Stored(stored.clone()),
            Self::Pending { key, draft, group } => Self::Pending {
                key: key.clone(),
                draft: Draft { value: Bytes::new(), ..draft.clone() },
                group: *group,
            },
        }
    }

    /// When it was created.
    pub fn created(&self) -> Created {
        match self {
            Self::Stored(stored) => Created::Before(stored.create_revision, stored.created_at_ms),
            Self::Pending { draft, .. } => draft.created,
        }
    }

    /// Whether its own deadline has passed at a moment.
    pub fn is_due(&self, time_ms: i64) -> bool {
        match self {
            Self::Stored(stored) => stored.deadline.is_due(time_ms),
            Self::Pending { draft, .. } => {
                matches!(draft.deadline, NewDeadline::At(at_ms) if at_ms <= time_ms)
            }
        }
    }
}
