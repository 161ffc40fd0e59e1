//! Locks: taking, keeping, giving up and taking away.

use std::time::Duration;

use holdfast_proto::v1::*;

use crate::common::{build::*, coordination::*, namespace::Namespace};

crate::cases! {
    a_free_lock_is_granted_at_once,
    the_token_is_the_revision_of_the_grant,
    an_uncontended_acquire_takes_one_revision,
    a_hold_lasts_thirty_seconds_unless_asked_otherwise,
    tokens_rise_from_hold_to_hold,
    a_taken_lock_shows_its_holder,
    a_try_changes_nothing,
    waiting_has_a_limit,
    the_same_acquire_id_gets_the_same_hold,
    the_same_owner_with_another_acquire_id_waits,
    renewal_moves_the_deadline_and_takes_no_revision,
    renewal_may_change_the_ttl,
    renewal_of_an_expired_hold_is_refused,
    renewal_of_a_released_hold_is_refused,
    renewal_of_a_broken_hold_tells_why,
    renewal_with_a_token_that_never_was_is_refused,
    release_frees_the_lock,
    release_with_a_stale_token_touches_nobody,
    release_sent_twice_frees_once,
    release_by_acquire_id_gives_up_the_hold,
    release_by_a_strange_acquire_id_touches_nobody,
    release_of_what_never_was_creates_nothing,
    break_takes_the_lock_away,
    break_needs_the_token_shown,
    the_value_can_be_changed_by_the_holder,
    the_value_of_a_lost_hold_cannot_be_changed,
    a_lock_that_nobody_holds_is_an_answer,
    an_expired_hold_is_not_shown,
    an_expired_lock_can_be_taken,
    locks_are_listed_in_order_of_their_names,
    locks_are_listed_in_pages,
    locks_are_no_keys,
    locks_of_namespaces_are_apart,
    clear_leaves_locks,
    delete_of_the_namespace_removes_locks,
    one_of_many_gets_the_lock,
}

fn owner() -> Option<LockOwner> {
    Some(LockOwner {
        id: "host-7/4711".into(),
        who: "billing".into(),
        reason: "month end".into(),
        operation: "invoices".into(),
        client_version: "test 1".into(),
    })
}

async fn a_free_lock_is_granted_at_once(ns: Namespace) {
    let request = AcquireRequest { owner: owner(), value: "v".into(), ..acquire_for("l", 60_000) };
    let answer = ns.ok(request).await;
    let lock = granted(answer.clone()).expect("it is free");
    let expected = Lock {
        name: "l".into(),
        token: answer.revision,
        owner: owner(),
        value: "v".into(),
        acquired_at_ms: answer.time_ms,
        ttl_ms: 60_000,
        expires_at_ms: answer.time_ms + 60_000,
        lease_id: None,
        waiting: 0,
    };
    assert_eq!(lock, expected);
    assert_eq!(ns.lock("l").await, Some(expected));
}

async fn the_token_is_the_revision_of_the_grant(ns: Namespace) {
    ns.set("k", "1").await;
    let lock = ns.hold(acquire("l")).await;
    assert_eq!(lock.token, ns.revision().await);
}

async fn an_uncontended_acquire_takes_one_revision(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    for number in 1..=20 {
        let lock = ns.hold(acquire(&format!("l{number}"))).await;
        assert_eq!(lock.token, before + number);
    }
}

async fn a_hold_lasts_thirty_seconds_unless_asked_otherwise(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    assert_eq!((lock.ttl_ms, lock.expires_at_ms), (30_000, lock.acquired_at_ms + 30_000));
}

async fn tokens_rise_from_hold_to_hold(ns: Namespace) {
    let mut last = 0;
    for _ in 0..20 {
        let lock = ns.hold(acquire("l")).await;
        assert!(lock.token > last);
        last = lock.token;
        ns.ok(release(&lock)).await;
    }
}

async fn a_taken_lock_shows_its_holder(ns: Namespace) {
    let request = AcquireRequest { owner: owner(), value: "v".into(), ..acquire("l") };
    let lock = ns.hold(request).await;
    assert_eq!(ns.taken(acquire("l")).await, lock);
}

async fn a_try_changes_nothing(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    for _ in 0..5 {
        ns.taken(acquire("l")).await;
    }
    assert_eq!(ns.lock("l").await, Some(lock.clone()));
    assert_eq!(ns.revision().await, lock.token);
}

