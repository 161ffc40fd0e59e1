//! Leases as they are stored.

use serde::{Deserialize, Serialize};

use super::decode;
use crate::{
    backend::{Deadline, Entry, Key, Revision},
    store::keys,
};

/// A lease; when it ends is the deadline of its entry, when it was granted the entry's creation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRecord {
    /// How long it lasts from each time it is kept alive.
    pub ttl_ms: u64,
    /// Whether a client has chosen its id.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_chosen: bool,
    /// How many keys are attached to it. Void where the namespace was cleared since.
    #[serde(default)]
    pub keys: u32,
    /// How many locks are held by it.
    #[serde(default)]
    pub locks: u32,
}

/// A lease as it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeaseView {
    /// Its id.
    pub id: u64,
    /// How long it lasts from each time it is kept alive.
    pub ttl_ms: u64,
    /// When it was granted.
    pub granted_at_ms: i64,
    /// When it ends unless it is kept alive.
    pub expires_at_ms: i64,
    /// How many keys are attached to it.
    pub keys: u32,
    /// How many locks are held by it.
    pub locks: u32,
}

impl LeaseRecord {
    /// A lease as it stands in a namespace that was last cleared at a revision: what was attached by then is not any
    /// more.
    pub fn of(value: &[u8], written: Revision, cleared: Revision) -> Option<Self> {
        let record: Self = decode(value)?;
        let keys = if written < cleared { 0 } else { record.keys };
        Some(Self { keys, ..record })
    }
}

impl LeaseView {
    /// A lease as its entry tells it, if that can be read.
    pub fn of(key: &Key, entry: &Entry, cleared: Revision) -> Option<Self> {
        let record = LeaseRecord::of(&entry.value, entry.mod_revision, cleared)?;
        let LeaseRecord { ttl_ms, keys, locks, .. } = record;
        let Deadline::At(expires_at_ms) = entry.deadline else {
            return None;
        };
        let (id, granted_at_ms) = (keys::lease_id(key)?, entry.created_at_ms);
        Some(Self { id, ttl_ms, granted_at_ms, expires_at_ms, keys, locks })
    }
}
