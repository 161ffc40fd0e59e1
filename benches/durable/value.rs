//! What is stored.

use bytes::Bytes;

const VALUE_BYTES: usize = 256;

/// What a value is, which decides how a line of the journal shows it.
#[derive(Clone, Copy)]
pub enum Form {
    /// As text.
    Text,
    /// As it is.
    Json,
    /// In base64.
    Binary,
}

impl Form {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Text, Self::Json, Self::Binary];

    /// For the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "JSON",
            Self::Binary => "base64",
        }
    }

    /// The content type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain",
            Self::Json => "application/json",
            Self::Binary => "application/octet-stream",
        }
    }

    /// A value, another one for every number.
    pub fn value(self, number: usize) -> Bytes {
        let mut value = match self {
            Self::Text => format!("number {number:012} ").into_bytes(),
            Self::Json => format!(r#"{{"number":{number},"filled":""#).into_bytes(),
            Self::Binary => [&[0xff, 0x00][..], &number.to_be_bytes()].concat(),
        };
        let end: &[u8] = if matches!(self, Self::Json) { br#""}"# } else { b"" };
        value.resize(VALUE_BYTES - end.len(), b'x');
        value.extend_from_slice(end);
        value.into()
    }
}

/// The key of a number.
pub fn key(number: usize) -> String {
    format!("key:{number:012}")
}
