//! Watches: filtered, ordered, once, whole revisions, nothing missing, and resumable where they say so.

use holdfast_proto::v1::{
    watch_locks_request::Locks, watch_locks_response::Body as LockBody, watch_request::Start,
    watch_response::Body, *,
};

use super::{
    Case, Violation,
    calls::{compacted_before, live_at},
};
use crate::{
    draft,
    history::{History, LockWatch, Session, Watch},
};

const PROMISE: &str = "a watch tells every matching event, in order, once";

/// How far a watch has come.
struct Course<'a> {
    history: &'a History,
    /// Up to where all has been told.
    complete: u64,
    /// The revision of the last event.
    newest: u64,
    /// Whether the present state is being told.
    in_initial: bool,
}

/// Checks all watches of keys.
pub(super) fn check(case: &Case) -> Result<(), Violation> {
    case.history
        .watches
        .iter()
        .try_for_each(|watch| check_one(case, watch).map_err(|violation| shown(violation, watch)))
}

/// Checks all watches of locks.
pub(super) fn check_of_locks(case: &Case) -> Result<(), Violation> {
    case.history.lock_watches.iter().try_for_each(|watch| {
        check_one_of_locks(case, watch).map_err(|violation| shown(violation, watch))
    })
}

fn shown<R: std::fmt::Debug, M>(violation: Violation, watch: &Session<R, M>) -> Violation {
    violation.told(("asked", &watch.request, "opened at ns", watch.opened))
}

fn check_one(case: &Case, watch: &Watch) -> Result<(), Violation> {
    let (after, or_initial) = match watch.request.start {
        Some(Start::AfterRevision(it)) => (Some(it.revision), it.or_initial),
        _ => (None, false),
    };
    let asked_initial = matches!(watch.request.start, Some(Start::Initial(_)));
    check_end(case, watch, after, or_initial, is_cleared(case, watch))?;
    let Some((_, first)) = watch.messages.first() else { return Ok(()) };
    let Some(Body::Created(created)) = &first.body else {
        return Err(Violation::new(PROMISE, "created does not come first").told(first));
    };
    let is_lost = is_lost(case, watch.request.lineage.as_deref(), after);
    check_start(case, watch, after, created.revision, created.reset, is_lost)?;
    check_lineage(case, &created.lineage)?;
    let in_initial = asked_initial || created.reset;
    let complete = if in_initial { 0 } else { created.revision };
    let history = case.history;
    let mut course = Course { history, complete, newest: created.revision, in_initial };
    course.advance(first.complete_through)?;
    let (mut told, mut initial) = (Vec::new(), Vec::new());
    for (at, message) in &watch.messages[1..] {
        match &message.body {
            Some(Body::Initial(part)) if course.in_initial => {
                initial.extend(part.entries.iter().cloned());
                course.in_initial = !part.end;
                if part.end {
                    check_initial(case, watch, message, &initial, *at)?;
                }
            }
            Some(Body::Events(events)) if !course.in_initial => {
                for event in &events.events {
                    course.event(event.revision, event)?;
                    told.push(event);
                }
            }
            Some(Body::Progress(_)) if !course.in_initial => {}
            _ => return Err(Violation::new(PROMISE, "a message out of turn").told(message)),
        }
        course.advance(message.complete_through)?;
    }
    check_events(case, watch, created.revision, course.complete, &told)
}

