//! Values as they are.

use std::borrow::Cow;

use bytes::Bytes;

use super::{BoxError, Codec, Decode, Encode};

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_keeps_bytes() {
        let bytes: Bytes = Raw::new().encode(&[0_u8, 255]).expect("bytes");
        assert_eq!(Decode::<Vec<u8>>::decode(&Raw::new(), bytes.clone()).expect("bytes"), [0, 255]);
        assert!(Decode::<String>::decode(&Raw::new(), bytes).is_err());
    }
}
