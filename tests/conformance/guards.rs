//! Guards: writes that are applied only while a lock is held. And what is checked before what.

use futures::future::join_all;
use holdfast_proto::v1::{
    compare::Operand, pipeline_answer::Result as Outcome, pipeline_call::Operation as Op, *,
};

use super::transaction::with;
use crate::common::{build::*, coordination::*, failure::Failure, namespace::Namespace};

crate::cases! {
    guarded_writes_are_applied_while_the_lock_is_held,
    guarded_writes_are_refused_once_it_is_not,
    guarded_writes_are_refused_in_a_pipeline,
    a_guard_of_an_expired_hold_is_refused_from_its_deadline_on,
    a_guard_tells_why_its_hold_was_lost,
    a_guard_on_a_lock_that_nobody_holds_is_refused,
    all_guards_must_hold,
    a_guard_holds_for_a_renewed_hold,
    a_guard_holds_for_a_hold_by_a_lease,
    a_refused_guard_does_not_stop_the_next_call_of_a_pipeline,
    a_write_that_changes_nothing_is_guarded_too,
    locks_and_leases_can_be_guarded,
    a_clear_can_be_guarded,
    no_guarded_write_follows_the_release,
    tokens_can_be_compared,
    validation_comes_before_all,
    a_replay_comes_before_guards_and_conditions,
    the_lineage_comes_before_guards,
    guards_come_before_conditions,
    guards_come_before_compares,
    guards_come_before_operations,
}

/// Every kind of write, each of which changes something where `k` is 1 and `n` is missing.
fn writes() -> Vec<Op> {
    vec![
        Op::Set(set("k", "2")),
        Op::Delete(delete("k")),
        Op::SetTtl(set_ttl("k", ttl(60_000))),
        Op::Get(GetRequest { touch: ttl(60_000), ..get("k") }),
        Op::Increment(increment("n", 1)),
        Op::DeleteRange(delete_range(all())),
        Op::BatchSet(batch_set([item("k", "2"), item("n", "2")])),
        Op::BatchDelete(batch_delete(&["k"])),
        Op::Transact(transact([op::set("n", "1"), op::delete("k")])),
    ]
}

async fn guarded_writes_are_applied_while_the_lock_is_held(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    for write in writes() {
        ns.ok(delete("n")).await;
        let before = ns.set("k", "1").await.mod_revision;
        let guarded = with_options(write, guarded([&lock]));
        if let Err(failure) = ns.send(guarded.clone()).await {
            panic!("{guarded:?}: {failure:?}");
        }
        assert_eq!(ns.revision().await, before + 1, "{guarded:?}");
    }
}

/// A hold that was lost to another, who has it now.
async fn superseded(ns: &Namespace) -> Lock {
    let stale = ns.hold(acquire("l")).await;
    ns.ok(release(&stale)).await;
    ns.hold(acquire("l")).await;
    stale
}

async fn guarded_writes_are_refused_once_it_is_not(ns: Namespace) {
    ns.set("k", "1").await;
    let stale = superseded(&ns).await;
    let before = (ns.revision().await, ns.get("k").await);
    for write in writes() {
        let failure = ns.send(with_options(write, guarded([&stale]))).await;
        let failure = failure.expect_err("refused").expect(ErrorReason::LockLost);
        assert_eq!(failure.metadata["lock"], "l");
        assert_eq!(failure.number("token"), stale.token);
        assert_eq!(failure.metadata["cause"], "released");
    }
    assert_eq!((ns.revision().await, ns.get("k").await), before);
}

