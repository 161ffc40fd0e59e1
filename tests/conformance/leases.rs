//! Leases: granting, keeping alive, ending, looking up.

use std::collections::HashSet;

use holdfast_proto::v1::*;

use crate::common::{build::*, coordination::*, keeper::Keeper, namespace::Namespace};

crate::cases! {
    the_server_chooses_an_id,
    the_client_may_choose_the_id,
    an_id_in_use_is_refused,
    an_id_that_was_used_is_refused,
    granting_takes_no_revision,
    keeping_alive_moves_the_deadline_and_takes_no_revision,
    keeping_alive_makes_no_event,
    one_stream_keeps_many_leases_each_answered_by_itself,
    an_answer_names_no_namespace_that_is_longer_than_a_name,
    one_stream_keeps_leases_of_several_namespaces,
    everything_sent_is_answered_before_the_stream_ends,
    a_lease_kept_alive_outlives_its_ttl,
    a_lease_ends_at_its_deadline_and_never_early,
    a_lease_that_ended_cannot_be_kept_alive,
    revoking_ends_a_lease,
    revoking_what_is_not_there_is_an_answer,
    revoking_an_empty_lease_takes_no_revision,
    a_lease_that_is_not_there_is_an_answer,
    a_lease_tells_what_is_attached_to_it,
    what_is_attached_is_told_only_if_asked,
    leases_are_listed_in_pages,
    a_lease_that_ended_is_not_listed,
    leases_of_namespaces_are_apart,
    a_lock_ends_with_its_lease,
    a_lock_is_released_with_a_revoked_lease,
    a_lock_by_a_lease_lasts_as_long_as_it,
    a_lock_by_a_lease_can_be_released_before_it,
    a_lock_by_a_missing_lease_is_refused,
    delete_of_the_namespace_removes_leases,
}

async fn the_server_chooses_an_id(ns: Namespace) {
    let mut ids = HashSet::new();
    for _ in 0..50 {
        let answer = ns.ok(grant(60_000)).await;
        let lease = answer.lease.expect("answered");
        let expected = Lease {
            lease_id: lease.lease_id,
            ttl_ms: 60_000,
            granted_at_ms: answer.time_ms,
            expires_at_ms: answer.time_ms + 60_000,
            keys: 0,
            locks: 0,
        };
        assert_eq!(lease, expected);
        assert!(lease.lease_id != 0 && ids.insert(lease.lease_id), "{ids:?}");
        assert_eq!(ns.ok(get_lease(lease.lease_id)).await.lease, Some(expected));
    }
}

async fn the_client_may_choose_the_id(ns: Namespace) {
    for id in [1, 4711, u64::MAX] {
        let answer = ns.ok(GrantRequest { lease_id: Some(id), ..grant(60_000) }).await;
        assert_eq!(answer.lease.expect("answered").lease_id, id);
    }
}

async fn an_id_in_use_is_refused(ns: Namespace) {
    let id = ns.lease(60_000).await;
    let before = ns.ok(get_lease(id)).await.lease;
    let again = GrantRequest { lease_id: Some(id), ..grant(90_000) };
    let failure = ns.fails(again.clone(), ErrorReason::LeaseIdUsed).await;
    assert_eq!(failure.number("lease_id"), id);
    assert_eq!(ns.ok(get_lease(id)).await.lease, before);
    ns.sibling("other").ok(again).await;
}

async fn an_id_that_was_used_is_refused(ns: Namespace) {
    let chosen = |lease_id, ttl_ms| GrantRequest { lease_id: Some(lease_id), ..grant(ttl_ms) };
    ns.ok(chosen(1, 60_000)).await;
    assert!(ns.ok(revoke(1)).await.revoked);
    let answer = ns.ok(chosen(2, 20)).await;
    ns.until(answer.time_ms + 20).await;
    for id in [1, 2] {
        ns.fails(chosen(id, 60_000), ErrorReason::LeaseIdUsed).await;
    }
}

async fn granting_takes_no_revision(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), before)).await;
    for _ in 0..5 {
        assert_eq!(ns.ok(grant(60_000)).await.revision, before);
    }
    let now = ns.set("k", "2").await.mod_revision;
    assert_eq!(now, before + 1);
    assert_eq!(watcher.events_through(now).await.len(), 1);
}

