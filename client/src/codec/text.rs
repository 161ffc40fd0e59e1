//! Values as text.

use std::{fmt::Display, str::FromStr};

use bytes::Bytes;

use super::{BoxError, Codec, Decode, Encode, media};

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
        media::is_one_of(content_type, &["", "text/plain"])
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_holds_counters() {
        assert_eq!(Text.encode(&-5_i64).expect("text"), Bytes::from("-5"));
        assert_eq!(Decode::<i64>::decode(&Text, "-5".into()).expect("number"), -5);
        assert!(Decode::<i64>::decode(&Text, "five".into()).is_err());
    }
}
