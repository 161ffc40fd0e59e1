//! Calls that wait for locks, and times, over exports and imports.

use bytes::Bytes;
use futures::future;
use holdfast_proto::v1::*;

use crate::common::{coordination::*, namespace::Namespace};

crate::cases! {
    calls_that_wait_do_not_travel,
    calls_that_wait_over_an_import_queue_up_anew,
    an_offer_travels_also_where_its_lease_has_ended,
    holds_travel_as_they_are_where_they_are_renewed_meanwhile,
    times_that_are_none_are_refused,
}

async fn times_that_are_none_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    ns.lease(3_600_000).await;
    ns.hold(acquire_for("l", 3_600_000)).await;
    let exported = ns.export().await;
    let copy = ns.sibling("copy");
    let changes: [fn(&mut TransferItems, i64); 7] = [
        |items, ms| items.entries.iter_mut().for_each(|it| it.created_at_ms = ms),
        |items, ms| items.entries.iter_mut().for_each(|it| it.updated_at_ms = ms),
        |items, ms| items.entries.iter_mut().for_each(|it| it.expires_at_ms = Some(ms)),
        |items, ms| items.leases.iter_mut().for_each(|it| it.granted_at_ms = ms),
        |items, ms| items.leases.iter_mut().for_each(|it| it.expires_at_ms = ms),
        |items, ms| items.locks.iter_mut().for_each(|it| it.acquired_at_ms = ms),
        |items, ms| items.locks.iter_mut().for_each(|it| it.expires_at_ms = Some(ms)),
    ];
    for change in changes {
        for ms in [i64::MIN, -1, 100_000_000_000_000, i64::MAX] {
            let mut changed = exported.clone();
            changed.items.iter_mut().for_each(|items| change(items, ms));
            let failure = copy.import(&changed, false).await.expect_err("it is no time");
            let fields = failure.expect(ErrorReason::InvalidField).fields.clone();
            assert!(fields[0].ends_with("_ms"), "{fields:?}");
        }
    }
    assert_eq!(copy.state().await.namespace, None);
}

async fn calls_that_wait_do_not_travel(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 3_600_000)).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    assert_eq!(copy.lock("l").await.expect("it is held").waiting, 0);
    copy.ok(release(&lock)).await;
    assert_eq!(copy.lock("l").await, None);
    ns.ok(release(&lock)).await;
    waiter.granted().await;
}

async fn calls_that_wait_over_an_import_queue_up_anew(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 3_600_000)).await;
    let first = ns.queue(patient(acquire("l")), 1).await;
    let second = ns.queue(patient(acquire("l")), 2).await;
    ns.import(&ns.export().await, true).await.expect("it is imported");
    ns.until_waiting("l", 2).await;
    ns.ok(release(&lock)).await;
    // Nobody comes before them, though they may wait at two servers, and so have come in another order.
    let holder = ns.taken(acquire("l")).await;
    let served = [first, second].map(|waiter| async {
        let lock = waiter.granted().await;
        ns.ok(release(&lock)).await;
        lock.token
    });
    let tokens = futures::future::join_all(served).await;
    assert_eq!(tokens.iter().min(), Some(&holder.token));
}

async fn an_offer_travels_also_where_its_lease_has_ended(ns: Namespace) {
    let lease = ns.ok(grant(60_000)).await.lease.expect("granted").lease_id;
    let lock = ns.hold(acquire("l")).await;
    let waits = AcquireRequest { renew_to_keep: true, ..acquire_by("l", lease) };
    let waiter = ns.queue(patient(waits), 1).await;
    ns.ok(release(&lock)).await;
    let offered = waiter.granted().await;
    ns.ok(revoke(lease)).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    copy.lost(renew(&offered), &offered, "lease_expired").await;
}

async fn holds_travel_as_they_are_where_they_are_renewed_meanwhile(ns: Namespace) {
    // So many locks before them that the server waits to be read before it comes to them.
    let value = Bytes::from("v".repeat(4_000));
    let first = (0..1_000).map(|number| AcquireRequest {
        value: value.clone(),
        ..acquire_for(&format!("a{number:03}"), 3_600_000)
    });
    future::join_all(first.map(|request| ns.ok(request))).await;
    let former = ns.hold(acquire("free before")).await;
    ns.ok(release(&former)).await;
    let free = ns.hold(acquire_for("free before", 3_600_000)).await;
    let updated = ns.hold(acquire_for("of another value before", 3_600_000)).await;
    ns.ok(update_value(&updated, "before")).await;
    ns.ok(renew(&updated)).await;
    ns.ok(update_value(&updated, "now")).await;
    let exported = ns.export_beside(async {
        ns.set("k", "1").await;
        ns.ok(renew(&free)).await;
        ns.ok(renew(&updated)).await;
    });
    let exported = exported.await;
    let copy = ns.sibling("copy");
    copy.import(&exported, false).await.expect("it is imported");
    assert_eq!(copy.lock("free before").await.map(|lock| lock.token), Some(free.token));
    assert_eq!(copy.lock("of another value before").await.expect("it is held").value, "now");
    assert_eq!(copy.lock("a999").await.expect("it is held").value, value);
}
