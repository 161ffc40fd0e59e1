//! The names of files.

use std::fmt;

/// What a file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Kind {
    /// Commits, one after the other.
    Journal,
    /// The whole state.
    Snapshot,
    /// A snapshot that is not whole.
    Temporary,
}

/// The name of a file. A snapshot has all that the journals with lower numbers have.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Name {
    pub number: u64,
    pub kind: Kind,
}

/// Locked by who has the directory.
pub const LOCK: &str = "LOCK";
/// How far the clock has come.
pub const CLOCK: &str = "clock";
/// Written to see whether there is room, and removed at once.
pub const PROBE: &str = "probe.tmp";

impl Kind {
    fn parts(self) -> (&'static str, &'static str) {
        match self {
            Self::Journal => ("journal-", ".jsonl"),
            Self::Snapshot => ("snapshot-", ".jsonl"),
            Self::Temporary => ("snapshot-", ".tmp"),
        }
    }
}

impl Name {
    /// A name of this form; nothing of others.
    pub fn parse(text: &str) -> Option<Self> {
        [Kind::Journal, Kind::Snapshot, Kind::Temporary].into_iter().find_map(|kind| {
            let (before, after) = kind.parts();
            let digits = text.strip_prefix(before)?.strip_suffix(after)?;
            let name = Self { kind, number: digits.parse().ok()? };
            (name.to_string() == text).then_some(name)
        })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (before, after) = self.kind.parts();
        write!(f, "{before}{:08}{after}", self.number)
    }
}
