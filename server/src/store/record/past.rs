//! How the holds of a lock ended.

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::decode;
use crate::backend::Revision;

/// Of how many former holds it is known how they ended.
const MAX_ENDED: usize = 8;

/// How the last holds of a lock ended, the newest first. It is handed on with every hold, and seldom asked for: so it stays
/// as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Past(Box<RawValue>);

/// How a hold ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// The token of the hold.
    pub token: u64,
    /// How.
    pub cause: LossCause,
}

/// Why a hold is no longer current.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LossCause {
    /// Its TTL ended.
    Expired,
    /// Its holder gave it up.
    Released,
    /// It was taken away.
    Broken {
        /// Why.
        reason: String,
    },
    /// Its lease ended.
    LeaseExpired,
    /// Its lease was revoked.
    LeaseRevoked,
    /// It was granted to a caller that had gone.
    Abandoned,
    /// That is not known (any more), or there never was such a hold.
    Unknown,
}

impl Past {
    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.get() == "[]"
    }

    /// What is known, the newest first.
    pub fn ended(&self) -> Vec<Ended> {
        decode(self.0.get().as_bytes()).unwrap_or_default()
    }

    /// Why the hold with this token, which is not the present one, has ended.
    pub fn cause_of_loss(&self, token: Revision) -> LossCause {
        let ended = self.ended().into_iter().find(|ended| ended.token == token.0);
        ended.map_or(LossCause::Unknown, |ended| ended.cause)
    }

    /// The same with one more, which is the newest.
    pub fn with(&self, ended: Ended) -> Self {
        let mut all = self.ended();
        all.insert(0, ended);
        all.truncate(MAX_ENDED);
        all.as_slice().into()
    }
}

impl Default for Past {
    fn default() -> Self {
        [].as_slice().into()
    }
}

impl From<&[Ended]> for Past {
    fn from(ended: &[Ended]) -> Self {
        Self(to_raw_value(ended).expect("it has nothing that JSON cannot say"))
    }
}

impl PartialEq for Past {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl Eq for Past {}

impl LossCause {
    /// Its name, for programs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Released => "released",
            Self::Broken { .. } => "broken",
            Self::LeaseExpired => "lease_expired",
            Self::LeaseRevoked => "lease_revoked",
            Self::Abandoned => "abandoned",
            Self::Unknown => "unknown",
        }
    }
}
