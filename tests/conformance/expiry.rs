//! Expiry: deadlines, what reads see of them, and the events that they make.

use holdfast_proto::v1::{
    compare::Operand, get_ttl_response::Ttl, operation_result::Kind as Done, *,
};

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    ttl_counts_from_the_commit,
    ttl_of_a_hundred_years_is_accepted,
    absolute_deadline_is_kept_as_given,
    deadline_that_has_passed_ends_the_entry_at_once,
    set_without_expiry_lives_for_ever,
    set_without_expiry_ends_an_earlier_one,
    keep_keeps_the_present_deadline,
    keep_on_a_missing_key_is_like_absent,
    no_read_sees_an_entry_from_its_deadline_on,
    expire_event_tells_reason_key_and_previous_value,
    expire_event_comes_without_anybody_asking,
    no_expire_event_is_early_and_each_comes_once,
    shortened_ttl_ends_earlier,
    lengthened_ttl_ends_later,
    deleted_key_does_not_expire,
    overwritten_key_does_not_expire,
    writes_count_due_keys_as_missing,
    delete_range_does_not_count_due_keys,
    old_revisions_know_no_clock,
}

fn leaving(key: &str, value: &str, ttl_ms: u64) -> SetRequest {
    SetRequest { expiry: ttl(ttl_ms), ..set(key, value) }
}

fn deadline(answer: &SetResponse) -> i64 {
    let entry = answer.entry.as_ref().expect("Set answers with the entry");
    entry.expires_at_ms.expect("an expiry was set")
}

/// Waits until the store's clock has reached this time.
async fn until(ns: &Namespace, time_ms: i64) {
    while ns.ok(exists("no-such-key")).await.time_ms < time_ms {
        tokio::task::yield_now().await;
    }
}

fn types(events: &[Event]) -> Vec<EventType> {
    events.iter().map(Event::r#type).collect()
}

async fn ttl_counts_from_the_commit(ns: Namespace) {
    let answer = ns.ok(leaving("k", "1", 12_345)).await;
    assert_eq!(deadline(&answer), answer.time_ms + 12_345);
    let read = ns.get("k").await.expect("set");
    assert_eq!(read.expires_at_ms, Some(deadline(&answer)));
}

async fn ttl_of_a_hundred_years_is_accepted(ns: Namespace) {
    let years = 36_500 * 24 * 3_600_000;
    let answer = ns.ok(leaving("k", "1", years)).await;
    assert_eq!(deadline(&answer), answer.time_ms + i64::try_from(years).expect("small"));
}

async fn absolute_deadline_is_kept_as_given(ns: Namespace) {
    let end = ns.ok(get("k")).await.time_ms + 1_234_567;
    let answer = ns.ok(SetRequest { expiry: expires_at(end), ..set("k", "1") }).await;
    assert_eq!(deadline(&answer), end);
}

async fn deadline_that_has_passed_ends_the_entry_at_once(ns: Namespace) {
    let before = ns.set("other", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), before)).await;
    let answer = ns.ok(SetRequest { expiry: expires_at(1), ..set("k", "1") }).await;
    assert_eq!(answer.revision, before + 1);
    assert_eq!(ns.get("k").await, None);
    let events = watcher.events(2).await;
    assert_eq!(types(&events), [EventType::Set, EventType::Expire]);
    assert!(events[0].revision < events[1].revision);
    assert_eq!(events[1].reason(), RemovalReason::Ttl);
}

async fn set_without_expiry_lives_for_ever(ns: Namespace) {
    assert_eq!(ns.set("k", "1").await.expires_at_ms, None);
}

async fn set_without_expiry_ends_an_earlier_one(ns: Namespace) {
    ns.ok(leaving("k", "1", 60_000)).await;
    assert_eq!(ns.set("k", "2").await.expires_at_ms, None);
    ns.ok(leaving("k", "3", 60_000)).await;
    let answer = ns.ok(SetRequest { expiry: never(), ..set("k", "4") }).await;
    assert_eq!(answer.entry.expect("answered").expires_at_ms, None);
}

async fn keep_keeps_the_present_deadline(ns: Namespace) {
    let first = ns.ok(leaving("k", "1", 60_000)).await;
    let second = ns.ok(SetRequest { expiry: keep(), ..set("k", "2") }).await;
    assert_eq!(deadline(&second), deadline(&first));
    ns.set("forever", "1").await;
    ns.ok(SetRequest { expiry: keep(), ..set("forever", "2") }).await;
    assert_eq!(ns.get("forever").await.expect("set").expires_at_ms, None);
}