async fn waiting_has_a_limit(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let before = ns.ok(get_lock("l")).await.time_ms;
    let holder = ns.taken(AcquireRequest { wait_ms: 200, ..acquire("l") }).await;
    assert_eq!((holder.token, holder.expires_at_ms), (lock.token, lock.expires_at_ms));
    let after = ns.until_waiting("l", 0).await;
    assert!(after >= before + 200, "waited {} ms", after - before);
    assert_eq!(ns.revision().await, lock.token, "waiting takes no revision");
}

async fn the_same_acquire_id_gets_the_same_hold(ns: Namespace) {
    let request = AcquireRequest { value: "v".into(), ..acquire("l") };
    let lock = ns.hold(request.clone()).await;
    ns.set("k", "1").await;
    let before = ns.revision().await;
    assert_eq!(ns.hold(request.clone()).await, lock);
    assert_eq!(ns.hold(patient(request)).await, lock);
    assert_eq!(ns.revision().await, before);
}

async fn the_same_owner_with_another_acquire_id_waits(ns: Namespace) {
    let lock = ns.hold(AcquireRequest { owner: owner(), ..acquire("l") }).await;
    let again = AcquireRequest { owner: owner(), ..acquire("l") };
    assert_eq!(ns.taken(again).await.token, lock.token);
}

async fn renewal_moves_the_deadline_and_takes_no_revision(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 60_000)).await;
    let mut events = ns.watching(watch(all())).await;
    ns.until(lock.acquired_at_ms + 5).await;
    let answer = ns.ok(renew(&lock)).await;
    assert_eq!(answer.revision, lock.token);
    let expected = Lock { expires_at_ms: answer.time_ms + 60_000, ..lock.clone() };
    assert!(expected.expires_at_ms > lock.expires_at_ms);
    assert_eq!(answer.lock, Some(expected.clone()));
    assert_eq!(ns.lock("l").await, Some(expected));
    let next = ns.set("k", "1").await.mod_revision;
    assert_eq!(next, lock.token + 1);
    assert_eq!(events.events(1).await[0].revision, next);
}

async fn renewal_may_change_the_ttl(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 60_000)).await;
    let answer = ns.ok(RenewRequest { ttl_ms: Some(90_000), ..renew(&lock) }).await;
    let renewed = answer.lock.expect("answered");
    let lasts = (renewed.ttl_ms, renewed.expires_at_ms);
    assert_eq!(lasts, (90_000, answer.time_ms + 90_000));
    let again = ns.ok(renew(&lock)).await;
    assert_eq!(again.lock.expect("answered").expires_at_ms, again.time_ms + 90_000);
}

async fn renewal_of_an_expired_hold_is_refused(ns: Namespace) {
    let lock = ns.hold(acquire_for("l", 30)).await;
    ns.until(lock.expires_at_ms).await;
    ns.lost(renew(&lock), &lock, "expired").await;
    let next = ns.hold(acquire("l")).await;
    ns.lost(renew(&lock), &lock, "expired").await;
    assert_eq!(ns.lock("l").await, Some(next));
}

async fn renewal_of_a_released_hold_is_refused(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    ns.ok(release(&lock)).await;
    ns.lost(renew(&lock), &lock, "released").await;
    let next = ns.hold(acquire("l")).await;
    ns.lost(renew(&lock), &lock, "released").await;
    assert_eq!(ns.lock("l").await, Some(next));
}

async fn renewal_of_a_broken_hold_tells_why(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    ns.ok(break_lock(&lock, "stuck since noon")).await;
    let failure = ns.lost(renew(&lock), &lock, "broken").await;
    assert_eq!(failure.metadata["reason"], "stuck since noon");
}

async fn renewal_with_a_token_that_never_was_is_refused(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    for token in [1, lock.token - 1, lock.token + 1, u64::MAX] {
        let never = Lock { token, ..lock.clone() };
        ns.lost(renew(&never), &never, "unknown").await;
    }
    let elsewhere = Lock { name: "none".into(), ..lock.clone() };
    ns.lost(renew(&elsewhere), &elsewhere, "unknown").await;
    assert_eq!(ns.lock("l").await, Some(lock));
}

async fn release_frees_the_lock(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let answer = ns.ok(release(&lock)).await;
    assert!(answer.released);
    assert_eq!(answer.revision, ns.revision().await);
    assert_eq!(ns.lock("l").await, None);
    ns.hold(acquire("l")).await;
}

async fn release_with_a_stale_token_touches_nobody(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    ns.ok(release(&first)).await;
    let second = ns.hold(acquire("l")).await;
    for token in [first.token, second.token + 1, 1] {
        let stale = Lock { token, ..second.clone() };
        assert!(!ns.ok(release(&stale)).await.released);
    }
    assert_eq!(ns.lock("l").await, Some(second.clone()));
    assert_eq!(ns.revision().await, second.token);
}

