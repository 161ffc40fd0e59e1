//! Values as Postcard.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{BoxError, Codec, Decode, Encode, media};

/// [Postcard](https://postcard.jamesmunns.com) through serde; content type `application/postcard`. Needs the
/// feature `postcard`.
///
/// The smallest and fastest form, for values that only Rust programs read, and all in the same version: neither
/// names nor types are written, only the fields in their order. A struct therefore cannot change while values of
/// it are stored: write an enum of its versions instead, which may grow at its end, or use
/// [`MessagePack`](crate::codec::MessagePack).
///
/// It also reads `application/x-postcard`, but not what has no content type: bytes of another form would often be
/// read without an error.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Postcard;

impl Codec for Postcard {
    fn content_type(&self) -> &str {
        "application/postcard"
    }

    fn accepts(&self, content_type: &str) -> bool {
        media::is_one_of(content_type, &["application/postcard", "application/x-postcard"])
    }
}

impl<T: Serialize + ?Sized> Encode<T> for Postcard {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(postcard::to_allocvec(value)?.into())
    }
}

impl<T: DeserializeOwned> Decode<T> for Postcard {
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError> {
        match postcard::take_from_bytes(&bytes)? {
            (value, []) => Ok(value),
            // A newer struct, most likely: better not half of it.
            (_, rest) => Err(format!("{} bytes are left after the value", rest.len()).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postcard_is_read_whole_or_not_at_all() {
        let bytes = Postcard.encode(&(300_u32, "a")).expect("a pair");
        assert_eq!(&bytes[..], b"\xac\x02\x01a");
        let pair: (u32, String) = Postcard.decode(bytes.clone()).expect("a pair");
        assert_eq!(pair, (300, "a".to_owned()));
        assert!(Decode::<u32>::decode(&Postcard, bytes.clone()).is_err());
        assert!(Decode::<(u32, String)>::decode(&Postcard, bytes.slice(..3)).is_err());
    }

    #[test]
    fn postcard_reads_nothing_else() {
        assert!(Postcard.accepts("application/postcard"));
        assert!(Postcard.accepts("application/x-postcard"));
        assert!(!Postcard.accepts(""));
        assert!(!Postcard.accepts("application/octet-stream"));
    }
}
