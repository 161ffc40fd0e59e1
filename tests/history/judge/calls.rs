//! Calls on keys: what they were answered, by the model at the state that the answer names.

use std::collections::BTreeMap;

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};

use super::{Case, Violation, choices::Choice, log::Log, order::Window};
use crate::{
    history::{Call, Outcome, Request, state_of},
    model::{Model, Refusal},
};

/// Which revision an answered call took, if it took one.
pub fn explain(
    case: &Case,
    index: usize,
    call: &Call,
    op: &Op,
    answer: &Answer,
) -> Result<Option<u64>, Violation> {
    let (revision, time_ms) = state_of(answer);
    if let (Op::History(r), Answer::History(a)) = (op, answer) {
        return explain_history(case, call, r, a).map(|()| None);
    }
    if is_write(op)
        && revision > case.history.base
        && applies(case, call, op, revision, Some(answer))
    {
        return Ok(Some(revision));
    }
    let state = case.log.state_at(revision);
    let mut expected = None;
    for choice in case.choices(&state, (revision, time_ms), call) {
        let mut model = model(case, revision, &choice, call);
        let before = model.revision;
        match model.call(op, time_ms) {
            Ok(found) if found == *answer && model.revision == before => return Ok(None),
            other => drop(expected.get_or_insert(other)),
        }
    }
    let keys = keys_of(op);
    let from = case.windows.of(index).from.min(revision).saturating_sub(20);
    Err(Violation::new("an answer is that of the state that it names", "another was expected")
        .call(call)
        .told(("expected", expected))
        .with_log(&case.log, &keys, from, revision + 2))
}

/// Whether a write makes of the state before a revision just what the log says of that; and answers so, if it was
/// answered.
pub fn applies(case: &Case, call: &Call, op: &Op, revision: u64, answer: Option<&Answer>) -> bool {
    let Some(it) = case.log.revision(revision) else { return false };
    if it.events.is_empty() || !is_write(op) {
        return false;
    }
    let state = case.log.state_at(revision - 1);
    let choices = case.choices(&state, (revision, it.time_ms), call);
    choices.iter().any(|choice| {
        let mut model = model(case, revision - 1, choice, call);
        let Ok(found) = model.call(op, it.time_ms) else { return false };
        answer.is_none_or(|answer| *answer == found)
            && model.revision == revision
            && sorted(model.log) == sorted(it.events.iter().map(|&event| event.clone()).collect())
    })
}

/// Whether a refusal can have been right: at some state in the time of the call.
pub fn explain_refusal(case: &Case, index: usize, call: &Call, op: &Op) -> Result<(), Violation> {
    let Outcome::Refused(failure) = &call.outcome else { return Ok(()) };
    let window = case.windows.of(index);
    let revisions = match (&failure.condition, failure.reason.as_str()) {
        (Some(condition), _) => condition.revision..=condition.revision,
        (None, "NOT_A_NUMBER" | "LEASE_NOT_FOUND") => window.from..=window.to,
        (None, "LEASE_ID_USED") if call.attempts > 1 => return Ok(()),
        (None, "COMPACTED") if can_be_compacted(case, call, op) => return Ok(()),
        // Whether there was another lineage is looked at where all are judged together.
        (None, "OVERLOADED" | "BACKEND_UNAVAILABLE" | "LINEAGE_CHANGED") => return Ok(()),
        _ => return Err(Violation::new("a refusal has its reason", "it has not").call(call)),
    };
    let keys = keys_of(op);
    for revision in case.log.revisions_from(*revisions.start(), *revisions.end()) {
        let is_lost = case.history.lost_at(revision).is_some();
        if revision < window.from || revision > window.to || is_lost {
            let what = format!("it is of {revision}, but began at {} or later", window.from);
            return Err(Violation::new("what was seen is seen by who asks later", what).call(call));
        }
        if refuses_at(case, call, op, (revision, window)) {
            return Ok(());
        }
    }
    let what = format!("not at any state from {} to {}", revisions.start(), revisions.end());
    let violation = Violation::new("a refusal has its reason", what).call(call);
    Err(violation.with_log(&case.log, &keys, window.from.saturating_sub(20), *revisions.end()))
}

/// Whether the model refuses the call in the same way, at some time of this revision and of the call.
fn refuses_at(case: &Case, call: &Call, op: &Op, (revision, window): (u64, Window)) -> bool {
    let Outcome::Refused(failure) = &call.outcome else { return false };
    let state = case.log.state_at(revision);
    let next = case.log.end_of(revision);
    let from_ms = case.log.time_of(revision).max(window.from_ms);
    let to_ms = next.unwrap_or(case.history.end_ms).min(window.to_ms);
    let mut times = vec![from_ms, to_ms];
    times.extend(state.values().filter_map(|entry| entry.expires_at_ms));
    let ends = case.choices(&state, (revision, to_ms), call);
    times.extend(ends.iter().flat_map(|choice| choice.deadlines.values().copied()));
    times.retain(|time_ms| (from_ms..=to_ms).contains(time_ms));
    times.sort_unstable();
    times.dedup();
    times.iter().any(|&time_ms| {
        let choices = case.choices(&state, (revision, time_ms), call);
        choices.iter().any(|choice| {
            let refused = model(case, revision, choice, call).call(op, time_ms).err();
            match (refused, &failure.condition) {
                (Some(Refusal::Condition(expected)), Some(condition)) => *expected == *condition,
                (Some(Refusal::Reason(reason)), None) => {
                    reason.as_str_name().ends_with(&failure.reason)
                }
                _ => false,
            }
        })
    })
}

