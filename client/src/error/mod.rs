//! What can go wrong.

mod status;

use std::{fmt, time::Duration};

use crate::{BoxError, LeaseId, Lineage, LockInfo, LockLoss, Metadata, Revision, Token};
pub(crate) use status::{Cause, Failure, into_status};

/// Why a call failed.
///
/// Told apart by the reason the server names, never by its text. What a program does next depends on the
/// kind: [`Error::is_transient`] says whether the same may succeed later, [`Error::outcome_unknown`]
/// whether a write may have been applied all the same.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The condition of the write did not hold; nothing was changed.
    #[error("the condition did not hold: {}", describe_current(current.as_deref()))]
    ConditionNotMet {
        /// What stands there instead; none if the key is missing.
        current: Option<Box<Metadata>>,
        /// The revision at which the condition was checked.
        revision: Revision,
    },
    /// An optimistic transaction found at every attempt that what it had read was changed meanwhile.
    #[error("the transaction met a conflict at each of {attempts} attempts")]
    Conflict {
        /// How many attempts were made.
        attempts: u32,
    },
    /// The handle of an optimistic transaction was used after its closure had ended.
    #[error("the transaction has ended")]
    TransactionEnded,
    /// The namespace has another history than the one named: it was deleted, made anew, or its store came
    /// back without its past.
    #[error("the namespace has another lineage now: {}", describe_lineage(lineage))]
    LineageChanged {
        /// The lineage it has now; empty if it does not exist.
        lineage: Lineage,
        /// The last revision that both histories share, where a cursor was too far.
        valid_through: Option<Revision>,
    },
    /// A hold of a lock is no longer current: what relied on it was not done.
    #[error("the hold of the lock {lock:?} with the token {token} is lost: {cause}")]
    LockLost {
        /// The name of the lock.
        lock: String,
        /// The token of the hold.
        token: Token,
        /// What became of it.
        cause: LockLoss,
    },
    /// Another holds the lock, and the time to wait for it is over.
    #[error("the lock {:?} is held by {}", holder.name, holder.owner)]
    LockTaken {
        /// Who holds it.
        holder: Box<LockInfo>,
    },
    /// There is no such lease: it has ended, or never was.
    #[error("there is no lease {lease}")]
    LeaseNotFound {
        /// The lease.
        lease: LeaseId,
        /// The operation of the transaction that failed.
        step: Option<Step>,
    },
    /// The id chosen for a lease is in use, or was used not long ago.
    #[error("the lease id {lease} is in use, or was not long ago")]
    LeaseIdUsed {
        /// The id.
        lease: LeaseId,
    },
    /// The server has seen another request by the same id. This client gives no id twice: something on the way
    /// has changed a request.
    #[error("{message}")]
    RequestReused {
        /// What the server says.
        message: String,
    },
    /// The namespace to be imported has keys, locks or leases already, and is not to be replaced. It is as it was.
    #[error("the namespace {namespace:?} is not empty")]
    NamespaceNotEmpty {
        /// The namespace.
        namespace: String,
    },
    /// A file or pipe could not be read or written.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: std::io::Error,
    },
    /// What was to be imported is not what an export has written, or not all of it.
    #[error("line {line}: {problem}")]
    Malformed {
        /// The number of the line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The history asked for is no longer held.
    #[error("the history asked for is compacted: the oldest revision held is {oldest}")]
    Compacted {
        /// The first revision that can be read at or resumed from.
        oldest: Revision,
    },
    /// The revision asked for is not there yet.
    #[error("the revision asked for is not there yet: the newest is {newest}")]
    FutureRevision {
        /// The last revision of the namespace.
        newest: Revision,
    },
    /// The value is not a 64-bit decimal number, or would not be one after the increment.
    #[error("{message}")]
    NotANumber {
        /// What the server says.
        message: String,
        /// The operation of the transaction that failed.
        step: Option<Step>,
    },
    /// A quota of the namespace or of the backend would be exceeded; nothing was changed.
    #[error("{message}")]
    QuotaExceeded {
        /// What the server says.
        message: String,
        /// The operation of the transaction that failed.
        step: Option<Step>,
    },
    /// One revision would change too much, an answer that cannot be split would be too large, or the request
    /// is larger than the server accepts. Nothing was changed.
    #[error("{message}")]
    TooLarge {
        /// What the server says.
        message: String,
        /// The operation of the transaction that failed.
        step: Option<Step>,
    },
    /// The server has too much to do. The write was surely not applied, and the call was tried again as
    /// often as the client is set to.
    #[error("{message}")]
    Overloaded {
        /// What the server says.
        message: String,
        /// When the server thinks it worth trying again.
        retry_after: Option<Duration>,
    },
    /// The server refuses the request as it is.
    #[error("{message}")]
    Invalid {
        /// The reason by its name in `error.proto`, without prefix: `INVALID_KEY`, `INVALID_GLOB` ….
        reason: String,
        /// The path of the field that is wrong.
        field: Option<String>,
        /// What is wrong with it.
        message: String,
    },
    /// No server could be reached, or its backend is away. A write was surely not applied.
    #[error("unavailable: {message}")]
    Unavailable {
        /// What is known.
        message: String,
        /// When the server thinks it worth trying again.
        retry_after: Option<Duration>,
    },
    /// The write may or may not have been applied: its answer was lost, or the server itself does not
    /// know, and sending it again has not settled that.
    #[error("it is not known whether the write was applied: {message}")]
    OutcomeUnknown {
        /// What is known.
        message: String,
    },
    /// The call took longer than its deadline. **A write may have been applied all the same**, now or a
    /// little later: treat it like [`Error::OutcomeUnknown`].
    #[error("the call took longer than its deadline (a write may have been applied)")]
    DeadlineExceeded,
    /// Stored data fails its checksum and is not served.
    #[error("{message}")]
    Corrupt {
        /// What the server says.
        message: String,
    },
    /// The server does not know who is calling.
    #[error("not authenticated: {message}")]
    Unauthenticated {
        /// What the server says.
        message: String,
    },
    /// The caller may not do this.
    #[error("not permitted: {message}")]
    PermissionDenied {
        /// What the server says.
        message: String,
    },
    /// A value could not be written or read in the form of the codec. When reading, the call itself has
    /// succeeded.
    #[error("the value of the key {key:?} does not fit the codec")]
    Codec {
        /// The key of the value.
        key: String,
        /// What the codec says.
        source: BoxError,
    },
    /// A value was stored in another form than the codec reads. The call itself has succeeded.
    #[error(
        "the value of the key {key:?} is of the content type {found:?}, but the codec of this namespace handle reads {expected:?}"
    )]
    UnexpectedContentType {
        /// The key of the value.
        key: String,
        /// The codec's content type.
        expected: String,
        /// The entry's content type.
        found: String,
    },
    /// An entry came without its value, because only keys were asked for, or because a write was sent again: the
    /// server keeps up to 4 KiB of values, all in all, of an answer that it may have to repeat. The call itself has
    /// succeeded, and the value can be read with another.
    #[error("the value of the key {key:?} did not come with the answer")]
    ValueOmitted {
        /// The key of the value.
        key: String,
    },
    /// The client is set up in a way that cannot work.
    #[error("bad configuration: {message}")]
    Configuration {
        /// What is wrong.
        message: String,
    },
    /// The server's answer makes no sense: it is not a Holdfast server, or one of another time.
    #[error("unexpected answer: {message}")]
    Protocol {
        /// What is odd about it.
        message: String,
    },
    /// Anything else the server may say.
    #[error("{message} (gRPC status {code})")]
    Other {
        /// The number of the gRPC status code.
        code: i32,
        /// The reason the server names, unknown to this client.
        reason: Option<String>,
        /// What the server says.
        message: String,
    },
}

