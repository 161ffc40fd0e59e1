//! Locks to the millisecond.

use std::sync::Arc;

use holdfast_proto::v1::*;

use crate::{
    by_hand::{by_hand, pass},
    common::{
        build::*, clock::TestClock, coordination::*, lock_watcher::LockWatcher,
        namespace::Namespace,
    },
};

by_hand! {
    a_hold_lasts_to_the_last_millisecond,
    a_renewal_at_the_last_millisecond_counts,
    a_guard_counts_to_the_last_millisecond,
    a_waiter_gets_the_lock_when_the_hold_ends,
    a_new_ttl_counts_from_the_renewal,
    a_renewal_may_shorten,
    the_end_of_a_hold_is_told_when_it_comes,
}

async fn a_hold_lasts_to_the_last_millisecond(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 1_000)).await;
    assert_eq!(lock.acquired_at_ms, clock.now_ms());
    pass(&clock, 999);
    assert_eq!(ns.taken(acquire("l")).await, lock);
    pass(&clock, 1);
    assert_eq!(ns.lock("l").await, None);
    assert_eq!(ns.ok(list_locks("")).await.locks, []);
    assert!(ns.hold(acquire("l")).await.token > lock.token);
}

async fn a_renewal_at_the_last_millisecond_counts(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 50)).await;
    for _ in 0..20 {
        pass(&clock, 49);
        let renewed = ns.ok(renew(&lock)).await.lock.expect("answered");
        assert_eq!(renewed.expires_at_ms, clock.now_ms() + 50);
    }
    assert_eq!(ns.revision().await, lock.token);
    pass(&clock, 50);
    ns.lost(renew(&lock), &lock, "expired").await;
    assert!(!ns.ok(release(&lock)).await.released);
}

async fn a_guard_counts_to_the_last_millisecond(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 50)).await;
    let write = SetRequest { options: guarded([&lock]), ..set("k", "1") };
    pass(&clock, 49);
    ns.ok(write.clone()).await;
    pass(&clock, 1);
    ns.lost(write, &lock, "expired").await;
}

async fn a_waiter_gets_the_lock_when_the_hold_ends(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 500)).await;
    let waiter = ns.queue(patient(acquire_for("l", 500)), 1).await;
    pass(&clock, 499);
    assert_eq!(ns.until_waiting("l", 1).await, clock.now_ms());
    assert!(!waiter.is_finished());
    pass(&clock, 1);
    let next = waiter.granted().await;
    assert_eq!(next.acquired_at_ms, lock.expires_at_ms);
    assert_eq!(next.expires_at_ms, clock.now_ms() + 500);
}

async fn a_new_ttl_counts_from_the_renewal(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 100)).await;
    pass(&clock, 60);
    ns.ok(RenewRequest { ttl_ms: Some(1_000), ..renew(&lock) }).await;
    pass(&clock, 999);
    assert_eq!(ns.lock("l").await.expect("held").expires_at_ms, clock.now_ms() + 1);
    pass(&clock, 1);
    assert_eq!(ns.lock("l").await, None);
}

async fn a_renewal_may_shorten(ns: Namespace, clock: Arc<TestClock>) {
    let lock = ns.hold(acquire_for("l", 60_000)).await;
    ns.ok(RenewRequest { ttl_ms: Some(10), ..renew(&lock) }).await;
    pass(&clock, 10);
    assert_eq!(ns.lock("l").await, None);
}

async fn the_end_of_a_hold_is_told_when_it_comes(ns: Namespace, clock: Arc<TestClock>) {
    let mut watcher = LockWatcher::on(&ns, watch_locks("")).await;
    watcher.state().await;
    for round in 1..=5 {
        ns.hold(acquire_for(&format!("l{round}"), round * 100)).await;
    }
    watcher.events(5).await;
    for round in 1..=5 {
        pass(&clock, 100);
        let event = watcher.events(1).await.remove(0);
        assert_eq!((event.r#type(), event.name), (LockEventType::Expired, format!("l{round}")));
        assert_eq!(event.time_ms, clock.now_ms());
    }
}