async fn keep_on_a_missing_key_is_like_absent(ns: Namespace) {
    let keeping = SetRequest { expiry: keep(), ..set("k", "1") };
    let answer = ns.ok(keeping.clone()).await;
    assert_eq!(answer.entry.expect("answered").expires_at_ms, None);
    ns.ok(delete("k")).await;
    ns.ok(update(NamespaceSettings { default_ttl_ms: Some(60_000), ..Default::default() })).await;
    let answer = ns.ok(keeping).await;
    assert_eq!(deadline(&answer), answer.time_ms + 60_000);
}

/// Whether each kind of read sees the key, with the time that the read says it is of.
async fn sightings(ns: &Namespace, key_name: &str) -> Vec<(&'static str, i64, bool)> {
    let mut seen = Vec::new();
    let a = ns.ok(get(key_name)).await;
    seen.push(("Get", a.time_ms, a.entry.is_some()));
    let a = ns.ok(exists(key_name)).await;
    seen.push(("Exists", a.time_ms, a.exists));
    let a = ns.ok(get_ttl(key_name)).await;
    seen.push(("GetTtl", a.time_ms, matches!(a.ttl, Some(Ttl::RemainingMs(1..)))));
    let a = ns.ok(list(key(key_name))).await;
    seen.push(("List", a.time_ms, !a.entries.is_empty()));
    let a = ns.ok(count(key(key_name))).await;
    seen.push(("Count", a.time_ms, a.count == 1));
    let a = ns.ok(batch_get(&[key_name])).await;
    seen.push(("BatchGet", a.time_ms, a.slots[0].entry.is_some()));
    let a = ns.scan(scan(key(key_name))).await.expect("a scan succeeds");
    seen.push(("Scan", a[0].time_ms, !a[0].entries.is_empty()));
    let present = compare(key_name, Comparison::Equal, Operand::Exists(true));
    let a = ns
        .ok(TransactRequest {
            compares: vec![present],
            otherwise: vec![op::get(key_name)],
            ..transact([op::get(key_name)])
        })
        .await;
    seen.push(("Compare", a.time_ms, a.succeeded));
    let found = match a.results[0].kind.as_ref() {
        Some(Done::Get(found)) => found.entry.is_some(),
        other => panic!("{other:?}"),
    };
    seen.push(("Transact Get", a.time_ms, found));
    seen
}

async fn no_read_sees_an_entry_from_its_deadline_on(ns: Namespace) {
    for round in 0..5 {
        let name = format!("k{round}");
        let deadline = deadline(&ns.ok(leaving(&name, "1", 40)).await);
        let mut over = false;
        while !over {
            for (read, time_ms, seen) in sightings(&ns, &name).await {
                assert_eq!(seen, time_ms < deadline, "{read} at {time_ms}, due {deadline}");
                over = time_ms >= deadline + 5;
            }
        }
    }
}

async fn expire_event_tells_reason_key_and_previous_value(ns: Namespace) {
    let answer =
        ns.ok(SetRequest { content_type: "text/x".into(), ..leaving("k", "last words", 30) }).await;
    let mut watcher = ns
        .watching(WatchRequest { with_previous: true, ..watch_after(all(), answer.revision) })
        .await;
    let event = watcher.events(1).await.remove(0);
    assert_eq!(event.r#type(), EventType::Expire);
    assert_eq!(event.reason(), RemovalReason::Ttl);
    assert_eq!((event.key.as_str(), event.entry), ("k", None));
    assert_eq!(event.revision, answer.revision + 1);
    assert!(event.time_ms >= deadline(&answer));
    let expected = Entry { value: Some("last words".into()), ..answer.entry.expect("answered") };
    assert_eq!(event.previous, Some(expected));
}

async fn expire_event_comes_without_anybody_asking(ns: Namespace) {
    let mut watcher = ns.watching(watch(all())).await;
    let answer = ns.ok(leaving("k", "1", 20)).await;
    let events = watcher.events(2).await;
    assert_eq!(types(&events), [EventType::Set, EventType::Expire]);
    // The revision is taken, though nobody wrote.
    assert_eq!(ns.revision().await, answer.revision + 1);
}

async fn no_expire_event_is_early_and_each_comes_once(ns: Namespace) {
    let base = ns.set("other", "1").await.mod_revision;
    let mut pipe = ns.pipe().await;
    let sets = (0..400_u64).map(|number| {
        let name = format!("k{number}");
        pipeline_call::Operation::Set(leaving(&name, "1", 1 + number % 200))
    });
    pipe.send(sets);
    pipe.answers(400).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            with_previous: true,
            ..watch_after(all(), base)
        })
        .await;
    let mut events = watcher.events(400).await;
    for event in &events {
        let previous = event.previous.as_ref().expect("with_previous");
        let due = previous.expires_at_ms.expect("it had a TTL");
        assert!(event.time_ms >= due, "early: {event:?}");
    }
    events.sort_by(|a, b| a.key.cmp(&b.key));
    events.dedup_by(|a, b| a.key == b.key);
    assert_eq!(events.len(), 400);
    let now = ns.set("other", "2").await.mod_revision;
    assert_eq!(watcher.events_through(now).await, []);
}

