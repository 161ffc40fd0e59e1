//! The past: the history of a key, reads at old revisions, and what compaction forgets.

use std::collections::BTreeMap;

use holdfast_proto::v1::*;
use prost::Message;

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    history_is_newest_first_and_has_removals,
    history_has_values_and_no_previous,
    history_of_other_keys_stays_out,
    history_goes_on_before_a_revision,
    history_over_4_mib_ends_early_and_goes_on,
    history_of_missing_key_is_empty,
    reads_at_each_revision_give_what_was_there,
    reads_at_a_revision_answer_with_that_revision,
    reads_in_the_future_are_refused,
    compaction_forgets_through_its_revision,
    compaction_keeps_the_present_state,
    compaction_does_not_go_back,
    compaction_in_the_future_is_refused,
    clear_forgets_what_came_before,
    small_retention_forgets_old_events_and_keeps_new_ones,
    young_events_outlive_the_event_bound,
}

fn summary(events: &[Event]) -> Vec<(EventType, u64)> {
    events.iter().map(|event| (event.r#type(), event.revision)).collect()
}

async fn history_is_newest_first_and_has_removals(ns: Namespace) {
    let base = ns.set("k", "1").await.mod_revision;
    ns.set("k", "2").await;
    ns.ok(set_ttl("k", ttl(60_000))).await;
    ns.ok(delete("k")).await;
    ns.set("k", "3").await;
    let answer = ns.ok(history("k")).await;
    assert_eq!(
        summary(&answer.events),
        [
            (EventType::Set, base + 4),
            (EventType::Delete, base + 3),
            (EventType::TtlChanged, base + 2),
            (EventType::Set, base + 1),
            (EventType::Set, base),
        ]
    );
    assert!(!answer.more);
    assert_eq!(answer.revision, base + 4);
    assert_eq!(answer.events[1].reason(), RemovalReason::Deleted);
}

async fn history_has_values_and_no_previous(ns: Namespace) {
    ns.set("k", "1").await;
    ns.ok(set_ttl("k", ttl(60_000))).await;
    let now = ns.get("k").await;
    ns.ok(delete("k")).await;
    let events = ns.ok(history("k")).await.events;
    assert!(events.iter().all(|event| event.previous.is_none() && event.key == "k"));
    assert_eq!(events[0].entry, None);
    assert_eq!(events[1].entry, now, "a changed TTL comes with its value");
    let first = events[2].entry.as_ref().expect("a Set has an entry");
    assert_eq!((first.version, first.mod_revision), (1, events[2].revision));
    assert_eq!(events[2].time_ms, first.updated_at_ms);
}

async fn history_of_other_keys_stays_out(ns: Namespace) {
    ns.set("k", "1").await;
    ns.set("k2", "1").await;
    ns.ok(batch_set([item("j", "1"), item("k", "2")])).await;
    let events = ns.ok(history("k")).await.events;
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.key == "k"));
}

async fn history_goes_on_before_a_revision(ns: Namespace) {
    let base = ns.set("k", "0").await.mod_revision;
    for value in 1..10 {
        ns.set("k", value.to_string()).await;
    }
    let mut before_revision = None;
    let mut found = Vec::new();
    loop {
        let request = HistoryRequest { limit: 3, before_revision, ..history("k") };
        let page = ns.ok(request).await;
        assert!(page.events.len() <= 3);
        found.extend(page.events.iter().map(|event| event.revision));
        if !page.more {
            break;
        }
        before_revision = found.last().copied();
    }
    let expected: Vec<u64> = (base..base + 10).rev().collect();
    assert_eq!(found, expected);
}

async fn history_over_4_mib_ends_early_and_goes_on(ns: Namespace) {
    for _ in 0..7 {
        ns.set("k", vec![b'x'; 1 << 20]).await;
    }
    let mut found = 0;
    let mut before_revision = None;
    loop {
        let page = ns.ok(HistoryRequest { before_revision, ..history("k") }).await;
        assert!(page.encoded_len() <= 4 << 20);
        found += page.events.len();
        before_revision = page.events.last().map(|event| event.revision);
        if !page.more {
            break;
        }
    }
    assert_eq!(found, 7);
}

