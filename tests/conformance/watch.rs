//! Watches: what they deliver, and to whom.

use holdfast_proto::v1::*;

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    watch_begins_with_created,
    watch_from_now_sees_what_comes_after_it,
    events_say_what_happened,
    set_ttl_events_carry_no_value,
    selectors_choose_the_keys,
    several_selectors_are_a_union,
    types_choose_the_events,
    clear_comes_where_deletes_are_asked_for,
    previous_entries_come_if_asked_for,
    keys_only_leaves_out_the_values,
    failed_and_empty_writes_make_no_event,
    watches_come_and_go_without_harm,
    many_watches_see_the_same,
}

pub fn brief(events: &[Event]) -> Vec<(EventType, &str)> {
    events.iter().map(|event| (event.r#type(), event.key.as_str())).collect()
}

async fn watch_begins_with_created(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let watcher = ns.watching(watch(all())).await;
    assert_eq!(watcher.created.lineage, ns.lineage().await);
    assert_eq!(watcher.created.revision, revision);
    assert!(watcher.created.compacted_revision < revision);
    assert!(!watcher.created.reset);
    assert_eq!(watcher.complete_through, revision);
}

async fn watch_from_now_sees_what_comes_after_it(ns: Namespace) {
    ns.set("before", "1").await;
    for start in [None, Some(watch_request::Start::Now(Default::default()))] {
        let mut watcher = ns.watching(WatchRequest { start, ..watch(all()) }).await;
        let revision = ns.set("after", "1").await.mod_revision;
        let events = watcher.events_through(revision).await;
        assert_eq!(brief(&events), [(EventType::Set, "after")]);
    }
}

async fn events_say_what_happened(ns: Namespace) {
    let mut watcher = ns.watching(watch(all())).await;
    let set = ns.ok(SetRequest { content_type: "t/x".into(), ..set("k", "1") }).await;
    let entry = ns.get("k").await;
    let deleted = ns.ok(delete("k")).await;
    let events = watcher.events_through(deleted.revision).await;
    let expected = [
        Event {
            r#type: EventType::Set.into(),
            revision: set.revision,
            time_ms: set.time_ms,
            key: "k".into(),
            entry,
            previous: None,
            reason: RemovalReason::Unspecified.into(),
        },
        Event {
            r#type: EventType::Delete.into(),
            revision: deleted.revision,
            time_ms: deleted.time_ms,
            key: "k".into(),
            entry: None,
            previous: None,
            reason: RemovalReason::Deleted.into(),
        },
    ];
    assert_eq!(events, expected);
}

async fn set_ttl_events_carry_no_value(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    ns.ok(set_ttl("k", ttl(60_000))).await;
    ns.ok(GetRequest { touch: ttl(90_000), ..get("k") }).await;
    let now = ns.get("k").await.expect("set");
    let events = ns.events_after(before).await;
    assert_eq!(brief(&events), [(EventType::TtlChanged, "k"); 2]);
    let entry = events[1].entry.clone().expect("a changed TTL has an entry");
    assert_eq!(entry, Entry { value: None, ..now });
}

async fn selectors_choose_the_keys(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let names = ["a", "a/1", "a/2", "ab", "b", "é"];
    for name in names {
        ns.set(name, "1").await;
    }
    let last = ns.ok(batch_delete(&names)).await.revision;
    let cases: [(Selector, &[&str]); 6] = [
        (key("a"), &["a"]),
        (prefix("a/"), &["a/1", "a/2"]),
        (range("a/2", Some(b"b")), &["a/2", "ab"]),
        (range([0xc3], None), &["é"]),
        (glob("a?"), &["ab"]),
        (all(), &names),
    ];
    for (selector, expected) in cases {
        let mut watcher = ns.watching(watch_after(selector.clone(), base)).await;
        let events = watcher.events_through(last).await;
        let found: Vec<_> = events.iter().map(|event| event.key.as_str()).collect();
        assert_eq!(found, [expected, expected].concat(), "{selector:?}");
    }
}

async fn several_selectors_are_a_union(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    for name in ["a", "b", "c"] {
        ns.set(name, "1").await;
    }
    let request = WatchRequest {
        selectors: vec![key("a"), prefix("a"), key("c")],
        ..watch_after(all(), base)
    };
    let events = ns.watching(request.clone()).await.events_through(base + 3).await;
    assert_eq!(brief(&events), [(EventType::Set, "a"), (EventType::Set, "c")]);
    let request = WatchRequest { start: watch_initial(all()).start, ..request };
    let (entries, _) = ns.watching(request).await.initial().await;
    let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["a", "c"], "each once, in order");
}

/// One event of each type; the revisions before and after them.
async fn one_of_each(ns: &Namespace) -> (u64, u64) {
    let base = ns.set("start", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), base)).await;
    ns.ok(SetRequest { expiry: ttl(1), ..set("expires", "1") }).await;
    watcher.events(2).await;
    ns.ok(set_ttl("start", ttl(60_000))).await;
    ns.ok(delete("start")).await;
    (base, ns.revision().await)
}

