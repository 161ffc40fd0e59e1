//! Which keys a request is about.

use super::{
    glob::{Glob, GlobError},
    keys,
};
use crate::backend::{Key, KeyRange};

/// Most keys looked at without a break.
const MAX_STEP: usize = 1000;
/// Most parts of patterns compared with keys without a break; each may have to be compared with every character.
const STEP_PARTS: usize = 16_000;

/// A set of keys: a range, and within it perhaps a pattern. Reads, writes, watches and (one day) access checks
/// all go by this one form, so that they cannot disagree at an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector {
    range: KeyRange,
    glob: Option<Glob>,
}

impl Selector {
    /// One key.
    pub fn key(key: &Key) -> Self {
        KeyRange { start: key.clone(), end: Some(key.successor()) }.into()
    }

    /// The keys that begin with `prefix`, which is not empty.
    pub fn prefix(prefix: &str) -> Self {
        keys::with_prefix(prefix.as_bytes()).into()
    }

    /// The keys from `start` on and before `end`.
    pub fn range(start: &[u8], end: Option<&[u8]>) -> Self {
        keys::between(start, end).into()
    }

    /// The keys that match a pattern.
    ///
    /// # Errors
    /// [`GlobError`] where the pattern is none.
    pub fn glob(pattern: &str) -> Result<Self, GlobError> {
        let glob = Glob::parse(pattern)?;
        let (prefix, whole) = glob.literal_prefix();
        Ok(match (prefix.as_str(), whole) {
            // No key of users begins so; internal ones do.
            (internal, _) if internal.starts_with('\0') => {
                Self { range: keys::between(b"", Some(b"\x01")), glob: Some(glob) }
            }
            ("", _) => Self { range: keys::all(), glob: Some(glob) },
            (_, true) => Self::key(&Key::new(prefix.as_bytes())),
            _ => Self { range: keys::with_prefix(prefix.as_bytes()), glob: Some(glob) },
        })
    }

    /// All keys.
    pub fn all() -> Self {
        keys::all().into()
    }

    /// The range that all of them lie in.
    pub fn bounds(&self) -> &KeyRange {
        &self.range
    }

    /// How many keys to look at without a break: fewer where a pattern takes long to be compared with each.
    pub fn step(&self) -> usize {
        let parts = self.glob.as_ref().map_or(1, Glob::part_count);
        (STEP_PARTS / parts.max(1)).clamp(1, MAX_STEP)
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let end = self.range.end.as_ref().map_or(0, |end| end.as_bytes().len());
        let glob = self.glob.as_ref().map_or(0, Glob::bytes);
        self.range.start.as_bytes().len() + end + glob
    }

    /// Whether the key is one of them.
    pub fn contains(&self, key: &Key) -> bool {
        self.range.contains(key)
            && self.glob.as_ref().is_none_or(|glob| {
                std::str::from_utf8(key.as_bytes()).is_ok_and(|text| glob.matches(text))
            })
    }
}

impl From<KeyRange> for Selector {
    fn from(range: KeyRange) -> Self {
        Self { range, glob: None }
    }
}
