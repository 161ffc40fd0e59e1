//! What a state may have been besides its entries: until when leases last, and which TTL entries have by default. Neither
//! takes a revision when it changes.

use holdfast_proto::v1::NamespaceSettings;

use super::{Case, leases::Deadlines};
use crate::{
    history::{Call, History, Moment, Outcome, Request},
    model::Entries,
};

/// One possibility.
#[derive(Debug, Clone)]
pub struct Choice {
    pub deadlines: Deadlines,
    pub default_ttl_ms: Option<u64>,
}

/// The TTLs that entries had by default.
pub struct Defaults {
    /// The state in which each was set.
    set: Vec<(u64, i64, Option<u64>)>,
    /// When calls began that may have set one.
    perhaps: Vec<(Moment, Option<u64>)>,
}

impl Defaults {
    /// Reads what was asked for.
    pub fn read(history: &History) -> Self {
        let (mut set, mut perhaps) = (Vec::new(), Vec::new());
        for call in &history.calls {
            let Request::Update(NamespaceSettings { default_ttl_ms, .. }) = call.request else {
                continue;
            };
            match &call.outcome {
                Outcome::Updated(a) => set.push((a.revision, a.time_ms, default_ttl_ms)),
                Outcome::Unknown { .. } => perhaps.push((call.invoked, default_ttl_ms)),
                _ => {}
            }
        }
        set.sort_unstable();
        Defaults { set, perhaps }
    }

    /// Those that there may have been in a state, by a moment.
    fn possible(&self, (revision, time_ms): (u64, i64), by: Moment) -> Vec<Option<u64>> {
        let before = self.set.partition_point(|it| (it.0, it.1) < (revision, time_ms));
        let upto = self.set.partition_point(|it| (it.0, it.1) <= (revision, time_ms));
        let mut possible = match self.set[..before].last() {
            None => vec![None],
            // Of those that were set in one state, any may have been the last.
            Some(last) => {
                let of_last = self.set.partition_point(|it| (it.0, it.1) < (last.0, last.1));
                self.set[of_last..before].iter().map(|it| it.2).collect()
            }
        };
        possible.extend(self.set[before..upto].iter().map(|it| it.2));
        possible.extend(self.perhaps.iter().filter(|it| it.0 < by).map(|it| it.1));
        possible.sort_unstable();
        possible.dedup();
        possible
    }
}

impl Case<'_> {
    /// All that a state may have been for a call.
    pub fn choices(&self, state: &Entries, at: (u64, i64), call: &Call) -> Vec<Choice> {
        let leases = self.leases.choices(state, at, call);
        let defaults = self.defaults.possible(at, call.returned);
        let choices = leases.iter().flat_map(|deadlines| {
            defaults
                .iter()
                .map(|&default_ttl_ms| Choice { deadlines: deadlines.clone(), default_ttl_ms })
        });
        choices.collect()
    }
}
