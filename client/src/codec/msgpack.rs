//! Values as MessagePack.

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};

use super::{BoxError, Codec, Decode, Encode, media};

/// MessagePack through serde; content type `application/msgpack`. Needs the feature `msgpack`.
///
/// Structs are written as maps from the names of their fields, so that other languages can read them, and so that
/// a struct can grow: a new field with `#[serde(default)]` reads what was written without it, and fields that are
/// not known are skipped. Structs that others have written as arrays are read, too. It takes a little more room
/// than [`Postcard`](crate::codec::Postcard), and a good deal less than JSON where values hold numbers or bytes
/// (for those, see the crate `serde_bytes`).
///
/// It also reads `application/vnd.msgpack`, `application/x-msgpack` and `…+msgpack`, but not what has no content
/// type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessagePack;

impl Codec for MessagePack {
    fn content_type(&self) -> &str {
        "application/msgpack"
    }

    fn accepts(&self, content_type: &str) -> bool {
        const NAMES: [&str; 3] =
            ["application/msgpack", "application/vnd.msgpack", "application/x-msgpack"];
        media::is_one_of(content_type, &NAMES) || media::has_suffix(content_type, "+msgpack")
    }
}

impl<T: Serialize + ?Sized> Encode<T> for MessagePack {
    fn encode(&self, value: &T) -> Result<Bytes, BoxError> {
        Ok(rmp_serde::to_vec_named(value)?.into())
    }
}

impl<T: DeserializeOwned> Decode<T> for MessagePack {
    fn decode(&self, bytes: Bytes) -> Result<T, BoxError> {
        let mut reader = rmp_serde::Deserializer::new(&bytes[..]);
        let value = T::deserialize(&mut reader)?;
        match reader.into_inner().len() {
            0 => Ok(value),
            rest => Err(format!("{rest} bytes are left after the value").into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Point {
        x: i32,
        #[serde(default)]
        y: i32,
    }

    #[test]
    fn structs_are_maps_by_name() {
        let bytes = MessagePack.encode(&Point { x: 1, y: 2 }).expect("a point");
        assert_eq!(&bytes[..], b"\x82\xa1x\x01\xa1y\x02");
        let point: Point = MessagePack.decode(bytes).expect("a point");
        assert_eq!(point, Point { x: 1, y: 2 });
    }

    #[test]
    fn structs_may_have_been_written_as_arrays() {
        let point: Point =
            MessagePack.decode(Bytes::from_static(b"\x92\x01\x02")).expect("a point");
        assert_eq!(point, Point { x: 1, y: 2 });
    }

    #[test]
    fn what_follows_a_value_is_an_error() {
        let bytes = Bytes::from_static(b"\x01\x02");
        assert!(Decode::<i32>::decode(&MessagePack, bytes).is_err());
    }

    #[test]
    fn msgpack_goes_by_several_names() {
        for accepted in [
            "application/msgpack",
            "application/vnd.msgpack",
            "application/x-msgpack; v=1",
            "application/x+msgpack",
        ] {
            assert!(MessagePack.accepts(accepted), "{accepted}");
        }
        for refused in ["", "application/json", "application/octet-stream"] {
            assert!(!MessagePack.accepts(refused), "{refused}");
        }
    }
}
