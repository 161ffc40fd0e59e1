//! One lineage after the other under one name: whoever meets the next is told, and nothing is given twice.
//!
//! Revisions never repeat under a name, so the revision of an answer tells of which lineage it is. What is of one lineage
//! is judged by itself, as a history. What was under way while one ended and the next began can be of either: it is not
//! held against any of the two, but may have made what nobody else made.

use holdfast_proto::v1::{pipeline_call::Operation as Op, watch_request::Start};

use super::{Violation, order};
use crate::{
    history::{
        Call, Chronicle, Epoch, History, LockWatch, Moment, Outcome, Request, Session, Watch,
    },
    watching::Told,
};

/// What somebody who asks later has to know.
const SEEN: &str = "what was seen is seen by who asks later";

/// Which lineage something is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    /// That of this number.
    One(usize),
    /// It may be of several, or of none, or of what nobody took down.
    Unclear,
}

/// When one lineage ended and the next began.
#[derive(Debug, Clone, Copy)]
struct Turn {
    /// Before that it was not asked for.
    from: Moment,
    /// Then somebody knew of the next.
    to: Moment,
}

/// A chronicle that is taken apart.
pub struct Course<'a> {
    chronicle: &'a Chronicle,
    /// From one lineage to the next, of all but the last.
    turns: Vec<Turn>,
    /// Revisions that somebody knew of, by the moments from which on; each with the newest by then.
    known: Vec<(Moment, u64)>,
    /// Revisions that somebody was told who began then; each with the least of those that began later.
    later: Vec<(Moment, u64)>,
}

impl<'a> Course<'a> {
    /// Checks what is between lineages.
    pub fn read(chronicle: &'a Chronicle) -> Result<Self, Violation> {
        check_epochs(&chronicle.epochs)?;
        let mut course = Course {
            chronicle,
            turns: Vec::new(),
            known: known(chronicle),
            later: later(chronicle),
        };
        for next in 1..chronicle.epochs.len() {
            let turn = course.turn_to(next)?;
            course.turns.push(turn);
        }
        chronicle.calls.iter().try_for_each(|call| course.check_call(call))?;
        chronicle.watches.iter().try_for_each(|it| course.check_watch(it, asked_of_keys(it)))?;
        chronicle
            .lock_watches
            .iter()
            .try_for_each(|it| course.check_watch(it, asked_of_locks(it)))?;
        Ok(course)
    }

    /// What was seen of each lineage.
    pub fn histories(&self) -> impl Iterator<Item = History> {
        (0..self.chronicle.epochs.len()).map(|number| self.history(number))
    }

    fn history(&self, number: usize) -> History {
        let Chronicle { epochs, end_ms, is_steady, .. } = self.chronicle;
        let Epoch { lineage, base, last, initial, log, lock_log } = epochs[number].clone();
        let calls = self.chronicle.calls.iter().filter_map(|call| self.as_of(number, call));
        let watches = self.chronicle.watches.iter().filter(|it| self.is_of(number, it));
        let lock_watches = self.chronicle.lock_watches.iter().filter(|it| self.is_of(number, it));
        History {
            base,
            last,
            end_ms: *end_ms,
            lineage,
            is_over: number + 1 < epochs.len(),
            is_steady: *is_steady,
            initial,
            log,
            lock_log,
            calls: calls.collect(),
            watches: watches.cloned().collect(),
            lock_watches: lock_watches.cloned().collect(),
        }
    }

    /// A call as one lineage may have seen it; nothing if it certainly did not, or nothing of it could be judged.
    fn as_of(&self, number: usize, call: &Call) -> Option<Call> {
        if self.of_call(call) == Of::One(number) {
            return Some(call.clone());
        }
        if self.is_border_grant(number, call) {
            return Some(call.clone());
        }
        let from = self.turns.iter().filter(|turn| turn.to <= call.invoked).count();
        let to = match (&call.outcome, self.of_call(call)) {
            (_, Of::One(other)) => other,
            (Outcome::Unknown { .. }, _) => self.turns.len(),
            _ => self.turns.iter().filter(|turn| turn.from < call.returned).count(),
        };
        let is_refused = matches!(call.outcome, Outcome::Refused(_));
        let is_told = matches!(self.of_call(call), Of::One(_)) || is_refused;
        // What was answered, or surely refused, by another was not done here, but for attempts and waits before.
        let may_be =
            (from..=to).contains(&number) && (!is_told || call.attempts > 1 || call.waits());
        may_be.then(|| {
            let why = "it was of another lineage".to_owned();
            Call { outcome: Outcome::Unknown { why }, ..call.clone() }
        })
    }

