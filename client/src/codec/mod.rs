//! How values become bytes.
//!
//! A codec is a small value that a [`Namespace`](crate::Namespace) carries. What it writes it marks with its content
//! type, and it reads only what is marked so: a value of another form is
//! [`Error::UnexpectedContentType`](crate::Error::UnexpectedContentType), which names the key and both types.
//!
//! | codec | values | content type | feature |
//! | --- | --- | --- | --- |
//! | [`Json`] | whatever serde knows; the default | `application/json` | |
//! | [`MessagePack`] | the same, smaller, and as readable for other languages | `application/msgpack` | `msgpack` |
//! | [`Postcard`] | the same, smallest, for Rust alone and structs that do not change | `application/postcard` | `postcard` |
//! | [`Prost`] | messages of protobuf | `application/protobuf` | |
//! | [`Text`] | what has `Display` and `FromStr`; counters | `text/plain` | |
//! | [`Raw`] | bytes as they are | `application/octet-stream` | |
//!
//! The features are on unless `default-features = false`.
//!
//! To bring one's own, implement [`Codec`], and [`Encode`] and [`Decode`] for the types it knows, which may be few:
//!
//! ```
//! use bytes::Bytes;
//! use holdfast_client::{BoxError, Codec, Decode, Encode};
//!
//! /// Colours as three bytes.
//! #[derive(Clone)]
//! struct Rgb;
//!
//! impl Codec for Rgb {
//!     fn content_type(&self) -> &str {
//!         "application/x-rgb"
//!     }
//! }
//!
//! impl Encode<[u8; 3]> for Rgb {
//!     fn encode(&self, value: &[u8; 3]) -> Result<Bytes, BoxError> {
//!         Ok(Bytes::copy_from_slice(value))
//!     }
//! }
//!
//! impl Decode<[u8; 3]> for Rgb {
//!     fn decode(&self, bytes: Bytes) -> Result<[u8; 3], BoxError> {
//!         Ok(<[u8; 3]>::try_from(&bytes[..])?)
//!     }
//! }
//!
//! # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
//! let colours = client.namespace("colours").with_codec(Rgb);
//! colours.set("sky", &[135, 206, 235]).await?;
//! # Ok(())
//! # }
//! ```

mod json;
mod media;
#[cfg(feature = "msgpack")]
mod msgpack;
#[cfg(feature = "postcard")]
mod postcard;
mod prost;
mod raw;
mod text;

use bytes::Bytes;

#[cfg(feature = "msgpack")]
pub use self::msgpack::MessagePack;
#[cfg(feature = "postcard")]
pub use self::postcard::Postcard;
pub use self::{json::Json, prost::Prost, raw::Raw, text::Text};

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
