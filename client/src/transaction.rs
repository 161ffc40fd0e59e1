//! Transactions that compare, then act.

use std::fmt;

use bytes::Bytes;
use holdfast_proto::v1;

use crate::{
    Codec, Decode, Entry, Error, Header, IntoOperation, LeaseId, Metadata, Namespace, Revision,
    Token,
    call::{Pending, awaitable_in_place, call_options, write_options},
    wire::{self, Reader},
};

/// A transaction; made by [`Namespace::transaction`].
///
/// If all compares hold, the operations of `then` are run, else those of `otherwise`; in order, later ones
/// seeing earlier ones, all writes in one revision. Compares that do not hold are an answer, not an error;
/// an operation that fails, fails the whole, and nothing is applied. At most 1,024 compares, and as many
/// operations in each branch.
///
/// ```no_run
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// use holdfast_client::{Compare, Op};
///
/// let jobs = client.namespace("jobs");
/// let outcome = jobs
///     .transaction()
///     .compare(Compare::key("owner").missing())
///     .then(Op::set("owner", "me"))
///     .otherwise(Op::get("owner"))
///     .await?;
/// if !outcome.succeeded {
///     println!("taken by {:?}", outcome.get::<String>(0)?);
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "a transaction does nothing until it is awaited"]
pub struct Transaction<C> {
    call: Pending<v1::TransactRequest>,
    codec: C,
}

impl<C: Codec> Transaction<C> {
    pub(crate) fn new(namespace: &Namespace<C>) -> Self {
        Self {
            call: namespace.pending(v1::TransactRequest {
                namespace: namespace.namespace(),
                ..Default::default()
            }),
            codec: namespace.codec.clone(),
        }
    }

    /// Adds something that must hold.
    pub fn compare(mut self, compare: Compare) -> Self {
        self.call.request.compares.push(compare.0);
        self
    }

    /// Adds an operation for when all compares hold; made by [`Op`](crate::Op).
    pub fn then(mut self, operation: impl IntoOperation<C>) -> Self {
        let operation = operation.into_operation(&self.codec);
        if let Some(operation) = self.call.unless_failed(operation) {
            self.call.request.then.push(operation.0);
        }
        self
    }

    /// Adds an operation for when one compare does not hold; made by [`Op`](crate::Op).
    pub fn otherwise(mut self, operation: impl IntoOperation<C>) -> Self {
        let operation = operation.into_operation(&self.codec);
        if let Some(operation) = self.call.unless_failed(operation) {
            self.call.request.otherwise.push(operation.0);
        }
        self
    }

    call_options!();
    write_options!();

    async fn send(&mut self) -> Result<TransactionOutcome<C>, Error> {
        let response = self.call.send().await?;
        Ok(TransactionOutcome {
            header: Header::new(response.revision, response.time_ms),
            succeeded: response.succeeded,
            failed_compares: response
                .failed_compares
                .into_iter()
                .map(|index| index as usize)
                .collect(),
            results: response
                .results
                .into_iter()
                .map(|result| OpResult::from_wire(&self.codec, result))
                .collect::<Result<_, _>>()?,
        })
    }
}

awaitable_in_place!([C: Codec] Transaction<C> => TransactionOutcome<C>);

/// What must hold: a key, one of its properties, and what that is compared with.
///
/// On a missing key, only "not equal" is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Compare(v1::Compare);

impl Compare {
    /// Something about this key.
    pub fn key(key: impl Into<String>) -> CompareKey {
        CompareKey(key.into())
    }

    /// Something about this lock. One that nobody holds is like a missing key.
    pub fn lock(name: impl Into<String>) -> CompareLock {
        CompareLock(name.into())
    }
}

/// The key of a [`Compare`].
#[derive(Clone, Debug)]
pub struct CompareKey(String);

impl CompareKey {
    /// The key exists.
    pub fn exists(self) -> Compare {
        self.existence(true)
    }

    /// The key does not exist.
    pub fn missing(self) -> Compare {
        self.existence(false)
    }

