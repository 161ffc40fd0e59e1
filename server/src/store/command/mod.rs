//! Pure commands: from what the store holds and the time, a reply and a list of writes.
//!
//! No I/O, no clock and nothing asynchronous stands below this module. A command names what it reads; what it
//! does goes through the workspace.

mod batch;
mod kv;
mod lease;
mod lock;
mod presence;
mod settings;
mod transaction;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use kv::{Condition, Delete, DeleteRange, Expiry, Increment, Set, SetTtl};
pub use lease::{Grant, KeepAlive, Revoke, RevokeReply};
pub use lock::{
    Acquire, AcquireReply, BreakLock, Guard, HoldName, Release, Renew, UpdateLock, Wait,
};
pub use presence::Presence;
pub use settings::UpdateSettings;
pub use transaction::{
    Compare, Comparison, List, MAX_ANSWER_BYTES, Operand, Operation, OperationReply, Transaction,
};

use super::{
    error::Refusal,
    keys,
    record::{LeaseView, LockView},
    selector::Selector,
    settings::Settings,
    workspace::{Pending, Seen, Workspace},
};
use crate::backend::{Deadline, Entry, GroupStamp, Key, Revision, StoredEntry};

/// A write of one namespace.
#[derive(Debug, Clone)]
pub enum Command {
    /// Write one entry.
    Set(Set),
    /// Remove one entry.
    Delete(Delete),
    /// Change when an entry ends.
    SetTtl(SetTtl),
    /// The same, answering with the entry.
    Touch(SetTtl),
    /// Add to a number.
    Increment(Increment),
    /// Remove many entries.
    DeleteRange(DeleteRange),
    /// Write several entries; no key twice.
    BatchSet(Vec<Set>),
    /// Remove several entries; no key twice.
    BatchDelete(Vec<Key>),
    /// Compare, then act.
    Transact(Transaction),
    /// Change the settings of the namespace.
    UpdateSettings(UpdateSettings),
    /// Take a lock.
    Acquire(Box<Acquire>),
    /// Let a hold last.
    Renew(Renew),
    /// Give a hold up.
    Release(Release),
    /// Change what a lock shows.
    UpdateLock(UpdateLock),
    /// Take a lock away.
    BreakLock(BreakLock),
    /// Grant a lease.
    Grant(Grant),
    /// Keep a lease alive.
    KeepAlive(KeepAlive),
    /// End a lease.
    Revoke(Revoke),
    /// Say that a server lives.
    Presence(Presence),
    /// Remove those of these keys that are due; what is due is removed before any command that names it.
    Expire(Vec<Key>),
}

/// What a command answers. `E` is how it shows an entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Reply<E> {
    /// [`Command::Set`]
    Set(SetReply<E>),
    /// [`Command::Delete`]
    Delete(DeleteReply<E>),
    /// [`Command::SetTtl`]: whether the key was there.
    SetTtl(bool),
    /// [`Command::Touch`]: the entry after it.
    Touch(Option<E>),
    /// [`Command::Increment`]: the new value.
    Increment(i64),
    /// [`Command::DeleteRange`]
    DeleteRange(DeleteRangeReply),
    /// [`Command::BatchSet`]: the entries, without values.
    BatchSet(Vec<E>),
    /// [`Command::BatchDelete`]: whether each was there.
    BatchDelete(Vec<bool>),
    /// [`Command::Transact`]
    Transact(TransactReply<E>),
    /// [`Command::UpdateSettings`]: the settings now.
    Settings(Settings),
    /// [`Command::Acquire`]
    Acquired(AcquireReply<E>),
    /// [`Command::Renew`]: the lock after it.
    Renewed(LockReply<E>),
    /// [`Command::Release`]: whether there was something to give up.
    Released(bool),
    /// [`Command::UpdateLock`]: the lock after it.
    LockUpdated(LockReply<E>),
    /// [`Command::BreakLock`]: whether the hold was current.
    LockBroken(bool),
    /// [`Command::Grant`]: the lease.
    Granted(LeaseReply<E>),
    /// [`Command::KeepAlive`]: the lease after it.
    KeptAlive(LeaseReply<E>),
    /// [`Command::Revoke`]
    Revoked(RevokeReply),
    /// [`Command::Presence`]: whether the server lives on.
    Present(bool),
    /// [`Command::Expire`]
    Expired,
    /// A clear: how many keys were removed.
    Cleared(u64),
    /// The removal of the namespace: whether it was there.
    NamespaceDeleted(bool),
}