/// A place in a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The branch that was run.
    pub branch: Branch,
    /// The index of the operation in it.
    pub operation: usize,
}

/// A branch of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// Run when all compares hold.
    Then,
    /// Run when one does not.
    Otherwise,
}

impl fmt::Display for Branch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Branch::Then => "then",
            Branch::Otherwise => "otherwise",
        })
    }
}

impl Error {
    /// Whether a write that failed so may have been applied all the same.
    pub fn outcome_unknown(&self) -> bool {
        matches!(self, Error::OutcomeUnknown { .. } | Error::DeadlineExceeded)
    }

    /// Whether the same call may succeed later and was surely not applied now.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Error::Unavailable { .. }
                | Error::Overloaded { .. }
                | Error::Conflict { .. }
                | Error::LockTaken { .. }
        )
    }

    pub(crate) fn protocol(message: impl Into<String>) -> Self {
        Error::Protocol { message: message.into() }
    }

    pub(crate) fn configuration(message: impl Into<String>) -> Self {
        Error::Configuration { message: message.into() }
    }

    /// The same again, as far as it can be what a stream ends with.
    pub(crate) fn duplicate(&self) -> Self {
        match self {
            Error::LineageChanged { lineage, valid_through } => {
                Error::LineageChanged { lineage: lineage.clone(), valid_through: *valid_through }
            }
            Error::Compacted { oldest } => Error::Compacted { oldest: *oldest },
            Error::FutureRevision { newest } => Error::FutureRevision { newest: *newest },
            Error::TooLarge { message, step } => {
                Error::TooLarge { message: message.clone(), step: *step }
            }
            Error::Overloaded { message, retry_after } => {
                Error::Overloaded { message: message.clone(), retry_after: *retry_after }
            }
            Error::Invalid { reason, field, message } => Error::Invalid {
                reason: reason.clone(),
                field: field.clone(),
                message: message.clone(),
            },
            Error::Unavailable { message, retry_after } => {
                Error::Unavailable { message: message.clone(), retry_after: *retry_after }
            }
            Error::DeadlineExceeded => Error::DeadlineExceeded,
            Error::Corrupt { message } => Error::Corrupt { message: message.clone() },
            Error::Unauthenticated { message } => {
                Error::Unauthenticated { message: message.clone() }
            }
            Error::PermissionDenied { message } => {
                Error::PermissionDenied { message: message.clone() }
            }
            Error::Other { code, reason, message } => {
                Error::Other { code: *code, reason: reason.clone(), message: message.clone() }
            }
            Error::Protocol { message } => Error::protocol(message.clone()),
            other => Error::protocol(other.to_string()),
        }
    }

    /// How long the server asks to wait before trying again.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Error::Unavailable { retry_after, .. } | Error::Overloaded { retry_after, .. } => {
                *retry_after
            }
            _ => None,
        }
    }
}

fn describe_current(current: Option<&Metadata>) -> String {
    match current {
        None => "the key is missing".to_owned(),
        Some(metadata) => format!(
            "the key {:?} was last changed at revision {}",
            metadata.key, metadata.mod_revision
        ),
    }
}

fn describe_lineage(lineage: &Lineage) -> &str {
    if lineage.is_empty() { "it does not exist" } else { lineage.as_str() }
}