    /// Whether a call granted a lease at the revision that a lineage began with, or the one before ended with.
    fn is_border_grant(&self, number: usize, call: &Call) -> bool {
        let is_grant = matches!(&call.request, Request::Do(Op::Grant(_)));
        let at = call.state().map(|(revision, _)| revision);
        is_grant && number > 0 && at == Some(self.chronicle.epochs[number].base)
    }

    /// Of which lineage a call is, as far as it was answered or refused.
    fn of_call(&self, call: &Call) -> Of {
        match (&call.outcome, call.state()) {
            (_, Some((revision, _))) if !call.is_of_the_past() => self.of_answer(call, revision),
            (Outcome::Unknown { .. }, _) => Of::Unclear,
            (Outcome::Refused(_), _) => match self.at(call.invoked, call.returned) {
                Of::One(number) if self.is_taken_down(number, call.returned) => Of::One(number),
                _ => Of::Unclear,
            },
            (_, at) => match self.at(call.invoked, call.returned) {
                // What was not taken down is not known.
                Of::One(number)
                    if at.is_none_or(|(past, _)| past <= self.chronicle.epochs[number].last) =>
                {
                    Of::One(number)
                }
                _ => Of::Unclear,
            },
        }
    }

    fn of_answer(&self, call: &Call, revision: u64) -> Of {
        let epochs = &self.chronicle.epochs;
        let Some(number) = epochs.iter().rposition(|epoch| epoch.base <= revision) else {
            return Of::Unclear;
        };
        // A lineage may begin with the revision that the one before ended with.
        let is_border = number > 0 && epochs[number].base == revision;
        let number = match is_border {
            true => match self.at(call.invoked, call.returned) {
                Of::One(number) => number,
                Of::Unclear => return Of::Unclear,
            },
            false => number,
        };
        match (epochs[number].base..=epochs[number].last).contains(&revision) {
            true => Of::One(number),
            false => Of::Unclear,
        }
    }

    /// Which lineage was there from one moment to another.
    fn at(&self, from: Moment, to: Moment) -> Of {
        let is_turning = self.turns.iter().any(|turn| from < turn.to && turn.from < to);
        match is_turning {
            true => Of::Unclear,
            false => Of::One(self.turns.iter().filter(|turn| turn.to <= from).count()),
        }
    }

    /// Whether all that there was of a lineage up to a moment was taken down.
    fn is_taken_down(&self, number: usize, by: Moment) -> bool {
        let last = self.chronicle.epochs[number].last;
        let next = self.later.partition_point(|(invoked, _)| *invoked <= by);
        let is_last = number == self.turns.len();
        self.later.get(next).map_or(is_last, |(_, revision)| *revision <= last)
    }

    /// Whether a watch is one of this lineage.
    fn is_of<W, M: Told>(&self, number: usize, watch: &Session<W, M>) -> bool {
        match named(watch) {
            Some(lineage) => lineage == self.chronicle.epochs[number].lineage,
            // Where nothing came that tells.
            None => {
                watch.messages.is_empty() && self.at(watch.opened, watch.closed) == Of::One(number)
            }
        }
    }

    fn known_at(&self, moment: Moment) -> u64 {
        let after = self.known.partition_point(|(at, _)| *at < moment);
        self.known[..after].last().map_or(0, |(_, revision)| *revision)
    }

