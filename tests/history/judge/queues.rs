//! Queues of locks: first come, first served.
//!
//! The log does not tell who waits. But who looks at a lock is told how many do; where these are all that can, by then
//! each has its place, and whoever comes later comes after them.

use std::time::Duration;

use holdfast_proto::v1::{
    acquire_response::Outcome as Acquired, pipeline_answer::Result as Answer,
    pipeline_call::Operation as Op, *,
};

use super::{Case, Violation};
use crate::history::{Call, Moment, Outcome, Request};

/// If nobody was answered for so long, servers may not have been able to say that they live: then places are lost.
const LULL: Duration = Duration::from_secs(1);

/// Checks that nobody overtook somebody who certainly was in the queue before.
pub(super) fn check(case: &Case) -> Result<(), Violation> {
    if !case.history.is_steady {
        return Ok(());
    }
    let lulls = lulls(case);
    case.history.calls.iter().try_for_each(|look| {
        let (
            Request::Do(Op::GetLock(r)),
            Outcome::Answered(Answer::GetLock(GetLockResponse { lock: Some(lock), .. })),
        ) = (&look.request, &look.outcome)
        else {
            return Ok(());
        };
        let waiting = waiting_at(case, &r.name, look);
        if waiting.is_empty() || waiting.len() != lock.waiting as usize {
            return Ok(());
        }
        waiting.iter().try_for_each(|first| check_served(case, look, first, &lulls))
    })
}

/// The calls that can have had a place in a queue while somebody looked.
fn waiting_at<'a>(case: &Case<'a>, name: &str, look: &Call) -> Vec<&'a Call> {
    let calls = case.history.calls.iter().filter(|call| {
        let waits =
            matches!(&call.request, Request::Do(Op::Acquire(r)) if r.name == name && r.wait_ms > 0);
        waits
            && call.invoked < look.returned
            && (call.returned > look.invoked || !has_surely_left(call))
    });
    calls.collect()
}

/// Whether a call that has returned has no place any more.
fn has_surely_left(call: &Call) -> bool {
    call.attempts == 1 && matches!(call.outcome, Outcome::Answered(_))
}

/// Whether one who was in the queue when somebody looked got the lock before those who came after that.
fn check_served(
    case: &Case,
    look: &Call,
    first: &Call,
    lulls: &[(Moment, Moment)],
) -> Result<(), Violation> {
    let Some((name, left)) = left_at(case, first).filter(|_| has_surely_left(first)) else {
        return Ok(());
    };
    let later = case.history.calls.iter().filter(|call| call.invoked > look.returned);
    for call in later {
        let Request::Do(Op::Acquire(r)) = &call.request else { continue };
        let Some(granted) = case.holds.first_granted_to(r).filter(|_| r.name == name) else {
            continue;
        };
        let to = call.returned.max(first.returned);
        let lulled = lulls.iter().any(|(begun, over)| *over > first.invoked && *begun < to);
        if granted < left && !lulled {
            let what = format!("one who came later got it at {granted}, not at {left} or after");
            let violation = Violation::new("a lock is given in the order of its queue", what);
            return Err(violation.call(first).call(look).call(call));
        }
    }
    Ok(())
}

/// The lock that was waited for, and the revision at which the wait was over: by the grant, or without it.
fn left_at<'a>(case: &Case, call: &'a Call) -> Option<(&'a str, u64)> {
    let (Request::Do(Op::Acquire(r)), Outcome::Answered(Answer::Acquire(a))) =
        (&call.request, &call.outcome)
    else {
        return None;
    };
    // Who ends with a lease is passed over once that has ended.
    let by_lease = matches!(r.duration, Some(acquire_request::Duration::LeaseId(_)));
    let left = match &a.outcome {
        Some(Acquired::Lock(_)) => case.holds.first_granted_to(r)?,
        // It may have been offered the lock, and have heard of it too late. If not, what was granted in that very revision
        // was granted while it still waited.
        Some(Acquired::Holder(_)) => case.holds.first_granted_to(r).unwrap_or(a.revision + 1),
        None => return None,
    };
    (!by_lease).then_some((r.name.as_str(), left))
}

/// The times in which nobody was answered.
fn lulls(case: &Case) -> Vec<(Moment, Moment)> {
    let mut answered: Vec<Moment> = case.history.calls.iter().map(|call| call.returned).collect();
    answered.sort_unstable();
    let pairs = answered.windows(2).map(|pair| (pair[0], pair[1]));
    pairs.filter(|(from, to)| u128::from(to - from) > LULL.as_nanos()).collect()
}
