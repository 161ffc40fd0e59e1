//! The judge judged: good histories pass, and each way of falsifying one is caught, at once and for the right reason.

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome as Acquired,
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, watch_response::Body, *,
};
use libtest_mimic::Trial;
use std::sync::LazyLock;

use crate::{
    falsified::{Falsified, Place, recorded, trials_of},
    history::{Call, History, Outcome, Request, Watch},
    judge::{Course, judge, observed, selects},
    servers::Kind,
};

/// A history of a run without faults, in which all calls were answered.
static GOOD: LazyLock<History> = LazyLock::new(|| {
    let chronicle = recorded(Kind::Memory, Vec::new(), 200);
    let course = Course::read(&chronicle).expect("a good chronicle");
    course.histories().next().expect("there is one lineage")
});

static MUTATIONS: [Falsified<History>; 22] = [
    ("a_stale_read", stale_read, &["what was seen is seen", "time never"]),
    ("a_read_of_another_value", other_value, &["an answer is"]),
    ("a_read_that_misses_a_key", missed_key, &["an answer is"]),
    ("a_read_of_what_has_expired", expired_read, &["an answer is"]),
    (
        "a_lost_write",
        lost_write,
        &["revisions rise", "every revision", "a guarded", "an answer", "the previous"],
    ),
    ("a_write_that_was_refused", refused_write, &["every change"]),
    ("a_write_that_nobody_asked_for", unasked_write, &["every change", "every lease", "a refusal"]),
    (
        "a_revision_that_comes_twice",
        repeated_revision,
        &["an answer is", "a revision is one write", "state is", "what was seen"],
    ),
    ("a_created_flag_that_is_wrong", wrong_created, &["an answer is"]),
    ("a_condition_that_held", wrong_condition, &["a refusal has", "what was seen"]),
    ("an_event_lost", lost_event, &["a watch tells"]),
    ("an_event_twice", doubled_event, &["a watch tells", "an event"]),
    ("events_in_another_order", reordered_events, &["a watch tells"]),
    ("an_event_of_another_key", unfiltered_event, &["a watch tells"]),
    ("a_previous_value_that_is_another", wrong_previous, &["a watch tells"]),
    (
        "a_revision_said_complete_too_early",
        early_progress,
        &["a watch tells", "what was seen is", "a write comes"],
    ),
    (
        "an_expiry_too_early",
        early_expiry,
        &["an event is a step", "time never", "state is", "a revision has"],
    ),
    ("a_key_that_comes_back", resurrected, &["an answer is"]),
    ("a_token_that_comes_again", repeated_token, &["a token is", "a lock has one", "a hold ends"]),
    ("two_holders", two_holders, &["a lock has one"]),
    ("a_guard_of_a_lost_hold", lost_guard, &["a guarded write"]),
    ("a_waiting_call_that_is_overtaken", overtaken, &["a lock is given in"]),
];

/// One for each way, and one for the good history itself.
pub fn trials() -> Vec<Trial> {
    trials_of("judge::a_good_history_passes", &GOOD, judge, &MUTATIONS)
}

/// A read is answered by a state that others had seen change before.
fn stale_read(history: &mut History, place: &mut Place) -> bool {
    let calls = history.calls.clone();
    let mut answered = calls.iter().enumerate().filter_map(|(index, call)| match &call.outcome {
        Outcome::Answered(Answer::Get(a)) if !call.is_of_the_past() => Some((index, call, a)),
        _ => None,
    });
    answered.any(|(index, call, read)| {
        // What somebody knew before it began.
        let before = calls[..index].iter().filter(|it| it.returned < call.invoked);
        let known = before.filter(|it| !it.is_of_the_past()).filter_map(|it| it.state()).max();
        let known = known.unwrap_or_default().0;
        let stale = calls[..index].iter().rev().find_map(|former| match &former.outcome {
            Outcome::Answered(Answer::Get(a))
                if same_get(former, call) && a.entry != read.entry && a.revision < known =>
            {
                Some(a.clone())
            }
            _ => None,
        });
        stale.is_some_and(|stale| {
            let is_here = place.is_here();
            if is_here {
                history.calls[index].outcome = Outcome::Answered(Answer::Get(stale));
            }
            is_here
        })
    })
}