/// What a set did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SetReply<E> {
    /// The entry without its value.
    pub entry: E,
    /// Whether the key is new.
    pub created: bool,
    /// The entry before, if it was asked for.
    #[serde(default = "Option::default", skip_serializing_if = "Option::is_none")]
    pub previous: Option<Box<E>>,
}

/// What a delete did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DeleteReply<E> {
    /// Whether the key was there.
    pub deleted: bool,
    /// The entry before, if it was asked for.
    pub previous: Option<Box<E>>,
}

/// What a delete of many did.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct DeleteRangeReply {
    /// How many were removed.
    pub deleted: u64,
    /// Whether some that match may be left.
    pub more: bool,
}

/// What a transaction did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TransactReply<E> {
    /// Whether all compares held.
    pub succeeded: bool,
    /// Which did not.
    pub failed_compares: Vec<usize>,
    /// One reply an operation.
    pub results: Vec<OperationReply<E>>,
}

/// A lock in an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LockReply<E> {
    /// Its entry.
    pub lock: E,
    /// The entry of the lease it is held by.
    pub lease: Option<Box<E>>,
    /// How many wait for it.
    pub waiting: u32,
}

/// A lease in an answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LeaseReply<E> {
    /// Its entry.
    pub lease: E,
}

/// An entry in an answer.
#[derive(Debug, Clone)]
pub enum EntryView {
    /// As the backend holds it.
    Stored(StoredEntry),
    /// As the command wrote it. Boxed, for it is large and handed on often.
    Written(Box<(Key, Entry)>),
    /// As an answer that was given before had it, but for its value, which was too large to be kept.
    WithoutValue(Box<(Key, Entry)>),
}

impl EntryView {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Stored(stored) => stored.key(),
            Self::Written(view) | Self::WithoutValue(view) => &view.0,
        }
    }

    /// The entry.
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Stored(stored) => stored,
            Self::Written(view) | Self::WithoutValue(view) => &view.1,
        }
    }

    /// The value, unless it was left out.
    pub fn value(&self) -> Option<&Bytes> {
        match self {
            Self::Stored(_) | Self::Written(..) => Some(&self.entry().value),
            Self::WithoutValue(..) => None,
        }
    }

    /// What a command saw, once the stamps of its commit are known, up to those of the command. What it wrote and
    /// took back took no revision: it is shown at the state that the command left.
    pub(super) fn of(seen: Seen, stamps: &[GroupStamp], left: GroupStamp) -> Self {
        match seen {
            Seen::Stored(stored) => Self::Stored(stored),
            Seen::Pending(pending) => {
                let Pending { key, draft, group } = *pending;
                let stamp = stamps.get(group.0).copied().unwrap_or(left);
                Self::Written(Box::new((key, draft.stamp(stamp, stamps))))
            }
        }
    }
}

/// A part of the key space that a command reads.
#[derive(Debug, Clone)]
pub struct RangeRead {
    /// Which keys.
    pub selector: Selector,
    /// How many that match are needed.
    pub needed: usize,
    /// Those that were last changed before this revision do not match.
    pub min_mod_revision: Revision,
    /// From the last to the first.
    pub reverse: bool,
}

impl Command {
    /// The set, if it is one.
    pub fn as_set(&self) -> Option<&Set> {
        match self {
            Self::Set(set) => Some(set),
            _ => None,
        }
    }

    /// Adds the keys it reads or writes.
    pub fn add_keys(&self, keys: &mut Vec<Key>) {
        match self {
            Self::Set(set) => set.add_keys(keys),
            Self::Delete(delete) => keys.push(delete.key.clone()),
            Self::SetTtl(set_ttl) | Self::Touch(set_ttl) => set_ttl.add_keys(keys),
            Self::Increment(increment) => increment.add_keys(keys),
            Self::DeleteRange(_) | Self::UpdateSettings(_) => {}
            Self::BatchSet(items) => items.iter().for_each(|item| item.add_keys(keys)),
            Self::BatchDelete(named) => keys.extend_from_slice(named),
            Self::Transact(transaction) => transaction.add_keys(keys),
            Self::Acquire(acquire) => acquire.add_keys(keys),
            Self::Release(release) => release.add_keys(keys),
            Self::Renew(Renew { lock, .. })
            | Self::UpdateLock(UpdateLock { lock, .. })
            | Self::BreakLock(BreakLock { lock, .. }) => {
                keys.extend([lock.clone(), keys::queue(lock)]);
            }
            Self::Grant(grant) => keys.extend(grant.keys()),
            Self::KeepAlive(KeepAlive { lease }) | Self::Revoke(Revoke { lease }) => {
                keys.push(keys::lease(*lease));
            }
            Self::Presence(presence) => keys.push(presence.server.clone()),
            Self::Expire(named) => {
                let locks = named.iter().filter(|key| keys::kind(key) == Some(keys::Kind::Lock));
                keys.extend(locks.map(keys::queue));
                keys.extend_from_slice(named);
            }
        }
    }