async fn shortened_ttl_ends_earlier(ns: Namespace) {
    let set = ns.ok(leaving("k", "1", 3_600_000)).await;
    let mut watcher = ns.watching(watch_after(all(), set.revision)).await;
    let shortened = ns.ok(set_ttl("k", ttl(20))).await;
    let events = watcher.events(2).await;
    assert_eq!(types(&events), [EventType::TtlChanged, EventType::Expire]);
    assert!(events[1].time_ms >= shortened.time_ms + 20);
}

async fn lengthened_ttl_ends_later(ns: Namespace) {
    let set = ns.ok(leaving("k", "1", 60)).await;
    let lengthened = ns.ok(set_ttl("k", ttl(3_600_000))).await;
    if lengthened.found {
        assert!(only_a_later_probe_expires(&ns, set.revision).await);
        assert!(ns.ok(exists("k")).await.exists);
    }
}

/// Whether anything but the probe, which is due later, has expired.
async fn only_a_later_probe_expires(ns: &Namespace, after: u64) -> bool {
    ns.ok(leaving("probe", "1", 100)).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            ..watch_after(all(), after)
        })
        .await;
    watcher.events(1).await[0].key == "probe"
}

async fn deleted_key_does_not_expire(ns: Namespace) {
    let set = ns.ok(leaving("k", "1", 60)).await;
    let deleted = ns.ok(delete("k")).await;
    if deleted.deleted {
        assert!(only_a_later_probe_expires(&ns, set.revision).await);
    }
}

async fn overwritten_key_does_not_expire(ns: Namespace) {
    let first = ns.ok(leaving("k", "1", 60)).await;
    let second = ns.ok(set("k", "2")).await;
    if !second.created {
        assert!(only_a_later_probe_expires(&ns, first.revision).await);
        assert_eq!(ns.value("k").await.as_deref(), Some("2"));
    }
}

async fn writes_count_due_keys_as_missing(ns: Namespace) {
    for round in 0..20 {
        let name = format!("k{round}");
        let first = ns.ok(leaving(&name, "41", 10)).await;
        until(&ns, deadline(&first)).await;
        let answer = match round % 4 {
            0 => {
                let answer = ns.ok(set(&name, "1")).await;
                assert!(answer.created);
                answer.revision
            }
            1 => {
                let creating = SetRequest { condition: absent(), ..set(&name, "1") };
                ns.ok(creating).await.revision
            }
            2 => {
                assert!(!ns.ok(delete(&name)).await.deleted);
                assert!(!ns.ok(set_ttl(&name, ttl(10_000))).await.found);
                ns.ok(set(&name, "1")).await.revision
            }
            _ => {
                let answer = ns.ok(increment(&name, 1)).await;
                assert_eq!(answer.value, 1);
                answer.revision
            }
        };
        let entry = ns.get(&name).await.expect("set again");
        assert_eq!((entry.version, entry.create_revision), (1, answer));
        // The removal has an event of its own, in a revision before.
        let mut events = ns.events_after(first.revision).await;
        events.retain(|event| event.key == name);
        assert_eq!(types(&events), [EventType::Expire, EventType::Set]);
        assert!(events[0].revision < events[1].revision);
        assert_eq!(events[1].previous, None);
    }
}

async fn delete_range_does_not_count_due_keys(ns: Namespace) {
    ns.set("a/stays", "1").await;
    let mut last = 0;
    for number in 0..20 {
        let answer = ns.ok(leaving(&format!("a/{number}"), "1", 30)).await;
        last = deadline(&answer);
    }
    until(&ns, last).await;
    assert_eq!(ns.ok(delete_range(prefix("a/"))).await.deleted, 1);
}

async fn old_revisions_know_no_clock(ns: Namespace) {
    let set = ns.ok(leaving("k", "1", 20)).await;
    let mut watcher = ns.watching(watch_after(all(), set.revision)).await;
    let gone = watcher.events(1).await.remove(0);
    let old = ns.ok(get_at("k", set.revision)).await;
    assert_eq!(old.entry.expect("it was there").value, Some("1".into()));
    assert_eq!(ns.ok(get_at("k", gone.revision)).await.entry, None);
    let listed = ns.ok(ListRequest { at_revision: Some(set.revision), ..list(all()) }).await;
    assert_eq!(listed.entries.len(), 1);
}
