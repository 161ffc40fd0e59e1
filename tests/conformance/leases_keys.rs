//! Keys that live as long as a lease.

use std::collections::HashSet;

use holdfast_proto::v1::{
    compare::Operand, get_ttl_response::Ttl, pipeline_call::Operation as Op, *,
};

use crate::common::{build::*, coordination::*, failure::Failure, namespace::Namespace};

crate::cases! {
    keys_end_with_their_lease_in_one_revision,
    keys_are_deleted_with_a_revoked_lease_in_one_revision,
    an_entry_shows_its_lease_and_no_deadline,
    set_without_the_lease_detaches,
    set_ttl_detaches,
    keep_keeps_the_lease,
    increment_keeps_the_lease,
    a_key_moves_from_lease_to_lease,
    a_deleted_key_is_not_attached_any_more,
    set_ttl_and_touch_attach,
    batches_and_transactions_attach,
    attaching_to_a_missing_lease_is_refused_by_every_write,
    a_transaction_tells_which_operation_named_a_missing_lease,
    attaching_to_a_lease_that_ended_is_refused,
    the_ttl_of_a_leased_key_is_the_rest_of_its_lease,
    writes_count_keys_of_a_lease_that_ended_as_missing,
    leases_can_be_compared,
    history_shows_what_a_lease_held,
    history_shows_what_expired_with_a_lease,
    clear_empties_leases_and_leaves_them,
    ten_thousand_keys_end_in_one_revision_and_hold_up_nobody,
    more_keys_than_a_lease_may_have_are_refused,
    a_detached_key_outlives_the_lease,
    what_is_attached_is_told_as_of_one_state,
}

/// The most keys of a lease.
const MOST: u32 = 10_000;

fn leasing(key: &str, lease_id: u64) -> SetRequest {
    SetRequest { expiry: with_lease(lease_id), ..set(key, "1") }
}

/// The keys attached to a lease, which lives.
async fn attached(ns: &Namespace, lease_id: u64) -> Vec<String> {
    let answer = ns.ok(get_lease(lease_id)).await;
    let lease = answer.lease.expect("the lease lives");
    assert_eq!(lease.keys as usize, answer.keys.len());
    answer.keys
}

/// Attaches so many keys to a lease.
async fn attach_many(ns: &Namespace, lease_id: u64, keys: u32) {
    let mut pipe = ns.pipe().await;
    let mut sent = 0;
    for start in (0..keys).step_by(1000) {
        let items = (start..keys.min(start + 1000)).map(|number| batch_set_request::Item {
            expiry: with_lease(lease_id),
            ..item(&format!("leased/{number:06}"), "1")
        });
        pipe.send([Op::BatchSet(batch_set(items))]);
        sent += 1;
    }
    for (_, outcome) in pipe.answers(sent).await {
        assert!(matches!(outcome, pipeline_answer::Result::BatchSet(_)), "{outcome:?}");
    }
}

