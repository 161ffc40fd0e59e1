//! Answers of scripts, taken apart.

use bytes::Bytes;
use redis::Value;

use crate::backend::BackendError;

/// An answer, of which one part after the other is taken.
pub(super) struct Parts(std::vec::IntoIter<Value>);

impl Parts {
    pub(super) fn of(answer: Value) -> Result<Self, BackendError> {
        match answer {
            Value::Array(parts) => Ok(Self(parts.into_iter())),
            _ => Err(strange("no list")),
        }
    }

    /// The next part.
    pub(super) fn take(&mut self) -> Result<Value, BackendError> {
        self.0.next().ok_or_else(|| strange("too short"))
    }

    pub(super) fn list(&mut self) -> Result<Vec<Value>, BackendError> {
        list(self.take()?)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, BackendError> {
        bytes(self.take()?)?.ok_or_else(|| strange("nothing where there must be something"))
    }

    pub(super) fn number(&mut self) -> Result<i64, BackendError> {
        number(&self.take()?)
    }
}

pub(super) fn list(value: Value) -> Result<Vec<Value>, BackendError> {
    match value {
        Value::Array(parts) => Ok(parts),
        _ => Err(strange("no list")),
    }
}

/// Text, if there is any.
pub(super) fn bytes(value: Value) -> Result<Option<Bytes>, BackendError> {
    match value {
        Value::BulkString(bytes) => Ok(Some(bytes.into())),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Ok(Some(text.into())),
        Value::Nil => Ok(None),
        _ => Err(strange("no text")),
    }
}

pub(super) fn number(value: &Value) -> Result<i64, BackendError> {
    match value {
        Value::Int(number) => Ok(*number),
        Value::BulkString(bytes) => parse(bytes).ok_or_else(|| strange("no number")),
        _ => Err(strange("no number")),
    }
}

/// Reads decimal digits.
pub(super) fn parse<T: std::str::FromStr>(bytes: &[u8]) -> Option<T> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// What no script of this version answers.
pub(super) fn strange(what: &str) -> BackendError {
    BackendError::Corrupt(format!("an answer of Redis is not understood: {what}"))
}