async fn keeping_alive_moves_the_deadline_and_takes_no_revision(ns: Namespace) {
    let granted = ns.ok(grant(60_000)).await;
    let lease = granted.lease.expect("answered");
    let entry = ns.attach("k", lease.lease_id).await;
    ns.until(granted.time_ms + 5).await;
    let answer = ns.ok(keep_alive(lease.lease_id)).await;
    assert_eq!((&answer.namespace, answer.lease_id), (&ns.name, lease.lease_id));
    assert_eq!(answer.revision, entry.mod_revision);
    let time_ms = answer.time_ms;
    let renewed = kept(answer).expect("it lives");
    assert_eq!(renewed.expires_at_ms, time_ms + 60_000);
    assert!(renewed.expires_at_ms > lease.expires_at_ms);
    assert_eq!(ns.ok(get_lease(lease.lease_id)).await.lease, Some(renewed));
    let read = ns.get("k").await.expect("attached");
    assert_eq!(Entry { value: None, ..read }, entry, "no entry is changed");
}

async fn keeping_alive_makes_no_event(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let entry = ns.attach("k", lease).await;
    let mut watcher = ns.watching(watch_after(all(), entry.mod_revision)).await;
    let mut keeper = Keeper::open(&ns).await;
    for _ in 0..100 {
        keeper.send(&ns, lease);
    }
    keeper.answers(100).await;
    let now = ns.set("other", "1").await.mod_revision;
    assert_eq!(now, entry.mod_revision + 1);
    assert_eq!(watcher.events_through(now).await.len(), 1);
}

async fn one_stream_keeps_many_leases_each_answered_by_itself(ns: Namespace) {
    let mut alive = HashSet::new();
    for _ in 0..100 {
        alive.insert(ns.lease(60_000).await);
    }
    let dead = ns.lease(60_000).await;
    ns.ok(revoke(dead)).await;
    let mut keeper = Keeper::open(&ns).await;
    keeper.send(&ns, dead);
    alive.iter().for_each(|lease| keeper.send(&ns, *lease));
    keeper.send(&ns, 4711);
    let mut answered = HashSet::new();
    for answer in keeper.answers(102).await {
        assert_eq!(answer.namespace, ns.name);
        let id = answer.lease_id;
        match kept(answer) {
            Ok(lease) => assert!(lease.lease_id == id && alive.contains(&id)),
            Err(failure) => {
                let failure = failure.expect(ErrorReason::LeaseNotFound);
                assert_eq!(failure.number("lease_id"), id);
                assert!(!alive.contains(&id), "{failure:?}");
            }
        }
        assert!(answered.insert(id), "answered twice");
    }
    let one = *alive.iter().next().expect("there are many");
    keeper.send(&ns, one);
    kept(keeper.answers(1).await.remove(0)).expect("the stream goes on");
}

async fn an_answer_names_no_namespace_that_is_longer_than_a_name(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let mut keeper = Keeper::open(&ns).await;
    keeper.send(&ns.sibling(&"n".repeat(5_000_000)), lease);
    keeper.send(&ns, lease);
    let [long, own] = keeper.answers(2).await.try_into().expect("both are answered");
    assert_eq!((long.namespace.as_str(), long.lease_id), ("", lease));
    kept(long).expect_err("it is no name").expect(ErrorReason::InvalidNamespace);
    kept(own).expect("the stream goes on");
}

async fn one_stream_keeps_leases_of_several_namespaces(ns: Namespace) {
    let other = ns.sibling("other");
    let (here, there) = (ns.lease(60_000).await, other.lease(60_000).await);
    let mut keeper = Keeper::open(&ns).await;
    keeper.send(&ns, here);
    keeper.send(&other, there);
    for answer in keeper.answers(2).await {
        let expected = if answer.namespace == ns.name { here } else { there };
        assert_eq!(kept(answer).expect("it lives").lease_id, expected);
    }
}

async fn everything_sent_is_answered_before_the_stream_ends(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let mut keeper = Keeper::open(&ns).await;
    for _ in 0..50 {
        keeper.send(&ns, lease);
    }
    keeper.finish();
    keeper.answers(50).await;
    assert_eq!(keeper.next().await, None);
}

async fn a_lease_kept_alive_outlives_its_ttl(ns: Namespace) {
    let granted = ns.ok(grant(2_000)).await;
    let lease = granted.lease.expect("answered").lease_id;
    ns.attach("k", lease).await;
    let mut until = granted.time_ms + 2_000;
    let end = granted.time_ms + 3_500;
    loop {
        let answer = ns.ok(keep_alive(lease)).await;
        // A machine that held up the test for the whole TTL may end the lease.
        if answer.time_ms >= until {
            return;
        }
        until = answer.time_ms + 2_000;
        assert_eq!(kept(answer).expect("in time").expires_at_ms, until);
        let read = ns.ok(get("k")).await;
        assert!(read.entry.is_some() || read.time_ms >= until);
        if read.time_ms > end {
            return;
        }
    }
}

