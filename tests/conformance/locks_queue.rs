//! Queues of locks: first come, first served, and who has gone stands in nobody's way.

use futures::future::join_all;
use holdfast_proto::v1::*;

use crate::common::{build::*, coordination::*, namespace::Namespace};

crate::cases! {
    a_released_lock_passes_to_who_waits,
    fifty_waiters_are_served_in_the_order_they_came,
    who_has_waited_does_not_bring_a_deleted_namespace_back,
    an_expired_lock_passes_on_and_never_early,
    a_broken_lock_passes_on,
    a_renewed_lock_does_not_pass_on,
    a_try_does_not_pass_who_waits,
    the_same_acquire_id_keeps_its_place,
    a_place_outlives_the_first_of_its_calls,
    who_stopped_waiting_is_not_served,
    a_place_can_be_given_up,
    a_cancelled_waiter_leaves_the_queue_within_a_second,
    a_dropped_connection_leaves_the_queue_within_a_second,
    the_one_behind_a_cancelled_waiter_gets_the_lock,
    who_goes_at_the_moment_of_the_grant_holds_nothing_up,
    a_waiter_whose_lease_ended_is_not_served,
    a_lock_granted_from_the_queue_shows_its_new_owner,
    a_place_in_the_queue_takes_no_revision,
    queues_of_locks_are_apart,
}

/// How long a place may outlive its caller, and a grant to somebody who has gone.
const PLACE_MS: i64 = 1_000;
const GRANT_MS: i64 = 3_000;

async fn a_released_lock_passes_to_who_waits(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire_for("l", 60_000)), 1).await;
    let released = ns.ok(release(&first)).await;
    let second = waiter.granted().await;
    assert!(second.token > first.token && second.token >= released.revision);
    assert_eq!(second.ttl_ms, 60_000);
    // The TTL counts from when the call that waited took the lock.
    assert!(second.expires_at_ms >= second.acquired_at_ms + 60_000);
    assert_eq!(ns.lock("l").await, Some(second));
}

async fn who_has_waited_does_not_bring_a_deleted_namespace_back(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    ns.ok(release(&lock)).await;
    waiter.granted().await;
    let now_ms = ns.sibling("other").ok(set("k", "1")).await.time_ms;
    ns.ok(DeleteNamespaceRequest::default()).await;
    // Longer than the server takes to say again that it lives.
    ns.sibling("other").until(now_ms + 1_200).await;
    assert_eq!(ns.state().await.namespace, None);
}

async fn fifty_waiters_are_served_in_the_order_they_came(ns: Namespace) {
    let mut lock = ns.hold(acquire("l")).await;
    let mut waiters = Vec::new();
    for place in 1..=50 {
        waiters.push(ns.queue(patient(acquire("l")), place).await);
    }
    for (waiter, behind) in waiters.into_iter().zip((0..50).rev()) {
        assert!(ns.ok(release(&lock)).await.released);
        let next = waiter.granted().await;
        assert!(next.token > lock.token);
        assert_eq!(ns.lock("l").await, Some(Lock { waiting: behind, ..next.clone() }));
        lock = next;
    }
}

async fn an_expired_lock_passes_on_and_never_early(ns: Namespace) {
    let trials = (0..20).map(|number| {
        let ns = ns.clone();
        async move {
            let name = format!("l{number}");
            let first = ns.hold(acquire_for(&name, 100 + number)).await;
            let second = ns.hold(patient(acquire(&name))).await;
            assert!(second.token > first.token);
            assert!(second.acquired_at_ms >= first.expires_at_ms, "{first:?} {second:?}");
        }
    });
    join_all(trials).await;
}

async fn a_broken_lock_passes_on(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    assert!(ns.ok(break_lock(&first, "")).await.broken);
    assert!(waiter.granted().await.token > first.token);
    ns.lost(renew(&first), &first, "broken").await;
}

async fn a_renewed_lock_does_not_pass_on(ns: Namespace) {
    let first = ns.hold(acquire_for("l", 2_000)).await;
    let answer = ns.ok(RenewRequest { ttl_ms: Some(3_000), ..renew(&first) }).await;
    let second = ns.hold(patient(acquire("l"))).await;
    assert!(second.acquired_at_ms >= answer.time_ms + 3_000, "{answer:?} {second:?}");
}

async fn a_try_does_not_pass_who_waits(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    let (released, tried) = tokio::join!(ns.ok(release(&first)), ns.ok(acquire("l")));
    assert!(released.released);
    assert_eq!(granted(tried), None);
    waiter.granted().await;
}

async fn the_same_acquire_id_keeps_its_place(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let attempt = patient(acquire("l"));
    let first = ns.queue(attempt.clone(), 1).await;
    let behind = ns.queue(patient(acquire("l")), 2).await;
    let again = ns.queue(attempt, 2).await;
    ns.ok(release(&held)).await;
    let (first, again) = (first.granted().await, again.granted().await);
    assert_eq!(first.token, again.token);
    assert!(!behind.is_finished());
    assert_eq!(ns.lock("l").await.expect("held").waiting, 1);
    ns.ok(release(&first)).await;
    assert!(behind.granted().await.token > first.token);
}

async fn a_place_outlives_the_first_of_its_calls(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let attempt = patient(acquire("l"));
    let first = ns.queue(attempt.clone(), 1).await;
    let behind = ns.queue(patient(acquire("l")), 2).await;
    let again = ns.queue(attempt.clone(), 2).await;
    // That the second call of the attempt has come shows nowhere: what it does at the server is done before these writes.
    for round in 0..20 {
        ns.set("written", round.to_string()).await;
    }
    first.abort();
    ns.ok(release(&held)).await;
    let granted = again.granted().await;
    assert_eq!(ns.hold(attempt).await.token, granted.token);
    assert!(!behind.is_finished());
    ns.ok(release(&granted)).await;
    behind.granted().await;
}

