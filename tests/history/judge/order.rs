//! Real time: what was seen or acknowledged before a call began, that call has to see.

use super::{Violation, log::Log};
use crate::history::{Call, History, LockWatch, Moment, Request, Watch};

/// Between which states each call was.
pub struct Windows {
    of_calls: Vec<Window>,
    observations: Vec<Observation>,
}

/// A call was at one of the states from `from` to `to`.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: u64,
    pub from_ms: i64,
    pub to: u64,
    pub to_ms: i64,
}

/// Until this moment, somebody knew of this revision and time; and what tells of it, for a violation.
#[derive(Debug, Clone, Copy)]
struct Observation {
    at: Moment,
    revision: u64,
    time_ms: i64,
    call: Option<usize>,
}

/// Checks that no answer is of a state before one that was known already; the windows of all calls.
pub fn check(history: &History, log: &Log) -> Result<Windows, Violation> {
    let mut observations = observations(history);
    observations.sort_by_key(|it| it.at);
    let mut windows = Windows { of_calls: Vec::new(), observations: newest(observations) };
    for call in &history.calls {
        let (from, from_ms) = windows.known_at(call.invoked);
        let from = from.max(history.base);
        check_call(history, log, &windows, call)?;
        windows.of_calls.push(Window { from, from_ms, to: history.last, to_ms: i64::MAX });
    }
    windows.bound_above(history);
    Ok(windows)
}

impl Windows {
    pub fn of(&self, call: usize) -> Window {
        self.of_calls[call]
    }

    /// The newest revision and time that somebody knew of before a moment.
    pub fn known_at(&self, moment: Moment) -> (u64, i64) {
        let after = self.observations.partition_point(|it| it.at < moment);
        self.observations[..after].last().map_or((0, 0), |it| (it.revision, it.time_ms))
    }

    fn witness(&self, moment: Moment) -> Option<usize> {
        let after = self.observations.partition_point(|it| it.at < moment);
        self.observations[..after].last().and_then(|it| it.call)
    }

    /// What began after a call ended, and says at which state it was, is not before it.
    fn bound_above(&mut self, history: &History) {
        let mut later: Vec<(Moment, u64, i64)> = history
            .calls
            .iter()
            // Something that is answered again shows a state of long ago.
            .filter(|call| !call.is_of_the_past() && call.attempts == 1)
            .filter_map(|call| call.state().map(|(revision, time)| (call.invoked, revision, time)))
            .collect();
        later.sort_by_key(|(invoked, ..)| *invoked);
        let (mut revision, mut time) = (history.last, i64::MAX);
        for it in later.iter_mut().rev() {
            (revision, time) = (revision.min(it.1), time.min(it.2));
            (it.1, it.2) = (revision, time);
        }
        for (window, call) in self.of_calls.iter_mut().zip(&history.calls) {
            let next = later.partition_point(|(invoked, ..)| *invoked <= call.returned);
            if let Some((_, revision, time)) = later.get(next) {
                (window.to, window.to_ms) = (*revision, *time);
            }
        }
    }
}

fn check_call(
    history: &History,
    log: &Log,
    windows: &Windows,
    call: &Call,
) -> Result<(), Violation> {
    let Some((revision, time_ms)) = call.state() else { return Ok(()) };
    let (known, known_ms) = windows.known_at(call.invoked);
    let fail = |promise, what: String| {
        let mut violation = Violation::new(promise, what).call(call);
        if let Some(witness) = windows.witness(call.invoked) {
            violation = violation.call(&history.calls[witness]);
        }
        Err(violation)
    };
    if revision > history.last || revision < history.base || history.lost_at(revision).is_some() {
        return fail("an answer is of a revision that there is", format!("{revision}"));
    }
    if time_ms < known_ms && !matches!(call.request, Request::Compact(_)) {
        return fail("time never goes back", format!("{time_ms}, but it was {known_ms} before"));
    }
    if call.is_of_the_past() {
        return Ok(());
    }
    if revision < known {
        let what = format!("it is of {revision}, but {known} was seen before it began");
        return fail("what was seen is seen by who asks later", what);
    }
    let (from_ms, to_ms) = (log.time_of(revision), log.end_of(revision).unwrap_or(i64::MAX));
    if time_ms < from_ms || time_ms > to_ms {
        let what = format!("{time_ms} at {revision}, which lasted from {from_ms} to {to_ms}");
        return fail("state is a function of revision and time", what);
    }
    Ok(())
}

fn observations(history: &History) -> Vec<Observation> {
    let calls = history.calls.iter().enumerate().filter_map(|(index, call)| {
        let (revision, time_ms) = call.state()?;
        let revision = if call.is_of_the_past() { 0 } else { revision };
        Some(Observation { at: call.returned, revision, time_ms, call: Some(index) })
    });
    let told = told(&history.watches, &history.lock_watches);
    let told = told.map(|(at, revision)| Observation { at, revision, time_ms: 0, call: None });
    calls.chain(told).collect()
}

/// Who knew of which revision, from which moment on.
pub fn observed(
    calls: &[Call],
    watches: &[Watch],
    lock_watches: &[LockWatch],
) -> Vec<(Moment, u64)> {
    let current = calls.iter().filter(|call| !call.is_of_the_past());
    let answered = current.filter_map(|call| Some((call.returned, call.state()?.0)));
    answered.chain(told(watches, lock_watches)).collect()
}

fn told(watches: &[Watch], lock_watches: &[LockWatch]) -> impl Iterator<Item = (Moment, u64)> {
    let told = watches.iter().flat_map(|watch| watch.messages.iter());
    let told = told.map(|(at, message)| (*at, message.revision.max(message.complete_through)));
    let of_locks = lock_watches.iter().flat_map(|watch| watch.messages.iter());
    let of_locks =
        of_locks.map(|(at, message)| (*at, message.revision.max(message.complete_through)));
    told.chain(of_locks)
}

/// Each with the newest that was known by then.
fn newest(observations: Vec<Observation>) -> Vec<Observation> {
    let mut known = Observation { at: 0, revision: 0, time_ms: 0, call: None };
    let newest = observations.into_iter().map(|it| {
        if it.revision > known.revision {
            (known.revision, known.call) = (it.revision, it.call);
        }
        known.time_ms = known.time_ms.max(it.time_ms);
        known.at = it.at;
        known
    });
    newest.collect()
}
