//! What is left of a call where the store comes back with a part of what it had.
//!
//! Commits are lost from one of them on. All that was done before the last revision that is left is left, too. What takes
//! no revision has its place only between two of them: after the last that is left it may be gone or not.

use holdfast_proto::v1::{
    acquire_response::Outcome as Acquired, pipeline_answer::Result as Answer,
    pipeline_call::Operation as Op,
};

use crate::history::{Call, Outcome, Request};

/// A call of a lineage as another sees it that goes on from its revision `through`; nothing where nothing of it can be
/// left, or where it has told only what may be gone. With `is_whole`, what was acknowledged is left.
pub fn as_left(call: &Call, through: u64, is_whole: bool) -> Option<Call> {
    match call.state() {
        // It has done nothing, and is of more than the revision that it names.
        _ if call.is_of_the_past() => None,
        Some((revision, _)) if revision < through => Some(call.clone()),
        Some((revision, _)) if revision == through => at_the_border(call, through, is_whole),
        // It was lost, or refused; but an attempt or a wait before may have done something.
        _ => {
            let is_acquire = matches!(call.request, Request::Do(Op::Acquire(_)));
            (call.attempts > 1 || is_acquire).then(|| unknown(call))
        }
    }
}

/// The same call, of which nobody knows what came of it.
pub fn unknown(call: &Call) -> Call {
    let why = "it was of another lineage".to_owned();
    Call { outcome: Outcome::Unknown { why }, ..call.clone() }
}

fn at_the_border(call: &Call, through: u64, is_whole: bool) -> Option<Call> {
    let is_left = match (&call.request, &call.outcome) {
        (Request::Do(Op::GetLock(_) | Op::GetLease(_)), _) => return None,
        (Request::Do(Op::KeepAlive(_) | Op::Renew(_)) | Request::Update(_), _) => is_whole,
        (Request::Do(Op::Revoke(_)), Outcome::Answered(Answer::Revoke(a))) => {
            is_whole || a.keys > 0 || a.locks > 0
        }
        (Request::Do(Op::Acquire(_)), Outcome::Answered(Answer::Acquire(a))) => match &a.outcome {
            // A grant to a waiting call is only an offer until that has taken it.
            Some(Acquired::Lock(lock)) => is_whole || lock.token == through && !call.waits(),
            _ => false,
        },
        _ => true,
    };
    Some(if is_left { call.clone() } else { unknown(call) })
}
