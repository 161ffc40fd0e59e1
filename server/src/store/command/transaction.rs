//! Compare, then act.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    Delete, DeleteRange, DeleteRangeReply, DeleteReply, Increment, RangeRead, Set, SetReply,
    SetTtl, TransactReply,
};
use crate::{
    backend::{Key, Revision},
    store::{
        error::Refusal,
        keys,
        selector::Selector,
        workspace::{MAX_REVISION_KEYS, Seen, Workspace},
    },
};

/// About the most bytes that an answer has: 4 MiB are what clients of other languages receive, less some room for
/// what surrounds the entries.
pub const MAX_ANSWER_BYTES: usize = (4 << 20) - (64 << 10);

/// How to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// Equals.
    Equal,
    /// Differs; the only one that is true of what is absent.
    NotEqual,
    /// Is less.
    Less,
    /// Is greater.
    Greater,
}

/// With what to compare.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operand {
    /// Whether the key exists.
    Exists(bool),
    /// The entry's version.
    Version(u64),
    /// The revision that created it.
    CreateRevision(Revision),
    /// The revision of its last change.
    ModRevision(Revision),
    /// Its value.
    Value(Bytes),
    /// The lease it is attached to; 0: none.
    Lease(u64),
    /// The token of the lock that the key is.
    LockToken(Revision),
}

/// One thing that must hold.
#[derive(Debug, Clone)]
pub struct Compare {
    /// The key.
    pub key: Key,
    /// How.
    pub comparison: Comparison,
    /// With what.
    pub operand: Operand,
}

/// Lists entries within a transaction.
#[derive(Debug, Clone)]
pub struct List {
    /// Which.
    pub selector: Selector,
    /// How many at the most.
    pub limit: usize,
    /// From the last key to the first.
    pub reverse: bool,
    /// Only entries changed at this revision or later.
    pub min_mod_revision: Revision,
    /// Leave out the values.
    pub keys_only: bool,
}

/// One step.
#[derive(Debug, Clone)]
pub enum Operation {
    /// Read an entry.
    Get(Key),
    /// Write an entry.
    Set(Set),
    /// Remove an entry.
    Delete(Delete),
    /// Remove many.
    DeleteRange(DeleteRange),
    /// Change when an entry ends.
    SetTtl(SetTtl),
    /// Add to a number.
    Increment(Increment),
    /// List entries.
    List(List),
}

/// What one step found or did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum OperationReply<E> {
    /// [`Operation::Get`]
    Get(Option<E>),
    /// [`Operation::Set`]
    Set(SetReply<E>),
    /// [`Operation::Delete`]
    Delete(DeleteReply<E>),
    /// [`Operation::DeleteRange`]
    DeleteRange(DeleteRangeReply),
    /// [`Operation::SetTtl`]: whether the key was there.
    SetTtl(bool),
    /// [`Operation::Increment`]: the new value.
    Increment(i64),
    /// [`Operation::List`]
    List {
        /// The entries.
        entries: Vec<E>,
        /// Whether more may match.
        more: bool,
        /// Whether the values are to be left out.
        keys_only: bool,
    },
}

/// A transaction.
#[derive(Debug, Clone)]
pub struct Transaction {
    /// What must hold.
    pub compares: Vec<Compare>,
    /// What to do then.
    pub then: Vec<Operation>,
    /// What to do otherwise.
    pub otherwise: Vec<Operation>,
}

