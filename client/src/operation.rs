//! The operations of a transaction.

use holdfast_proto::v1::{self, operation as wire_op};

use crate::{Codec, Encode, Error, Expiry, Revision, Selector, call::expiry_options, wire};

/// Makes operations of a [`Transaction`](crate::Transaction).
pub struct Op;

impl Op {
    /// Reads an entry.
    pub fn get(key: impl Into<String>) -> GetOp {
        GetOp(wire_op::Get { key: key.into() })
    }

    /// Writes an entry.
    pub fn set<V: ?Sized>(key: impl Into<String>, value: &V) -> SetOp<'_, V> {
        SetOp {
            value,
            content_type: None,
            operation: wire_op::Set { key: key.into(), ..Default::default() },
        }
    }

    /// Removes an entry.
    pub fn delete(key: impl Into<String>) -> DeleteOp {
        DeleteOp(wire_op::Delete { key: key.into(), return_previous: false })
    }

    /// Removes many entries.
    pub fn delete_range(selector: Selector) -> DeleteRangeOp {
        DeleteRangeOp(wire_op::DeleteRange {
            selector: Some(wire::selector(selector)),
            limit: None,
        })
    }

    /// Changes when an entry ends; [`Expiry::Keep`] is refused.
    pub fn set_ttl(key: impl Into<String>, expiry: impl Into<Expiry>) -> SetTtlOp {
        SetTtlOp(wire_op::SetTtl { key: key.into(), expiry: Some(wire::expiry(expiry.into())) })
    }

    /// Adds to a number.
    pub fn increment(key: impl Into<String>, delta: i64) -> IncrementOp {
        IncrementOp(wire_op::Increment { key: key.into(), delta, ..Default::default() })
    }

    /// Lists entries.
    pub fn list(selector: Selector) -> ListOp {
        ListOp(wire_op::List { selector: Some(wire::selector(selector)), ..Default::default() })
    }
}

/// What can be an operation of a transaction with the codec `C`: whatever [`Op`] makes.
pub trait IntoOperation<C>: sealed::Sealed {
    /// The operation, with its value encoded.
    ///
    /// # Errors
    /// [`Error::Codec`] if the value cannot be written in the form of the codec.
    fn into_operation(self, codec: &C) -> Result<Operation, Error>;
}

/// An operation in the form it is sent in.
#[derive(Clone, Debug, PartialEq)]
pub struct Operation(pub(crate) v1::Operation);

/// An operation that has been encoded already, so that operations can be kept and mixed.
impl<C> IntoOperation<C> for Operation {
    fn into_operation(self, _codec: &C) -> Result<Operation, Error> {
        Ok(self)
    }
}

/// Reads an entry; made by [`Op::get`].
#[derive(Clone, Debug)]
pub struct GetOp(wire_op::Get);

/// Writes an entry; made by [`Op::set`].
#[derive(Debug)]
pub struct SetOp<'v, V: ?Sized> {
    value: &'v V,
    content_type: Option<String>,
    operation: wire_op::Set,
}

impl<V: ?Sized> SetOp<'_, V> {
    /// When the entry is to end; unless said, the default TTL of the namespace, else never.
    pub fn expiry(mut self, expiry: impl Into<Expiry>) -> Self {
        self.operation.expiry = Some(wire::expiry(expiry.into()));
        self
    }

    expiry_options!();

    /// Leaves the present expiry as it is.
    pub fn keep_ttl(self) -> Self {
        self.expiry(Expiry::Keep)
    }

    /// What to say the value is, instead of what the codec says; at most 128 bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Answers with the entry as it was before.
    pub fn return_previous(mut self) -> Self {
        self.operation.return_previous = true;
        self
    }
}

/// Removes an entry; made by [`Op::delete`].
#[derive(Clone, Debug)]
pub struct DeleteOp(wire_op::Delete);

impl DeleteOp {
    /// Answers with the entry as it was before.
    pub fn return_previous(mut self) -> Self {
        self.0.return_previous = true;
        self
    }
}

/// Removes many entries; made by [`Op::delete_range`].
#[derive(Clone, Debug)]
pub struct DeleteRangeOp(wire_op::DeleteRange);

impl DeleteRangeOp {
    /// How many entries at the most: 1 to 10,000, which is also the default.
    pub fn limit(mut self, limit: u32) -> Self {
        self.0.limit = Some(limit);
        self
    }
}

/// Changes when an entry ends; made by [`Op::set_ttl`].
#[derive(Clone, Debug)]
pub struct SetTtlOp(wire_op::SetTtl);

/// Adds to a number; made by [`Op::increment`].
#[derive(Clone, Debug)]
pub struct IncrementOp(wire_op::Increment);

impl IncrementOp {
    /// What a missing key counts as; 0 unless set.
    pub fn initial(mut self, initial: i64) -> Self {
        self.0.initial = initial;
        self
    }

    /// When the entry is to end, if this creates it.
    pub fn expiry(mut self, expiry: impl Into<Expiry>) -> Self {
        self.0.expiry = Some(wire::expiry(expiry.into()));
        self
    }

    expiry_options!();
}

/// Lists entries; made by [`Op::list`].
#[derive(Clone, Debug)]
pub struct ListOp(wire_op::List);

impl ListOp {
    /// Leaves out the values.
    pub fn keys_only(mut self) -> Self {
        self.0.keys_only = true;
        self
    }

    /// From the last key to the first.
    pub fn reverse(mut self) -> Self {
        self.0.reverse = true;
        self
    }

    /// How many entries at the most, up to 1,000; 100 unless set.
    pub fn limit(mut self, limit: u32) -> Self {
        self.0.limit = limit;
        self
    }

    /// Only entries changed at this revision or later.
    pub fn min_mod_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.0.min_mod_revision = revision.into().get();
        self
    }
}

impl<C: Encode<V>, V: ?Sized> IntoOperation<C> for SetOp<'_, V> {
    fn into_operation(self, codec: &C) -> Result<Operation, Error> {
        let mut set = self.operation;
        set.value = wire::encode(codec, &set.key, self.value)?;
        set.content_type = self.content_type.unwrap_or_else(|| wire::content_type(codec));
        Ok(operation(wire_op::Kind::Set(set)))
    }
}

macro_rules! plain_operations {
    ($($operation:ident => $kind:ident;)*) => {$(
        impl<C: Codec> IntoOperation<C> for $operation {
            fn into_operation(self, _codec: &C) -> Result<Operation, Error> {
                Ok(operation(wire_op::Kind::$kind(self.0)))
            }
        }

        impl sealed::Sealed for $operation {}
    )*};
}

plain_operations! {
    GetOp => Get;
    DeleteOp => Delete;
    DeleteRangeOp => DeleteRange;
    SetTtlOp => SetTtl;
    IncrementOp => Increment;
    ListOp => List;
}

fn operation(kind: wire_op::Kind) -> Operation {
    Operation(v1::Operation { kind: Some(kind) })
}

mod sealed {
    pub trait Sealed {}

    impl<V: ?Sized> Sealed for super::SetOp<'_, V> {}
    impl Sealed for super::Operation {}
}