    /// When a lineage began: something must have ended the one before.
    fn turn_to(&self, next: usize) -> Result<Turn, Violation> {
        let Chronicle { epochs, changes, .. } = self.chronicle;
        let (former, later) = (&epochs[next - 1], &epochs[next]);
        let told = self.chronicle.watches.iter().flat_map(|watch| {
            let first = watch.messages.first().map(|(at, _)| *at);
            first.filter(|_| named(watch) == Some(&later.lineage))
        });
        let after = self.known.partition_point(|(_, revision)| *revision <= later.base);
        let to = self.known.get(after).map(|(at, _)| *at).into_iter().chain(told).min();
        let to = to.unwrap_or(Moment::MAX);
        let answered = self.chronicle.calls.iter().filter(|call| !call.is_of_the_past());
        let former_at = answered.filter(|call| {
            let revision = call.state().map_or(0, |(revision, _)| revision);
            former.base < revision && revision < later.base
        });
        let still = former_at.map(|call| call.invoked).max().unwrap_or(0);
        let from =
            changes.iter().filter(|change| change.done > still).map(|change| change.begun).min();
        match from.filter(|from| *from < to) {
            Some(from) => Ok(Turn { from, to }),
            None => {
                let what = format!("{} came after {}", later.lineage, former.lineage);
                Err(Violation::new("a lineage stays until something ends it", what))
            }
        }
    }