/// Whether the events are those of the log, up to where they are said to be complete, and a part of those after.
fn check_events(
    case: &Case,
    watch: &Watch,
    from: u64,
    complete: u64,
    told: &[&Event],
) -> Result<(), Violation> {
    let expected: Vec<Event> = case
        .log
        .events(from + 1, case.history.last)
        .filter(|event| matches(&watch.request, event))
        .map(|event| as_asked(&watch.request, event))
        .collect();
    let place = |event: &Event| (event.revision, event.key.clone());
    let mut told: Vec<Event> = told.iter().map(|&event| event.clone()).collect();
    told.retain(|event| event.revision <= case.history.last);
    told.sort_by_key(place);
    let mut due: Vec<Event> =
        expected.iter().filter(|event| event.revision <= complete).cloned().collect();
    due.sort_by_key(place);
    let (whole, beginning): (Vec<Event>, Vec<Event>) =
        told.into_iter().partition(|event| event.revision <= complete);
    let length = whole.len().max(due.len());
    for index in 0..length {
        let (found, wanted) = (whole.get(index), due.get(index));
        if found != wanted {
            let violation = Violation::new(PROMISE, "not what the log says");
            return Err(violation.told(("told", found)).told(("expected", wanted)));
        }
    }
    match beginning.iter().find(|event| !expected.contains(event)) {
        Some(event) => Err(Violation::new(PROMISE, "not what the log says").told(("told", event))),
        None => Ok(()),
    }
}

fn check_initial(
    case: &Case,
    watch: &Watch,
    message: &WatchResponse,
    initial: &[Entry],
    at: u64,
) -> Result<(), Violation> {
    let selected = |entry: &Entry| selects(&watch.request, &entry.key);
    let bare = |entry: Entry| match watch.request.keys_only {
        true => Entry { value: None, ..entry },
        false => entry,
    };
    if message.revision > case.history.last {
        return Ok(()); // What there was then was not taken down.
    }
    let possible = live_at(case, &case.log, message.revision, message.time_ms, at);
    let mut possible = possible
        .into_iter()
        .map(|live| -> Vec<Entry> { live.into_iter().filter(selected).map(bare).collect() });
    let expected = possible.next();
    if expected.as_deref() == Some(initial) || possible.any(|live| live == initial) {
        return Ok(());
    }
    let violation = Violation::new("the initial state is that of its revision", "it is another");
    Err(violation.told(("told", initial)).told(("expected", expected)))
}

fn check_one_of_locks(case: &Case, watch: &LockWatch) -> Result<(), Violation> {
    let asked = watch.request.after_revision;
    let after = asked.map(|it| it.revision);
    check_end(case, watch, after, asked.is_some_and(|it| it.or_initial), false)?;
    let Some((_, first)) = watch.messages.first() else { return Ok(()) };
    let Some(LockBody::Created(created)) = &first.body else {
        return Err(Violation::new(PROMISE, "created does not come first").told(first));
    };
    let is_lost = is_lost(case, watch.request.lineage.as_deref(), after);
    check_start(case, watch, after, created.revision, created.reset, is_lost)?;
    check_lineage(case, &created.lineage)?;
    let in_initial = after.is_none() || created.reset;
    let complete = if in_initial { 0 } else { created.revision };
    let history = case.history;
    let mut course = Course { history, complete, newest: created.revision, in_initial };
    course.advance(first.complete_through)?;
    let (mut told, mut from) = (Vec::new(), created.revision);
    for (_, message) in &watch.messages[1..] {
        match &message.body {
            Some(LockBody::State(part)) if course.in_initial => {
                course.in_initial = !part.end;
                check_state(case, watch, message, part)?;
                if part.end {
                    from = message.revision;
                }
            }
            Some(LockBody::Events(events)) if !course.in_initial => {
                for event in &events.events {
                    course.event(event.revision, event)?;
                    told.push(bare(event.clone()));
                }
            }
            Some(LockBody::Progress(_)) if !course.in_initial => {}
            _ => return Err(Violation::new(PROMISE, "a message out of turn").told(message)),
        }
        course.advance(message.complete_through)?;
    }
    let log = case.history.lock_log.iter().filter(|event| {
        event.revision > from && event.revision <= course.complete && is_asked(watch, &event.name)
    });
    let expected: Vec<LockEvent> = log.cloned().map(bare).collect();
    told.retain(|event| event.revision <= course.complete.min(case.history.last));
    let place = |event: &LockEvent| (event.revision, event.name.clone());
    told.sort_by_key(place);
    match told.iter().zip(&expected).position(|(told, expected)| told != expected) {
        None if told.len() == expected.len() => Ok(()),
        place => {
            let at = place.unwrap_or(told.len().min(expected.len()));
            let violation = Violation::new(PROMISE, "not what the log says");
            Err(violation.told(("told", told.get(at))).told(("expected", expected.get(at))))
        }
    }
}