impl Transaction {
    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        for compare in &self.compares {
            keys.push(compare.key.clone());
            if matches!(compare.operand, Operand::LockToken(_)) {
                keys.push(keys::queue(&compare.key));
            }
        }
        for operation in self.operations() {
            operation.add_keys(keys);
        }
    }

    pub(super) fn reads_ranges(&self) -> bool {
        self.operations().any(|operation| operation.range_read().is_some())
    }

    /// The ranges of both branches, those of `then` first.
    pub(super) fn ranges(&self) -> Vec<RangeRead> {
        let mut ranges = branch_ranges(&self.then);
        ranges.extend(branch_ranges(&self.otherwise));
        ranges
    }

    pub(super) fn bytes(&self) -> usize {
        let compares: usize = self.compares.iter().map(Compare::bytes).sum();
        compares + self.operations().map(Operation::bytes).sum::<usize>()
    }

    pub(super) fn run(
        &self,
        workspace: &mut Workspace,
    ) -> Result<TransactReply<Seen>, Refusal<Seen>> {
        let failed_compares: Vec<usize> = (0..self.compares.len())
            .filter(|index| !self.compares[*index].holds(workspace))
            .collect();
        let succeeded = failed_compares.is_empty();
        let (branch, operations, mut range) = if succeeded {
            ("then", &self.then, 0)
        } else {
            ("otherwise", &self.otherwise, branch_ranges(&self.then).len())
        };
        let mut results = Vec::with_capacity(operations.len());
        let mut answer = AnswerSize::default();
        for (index, operation) in operations.iter().enumerate() {
            let result = operation
                .run(workspace, range)
                .and_then(|result| workspace.check_size().map(|()| result))
                .and_then(|result| answer.add(&result).map(|()| result));
            let in_operation =
                |refusal| Refusal::Operation { branch, index, refusal: Box::new(refusal) };
            results.push(result.map_err(in_operation)?);
            range += usize::from(operation.range_read().is_some());
        }
        Ok(TransactReply { succeeded, failed_compares, results })
    }

    fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.then.iter().chain(&self.otherwise)
    }
}

/// What earlier operations of the branch may remove is needed on top, so that later ones still find enough.
fn branch_ranges(operations: &[Operation]) -> Vec<RangeRead> {
    let mut removed_before = 0;
    let mut ranges = Vec::new();
    for operation in operations {
        if let Some(mut range) = operation.range_read() {
            range.needed += removed_before.min(MAX_REVISION_KEYS);
            ranges.push(range);
        }
        removed_before += match operation {
            Operation::Delete(_) => 1,
            Operation::DeleteRange(delete) => delete.limit,
            _ => 0,
        };
    }
    ranges
}

impl Compare {
    fn bytes(&self) -> usize {
        let value = match &self.operand {
            Operand::Value(value) => value.len(),
            _ => 0,
        };
        self.key.as_bytes().len() + value
    }

    fn holds(&self, workspace: &mut Workspace) -> bool {
        let found = workspace.get(&self.key);
        let ordering = match (&self.operand, &found) {
            (Operand::Exists(expected), found) => Some(found.is_some().cmp(expected)),
            (_, None) => None,
            (Operand::Version(expected), Some(found)) => Some(found.version().cmp(expected)),
            (Operand::CreateRevision(expected), Some(found)) => {
                Some(workspace.create_revision(found, *expected).cmp(expected))
            }
            (Operand::ModRevision(expected), Some(found)) => {
                Some(workspace.mod_revision(found, *expected).cmp(expected))
            }
            (Operand::Value(expected), Some(found)) => Some(found.value().cmp(expected)),
            (Operand::Lease(expected), Some(found)) => {
                let lease = found.reference().and_then(keys::lease_id);
                Some(lease.unwrap_or_default().cmp(expected))
            }
            (Operand::LockToken(expected), Some(_)) => {
                let hold = workspace.hold(&self.key);
                hold.map(|(lock, _)| workspace.create_revision(&lock, *expected).cmp(expected))
            }
        };
        match self.comparison {
            Comparison::Equal => ordering.is_some_and(|ordering| ordering.is_eq()),
            Comparison::NotEqual => ordering.is_none_or(|ordering| ordering.is_ne()),
            Comparison::Less => ordering.is_some_and(|ordering| ordering.is_lt()),
            Comparison::Greater => ordering.is_some_and(|ordering| ordering.is_gt()),
        }
    }
}

impl Operation {
    fn key(&self) -> Option<&Key> {
        match self {
            Self::Get(key) => Some(key),
            Self::Set(set) => Some(&set.key),
            Self::Delete(delete) => Some(&delete.key),
            Self::SetTtl(set_ttl) => Some(&set_ttl.key),
            Self::Increment(increment) => Some(&increment.key),
            Self::DeleteRange(_) | Self::List(_) => None,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Set(set) => set.bytes(),
            Self::DeleteRange(delete) => delete.selector.bytes(),
            Self::List(list) => list.selector.bytes(),
            _ => self.key().map_or(0, |key| key.as_bytes().len()),
        }
    }

    fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.extend(self.key().cloned());
        let expiry = match self {
            Self::Set(set) => set.expiry,
            Self::SetTtl(set_ttl) => set_ttl.expiry,
            Self::Increment(increment) => increment.expiry,
            Self::Get(_) | Self::Delete(_) | Self::DeleteRange(_) | Self::List(_) => return,
        };
        keys.extend(expiry.lease());
    }

    fn range_read(&self) -> Option<RangeRead> {
        match self {
            Self::DeleteRange(delete) => Some(delete.range_read()),
            Self::List(list) => Some(RangeRead {
                selector: list.selector.clone(),
                needed: list.limit,
                min_mod_revision: list.min_mod_revision,
                reverse: list.reverse,
            }),
            _ => None,
        }
    }

    fn run(
        &self,
        workspace: &mut Workspace,
        range: usize,
    ) -> Result<OperationReply<Seen>, Refusal<Seen>> {
        Ok(match self {
            Self::Get(key) => OperationReply::Get(workspace.get(key)),
            Self::Set(set) => OperationReply::Set(set.run(workspace)?),
            Self::Delete(delete) => OperationReply::Delete(delete.run(workspace)?),
            Self::DeleteRange(delete) => {
                OperationReply::DeleteRange(delete.run(workspace, range, None))
            }
            Self::SetTtl(set_ttl) => OperationReply::SetTtl(set_ttl.run(workspace)?.is_some()),
            Self::Increment(increment) => OperationReply::Increment(increment.run(workspace)?),
            Self::List(list) => list.run(workspace, range),
        })
    }
}

impl List {
    fn run(&self, workspace: &mut Workspace, range: usize) -> OperationReply<Seen> {
        let recent = |entry: &Seen| match entry {
            Seen::Stored(stored) => stored.mod_revision >= self.min_mod_revision,
            // What is being written is newer than any revision that could be asked for.
            Seen::Pending(_) => true,
        };
        let (entries, more) = workspace.entries(range, self.limit, recent);
        OperationReply::List { entries, more, keys_only: self.keys_only }
    }
}

impl<E> OperationReply<E> {
    /// The same with entries shown in another way.
    pub(super) fn map<T>(self, show: &impl Fn(E) -> T) -> OperationReply<T> {
        match self {
            Self::Get(entry) => OperationReply::Get(entry.map(show)),
            Self::Set(reply) => OperationReply::Set(reply.map(show)),
            Self::Delete(reply) => OperationReply::Delete(reply.map(show)),
            Self::DeleteRange(reply) => OperationReply::DeleteRange(reply),
            Self::SetTtl(found) => OperationReply::SetTtl(found),
            Self::Increment(value) => OperationReply::Increment(value),
            Self::List { entries, more, keys_only } => {
                let entries = entries.into_iter().map(show).collect();
                OperationReply::List { entries, more, keys_only }
            }
        }
    }
}

/// The entries that an answer shows, counted against its bound.
#[derive(Default)]
struct AnswerSize {
    entries: usize,
    bytes: usize,
}

impl AnswerSize {
    /// Refuses an answer that would be too large before anything is applied: it cannot be told in parts, and a
    /// transaction that was applied must not look as if it had failed. A single entry is never too large.
    fn add(&mut self, reply: &OperationReply<Seen>) -> Result<(), Refusal<Seen>> {
        match reply {
            OperationReply::Get(entry) => self.add_entries(entry, true),
            OperationReply::Set(reply) => {
                self.add_entries([&reply.entry], false);
                self.add_entries(reply.previous.as_deref(), true);
            }
            OperationReply::Delete(reply) => self.add_entries(reply.previous.as_deref(), true),
            OperationReply::List { entries, keys_only, .. } => {
                self.add_entries(entries, !keys_only);
            }
            OperationReply::DeleteRange(_)
            | OperationReply::SetTtl(_)
            | OperationReply::Increment(_) => {}
        }
        if self.bytes <= MAX_ANSWER_BYTES || self.entries <= 1 {
            return Ok(());
        }
        let (size, limit) = (self.bytes as u64, MAX_ANSWER_BYTES as u64);
        Err(Refusal::TooLarge { what: "bytes of the answer", size, limit })
    }

    fn add_entries<'a>(&mut self, entries: impl IntoIterator<Item = &'a Seen>, with_values: bool) {
        for entry in entries {
            let value = if with_values { entry.value().len() } else { 0 };
            self.entries += 1;
            self.bytes += entry.key().as_bytes().len() + entry.content_type().len() + value;
            // About what else there is to an entry.
            self.bytes += 128;
        }
    }
}
