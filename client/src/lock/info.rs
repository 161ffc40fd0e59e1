//! What is known of locks, their owners, and how they are lost.

use std::{fmt, time::Duration};

use bytes::Bytes;
use holdfast_proto::v1;

use super::LockGuard;
use crate::{Error, LeaseId, LeaseLoss, Timestamp, Token};

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockInfo {
    /// Its name.
    pub name: String,
    /// The fencing token of the hold.
    pub token: Token,
    /// Who holds it.
    pub owner: LockOwner,
    /// What the holder shows with it.
    pub value: Bytes,
    /// When it was granted.
    pub acquired_at: Timestamp,
    /// How long a renewal lasts; none for a hold as long as a lease.
    pub ttl: Option<Duration>,
    /// When the hold ends unless it is kept alive.
    pub expires_at: Timestamp,
    /// The lease that it lasts as long as.
    pub lease_id: Option<LeaseId>,
    /// How many wait for it.
    pub waiting: u32,
}

/// Who holds a lock, or wants to: shown to whoever finds it taken. Nothing is decided by it. Each field has at
/// most 1,024 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockOwner {
    /// Names the owner, for example a host and process.
    pub id: String,
    /// The person or the service behind it.
    pub who: String,
    /// What for.
    pub reason: String,
    /// What it is doing.
    pub operation: String,
    /// The program and its version.
    pub client_version: String,
}

impl LockOwner {
    /// An owner of this name.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// The person or the service behind it.
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.who = who.into();
        self
    }

    /// What for.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// What it is doing.
    pub fn operation(mut self, operation: impl Into<String>) -> Self {
        self.operation = operation.into();
        self
    }

    /// The program and its version; those of this library unless set.
    pub fn client_version(mut self, version: impl Into<String>) -> Self {
        self.client_version = version.into();
        self
    }
}

/// This process, by its number.
impl Default for LockOwner {
    fn default() -> Self {
        Self {
            id: format!("process {}", std::process::id()),
            who: String::new(),
            reason: String::new(),
            operation: String::new(),
            client_version: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"))
                .to_owned(),
        }
    }
}

impl fmt::Display for LockOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.who.as_str(), self.id.as_str()) {
            ("", "") => f.write_str("somebody without a name"),
            ("", id) => f.write_str(id),
            (who, "") => f.write_str(who),
            (who, id) => write!(f, "{who} ({id})"),
        }
    }
}

/// A hold that a write relies on: it is applied only while that hold is current.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The name of the lock, in the namespace of the write.
    pub lock: String,
    /// The token of the hold.
    pub token: Token,
}

impl Guard {
    /// This hold of this lock.
    pub fn new(lock: impl Into<String>, token: impl Into<Token>) -> Self {
        Self { lock: lock.into(), token: token.into() }
    }
}

impl From<&LockGuard> for Guard {
    fn from(hold: &LockGuard) -> Self {
        Self::new(hold.name(), hold.token())
    }
}

impl From<&LockInfo> for Guard {
    fn from(lock: &LockInfo) -> Self {
        Self::new(lock.name.clone(), lock.token)
    }
}

/// What became of a hold.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockLoss {
    /// Its TTL has ended.
    Expired,
    /// It was released.
    Released,
    /// Somebody took it away.
    Broken {
        /// Why, as they said.
        reason: String,
    },
    /// Its lease has ended.
    LeaseExpired,
    /// Its lease was revoked.
    LeaseRevoked,
    /// It was granted to a caller that had gone.
    Abandoned,
    /// That is no longer known.
    Unknown,
    /// No renewal was acknowledged in time, by the clock of this program. The server may not know yet.
    NotRenewed,
}

impl LockLoss {
    /// The cause by its name in `lock.proto`.
    pub(crate) fn from_wire(cause: &str, reason: String) -> Self {
        match cause {
            "expired" => Self::Expired,
            "released" => Self::Released,
            "broken" => Self::Broken { reason },
            "lease_expired" => Self::LeaseExpired,
            "lease_revoked" => Self::LeaseRevoked,
            "abandoned" => Self::Abandoned,
            _ => Self::Unknown,
        }
    }
}

impl From<LeaseLoss> for LockLoss {
    fn from(loss: LeaseLoss) -> Self {
        match loss {
            LeaseLoss::Ended => Self::LeaseExpired,
            LeaseLoss::Revoked => Self::LeaseRevoked,
            LeaseLoss::NotKeptAlive => Self::NotRenewed,
        }
    }
}

impl fmt::Display for LockLoss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "its time ran out",
            Self::Released => "it was released",
            Self::Broken { reason } if reason.is_empty() => "it was taken away",
            Self::Broken { reason } => return write!(f, "it was taken away: {reason}"),
            Self::LeaseExpired => "its lease ended",
            Self::LeaseRevoked => "its lease was revoked",
            Self::Abandoned => "its holder had gone when it was granted",
            Self::Unknown => "it is no longer known why",
            Self::NotRenewed => "no renewal was acknowledged in time",
        })
    }
}

impl LockInfo {
    pub(crate) fn from_wire(lock: v1::Lock) -> Self {
        let owner = lock.owner.unwrap_or_default();
        Self {
            name: lock.name,
            token: Token::new(lock.token),
            owner: LockOwner {
                id: owner.id,
                who: owner.who,
                reason: owner.reason,
                operation: owner.operation,
                client_version: owner.client_version,
            },
            value: lock.value,
            acquired_at: Timestamp::from_millis(lock.acquired_at_ms),
            ttl: (lock.ttl_ms != 0).then(|| Duration::from_millis(lock.ttl_ms)),
            expires_at: Timestamp::from_millis(lock.expires_at_ms),
            lease_id: lock.lease_id.map(LeaseId::new),
            waiting: lock.waiting,
        }
    }

    /// The lock in an answer that always has one.
    pub(super) fn answered(lock: Option<v1::Lock>) -> Result<Self, Error> {
        lock.map(Self::from_wire).ok_or_else(|| Error::protocol("an answer has no lock"))
    }
}

impl LockOwner {
    pub(super) fn into_wire(self) -> v1::LockOwner {
        v1::LockOwner {
            id: self.id,
            who: self.who,
            reason: self.reason,
            operation: self.operation,
            client_version: self.client_version,
        }
    }
}