async fn a_lease_ends_at_its_deadline_and_never_early(ns: Namespace) {
    for _ in 0..5 {
        let lease = ns.ok(grant(40)).await.lease.expect("answered");
        let mut over = false;
        while !over {
            let answer = ns.ok(get_lease(lease.lease_id)).await;
            let lives = answer.time_ms < lease.expires_at_ms;
            assert_eq!(answer.lease.is_some(), lives, "{answer:?}, due {}", lease.expires_at_ms);
            over = !lives;
        }
    }
}

async fn a_lease_that_ended_cannot_be_kept_alive(ns: Namespace) {
    let answer = ns.ok(grant(20)).await;
    let lease = answer.lease.expect("answered");
    ns.until(lease.expires_at_ms).await;
    let failure = ns.keep(lease.lease_id).await.expect_err("it has ended");
    failure.expect(ErrorReason::LeaseNotFound);
    assert_eq!(ns.ok(get_lease(lease.lease_id)).await.lease, None);
}

async fn revoking_ends_a_lease(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("a", lease).await;
    ns.attach("b", lease).await;
    ns.hold(acquire_by("l", lease)).await;
    let before = ns.revision().await;
    let answer = ns.ok(revoke(lease)).await;
    assert_eq!((answer.revoked, answer.keys, answer.locks), (true, 2, 1));
    assert_eq!(answer.revision, before + 1);
    assert_eq!(ns.keys(all()).await, [""; 0]);
    assert_eq!(ns.lock("l").await, None);
    assert_eq!(ns.ok(get_lease(lease)).await.lease, None);
    ns.keep(lease).await.expect_err("it has ended").expect(ErrorReason::LeaseNotFound);
}

async fn revoking_what_is_not_there_is_an_answer(ns: Namespace) {
    assert!(!ns.ok(revoke(4711)).await.revoked);
    assert_eq!(ns.state().await.namespace, None, "nothing is created");
    let lease = ns.lease(60_000).await;
    assert!(ns.ok(revoke(lease)).await.revoked);
    assert!(!ns.ok(revoke(lease)).await.revoked);
}

async fn revoking_an_empty_lease_takes_no_revision(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let lease = ns.lease(60_000).await;
    let answer = ns.ok(revoke(lease)).await;
    assert_eq!((answer.revoked, answer.keys, answer.revision), (true, 0, before));
    assert_eq!(ns.revision().await, before);
}

async fn a_lease_that_is_not_there_is_an_answer(ns: Namespace) {
    let answer = ns.ok(get_lease(4711)).await;
    assert_eq!((answer.lease, answer.keys, answer.locks), (None, vec![], vec![]));
    assert_eq!(ns.ok(ListLeasesRequest::default()).await.leases, []);
    let failure = ns.keep(4711).await.expect_err("it is not there");
    assert_eq!(failure.expect(ErrorReason::LeaseNotFound).number("lease_id"), 4711);
    assert_eq!(ns.state().await.namespace, None, "looking creates nothing");
}

