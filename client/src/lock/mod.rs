//! Locks: to have them, to look at them, to follow them.

mod acquire;
mod calls;
mod guard;
mod info;
mod watch;

use holdfast_proto::v1;

use crate::{Codec, Namespace, Token};
pub use acquire::{AcquireLock, Acquired};
pub use calls::{BreakLock, GetLock, ListLocks, ReleaseLock};
pub use guard::LockGuard;
pub use info::{Guard, LockInfo, LockLoss, LockOwner};
pub use watch::{LockChange, LockEvent, LockItem, LockStream, WatchLocks};

/// Locks have a name of their own in the namespace, apart from its keys, and at most one holder.
impl<C: Codec> Namespace<C> {
    /// Asks for a lock: end it with [`acquire`](AcquireLock::acquire) or
    /// [`try_acquire`](AcquireLock::try_acquire). Names have 1 to 1,024 bytes.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// let jobs = client.namespace("jobs");
    /// let hold = jobs.lock("nightly").ttl(Duration::from_secs(10)).acquire().await?;
    /// // Applied only while the lock is still held, whatever this program believes.
    /// jobs.set("report", "done").guard(&hold).await?;
    /// hold.release().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn lock(&self, name: impl Into<String>) -> AcquireLock {
        AcquireLock::new(self.pending(v1::AcquireRequest {
            namespace: self.namespace(),
            name: name.into(),
            ..Default::default()
        }))
    }

    /// Tells who holds a lock; `None` if nobody does.
    pub fn get_lock(&self, name: impl Into<String>) -> GetLock {
        GetLock {
            call: self
                .pending(v1::GetLockRequest { namespace: self.namespace(), name: name.into() }),
        }
    }

    /// Lists the locks that are held and whose names begin with this, in order of their names; all with an
    /// empty prefix.
    pub fn list_locks(&self, prefix: impl Into<String>) -> ListLocks {
        ListLocks {
            call: self.pending(v1::ListLocksRequest {
                namespace: self.namespace(),
                prefix: prefix.into(),
                ..Default::default()
            }),
        }
    }

    /// Takes a lock away from its holder, whose token has to be shown, so that nobody is thrown out who came
    /// later. Who waits first gets it. The holder is told the reason, at most 1,024 bytes. Answers whether that
    /// token was current.
    pub fn break_lock(
        &self,
        name: impl Into<String>,
        token: impl Into<Token>,
        reason: impl Into<String>,
    ) -> BreakLock {
        BreakLock {
            call: self.pending(v1::BreakLockRequest {
                namespace: self.namespace(),
                name: name.into(),
                token: token.into().get(),
                reason: reason.into(),
                options: None,
            }),
        }
    }

    /// Gives a hold up by its token. Answers whether that was current; if not, nobody's hold was touched.
    pub fn release_lock(&self, name: impl Into<String>, token: impl Into<Token>) -> ReleaseLock {
        ReleaseLock {
            call: self.pending(v1::ReleaseRequest {
                namespace: self.namespace(),
                name: name.into(),
                hold: Some(v1::release_request::Hold::Token(token.into().get())),
                options: None,
            }),
        }
    }

    /// Follows what becomes of a lock.
    pub fn watch_lock(&self, name: impl Into<String>) -> WatchLocks {
        WatchLocks::new(self, v1::watch_locks_request::Locks::Name(name.into()))
    }

    /// Follows what becomes of the locks whose names begin with this; of all with an empty prefix.
    pub fn watch_locks(&self, prefix: impl Into<String>) -> WatchLocks {
        WatchLocks::new(self, v1::watch_locks_request::Locks::Prefix(prefix.into()))
    }
}

#[cfg(test)]
mod tests;