    /// The revision of its last change.
    pub fn mod_revision(self) -> CompareProperty<Revision> {
        CompareProperty {
            key: self.0,
            operand: |revision| v1::compare::Operand::ModRevision(revision.get()),
        }
    }

    /// The revision that created it.
    pub fn create_revision(self) -> CompareProperty<Revision> {
        CompareProperty {
            key: self.0,
            operand: |revision| v1::compare::Operand::CreateRevision(revision.get()),
        }
    }

    /// Its version.
    pub fn version(self) -> CompareProperty<u64> {
        CompareProperty { key: self.0, operand: v1::compare::Operand::Version }
    }

    /// Its value, by bytes.
    pub fn value(self) -> CompareProperty<Bytes> {
        CompareProperty { key: self.0, operand: v1::compare::Operand::Value }
    }

    /// The lease that it is attached to. To an entry without one this is 0.
    pub fn lease(self) -> CompareProperty<LeaseId> {
        CompareProperty { key: self.0, operand: |id| v1::compare::Operand::LeaseId(id.get()) }
    }

    /// The key exists, and ends with no lease.
    pub fn without_lease(self) -> Compare {
        self.lease().equal_to(0)
    }

    fn existence(self, exists: bool) -> Compare {
        Compare(v1::Compare {
            key: self.0,
            comparison: v1::Comparison::Equal as i32,
            operand: Some(v1::compare::Operand::Exists(exists)),
        })
    }
}

/// The lock of a [`Compare`].
#[derive(Clone, Debug)]
pub struct CompareLock(String);

impl CompareLock {
    /// Somebody holds it.
    pub fn held(self) -> Compare {
        self.token().greater_than(0)
    }

    /// The token of its hold. To let a write rely on a hold of one's own, a
    /// [guard](Transaction::guard) says more when it fails.
    pub fn token(self) -> CompareProperty<Token> {
        CompareProperty { key: self.0, operand: |it| v1::compare::Operand::LockToken(it.get()) }
    }
}

/// The property of a key or a lock that a [`Compare`] looks at.
#[derive(Clone)]
pub struct CompareProperty<V> {
    key: String,
    operand: fn(V) -> v1::compare::Operand,
}

impl<V> CompareProperty<V> {
    /// It is this.
    pub fn equal_to(self, value: impl Into<V>) -> Compare {
        self.compare(v1::Comparison::Equal, value.into())
    }

    /// It is not this, or the key is missing.
    pub fn not_equal_to(self, value: impl Into<V>) -> Compare {
        self.compare(v1::Comparison::NotEqual, value.into())
    }

    /// It is less than this.
    pub fn less_than(self, value: impl Into<V>) -> Compare {
        self.compare(v1::Comparison::Less, value.into())
    }

    /// It is greater than this.
    pub fn greater_than(self, value: impl Into<V>) -> Compare {
        self.compare(v1::Comparison::Greater, value.into())
    }

    fn compare(self, comparison: v1::Comparison, value: V) -> Compare {
        Compare(v1::Compare {
            key: self.key,
            comparison: comparison as i32,
            operand: Some((self.operand)(value)),
        })
    }
}

impl<V> fmt::Debug for CompareProperty<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CompareProperty").field(&self.key).finish()
    }
}

/// What a [`Transaction`] did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct TransactionOutcome<C> {
    /// The revision and time of the writes, or of the state read if nothing changed.
    pub header: Header,
    /// Whether all compares held, so that `then` was run.
    pub succeeded: bool,
    /// The indexes of the compares that did not hold.
    pub failed_compares: Vec<usize>,
    /// One result an operation of the branch that was run, in order.
    pub results: Vec<OpResult<C>>,
}

impl<C: Codec> TransactionOutcome<C> {
    /// What the get at this index has read.
    ///
    /// # Errors
    /// [`Error::Codec`] or [`Error::UnexpectedContentType`] if the value cannot be read as a `T`,
    /// [`Error::ValueOmitted`] if the transaction had to be sent again and the value is large.
    ///
    /// # Panics
    /// If the operation at this index of the branch that was run is not a get.
    pub fn get<T>(&self, index: usize) -> Result<Option<Entry<T>>, Error>
    where
        C: Decode<T>,
    {
        match self.results.get(index) {
            Some(OpResult::Get(entry)) => entry.as_ref().map(EncodedEntry::decode).transpose(),
            _ => panic!("the operation {index} of the branch that was run is not a get"),
        }
    }
}

