//! What values are, as those say who write them.

use std::{fmt, ops::Deref};

use triomphe::ThinArc;

/// A content type: bytes, mostly text; empty: unknown. The usual ones take no memory beside it.
#[derive(Clone)]
pub struct ContentType(Form);

#[derive(Clone)]
enum Form {
    /// A number in [`USUAL`].
    Usual(u8),
    Other(ThinArc<(), u8>),
}

const USUAL: [&[u8]; 5] =
    [b"", b"application/json", b"text/plain", b"application/octet-stream", b"application/msgpack"];

impl ContentType {
    /// Nothing is known.
    pub const UNKNOWN: Self = Self(Form::Usual(0));
    /// JSON.
    pub const JSON: Self = Self(Form::Usual(1));
    /// Text.
    pub const TEXT: Self = Self(Form::Usual(2));

    /// A content type of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let usual = (0..).zip(USUAL).find(|(_, usual)| *usual == bytes);
        Self(usual.map_or_else(
            || Form::Other(ThinArc::from_header_and_slice((), bytes)),
            |(number, _)| Form::Usual(number),
        ))
    }
}

impl Default for ContentType {
    fn default() -> Self {
        Self::UNKNOWN
    }
}

impl Deref for ContentType {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match &self.0 {
            Form::Usual(number) => USUAL[usize::from(*number)],
            Form::Other(bytes) => &bytes.slice,
        }
    }
}

impl PartialEq for ContentType {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for ContentType {}

impl From<&str> for ContentType {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes())
    }
}

impl fmt::Debug for ContentType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}