async fn keys_end_with_their_lease_in_one_revision(ns: Namespace) {
    ns.set("stays", "1").await;
    let lease = ns.ok(grant(3_000)).await.lease.expect("answered");
    let mut last = ns.attach("a", lease.lease_id).await;
    for name in ["b", "c"] {
        last = ns.attach(name, lease.lease_id).await;
    }
    let request = WatchRequest { with_previous: true, ..watch_after(all(), last.mod_revision) };
    let mut watcher = ns.watching(request).await;
    let mut events = watcher.events(3).await;
    events.sort_by(|a, b| a.key.cmp(&b.key));
    for (event, name) in events.iter().zip(["a", "b", "c"]) {
        assert_eq!((event.r#type(), event.reason()), (EventType::Expire, RemovalReason::Lease));
        assert_eq!((event.key.as_str(), event.revision), (name, last.mod_revision + 1));
        let previous = event.previous.as_ref().expect("with_previous");
        assert_eq!(previous.lease_id, Some(lease.lease_id));
        assert!(event.time_ms >= lease.expires_at_ms, "early: {event:?}");
    }
    assert_eq!(events.len(), 3);
    assert_eq!(ns.keys(all()).await, ["stays"]);
}

async fn keys_are_deleted_with_a_revoked_lease_in_one_revision(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("a", lease).await;
    let last = ns.attach("b", lease).await.mod_revision;
    let answer = ns.ok(revoke(lease)).await;
    assert_eq!((answer.keys, answer.revision), (2, last + 1));
    let mut events = ns.events_after(last).await;
    events.sort_by(|a, b| a.key.cmp(&b.key));
    for (event, name) in events.iter().zip(["a", "b"]) {
        assert_eq!((event.r#type(), event.reason()), (EventType::Delete, RemovalReason::Revoked));
        assert_eq!((event.key.as_str(), event.revision), (name, last + 1));
        assert!(event.previous.is_some());
    }
    assert_eq!(events.len(), 2);
}

async fn an_entry_shows_its_lease_and_no_deadline(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let answered = ns.attach("k", lease).await;
    let read = ns.get("k").await.expect("attached");
    let listed = ns.ok(list(all())).await.entries.remove(0);
    for entry in [answered, read, listed] {
        assert_eq!((entry.lease_id, entry.expires_at_ms), (Some(lease), None));
    }
}

async fn set_without_the_lease_detaches(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    for (number, expiry) in [None, ttl(60_000), never()].into_iter().enumerate() {
        let name = format!("k{number}");
        ns.attach(&name, lease).await;
        let answer = ns.ok(SetRequest { expiry, ..set(&name, "2") }).await;
        assert_eq!(answer.entry.expect("answered").lease_id, None);
        assert_eq!(ns.get(&name).await.expect("set").lease_id, None);
    }
    assert_eq!(attached(&ns, lease).await, [""; 0]);
}

async fn set_ttl_detaches(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("a", lease).await;
    ns.attach("b", lease).await;
    assert!(ns.ok(set_ttl("a", ttl(60_000))).await.found);
    assert!(ns.ok(set_ttl("b", never())).await.found);
    let (a, b) = (ns.get("a").await.expect("set"), ns.get("b").await.expect("set"));
    assert!(a.lease_id.is_none() && a.expires_at_ms.is_some(), "{a:?}");
    assert!(b.lease_id.is_none() && b.expires_at_ms.is_none(), "{b:?}");
    assert_eq!(attached(&ns, lease).await, [""; 0]);
}

async fn keep_keeps_the_lease(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("k", lease).await;
    let answer = ns.ok(SetRequest { expiry: keep(), ..set("k", "2") }).await;
    assert_eq!(answer.entry.expect("answered").lease_id, Some(lease));
    assert_eq!(attached(&ns, lease).await, ["k"]);
}

async fn increment_keeps_the_lease(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let creating = IncrementRequest { expiry: with_lease(lease), ..increment("n", 1) };
    ns.ok(creating).await;
    ns.ok(increment("n", 1)).await;
    assert_eq!(ns.get("n").await.expect("set").lease_id, Some(lease));
    ns.ok(transact([op::increment("n", 1)])).await;
    assert_eq!(attached(&ns, lease).await, ["n"]);
}

async fn a_key_moves_from_lease_to_lease(ns: Namespace) {
    let (first, second) = (ns.lease(60_000).await, ns.lease(60_000).await);
    ns.attach("k", first).await;
    ns.attach("k", second).await;
    assert_eq!(attached(&ns, first).await, [""; 0]);
    assert_eq!(attached(&ns, second).await, ["k"]);
    assert_eq!(ns.ok(revoke(first)).await.keys, 0);
    assert!(ns.get("k").await.is_some());
    assert_eq!(ns.ok(revoke(second)).await.keys, 1);
    assert_eq!(ns.get("k").await, None);
}

async fn a_deleted_key_is_not_attached_any_more(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    for name in ["a", "b", "c", "d/1", "d/2"] {
        ns.attach(name, lease).await;
    }
    ns.ok(delete("a")).await;
    ns.ok(batch_delete(&["b"])).await;
    ns.ok(transact([op::delete("c")])).await;
    assert_eq!(attached(&ns, lease).await, ["d/1", "d/2"]);
    ns.ok(delete_range(prefix("d/"))).await;
    assert_eq!(attached(&ns, lease).await, [""; 0]);
    ns.set("a", "2").await;
    assert_eq!(ns.ok(revoke(lease)).await.keys, 0);
    assert_eq!(ns.value("a").await.as_deref(), Some("2"));
}

async fn set_ttl_and_touch_attach(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.set("a", "1").await;
    ns.ok(SetRequest { expiry: ttl(60_000), ..set("b", "1") }).await;
    assert!(ns.ok(set_ttl("a", with_lease(lease))).await.found);
    let touched = ns.ok(GetRequest { touch: with_lease(lease), ..get("b") }).await;
    let entry = touched.entry.expect("it is there");
    assert_eq!((entry.lease_id, entry.expires_at_ms), (Some(lease), None));
    assert_eq!(attached(&ns, lease).await, ["a", "b"]);
}

async fn batches_and_transactions_attach(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let expiry = with_lease(lease);
    let leased = batch_set_request::Item { expiry, ..item("a", "1") };
    ns.ok(batch_set([leased, item("b", "1")])).await;
    ns.set("d", "1").await;
    ns.ok(transact([op::set_with("c", "1", expiry), op::set_ttl("d", expiry)])).await;
    assert_eq!(attached(&ns, lease).await, ["a", "c", "d"]);
    ns.ok(transact([op::set("c", "2"), op::set_with("d", "2", keep())])).await;
    assert_eq!(attached(&ns, lease).await, ["a", "d"]);
}

async fn attaching_to_a_missing_lease_is_refused_by_every_write(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let expiry = with_lease(4711);
    let named = |failure: Failure| {
        assert_eq!(failure.expect(ErrorReason::LeaseNotFound).number("lease_id"), 4711);
    };
    let in_batch = batch_set_request::Item { expiry, ..item("b", "1") };
    let writes = [
        Op::Set(leasing("k", 4711)),
        Op::SetTtl(set_ttl("k", expiry)),
        Op::Get(GetRequest { touch: expiry, ..get("k") }),
        Op::Increment(IncrementRequest { expiry, ..increment("n", 1) }),
        Op::BatchSet(batch_set([item("a", "1"), in_batch])),
        Op::Transact(transact([op::set_with("k", "2", expiry)])),
    ];
    for write in writes {
        named(ns.send(write).await.expect_err("refused"));
    }
    assert_eq!(ns.revision().await, before);
    assert_eq!(ns.keys(all()).await, ["k"]);
    assert_eq!(ns.get("k").await.expect("set").lease_id, None);
}

async fn a_transaction_tells_which_operation_named_a_missing_lease(ns: Namespace) {
    let lost = op::set_with("k", "2", with_lease(4711));
    let failure =
        ns.fails(transact([op::set("a", "1"), lost.clone()]), ErrorReason::LeaseNotFound).await;
    assert_eq!((failure.metadata["branch"].as_str(), failure.number("operation")), ("then", 1));
    let otherwise = TransactRequest {
        compares: vec![compare("k", Comparison::Equal, Operand::Exists(true))],
        otherwise: vec![lost],
        ..transact([op::set("a", "1")])
    };
    let failure = ns.fails(otherwise, ErrorReason::LeaseNotFound).await;
    assert_eq!(failure.metadata["branch"], "otherwise");
    assert_eq!((failure.number("operation"), failure.number("lease_id")), (0, 4711));
    assert_eq!(ns.keys(all()).await, [""; 0]);
}

async fn attaching_to_a_lease_that_ended_is_refused(ns: Namespace) {
    let revoked = ns.lease(60_000).await;
    ns.ok(revoke(revoked)).await;
    let expired = ns.ok(grant(20)).await.lease.expect("answered");
    ns.until(expired.expires_at_ms).await;
    for lease in [revoked, expired.lease_id] {
        ns.fails(leasing("k", lease), ErrorReason::LeaseNotFound).await;
    }
    assert_eq!(ns.get("k").await, None);
}

async fn the_ttl_of_a_leased_key_is_the_rest_of_its_lease(ns: Namespace) {
    let lease = ns.ok(grant(60_000)).await.lease.expect("answered");
    ns.attach("k", lease.lease_id).await;
    let rest = |answer: GetTtlResponse| match answer.ttl {
        Some(Ttl::RemainingMs(rest)) => answer.time_ms + i64::try_from(rest).expect("small"),
        other => panic!("{other:?}"),
    };
    assert_eq!(rest(ns.ok(get_ttl("k")).await), lease.expires_at_ms);
    ns.until(lease.granted_at_ms + 5).await;
    let kept = ns.keep(lease.lease_id).await.expect("it lives");
    assert_eq!(rest(ns.ok(get_ttl("k")).await), kept.expires_at_ms);
}

async fn writes_count_keys_of_a_lease_that_ended_as_missing(ns: Namespace) {
    for round in 0..20 {
        let name = format!("k{round}");
        let lease = ns.ok(grant(30)).await.lease.expect("answered");
        let Ok(first) = ns.call(leasing(&name, lease.lease_id)).await else {
            // The machine held up the test for as long as the lease lasted.
            continue;
        };
        ns.until(lease.expires_at_ms).await;
        match round % 4 {
            0 => assert!(ns.ok(set(&name, "1")).await.created),
            1 => drop(ns.ok(SetRequest { condition: absent(), ..set(&name, "1") }).await),
            2 => {
                assert!(!ns.ok(delete(&name)).await.deleted);
                assert!(!ns.ok(set_ttl(&name, ttl(10_000))).await.found);
                ns.set(&name, "1").await;
            }
            _ => assert_eq!(ns.ok(increment(&name, 1)).await.value, 1),
        }
        assert_eq!(ns.get(&name).await.expect("set again").version, 1);
        let mut events = ns.events_after(first.revision).await;
        events.retain(|event| event.key == name);
        let types: Vec<_> = events.iter().map(Event::r#type).collect();
        assert_eq!(types, [EventType::Expire, EventType::Set]);
        assert_eq!(events[0].reason(), RemovalReason::Lease);
        assert!(events[0].revision < events[1].revision);
    }
}

async fn leases_can_be_compared(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("leased", lease).await;
    ns.set("free", "1").await;
    use Comparison::{Equal, NotEqual};
    let table = [
        ("leased", Equal, lease, true),
        ("leased", NotEqual, lease, false),
        ("leased", Equal, lease ^ 1, false),
        ("leased", NotEqual, 0, true),
        ("free", Equal, 0, true),
        ("free", Equal, lease, false),
        ("missing", Equal, 0, false),
        ("missing", NotEqual, lease, true),
    ];
    for (name, how, operand, holds) in table {
        let compares = vec![compare(name, how, Operand::LeaseId(operand))];
        let answer = ns.ok(TransactRequest { compares, ..transact([op::get("free")]) }).await;
        assert_eq!(answer.succeeded, holds, "{name} {how:?} {operand}");
    }
}

async fn history_shows_what_a_lease_held(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let entry = ns.attach("k", lease).await;
    let gone = ns.ok(revoke(lease)).await.revision;
    let old = ns.ok(get_at("k", entry.mod_revision)).await.entry.expect("it was there");
    assert_eq!((old.value, old.lease_id), (Some("leased".into()), Some(lease)));
    let listed = ListRequest { at_revision: Some(entry.mod_revision), ..list(all()) };
    assert_eq!(ns.ok(listed).await.entries.len(), 1);
    assert_eq!(ns.ok(get_at("k", gone)).await.entry, None);
    let types: Vec<_> = ns.ok(history("k")).await.events.iter().map(Event::r#type).collect();
    assert_eq!(types, [EventType::Delete, EventType::Set]);
}

async fn history_shows_what_expired_with_a_lease(ns: Namespace) {
    let lease = ns.lease(2_000).await;
    let entry = ns.attach("k", lease).await;
    let mut watcher = ns.watching(watch_after(all(), entry.mod_revision)).await;
    let gone = watcher.events(1).await.remove(0).revision;
    let old = ns.ok(get_at("k", entry.mod_revision)).await.entry.expect("it was there");
    assert_eq!((old.value, old.lease_id), (Some("leased".into()), Some(lease)));
    assert_eq!(ns.ok(get_at("k", gone)).await.entry, None);
    let newest = ns.ok(history("k")).await.events.remove(0);
    assert_eq!((newest.r#type(), newest.reason()), (EventType::Expire, RemovalReason::Lease));
}

async fn clear_empties_leases_and_leaves_them(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    ns.attach("a", lease).await;
    ns.attach("b", lease).await;
    let lock = ns.hold(acquire_by("l", lease)).await;
    assert_eq!(ns.ok(ClearNamespaceRequest::default()).await.cleared, 2);
    let answer = ns.ok(get_lease(lease)).await;
    assert_eq!(answer.keys, [""; 0]);
    assert_eq!(answer.locks, ["l"]);
    assert_eq!(answer.lease.expect("it lives").keys, 0);
    ns.set("a", "2").await;
    ns.attach("b", lease).await;
    assert_eq!(attached(&ns, lease).await, ["b"]);
    let revoked = ns.ok(revoke(lease)).await;
    assert_eq!((revoked.keys, revoked.locks), (1, 1));
    assert_eq!(ns.keys(all()).await, ["a"]);
    ns.lost(renew(&lock), &lock, "lease_revoked").await;
}

async fn ten_thousand_keys_end_in_one_revision_and_hold_up_nobody(ns: Namespace) {
    let other = ns.sibling("other");
    let lease = ns.lease(3_600_000).await;
    attach_many(&ns, lease, MOST).await;
    let before = ns.revision().await;
    let revoking = tokio::spawn({
        let ns = ns.clone();
        async move { ns.ok(revoke(lease)).await }
    });
    let mut served = 0;
    while !revoking.is_finished() || served < 10 {
        other.set("k", served.to_string()).await;
        served += 1;
    }
    let revoked = revoking.await.expect("answered");
    assert_eq!((revoked.keys, revoked.revision), (MOST, before + 1));
    let events = ns.events_after(before).await;
    let keys: HashSet<_> = events.iter().map(|event| event.key.as_str()).collect();
    assert_eq!((events.len(), keys.len()), (MOST as usize, MOST as usize));
    assert!(events.iter().all(|event| event.revision == before + 1));
    assert_eq!(ns.ok(count(all())).await.count, 0);
}

async fn more_keys_than_a_lease_may_have_are_refused(ns: Namespace) {
    let lease = ns.lease(3_600_000).await;
    attach_many(&ns, lease, MOST).await;
    ns.set("k", "1").await;
    let before = ns.revision().await;
    let expiry = with_lease(lease);
    let writes = [
        Op::Set(leasing("k", lease)),
        Op::Set(leasing("new", lease)),
        Op::SetTtl(set_ttl("k", expiry)),
        Op::Transact(transact([op::set_with("new", "1", expiry)])),
    ];
    for write in writes {
        ns.send(write).await.expect_err("refused").expect(ErrorReason::QuotaExceeded);
    }
    assert_eq!(ns.revision().await, before);
    // What is attached already may be written again, and one that goes makes room.
    ns.ok(leasing("leased/000000", lease)).await;
    ns.ok(delete("leased/000001")).await;
    ns.ok(leasing("k", lease)).await;
    let mut watcher = ns.watching(watch(all())).await;
    assert_eq!(ns.ok(revoke(lease)).await.keys, MOST);
    let events = watcher.events(MOST as usize).await;
    assert!(events.iter().all(|event| event.revision == events[0].revision));
}

async fn a_detached_key_outlives_the_lease(ns: Namespace) {
    let lease = ns.lease(3_000).await;
    ns.attach("a", lease).await;
    let last = ns.attach("b", lease).await.mod_revision;
    let detached = ns.ok(set("a", "2")).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            ..watch_after(all(), last)
        })
        .await;
    assert_eq!(watcher.events(1).await[0].key, "b");
    if !detached.created {
        assert_eq!(ns.value("a").await.as_deref(), Some("2"));
    }
}

async fn what_is_attached_is_told_as_of_one_state(ns: Namespace) {
    let lease = ns.lease(60_000).await;
    let changing = async {
        for _ in 0..200 {
            ns.attach("k", lease).await;
            ns.ok(delete("k")).await;
        }
    };
    let looking = async {
        loop {
            attached(&ns, lease).await;
        }
    };
    tokio::select! {
        () = changing => {}
        () = looking => {}
    }
}
