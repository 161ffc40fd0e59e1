//! Commands on locks.
//!
//! Invariant: where somebody whose server lives waits for a lock, somebody holds it: whatever ends a hold passes the
//! lock on in the same commit, in the next revision.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::LockReply;
use crate::{
    backend::{Key, Revision},
    store::{
        error::Refusal,
        keys,
        record::{Hold, HoldDuration, LossCause, Owner, Past},
        workspace::{Seen, Workspace},
    },
};

/// Most callers that wait for one lock.
const MAX_WAITING: u32 = 10_000;

/// Whether to wait.
#[derive(Debug, Clone)]
pub enum Wait {
    /// Not at all.
    No,
    /// Not yet: this call will, unless the lock is had at once.
    NotYet {
        /// Tells the call from others with the same acquire id.
        call: u64,
    },
    /// In the queue.
    Queue {
        /// The key that says that the server of the waiting call lives.
        server: Key,
        /// The call.
        call: u64,
        /// Whether it asks for the first time: then place and hold are its own from now on, and no longer those of
        /// another call with the same acquire id, which may have gone.
        is_first: bool,
    },
    /// This call no longer does: unless the lock is had now, its place is given up.
    NoLonger {
        /// The call.
        call: u64,
    },
}

/// Takes a lock, or a place in its queue.
#[derive(Debug, Clone)]
pub struct Acquire {
    /// The lock.
    pub lock: Key,
    /// Chosen once for each attempt to get the lock.
    pub acquire_id: [u8; 16],
    /// Who asks.
    pub owner: Owner,
    /// What to show.
    pub value: Bytes,
    /// How long the hold lasts.
    pub duration: HoldDuration,
    /// Whether to wait.
    pub wait: Wait,
    /// Hold a lock that had to be waited for only shortly, until it is renewed.
    pub renew_to_keep: bool,
}

/// What came of it. `E` is how it shows an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum AcquireReply<E> {
    /// It holds the lock.
    Granted(LockReply<E>),
    /// Another does.
    Held(LockReply<E>),
    /// It has a place in the queue.
    Queued,
    /// It has none, for its server is not known to live.
    Unattended,
}

/// Lets a hold last its TTL from now.
#[derive(Debug, Clone)]
pub struct Renew {
    /// The lock.
    pub lock: Key,
    /// The token of the hold.
    pub token: Revision,
    /// A new TTL.
    pub ttl_ms: Option<u64>,
}

/// How a hold is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldName {
    /// By its token.
    Token(Revision),
    /// By what it was asked for with.
    AcquireId([u8; 16]),
    /// By the call it was granted to, or waits by, unless it was renewed since.
    Call([u8; 16], u64),
    /// By what it was asked for with, but only a place in the queue that ends with this sign of life of a server.
    Place([u8; 16], Key),
}

/// Gives a hold up, or a place in the queue.
#[derive(Debug, Clone)]
pub struct Release {
    lock: Key,
    hold: HoldName,
}

/// Changes what a lock shows.
#[derive(Debug, Clone)]
pub struct UpdateLock {
    /// The lock.
    pub lock: Key,
    /// The token of the hold.
    pub token: Revision,
    /// What to show.
    pub value: Bytes,
}

/// Takes a lock away.
#[derive(Debug, Clone)]
pub struct BreakLock {
    /// The lock.
    pub lock: Key,
    /// The token of the hold.
    pub token: Revision,
    /// Why.
    pub reason: String,
}

/// A lock that must be held for a write to be applied.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The lock.
    pub lock: Key,
    /// The token of the hold.
    pub token: Revision,
}

impl Guard {
    /// Refuses where the hold is not current.
    pub fn check(&self, workspace: &mut Workspace) -> Result<(), Refusal<Seen>> {
        workspace.hold_of(&self.lock, self.token).map(|_| ())
    }
}