async fn release_sent_twice_frees_once(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    assert!(ns.ok(release(&first)).await.released);
    assert!(!ns.ok(release(&first)).await.released);
    let second = waiter.granted().await;
    assert!(!ns.ok(release(&first)).await.released);
    assert_eq!(ns.lock("l").await, Some(second));
}

async fn release_by_acquire_id_gives_up_the_hold(ns: Namespace) {
    let attempt = acquire("l");
    ns.hold(attempt.clone()).await;
    assert!(ns.ok(give_up(&attempt)).await.released);
    assert_eq!(ns.lock("l").await, None);
    assert!(!ns.ok(give_up(&attempt)).await.released);
}

async fn release_by_a_strange_acquire_id_touches_nobody(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    assert!(!ns.ok(give_up(&acquire("l"))).await.released);
    assert_eq!(ns.lock("l").await, Some(lock));
}

async fn release_of_what_never_was_creates_nothing(ns: Namespace) {
    let never = Lock { name: "l".into(), token: 7, ..Default::default() };
    assert!(!ns.ok(release(&never)).await.released);
    assert!(!ns.ok(give_up(&acquire("l"))).await.released);
    assert!(!ns.ok(break_lock(&never, "")).await.broken);
    assert_eq!(ns.state().await.namespace, None);
}

async fn break_takes_the_lock_away(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    assert!(ns.ok(break_lock(&lock, "maintenance")).await.broken);
    assert_eq!(ns.lock("l").await, None);
    assert!(!ns.ok(release(&lock)).await.released);
    assert!(ns.hold(acquire("l")).await.token > lock.token);
}

async fn break_needs_the_token_shown(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    ns.ok(release(&first)).await;
    let second = ns.hold(acquire("l")).await;
    for token in [first.token, second.token + 1, 0] {
        let shown = Lock { token, ..second.clone() };
        assert!(!ns.ok(break_lock(&shown, "too late")).await.broken);
    }
    assert_eq!(ns.lock("l").await, Some(second.clone()));
    assert_eq!(ns.revision().await, second.token);
}

async fn the_value_can_be_changed_by_the_holder(ns: Namespace) {
    let lock = ns.hold(AcquireRequest { value: "1".into(), ..acquire("l") }).await;
    let answer = ns.ok(update_value(&lock, "2")).await;
    assert_eq!(answer.revision, lock.token + 1);
    let expected = Lock { value: "2".into(), ..lock };
    assert_eq!(answer.lock, Some(expected.clone()));
    assert_eq!(ns.lock("l").await, Some(expected));
}

async fn the_value_of_a_lost_hold_cannot_be_changed(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    ns.ok(release(&lock)).await;
    ns.lost(update_value(&lock, "2"), &lock, "released").await;
    let next = ns.hold(acquire("l")).await;
    ns.lost(update_value(&lock, "2"), &lock, "released").await;
    assert_eq!(ns.lock("l").await, Some(next));
}

async fn a_lock_that_nobody_holds_is_an_answer(ns: Namespace) {
    assert_eq!(ns.lock("l").await, None);
    assert_eq!(ns.ok(list_locks("")).await.locks, []);
    assert_eq!(ns.state().await.namespace, None, "looking creates nothing");
}

async fn an_expired_hold_is_not_shown(ns: Namespace) {
    for round in 0..5 {
        let name = format!("l{round}");
        let lock = ns.hold(acquire_for(&name, 40)).await;
        let mut over = false;
        while !over {
            let one = ns.ok(get_lock(&name)).await;
            let many = ns.ok(list_locks(&name)).await;
            assert_eq!(one.lock.is_some(), one.time_ms < lock.expires_at_ms, "{one:?}");
            assert_eq!(many.locks.len() == 1, many.time_ms < lock.expires_at_ms, "{many:?}");
            over = one.lock.is_none();
        }
    }
}

async fn an_expired_lock_can_be_taken(ns: Namespace) {
    let first = ns.hold(acquire_for("l", 30)).await;
    ns.until(first.expires_at_ms).await;
    let second = ns.hold(acquire("l")).await;
    assert!(second.token > first.token);
    assert!(second.acquired_at_ms >= first.expires_at_ms);
}

