//! Values as JSON.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{BoxError, Codec, Decode, Encode, media};

/// JSON through serde, the default; content type `application/json`.
///
/// It also reads `…+json` and what has no content type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Json;

impl Codec for Json {
    fn content_type(&self) -> &str {
        "application/json"
    }

    fn accepts(&self, content_type: &str) -> bool {
        media::is_one_of(content_type, &["", "application/json"])
            || media::has_suffix(content_type, "+json")
    }
}

impl<T: Serialize + ?Sized> Encode<T> for Json {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(serde_json::to_vec(value)?.into())
    }
}

impl<T: DeserializeOwned> Decode<T> for Json {
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError> {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_json_and_the_unknown_alone() {
        for accepted in
            ["", "application/json", "application/json; charset=utf-8", "application/problem+json"]
        {
            assert!(Json.accepts(accepted), "{accepted}");
        }
        assert!(!Json.accepts("text/plain"));
        assert!(!Json.accepts("application/octet-stream"));
    }
}