impl Acquire {
    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.extend([
            self.lock.clone(),
            keys::queue(&self.lock),
            keys::wait(&self.lock, &self.acquire_id),
        ]);
        if let HoldDuration::Lease(lease) = self.duration {
            keys.push(keys::lease(lease));
        }
        if let Wait::Queue { server, .. } = &self.wait {
            keys.push(server.clone());
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let Owner { id, who, reason, operation, client_version } = &self.owner;
        let texts = [id, who, reason, operation, client_version].map(String::len);
        self.lock.as_bytes().len() + texts.iter().sum::<usize>() + self.value.len()
    }

    pub(super) fn run(
        &self,
        workspace: &mut Workspace,
    ) -> Result<AcquireReply<Seen>, Refusal<Seen>> {
        if let HoldDuration::Lease(lease) = self.duration {
            workspace.lease(lease)?;
        }
        let (lock, duration) = match workspace.hold_or_past(&self.lock) {
            Err(before) => {
                let hold = Hold { before, ..self.hold() };
                (workspace.grant_lock(&self.lock, hold), self.duration)
            }
            Ok((lock, hold)) if hold.acquire_id.as_bytes() == &self.acquire_id => {
                let duration = hold.duration;
                (self.take(lock, hold, workspace), duration)
            }
            Ok((lock, hold)) => return self.wait(lock, hold.duration, workspace),
        };
        Ok(AcquireReply::Granted(workspace.lock_reply(&self.lock, lock, duration)))
    }

    /// The hold that it has already, unchanged; but one that was only offered to it as the first of the queue is
    /// taken, unless a renewal is to do that.
    fn take(&self, lock: Seen, mut hold: Hold, workspace: &mut Workspace) -> Seen {
        if hold.call != self.call() && !self.takes_over() {
            return lock;
        }
        let is_taken = hold.is_offered && !self.renew_to_keep;
        let is_same = hold.call == self.call();
        hold.call = self.call();
        match (is_taken, is_same) {
            (true, _) => {
                hold.is_offered = false;
                workspace.renew_hold(&self.lock, &lock, hold)
            }
            (false, false) => workspace.keep_hold(&self.lock, &lock, hold),
            (false, true) => lock,
        }
    }

    /// Whether what another call with the same acquire id has is this one's from now on.
    fn takes_over(&self) -> bool {
        match self.wait {
            Wait::No | Wait::NotYet { .. } => true,
            Wait::Queue { is_first, .. } => is_first,
            Wait::NoLonger { .. } => false,
        }
    }

    fn wait(
        &self,
        lock: Seen,
        duration: HoldDuration,
        workspace: &mut Workspace,
    ) -> Result<AcquireReply<Seen>, Refusal<Seen>> {
        match &self.wait {
            Wait::No | Wait::NotYet { .. } => {}
            Wait::Queue { server, .. } if workspace.get(server).is_none() => {
                return Ok(AcquireReply::Unattended);
            }
            Wait::Queue { server, is_first, .. } => {
                let limit = MAX_WAITING;
                if !workspace.queue_up(&self.lock, self.hold(), server, *is_first, limit) {
                    return Err(Refusal::TooManyWaiters { limit: limit.into() });
                }
                return Ok(AcquireReply::Queued);
            }
            Wait::NoLonger { call } => {
                workspace.leave_queue(&self.lock, &self.acquire_id, Some(*call));
            }
        }
        Ok(AcquireReply::Held(workspace.lock_reply(&self.lock, lock, duration)))
    }

    fn hold(&self) -> Hold {
        Hold {
            acquire_id: Uuid::from_bytes(self.acquire_id),
            owner: self.owner.clone(),
            value: self.value.clone(),
            duration: self.duration,
            call: self.call(),
            is_offered: false,
            before: Past::default(),
        }
    }

    fn call(&self) -> Option<u64> {
        match self.wait {
            Wait::No => None,
            Wait::NotYet { call } | Wait::Queue { call, .. } | Wait::NoLonger { call } => {
                Some(call)
            }
        }
    }
}

