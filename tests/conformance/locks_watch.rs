//! Watching locks: what became of them, in order, exactly once.

use holdfast_proto::v1::{LockEventType as Type, *};

use crate::common::{build::*, coordination::*, lock_watcher::LockWatcher, namespace::Namespace};

crate::cases! {
    a_watch_begins_with_the_locks_that_are_held,
    a_watch_of_no_locks_begins_with_an_end,
    what_becomes_of_a_lock_is_told_in_order,
    a_release_with_a_waiter_is_followed_by_the_grant,
    a_grant_to_a_waiting_call_lasts_as_long_as_the_offer_until_it_is_taken,
    a_break_tells_why,
    an_expiry_is_told_without_anybody_asking,
    a_change_of_the_value_is_told_with_it,
    the_end_of_a_lease_is_told,
    renewals_and_places_are_not_told,
    a_watch_of_one_lock_tells_of_no_other,
    a_watch_of_a_prefix_tells_of_those_below_it,
    keys_are_not_told_but_move_the_watch_on,
    a_watch_resumes_without_loss_or_repetition,
    a_watch_from_what_is_compacted_fails_or_begins_anew,
    a_watch_from_the_future_fails,
    a_watch_of_another_lineage_fails,
    a_watch_sees_a_namespace_come_into_being,
    delete_of_the_namespace_ends_a_watch_of_locks,
    clear_ends_no_watch_of_locks,
}

/// Type, name and token of each event.
fn told(events: &[LockEvent]) -> Vec<(Type, &str, u64)> {
    events.iter().map(|event| (event.r#type(), event.name.as_str(), event.token)).collect()
}

async fn a_watch_begins_with_the_locks_that_are_held(ns: Namespace) {
    let b = ns.hold(AcquireRequest { value: "v".into(), ..acquire("b") }).await;
    let a = ns.hold(acquire("a")).await;
    let gone = ns.hold(acquire("gone")).await;
    ns.ok(release(&gone)).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks("")).await;
    assert_eq!(watcher.created.lineage, ns.lineage().await);
    assert!(!watcher.created.reset);
    assert_eq!(watcher.state().await, [a.clone(), b.clone()]);
    assert_eq!(watcher.complete_through, ns.revision().await);
    ns.ok(release(&b)).await;
    assert_eq!(told(&watcher.events(1).await), [(Type::Released, "b", b.token)]);
}

async fn a_watch_of_no_locks_begins_with_an_end(ns: Namespace) {
    ns.set("k", "1").await;
    let mut watcher = LockWatcher::on(&ns, watch_locks("")).await;
    assert_eq!(watcher.state().await, []);
    let lock = ns.hold(acquire("l")).await;
    assert_eq!(told(&watcher.events(1).await), [(Type::Granted, "l", lock.token)]);
}

async fn what_becomes_of_a_lock_is_told_in_order(ns: Namespace) {
    let base = ns.set("k", "1").await.mod_revision;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", base)).await;
    let first = ns.hold(acquire("l")).await;
    let changed = ns.ok(update_value(&first, "v")).await.revision;
    let released = ns.ok(release(&first)).await.revision;
    let second = ns.hold(acquire("l")).await;
    let broken = ns.ok(break_lock(&second, "why")).await.revision;
    let third = ns.hold(acquire("l")).await;
    let events = watcher.events(6).await;
    let expected = [
        (Type::Granted, "l", first.token),
        (Type::ValueChanged, "l", first.token),
        (Type::Released, "l", first.token),
        (Type::Granted, "l", second.token),
        (Type::Broken, "l", second.token),
        (Type::Granted, "l", third.token),
    ];
    assert_eq!(told(&events), expected);
    let revisions: Vec<_> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, [first.token, changed, released, second.token, broken, third.token]);
    assert_eq!(events[0].lock, Some(first));
}

async fn a_release_with_a_waiter_is_followed_by_the_grant(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", first.token)).await;
    ns.ok(release(&first)).await;
    let second = waiter.granted().await;
    let events = watcher.events(2).await;
    let expected = [(Type::Released, "l", first.token), (Type::Granted, "l", second.token)];
    assert_eq!(told(&events), expected);
    assert_eq!(events[1].revision, second.token);
    assert_eq!(events[1].lock.as_ref().expect("granted").acquired_at_ms, second.acquired_at_ms);
}

