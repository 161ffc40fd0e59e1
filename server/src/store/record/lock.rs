//! Locks and their queues as they are stored.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Ended, Past, base64, decode};
use crate::{
    backend::{Deadline, Entry, Key, Revision},
    store::keys,
};

/// Who holds a lock or wants to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Owner {
    /// Names the owner.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub id: String,
    /// The person or the service behind it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub who: String,
    /// What for.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What it is doing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub operation: String,
    /// The program and its version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub client_version: String,
}

/// How long a hold lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldDuration {
    /// So many milliseconds unless it is renewed.
    #[serde(rename = "ttl_ms")]
    Ttl(u64),
    /// As long as this lease.
    Lease(u64),
}

/// A lock. The grant creates its entry anew, so that the token is the revision that created it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LockRecord {
    /// Somebody holds it.
    Held(Box<Hold>),
    /// Nobody does: how the last holds ended, the newest first.
    Free(Past),
}

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// What it was asked for with.
    pub acquire_id: uuid::Uuid,
    /// By whom.
    #[serde(default)]
    pub owner: Owner,
    /// What the holder shows.
    #[serde(with = "base64", default, skip_serializing_if = "Bytes::is_empty")]
    pub value: Bytes,
    /// How long it lasts.
    pub duration: HoldDuration,
    /// The waiting call that it was granted to, until it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<u64>,
    /// Whether it was granted to the first of the queue, who has not taken it yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_offered: bool,
    /// How the last holds before it ended, the newest first.
    #[serde(default, skip_serializing_if = "Past::is_empty")]
    pub before: Past,
}

/// The queue of a lock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// How many wait.
    pub waiting: u32,
    /// The last ticket that was given.
    pub last_ticket: u64,
}

/// Where the place of an acquire id is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The ticket of the place.
    pub ticket: u64,
    /// The call that waits.
    pub call: Option<u64>,
}

/// A lock as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockView {
    /// Its name.
    pub name: String,
    /// The fencing token.
    pub token: Revision,
    /// Who holds it.
    pub owner: Owner,
    /// What the holder shows.
    pub value: Bytes,
    /// When it was granted.
    pub acquired_at_ms: i64,
    /// How long a renewal lasts; 0 for a hold as long as a lease.
    pub ttl_ms: u64,
    /// When it ends unless it is kept alive.
    pub expires_at_ms: i64,
    /// The lease it lasts as long as.
    pub lease: Option<u64>,
    /// How many wait for it.
    pub waiting: u32,
}

impl LockRecord {
    /// How the last holds before ended.
    pub fn into_past(self) -> Past {
        match self {
            Self::Held(hold) => hold.before,
            Self::Free(past) => past,
        }
    }
}

impl Hold {
    /// What is known of the lock once this has ended.
    pub fn end(self, ended: Ended) -> LockRecord {
        LockRecord::Free(self.before.with(ended))
    }
}

impl LockView {
    /// A lock as its entry tells it, with the deadline of its lease where it has one; `None` if nobody holds it.
    pub fn of(key: &Key, entry: &Entry, lease_ends_ms: Option<i64>, waiting: u32) -> Option<Self> {
        let LockRecord::Held(hold) = decode(&entry.value)? else {
            return None;
        };
        let (ttl_ms, lease) = match hold.duration {
            HoldDuration::Ttl(ttl_ms) => (ttl_ms, None),
            HoldDuration::Lease(lease) => (0, Some(lease)),
        };
        let expires_at_ms = match entry.deadline {
            Deadline::At(at_ms) => at_ms,
            Deadline::Never | Deadline::Of(_) => lease_ends_ms.unwrap_or_default(),
        };
        Some(Self {
            name: keys::lock_name(key),
            token: entry.create_revision,
            owner: hold.owner,
            value: hold.value,
            acquired_at_ms: entry.created_at_ms,
            ttl_ms,
            expires_at_ms,
            lease,
            waiting,
        })
    }
}
