//! What clients ask of the store, what comes of it, and what should have.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_server::{
    backend::{ChangeKind, Deadline, Entry, Key, Removal, Revision},
    store::{
        Guard, Work,
        command::{
            Command, Compare, Comparison, Condition, Delete, DeleteRange, Expiry, Increment,
            Operand, Operation, OperationReply, Reply, Revoke, Set, SetTtl, Transaction,
        },
        error::Refusal,
        keys,
        selector::Selector,
    },
};

use crate::truth::{State, Truth};

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Op {
    Set { key: Key, value: String, expiry: Expiry, condition: Condition },
    Delete { key: Key, condition: Condition },
    SetTtl { key: Key, expiry: Expiry },
    Increment { key: Key, delta: i64 },
    BatchSet { keys: Vec<Key>, value: String },
    BatchDelete { keys: Vec<Key> },
    DeleteRange { prefix: &'static str, limit: usize },
    Transact { compares: Vec<(Key, Operand)>, then: Vec<Op>, otherwise: Vec<Op> },
    Clear,
    Revoke { lease: u64 },
    Get { keys: Vec<Key>, at: Option<Revision> },
    List { prefix: &'static str },
    Count { prefix: &'static str },
}

/// What is said to it, in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// A set: the version, and whether the key is new.
    Set(u64, bool),
    Found(bool),
    Number(i64),
    Versions(Vec<u64>),
    Each(Vec<bool>),
    Deleted(u64),
    Transacted(bool, Vec<Said>),
    Cleared(u64),
    /// Key, value and revision of the last change.
    Entries(Vec<(Key, Vec<u8>, u64)>),
    Count(u64),
    /// A condition did not hold; the revision of the last change of what is there.
    ConditionNotMet(Option<u64>),
    NotANumber,
    LeaseNotFound,
    Revoked,
    /// Something else, by its name.
    Other(&'static str),
}

/// The outcome of a call.
#[derive(Debug, Clone)]
pub enum Outcome {
    Done {
        revision: u64,
        time_ms: i64,
        said: Said,
    },
    Refused {
        revision: u64,
        said: Said,
    },
    /// Surely not applied.
    Failed(String),
    /// Perhaps applied.
    Unknown,
}

/// A call with what came of it.
#[derive(Debug, Clone)]
pub struct Call {
    pub client: usize,
    pub op: Op,
    pub guards: Vec<Guard>,
    /// The last revision, and the time, when it was sent,
    pub sent: (u64, i64),
    /// and when its outcome came; no revision where it may be applied later still.
    pub ended: (Option<u64>, i64),
    pub outcome: Outcome,
}

impl Op {
    /// What is submitted; nothing for reads.
    pub fn work(&self) -> Option<Work> {
        Some(match self {
            Self::Clear => Work::Clear,
            Self::Get { .. } | Self::List { .. } | Self::Count { .. } => return None,
            _ => Work::Command(self.command()),
        })
    }

    fn command(&self) -> Command {
        match self.clone() {
            Self::BatchSet { keys, value } => {
                let condition = Condition::None;
                let item = |key| set(key, &value, Expiry::Default, condition);
                Command::BatchSet(keys.into_iter().map(item).collect())
            }
            Self::BatchDelete { keys } => Command::BatchDelete(keys),
            Self::Revoke { lease } => Command::Revoke(Revoke { lease }),
            Self::Transact { compares, then, otherwise } => {
                let compare =
                    |(key, operand)| Compare { key, comparison: Comparison::Equal, operand };
                let operations = |ops: Vec<Op>| ops.into_iter().map(Op::operation).collect();
                Command::Transact(Transaction {
                    compares: compares.into_iter().map(compare).collect(),
                    then: operations(then),
                    otherwise: operations(otherwise),
                })
            }
            single => match single.operation() {
                Operation::Set(set) => Command::Set(set),
                Operation::Delete(delete) => Command::Delete(delete),
                Operation::DeleteRange(delete) => Command::DeleteRange(delete),
                Operation::SetTtl(set_ttl) => Command::SetTtl(set_ttl),
                Operation::Increment(increment) => Command::Increment(increment),
                Operation::Get(_) | Operation::List(_) => unreachable!("reads are no commands"),
            },
        }
    }

    fn operation(self) -> Operation {
        match self {
            Self::Set { key, value, expiry, condition } => {
                Operation::Set(set(key, &value, expiry, condition))
            }
            Self::Delete { key, condition } => {
                Operation::Delete(Delete { key, condition, return_previous: false })
            }
            Self::SetTtl { key, expiry } => Operation::SetTtl(SetTtl { key, expiry }),
            Self::Increment { key, delta } => {
                Operation::Increment(Increment { key, delta, initial: 0, expiry: Expiry::Default })
            }
            Self::DeleteRange { prefix, limit } => {
                Operation::DeleteRange(DeleteRange { selector: Selector::prefix(prefix), limit })
            }
            Self::Get { keys, .. } => Operation::Get(keys[0].clone()),
            other => unreachable!("not within a transaction: {other:?}"),
        }
    }
}

fn set(key: Key, value: &str, expiry: Expiry, condition: Condition) -> Set {
    let (value, content_type) = (value.to_owned().into(), Default::default());
    Set { key, value, content_type, expiry, condition, return_previous: false }
}

impl Said {
    /// What a reply says.
    pub fn of<E: Shown>(reply: &Reply<E>) -> Self {
        match reply {
            Reply::Set(set) => Self::Set(set.entry.entry().version, set.created),
            Reply::Delete(delete) => Self::Found(delete.deleted),
            Reply::SetTtl(found) => Self::Found(*found),
            Reply::Increment(number) => Self::Number(*number),
            Reply::DeleteRange(delete) => Self::Deleted(delete.deleted),
            Reply::BatchSet(entries) => {
                Self::Versions(entries.iter().map(|entry| entry.entry().version).collect())
            }
            Reply::BatchDelete(found) => Self::Each(found.clone()),
            Reply::Transact(transact) => {
                let results = transact.results.iter().map(Self::of_operation).collect();
                Self::Transacted(transact.succeeded, results)
            }
            Reply::Cleared(count) => Self::Cleared(*count),
            Reply::Revoked(_) => Self::Revoked,
            _ => Self::Other("reply"),
        }
    }

    fn of_operation<E: Shown>(reply: &OperationReply<E>) -> Self {
        match reply {
            OperationReply::Get(entry) => {
                let seen = entry.iter().map(|it| (it.key(), it.entry()));
                Self::entries(seen)
            }
            OperationReply::Set(set) => Self::Set(set.entry.entry().version, set.created),
            OperationReply::Delete(delete) => Self::Found(delete.deleted),
            OperationReply::DeleteRange(delete) => Self::Deleted(delete.deleted),
            OperationReply::SetTtl(found) => Self::Found(*found),
            OperationReply::Increment(number) => Self::Number(*number),
            OperationReply::List { .. } => Self::Other("list"),
        }
    }

    /// What a refusal says.
    pub fn of_refusal<E: Shown>(refusal: &Refusal<E>) -> Self {
        match refusal {
            Refusal::ConditionNotMet { current } => {
                let current = current.as_ref().map(|current| current.entry().mod_revision.0);
                Self::ConditionNotMet(current)
            }
            Refusal::NotANumber { .. } => Self::NotANumber,
            Refusal::LeaseNotFound { .. } => Self::LeaseNotFound,
            Refusal::LockLost { .. } => Self::Other("lock lost"),
            Refusal::Operation { refusal, .. } => Self::of_refusal(refusal),
            _ => Self::Other("refusal"),
        }
    }

    /// What reads say.
    pub fn entries<'a>(entries: impl Iterator<Item = (&'a Key, &'a Entry)>) -> Self {
        let shown = |(key, entry): (&Key, &Entry)| {
            (key.clone(), entry.value.to_vec(), entry.mod_revision.0)
        };
        Self::Entries(entries.map(shown).collect())
    }
}

/// What has an entry in it.
pub trait Shown {
    fn key(&self) -> &Key;
    fn entry(&self) -> &Entry;
}

impl Shown for holdfast_server::store::command::EntryView {
    fn key(&self) -> &Key {
        self.key()
    }

    fn entry(&self) -> &Entry {
        self.entry()
    }
}

/// What a write should say and do, at a time, over what is live then. Where revision and time do not tell whether a
/// lease lived, either is right.
pub struct Expected<'a> {
    truth: &'a Truth,
    revision: u64,
    time_ms: i64,
    if_unsure: bool,
    before: State,
    now: State,
    touched: BTreeSet<Key>,
    written: BTreeSet<Key>,
}

/// What a revision did to a key.
pub type Effect = (ChangeKind, Option<Entry>);

impl<'a> Expected<'a> {
    /// What an operation should say, and its effects if it takes a revision; nothing if it is refused.
    pub fn of(
        truth: &'a Truth,
        op: &Op,
        (over, revision): (&State, u64),
        time_ms: i64,
        if_unsure: bool,
    ) -> (Said, BTreeMap<Key, Effect>) {
        let before = truth.live(over, time_ms);
        let (now, touched, written) = (before.clone(), BTreeSet::new(), BTreeSet::new());
        let mut expected =
            Self { truth, revision, time_ms, if_unsure, before, now, touched, written };
        match expected.run(op) {
            Ok(said) => (said, expected.effects()),
            Err(said) => (said, BTreeMap::new()),
        }
    }

    fn effects(&self) -> BTreeMap<Key, Effect> {
        let mut effects = BTreeMap::new();
        for key in &self.touched {
            if let Some(entry) = self.now.get(key) {
                let kind = match self.written.contains(key) {
                    true => ChangeKind::Set,
                    false => ChangeKind::TtlChanged,
                };
                effects.insert(key.clone(), (kind, Some(entry.clone())));
            }
        }
        for key in self.before.keys().filter(|key| !self.now.contains_key::<Key>(key)) {
            effects.insert(key.clone(), (ChangeKind::Removed(Removal::Deleted), None));
        }
        effects
    }

    fn run(&mut self, op: &Op) -> Result<Said, Said> {
        Ok(match op {
            Op::Set { key, value, expiry, condition } => {
                self.check(key, *condition)?;
                let created = !self.now.contains_key(key);
                let deadline = self.deadline(key, *expiry)?;
                Said::Set(self.put(key, value, deadline), created)
            }
            Op::Delete { key, condition } => {
                self.check(key, *condition)?;
                Said::Found(self.now.remove(key).is_some())
            }
            Op::SetTtl { key, expiry } => {
                if !self.now.contains_key(key) {
                    return Ok(Said::Found(false));
                }
                let deadline = self.deadline(key, *expiry)?;
                let was = self.written.contains(key);
                let value = self.now[key].value.clone();
                self.put_bytes(key, value, deadline);
                if !was {
                    self.written.remove(key);
                }
                Said::Found(true)
            }
            Op::Increment { key, delta } => {
                let (base, deadline) = match self.now.get(key) {
                    None => (0, self.deadline(key, Expiry::Default)?),
                    Some(entry) => {
                        let text = String::from_utf8_lossy(&entry.value);
                        (text.parse::<i64>().map_err(|_| Said::NotANumber)?, entry.deadline.clone())
                    }
                };
                self.put(key, &(base + delta).to_string(), deadline);
                Said::Number(base + delta)
            }
            Op::BatchSet { keys, value } => {
                let mut versions = Vec::new();
                for key in keys {
                    let deadline = self.deadline(key, Expiry::Default)?;
                    versions.push(self.put(key, value, deadline));
                }
                Said::Versions(versions)
            }
            Op::BatchDelete { keys } => {
                Said::Each(keys.iter().map(|key| self.now.remove(key).is_some()).collect())
            }
            Op::DeleteRange { prefix, limit } => {
                let all =
                    self.now.keys().filter(|key| key.as_bytes().starts_with(prefix.as_bytes()));
                let chosen: Vec<_> = all.take(*limit).cloned().collect();
                chosen.iter().for_each(|key| drop(self.now.remove(key)));
                Said::Deleted(chosen.len() as u64)
            }
            Op::Transact { compares, then, otherwise } => {
                let holds = |(key, operand): &(Key, Operand)| match (operand, self.now.get(key)) {
                    (Operand::Exists(exists), entry) => entry.is_some() == *exists,
                    (Operand::ModRevision(revision), Some(entry)) => {
                        entry.mod_revision == *revision
                    }
                    (Operand::Value(value), Some(entry)) => entry.value == *value,
                    (_, None) => false,
                    (other, _) => unreachable!("not asked for: {other:?}"),
                };
                let succeeded = compares.iter().all(holds);
                let branch = if succeeded { then } else { otherwise };
                let results = branch.iter().map(|op| self.run(op)).collect::<Result<_, _>>()?;
                Said::Transacted(succeeded, results)
            }
            Op::Get { keys, .. } => {
                let found = keys.iter().filter_map(|key| self.now.get_key_value(key));
                Said::entries(found)
            }
            other => unreachable!("judged elsewhere: {other:?}"),
        })
    }

    fn check(&self, key: &Key, condition: Condition) -> Result<(), Said> {
        let current = self.now.get(key);
        let holds = match condition {
            Condition::None => true,
            Condition::Absent => current.is_none(),
            Condition::Present => current.is_some(),
            Condition::ModRevision(revision) => {
                current.is_some_and(|current| current.mod_revision == revision)
            }
        };
        let shown = || Said::ConditionNotMet(current.map(|current| current.mod_revision.0));
        if holds { Ok(()) } else { Err(shown()) }
    }

    fn deadline(&self, key: &Key, expiry: Expiry) -> Result<Deadline, Said> {
        Ok(match expiry {
            Expiry::Default | Expiry::Never => Deadline::Never,
            Expiry::Ttl(ttl_ms) => Deadline::At(self.time_ms + ttl_ms as i64),
            Expiry::At(at_ms) => Deadline::At(at_ms),
            Expiry::Keep => self.now.get(key).map_or(Deadline::Never, |it| it.deadline.clone()),
            Expiry::Lease(id) => {
                let lease = keys::lease(id);
                if !self.truth.lease_lives(&lease, (self.revision, self.time_ms), self.if_unsure) {
                    return Err(Said::LeaseNotFound);
                }
                Deadline::Of(Box::new(lease))
            }
        })
    }

    fn put(&mut self, key: &Key, value: &str, deadline: Deadline) -> u64 {
        self.put_bytes(key, value.to_owned(), deadline)
    }

    fn put_bytes(&mut self, key: &Key, value: impl Into<Vec<u8>>, deadline: Deadline) -> u64 {
        let (revision, time_ms) = (Revision(self.revision), self.time_ms);
        let (version, create_revision, created_at_ms) = match self.now.get(key) {
            None => (1, revision, time_ms),
            Some(entry) => {
                let more = u64::from(entry.mod_revision != revision);
                (entry.version + more, entry.create_revision, entry.created_at_ms)
            }
        };
        let entry = Entry {
            value: value.into().into(),
            content_type: Default::default(),
            version,
            create_revision,
            mod_revision: revision,
            created_at_ms,
            updated_at_ms: time_ms,
            deadline,
        };
        self.now.insert(key.clone(), entry);
        self.touched.insert(key.clone());
        self.written.insert(key.clone());
        version
    }
}
