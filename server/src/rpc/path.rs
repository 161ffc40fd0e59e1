//! Paths of fields in requests, as errors name them: `items[3].key`.

use std::fmt;

/// A field, and the fields it lies in. Costs nothing until it is shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path<'a> {
    outer: Option<&'a Path<'a>>,
    name: &'static str,
    index: Option<usize>,
}

impl<'a> Path<'a> {
    /// A field of the request.
    pub const fn of(name: &'static str) -> Self {
        Self { outer: None, name, index: None }
    }

    /// One item of a repeated field of the request.
    pub fn item(name: &'static str, index: usize) -> Self {
        Self { outer: None, name, index: Some(index) }
    }

    /// A field in this one.
    pub fn field(&'a self, name: &'static str) -> Self {
        Self { outer: Some(self), name, index: None }
    }

    /// One item of a repeated field in this one.
    pub fn item_of(&'a self, name: &'static str, index: usize) -> Self {
        Self { outer: Some(self), name, index: Some(index) }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(outer) = self.outer {
            write!(f, "{outer}.")?;
        }
        match self.index {
            Some(index) => write!(f, "{}[{index}]", self.name),
            None => f.write_str(self.name),
        }
    }
}