async fn types_choose_the_events(ns: Namespace) {
    let (base, last) = one_of_each(&ns).await;
    let every = [
        (EventType::Set, "expires"),
        (EventType::Expire, "expires"),
        (EventType::TtlChanged, "start"),
        (EventType::Delete, "start"),
    ];
    let asked: [&[EventType]; 6] = [
        &[],
        &[EventType::Set],
        &[EventType::Expire],
        &[EventType::TtlChanged],
        &[EventType::Delete],
        &[EventType::Set, EventType::Delete],
    ];
    for types in asked {
        let request = WatchRequest {
            types: types.iter().map(|kind| (*kind).into()).collect(),
            ..watch_after(all(), base)
        };
        let events = ns.watching(request).await.events_through(last).await;
        let expected: Vec<_> = every
            .into_iter()
            .filter(|(kind, _)| types.is_empty() || types.contains(kind))
            .collect();
        assert_eq!(brief(&events), expected);
    }
}

async fn clear_comes_where_deletes_are_asked_for(ns: Namespace) {
    ns.set("k", "1").await;
    let with = |types: &[EventType], selector| WatchRequest {
        types: types.iter().map(|kind| (*kind).into()).collect(),
        ..watch(selector)
    };
    let mut admitting = vec![
        ns.watching(with(&[], all())).await,
        ns.watching(with(&[EventType::Clear], key("k"))).await,
        ns.watching(with(&[EventType::Delete], all())).await,
        ns.watching(with(&[EventType::Delete], prefix("elsewhere"))).await,
    ];
    let mut other = ns.watching(with(&[EventType::Set, EventType::Expire], all())).await;
    let cleared = ns.ok(ClearNamespaceRequest::default()).await;
    for watcher in &mut admitting {
        let events = watcher.events_through(cleared.revision).await;
        let expected = Event {
            r#type: EventType::Clear.into(),
            revision: cleared.revision,
            time_ms: cleared.time_ms,
            reason: RemovalReason::Deleted.into(),
            ..Default::default()
        };
        assert_eq!(events, [expected]);
    }
    assert_eq!(other.events_through(cleared.revision).await, []);
}

async fn previous_entries_come_if_asked_for(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    ns.set("k", "1").await;
    let first = ns.get("k").await;
    ns.set("k", "2").await;
    let second = ns.get("k").await;
    ns.ok(set_ttl("k", ttl(60_000))).await;
    let third = ns.get("k").await;
    let last = ns.ok(delete("k")).await.revision;
    let with = WatchRequest { with_previous: true, ..watch_after(all(), base) };
    let events = ns.watching(with.clone()).await.events_through(last).await;
    let previous: Vec<_> = events.into_iter().map(|event| event.previous).collect();
    assert_eq!(previous[..2], [None, first]);
    let metadata =
        |entry: &Option<Entry>| entry.clone().map(|entry| Entry { value: None, ..entry });
    assert_eq!(metadata(&previous[2]), metadata(&second));
    assert_eq!(previous[3], third);
    let without = WatchRequest { with_previous: false, ..with };
    let events = ns.watching(without).await.events_through(last).await;
    assert!(events.iter().all(|event| event.previous.is_none()));
}

async fn keys_only_leaves_out_the_values(ns: Namespace) {
    let base = ns.set("k", "0").await.mod_revision;
    let last = ns.set("k", "1").await.mod_revision;
    let request = WatchRequest { keys_only: true, with_previous: true, ..watch_after(all(), base) };
    let event = ns.watching(request.clone()).await.events_through(last).await.remove(0);
    assert_eq!(event.entry.expect("a Set has an entry").value, None);
    assert_eq!(event.previous.expect("asked for").value, None);
    let request = WatchRequest { start: watch_initial(all()).start, ..request };
    let (entries, _) = ns.watching(request).await.initial().await;
    assert!(entries[0].value.is_none());
}

async fn failed_and_empty_writes_make_no_event(ns: Namespace) {
    let base = ns.set("k", "text").await.mod_revision;
    let mut watcher = ns.watching(watch(all())).await;
    ns.fails(increment("k", 1), ErrorReason::NotANumber).await;
    let failing = SetRequest { condition: absent(), ..set("k", "x") };
    ns.fails(failing, ErrorReason::ConditionNotMet).await;
    ns.ok(delete("missing")).await;
    ns.ok(transact([op::set("new", "1"), op::delete("new")])).await;
    let last = ns.set("last", "1").await.mod_revision;
    assert_eq!(last, base + 1);
    let events = watcher.events_through(last).await;
    assert_eq!(brief(&events), [(EventType::Set, "last")]);
}

async fn watches_come_and_go_without_harm(ns: Namespace) {
    for round in 0..50 {
        let watcher = ns.watching(watch_initial(all())).await;
        ns.set("k", round.to_string()).await;
        drop(watcher);
    }
    let mut watcher = ns.watching(watch(all())).await;
    let last = ns.set("k", "last").await.mod_revision;
    assert_eq!(watcher.events_through(last).await.len(), 1);
}

async fn many_watches_see_the_same(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(ns.watching(watch(all())).await);
    }
    for round in 0..50_u32 {
        ns.set(&format!("k{}", round % 7), round.to_string()).await;
    }
    let expected = ns.watching(watch_after(all(), base)).await.events_through(base + 50).await;
    assert_eq!(expected.len(), 50);
    for mut watcher in watchers {
        assert_eq!(watcher.events_through(base + 50).await, expected);
    }
}