/// Whether the locks that are told first are those that are held then; what is due may be left out.
fn check_state(
    case: &Case,
    watch: &LockWatch,
    message: &WatchLocksResponse,
    part: &watch_locks_response::State,
) -> Result<(), Violation> {
    if message.revision > case.history.last {
        return Ok(()); // As above.
    }
    let open: Vec<(&str, u64)> = case.holds.open_at(message.revision).collect();
    let is_held = |lock: &Lock| {
        open.contains(&(lock.name.as_str(), lock.token)) && is_asked(watch, &lock.name)
    };
    let absent = open.iter().find(|(name, token)| {
        let is_told = part.locks.iter().any(|lock| lock.name == *name);
        is_asked(watch, name) && !is_told && case.holds.lasts(name, *token, message.time_ms)
    });
    match part.locks.iter().all(is_held) && absent.is_none() {
        true => Ok(()),
        false => {
            let violation = Violation::new("the locks told first are those held", "not so");
            Err(violation.told(message).told(("held", open)))
        }
    }
}

/// Whether a watch could begin where it did.
fn check_start<R, M>(
    case: &Case,
    watch: &Session<R, M>,
    after: Option<u64>,
    created: u64,
    reset: bool,
    is_lost: bool,
) -> Result<(), Violation> {
    let (known, _) = case.windows.known_at(watch.opened);
    let lost =
        is_lost || after.is_some_and(|after| after > known || is_compacted(case, watch, after));
    let begins = match after {
        Some(after) if !reset => created == after,
        Some(_) if !lost => false,
        _ => created >= known && case.history.lost_at(created).is_none(),
    };
    match begins {
        true => Ok(()),
        false => {
            let what = format!("at {created}, reset: {reset}, while {known} was known");
            Err(Violation::new("a watch begins where it was asked to", what))
        }
    }
}

/// Whether what the server ended a watch with was right.
fn check_end<R, M>(
    case: &Case,
    watch: &Session<R, M>,
    after: Option<u64>,
    or_initial: bool,
    is_cleared: bool,
) -> Result<(), Violation> {
    if watch.starved {
        return Err(Violation::new(PROMISE, "it did not come to the end"));
    }
    let (known, _) = case.windows.known_at(watch.opened);
    let Some(end) = &watch.end else { return Ok(()) };
    let after = after.unwrap_or(u64::MAX);
    let is_right = match end.reason.as_str() {
        "" | "BACKEND_UNAVAILABLE" | "OVERLOADED" => true,
        "COMPACTED" if watch.messages.is_empty() => !or_initial && is_compacted(case, watch, after),
        "COMPACTED" => is_cleared || compacted_before(case, u64::MAX) > 0,
        "FUTURE_REVISION" => !or_initial && after > known,
        // One that could not begin is looked at where all lineages are judged together.
        "LINEAGE_CHANGED" => watch.messages.is_empty() || case.history.is_over,
        _ => false,
    };
    match is_right {
        true => Ok(()),
        false => {
            let what = format!("{} {}", end.reason, end.message);
            Err(Violation::new("a watch ends only with a reason", what))
        }
    }
}

/// Whether the state that a watch begins with may have been cleared before all of it was told.
fn is_cleared(case: &Case, watch: &Watch) -> bool {
    let mut bodies = watch.messages.iter().filter_map(|(_, message)| message.body.as_ref());
    let Some(Body::Created(created)) = bodies.next() else { return false };
    let begins = matches!(watch.request.start, Some(Start::Initial(_))) || created.reset;
    let is_whole = bodies.any(|body| matches!(body, Body::Initial(part) if part.end));
    begins && !is_whole && case.log.clears.iter().any(|clear| *clear > created.revision)
}

