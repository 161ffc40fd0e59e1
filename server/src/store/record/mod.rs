//! What stands under internal keys, and how it is written: JSON, so that state can be read by people and by
//! whatever reads a journal.

#[cfg(test)]
mod fuzz;
mod lease;
mod lock;
mod past;
pub(super) mod request;

use bytes::Bytes;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use lease::{LeaseRecord, LeaseView};
pub use lock::{Hold, HoldDuration, LockRecord, LockView, Owner, Queue, Ticket};
pub use past::{Ended, LossCause, Past};

/// A record as it is stored.
pub fn encode<T: Serialize>(record: &T) -> Bytes {
    serde_json::to_vec(record).expect("records have nothing that JSON cannot say").into()
}

/// A stored record. Only this program writes them, so that one that cannot be read is of another version: it is
/// taken for none, and said so.
pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let record = serde_json::from_slice(value);
    record.inspect_err(|error| tracing::error!(%error, "unreadable internal record")).ok()
}

/// A record that says nothing but that it is there.
#[derive(Debug, Serialize, Deserialize)]
pub struct Mark {}

/// Bytes as base64.
pub(super) mod base64 {
    use ::base64::{Engine as _, engine::general_purpose::STANDARD};
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Bytes::from).map_err(D::Error::custom)
    }
}