async fn guarded_writes_are_refused_in_a_pipeline(ns: Namespace) {
    ns.set("k", "1").await;
    let stale = superseded(&ns).await;
    let before = (ns.revision().await, ns.get("k").await);
    let mut pipe = ns.pipe().await;
    let count = writes().len();
    pipe.send(writes().into_iter().map(|write| with_options(write, guarded([&stale]))));
    for (_, outcome) in pipe.answers(count).await {
        match outcome {
            Outcome::Status(status) => drop(Failure::from(status).expect(ErrorReason::LockLost)),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((ns.revision().await, ns.get("k").await), before);
}

async fn a_guard_of_an_expired_hold_is_refused_from_its_deadline_on(ns: Namespace) {
    for round in 0..5 {
        let lock = ns.hold(acquire_for(&format!("l{round}"), 40)).await;
        loop {
            let write = SetRequest { options: guarded([&lock]), ..set("k", "1") };
            match ns.call(write).await {
                Ok(answer) => assert!(answer.time_ms < lock.expires_at_ms, "{answer:?}"),
                Err(failure) => {
                    let failure = failure.expect(ErrorReason::LockLost);
                    assert_eq!(failure.metadata["cause"], "expired");
                    break;
                }
            }
        }
        assert!(ns.ok(get("k")).await.time_ms >= lock.expires_at_ms, "refused too early");
    }
}

async fn a_guard_tells_why_its_hold_was_lost(ns: Namespace) {
    let broken = ns.hold(acquire("a")).await;
    ns.ok(break_lock(&broken, "why not")).await;
    let guarded_by = |lock| SetRequest { options: guarded([lock]), ..set("k", "1") };
    let failure = ns.lost(guarded_by(&broken), &broken, "broken").await;
    assert_eq!(failure.metadata["reason"], "why not");
    let lease = ns.lease(60_000).await;
    let leased = ns.hold(acquire_by("b", lease)).await;
    ns.ok(revoke(lease)).await;
    ns.lost(guarded_by(&leased), &leased, "lease_revoked").await;
}

async fn a_guard_on_a_lock_that_nobody_holds_is_refused(ns: Namespace) {
    let never = Lock { name: "l".into(), token: 7, ..Default::default() };
    ns.lost(SetRequest { options: guarded([&never]), ..set("k", "1") }, &never, "unknown").await;
    assert_eq!(ns.state().await.namespace, None, "nothing is created");
}

async fn all_guards_must_hold(ns: Namespace) {
    let a = ns.hold(acquire("a")).await;
    let b = ns.hold(acquire("b")).await;
    let write = SetRequest { options: guarded([&a, &b]), ..set("k", "1") };
    ns.ok(write.clone()).await;
    ns.ok(release(&b)).await;
    ns.lost(write.clone(), &b, "released").await;
    ns.lost(SetRequest { options: guarded([&b, &a]), ..write }, &b, "released").await;
    let mut many = Vec::new();
    for number in 0..16 {
        many.push(ns.hold(acquire(&format!("l{number}"))).await);
    }
    ns.ok(SetRequest { options: guarded(&many), ..set("k", "2") }).await;
}

async fn a_guard_holds_for_a_renewed_hold(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 2_000)).await;
    ns.ok(RenewRequest { ttl_ms: Some(60_000), ..renew(&lock) }).await;
    ns.until(lock.expires_at_ms + 1).await;
    ns.ok(SetRequest { options: guarded([&lock]), ..set("k", "1") }).await;
}

async fn a_guard_holds_for_a_hold_by_a_lease(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let lock = ns.hold(acquire_by("l", lease)).await;
    let write = SetRequest { options: guarded([&lock]), ..set("k", "1") };
    ns.ok(write.clone()).await;
    ns.ok(revoke(lease)).await;
    ns.lost(write, &lock, "lease_revoked").await;
}

async fn a_refused_guard_does_not_stop_the_next_call_of_a_pipeline(ns: Namespace) {
    let stale = superseded(&ns).await;
    let mut pipe = ns.pipe().await;
    let refused = SetRequest { options: guarded([&stale]), ..set("k", "refused") };
    let first = pipe.send([Op::Set(refused), Op::Set(set("k", "applied"))]);
    let answers = pipe.answers(2).await;
    assert!(matches!(answers[&first], Outcome::Status(_)));
    assert!(matches!(answers[&(first + 1)], Outcome::Set(_)));
    assert_eq!(ns.value("k").await.as_deref(), Some("applied"));
}

async fn a_write_that_changes_nothing_is_guarded_too(ns: Namespace) {
    let stale = superseded(&ns).await;
    let options = guarded([&stale]);
    let nothing = DeleteRequest { options: options.clone(), ..delete("missing") };
    ns.lost(nothing, &stale, "released").await;
    ns.lost(TransactRequest { options, ..transact([op::get("k")]) }, &stale, "released").await;
}

async fn locks_and_leases_can_be_guarded(ns: Namespace) {
    let good = ns.hold(acquire("good")).await;
    let held = ns.hold(acquire("held")).await;
    let lease = ns.lease(60_000).await;
    let stale = superseded(&ns).await;
    let calls = [
        Op::Acquire(acquire("new")),
        Op::Renew(renew(&held)),
        Op::UpdateValue(update_value(&held, "v")),
        Op::Grant(grant(60_000)),
        Op::Revoke(revoke(lease)),
        Op::BreakLock(break_lock(&held, "")),
        Op::Release(release(&ns.hold(acquire("another")).await)),
    ];
    let before = (ns.revision().await, ns.ok(list_locks("")).await.locks);
    for call in calls.clone() {
        let failure = ns.send(with_options(call, guarded([&stale]))).await;
        failure.expect_err("refused").expect(ErrorReason::LockLost);
    }
    assert_eq!((ns.revision().await, ns.ok(list_locks("")).await.locks), before);
    for call in calls {
        let guarded = with_options(call, guarded([&good]));
        if let Err(failure) = ns.send(guarded.clone()).await {
            panic!("{guarded:?}: {failure:?}");
        }
    }
}

async fn a_clear_can_be_guarded(ns: Namespace) {
    ns.set("k", "1").await;
    let stale = superseded(&ns).await;
    let clear = |lock| ClearNamespaceRequest { options: guarded([lock]), ..Default::default() };
    ns.lost(clear(&stale), &stale, "released").await;
    let good = ns.hold(acquire("good")).await;
    assert_eq!(ns.ok(clear(&good)).await.cleared, 1);
}