async fn history_of_missing_key_is_empty(ns: Namespace) {
    ns.set("other", "1").await;
    let answer = ns.ok(history("k")).await;
    assert_eq!((answer.events.len(), answer.more), (0, false));
}

/// Writes of all kinds; the entries that each revision held.
async fn write_much(ns: &Namespace) -> BTreeMap<u64, Vec<Entry>> {
    let mut states = BTreeMap::new();
    for round in 0..30 {
        let name = format!("k{}", round % 5);
        match round % 6 {
            0 => drop(ns.ok(batch_set([item("x", "1"), item(&name, "batch")])).await),
            1 => drop(ns.ok(delete_range(prefix("k1"))).await),
            2 => drop(ns.ok(increment("n", 1)).await),
            3 => drop(ns.ok(delete(&name)).await),
            4 => drop(ns.ok(set_ttl("x", ttl(3_600_000))).await),
            _ => drop(ns.set(&name, round.to_string()).await),
        }
        let state = ns.ok(list(all())).await;
        states.insert(state.revision, state.entries);
    }
    states
}

async fn reads_at_each_revision_give_what_was_there(ns: Namespace) {
    let states = write_much(&ns).await;
    for (revision, entries) in states {
        let at_revision = Some(revision);
        let listed = ns.list_all(ListRequest { at_revision, page_size: 2, ..list(all()) }).await;
        assert_eq!(listed.entries, entries);
        let parts = ns.scan(ScanRequest { at_revision, ..scan(all()) }).await.expect("scans");
        assert_eq!(parts[0].entries, entries);
        let names = ["k0", "k1", "k2", "n", "x"];
        let slots = ns.ok(BatchGetRequest { at_revision, ..batch_get(&names) }).await.slots;
        for (name, slot) in names.iter().zip(slots) {
            let expected = entries.iter().find(|entry| entry.key == *name).cloned();
            assert_eq!(slot.entry, expected);
            assert_eq!(ns.ok(get_at(name, revision)).await.entry, expected);
        }
    }
}

async fn reads_at_a_revision_answer_with_that_revision(ns: Namespace) {
    let old = ns.set("k", "1").await.mod_revision;
    ns.set("k", "2").await;
    let at_revision = Some(old);
    assert_eq!(ns.ok(get_at("k", old)).await.revision, old);
    assert_eq!(ns.ok(ListRequest { at_revision, ..list(all()) }).await.revision, old);
    assert_eq!(ns.ok(BatchGetRequest { at_revision, ..batch_get(&["k"]) }).await.revision, old);
}

async fn reads_in_the_future_are_refused(ns: Namespace) {
    let newest = ns.set("k", "1").await.mod_revision;
    let at_revision = Some(newest + 1);
    let reason = ErrorReason::FutureRevision;
    let failures = [
        ns.fails(get_at("k", newest + 1), reason).await,
        ns.fails(ListRequest { at_revision, ..list(all()) }, reason).await,
        ns.fails(BatchGetRequest { at_revision, ..batch_get(&["k"]) }, reason).await,
        ns.scan(ScanRequest { at_revision, ..scan(all()) })
            .await
            .expect_err("future")
            .expect(reason),
    ];
    for failure in failures {
        assert_eq!(failure.number("newest_revision"), newest);
    }
}