/// Whether a watch was to go on from what is not, or no longer, of this history.
fn is_lost(case: &Case, asked: Option<&str>, after: Option<u64>) -> bool {
    let shares = |asked: &str| case.history.shares_through(asked);
    let is_beyond = |asked: &str| shares(asked).is_none_or(|through| after > Some(through));
    asked.is_some_and(is_beyond) || after.is_some_and(|it| case.history.lost_at(it).is_some())
}

/// A watch may begin before there is a namespace, and is told later of which lineage that is.
fn check_lineage(case: &Case, lineage: &str) -> Result<(), Violation> {
    match lineage.is_empty() || lineage == case.history.lineage {
        true => Ok(()),
        false => Err(Violation::new("a lineage stays", format!("it is {lineage}"))),
    }
}

/// Whether a revision may have been compacted by the time that a watch was opened there.
fn is_compacted<R, M>(case: &Case, watch: &Session<R, M>, after: u64) -> bool {
    let by = watch.messages.first().map_or(u64::MAX, |(at, _)| *at);
    after < compacted_before(case, by).max(case.history.base)
}

impl Course<'_> {
    fn advance(&mut self, told: u64) -> Result<(), Violation> {
        if self.history.lost_at(told).is_some() {
            let what = format!("it says {told}, which was lost");
            return Err(Violation::new("a watch says truly how far it has come", what));
        }
        if self.in_initial && told != 0 || told < self.complete {
            let what = format!("it says {told} after {}", self.complete);
            return Err(Violation::new("a watch says truly how far it has come", what));
        }
        self.complete = told;
        Ok(())
    }

    fn event(&mut self, revision: u64, event: impl std::fmt::Debug) -> Result<(), Violation> {
        if revision < self.newest || revision <= self.complete {
            let what = format!("after {} and complete through {}", self.newest, self.complete);
            return Err(Violation::new(PROMISE, what).told(event));
        }
        if self.history.lost_at(revision).is_some() {
            return Err(Violation::new(PROMISE, "it was lost").told(event));
        }
        self.newest = revision;
        Ok(())
    }
}

fn matches(request: &WatchRequest, event: &Event) -> bool {
    let (kind, is_clear) = (i32::from(event.r#type()), event.r#type() == EventType::Clear);
    let is_asked = request.types.is_empty()
        || request.types.contains(&kind)
        || is_clear && request.types.contains(&EventType::Delete.into());
    is_asked && (is_clear || selects(request, &event.key))
}

/// Whether a watch is about a key.
pub fn selects(request: &WatchRequest, key: &str) -> bool {
    let entry = Entry { key: key.to_owned(), ..Entry::default() };
    let one = crate::model::Entries::from([(key.to_owned(), entry)]);
    request.selectors.iter().any(|selector| !draft::select(&one, Some(selector)).is_empty())
}

fn as_asked(request: &WatchRequest, event: &Event) -> Event {
    let mut event = event.clone();
    if !request.with_previous {
        event.previous = None;
    }
    if request.keys_only {
        for entry in [&mut event.entry, &mut event.previous].into_iter().flatten() {
            entry.value = None;
        }
    }
    event
}

fn is_asked(watch: &LockWatch, name: &str) -> bool {
    match &watch.request.locks {
        Some(Locks::Name(asked)) => asked == name,
        Some(Locks::Prefix(prefix)) => name.starts_with(prefix.as_str()),
        None => false,
    }
}

/// When a hold ends by its lease is told as it is when it is told.
fn bare(mut event: LockEvent) -> LockEvent {
    if let Some(lock) = event.lock.as_mut().filter(|lock| lock.lease_id.is_some()) {
        lock.expires_at_ms = 0;
    }
    event
}
