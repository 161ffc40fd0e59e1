//! The judge of queues judged, by histories that are made up: what is rare in those that are run.

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome as Acquired,
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *,
};
use libtest_mimic::{Failed, Trial};

use crate::{
    history::{Call, History, Outcome, Request},
    judge::judge,
};

const NAME: &str = "l";

/// One that is good, and the same with one call overtaken.
pub fn trials() -> Vec<Trial> {
    let passes = || judge(&offered(true)).map_err(|violation| Failed::from(violation.to_string()));
    let caught = || match judge(&offered(false)) {
        Err(violation) if violation.promise.starts_with("a lock is given in the order") => Ok(()),
        Err(violation) => Err(format!("for another reason: {violation}").into()),
        Ok(()) => Err("not caught".into()),
    };
    vec![
        Trial::test("judge::a_call_that_hears_too_late_of_its_offer_passes", passes),
        Trial::test("judge::a_waiting_call_that_is_passed_over", caught),
    ]
}

/// The first of two that wait is told, when its wait is over, that the second holds the lock. Before that it was offered
/// to it, and the offer ended before it had heard of it; or it was not.
fn offered(is_offered: bool) -> History {
    let token = if is_offered { 6 } else { 4 };
    let mut lock_log = vec![
        granted(&lock("holder", 2, 100, 50)),
        ended(3, 2, 150),
        granted(&lock("second", token, 170, 50)),
    ];
    if is_offered {
        lock_log.insert(2, granted(&lock("first", 4, 150, 20)));
        lock_log.insert(3, ended(5, 4, 170));
    }
    let second = lock("second", token, 170, 50);
    let looked = Lock { waiting: 1, ..lock("holder", 2, 100, 50) };
    let look = Outcome::Answered(Answer::GetLock(GetLockResponse {
        revision: 2,
        time_ms: 105,
        lock: Some(looked),
    }));
    let asks = Request::Do(Op::GetLock(GetLockRequest {
        name: NAME.to_owned(),
        ..GetLockRequest::default()
    }));
    let held = Acquired::Lock(lock("holder", 2, 100, 50));
    let calls = vec![
        call(0, (0, 10), acquire("holder", 50, 0), acquired(2, 100, held)),
        call(
            1,
            (20, 200),
            acquire("first", 20, 100),
            acquired(token, 180, Acquired::Holder(second.clone())),
        ),
        call(0, (30, 40), asks, look),
        call(
            2,
            (50, 210),
            acquire("second", 50, 200),
            acquired(token, 175, Acquired::Lock(second)),
        ),
    ];
    History {
        base: 1,
        last: token,
        end_ms: 200,
        lineage: "a lineage".to_owned(),
        is_steady: true,
        lock_log,
        calls,
        ..History::default()
    }
}

fn lock(owner: &str, token: u64, time_ms: i64, ttl_ms: u64) -> Lock {
    Lock {
        name: NAME.to_owned(),
        token,
        owner: Some(LockOwner { id: owner.to_owned(), ..LockOwner::default() }),
        acquired_at_ms: time_ms,
        ttl_ms,
        expires_at_ms: time_ms.saturating_add_unsigned(ttl_ms),
        ..Lock::default()
    }
}

fn granted(lock: &Lock) -> LockEvent {
    LockEvent {
        r#type: LockEventType::Granted.into(),
        revision: lock.token,
        time_ms: lock.acquired_at_ms,
        name: lock.name.clone(),
        token: lock.token,
        lock: Some(lock.clone()),
        ..LockEvent::default()
    }
}

fn ended(revision: u64, token: u64, time_ms: i64) -> LockEvent {
    let r#type = LockEventType::Expired.into();
    LockEvent { r#type, revision, time_ms, name: NAME.to_owned(), token, ..LockEvent::default() }
}

fn acquire(owner: &str, ttl_ms: u64, wait_ms: u64) -> Request {
    Request::Do(Op::Acquire(AcquireRequest {
        name: NAME.to_owned(),
        owner: Some(LockOwner { id: owner.to_owned(), ..LockOwner::default() }),
        duration: Some(Duration::TtlMs(ttl_ms)),
        wait_ms,
        ..AcquireRequest::default()
    }))
}

fn acquired(revision: u64, time_ms: i64, outcome: Acquired) -> Outcome {
    Outcome::Answered(Answer::Acquire(AcquireResponse {
        revision,
        time_ms,
        outcome: Some(outcome),
    }))
}

fn call(
    client: usize,
    (invoked, returned): (u64, u64),
    request: Request,
    outcome: Outcome,
) -> Call {
    Call { client, invoked, returned, attempts: 1, sent: None, request, outcome }
}