/// Writers go on while their lock is released: whatever was applied was applied before.
async fn no_guarded_write_follows_the_release(ns: Namespace) {
    for round in 0..10 {
        let lock = ns.hold(acquire("l")).await;
        let writers = join_all((0..8).map(|_| async {
            let mut last = 0;
            loop {
                let write = SetRequest { options: guarded([&lock]), ..set("k", "1") };
                match ns.call(write).await {
                    Ok(answer) => last = answer.revision,
                    Err(failure) => {
                        failure.expect(ErrorReason::LockLost);
                        return last;
                    }
                }
            }
        }));
        let releasing = async {
            for _ in 0..round * 10 {
                ns.ok(exists("k")).await;
            }
            ns.ok(release(&lock)).await.revision
        };
        let (last, released) = tokio::join!(writers, releasing);
        assert!(last.iter().all(|last| *last < released), "{last:?}, released at {released}");
    }
}

async fn tokens_can_be_compared(ns: Namespace) {
    let token = ns.hold(acquire("l")).await.token;
    use Comparison::{Equal, Greater, Less, NotEqual};
    let table = [
        ("l", Equal, token, true),
        ("l", NotEqual, token, false),
        ("l", Equal, token + 1, false),
        ("l", NotEqual, token + 1, true),
        ("l", Less, token + 1, true),
        ("l", Less, token, false),
        ("l", Greater, token - 1, true),
        ("none", Equal, 0, false),
        ("none", Equal, token, false),
        ("none", NotEqual, token, true),
        ("none", Less, u64::MAX, false),
    ];
    for (name, how, operand, holds) in table {
        let compared = compare(name, how, Operand::LockToken(operand));
        let answer = ns.ok(with([compared], transact([op::get("k")]))).await;
        assert_eq!(answer.succeeded, holds, "{name} {how:?} {operand}");
    }
    // A key of that name is something else.
    ns.set("none", "1").await;
    let compared = compare("none", NotEqual, Operand::LockToken(token));
    assert!(ns.ok(with([compared], transact([op::get("k")]))).await.succeeded);
}

async fn validation_comes_before_all(ns: Namespace) {
    let stale = superseded(&ns).await;
    let client = unique(8);
    let good = SetRequest { options: numbered(&client, 1), ..set("k", "1") };
    ns.ok(good.clone()).await;
    ns.fails(SetRequest { key: String::new(), ..good }, ErrorReason::InvalidKey).await;
    let elsewhere = WriteOptions {
        expected_lineage: Some("another".into()),
        ..guarded([&stale]).expect("options")
    };
    let bad = SetRequest { options: Some(elsewhere), expiry: ttl(0), ..set("k", "1") };
    ns.fails(bad, ErrorReason::InvalidExpiry).await;
}

async fn a_replay_comes_before_guards_and_conditions(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let options = WriteOptions {
        expected_lineage: Some(ns.lineage().await),
        guards: guarded([&lock]).expect("options").guards,
        ..numbered(&unique(8), 1).expect("options")
    };
    let write = SetRequest { options: Some(options), condition: absent(), ..set("k", "1") };
    let answer = ns.ok(write.clone()).await;
    ns.ok(release(&lock)).await;
    assert_eq!(ns.ok(write).await, answer);
}

async fn the_lineage_comes_before_guards(ns: Namespace) {
    let stale = superseded(&ns).await;
    let options = WriteOptions {
        expected_lineage: Some("another".into()),
        ..guarded([&stale]).expect("options")
    };
    let write = SetRequest { options: Some(options), condition: present(), ..set("k", "1") };
    ns.fails(write, ErrorReason::LineageChanged).await;
}

async fn guards_come_before_conditions(ns: Namespace) {
    let stale = superseded(&ns).await;
    let options = guarded([&stale]);
    let set = SetRequest { options: options.clone(), condition: present(), ..set("k", "1") };
    ns.lost(set, &stale, "released").await;
    let delete = DeleteRequest { options, condition: present(), ..delete("k") };
    ns.lost(delete, &stale, "released").await;
}

async fn guards_come_before_compares(ns: Namespace) {
    let stale = superseded(&ns).await;
    let failing = compare("k", Comparison::Equal, Operand::Exists(true));
    let request = TransactRequest { options: guarded([&stale]), ..transact([op::get("k")]) };
    ns.lost(with([failing], request), &stale, "released").await;
}

async fn guards_come_before_operations(ns: Namespace) {
    ns.set("k", "no number").await;
    let stale = superseded(&ns).await;
    let options = guarded([&stale]);
    let adding = IncrementRequest { options: options.clone(), ..increment("k", 1) };
    ns.lost(adding, &stale, "released").await;
    let transaction = TransactRequest { options, ..transact([op::increment("k", 1)]) };
    ns.lost(transaction, &stale, "released").await;
}