fn same_get(one: &Call, other: &Call) -> bool {
    match (&one.request, &other.request) {
        (Request::Do(Op::Get(a)), Request::Do(Op::Get(b))) => {
            a.key == b.key
                && a.touch.is_none()
                && b.touch.is_none()
                && a.at_revision == b.at_revision
        }
        _ => false,
    }
}

fn other_value(history: &mut History, place: &mut Place) -> bool {
    gets(history).any(|a| {
        let found = a.entry.as_mut().filter(|_| place.is_here());
        found.is_some_and(|entry| entry.value.replace("another".into()).is_some())
    })
}

fn missed_key(history: &mut History, place: &mut Place) -> bool {
    history.calls.iter_mut().any(|call| match &mut call.outcome {
        Outcome::Answered(Answer::List(a)) if a.entries.len() > 1 && place.is_here() => {
            a.entries.remove(1);
            true
        }
        _ => false,
    })
}

/// A read is answered with an entry at a time at which its deadline has passed.
fn expired_read(history: &mut History, place: &mut Place) -> bool {
    let log = history.log.clone();
    gets(history).any(|a| {
        let missing = a.entry.is_none();
        // Removed a little before, so that nothing else tells of it.
        let former = log
            .iter()
            .rev()
            .find(|event| event.r#type() == EventType::Expire && event.revision <= a.revision);
        let Some(former) = former.filter(|_| missing && place.is_here()) else { return false };
        a.entry = former.previous.clone();
        true
    })
}

/// A write was acknowledged, but the log does not hold it.
fn lost_write(history: &mut History, place: &mut Place) -> bool {
    let written: Vec<u64> = sets(history).map(|a| a.revision).collect();
    let Some(&lost) = written.iter().find(|_| place.is_here()) else { return false };
    history.log.retain(|event| event.revision != lost);
    true
}

fn refused_write(history: &mut History, place: &mut Place) -> bool {
    history.calls.iter_mut().any(|call| {
        let is_set = matches!(call.outcome, Outcome::Answered(Answer::Set(_)));
        let here = is_set && place.is_here();
        if here {
            let failure = crate::common::failure::Failure {
                reason: "BACKEND_UNAVAILABLE".to_owned(),
                ..Default::default()
            };
            call.outcome = Outcome::Refused(failure);
        }
        here
    })
}

fn unasked_write(history: &mut History, place: &mut Place) -> bool {
    let found = history.calls.iter().position(|call| {
        matches!(call.outcome, Outcome::Answered(Answer::Set(_))) && place.is_here()
    });
    found.map(|index| history.calls.remove(index)).is_some()
}

/// A write is answered with the revision of another.
fn repeated_revision(history: &mut History, place: &mut Place) -> bool {
    let written: Vec<SetResponse> = sets(history).map(|a| a.clone()).collect();
    let mut pairs = written.iter().zip(written.iter().skip(1));
    let Some((first, second)) = pairs.find(|_| place.is_here()) else { return false };
    let (revision, second) = (first.revision, second.revision);
    let found = sets(history).find(|a| a.revision == second);
    found.is_some_and(|a| {
        a.revision = revision;
        if let Some(entry) = &mut a.entry {
            entry.mod_revision = revision;
        }
        true
    })
}

fn wrong_created(history: &mut History, place: &mut Place) -> bool {
    sets(history).any(|a| {
        let here = place.is_here();
        a.created ^= here;
        here
    })
}

/// A condition is said not to have held, and what is shown is what it asked for.
fn wrong_condition(history: &mut History, place: &mut Place) -> bool {
    history.calls.iter_mut().any(|call| {
        let Outcome::Refused(failure) = &mut call.outcome else { return false };
        let Some(condition) = failure.condition.as_mut().filter(|_| place.is_here()) else {
            return false;
        };
        condition.current = match condition.current.take() {
            Some(_) => None,
            None => Some(Entry::default()),
        };
        true
    })
}

fn lost_event(history: &mut History, place: &mut Place) -> bool {
    told(history).any(|(_, events)| {
        let here = events.len() == 1 && place.is_here();
        if here {
            events.clear();
        }
        here
    })
}

fn doubled_event(history: &mut History, place: &mut Place) -> bool {
    told(history).any(|(_, events)| {
        let here = place.is_here();
        if here {
            events.push(events[events.len() - 1].clone());
        }
        here
    })
}

fn reordered_events(history: &mut History, place: &mut Place) -> bool {
    told(history).any(|(_, events)| {
        let differ = events.len() > 1 && events[0].revision != events[events.len() - 1].revision;
        let here = differ && place.is_here();
        if here {
            events.reverse();
        }
        here
    })
}

fn unfiltered_event(history: &mut History, place: &mut Place) -> bool {
    let log = history.log.clone();
    told(history).any(|(request, events)| {
        // One of another key behind it.
        let last = events[events.len() - 1].revision;
        let mut others = log.iter().filter(|event| event.revision > last);
        let other = others.find(|event| !event.key.is_empty() && !selects(request, &event.key));
        let Some(other) = other.filter(|_| place.is_here()) else { return false };
        events.push(other.clone());
        true
    })
}

fn wrong_previous(history: &mut History, place: &mut Place) -> bool {
    told(history).any(|(request, events)| {
        let here = request.with_previous && place.is_here();
        if here {
            events[0].previous = match events[0].previous.take() {
                Some(_) => None,
                None => Some(Entry::default()),
            };
        }
        here
    })
}

/// Progress overtakes an event: it says that all has been told, before it has.
fn early_progress(history: &mut History, place: &mut Place) -> bool {
    let all = history.watches.iter_mut().flat_map(|watch| watch.messages.windows_of_two());
    let mut all = all.filter(|(_, next)| matches!(next.body, Some(Body::Events(_))));
    all.any(|(message, next)| {
        let begun =
            message.complete_through > 0 && next.complete_through > message.complete_through;
        let here = begun && place.is_here();
        if here {
            message.complete_through = next.complete_through;
        }
        here
    })
}

/// Pairs of messages that follow each other.
trait Pairs {
    fn windows_of_two(&mut self) -> Vec<(&mut WatchResponse, &mut WatchResponse)>;
}

impl Pairs for Vec<(u64, WatchResponse)> {
    fn windows_of_two(&mut self) -> Vec<(&mut WatchResponse, &mut WatchResponse)> {
        let mut pairs = Vec::new();
        for chunk in self.chunks_mut(2) {
            if let [(_, first), (_, second)] = chunk {
                pairs.push((first, second));
            }
        }
        pairs
    }
}

/// An entry is removed by its deadline before that.
fn early_expiry(history: &mut History, place: &mut Place) -> bool {
    history.log.iter_mut().any(|event| {
        let deadline = event.previous.as_ref().and_then(|previous| previous.expires_at_ms);
        let deadline = deadline.filter(|_| event.r#type() == EventType::Expire && place.is_here());
        event.time_ms = deadline.map_or(event.time_ms, |deadline| deadline - 1);
        deadline.is_some()
    })
}

/// A read finds what had been deleted.
fn resurrected(history: &mut History, place: &mut Place) -> bool {
    let log = history.log.clone();
    history.calls.iter_mut().any(|call| {
        let Request::Do(Op::Get(r)) = &call.request else { return false };
        let key = r.key.clone();
        let Outcome::Answered(Answer::Get(a)) = &mut call.outcome else { return false };
        let deleted =
            log.iter().rev().find(|event| event.revision <= a.revision && event.key == key);
        let deleted = deleted.filter(|event| event.r#type() == EventType::Delete);
        let Some(event) = deleted.filter(|_| a.entry.is_none() && place.is_here()) else {
            return false;
        };
        a.entry = event.previous.clone();
        true
    })
}

fn repeated_token(history: &mut History, place: &mut Place) -> bool {
    let log = history.lock_log.clone();
    history.lock_log.iter_mut().any(|event| {
        let former = log.iter().rev().find(|it| {
            it.r#type() == LockEventType::Granted
                && it.name == event.name
                && it.revision < event.revision
        });
        let granted = event.r#type() == LockEventType::Granted;
        let Some(former) = former.filter(|_| granted && place.is_here()) else { return false };
        event.token = former.token;
        if let Some(lock) = &mut event.lock {
            lock.token = former.token;
        }
        true
    })
}

/// The end of a hold is missing, so that the next begins before.
fn two_holders(history: &mut History, place: &mut Place) -> bool {
    let kind = |event: &LockEvent| event.r#type();
    let log = history.lock_log.clone();
    let found = log.iter().position(|event| {
        let ends = [LockEventType::Released, LockEventType::Expired].contains(&kind(event));
        let mut next =
            log.iter().filter(|it| it.name == event.name && it.revision > event.revision);
        ends && next.next().is_some() && place.is_here()
    });
    let Some(index) = found else { return false };
    // The revision itself stays: something else is put into it.
    let token = history.lock_log[index].token;
    let granted = log.iter().find(|event| event.revision == token);
    let event = &mut history.lock_log[index];
    event.r#type = LockEventType::ValueChanged.into();
    event.lock = granted.and_then(|granted| granted.lock.clone());
    true
}

/// A write is said to have been applied under a hold that had ended before.
fn lost_guard(history: &mut History, place: &mut Place) -> bool {
    let ends: Vec<LockEvent> = history
        .lock_log
        .iter()
        .filter(|event| event.r#type() == LockEventType::Released)
        .cloned()
        .collect();
    history.calls.iter_mut().any(|call| {
        let Outcome::Answered(Answer::Set(a)) = &call.outcome else { return false };
        let lost = ends.iter().find(|event| event.revision < a.revision);
        let Request::Do(Op::Set(r)) = &mut call.request else { return false };
        let Some(lost) = lost.filter(|_| place.is_here()) else { return false };
        let guard = Guard { lock: lost.name.clone(), token: lost.token };
        r.options.get_or_insert_default().guards.push(guard);
        true
    })
}

/// Of two calls that waited for the same lock the second is given what the first got, and the first what it got.
fn overtaken(history: &mut History, place: &mut Place) -> bool {
    let calls = history.calls.clone();
    let log = history.lock_log.clone();
    let grants = |lock: &Lock| {
        let own = log.iter().filter(|event| {
            let owner = event.lock.as_ref().map(|lock| &lock.owner);
            event.r#type() == LockEventType::Granted && owner == Some(&lock.owner)
        });
        own.count()
    };
    let waited = |call: &Call| match (&call.request, &call.outcome) {
        (Request::Do(Op::Acquire(r)), Outcome::Answered(Answer::Acquire(a))) if r.wait_ms > 0 => {
            match (&a.outcome, r.duration) {
                // At once when it was offered.
                (Some(Acquired::Lock(lock)), Some(Duration::TtlMs(_))) if grants(lock) == 1 => {
                    Some(lock.clone())
                }
                _ => None,
            }
        }
        _ => None,
    };
    let alone = |look: &Call, first: &Call| match (&look.request, &look.outcome) {
        (Request::Do(Op::GetLock(r)), Outcome::Answered(Answer::GetLock(a))) => {
            let others = calls.iter().filter(|call| {
                let asked =
                    matches!(&call.request, Request::Do(Op::Acquire(it)) if it.name == r.name);
                // One whose fate is not known may have a place for long.
                let may_wait = call.returned > look.invoked || !is_plain(call);
                asked && call.invoked < look.returned && may_wait
            });
            let waiting = a.lock.as_ref().map_or(0, |lock| lock.waiting as usize);
            let first_waits = first.invoked < look.invoked && look.returned < first.returned;
            let is_its =
                matches!(&first.request, Request::Do(Op::Acquire(it)) if it.name == r.name);
            first_waits && is_its && waiting > 0 && others.count() == waiting
        }
        _ => false,
    };
    let known = observed(&calls, &history.watches, &history.lock_watches);
    let known_at = |moment| {
        let before = known.iter().filter(|(at, _)| *at < moment);
        before.map(|(_, revision)| *revision).max().unwrap_or_default()
    };
    for (one, first) in calls.iter().enumerate() {
        let Some(early) = waited(first) else { continue };
        for (other, second) in calls.iter().enumerate() {
            let Some(late) = waited(second).filter(|it| it.name == early.name) else { continue };
            let looked = |look: &Call| alone(look, first) && look.returned < second.invoked;
            let both_waited = is_plain(first)
                && second.invoked < first.returned
                && first.returned < second.returned
                && known_at(second.invoked) < early.token;
            if !both_waited || !calls.iter().any(looked) || !place.is_here() {
                continue;
            }
            exchange(history, (one, &early), (other, &late));
            return true;
        }
    }
    false
}

/// Whether a call was sent once, and answered.
fn is_plain(call: &Call) -> bool {
    call.attempts == 1 && matches!(call.outcome, Outcome::Answered(_))
}

/// Exchanges what two calls got: who is said to hold, and when and how long.
fn exchange(history: &mut History, (one, early): (usize, &Lock), (other, late): (usize, &Lock)) {
    let (first, second) = (history.calls[one].clone(), history.calls[other].clone());
    for (index, by) in [(one, &second), (other, &first)] {
        let call = &mut history.calls[index];
        (call.returned, call.outcome) = (by.returned, by.outcome.clone());
        if let (Request::Do(Op::Acquire(r)), Request::Do(Op::Acquire(of))) =
            (&mut call.request, &by.request)
        {
            r.duration = of.duration;
        }
    }
    let owned = |lock: &mut Lock| {
        if lock.token == early.token {
            lock.owner.clone_from(&late.owner);
        } else if lock.token == late.token {
            lock.owner.clone_from(&early.owner);
        }
    };
    history.lock_log.iter_mut().filter_map(|event| event.lock.as_mut()).for_each(owned);
    for call in &mut history.calls {
        match &mut call.outcome {
            Outcome::Answered(Answer::Acquire(AcquireResponse {
                outcome: Some(Acquired::Lock(lock) | Acquired::Holder(lock)),
                ..
            })) => owned(lock),
            Outcome::Answered(Answer::GetLock(a)) => {
                a.lock.iter_mut().for_each(owned);
            }
            _ => {}
        }
    }
}

/// The answers to plain reads of one key.
fn gets(history: &mut History) -> impl Iterator<Item = &mut GetResponse> {
    history.calls.iter_mut().filter_map(|call| match (&call.request, &mut call.outcome) {
        (Request::Do(Op::Get(r)), Outcome::Answered(Answer::Get(a))) if r.touch.is_none() => {
            Some(a)
        }
        _ => None,
    })
}

fn sets(history: &mut History) -> impl Iterator<Item = &mut SetResponse> {
    history.calls.iter_mut().filter_map(|call| match &mut call.outcome {
        Outcome::Answered(Answer::Set(a)) => Some(a),
        _ => None,
    })
}

/// The events that watches were told, by the messages, all complete.
fn told(history: &mut History) -> impl Iterator<Item = (&WatchRequest, &mut Vec<Event>)> {
    history.watches.iter_mut().flat_map(|Watch { request, messages, .. }| {
        let request = &*request;
        messages.iter_mut().filter_map(move |(_, message)| match &mut message.body {
            Some(Body::Events(it)) => {
                let through = message.complete_through;
                let whole = it.events.last().is_some_and(|event| event.revision <= through);
                whole.then_some((request, &mut it.events))
            }
            _ => None,
        })
    })
}
