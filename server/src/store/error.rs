//! Why the store did not do what it was asked.

use super::record::LossCause;
use crate::backend::{BackendError, Key, Lineage, NamespaceName, Revision};

/// Why a command was refused. `E` is how it shows an entry.
#[derive(Debug, Clone)]
pub enum Refusal<E> {
    /// The condition did not hold.
    ConditionNotMet {
        /// What is there instead.
        current: Option<Box<E>>,
    },
    /// The value is not a decimal number, or would not be one.
    NotANumber {
        /// What is wrong.
        problem: String,
    },
    /// One revision would change too much.
    TooLarge {
        /// What there is too much of: `keys`, `bytes`, `bytes of the answer`, `entries read` or
        /// `keys looked at`.
        what: &'static str,
        /// How much.
        size: u64,
        /// The limit.
        limit: u64,
    },
    /// A quota of the namespace would be exceeded.
    QuotaExceeded {
        /// Which.
        quota: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The namespace has another history than the one named.
    LineageChanged {
        /// Its lineage now.
        lineage: Option<Lineage>,
    },
    /// The hold of a lock is not current.
    LockLost {
        /// The lock.
        lock: Key,
        /// The token of the hold.
        token: Revision,
        /// Why.
        cause: LossCause,
    },
    /// There is no such lease.
    LeaseNotFound {
        /// Its id.
        lease: u64,
    },
    /// The id of a lease is in use, or was.
    LeaseIdUsed {
        /// The id.
        lease: u64,
    },
    /// Too many wait for a lock already.
    TooManyWaiters {
        /// The limit.
        limit: u64,
    },
    /// The id of a request came before with another one.
    RequestReused {
        /// Its number.
        seq: u64,
    },
    /// The client has said before that it is done with this request.
    RequestDone {
        /// Its number.
        seq: u64,
        /// All requests before this one are done with.
        done_below: u64,
    },
    /// Too many answers to requests with an id are kept already.
    TooManyRequests {
        /// Of what there are too many: `answers` or `bytes`.
        unit: &'static str,
        /// The limit.
        limit: u64,
    },
    /// An operation of a transaction was refused.
    Operation {
        /// `then` or `otherwise`.
        branch: &'static str,
        /// Which operation of the branch.
        index: usize,
        /// Why.
        refusal: Box<Refusal<E>>,
    },
}

impl<E> Refusal<E> {
    /// The same with entries shown in another way.
    pub fn map<T>(self, show: &impl Fn(E) -> T) -> Refusal<T> {
        match self {
            Self::ConditionNotMet { current } => {
                let current = current.map(|current| Box::new(show(*current)));
                Refusal::ConditionNotMet { current }
            }
            Self::NotANumber { problem } => Refusal::NotANumber { problem },
            Self::TooLarge { what, size, limit } => Refusal::TooLarge { what, size, limit },
            Self::QuotaExceeded { quota, limit } => Refusal::QuotaExceeded { quota, limit },
            Self::LineageChanged { lineage } => Refusal::LineageChanged { lineage },
            Self::LockLost { lock, token, cause } => Refusal::LockLost { lock, token, cause },
            Self::LeaseNotFound { lease } => Refusal::LeaseNotFound { lease },
            Self::LeaseIdUsed { lease } => Refusal::LeaseIdUsed { lease },
            Self::TooManyWaiters { limit } => Refusal::TooManyWaiters { limit },
            Self::RequestReused { seq } => Refusal::RequestReused { seq },
            Self::RequestDone { seq, done_below } => Refusal::RequestDone { seq, done_below },
            Self::TooManyRequests { unit, limit } => Refusal::TooManyRequests { unit, limit },
            Self::Operation { branch, index, refusal } => {
                let refusal = Box::new(refusal.map(show));
                Refusal::Operation { branch, index, refusal }
            }
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone)]
pub enum StoreError {
    /// The command was refused; nothing was changed.
    Refused {
        /// Why.
        refusal: Refusal<super::command::EntryView>,
        /// The revision at which it was judged.
        revision: Revision,
    },
    /// A watch or a page goes on from another history.
    LineageChanged {
        /// The lineage now.
        lineage: Option<Lineage>,
        /// The last revision both histories share; 0: none is known.
        valid_through: Revision,
    },
    /// The namespace to be imported has something already, and is not to be replaced.
    NotEmpty {
        /// Its name.
        namespace: NamespaceName,
    },
    /// Others kept changing what the command reads.
    Contended {
        /// How often it was tried.
        attempts: u32,
    },
    /// Too many commands wait for their turn.
    Overloaded,
    /// The backend's word.
    Backend(BackendError),
}

impl StoreError {
    /// Whether what was to be gone on from is no longer there, or never was.
    pub fn is_lost_history(&self) -> bool {
        use BackendError::{Compacted, Future};
        matches!(
            self,
            Self::LineageChanged { .. } | Self::Backend(Compacted { .. } | Future { .. })
        )
    }
}

impl From<BackendError> for StoreError {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Lost { lineage, valid_through } => {
                Self::LineageChanged { lineage, valid_through }
            }
            error => Self::Backend(error),
        }
    }
}
