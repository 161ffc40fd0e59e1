//! Whether a history is one that the semantics allow: a pure function of what was seen.
//!
//! Revisions are assigned in the order of commits, and the state is a function of revision and time. So each answer is
//! compared with what the model answers at the state that it says it is of, and each revision of the log has to be what
//! some write does to the state before it. What is left is real time: what was seen or acknowledged before a call began,
//! that call has to see.

mod calls;
mod choices;
mod leases;
mod left;
mod lineages;
mod locks;
mod log;
mod order;
mod owners;
mod queues;
mod watches;

use std::fmt;

use holdfast_proto::v1::Event;

use crate::history::{Call, Chronicle, History};

pub use lineages::Course;
pub use order::observed;
pub use watches::selects;

/// How a history contradicts itself.
#[derive(Debug)]
pub struct Violation {
    /// Which promise is broken.
    pub promise: &'static str,
    /// How.
    pub what: String,
    /// The calls and events that show it, as far as they are few.
    pub story: Vec<String>,
}

/// What a judgement is made of.
struct Case<'a> {
    history: &'a History,
    log: log::Log<'a>,
    windows: order::Windows,
    leases: leases::Leases,
    defaults: choices::Defaults,
    holds: locks::Holds<'a>,
}

/// Whether everything that was seen of a namespace can have been.
pub fn judge_all(chronicle: &Chronicle) -> Result<(), Violation> {
    let course = Course::read(chronicle)?;
    course.histories().try_for_each(|history| judge(&history))
}

/// Whether everything that was seen of one lineage can have been.
pub fn judge(history: &History) -> Result<(), Violation> {
    let log = log::Log::read(history)?;
    let windows = order::check(history, &log)?;
    let leases = leases::Leases::read(history, &log);
    let holds = locks::Holds::read(history, &log)?;
    let defaults = choices::Defaults::read(history);
    let case = Case { history, log, windows, leases, defaults, holds };
    leases::check(&case)?;
    let owned = owners::of_answered(&case)?;
    locks::check(&case)?;
    owners::of_the_rest(&case, owned)?;
    queues::check(&case)?;
    watches::check(&case)?;
    watches::check_of_locks(&case)
}

impl Violation {
    fn new(promise: &'static str, what: impl Into<String>) -> Self {
        Violation { promise, what: what.into(), story: Vec::new() }
    }

    fn call(mut self, call: &Call) -> Self {
        self.story.push(call.to_string());
        self
    }

    fn event(mut self, event: &Event) -> Self {
        self.story.push(format!("{event:?}"));
        self
    }

    fn told(mut self, line: impl fmt::Debug) -> Self {
        self.story.push(format!("{line:?}"));
        self
    }

    /// With what the log holds of these keys in a range of revisions.
    fn with_log(mut self, log: &log::Log, keys: &[&str], from: u64, to: u64) -> Self {
        const MOST: usize = 12;
        let events = log.events(from, to).filter(|event| {
            keys.is_empty() || event.key.is_empty() || keys.contains(&event.key.as_str())
        });
        let lines: Vec<String> = events.map(|event| format!("log: {event:?}")).collect();
        let skipped = lines.len().saturating_sub(MOST);
        self.story.extend(lines.into_iter().skip(skipped));
        self
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}", self.promise, self.what)?;
        for line in &self.story {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