/// What one operation of a [`Transaction`] found or did.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum OpResult<C> {
    /// The entry read, if there is one.
    Get(Option<EncodedEntry<C>>),
    /// Written.
    Set {
        /// The entry as it is now.
        metadata: Metadata,
        /// Whether the key is new.
        created: bool,
        /// The entry before, if it was asked for and there was one.
        previous: Option<EncodedEntry<C>>,
    },
    /// Removed, or found missing.
    Delete {
        /// Whether the key was there.
        deleted: bool,
        /// The entry before, if it was asked for and there was one.
        previous: Option<EncodedEntry<C>>,
    },
    /// Many removed.
    DeleteRange {
        /// How many.
        deleted: u64,
        /// Whether some that match may be left.
        more: bool,
    },
    /// Expiry changed.
    SetTtl {
        /// Whether the key was there.
        found: bool,
    },
    /// Added.
    Increment {
        /// The new value.
        value: i64,
    },
    /// Listed.
    List {
        /// The entries, in order.
        entries: Vec<EncodedEntry<C>>,
        /// Whether more that match may be there.
        more: bool,
    },
}

impl<C: Codec> OpResult<C> {
    fn from_wire(codec: &C, result: v1::OperationResult) -> Result<Self, Error> {
        use v1::operation_result::Kind;
        let encoded = |entry: v1::Entry| EncodedEntry::new(codec, entry);
        let kind = result.kind.ok_or_else(|| Error::protocol("an operation has no result"))?;
        Ok(match kind {
            Kind::Get(get) => OpResult::Get(get.entry.map(encoded)),
            Kind::Set(set) => OpResult::Set {
                metadata: wire::metadata(set.entry)?,
                created: set.created,
                previous: set.previous.map(encoded),
            },
            Kind::Delete(delete) => {
                OpResult::Delete { deleted: delete.deleted, previous: delete.previous.map(encoded) }
            }
            Kind::DeleteRange(range) => {
                OpResult::DeleteRange { deleted: range.deleted, more: range.more }
            }
            Kind::SetTtl(set_ttl) => OpResult::SetTtl { found: set_ttl.found },
            Kind::Increment(increment) => OpResult::Increment { value: increment.value },
            Kind::List(list) => OpResult::List {
                entries: list.entries.into_iter().map(encoded).collect(),
                more: list.more,
            },
        })
    }
}

/// An entry whose value is still to be read, for each may be of a type of its own.
#[derive(Clone, PartialEq)]
pub struct EncodedEntry<C> {
    codec: C,
    entry: v1::Entry,
}

impl<C: Codec> EncodedEntry<C> {
    fn new(codec: &C, entry: v1::Entry) -> Self {
        Self { codec: codec.clone(), entry }
    }

    /// The key.
    pub fn key(&self) -> &str {
        &self.entry.key
    }

    /// Everything but the value.
    pub fn metadata(&self) -> Metadata {
        wire::split(self.entry.clone()).0
    }

    /// The bytes of the value; `None` if only the keys were asked for, or if the transaction had to be sent again and
    /// the value is large.
    pub fn bytes(&self) -> Option<&Bytes> {
        self.entry.value.as_ref()
    }

    /// The entry with its value.
    ///
    /// # Errors
    /// [`Error::Codec`] or [`Error::UnexpectedContentType`] if the value cannot be read as a `T`,
    /// [`Error::ValueOmitted`] if there is none.
    pub fn decode<T>(&self) -> Result<Entry<T>, Error>
    where
        C: Decode<T>,
    {
        Reader::of_values(self.codec.clone()).read(self.entry.clone())
    }
}

impl<C> fmt::Debug for EncodedEntry<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodedEntry")
            .field("key", &self.entry.key)
            .field("mod_revision", &self.entry.mod_revision)
            .finish_non_exhaustive()
    }
}
