//! Commands on leases.

use super::LeaseReply;
use crate::{
    backend::{Key, Removal},
    store::{
        error::Refusal,
        keys,
        workspace::{Seen, Workspace},
    },
};

/// Grants a lease.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Its id, not 0.
    pub lease: u64,
    /// How long it lasts unless it is kept alive.
    pub ttl_ms: u64,
    /// Whether the client has chosen the id; else it was drawn at random.
    pub is_chosen: bool,
}

/// Lets a lease last its TTL from now.
#[derive(Debug, Clone, Copy)]
pub struct KeepAlive {
    /// Its id.
    pub lease: u64,
}

/// Ends a lease now.
#[derive(Debug, Clone, Copy)]
pub struct Revoke {
    /// Its id.
    pub lease: u64,
}

/// What ended with a lease.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RevokeReply {
    /// Whether it was there.
    pub revoked: bool,
    /// How many keys were removed.
    pub keys: u32,
    /// How many locks were released.
    pub locks: u32,
}

impl Grant {
    pub(super) fn keys(&self) -> [Key; 2] {
        [keys::lease(self.lease), keys::ended_lease(self.lease)]
    }

    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<LeaseReply<Seen>, Refusal<Seen>> {
        let [lease, ended] = self.keys();
        if workspace.get(&lease).is_some() || workspace.get(&ended).is_some() {
            return Err(Refusal::LeaseIdUsed { lease: self.lease });
        }
        let lease = workspace.grant_lease(&lease, self.ttl_ms, self.is_chosen);
        Ok(LeaseReply { lease })
    }
}

impl KeepAlive {
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<LeaseReply<Seen>, Refusal<Seen>> {
        let lease = workspace.keep_lease_alive(&keys::lease(self.lease));
        let lease = lease.ok_or(Refusal::LeaseNotFound { lease: self.lease })?;
        Ok(LeaseReply { lease })
    }
}

impl Revoke {
    pub(super) fn run(&self, workspace: &mut Workspace) -> RevokeReply {
        let lease = keys::lease(self.lease);
        if workspace.get(&lease).is_none() {
            return RevokeReply::default();
        }
        let (keys, locks) = workspace.end_lease(&lease, Removal::Revoked);
        RevokeReply { revoked: true, keys, locks }
    }
}
