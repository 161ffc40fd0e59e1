//! Leases: what keys and locks live as long as.

mod calls;
mod keeper;
mod schedule;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use holdfast_proto::v1::{self, keep_alive_response};
use tokio::time::Instant;

use crate::{
    Client, Codec, Error, LeaseId, Namespace, Timestamp,
    call::{Pending, awaitable_in_place, call_options, write_options},
    life::Life,
    types::millis_rounded_up,
};
pub use calls::{GetLease, GetLeaseContents, KeepAliveOnce, ListLeases, RevokeLease};
pub(crate) use keeper::Keeper;

/// Keys and locks that live as long as somebody keeps one lease alive.
impl<C: Codec> Namespace<C> {
    /// Grants a lease that lasts this long from each time it is kept alive, 1 ms to 100 years, and keeps it alive.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// let members = client.namespace("members");
    /// let lease = members.grant_lease(Duration::from_secs(10)).await?;
    /// // There as long as this program is.
    /// members.set("worker:7", "10.0.0.7").lease(&lease).await?;
    /// let loss = lease.lost().await;
    /// println!("{loss}");
    /// # Ok(())
    /// # }
    /// ```
    pub fn grant_lease(&self, ttl: Duration) -> GrantLease {
        GrantLease {
            call: self.pending(v1::GrantRequest {
                namespace: self.namespace(),
                ttl_ms: millis_rounded_up(ttl),
                ..Default::default()
            }),
        }
    }

    /// Keeps a lease alive once, for whoever does without a [`Lease`].
    pub fn keep_alive_once(&self, lease: impl Into<LeaseId>) -> KeepAliveOnce {
        KeepAliveOnce {
            call: self.pending(v1::KeepAliveRequest {
                namespace: self.namespace(),
                lease_id: lease.into().get(),
            }),
        }
    }

    /// Ends a lease now: its keys are removed in one revision, its locks released.
    pub fn revoke_lease(&self, lease: impl Into<LeaseId>) -> RevokeLease {
        RevokeLease {
            call: self.pending(v1::RevokeRequest {
                namespace: self.namespace(),
                lease_id: lease.into().get(),
                options: None,
            }),
        }
    }

    /// Tells what is known of a lease; `None` if it has ended or never was.
    pub fn get_lease(&self, lease: impl Into<LeaseId>) -> GetLease {
        GetLease {
            call: self.pending(v1::GetLeaseRequest {
                namespace: self.namespace(),
                lease_id: lease.into().get(),
                attached: false,
            }),
        }
    }

    /// Lists leases, in order of their ids.
    pub fn list_leases(&self) -> ListLeases {
        ListLeases {
            call: self.pending(v1::ListLeasesRequest {
                namespace: self.namespace(),
                ..Default::default()
            }),
        }
    }
}

/// What is known of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseInfo {
    /// Its id.
    pub id: LeaseId,
    /// How long it lasts from each time it is kept alive.
    pub ttl: Duration,
    /// When it was granted.
    pub granted_at: Timestamp,
    /// When it ends unless it is kept alive.
    pub expires_at: Timestamp,
    /// How many keys are attached to it.
    pub keys: u32,
    /// How many locks are held by it.
    pub locks: u32,
}

/// A lease with what is attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LeaseContents {
    /// The lease.
    pub info: LeaseInfo,
    /// The keys attached to it, in order; as many as fit into one answer.
    pub keys: Vec<String>,
    /// The names of the locks held by it, in order.
    pub locks: Vec<String>,
    /// Whether there are more keys or locks than were answered.
    pub more: bool,
}

/// What ended with a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Revoked {
    /// Whether the lease was there.
    pub revoked: bool,
    /// How many keys were removed.
    pub keys: u32,
    /// How many locks were released.
    pub locks: u32,
}

/// How a lease was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LeaseLoss {
    /// The server says that it is gone.
    Ended,
    /// It was revoked through its handle.
    Revoked,
    /// No keeping alive was acknowledged in time, by the clock of this program. The server may not know yet.
    NotKeptAlive,
}

impl fmt::Display for LeaseLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ended => "the lease has ended",
            Self::Revoked => "the lease was revoked",
            Self::NotKeptAlive => "the lease was not kept alive in time",
        })
    }
}

/// Grants a lease; made by [`Namespace::grant_lease`]. One that has ended before its answer came is
/// [`Error::LeaseNotFound`].
#[must_use = "a call does nothing until it is awaited"]
pub struct GrantLease {
    call: Pending<v1::GrantRequest>,
}

impl GrantLease {
    /// Chooses the id: at random, from all 64 bits, not 0. One that is in use, or was in the last hour, is
    /// [`Error::LeaseIdUsed`]. Unless said, the server chooses.
    pub fn id(mut self, id: impl Into<LeaseId>) -> Self {
        self.call.request.lease_id = Some(id.into().get());
        self
    }