async fn compaction_forgets_through_its_revision(ns: Namespace) {
    let base = ns.set("k", "0").await.mod_revision;
    for value in 1..10 {
        ns.set("k", value.to_string()).await;
    }
    let answer = ns.ok(compact(base + 4)).await;
    assert_eq!((answer.revision, answer.compacted_revision), (base + 9, base + 4));
    assert_eq!(ns.state().await.namespace.expect("exists").compacted_revision, base + 4);
    let reason = ErrorReason::Compacted;
    for old in base..base + 4 {
        let at_revision = Some(old);
        let failures = [
            ns.fails(get_at("k", old), reason).await,
            ns.fails(ListRequest { at_revision, ..list(all()) }, reason).await,
            ns.fails(BatchGetRequest { at_revision, ..batch_get(&["k"]) }, reason).await,
            ns.scan(ScanRequest { at_revision, ..scan(all()) })
                .await
                .expect_err("old")
                .expect(reason),
            ns.watch(watch_after(all(), old)).await.err().expect("old").expect(reason),
        ];
        for failure in failures {
            assert_eq!(failure.number("oldest_revision"), base + 4);
        }
    }
    for held in base + 4..base + 10 {
        let entry = ns.ok(get_at("k", held)).await.entry.expect("held");
        assert_eq!(entry.mod_revision, held);
        assert_eq!(ns.events_after(held).await.len() as u64, base + 9 - held);
    }
    // The version that the oldest revision held is held with it.
    let events = ns.ok(history("k")).await.events;
    let revisions: Vec<u64> = events.iter().map(|event| event.revision).collect();
    assert_eq!(revisions, (base + 4..base + 10).rev().collect::<Vec<_>>());
}

async fn compaction_keeps_the_present_state(ns: Namespace) {
    write_much(&ns).await;
    let before = ns.ok(list(all())).await;
    ns.ok(compact(before.revision)).await;
    let after = ns.ok(list(all())).await;
    assert_eq!((after.revision, after.entries), (before.revision, before.entries));
}

async fn compaction_does_not_go_back(ns: Namespace) {
    let base = ns.set("k", "0").await.mod_revision;
    for value in 1..5 {
        ns.set("k", value.to_string()).await;
    }
    ns.ok(compact(base + 3)).await;
    assert_eq!(ns.ok(compact(base + 1)).await.compacted_revision, base + 3);
    ns.ok(get_at("k", base + 3)).await;
}

async fn compaction_in_the_future_is_refused(ns: Namespace) {
    let newest = ns.set("k", "0").await.mod_revision;
    let failure = ns.fails(compact(newest + 1), ErrorReason::FutureRevision).await;
    assert_eq!(failure.number("newest_revision"), newest);
    assert_eq!(ns.events_after(newest).await.len(), 0);
}

async fn clear_forgets_what_came_before(ns: Namespace) {
    let old = ns.set("k", "0").await.mod_revision;
    let cleared = ns.ok(ClearNamespaceRequest::default()).await;
    assert_eq!(cleared.revision, old + 1);
    ns.fails(get_at("k", old), ErrorReason::Compacted).await;
    assert_eq!(ns.ok(get_at("k", cleared.revision)).await.entry, None);
    let new = ns.set("k", "1").await.mod_revision;
    assert_eq!(ns.ok(get_at("k", cleared.revision)).await.entry, None);
    assert_eq!(summary(&ns.ok(history("k")).await.events), [(EventType::Set, new)]);
}

async fn small_retention_forgets_old_events_and_keeps_new_ones(ns: Namespace) {
    ns.ok(update(NamespaceSettings { log_max_bytes: Some(1 << 20), ..Default::default() })).await;
    let base = ns.set("k", "0").await.mod_revision;
    // Over twice the bound in bytes not even what is young is held.
    for _ in 0..64 {
        ns.set("k", vec![b'x'; 64 << 10]).await;
    }
    let failure = loop {
        match ns.call(get_at("k", base)).await {
            Ok(_) => drop(ns.set("other", "1").await),
            Err(failure) => break failure.expect(ErrorReason::Compacted),
        }
    };
    assert!(failure.number("oldest_revision") > base);
    let newest = ns.revision().await;
    assert_eq!(ns.events_after(newest - 10).await.len(), 10);
}

async fn young_events_outlive_the_event_bound(ns: Namespace) {
    ns.ok(update(NamespaceSettings {
        log_max_events: Some(1),
        log_max_age_ms: Some(1_000),
        ..Default::default()
    }))
    .await;
    let base = ns.set("k", "0").await.mod_revision;
    for value in 1..100 {
        ns.set("k", value.to_string()).await;
    }
    assert_eq!(ns.events_after(base).await.len(), 99);
}
