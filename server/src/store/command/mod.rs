//! Pure commands: from what the store holds and the time, a reply and a list of writes.
//!
//! No I/O, no clock and nothing asynchronous stands below this module. A command names what it reads; what it
//! does goes through the workspace.

mod batch;
mod kv;
mod settings;
mod transaction;

use bytes::Bytes;

pub use kv::{Condition, Delete, DeleteRange, Expiry, Increment, Set, SetTtl};
pub use settings::UpdateSettings;
pub use transaction::{
    Compare, Comparison, List, MAX_ANSWER_BYTES, Operand, Operation, OperationReply, Transaction,
};

use super::{
    error::Refusal,
    selector::Selector,
    settings::Settings,
    workspace::{Seen, Workspace},
};
use crate::backend::{Entry, GroupStamp, Key, Revision, StoredEntry};

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
    /// Remove those of these keys that are due; what is due is removed before any command that names it.
    Expire(Vec<Key>),
}

/// What a command answers. `E` is how it shows an entry.
#[derive(Debug, Clone)]
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
    /// [`Command::Expire`]
    Expired,
    /// A clear: how many keys were removed.
    Cleared(u64),
    /// The removal of the namespace: whether it was there.
    NamespaceDeleted(bool),
}

/// What a set did.
#[derive(Debug, Clone)]
pub struct SetReply<E> {
    /// The entry without its value.
    pub entry: E,
    /// Whether the key is new.
    pub created: bool,
    /// The entry before, if it was asked for.
    pub previous: Option<Box<E>>,
}

/// What a delete did.
#[derive(Debug, Clone)]
pub struct DeleteReply<E> {
    /// Whether the key was there.
    pub deleted: bool,
    /// The entry before, if it was asked for.
    pub previous: Option<Box<E>>,
}

/// What a delete of many did.
#[derive(Debug, Clone, Copy)]
pub struct DeleteRangeReply {
    /// How many were removed.
    pub deleted: u64,
    /// Whether some that match may be left.
    pub more: bool,
}

/// What a transaction did.
#[derive(Debug, Clone)]
pub struct TransactReply<E> {
    /// Whether all compares held.
    pub succeeded: bool,
    /// Which did not.
    pub failed_compares: Vec<usize>,
    /// One reply an operation.
    pub results: Vec<OperationReply<E>>,
}

/// An entry in an answer.
#[derive(Debug, Clone)]
pub enum EntryView {
    /// As the backend holds it.
    Stored(StoredEntry),
    /// As the command wrote it.
    Written(Key, Entry),
}

impl EntryView {
    /// The key.
    pub fn key(&self) -> &Key {
        match self {
            Self::Stored(stored) => stored.key(),
            Self::Written(key, _) => key,
        }
    }

    /// The entry.
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Stored(stored) => stored,
            Self::Written(_, entry) => entry,
        }
    }

    /// What a command saw, once the stamps of its commit are known, up to those of the command. What it wrote and
    /// took back took no revision: it is shown at the state that the command left.
    pub(super) fn of(seen: Seen, stamps: &[GroupStamp], left: GroupStamp) -> Self {
        match seen {
            Seen::Stored(stored) => Self::Stored(stored),
            Seen::Pending { key, draft, group } => {
                let stamp = stamps.get(group.0).copied().unwrap_or(left);
                Self::Written(key, draft.stamp(stamp, stamps))
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
    /// Adds the keys it reads or writes.
    pub fn add_keys(&self, keys: &mut Vec<Key>) {
        match self {
            Self::Set(set) => keys.push(set.key.clone()),
            Self::Delete(delete) => keys.push(delete.key.clone()),
            Self::SetTtl(set_ttl) | Self::Touch(set_ttl) => keys.push(set_ttl.key.clone()),
            Self::Increment(increment) => keys.push(increment.key.clone()),
            Self::DeleteRange(_) | Self::UpdateSettings(_) => {}
            Self::BatchSet(items) => keys.extend(items.iter().map(|item| item.key.clone())),
            Self::BatchDelete(named) | Self::Expire(named) => keys.extend_from_slice(named),
            Self::Transact(transaction) => keys.extend(transaction.keys().cloned()),
        }
    }

    /// Whether it reads ranges.
    pub fn reads_ranges(&self) -> bool {
        match self {
            Self::DeleteRange(_) => true,
            Self::Transact(transaction) => transaction.reads_ranges(),
            _ => false,
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
            Self::UpdateSettings(_) => 0,
        }
    }

    /// Runs it.
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<Reply<Seen>, Refusal<Seen>> {
        Ok(match self {
            Self::Set(set) => Reply::Set(set.run(workspace)?),
            Self::Delete(delete) => Reply::Delete(delete.run(workspace)?),
            Self::SetTtl(set_ttl) => Reply::SetTtl(set_ttl.run(workspace).is_some()),
            Self::Touch(set_ttl) => Reply::Touch(set_ttl.run(workspace)),
            Self::Increment(increment) => Reply::Increment(increment.run(workspace)?),
            Self::DeleteRange(delete) => {
                let spared_until_ms = workspace.spared_until_ms();
                Reply::DeleteRange(delete.run(workspace, 0, spared_until_ms))
            }
            Self::BatchSet(items) => Reply::BatchSet(batch::set(items, workspace)?),
            Self::BatchDelete(keys) => Reply::BatchDelete(batch::delete(keys, workspace)),
            Self::Transact(transaction) => Reply::Transact(transaction.run(workspace)?),
            Self::UpdateSettings(update) => Reply::Settings(update.run(workspace)),
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
            Self::Expired => Reply::Expired,
            Self::Cleared(count) => Reply::Cleared(count),
            Self::NamespaceDeleted(deleted) => Reply::NamespaceDeleted(deleted),
        }
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

/// Content type of numbers.
const TEXT_PLAIN: Bytes = Bytes::from_static(b"text/plain");
