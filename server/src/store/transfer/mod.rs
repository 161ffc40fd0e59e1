//! Moving state: the whole of a namespace as it stands, taken out and put in.
//!
//! What travels: settings, leases, locks with their holds, and entries; each as it is, with its revisions, times and
//! absolute deadlines. What does not: the log and former versions, answers kept for requests, and calls that wait for
//! locks. They belong to the history that is left behind.

mod export;
mod import;

use bytes::Bytes;

pub use export::ExportItem;
pub use import::{Import, Imported};

use super::{
    record::{HoldDuration, Owner},
    settings::Settings,
};
use crate::backend::{Lineage, NamespaceName, Revision};

/// How a namespace stands that is exported or imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferStart {
    /// Its name.
    pub namespace: NamespaceName,
    /// Its settings.
    pub settings: Settings,
    /// Its last revision.
    pub revision: Revision,
    /// The history that the revision belongs to.
    pub lineage: Option<Lineage>,
    /// The time that its state is of.
    pub time_ms: i64,
    /// About how many entries it has.
    pub expected_entries: u64,
}

/// A lease that is exported or imported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovedLease {
    /// Its id.
    pub id: u64,
    /// How long it lasts from each time it is kept alive.
    pub ttl_ms: u64,
    /// When it was granted.
    pub granted_at_ms: i64,
    /// When it ends unless it is kept alive.
    pub expires_at_ms: i64,
    /// Whether a client has chosen its id.
    pub is_chosen: bool,
}

/// A lock that is held, and is exported or imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MovedLock {
    /// Its name.
    pub name: String,
    /// The token of the hold.
    pub token: Revision,
    /// The revision of the last change of the hold.
    pub mod_revision: Revision,
    /// 1 for a hold as it was granted, one more for each change.
    pub version: u64,
    /// When it was granted.
    pub acquired_at_ms: i64,
    /// When it was last changed or renewed.
    pub updated_at_ms: i64,
    /// What it was asked for with.
    pub acquire_id: [u8; 16],
    /// By whom.
    pub owner: Owner,
    /// What the holder shows.
    pub value: Bytes,
    /// How long it lasts.
    pub duration: HoldDuration,
    /// When it ends unless it is renewed; `None`: with its lease. One that is to last as long as a lease, but has only been
    /// offered to its holder, ends by itself.
    pub expires_at_ms: Option<i64>,
}