    /// Whether it reads ranges of users' keys.
    pub fn reads_ranges(&self) -> bool {
        match self {
            Self::DeleteRange(_) => true,
            Self::Transact(transaction) => transaction.reads_ranges(),
            _ => false,
        }
    }

    /// Whether what keys hold is all that it goes by: not ranges, nor how much there is.
    pub fn goes_by_keys(&self) -> bool {
        !matches!(self, Self::UpdateSettings(_)) && !self.reads_ranges()
    }

    /// Whether it is committed alone: what it reads depends on what it finds, or may be long, so that it must not
    /// lie under what others before it write.
    pub fn goes_alone(&self) -> bool {
        matches!(self, Self::Revoke(_) | Self::Expire(_)) || self.reads_ranges()
    }

    /// The lock whose queue it may add to.
    pub fn lock_queued_for(&self) -> Option<&Key> {
        match self {
            Self::Acquire(acquire) => Some(&acquire.lock),
            _ => None,
        }
    }

    /// The lock whose hold it may end.
    pub fn lock_freed(&self) -> Option<&Key> {
        match self {
            Self::Release(release) => Some(release.lock()),
            Self::BreakLock(BreakLock { lock, .. }) => Some(lock),
            _ => None,
        }
    }

    /// The ranges it reads, in the order in which it asks the workspace for them.
    pub fn ranges(&self) -> Vec<RangeRead> {
        match self {
            Self::DeleteRange(delete) => vec![delete.range_read()],
            Self::Transact(transaction) => transaction.ranges(),
            _ => Vec::new(),
        }
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Set(set) => set.bytes(),
            Self::Delete(Delete { key, .. })
            | Self::SetTtl(SetTtl { key, .. })
            | Self::Touch(SetTtl { key, .. })
            | Self::Increment(Increment { key, .. }) => key.as_bytes().len(),
            Self::DeleteRange(delete) => delete.selector.bytes(),
            Self::BatchSet(items) => items.iter().map(Set::bytes).sum(),
            Self::BatchDelete(keys) | Self::Expire(keys) => {
                keys.iter().map(|key| key.as_bytes().len()).sum()
            }
            Self::Transact(transaction) => transaction.bytes(),
            Self::Acquire(acquire) => acquire.bytes(),
            Self::UpdateLock(UpdateLock { lock, value, .. }) => lock.as_bytes().len() + value.len(),
            Self::Renew(Renew { lock, .. }) => lock.as_bytes().len(),
            Self::Release(release) => release.lock().as_bytes().len(),
            Self::BreakLock(BreakLock { lock, reason, .. }) => lock.as_bytes().len() + reason.len(),
            Self::UpdateSettings(_)
            | Self::Grant(_)
            | Self::KeepAlive(_)
            | Self::Revoke(_)
            | Self::Presence(_) => 0,
        }
    }

    /// Runs it.
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<Reply<Seen>, Refusal<Seen>> {
        Ok(match self {
            Self::Set(set) => Reply::Set(set.run(workspace)?),
            Self::Delete(delete) => Reply::Delete(delete.run(workspace)?),
            Self::SetTtl(set_ttl) => Reply::SetTtl(set_ttl.run(workspace)?.is_some()),
            Self::Touch(set_ttl) => Reply::Touch(set_ttl.run(workspace)?),
            Self::Increment(increment) => Reply::Increment(increment.run(workspace)?),
            Self::DeleteRange(delete) => {
                let spared_until_ms = workspace.spared_until_ms();
                Reply::DeleteRange(delete.run(workspace, 0, spared_until_ms))
            }
            Self::BatchSet(items) => Reply::BatchSet(batch::set(items, workspace)?),
            Self::BatchDelete(keys) => Reply::BatchDelete(batch::delete(keys, workspace)),
            Self::Transact(transaction) => Reply::Transact(transaction.run(workspace)?),
            Self::UpdateSettings(update) => Reply::Settings(update.run(workspace)),
            Self::Acquire(acquire) => Reply::Acquired(acquire.run(workspace)?),
            Self::Renew(renew) => Reply::Renewed(renew.run(workspace)?),
            Self::Release(release) => Reply::Released(release.run(workspace)),
            Self::UpdateLock(update) => Reply::LockUpdated(update.run(workspace)?),
            Self::BreakLock(break_lock) => Reply::LockBroken(break_lock.run(workspace)),
            Self::Grant(grant) => Reply::Granted(grant.run(workspace)?),
            Self::KeepAlive(keep_alive) => Reply::KeptAlive(keep_alive.run(workspace)?),
            Self::Revoke(revoke) => Reply::Revoked(revoke.run(workspace)),
            Self::Presence(presence) => Reply::Present(presence.run(workspace)),
            Self::Expire(_) => Reply::Expired,
        })
    }
}