impl Renew {
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<LockReply<Seen>, Refusal<Seen>> {
        let (lock, mut hold) = workspace.hold_of(&self.lock, self.token)?;
        if let HoldDuration::Lease(lease) = hold.duration
            && workspace.lease(lease).is_err()
        {
            let (lock, token) = (self.lock.clone(), self.token);
            return Err(Refusal::LockLost { lock, token, cause: LossCause::LeaseExpired });
        }
        (hold.call, hold.is_offered) = (None, false);
        if let (HoldDuration::Ttl(ttl_ms), Some(new)) = (&mut hold.duration, self.ttl_ms) {
            *ttl_ms = new;
        }
        let duration = hold.duration;
        let lock = workspace.renew_hold(&self.lock, &lock, hold);
        Ok(workspace.lock_reply(&self.lock, lock, duration))
    }
}

impl Release {
    /// Gives up a hold of a lock.
    pub fn new(lock: Key, hold: HoldName) -> Self {
        Self { lock, hold }
    }

    /// The lock.
    pub fn lock(&self) -> &Key {
        &self.lock
    }

    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.extend([self.lock.clone(), keys::queue(&self.lock)]);
        match &self.hold {
            HoldName::Token(_) => {}
            HoldName::AcquireId(id) | HoldName::Call(id, _) | HoldName::Place(id, _) => {
                keys.push(keys::wait(&self.lock, id));
            }
        }
    }

    pub(super) fn run(&self, workspace: &mut Workspace) -> bool {
        let cause = match self.hold {
            HoldName::Token(_) | HoldName::AcquireId(_) => LossCause::Released,
            HoldName::Call(..) | HoldName::Place(..) => LossCause::Abandoned,
        };
        if let Some((lock, hold)) = workspace.hold(&self.lock)
            && self.names(&lock, &hold, workspace)
        {
            workspace.end_hold(&self.lock, &lock, hold, cause);
            return true;
        }
        match &self.hold {
            HoldName::Token(_) => false,
            HoldName::AcquireId(id) => workspace.leave_queue(&self.lock, id, None),
            HoldName::Call(id, call) => workspace.leave_queue(&self.lock, id, Some(*call)),
            HoldName::Place(id, server) => workspace.leave_queue_at(&self.lock, id, server),
        }
    }

    fn names(&self, lock: &Seen, hold: &Hold, workspace: &mut Workspace) -> bool {
        match &self.hold {
            HoldName::Token(token) => workspace.create_revision(lock, *token) == *token,
            HoldName::AcquireId(id) => hold.acquire_id.as_bytes() == id,
            HoldName::Call(id, call) => {
                hold.acquire_id.as_bytes() == id && hold.call == Some(*call)
            }
            HoldName::Place(..) => false,
        }
    }
}

impl UpdateLock {
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<LockReply<Seen>, Refusal<Seen>> {
        let (lock, mut hold) = workspace.hold_of(&self.lock, self.token)?;
        hold.value = self.value.clone();
        let duration = hold.duration;
        let lock = workspace.change_hold(&self.lock, &lock, hold);
        Ok(workspace.lock_reply(&self.lock, lock, duration))
    }
}

impl BreakLock {
    pub(super) fn run(&self, workspace: &mut Workspace) -> bool {
        let Ok((lock, hold)) = workspace.hold_of(&self.lock, self.token) else {
            return false;
        };
        let cause = LossCause::Broken { reason: self.reason.clone() };
        workspace.end_hold(&self.lock, &lock, hold, cause);
        true
    }
}

impl<E> AcquireReply<E> {
    pub(super) fn map<T>(self, show: &impl Fn(E) -> T) -> AcquireReply<T> {
        match self {
            Self::Granted(lock) => AcquireReply::Granted(lock.map(show)),
            Self::Held(lock) => AcquireReply::Held(lock.map(show)),
            Self::Queued => AcquireReply::Queued,
            Self::Unattended => AcquireReply::Unattended,
        }
    }
}
