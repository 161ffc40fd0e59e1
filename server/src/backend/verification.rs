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
