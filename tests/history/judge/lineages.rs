//! One lineage after the other under one name: whoever meets the next is told, and nothing is given twice.
//!
//! Revisions never repeat under a name, so the revision of an answer tells of which lineage it is. What is of one lineage
//! is judged by itself, as a history. What was under way while one ended and the next began can be of either: it is not
//! held against any of the two, but may have made what nobody else made.
//!
//! A store that comes back with a part of what it had goes on under another lineage, far beyond all that was lost. What
//! is lost is a last part of all commits, and nothing else is forgiven: what such a lineage goes on from is judged once
//! more, up to there, as the beginning of its own history. What was answered of later revisions is left out of that.

use holdfast_proto::v1::{pipeline_call::Operation as Op, watch_request::Start};

use super::{Violation, left, order};
use crate::{
    history::{
        Border, Call, Change, Chronicle, Epoch, History, Imported, LockWatch, Moment, Outcome,
        Request, Session, Watch,
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

/// The lineages that one goes on from, the oldest first, and that itself: each with the last revision that is left of it.
type Line = Vec<(usize, u64)>;

/// A chronicle that is taken apart.
pub struct Course<'a> {
    chronicle: &'a Chronicle,
    /// What each lineage goes on from, with itself.
    lines: Vec<Line>,
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
        check_imports(chronicle)?;
        let lines = (0..chronicle.epochs.len()).map(|number| line(&chronicle.epochs, number));
        let mut course = Course {
            chronicle,
            lines: lines.collect(),
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

    /// What was seen of each lineage, with what it goes on from.
    pub fn histories(&self) -> impl Iterator<Item = History> {
        let all = 0..self.chronicle.epochs.len();
        all.filter(|number| self.is_known(*number)).map(|number| self.history(number))
    }

    fn history(&self, number: usize) -> History {
        let Chronicle { epochs, end_ms, is_steady, is_replicated, .. } = self.chronicle;
        let line = &self.lines[number];
        let root = &epochs[line[0].0];
        let parts = || line.iter().map(|(part, upto)| (&epochs[*part], *upto));
        let log = parts().flat_map(|(it, upto)| it.log.iter().filter(move |e| e.revision <= upto));
        let lock_log =
            parts().flat_map(|(it, upto)| it.lock_log.iter().filter(move |e| e.revision <= upto));
        let calls = self.chronicle.calls.iter().filter_map(|call| self.as_of(number, call));
        let watches = self.chronicle.watches.iter().filter(|it| self.is_of(number, it));
        let lock_watches = self.chronicle.lock_watches.iter().filter(|it| self.is_of(number, it));
        let next = epochs.get(number + 1);
        History {
            base: root.base,
            last: epochs[number].last,
            end_ms: *end_ms,
            lineage: epochs[number].lineage.clone(),
            borders: self.borders(number),
            is_over: next.is_some(),
            kept: next.and_then(|next| next.shared).filter(|_| *is_replicated),
            is_steady: *is_steady,
            initial: root.initial.clone(),
            imported: match root.initial.is_empty() {
                true => Imported::default(),
                false => self.chronicle.imported.clone(),
            },
            log: log.cloned().collect(),
            lock_log: lock_log.cloned().collect(),
            calls: calls.collect(),
            watches: watches.cloned().collect(),
            lock_watches: lock_watches.cloned().collect(),
        }
    }

    /// What lies between a lineage and those that it goes on from.
    fn borders(&self, number: usize) -> Vec<Border> {
        let Chronicle { epochs, is_replicated, .. } = self.chronicle;
        let pairs = self.lines[number].windows(2).map(|pair| Border {
            lineage: epochs[pair[0].0].lineage.clone(),
            through: pair[0].1,
            resumed: epochs[pair[1].0].base,
            is_whole: *is_replicated,
        });
        pairs.collect()
    }

    /// The border of a lineage in which a revision lies that was lost.
    fn lost_at(&self, number: usize, revision: u64) -> Option<Border> {
        let is_in = |it: &Border| it.through < revision && revision < it.resumed;
        self.borders(number).into_iter().find(is_in)
    }

    fn is_known(&self, number: usize) -> bool {
        self.lines[number].iter().all(|(part, _)| self.chronicle.epochs[*part].is_known)
    }

    /// A call as one lineage may have seen it; nothing if it certainly did not, or nothing of it could be judged.
    fn as_of(&self, number: usize, call: &Call) -> Option<Call> {
        let of = self.of_call(call);
        let is_of = |part| of == Of::One(part) || self.is_border_grant(part, call);
        if is_of(number) {
            return Some(call.clone());
        }
        let line = &self.lines[number];
        if let Some((_, upto)) = line.iter().find(|(part, _)| is_of(*part)) {
            return left::as_left(call, *upto, self.chronicle.is_replicated);
        }
        let from = self.turns.iter().filter(|turn| turn.to <= call.invoked).count();
        let to = match (&call.outcome, of) {
            (_, Of::One(other)) => other,
            (Outcome::Unknown { .. }, _) => self.turns.len(),
            _ => self.turns.iter().filter(|turn| turn.from < call.returned).count(),
        };
        let is_refused = matches!(call.outcome, Outcome::Refused(_));
        let is_told = matches!(of, Of::One(_)) || is_refused;
        // What was answered, or surely refused, by another was not done here, but for attempts and waits before.
        let may_be = line.iter().any(|(part, _)| (from..=to).contains(part))
            && (!is_told || call.attempts > 1 || call.waits());
        may_be.then(|| left::unknown(call))
    }

    /// Whether a call granted a lease at the revision that a lineage began with, or the one before ended with.
    fn is_border_grant(&self, number: usize, call: &Call) -> bool {
        let is_grant = matches!(&call.request, Request::Do(Op::Grant(_)));
        let at = call.state().map(|(revision, _)| revision);
        let epoch = &self.chronicle.epochs[number];
        is_grant && number > 0 && epoch.shared.is_none() && at == Some(epoch.base)
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
        // A lineage may begin with the revision that the one before ended with, unless it goes on from that.
        let is_border =
            number > 0 && epochs[number].base == revision && epochs[number].shared.is_none();
        let number = match is_border {
            true => match self.at(call.invoked, call.returned) {
                Of::One(number) => number,
                Of::Unclear => return Of::Unclear,
            },
            false => number,
        };
        let is_in = (epochs[number].base..=epochs[number].last).contains(&revision);
        match is_in && self.is_known(number) {
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
        // One that was opened before there was a namespace names its lineage later.
        let told = self.chronicle.watches.iter().flat_map(|watch| {
            let mut named =
                watch.messages.iter().filter(|(_, message)| message.lineage().is_some());
            let (at, message) = named.next()?;
            (message.lineage() == Some(&later.lineage)).then_some(*at)
        });
        let after = self.known.partition_point(|(_, revision)| !later.is_begun(*revision));
        let to = self.known.get(after).map(|(at, _)| *at).into_iter().chain(told).min();
        let to = to.unwrap_or(Moment::MAX);
        let answered = self.chronicle.calls.iter().filter(|call| !call.is_of_the_past());
        let former_at = answered.filter(|call| {
            let revision = call.state().map_or(0, |(revision, _)| revision);
            // What nobody took down may be of a lineage in between that nobody took down.
            former.base < revision && revision < later.base && revision <= former.last
        });
        let still = former_at.map(|call| call.invoked).max().unwrap_or(0);
        // What takes all away leaves nothing to go on from.
        let can_be = |change: &&Change| {
            change.done > still && (later.shared.is_none() || change.kept.is_some())
        };
        let cause = changes.iter().filter(can_be).min_by_key(|change| change.begun);
        let Some(cause) = cause.filter(|change| change.begun < to) else {
            let what = format!("{} came after {}", later.lineage, former.lineage);
            return Err(Violation::new("a lineage stays until something ends it", what));
        };
        let left = cause.kept.map_or(0, |by| self.known_at(by));
        // It may have been that there was no such namespace then.
        if left > former.base && later.shared.is_none_or(|shared| shared < left) {
            let what = format!("{left} was, but {:?} is all that there is of it", later.shared);
            return Err(Violation::new("what a store was left with is there again", what));
        }
        Ok(Turn { from: cause.begun, to })
    }

    fn check_call(&self, call: &Call) -> Result<(), Violation> {
        let fail = |promise, what: String| Err(Violation::new(promise, what).call(call));
        if let Outcome::Refused(failure) = &call.outcome
            && failure.reason == "LINEAGE_CHANGED"
            && let Of::One(number) = self.at(call.invoked, call.returned)
            && call.expected_lineage().is_none_or(|it| it == self.chronicle.epochs[number].lineage)
        {
            // Of what was lost it is told how much is left.
            let lost = call.at_revision().and_then(|at| self.lost_at(number, at));
            let told = failure.metadata.get("valid_through");
            match lost.map(|border| border.through.to_string()) {
                Some(through) if told == Some(&through) => {}
                _ => return fail("a refusal has its reason", "the lineage was that".to_owned()),
            }
        }
        let Some((revision, _)) = call.state() else { return Ok(()) };
        let known = self.known_at(call.invoked);
        if call.is_of_the_past() {
            // What another lineage held is not the past of this one, unless this goes on from that.
            let begun = self.chronicle.epochs.iter().rposition(|epoch| epoch.is_begun(known));
            let Some(number) = begun.filter(|_| known > 0) else { return Ok(()) };
            let base = self.chronicle.epochs[self.lines[number][0].0].base;
            return match self.lost_at(number, revision) {
                _ if revision < base => {
                    fail(SEEN, format!("{revision}, but the lineage began at {base}"))
                }
                Some(_) => fail(SEEN, format!("{revision}, but that was lost")),
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
        asked: Asked,
    ) -> Result<(), Violation> {
        let fail = |promise, what: String| {
            let first = watch.messages.first().map(|(_, message)| message);
            let violation = Violation::new(promise, what).told(("asked", &watch.request));
            Err(violation.told(("first", first)).told(("end", &watch.end)))
        };
        let epochs = &self.chronicle.epochs;
        if let Some(end) = watch.end.as_ref().filter(|end| end.reason == "LINEAGE_CHANGED") {
            let through = end.metadata.get("valid_through").and_then(|told| told.parse().ok());
            let possible = self.possibly_left(watch, &asked);
            if possible.is_empty() {
                return fail("a watch ends only with a reason", "its lineage was there".to_owned());
            }
            if through.is_none_or(|through| !possible.contains(&through)) {
                let what = format!("what is left of it ends at one of {possible:?}");
                return fail("a watch says truly what it lost", what);
            }
            let is_left = asked.after.is_some_and(|after| through >= Some(after.max(1)));
            if watch.messages.is_empty() && is_left {
                return fail("a watch that has lost nothing goes on", format!("{through:?}"));
            }
        }
        let Some(lineage) = named(watch) else {
            let is_told = watch.messages.iter().any(|(_, message)| !message.events().is_empty());
            return match is_told {
                true => fail("a watch is of one lineage", "it names none".to_owned()),
                false => Ok(()),
            };
        };
        let number = epochs.iter().position(|epoch| epoch.lineage == lineage);
        let other = asked.lineage.filter(|asked| *asked != lineage && !asked.is_empty());
        if let (Some(other), Some(after), false) = (other, asked.after, asked.reset) {
            let through = number.map_or(0, |number| self.left_of(other, number));
            if after > through || through == 0 {
                return fail("a watch of another lineage begins anew", "it goes on".to_owned());
            }
        }
        let Some(number) = number else {
            // It came and went before anybody could take it down.
            return Ok(());
        };
        if self.turns.get(number).is_some_and(|turn| turn.to < watch.opened) {
            return fail(SEEN, format!("it is of {lineage}, which had ended"));
        }
        let Some(next) = epochs.get(number + 1) else { return Ok(()) };
        let beyond = watch.messages.iter().find(|(_, message)| {
            let events = message.events().iter().map(M::revision_of);
            events.chain([message.complete_through()]).any(|revision| next.is_begun(revision))
        });
        match beyond {
            Some((_, message)) => {
                let what = format!("after {} is another lineage", next.base);
                Err(Violation::new("a watch is of one lineage", what).told(message))
            }
            None => Ok(()),
        }
    }

    /// Up to where a lineage was left when another began; 0 if nothing was left of it.
    fn left_of(&self, lineage: &str, number: usize) -> u64 {
        let is_it = |(part, _): &&(usize, u64)| self.chronicle.epochs[*part].lineage == lineage;
        let (_, former) = self.lines[number].split_last().expect("it is in its line");
        former.iter().find(is_it).map_or(0, |(_, upto)| *upto)
    }

    /// What can be left of the lineage of a watch, or of what it was to go on from, when it ended for that.
    fn possibly_left<W, M: Told>(&self, watch: &Session<W, M>, asked: &Asked) -> Vec<u64> {
        let begun = watch.messages.last().map_or(watch.opened, |(at, _)| *at);
        let from = self.turns.iter().filter(|turn| turn.to <= begun).count();
        let to = self.turns.iter().filter(|turn| turn.from < watch.closed).count();
        // One that has begun anew while there was no namespace names none.
        let followed = named(watch).or(asked.lineage.filter(|_| !asked.reset));
        let mut possible = Vec::new();
        for number in from..=to {
            let lineage = &self.chronicle.epochs[number].lineage;
            if followed.is_some_and(|it| it != lineage) {
                possible.extend(followed.map(|it| self.left_of(it, number)));
            } else if let (true, Some(after)) = (watch.messages.is_empty(), asked.after) {
                possible.extend(self.lost_at(number, after).map(|border| border.through));
            }
        }
        let is_turning = from < to || !watch.messages.is_empty();
        if possible.is_empty() && is_turning {
            // Of one that nobody took down nothing was left.
            let next = self.chronicle.epochs.get(to.max(from + 1)).and_then(|next| next.shared);
            possible.push(next.unwrap_or(0));
        }
        if asked.reset && named(watch).is_none() {
            // What it followed then may have come and gone without a trace.
            possible.push(0);
        }
        possible
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

/// Checks that what a lineage begins with is what was imported: nothing else begins with something.
fn check_imports(chronicle: &Chronicle) -> Result<(), Violation> {
    let begun = chronicle.epochs.iter().filter(|epoch| !epoch.initial.is_empty());
    let mut strange = begun.filter(|epoch| epoch.initial != chronicle.imported.entries);
    match strange.next() {
        Some(epoch) => {
            let promise = "an import brings what was exported";
            Err(Violation::new(promise, "it is another").told(&epoch.initial))
        }
        None => Ok(()),
    }
}

/// The lineage that a watch is of.
fn named<W, M: Told>(watch: &Session<W, M>) -> Option<&str> {
    watch.messages.iter().find_map(|(_, message)| message.lineage())
}

/// What a watch was asked to go on from, and whether it began anew instead.
struct Asked<'a> {
    lineage: Option<&'a str>,
    after: Option<u64>,
    reset: bool,
}

fn asked_of_keys(watch: &Watch) -> Asked<'_> {
    use holdfast_proto::v1::watch_response::Body;
    let after = match &watch.request.start {
        Some(Start::AfterRevision(after)) => Some(after.revision),
        _ => None,
    };
    let first = watch.messages.first().and_then(|(_, message)| message.body.as_ref());
    let reset = matches!(first, Some(Body::Created(created)) if created.reset);
    Asked { lineage: watch.request.lineage.as_deref(), after, reset }
}

fn asked_of_locks(watch: &LockWatch) -> Asked<'_> {
    use holdfast_proto::v1::watch_locks_response::Body;
    let after = watch.request.after_revision.map(|after| after.revision);
    let first = watch.messages.first().and_then(|(_, message)| message.body.as_ref());
    let reset = matches!(first, Some(Body::Created(created)) if created.reset);
    Asked { lineage: watch.request.lineage.as_deref(), after, reset }
}

/// A lineage with those that it goes on from.
fn line(epochs: &[Epoch], number: usize) -> Line {
    let mut line = vec![(number, epochs[number].last)];
    let mut at = number;
    while let (Some(through), true) = (epochs[at].shared, at > 0) {
        at -= 1;
        line.insert(0, (at, through));
    }
    line
}

impl Epoch {
    /// Whether a revision tells that it has begun.
    fn is_begun(&self, revision: u64) -> bool {
        revision > self.base || revision == self.base && self.shared.is_some()
    }
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
