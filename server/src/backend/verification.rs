//! What is found by looking through stored state.

use std::fmt;

/// What there is, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// What was looked through, each with how much there is of it.
    pub seen: Vec<(&'static str, u64)>,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file, table, line or row, as far as it is known.
    pub place: String,
    /// What is wrong.
    pub problem: String,
    /// Whether the server would start all the same.
    pub harmless: bool,
}

/// What was saved of damaged state, and what was not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repaired {
    /// Where the damage begins, and what it is.
    pub damage: String,
    /// How many namespaces were saved, deleted ones included.
    pub namespaces: u64,
    /// How many keys of users these hold.
    pub keys: u64,
    /// How many lines are given up that are not sound.
    pub unsound_lines: u64,
    /// How many commits are given up that are sound by themselves, but come after the damage.
    pub lost_commits: u64,
    /// When the last of these was committed.
    pub last_lost_ms: Option<i64>,
}

impl Verification {
    /// How many findings keep the server from starting.
    pub fn harmful(&self) -> usize {
        self.findings.iter().filter(|finding| !finding.harmless).count()
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = if self.harmless { "harmless" } else { "damage" };
        write!(f, "{weight}: {}: {}", self.place, self.problem)
    }
}