async fn locks_are_listed_in_order_of_their_names(ns: Namespace) {
    let mut held = Vec::new();
    for name in ["b", "a/2", "é", "a/10", "a"] {
        held.push(ns.hold(acquire(name)).await);
    }
    held.sort_by(|a, b| a.name.cmp(&b.name));
    assert_eq!(ns.ok(list_locks("")).await.locks, held);
    let below: Vec<_> = held.iter().filter(|lock| lock.name.starts_with("a/")).cloned().collect();
    assert_eq!(ns.ok(list_locks("a/")).await.locks, below);
    assert_eq!(ns.ok(list_locks("none")).await.locks, []);
}

async fn locks_are_listed_in_pages(ns: Namespace) {
    for number in 0..25 {
        ns.hold(acquire(&format!("l{number:02}"))).await;
    }
    ns.hold(acquire("other")).await;
    let mut request = ListLocksRequest { page_size: 10, ..list_locks("l") };
    let mut names = Vec::new();
    loop {
        let page = ns.ok(request.clone()).await;
        assert!(page.locks.len() <= 10);
        names.extend(page.locks.into_iter().map(|lock| lock.name));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(names, (0..25).map(|number| format!("l{number:02}")).collect::<Vec<_>>());
}

async fn locks_are_no_keys(ns: Namespace) {
    let first = ns.set("k", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), first)).await;
    let lock = ns.hold(acquire("l")).await;
    ns.queue(patient(acquire("l")), 1).await.abort();
    ns.ok(update_value(&lock, "v")).await;
    let seen = (ns.keys(all()).await, ns.ok(count(all())).await.count);
    assert_eq!(seen, (vec!["k".to_owned()], 1));
    assert_eq!(ns.get("l").await, None);
    assert_eq!(ns.ok(history("l")).await.events, []);
    let scanned = ns.scan(scan(all())).await.expect("a scan succeeds");
    assert_eq!(scanned.iter().map(|message| message.entries.len()).sum::<usize>(), 1);
    assert_eq!(ns.state().await.namespace.expect("it exists").key_count, 1);
    assert!(ns.ok(set("l", "a key of that name")).await.created);
    assert_eq!(ns.ok(delete_range(all())).await.deleted, 2);
    assert_eq!(ns.lock("l").await.expect("held").token, lock.token);
    let now = ns.set("k", "2").await.mod_revision;
    let keys: Vec<_> =
        watcher.events_through(now).await.into_iter().map(|event| event.key).collect();
    assert_eq!(keys, ["l", "k", "l", "k"]);
}

async fn locks_of_namespaces_are_apart(ns: Namespace) {
    let other = ns.sibling("other");
    let lock = ns.hold(acquire("l")).await;
    other.hold(acquire("l")).await;
    ns.ok(release(&lock)).await;
    assert!(other.lock("l").await.is_some());
}

async fn clear_leaves_locks(ns: Namespace) {
    ns.set("k", "1").await;
    let lock = ns.hold(AcquireRequest { value: "v".into(), ..acquire("l") }).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    ns.ok(ClearNamespaceRequest::default()).await;
    assert_eq!(ns.lock("l").await, Some(Lock { waiting: 1, ..lock.clone() }));
    assert!(ns.ok(renew(&lock)).await.lock.is_some());
    assert!(ns.ok(release(&lock)).await.released);
    assert!(waiter.granted().await.token > lock.token);
}

async fn delete_of_the_namespace_removes_locks(ns: Namespace) {
    let lock = ns.hold(acquire("l")).await;
    let (waiting, request) = (ns.clone(), AcquireRequest { wait_ms: 10_000, ..acquire("l") });
    let waiter = tokio::spawn(async move { waiting.call(request).await });
    ns.until_waiting("l", 1).await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    // A waiter is told, or waits anew in what comes after.
    if let Err(failure) = waiter.await.expect("the call ends") {
        failure.expect(ErrorReason::LineageChanged);
    }
    assert!(ns.lock("l").await.is_none_or(|now| now.token > lock.token));
    assert!(!ns.ok(release(&lock)).await.released);
    let again = tokio::time::timeout(Duration::from_secs(20), async {
        ns.hold(patient(acquire("other"))).await
    });
    assert!(again.await.expect("it is free").token > lock.token);
}

async fn one_of_many_gets_the_lock(ns: Namespace) {
    for round in 0..10 {
        let name = format!("l{round}");
        let tries = (0..32).map(|_| ns.ok(acquire(&name)));
        let answers = futures::future::join_all(tries).await;
        let held: Vec<_> = answers.into_iter().filter_map(granted).collect();
        assert_eq!(held.len(), 1, "{held:?}");
    }
}
