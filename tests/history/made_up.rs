//! The judge judged by histories that are made up: what is rare in those that are run, and what it was once wrong about.

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome as Acquired,
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *,
};
use libtest_mimic::{Failed, Trial};

use crate::{
    common::failure::Failure,
    history::{Call, Change, Chronicle, Epoch, History, Outcome, Request, Watch},
    judge::{judge, judge_all},
};

const NAME: &str = "l";

/// Those that are good, and one with a call overtaken.
pub fn trials() -> Vec<Trial> {
    let passes = || judge(&offered(true)).map_err(|violation| Failed::from(violation.to_string()));
    let caught = || match judge(&offered(false)) {
        Err(violation) if violation.promise.starts_with("a lock is given in the order") => Ok(()),
        Err(violation) => Err(format!("for another reason: {violation}").into()),
        Ok(()) => Err("not caught".into()),
    };
    let watched_before = || Ok(judge_all(&watched_before_it_was()).map_err(|it| it.to_string())?);
    let reset = || Ok(judge_all(&begun_anew_before_it_was()).map_err(|it| it.to_string())?);
    let missed = || Ok(judge_all(&with_one_missed()).map_err(|it| it.to_string())?);
    let shared = || Ok(judge_all(&with_a_shared_revision()).map_err(|it| it.to_string())?);
    let renewed = || Ok(judge(&perhaps_renewed()).map_err(|it| it.to_string())?);
    let kept = || Ok(judge_all(&with_a_lease_that_was_kept()).map_err(|it| it.to_string())?);
    let revoked = || Ok(judge(&revoked_as_soon_as_kept()).map_err(|it| it.to_string())?);
    vec![
        Trial::test("judge::a_lease_of_a_lineage_that_began_and_was_cut_passes", kept),
        Trial::test(
            "judge::a_lease_that_is_revoked_in_the_millisecond_in_which_it_was_kept_passes",
            revoked,
        ),
        Trial::test("judge::an_offer_that_was_perhaps_taken_ends_with_its_lease", renewed),
        Trial::test("judge::a_revision_that_two_lineages_share_passes", shared),
        Trial::test("judge::a_watch_from_before_a_lineage_passes", watched_before),
        Trial::test("judge::a_watch_that_begins_anew_before_a_lineage_passes", reset),
        Trial::test("judge::a_lineage_that_nobody_took_down_passes", missed),
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

/// A lease was granted while one lineage ended, at the revision with which the next began. A key was set with it, and then
/// another lineage went on from there.
fn with_a_lease_that_was_kept() -> Chronicle {
    let set = Entry {
        key: "k".to_owned(),
        version: 1,
        create_revision: 1001,
        mod_revision: 1001,
        created_at_ms: 1,
        updated_at_ms: 1,
        lease_id: Some(3),
        ..Entry::default()
    };
    let event = Event {
        r#type: EventType::Set.into(),
        revision: 1001,
        time_ms: 1,
        key: set.key.clone(),
        entry: Some(Entry { value: Some(b"v".to_vec().into()), ..set.clone() }),
        ..Event::default()
    };
    let asks = Request::Do(Op::Set(SetRequest {
        key: set.key.clone(),
        value: b"v".to_vec().into(),
        expiry: Some(Expiry { kind: Some(expiry::Kind::LeaseId(3)) }),
        ..SetRequest::default()
    }));
    let answer =
        SetResponse { revision: 1001, time_ms: 1, entry: Some(set), created: true, previous: None };
    let (grants, granted_lease) = grant(1000, 1);
    let mut chronicle = two_lineages();
    let third = Epoch {
        lineage: "third".to_owned(),
        base: 2000,
        last: 2000,
        ..chronicle.epochs[1].clone()
    };
    (chronicle.epochs[1].last, chronicle.epochs[1].log) = (1001, vec![event]);
    chronicle.epochs.push(Epoch { shared: Some(1001), ..third });
    chronicle.changes = vec![
        Change { begun: 100, done: 120, kept: None },
        Change { begun: 200, done: 250, kept: Some(201) },
    ];
    chronicle.calls = vec![
        call(0, (90, 135), grants, granted_lease),
        call(0, (140, 155), asks, Outcome::Answered(Answer::Set(answer))),
        look(300, 2000),
    ];
    chronicle
}

/// A lease was kept alive and then revoked, at the same revision and time. When others have written since, it is not there.
fn revoked_as_soon_as_kept() -> History {
    let (grants, granted_lease) = grant(2, 100);
    let keeps =
        || Request::Do(Op::KeepAlive(KeepAliveRequest { lease_id: 3, ..Default::default() }));
    let lease = Lease {
        lease_id: 3,
        ttl_ms: 600,
        granted_at_ms: 100,
        expires_at_ms: 800,
        keys: 0,
        locks: 0,
    };
    let kept = KeepAliveResponse {
        revision: 2,
        time_ms: 200,
        namespace: String::new(),
        lease_id: 3,
        result: Some(keep_alive_response::Result::Lease(lease)),
    };
    let revokes = Request::Do(Op::Revoke(RevokeRequest { lease_id: 3, ..Default::default() }));
    let revoked = RevokeResponse { revision: 2, time_ms: 200, revoked: true, keys: 0, locks: 0 };
    let set = |key: &str, revision: u64, time_ms| Entry {
        key: key.to_owned(),
        version: 1,
        create_revision: revision,
        mod_revision: revision,
        created_at_ms: time_ms,
        updated_at_ms: time_ms,
        ..Entry::default()
    };
    let sets = |entry: Entry| {
        let (revision, time_ms, key) = (entry.mod_revision, entry.updated_at_ms, entry.key.clone());
        let asks = SetRequest { key, value: b"v".to_vec().into(), ..Default::default() };
        let answer =
            SetResponse { revision, time_ms, entry: Some(entry), created: true, previous: None };
        (Request::Do(Op::Set(asks)), Outcome::Answered(Answer::Set(answer)))
    };
    let event = |entry: Entry| Event {
        r#type: EventType::Set.into(),
        revision: entry.mod_revision,
        time_ms: entry.updated_at_ms,
        key: entry.key.clone(),
        entry: Some(Entry { value: Some(b"v".to_vec().into()), ..entry }),
        ..Event::default()
    };
    let [a, b, c] = [set("a", 2, 50), set("b", 3, 210), set("c", 4, 220)];
    let [(sets_a, set_a), (sets_b, set_b), (sets_c, set_c)] =
        [&a, &b, &c].map(|it| sets(it.clone()));
    let missing = Failure { reason: "LEASE_NOT_FOUND".to_owned(), ..Failure::default() };
    History {
        base: 1,
        last: 4,
        end_ms: 500,
        lineage: "a lineage".to_owned(),
        log: vec![event(a), event(b), event(c)],
        calls: vec![
            call(1, (0, 2), sets_a, set_a),
            call(0, (3, 5), grants, granted_lease),
            call(0, (10, 20), keeps(), Outcome::Answered(Answer::KeepAlive(kept))),
            call(0, (30, 40), revokes, Outcome::Answered(Answer::Revoke(revoked))),
            call(1, (50, 60), sets_b, set_b),
            call(0, (70, 80), keeps(), Outcome::Refused(missing)),
            call(1, (90, 100), sets_c, set_c),
        ],
        ..History::default()
    }
}

/// A lock was offered for two seconds, and taken by a renewal that nobody answered: so it ended before, with its lease.
fn perhaps_renewed() -> History {
    let lock = Lock { ttl_ms: 0, lease_id: Some(3), ..lock("holder", 2, 200, 2000) };
    let (grants, granted_lease) = grant(1, 100);
    let mut asks = acquire("holder", 0, 100);
    if let Request::Do(Op::Acquire(r)) = &mut asks {
        r.duration = Some(Duration::LeaseId(3));
    }
    let renews = Request::Do(Op::Renew(RenewRequest {
        name: NAME.to_owned(),
        token: 2,
        ..RenewRequest::default()
    }));
    let unanswered = Outcome::Unknown { why: "no answer".to_owned() };
    History {
        base: 1,
        last: 3,
        end_ms: 800,
        lineage: "a lineage".to_owned(),
        lock_log: vec![granted(&lock), ended(3, 2, 705)],
        calls: vec![
            call(0, (0, 5), grants, granted_lease),
            call(0, (10, 30), asks, acquired(2, 200, Acquired::Lock(lock))),
            call(0, (40, 50), renews, unanswered),
        ],
        ..History::default()
    }
}

/// Between two lineages there was no namespace, and a watch was opened, which is told later of the second. Somebody looks
/// before that.
fn watched_before_it_was() -> Chronicle {
    let created = watch_response::Created { revision: 0, ..watch_response::Created::default() };
    let first = WatchResponse {
        body: Some(watch_response::Body::Created(created)),
        ..WatchResponse::default()
    };
    let progress = watch_response::Progress::default();
    let born = WatchResponse {
        revision: 1000,
        complete_through: 1000,
        new_lineage: "second".to_owned(),
        body: Some(watch_response::Body::Progress(progress)),
        ..WatchResponse::default()
    };
    let watch = Watch {
        request: WatchRequest::default(),
        opened: 125,
        closed: 300,
        messages: vec![(126, first), (155, born)],
        end: None,
        starved: false,
    };
    Chronicle {
        changes: vec![Change { begun: 100, done: 120, kept: None }],
        calls: vec![look(10, 10), look(130, 0), look(200, 1000)],
        watches: vec![watch],
        ..two_lineages()
    }
}

/// A watch that was to go on with the first lineage began anew while there was none, and ended when the second had lost what
/// came after its beginning.
fn begun_anew_before_it_was() -> Chronicle {
    let created =
        watch_response::Created { revision: 10, reset: true, ..watch_response::Created::default() };
    let first = WatchResponse {
        revision: 10,
        body: Some(watch_response::Body::Created(created)),
        ..WatchResponse::default()
    };
    let after = watch_request::AfterRevision { revision: 9, or_initial: true };
    let end = Failure {
        reason: "LINEAGE_CHANGED".to_owned(),
        metadata: [("valid_through".to_owned(), "1000".to_owned())].into(),
        ..Failure::default()
    };
    let watch = Watch {
        request: WatchRequest {
            lineage: Some("first".to_owned()),
            start: Some(watch_request::Start::AfterRevision(after)),
            ..WatchRequest::default()
        },
        opened: 125,
        closed: 300,
        messages: vec![(126, first)],
        end: Some(end),
        starved: false,
    };
    let [first, second] = two_lineages().epochs.try_into().expect("there are two");
    let third = Epoch {
        lineage: "third".to_owned(),
        base: 2000,
        shared: Some(1000),
        is_known: true,
        last: 2000,
        ..Epoch::default()
    };
    Chronicle {
        epochs: vec![first, second, third],
        changes: vec![
            Change { begun: 100, done: 120, kept: None },
            Change { begun: 250, done: 260, kept: Some(140) },
        ],
        calls: vec![look(10, 10), look(130, 0), look(150, 1001), look(320, 2000)],
        watches: vec![watch],
        ..Chronicle::default()
    }
}

/// Between two lineages there was another, which came and went before anybody could take it down; and twice none.
fn with_one_missed() -> Chronicle {
    let change = |begun| Change { begun, done: begun + 20, kept: None };
    Chronicle {
        changes: vec![change(100), change(300)],
        calls: vec![look(10, 10), look(130, 0), look(200, 500), look(330, 0), look(400, 1001)],
        ..two_lineages()
    }
}

/// A lineage begins with the revision that the one before ended with, and is seen before anything changes.
fn with_a_shared_revision() -> Chronicle {
    let mut chronicle = two_lineages();
    let lock = lock("holder", 11, 1, 50);
    chronicle.epochs[0].lock_log = vec![granted(&lock)];
    (chronicle.epochs[0].last, chronicle.epochs[1].base, chronicle.epochs[1].last) = (11, 11, 11);
    chronicle.changes = vec![Change { begun: 100, done: 120, kept: None }];
    let held = acquired(11, 1, Acquired::Lock(lock));
    chronicle.calls = vec![call(0, (20, 30), acquire("holder", 50, 0), held), look(200, 11)];
    chronicle
}

fn two_lineages() -> Chronicle {
    let epoch = |lineage: &str, base| Epoch {
        lineage: lineage.to_owned(),
        base,
        is_known: true,
        last: base,
        ..Epoch::default()
    };
    Chronicle { epochs: vec![epoch("first", 10), epoch("second", 1000)], ..Chronicle::default() }
}

/// Somebody asks where the namespace stands.
fn look(invoked: u64, revision: u64) -> Call {
    let answer = GetNamespaceResponse { revision, time_ms: 1, namespace: None };
    call(0, (invoked, invoked + 5), Request::Look, Outcome::Looked(answer))
}

/// The lease 3 is granted for 600 ms.
fn grant(revision: u64, time_ms: i64) -> (Request, Outcome) {
    let lease = Lease {
        lease_id: 3,
        ttl_ms: 600,
        granted_at_ms: time_ms,
        expires_at_ms: time_ms + 600,
        keys: 0,
        locks: 0,
    };
    let grants = GrantRequest { lease_id: Some(3), ttl_ms: 600, ..GrantRequest::default() };
    let answer = GrantResponse { revision, time_ms, lease: Some(lease) };
    (Request::Do(Op::Grant(grants)), Outcome::Answered(Answer::Grant(answer)))
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