async fn a_grant_to_a_waiting_call_lasts_as_long_as_the_offer_until_it_is_taken(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let lease = ns.lease(60_000).await;
    let waiter = ns.queue(patient(acquire_by("l", lease)), 1).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", first.token)).await;
    ns.ok(release(&first)).await;
    let events = watcher.events(2).await;
    let granted = events[1].lock.as_ref().expect("a grant has its lock");
    assert_eq!(granted.lease_id, Some(lease));
    // Should the call be gone, the lock goes to the next then, however long the lease lasts.
    assert!(granted.expires_at_ms <= events[1].time_ms + 2000, "{granted:?}");
    let taken = waiter.granted().await;
    assert!(taken.expires_at_ms > events[1].time_ms + 2000, "{taken:?}");
}

async fn a_break_tells_why(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", lock.token)).await;
    ns.ok(break_lock(&lock, "stuck since noon")).await;
    let event = watcher.events(1).await.remove(0);
    assert_eq!((event.r#type(), event.reason.as_str()), (Type::Broken, "stuck since noon"));
}

async fn an_expiry_is_told_without_anybody_asking(ns: Namespace) {
    let mut watcher = LockWatcher::on(&ns, watch_locks("")).await;
    watcher.state().await;
    let lock = ns.hold(acquire_for("l", 30)).await;
    let events = watcher.events(2).await;
    let expected = [(Type::Granted, "l", lock.token), (Type::Expired, "l", lock.token)];
    assert_eq!(told(&events), expected);
    assert!(events[1].time_ms >= lock.expires_at_ms, "early: {events:?}");
    // The revision is taken, though nobody wrote.
    assert_eq!(ns.revision().await, events[1].revision);
}

async fn a_change_of_the_value_is_told_with_it(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", lock.token)).await;
    for value in ["a", "b", "b"] {
        ns.ok(update_value(&lock, value)).await;
        let event = watcher.events(1).await.remove(0);
        assert_eq!(event.r#type(), Type::ValueChanged);
        assert_eq!(event.lock.expect("it is held").value, value);
    }
}

async fn the_end_of_a_lease_is_told(ns: Namespace) {
    let revoked = ns.lease(60_000).await;
    let by_revoked = ns.hold(acquire_by("a", revoked)).await;
    let short = ns.lease(3_000).await;
    let by_short = ns.hold(acquire_by("b", short)).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", by_short.token)).await;
    ns.ok(revoke(revoked)).await;
    let mut events = watcher.events(2).await;
    events.sort_by(|a, b| a.name.cmp(&b.name));
    let expected = [(Type::Released, "a", by_revoked.token), (Type::Expired, "b", by_short.token)];
    assert_eq!(told(&events), expected);
}

async fn renewals_and_places_are_not_told(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", lock.token)).await;
    for _ in 0..5 {
        ns.ok(renew(&lock)).await;
    }
    ns.queue(patient(acquire("l")), 1).await.abort();
    ns.until_waiting("l", 0).await;
    let now = ns.ok(release(&lock)).await.revision;
    let events = watcher.events_through(now).await;
    assert_eq!(told(&events), [(Type::Released, "l", lock.token)]);
}

async fn a_watch_of_one_lock_tells_of_no_other(ns: Namespace) {
    let locks = Some(watch_locks_request::Locks::Name("l".into()));
    let lock = ns.hold(acquire("l")).await;
    let longer = ns.hold(acquire("l/2")).await;
    let mut watcher = LockWatcher::on(&ns, WatchLocksRequest { locks, ..watch_locks("") }).await;
    assert_eq!(watcher.state().await, std::slice::from_ref(&lock));
    ns.ok(release(&longer)).await;
    let now = ns.ok(release(&lock)).await.revision;
    let events = watcher.events_through(now).await;
    assert_eq!(told(&events), [(Type::Released, "l", lock.token)]);
}

async fn a_watch_of_a_prefix_tells_of_those_below_it(ns: Namespace) {
    let base = ns.set("k", "1").await.mod_revision;
    let below = ns.hold(acquire("a/1")).await;
    ns.hold(acquire("a")).await;
    ns.hold(acquire("b")).await;
    let last = ns.hold(acquire("a/2")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("a/", base)).await;
    let events = watcher.events_through(last.token).await;
    let expected = [(Type::Granted, "a/1", below.token), (Type::Granted, "a/2", last.token)];
    assert_eq!(told(&events), expected);
    let mut watcher = LockWatcher::on(&ns, watch_locks("a/")).await;
    assert_eq!(watcher.state().await, [below, last]);
}

async fn keys_are_not_told_but_move_the_watch_on(ns: Namespace) {
    let base = ns.set("k", "1").await.mod_revision;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", base)).await;
    let now = ns.set("k", "2").await.mod_revision;
    assert_eq!(watcher.events_through(now).await, []);
}

async fn a_watch_resumes_without_loss_or_repetition(ns: Namespace) {
    let base = ns.set("k", "1").await.mod_revision;
    for name in ["a", "b", "a", "c"] {
        let lock = ns.hold(acquire(name)).await;
        let waiter = ns.queue(patient(acquire(name)), 1).await;
        ns.ok(update_value(&lock, "v")).await;
        ns.ok(release(&lock)).await;
        ns.set("k", "2").await;
        ns.ok(release(&waiter.granted().await)).await;
    }
    let now = ns.revision().await;
    let lineage = Some(ns.lineage().await);
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", base)).await;
    let whole = watcher.events_through(now).await;
    assert_eq!(whole.len(), 20);
    for after in base..now {
        let request =
            WatchLocksRequest { lineage: lineage.clone(), ..watch_locks_after("", after) };
        let rest = LockWatcher::on(&ns, request).await.events_through(now).await;
        let expected: Vec<_> =
            whole.iter().filter(|event| event.revision > after).cloned().collect();
        assert_eq!(rest, expected, "after {after}");
    }
}

async fn a_watch_from_what_is_compacted_fails_or_begins_anew(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let now = ns.ok(update_value(&lock, "v")).await.revision;
    ns.ok(compact(now)).await;
    let after = watch_locks_request::AfterRevision { revision: lock.token, or_initial: true };
    let request = WatchLocksRequest { after_revision: Some(after), ..watch_locks("") };
    let mut watcher = LockWatcher::on(&ns, request).await;
    assert!(watcher.created.reset);
    assert_eq!(watcher.state().await, [Lock { value: "v".into(), ..lock.clone() }]);
    refused(&ns, watch_locks_after("", lock.token), ErrorReason::Compacted).await;
}

async fn a_watch_from_the_future_fails(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    refused(&ns, watch_locks_after("", lock.token + 1), ErrorReason::FutureRevision).await;
}

async fn a_watch_of_another_lineage_fails(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let lineage = Some("00000000-0000-4000-8000-000000000000".into());
    let request = WatchLocksRequest { lineage, ..watch_locks_after("", lock.token) };
    refused(&ns, request, ErrorReason::LineageChanged).await;
}

async fn refused(ns: &Namespace, request: WatchLocksRequest, reason: ErrorReason) {
    match LockWatcher::open(ns, request).await {
        Ok(mut watcher) => watcher.end().await.expect(reason),
        Err(failure) => failure.expect(reason),
    };
}

async fn a_watch_sees_a_namespace_come_into_being(ns: Namespace) {
    let mut watcher = LockWatcher::on(&ns, watch_locks("")).await;
    assert_eq!(watcher.created.lineage, "");
    assert_eq!(watcher.state().await, []);
    assert_eq!(ns.state().await.namespace, None, "watching creates nothing");
    let lock = ns.hold(acquire("l")).await;
    assert_eq!(told(&watcher.events(1).await), [(Type::Granted, "l", lock.token)]);
    assert_eq!(watcher.new_lineage, Some(ns.lineage().await));
}

async fn delete_of_the_namespace_ends_a_watch_of_locks(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", lock.token)).await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    watcher.end().await.expect(ErrorReason::LineageChanged);
}

async fn clear_ends_no_watch_of_locks(ns: Namespace) {
    ns.set("k", "1").await;
    let lock = ns.hold(acquire("l")).await;
    let mut watcher = LockWatcher::on(&ns, watch_locks_after("", lock.token)).await;
    ns.ok(ClearNamespaceRequest::default()).await;
    let now = ns.ok(release(&lock)).await.revision;
    let events = watcher.events_through(now).await;
    assert_eq!(told(&events), [(Type::Released, "l", lock.token)]);
}
