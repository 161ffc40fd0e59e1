//! Leases to the millisecond.

use std::{sync::Arc, time::Duration};

use holdfast_proto::v1::{
    compare::Operand, get_ttl_response::Ttl, operation_result::Kind as Done, *,
};

use crate::{
    by_hand::{by_hand, pass},
    common::{build::*, clock::TestClock, coordination::*, namespace::Namespace},
};

by_hand! {
    no_read_sees_a_leased_entry_from_the_end_of_its_lease_on,
    no_read_misses_a_leased_entry_before,
    a_lease_kept_alive_at_the_last_millisecond_lives,
    a_lease_lasts_its_ttl_from_each_renewal,
    the_end_of_a_lease_is_committed_when_it_comes,
    a_lease_can_be_attached_to_until_it_ends,
    a_lock_ends_with_its_lease_to_the_millisecond,
    an_id_can_be_used_again_after_an_hour,
    a_lease_of_a_hundred_years,
}

/// Whether each kind of read sees the key.
async fn sightings(ns: &Namespace) -> Vec<(&'static str, bool)> {
    let exists_compare = compare("k", Comparison::Equal, Operand::Exists(true));
    let compared = TransactRequest {
        compares: vec![exists_compare],
        otherwise: vec![op::get("k")],
        ..transact([op::get("k")])
    };
    let transacted = ns.ok(compared).await;
    let in_transaction = match transacted.results[0].kind.as_ref() {
        Some(Done::Get(found)) => found.entry.is_some(),
        other => panic!("{other:?}"),
    };
    let listed = match ns.ok(transact([op::list(all())])).await.results.remove(0).kind {
        Some(Done::List(found)) => !found.entries.is_empty(),
        other => panic!("{other:?}"),
    };
    let scanned = ns.scan(scan(all())).await.expect("a scan succeeds");
    let mut watcher = ns.watching(watch_initial(all())).await;
    vec![
        ("Get", ns.get("k").await.is_some()),
        ("Exists", ns.ok(exists("k")).await.exists),
        ("GetTtl", matches!(ns.ok(get_ttl("k")).await.ttl, Some(Ttl::RemainingMs(_)))),
        ("List", !ns.keys(all()).await.is_empty()),
        ("Scan", scanned.iter().any(|message| !message.entries.is_empty())),
        ("Count", ns.ok(count(all())).await.count == 1),
        ("BatchGet", ns.ok(batch_get(&["k"])).await.slots[0].entry.is_some()),
        ("compare", transacted.succeeded),
        ("get in a transaction", in_transaction),
        ("list in a transaction", listed),
        ("initial state", !watcher.initial().await.0.is_empty()),
    ]
}

async fn no_read_sees_a_leased_entry_from_the_end_of_its_lease_on(
    ns: Namespace,
    clock: Arc<TestClock>,
) {
    for _ in 0..10 {
        let lease = ns.lease(1_000).await;
        ns.attach("k", lease).await;
        pass(&clock, 1_000);
        for (read, seen) in sightings(&ns).await {
            assert!(!seen, "{read}");
        }
        // Who creates it anew finds nothing either.
        let answer = ns.ok(SetRequest { condition: absent(), ..set("k", "1") }).await;
        assert!(answer.created);
        ns.ok(delete("k")).await;
    }
}

async fn no_read_misses_a_leased_entry_before(ns: Namespace, clock: Arc<TestClock>) {
    let lease = ns.lease(1_000).await;
    ns.attach("k", lease).await;
    pass(&clock, 999);
    for (read, seen) in sightings(&ns).await {
        assert!(seen, "{read}");
    }
    assert_eq!(ns.ok(get_ttl("k")).await.ttl, Some(Ttl::RemainingMs(1)));
}

async fn a_lease_kept_alive_at_the_last_millisecond_lives(ns: Namespace, clock: Arc<TestClock>) {
    let lease = ns.lease(50).await;
    let entry = ns.attach("k", lease).await;
    for _ in 0..20 {
        pass(&clock, 49);
        ns.keep(lease).await.expect("in time");
    }
    assert_eq!(ns.get("k").await.expect("kept").mod_revision, entry.mod_revision);
    pass(&clock, 50);
    let failure = ns.keep(lease).await.expect_err("too late");
    failure.expect(ErrorReason::LeaseNotFound);
    assert_eq!(ns.get("k").await, None);
}