async fn a_lease_tells_what_is_attached_to_it(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let other = ns.lease(60_000).await;
    for name in ["b", "a", "c"] {
        ns.attach(name, lease).await;
    }
    ns.attach("other", other).await;
    ns.set("none", "1").await;
    ns.hold(acquire_by("m", lease)).await;
    ns.hold(acquire_by("l", lease)).await;
    let answer = ns.ok(get_lease(lease)).await;
    assert_eq!((answer.keys, answer.locks), (strings(&["a", "b", "c"]), strings(&["l", "m"])));
    assert!(!answer.more);
    let counts = answer.lease.expect("it lives");
    assert_eq!((counts.keys, counts.locks), (3, 2));
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

async fn what_is_attached_is_told_only_if_asked(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("k", lease).await;
    let answer = ns.ok(GetLeaseRequest { attached: false, ..get_lease(lease) }).await;
    assert_eq!((answer.lease.expect("it lives").keys, answer.keys), (1, vec![]));
}

async fn leases_are_listed_in_pages(ns: Namespace) {
    let mut ids = Vec::new();
    for id in [5, u64::MAX, 300, 1 << 40, 7] {
        ns.ok(GrantRequest { lease_id: Some(id), ..grant(60_000) }).await;
        ids.push(id);
    }
    for _ in 0..20 {
        ids.push(ns.lease(60_000).await);
    }
    ids.sort_unstable();
    ns.attach("k", 300).await;
    let mut request = ListLeasesRequest { page_size: 10, ..Default::default() };
    let mut listed = Vec::new();
    loop {
        let page = ns.ok(request.clone()).await;
        assert!(page.leases.len() <= 10);
        listed.extend(page.leases);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(listed.iter().map(|lease| lease.lease_id).collect::<Vec<_>>(), ids);
    let counted: Vec<_> = listed.iter().filter(|lease| lease.keys == 1).collect();
    assert!(counted.len() == 1 && counted[0].lease_id == 300);
}

async fn a_lease_that_ended_is_not_listed(ns: Namespace) {
    let lease = ns.ok(grant(20)).await.lease.expect("answered");
    let stays = ns.lease(60_000).await;
    ns.until(lease.expires_at_ms).await;
    let listed = ns.ok(ListLeasesRequest::default()).await.leases;
    assert_eq!(listed.iter().map(|lease| lease.lease_id).collect::<Vec<_>>(), [stays]);
}

async fn leases_of_namespaces_are_apart(ns: Namespace) {
    let other = ns.sibling("other");
    let lease = ns.lease(60_000).await;
    assert_eq!(other.ok(get_lease(lease)).await.lease, None);
    other.keep(lease).await.expect_err("not there").expect(ErrorReason::LeaseNotFound);
    let set = SetRequest { expiry: with_lease(lease), ..set("k", "1") };
    other.fails(set, ErrorReason::LeaseNotFound).await;
    assert!(!other.ok(revoke(lease)).await.revoked);
    assert!(ns.keep(lease).await.is_ok());
}

async fn a_lock_ends_with_its_lease(ns: Namespace) {
    let lease = ns.ok(grant(3_000)).await.lease.expect("answered");
    let lock = ns.hold(acquire_by("l", lease.lease_id)).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    let next = waiter.granted().await;
    assert!(next.token > lock.token);
    assert!(next.acquired_at_ms >= lease.expires_at_ms, "early: {next:?}");
    ns.lost(renew(&lock), &lock, "lease_expired").await;
}

async fn a_lock_is_released_with_a_revoked_lease(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let lock = ns.hold(acquire_by("l", lease)).await;
    let waiter = ns.queue(patient(acquire("l")), 1).await;
    assert_eq!(ns.ok(revoke(lease)).await.locks, 1);
    assert!(waiter.granted().await.token > lock.token);
    ns.lost(renew(&lock), &lock, "lease_revoked").await;
}

async fn a_lock_by_a_lease_lasts_as_long_as_it(ns: Namespace) {
    let lease = ns.ok(grant(60_000)).await.lease.expect("answered");
    let id = lease.lease_id;
    let lock = ns.hold(acquire_by("l", id)).await;
    assert_eq!((lock.ttl_ms, lock.lease_id), (0, Some(id)));
    assert_eq!(lock.expires_at_ms, lease.expires_at_ms);
    ns.until(lease.granted_at_ms + 5).await;
    let kept = ns.keep(id).await.expect("it lives");
    let shown = ns.lock("l").await.expect("held");
    assert_eq!(shown.expires_at_ms, kept.expires_at_ms);
    let renewed = ns.ok(renew(&lock)).await.lock.expect("answered");
    assert_eq!(renewed, shown, "a renewal does not change it");
    assert_eq!(ns.ok(list_locks("")).await.locks, [shown]);
}

async fn a_lock_by_a_lease_can_be_released_before_it(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let lock = ns.hold(acquire_by("l", lease)).await;
    assert!(ns.ok(release(&lock)).await.released);
    let answer = ns.ok(get_lease(lease)).await;
    assert_eq!((answer.lease.expect("it lives").locks, answer.locks), (0, vec![]));
    let next = ns.hold(acquire("l")).await;
    ns.ok(revoke(lease)).await;
    assert_eq!(ns.lock("l").await, Some(next));
}

async fn a_lock_by_a_missing_lease_is_refused(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let failure = ns.fails(acquire_by("l", 4711), ErrorReason::LeaseNotFound).await;
    assert_eq!(failure.number("lease_id"), 4711);
    assert_eq!(ns.lock("l").await, None);
    assert_eq!(ns.revision().await, before);
}

async fn delete_of_the_namespace_removes_leases(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("k", lease).await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    assert_eq!(ns.ok(get_lease(lease)).await.lease, None);
    ns.keep(lease).await.expect_err("it is gone").expect(ErrorReason::LeaseNotFound);
    ns.set("k", "1").await;
    assert_eq!(ns.ok(ListLeasesRequest::default()).await.leases, []);
}