async fn who_stopped_waiting_is_not_served(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    ns.taken(AcquireRequest { wait_ms: 50, ..acquire("l") }).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    ns.ok(release(&held)).await;
    waiter.granted().await;
}

async fn a_place_can_be_given_up(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let attempt = patient(acquire("l"));
    let gone = ns.queue(attempt.clone(), 1).await;
    let behind = ns.queue(patient(acquire("l")), 2).await;
    gone.abort();
    ns.ok(give_up(&attempt)).await;
    ns.until_waiting("l", 1).await;
    assert!(!ns.ok(give_up(&attempt)).await.released);
    assert!(!behind.is_finished());
    ns.ok(release(&held)).await;
    behind.granted().await;
}

async fn a_cancelled_waiter_leaves_the_queue_within_a_second(ns: Namespace) {
    ns.hold(acquire("l")).await;
    let gone = ns.queue(patient(acquire("l")), 1).await;
    ns.queue(patient(acquire("l")), 2).await;
    let went = ns.until_waiting("l", 2).await;
    gone.abort();
    let left = ns.until_waiting("l", 1).await;
    assert!(left - went <= PLACE_MS, "after {} ms", left - went);
}

async fn a_dropped_connection_leaves_the_queue_within_a_second(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    // What runs in a runtime of its own ends with it, connections included, like a client that is killed.
    let client = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime can be made");
    let other = ns.clone();
    client.spawn(async move { other.reconnected().hold(patient(acquire("l"))).await });
    let went = ns.until_waiting("l", 1).await;
    client.shutdown_background();
    let left = ns.until_waiting("l", 0).await;
    assert!(left - went <= PLACE_MS, "after {} ms", left - went);
    ns.ok(release(&held)).await;
    ns.hold(acquire("l")).await;
}

async fn the_one_behind_a_cancelled_waiter_gets_the_lock(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let gone = ns.queue(patient(acquire("l")), 1).await;
    let behind = ns.queue(patient(acquire("l")), 2).await;
    gone.abort();
    ns.until_waiting("l", 1).await;
    let released = ns.ok(release(&held)).await;
    let lock = behind.granted().await;
    assert!(lock.acquired_at_ms - released.time_ms <= GRANT_MS);
}

/// The caller goes while the lock is released: now before, now after it is granted.
async fn who_goes_at_the_moment_of_the_grant_holds_nothing_up(ns: Namespace) {
    let trials = (0..100_usize).map(|number| {
        let ns = ns.clone();
        async move {
            let name = format!("l{number}");
            let held = ns.hold(acquire(&name)).await;
            let leaving = AcquireRequest { renew_to_keep: true, ..patient(acquire(&name)) };
            let gone = ns.queue(leaving, 1).await;
            let releasing = tokio::spawn({
                let (ns, held) = (ns.clone(), held.clone());
                async move { ns.ok(release(&held)).await }
            });
            for _ in 0..number * 20 {
                tokio::task::yield_now().await;
            }
            gone.abort();
            let released = releasing.await.expect("released");
            let next = ns.hold(patient(acquire(&name))).await;
            let late = next.acquired_at_ms - released.time_ms;
            assert!(late <= GRANT_MS, "free only after {late} ms");
        }
    });
    // A few at a time, so that they do not wait for each other.
    let mut trials = trials.collect::<Vec<_>>();
    while !trials.is_empty() {
        join_all(trials.drain(..trials.len().min(20))).await;
    }
}

async fn a_waiter_whose_lease_ended_is_not_served(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let lease = ns.lease(60_000).await;
    let (waiting, request) = (ns.clone(), patient(acquire_by("l", lease)));
    let dead = tokio::spawn(async move { waiting.call(request).await });
    ns.until_waiting("l", 1).await;
    let behind = ns.queue(patient(acquire("l")), 2).await;
    assert!(ns.ok(revoke(lease)).await.revoked);
    ns.ok(release(&held)).await;
    behind.granted().await;
    let failure = dead.await.expect("the call ends").expect_err("its lease has ended");
    failure.expect(ErrorReason::LeaseNotFound);
}

async fn a_lock_granted_from_the_queue_shows_its_new_owner(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    let owner = Some(LockOwner { id: "second".into(), ..Default::default() });
    let request = AcquireRequest { owner: owner.clone(), value: "2".into(), ..acquire("l") };
    let waiter = ns.queue(patient(request), 1).await;
    ns.ok(release(&held)).await;
    let lock = waiter.granted().await;
    assert_eq!((&lock.owner, lock.value.as_ref()), (&owner, &b"2"[..]));
    assert_eq!(ns.lock("l").await, Some(lock));
}

async fn a_place_in_the_queue_takes_no_revision(ns: Namespace) {
    let held = ns.hold(acquire("l")).await;
    for place in 1..=5 {
        ns.queue(patient(acquire("l")), place).await;
    }
    assert_eq!(ns.set("k", "1").await.mod_revision, held.token + 1);
}

async fn queues_of_locks_are_apart(ns: Namespace) {
    let (a, b) = (ns.hold(acquire("a")).await, ns.hold(acquire("b")).await);
    let for_a = ns.queue(patient(acquire("a")), 1).await;
    let for_b = ns.queue(patient(acquire("b")), 1).await;
    ns.ok(release(&b)).await;
    assert_eq!(for_b.granted().await.name, "b");
    assert_eq!(ns.lock("a").await.expect("held").waiting, 1);
    assert!(!for_a.is_finished());
    ns.ok(release(&a)).await;
    assert_eq!(for_a.granted().await.name, "a");
}