    fn check_call(&self, call: &Call) -> Result<(), Violation> {
        let fail = |promise, what: String| Err(Violation::new(promise, what).call(call));
        if let Outcome::Refused(failure) = &call.outcome
            && failure.reason == "LINEAGE_CHANGED"
            && let Of::One(number) = self.at(call.invoked, call.returned)
            && call.expected_lineage().is_none_or(|it| it == self.chronicle.epochs[number].lineage)
        {
            return fail("a refusal has its reason", "the lineage was that".to_owned());
        }
        let Some((revision, _)) = call.state() else { return Ok(()) };
        let known = self.known_at(call.invoked);
        if call.is_of_the_past() {
            // What another lineage held is not the past of this one.
            let epochs = self.chronicle.epochs.iter();
            let base = epochs.map(|epoch| epoch.base).filter(|base| *base < known).max();
            return match base.filter(|base| revision < *base) {
                Some(base) => fail(SEEN, format!("{revision}, but the lineage began at {base}")),
                None => Ok(()),
            };
        }
        // A namespace that never was is at none.
        let is_gone = revision == 0 && self.at(call.invoked, call.returned) == Of::Unclear;
        if revision < known && !is_gone {
            return fail(
                SEEN,
                format!("it is of {revision}, but {known} was seen before it began"),
            );
        }
        match (self.of_call(call), call.expected_lineage()) {
            (Of::One(number), Some(expected))
                if self.chronicle.epochs[number].lineage != expected =>
            {
                fail("a write is applied to the lineage that it names", expected.to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Checks that a watch keeps to one lineage, the one that is there, and begins anew where it was asked for another.
    fn check_watch<W: std::fmt::Debug, M: Told + std::fmt::Debug>(
        &self,
        watch: &Session<W, M>,
        (asked, goes_on, reset): (Option<&str>, bool, bool),
    ) -> Result<(), Violation> {
        let fail = |promise, what: String| {
            let first = watch.messages.first().map(|(_, message)| message);
            let violation = Violation::new(promise, what).told(("asked", &watch.request));
            Err(violation.told(("first", first)).told(("end", &watch.end)))
        };
        let epochs = &self.chronicle.epochs;
        if let Some(end) = watch.end.as_ref().filter(|end| end.reason == "LINEAGE_CHANGED") {
            // None of what begins another lineage here leaves anything of the one before.
            if end.metadata.get("valid_through").is_none_or(|through| through != "0") {
                return fail("a watch says truly what it lost", "nothing is shared".to_owned());
            }
            if let (true, Of::One(number)) =
                (watch.messages.is_empty(), self.at(watch.opened, watch.closed))
                && asked.is_none_or(|asked| asked == epochs[number].lineage)
            {
                return fail("a watch ends only with a reason", "its lineage was there".to_owned());
            }
        }
        let Some(lineage) = named(watch) else {
            let is_told = watch.messages.iter().any(|(_, message)| !message.events().is_empty());
            return match is_told {
                true => fail("a watch is of one lineage", "it names none".to_owned()),
                false => Ok(()),
            };
        };
        if goes_on && !reset && asked.is_some_and(|asked| asked != lineage && !asked.is_empty()) {
            return fail("a watch of another lineage begins anew", "it goes on".to_owned());
        }
        let Some(number) = epochs.iter().position(|epoch| epoch.lineage == lineage) else {
            // It came and went before anybody could take it down.
            return Ok(());
        };
        if self.turns.get(number).is_some_and(|turn| turn.to < watch.opened) {
            return fail(SEEN, format!("it is of {lineage}, which had ended"));
        }
        let Some(next) = epochs.get(number + 1) else { return Ok(()) };
        let beyond = watch.messages.iter().find(|(_, message)| {
            let events = message.events().iter().map(M::revision_of);
            events.chain([message.complete_through()]).any(|revision| revision > next.base)
        });
        match beyond {
            Some((_, message)) => {
                let what = format!("after {} is another lineage", next.base);
                Err(Violation::new("a watch is of one lineage", what).told(message))
            }
            None => Ok(()),
        }
    }
}

/// Revisions rise over all lineages, and no lineage comes twice.
fn check_epochs(epochs: &[Epoch]) -> Result<(), Violation> {
    for (number, epoch) in epochs.iter().enumerate() {
        let former = &epochs[..number];
        if former.iter().any(|it| it.lineage == epoch.lineage) {
            return Err(Violation::new("a lineage never comes back", epoch.lineage.clone()));
        }
        if let Some(former) = former.iter().find(|it| it.last > epoch.base) {
            let what = format!("{} begins at {} after {}", epoch.lineage, epoch.base, former.last);
            return Err(Violation::new("no revision comes twice under a name", what));
        }
    }
    Ok(())
}

/// The lineage that a watch is of.
fn named<W, M: Told>(watch: &Session<W, M>) -> Option<&str> {
    watch.messages.iter().find_map(|(_, message)| message.lineage())
}

/// The lineage that a watch was asked for, whether it was to go on from a revision, and whether it began anew instead.
fn asked_of_keys(watch: &Watch) -> (Option<&str>, bool, bool) {
    use holdfast_proto::v1::watch_response::Body;
    let goes_on = matches!(watch.request.start, Some(Start::AfterRevision(_)));
    let first = watch.messages.first().and_then(|(_, message)| message.body.as_ref());
    let reset = matches!(first, Some(Body::Created(created)) if created.reset);
    (watch.request.lineage.as_deref(), goes_on, reset)
}

fn asked_of_locks(watch: &LockWatch) -> (Option<&str>, bool, bool) {
    use holdfast_proto::v1::watch_locks_response::Body;
    let goes_on = watch.request.after_revision.is_some();
    let first = watch.messages.first().and_then(|(_, message)| message.body.as_ref());
    let reset = matches!(first, Some(Body::Created(created)) if created.reset);
    (watch.request.lineage.as_deref(), goes_on, reset)
}

fn known(chronicle: &Chronicle) -> Vec<(Moment, u64)> {
    let mut known: Vec<(Moment, u64)> =
        order::observed(&chronicle.calls, &chronicle.watches, &chronicle.lock_watches);
    known.sort_unstable();
    let mut newest = 0;
    for (_, revision) in &mut known {
        newest = newest.max(*revision);
        *revision = newest;
    }
    known
}

fn later(chronicle: &Chronicle) -> Vec<(Moment, u64)> {
    let calls = chronicle.calls.iter().filter(|call| !call.is_of_the_past() && call.attempts == 1);
    let answered = calls.filter_map(|call| Some((call.invoked, call.state()?.0)));
    let mut later: Vec<(Moment, u64)> = answered.filter(|(_, revision)| *revision > 0).collect();
    later.sort_unstable();
    let mut least = u64::MAX;
    for (_, revision) in later.iter_mut().rev() {
        least = least.min(*revision);
        *revision = least;
    }
    later
}