    call_options!();
    write_options!();

    async fn send(&mut self) -> Result<Lease, Error> {
        let client = self.call.client.clone();
        let namespace = self.call.request.namespace.clone();
        // Whichever of its attempts has granted it, that was after this.
        let mut sent = Instant::now();
        let response = self.call.send().await?;
        let mut lease = response.lease.ok_or_else(|| Error::protocol("a grant names no lease"))?;
        // What is left when it is to be kept alive already may not be enough for that.
        if sent.elapsed() >= Duration::from_millis(lease.ttl_ms) / 3 {
            let asked = Instant::now();
            let request =
                v1::KeepAliveRequest { namespace: namespace.clone(), lease_id: lease.lease_id };
            let response = client.transport.call(request, self.call.timeout).await?;
            if let Some(keep_alive_response::Result::Lease(kept)) = response.result {
                (lease, sent) = (kept, asked);
            }
        }
        Ok(Lease::new(client, namespace, LeaseInfo::from_wire(lease), sent))
    }
}

awaitable_in_place!([] GrantLease => Lease);

/// A lease that keeps itself alive; made by [`Namespace::grant_lease`].
///
/// All leases of a client are kept alive over one stream, each after a third of its TTL. Dropping the handle
/// stops that but revokes nothing: what is attached to the lease lives on for up to its TTL. To end it at once,
/// [`revoke`](Self::revoke) it.
///
/// The handle knows of its loss without the network, as a [`LockGuard`](crate::LockGuard) does: it counts the TTL
/// by this machine's monotonic clock from when the last message that was acknowledged was sent.
#[must_use = "the lease is no longer kept alive when this is dropped"]
pub struct Lease {
    client: Client,
    namespace: String,
    id: LeaseId,
    ttl: Duration,
    life: Arc<Life<LeaseLoss>>,
}

impl Lease {
    fn new(client: Client, namespace: String, info: LeaseInfo, sent: Instant) -> Self {
        let life = Arc::new(Life::new(sent, Some(info.ttl), LeaseLoss::NotKeptAlive));
        client.leases.keep(keeper::Kept {
            key: (namespace.clone(), info.id.get()),
            ttl: info.ttl,
            sent,
            life: Arc::clone(&life),
        });
        Self { client, namespace, id: info.id, ttl: info.ttl, life }
    }

    /// Its id: attach keys to it, or have it kept alive elsewhere.
    pub fn id(&self) -> LeaseId {
        self.id
    }

    /// How long it lasts from each time it is kept alive.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Whether the lease still lasts, as far as can be told without asking.
    pub fn is_alive(&self) -> bool {
        self.loss().is_none()
    }

    /// How the lease was lost, if it was.
    pub fn loss(&self) -> Option<LeaseLoss> {
        self.life.loss()
    }

    /// Resolves when the lease is lost, however that is found out. It may outlive this handle.
    pub fn lost(&self) -> impl Future<Output = LeaseLoss> + Send + use<> {
        Arc::clone(&self.life).lost()
    }

    /// Ends the lease now: its keys are removed, its locks released. For this program it is [lost](Self::lost) at
    /// once, and so are the holds by it.
    ///
    /// # Errors
    /// The failures of any write. The lease is not kept alive any more all the same.
    pub async fn revoke(self) -> Result<Revoked, Error> {
        // Others may have its locks before the answer is here.
        self.life.lose(LeaseLoss::Revoked);
        let request = v1::RevokeRequest {
            namespace: self.namespace.clone(),
            lease_id: self.id.get(),
            options: None,
        };
        let response = self.client.transport.call(request, None).await?;
        Ok(Revoked::from_wire(&response))
    }

    /// Hands the lease over: it is no longer kept alive here, but lasts for up to its TTL.
    pub fn detach(self) -> LeaseId {
        self.id
    }

    pub(crate) fn life(&self) -> Arc<Life<LeaseLoss>> {
        Arc::clone(&self.life)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.client.leases.forget((self.namespace.clone(), self.id.get()), self.life());
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("loss", &self.loss())
            .finish_non_exhaustive()
    }
}

impl LeaseInfo {
    fn from_wire(lease: v1::Lease) -> Self {
        Self {
            id: LeaseId::new(lease.lease_id),
            ttl: Duration::from_millis(lease.ttl_ms),
            granted_at: Timestamp::from_millis(lease.granted_at_ms),
            expires_at: Timestamp::from_millis(lease.expires_at_ms),
            keys: lease.keys,
            locks: lease.locks,
        }
    }
}

impl Revoked {
    fn from_wire(response: &v1::RevokeResponse) -> Self {
        Self { revoked: response.revoked, keys: response.keys, locks: response.locks }
    }
}

#[cfg(test)]
mod tests;