/// The model at a revision; for a read of the past, at the end, with what that revision held.
fn model(case: &Case, revision: u64, choice: &Choice, call: &Call) -> Model {
    let default_ttl_ms = choice.default_ttl_ms;
    let mut model = Model {
        settings: NamespaceSettings { default_ttl_ms, ..NamespaceSettings::default() },
        revision,
        entries: case.log.state_at(revision),
        leases: case.leases.with(&choice.deadlines),
        locks: case.holds.tokens_at(revision),
        ..Model::default()
    };
    if call.is_of_the_past() {
        model.past = BTreeMap::from([(revision, std::mem::take(&mut model.entries))]);
        model.revision = case.history.last;
    }
    model
}

/// The changes of one key, newest first. The oldest may be forgotten already, and what was before a clear is.
fn explain_history(
    case: &Case,
    call: &Call,
    r: &HistoryRequest,
    a: &HistoryResponse,
) -> Result<(), Violation> {
    let cleared = case.log.clears.iter().filter(|it| **it <= a.revision).max().copied();
    let whole: Vec<Event> = case
        .log
        .events(cleared.unwrap_or(0), a.revision)
        .filter(|event| event.key == r.key)
        .map(|event| Event { previous: None, ..event.clone() })
        .collect();
    let newest: Vec<Event> = whole.iter().rev().take(100).cloned().collect();
    let bare = |event: &Event| as_watched(event.clone());
    // What the lineage began with is older than its log.
    let (told, older): (Vec<&Event>, Vec<&Event>) =
        a.events.iter().partition(|event| event.revision > case.history.base);
    let was_there =
        |event: &&Event| case.history.initial.iter().any(|it| event.entry.as_ref() == Some(it));
    let is_beginning = told.len() <= newest.len()
        && told.iter().zip(&newest).all(|(told, event)| bare(told) == *event)
        && older.len() <= 1
        && older.iter().all(was_there);
    let forgotten = newest.get(told.len()).map(|event| event.revision);
    let compacted = compacted_by(case, call);
    if !is_beginning || forgotten.is_some_and(|revision| revision > compacted) {
        let violation = Violation::new("history is what the log says", "it is not").call(call);
        return Err(violation.with_log(&case.log, &[&r.key], 0, a.revision));
    }
    Ok(())
}

fn can_be_compacted(case: &Case, call: &Call, op: &Op) -> bool {
    let cleared = case.log.clears.iter().max().copied().unwrap_or(0);
    let oldest = compacted_by(case, call).max(cleared).max(case.history.base);
    match op {
        Op::Get(GetRequest { at_revision: Some(at), .. })
        | Op::BatchGet(BatchGetRequest { at_revision: Some(at), .. })
        | Op::List(ListRequest { at_revision: Some(at), .. }) => *at < oldest,
        Op::List(_) => oldest > 0,
        _ => false,
    }
}

/// Up to where the log may have been compacted by the end of a call.
fn compacted_by(case: &Case, call: &Call) -> u64 {
    compacted_before(case, call.returned)
}

/// Up to where the log may have been compacted at a moment.
pub fn compacted_before(case: &Case, moment: u64) -> u64 {
    let calls = case.history.calls.iter().filter(|it| it.invoked <= moment);
    let through = calls.filter_map(|it| match it.request {
        Request::Compact(through) => Some(through),
        _ => None,
    });
    through.max().unwrap_or(0).max(case.log.trimmed)
}

/// Watches carry no value with a changed TTL.
pub fn as_watched(event: Event) -> Event {
    if event.r#type() != EventType::TtlChanged {
        return event;
    }
    let bare = |entry: Option<Entry>| entry.map(|entry| Entry { value: None, ..entry });
    Event { entry: bare(event.entry), previous: bare(event.previous), ..event }
}

fn sorted(events: Vec<Event>) -> Vec<Event> {
    let mut events: Vec<Event> = events.into_iter().map(as_watched).collect();
    events.sort_by(|a, b| a.key.cmp(&b.key));
    events
}

fn is_write(op: &Op) -> bool {
    match op {
        Op::Get(r) => r.touch.is_some(),
        Op::Set(_)
        | Op::Delete(_)
        | Op::SetTtl(_)
        | Op::Increment(_)
        | Op::DeleteRange(_)
        | Op::BatchSet(_)
        | Op::BatchDelete(_)
        | Op::Transact(_)
        | Op::Revoke(_) => true,
        _ => false,
    }
}

/// The one key that a call is about; none where it is about more.
fn keys_of(op: &Op) -> Vec<&str> {
    match op {
        Op::Get(GetRequest { key, .. })
        | Op::Set(SetRequest { key, .. })
        | Op::Delete(DeleteRequest { key, .. })
        | Op::Exists(ExistsRequest { key, .. })
        | Op::GetTtl(GetTtlRequest { key, .. })
        | Op::SetTtl(SetTtlRequest { key, .. })
        | Op::Increment(IncrementRequest { key, .. }) => vec![key],
        Op::BatchGet(r) => r.keys.iter().map(String::as_str).collect(),
        Op::BatchDelete(r) => r.keys.iter().map(String::as_str).collect(),
        Op::BatchSet(r) => r.items.iter().map(|item| item.key.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Whether the state at a revision may have had a read like that of a watch at a time.
pub fn live_at(case: &Case, log: &Log, revision: u64, time_ms: i64, by: u64) -> Vec<Vec<Entry>> {
    let state = log.state_at(revision);
    let call = Call {
        client: usize::MAX,
        invoked: 0,
        returned: by,
        attempts: 1,
        sent: None,
        request: Request::Clear,
        outcome: Outcome::Unknown { why: String::new() },
    };
    let choices = case.choices(&state, (revision, time_ms), &call);
    let live = choices.iter().map(|choice| {
        let model = model(case, revision, choice, &call);
        model.live(time_ms).into_values().collect()
    });
    live.collect()
}