async fn a_lease_lasts_its_ttl_from_each_renewal(ns: Namespace, clock: Arc<TestClock>) {
    let lease = ns.lease(1_000).await;
    ns.attach("k", lease).await;
    pass(&clock, 400);
    let kept = ns.keep(lease).await.expect("in time");
    assert_eq!(kept.expires_at_ms, clock.now_ms() + 1_000);
    pass(&clock, 999);
    assert_eq!(ns.ok(get_ttl("k")).await.ttl, Some(Ttl::RemainingMs(1)));
    pass(&clock, 1);
    assert_eq!(ns.ok(get_lease(lease)).await.lease, None);
}

async fn the_end_of_a_lease_is_committed_when_it_comes(ns: Namespace, clock: Arc<TestClock>) {
    let mut watcher = ns.watching(watch(all())).await;
    let mut leases = Vec::new();
    for round in 1..=5 {
        let lease = ns.lease(round * 100).await;
        for key in 0..3 {
            ns.attach(&format!("{round}/{key}"), lease).await;
        }
        leases.push(lease);
    }
    watcher.events(15).await;
    for round in 1..=5 {
        pass(&clock, 100);
        let events = watcher.events(3).await;
        assert_eq!(events.len(), 3);
        for event in &events {
            assert!(event.key.starts_with(&format!("{round}/")), "{event:?}");
            assert_eq!((event.time_ms, event.revision), (clock.now_ms(), events[0].revision));
            assert_eq!((event.r#type(), event.reason()), (EventType::Expire, RemovalReason::Lease));
        }
    }
}

async fn a_lease_can_be_attached_to_until_it_ends(ns: Namespace, clock: Arc<TestClock>) {
    let lease = ns.lease(100).await;
    pass(&clock, 99);
    ns.attach("k", lease).await;
    pass(&clock, 1);
    let late = SetRequest { expiry: with_lease(lease), ..set("l", "1") };
    ns.fails(late, ErrorReason::LeaseNotFound).await;
    ns.fails(acquire_by("l", lease), ErrorReason::LeaseNotFound).await;
    assert!(!ns.ok(revoke(lease)).await.revoked);
}

async fn a_lock_ends_with_its_lease_to_the_millisecond(ns: Namespace, clock: Arc<TestClock>) {
    let lease = ns.lease(100).await;
    let lock = ns.hold(acquire_by("l", lease)).await;
    let guarded = SetRequest { options: guarded([&lock]), ..set("k", "1") };
    pass(&clock, 99);
    ns.ok(guarded.clone()).await;
    ns.keep(lease).await.expect("in time");
    pass(&clock, 99);
    ns.ok(guarded.clone()).await;
    assert_eq!(ns.lock("l").await.expect("held").expires_at_ms, clock.now_ms() + 1);
    pass(&clock, 1);
    assert_eq!(ns.lock("l").await, None);
    ns.lost(guarded, &lock, "lease_expired").await;
    ns.lost(renew(&lock), &lock, "lease_expired").await;
}

async fn an_id_can_be_used_again_after_an_hour(ns: Namespace, clock: Arc<TestClock>) {
    const HOUR: Duration = Duration::from_hours(1);
    let granting = GrantRequest { lease_id: Some(7), ..grant(1_000) };
    ns.ok(granting.clone()).await;
    assert!(ns.ok(revoke(7)).await.revoked);
    clock.advance(HOUR - Duration::from_millis(1));
    ns.fails(granting.clone(), ErrorReason::LeaseIdUsed).await;
    clock.advance(Duration::from_millis(1));
    ns.ok(granting).await;
}

async fn a_lease_of_a_hundred_years(ns: Namespace, clock: Arc<TestClock>) {
    const YEARS: u64 = 36_500 * 24 * 3_600_000;
    let lease = ns.lease(YEARS).await;
    ns.attach("k", lease).await;
    pass(&clock, YEARS - 1);
    assert!(ns.get("k").await.is_some());
    pass(&clock, 1);
    assert_eq!(ns.get("k").await, None);
}