impl<E> Reply<E> {
    /// The same with entries shown in another way.
    pub fn map<T>(self, show: &impl Fn(E) -> T) -> Reply<T> {
        match self {
            Self::Set(reply) => Reply::Set(reply.map(show)),
            Self::Delete(reply) => Reply::Delete(reply.map(show)),
            Self::SetTtl(found) => Reply::SetTtl(found),
            Self::Touch(entry) => Reply::Touch(entry.map(show)),
            Self::Increment(value) => Reply::Increment(value),
            Self::DeleteRange(reply) => Reply::DeleteRange(reply),
            Self::BatchSet(entries) => Reply::BatchSet(entries.into_iter().map(show).collect()),
            Self::BatchDelete(deleted) => Reply::BatchDelete(deleted),
            Self::Transact(reply) => Reply::Transact(TransactReply {
                succeeded: reply.succeeded,
                failed_compares: reply.failed_compares,
                results: reply.results.into_iter().map(|result| result.map(show)).collect(),
            }),
            Self::Settings(settings) => Reply::Settings(settings),
            Self::Acquired(reply) => Reply::Acquired(reply.map(show)),
            Self::Renewed(reply) => Reply::Renewed(reply.map(show)),
            Self::Released(released) => Reply::Released(released),
            Self::LockUpdated(reply) => Reply::LockUpdated(reply.map(show)),
            Self::LockBroken(broken) => Reply::LockBroken(broken),
            Self::Granted(reply) => Reply::Granted(reply.map(show)),
            Self::KeptAlive(reply) => Reply::KeptAlive(reply.map(show)),
            Self::Revoked(reply) => Reply::Revoked(reply),
            Self::Present(present) => Reply::Present(present),
            Self::Expired => Reply::Expired,
            Self::Cleared(count) => Reply::Cleared(count),
            Self::NamespaceDeleted(deleted) => Reply::NamespaceDeleted(deleted),
        }
    }
}

impl<E> LockReply<E> {
    fn map<T>(self, show: &impl Fn(E) -> T) -> LockReply<T> {
        LockReply {
            lock: show(self.lock),
            lease: self.lease.map(|lease| Box::new(show(*lease))),
            waiting: self.waiting,
        }
    }
}

impl LockReply<EntryView> {
    /// The lock; `None` only if its record cannot be read.
    pub fn view(&self) -> Option<LockView> {
        let ends_ms = self.lease.as_ref().and_then(|lease| match lease.entry().deadline {
            Deadline::At(at_ms) => Some(at_ms),
            Deadline::Never | Deadline::Of(_) => None,
        });
        LockView::of(self.lock.key(), self.lock.entry(), ends_ms, self.waiting)
    }
}

impl<E> LeaseReply<E> {
    fn map<T>(self, show: &impl Fn(E) -> T) -> LeaseReply<T> {
        LeaseReply { lease: show(self.lease) }
    }
}

impl LeaseReply<EntryView> {
    /// The lease; `None` only if its record cannot be read.
    pub fn view(&self) -> Option<LeaseView> {
        LeaseView::of(self.lease.key(), self.lease.entry(), Revision(0))
    }
}

impl<E> SetReply<E> {
    fn map<T>(self, show: &impl Fn(E) -> T) -> SetReply<T> {
        SetReply {
            entry: show(self.entry),
            created: self.created,
            previous: self.previous.map(|previous| Box::new(show(*previous))),
        }
    }
}

impl<E> DeleteReply<E> {
    fn map<T>(self, show: &impl Fn(E) -> T) -> DeleteReply<T> {
        let previous = self.previous.map(|previous| Box::new(show(*previous)));
        DeleteReply { deleted: self.deleted, previous }
    }
}
