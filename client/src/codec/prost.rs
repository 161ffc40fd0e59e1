//! Values as protobuf messages.

use std::borrow::Cow;

use bytes::Bytes;
use prost::{Message, Name};

use super::{BoxError, Codec, Decode, Encode, media};

/// The media type of protobuf; the parameter `proto` is the full name of the message.
const PROTOBUF: &str = "application/protobuf";

/// Messages of protobuf made by [prost](https://docs.rs/prost) 0.14; content type `application/protobuf`.
///
/// A handle with [`Prost::new`] reads and writes any message, and believes its caller which one: protobuf does
/// not say, and reads most messages as most others. A handle with [`Prost::of`] or [`Prost::named`] says with each
/// value what it is, as `application/protobuf; proto=shop.v1.Cart`, and refuses what says to be another message; it
/// still reads what names none.
///
/// All of them also read the former names `application/x-protobuf` and `application/vnd.google.protobuf`, but not
/// what has no content type.
///
/// ```
/// use holdfast_client::{Codec as _, codec::Prost};
///
/// let codec = Prost::of::<prost_types::Timestamp>();
/// assert_eq!(codec.content_type(), "application/protobuf; proto=google.protobuf.Timestamp");
/// assert!(!codec.accepts("application/protobuf; proto=google.protobuf.Duration"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prost {
    content_type: Cow<'static, str>,
}

impl Prost {
    /// Messages of any kind, without their names.
    pub const fn new() -> Self {
        Self { content_type: Cow::Borrowed(PROTOBUF) }
    }

    /// Messages written with the name of this one, and checked for it. The name comes with the code that prost makes
    /// if its build says `enable_type_names()`; else give it to [`Prost::named`].
    pub fn of<M: Name>() -> Self {
        Self::named(&M::full_name())
    }

    /// Messages written with this full name, and checked for it, like `shop.v1.Cart`. The content type around it takes
    /// 28 bytes of the 128 that it may have.
    pub fn named(full_name: &str) -> Self {
        Self { content_type: format!("{PROTOBUF}; proto={full_name}").into() }
    }
}

impl Default for Prost {
    fn default() -> Self {
        Self::new()
    }
}

impl Codec for Prost {
    fn content_type(&self) -> &str {
        &self.content_type
    }

    fn accepts(&self, content_type: &str) -> bool {
        const NAMES: [&str; 3] =
            [PROTOBUF, "application/x-protobuf", "application/vnd.google.protobuf"];
        let named = |content_type| media::parameter(content_type, "proto");
        media::is_one_of(content_type, &NAMES)
            && match (named(&self.content_type), named(content_type)) {
                (Some(expected), Some(found)) => expected == found,
                _ => true,
            }
    }
}

impl<T: Message> Encode<T> for Prost {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(value.encode_to_vec().into())
    }
}

impl<T: Message + Default> Decode<T> for Prost {
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError> {
        Ok(T::decode(bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use prost_types::{Duration, Timestamp};

    use super::*;

    #[test]
    fn a_message_comes_back() {
        let timestamp = Timestamp { seconds: 5, nanos: 7 };
        let bytes = Prost::new().encode(&timestamp).expect("a message");
        assert_eq!(&bytes[..], b"\x08\x05\x10\x07");
        let read: Timestamp = Prost::new().decode(bytes).expect("a message");
        assert_eq!(read, timestamp);
    }

    #[test]
    fn names_are_checked_where_both_have_one() {
        let timestamps = Prost::of::<Timestamp>();
        assert!(timestamps.accepts(timestamps.content_type()));
        assert!(timestamps.accepts("application/protobuf"));
        assert!(timestamps.accepts("application/x-protobuf; proto=\"google.protobuf.Timestamp\""));
        assert!(!timestamps.accepts(Prost::of::<Duration>().content_type()));
        assert!(Prost::new().accepts(timestamps.content_type()));
        assert!(!Prost::new().accepts(""));
        assert!(!Prost::new().accepts("application/json"));
    }
}
