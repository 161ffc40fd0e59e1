//! How values become bytes.
//!
//! A codec is a small value that a [`Namespace`](crate::Namespace) carries. To bring one's own, implement
//! [`Codec`], and [`Encode`] and [`Decode`] for the types it knows, which may be few: a codec for protobuf
//! messages implements them for `T: prost::Message`.

use std::{borrow::Cow, fmt::Display, str::FromStr};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

/// Why a codec failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A form that values have outside the program.
pub trait Codec: Clone + Send + Sync + 'static {
    /// What is stored with every value written: at most 128 bytes, without control characters.
    fn content_type(&self) -> &str;

    /// Whether values of this content type can be read. Empty means that the writer did not say.
    fn accepts(&self, content_type: &str) -> bool {
        content_type == self.content_type()
    }
}

/// A codec that can write a `T`.
pub trait Encode<T: ?Sized>: Codec {
    /// The bytes of a value.
    ///
    /// # Errors
    /// Whatever keeps the value from being written in this form.
    fn encode(&self, value: &T) -> Result<Bytes, BoxError>;
}

/// A codec that can read a `T`.
pub trait Decode<T>: Codec {
    /// The value of some bytes, whose content type was accepted.
    ///
    /// # Errors
    /// The bytes are not such a value.
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError>;
}

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
        let essence = essence(content_type);
        essence.is_empty()
            || essence.eq_ignore_ascii_case("application/json")
            || essence.to_ascii_lowercase().ends_with("+json")
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

/// Bytes as they are: writes anything that is `AsRef<[u8]>`, reads `Bytes`, `Vec<u8>` and `String`, of any
/// content type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    content_type: Cow<'static, str>,
}

impl Raw {
    /// Bytes written as `application/octet-stream`.
    pub const fn new() -> Self {
        Self { content_type: Cow::Borrowed("application/octet-stream") }
    }

    /// Bytes written with this content type; empty means unknown.
    pub fn with_content_type(content_type: impl Into<Cow<'static, str>>) -> Self {
        Self { content_type: content_type.into() }
    }
}

impl Default for Raw {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Raw {
    fn content_type(&self) -> &str {
        &self.content_type
    }

    fn accepts(&self, _content_type: &str) -> bool {
        true
    }
}

impl<T: AsRef<[u8]> + ?Sized> Encode<T> for Raw {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(Bytes::copy_from_slice(value.as_ref()))
    }
}

impl Decode<Bytes> for Raw {
    fn decode(&self, bytes: Bytes) -> Result<Bytes, BoxError> {
        Ok(bytes)
    }
}

impl Decode<Vec<u8>> for Raw {
    fn decode(&self, bytes: Bytes) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.into())
    }
}

impl Decode<String> for Raw {
    fn decode(&self, bytes: Bytes) -> Result<String, BoxError> {
        Ok(String::from_utf8(bytes.into())?)
    }
}

/// Text through `Display` and `FromStr`; content type `text/plain`.
///
/// The form of counters: a number written so can be [incremented](crate::Namespace::increment), and a
/// counter can be read as an `i64`. It also reads what has no content type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text;

impl Codec for Text {
    fn content_type(&self) -> &str {
        "text/plain"
    }

    fn accepts(&self, content_type: &str) -> bool {
        let essence = essence(content_type);
        essence.is_empty() || essence.eq_ignore_ascii_case("text/plain")
    }
}

impl<T: Display + ?Sized> Encode<T> for Text {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(value.to_string().into())
    }
}

impl<T> Decode<T> for Text
where
    T: FromStr,
    T::Err: Into<BoxError>,
{
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError> {
        std::str::from_utf8(&bytes)?.parse().map_err(Into::into)
    }
}

/// A content type without its parameters: `text/plain; charset=utf-8` is `text/plain`.
fn essence(content_type: &str) -> &str {
    content_type.split_once(';').map_or(content_type, |(essence, _)| essence).trim()
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

    #[test]
    fn text_holds_counters() {
        assert_eq!(Text.encode(&-5_i64).expect("text"), Bytes::from("-5"));
        assert_eq!(Decode::<i64>::decode(&Text, "-5".into()).expect("number"), -5);
        assert!(Decode::<i64>::decode(&Text, "five".into()).is_err());
    }

    #[test]
    fn raw_keeps_bytes() {
        let bytes: Bytes = Raw::new().encode(&[0_u8, 255]).expect("bytes");
        assert_eq!(Decode::<Vec<u8>>::decode(&Raw::new(), bytes.clone()).expect("bytes"), [0, 255]);
        assert!(Decode::<String>::decode(&Raw::new(), bytes).is_err());
    }
}
