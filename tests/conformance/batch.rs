//! Batches: many keys, one revision, all or none.

use holdfast_proto::v1::{pipeline_answer::Result as Outcome, *};
use prost::Message;

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    batch_get_answers_one_slot_a_key_in_the_order_asked,
    batch_get_without_values,
    batch_get_sees_one_state,
    batch_get_over_4_mib_ends_early_and_goes_on,
    batch_get_goes_on_at_the_first_revision_and_time,
    batch_get_page_token_fits_its_query_only,
    batch_set_is_one_revision,
    batch_set_items_carry_their_own_expiry,
    batch_set_counts_versions_by_key,
    batch_set_over_a_quota_changes_nothing,
    batch_delete_tells_which_keys_were_there,
    batch_delete_of_missing_keys_changes_nothing,
    batches_take_1024_keys,
    batches_of_an_expired_key_see_it_missing,
    a_batch_is_seen_whole_or_not_at_all,
}

fn keys(slots: &[batch_get_response::Slot]) -> Vec<Option<&str>> {
    let entries = slots.iter().map(|slot| slot.entry.as_ref());
    entries.map(|entry| entry.map(|entry| entry.key.as_str())).collect()
}

async fn batch_get_answers_one_slot_a_key_in_the_order_asked(ns: Namespace) {
    for key in ["a", "b", "c"] {
        ns.set(key, key).await;
    }
    let answer = ns.ok(batch_get(&["c", "missing", "a"])).await;
    assert_eq!(keys(&answer.slots), [Some("c"), None, Some("a")]);
    assert_eq!(answer.slots[0].entry, ns.get("c").await);
    assert_eq!(answer.next_page_token, "");
}

async fn batch_get_without_values(ns: Namespace) {
    ns.set("a", "1").await;
    let answer = ns.ok(BatchGetRequest { keys_only: true, ..batch_get(&["a"]) }).await;
    let entry = answer.slots[0].entry.clone().expect("set");
    assert_eq!((entry.value, entry.version), (None, 1));
}

async fn batch_get_sees_one_state(ns: Namespace) {
    let names: Vec<String> = (0..50).map(|number| format!("k{number}")).collect();
    let round =
        |value: String| batch_set(names.iter().map(|name| item(name, &value)).collect::<Vec<_>>());
    ns.ok(round("0".into())).await;
    let writer = async {
        for value in 1..60 {
            ns.ok(round(value.to_string())).await;
        }
    };
    let reader = async {
        for _ in 0..60 {
            let answer = ns.ok(batch_get(&names)).await;
            let entries: Vec<_> = answer.slots.into_iter().filter_map(|slot| slot.entry).collect();
            assert_eq!(entries.len(), names.len());
            for entry in &entries {
                assert_eq!(entry.mod_revision, answer.revision);
                assert_eq!(entry.value, entries[0].value);
            }
        }
    };
    futures::join!(writer, reader);
}

async fn large_entries(ns: &Namespace) -> Vec<String> {
    let names: Vec<String> = (0..10).map(|number| format!("large{number}")).collect();
    for name in &names {
        ns.set(name, vec![b'x'; 1 << 20]).await;
    }
    names
}

async fn batch_get_over_4_mib_ends_early_and_goes_on(ns: Namespace) {
    let names = large_entries(&ns).await;
    let mut found = Vec::new();
    let mut page_token = Default::default();
    let mut pages = 0;
    loop {
        let request = BatchGetRequest { page_token, ..batch_get(&names) };
        let page = ns.ok(request).await;
        assert!(page.encoded_len() <= 4 << 20);
        assert!(!page.slots.is_empty());
        found.extend(keys(&page.slots).into_iter().map(|key| key.map(str::to_owned)));
        pages += 1;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert!(pages >= 3);
    assert_eq!(found, names.into_iter().map(Some).collect::<Vec<_>>());
}

async fn batch_get_goes_on_at_the_first_revision_and_time(ns: Namespace) {
    let names = large_entries(&ns).await;
    let first = ns.ok(batch_get(&names)).await;
    assert!(!first.next_page_token.is_empty());
    ns.ok(delete_range(all())).await;
    let request = BatchGetRequest { page_token: first.next_page_token, ..batch_get(&names) };
    let second = ns.ok(request).await;
    assert_eq!((second.revision, second.time_ms), (first.revision, first.time_ms));
    let next = &names[first.slots.len()];
    assert_eq!(keys(&second.slots)[0], Some(next.as_str()));
}

async fn batch_get_page_token_fits_its_query_only(ns: Namespace) {
    let names = large_entries(&ns).await;
    let page_token = ns.ok(batch_get(&names)).await.next_page_token;
    let wrong = [
        BatchGetRequest { page_token: page_token.clone(), ..batch_get(&names[1..]) },
        BatchGetRequest { page_token: page_token.clone(), keys_only: true, ..batch_get(&names) },
        BatchGetRequest { page_token: page_token.slice(1..), ..batch_get(&names) },
        BatchGetRequest { page_token: "nonsense".into(), ..batch_get(&names) },
    ];
    for request in wrong {
        let failure = ns.fails(request, ErrorReason::InvalidPageToken).await;
        assert_eq!(failure.fields, ["page_token"]);
    }
}

async fn batch_set_is_one_revision(ns: Namespace) {
    let before = ns.set("b", "0").await;
    let answer = ns.ok(batch_set([item("c", "1"), item("b", "2"), item("a", "3")])).await;
    assert_eq!(answer.revision, before.mod_revision + 1);
    let found: Vec<_> = answer.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(found, ["c", "b", "a"], "in the order of the items");
    for entry in &answer.entries {
        assert_eq!((entry.mod_revision, entry.updated_at_ms), (answer.revision, answer.time_ms));
        assert_eq!(entry.value, None);
    }
    let events = ns.events_after(before.mod_revision).await;
    assert_eq!(events.len(), 3);
    assert!(events.iter().all(|event| event.revision == answer.revision));
}

async fn batch_set_items_carry_their_own_expiry(ns: Namespace) {
    let with = |name, expiry| batch_set_request::Item {
        expiry,
        content_type: "t".into(),
        ..item(name, "1")
    };
    let items = [with("short", ttl(60_000)), with("long", ttl(90_000)), with("never", never())];
    let answer = ns.ok(batch_set(items)).await;
    let ends: Vec<_> = answer.entries.iter().map(|entry| entry.expires_at_ms).collect();
    let at = |ms: i64| Some(answer.time_ms + ms);
    assert_eq!(ends, [at(60_000), at(90_000), None]);
    assert_eq!(answer.entries[0].content_type, "t");
}

async fn batch_set_counts_versions_by_key(ns: Namespace) {
    ns.set("old", "1").await;
    let answer = ns.ok(batch_set([item("old", "2"), item("new", "1")])).await;
    let versions: Vec<_> = answer.entries.iter().map(|entry| entry.version).collect();
    assert_eq!(versions, [2, 1]);
}

async fn batch_set_over_a_quota_changes_nothing(ns: Namespace) {
    ns.ok(update(NamespaceSettings { quota_max_keys: Some(2), ..Default::default() })).await;
    let written = ns.set("a", "1").await;
    let batch = batch_set([item("a", "2"), item("b", "2"), item("c", "2")]);
    ns.fails(batch, ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, written.mod_revision);
    assert_eq!(ns.value("a").await.as_deref(), Some("1"));
    assert_eq!(ns.keys(all()).await, ["a"]);
}

async fn batch_delete_tells_which_keys_were_there(ns: Namespace) {
    ns.set("a", "1").await;
    let before = ns.set("c", "1").await.mod_revision;
    let answer = ns.ok(batch_delete(&["c", "b", "a"])).await;
    assert_eq!(answer.deleted, [true, false, true]);
    assert_eq!(answer.revision, before + 1);
    assert_eq!(ns.keys(all()).await.len(), 0);
    assert_eq!(ns.events_after(before).await.len(), 2);
}

async fn batch_delete_of_missing_keys_changes_nothing(ns: Namespace) {
    let before = ns.set("c", "1").await.mod_revision;
    let answer = ns.ok(batch_delete(&["x", "y"])).await;
    assert_eq!(answer.deleted, [false, false]);
    assert_eq!((answer.revision, ns.revision().await), (before, before));
}

async fn batches_take_1024_keys(ns: Namespace) {
    let names: Vec<String> = (0..1024).map(|number| format!("k{number}")).collect();
    let items: Vec<_> = names.iter().map(|name| item(name, name)).collect();
    assert_eq!(ns.ok(batch_set(items)).await.entries.len(), 1024);
    let slots = ns.ok(batch_get(&names)).await.slots;
    assert_eq!(keys(&slots), names.iter().map(|name| Some(name.as_str())).collect::<Vec<_>>());
    let deleted = ns.ok(batch_delete(&names)).await.deleted;
    assert_eq!(deleted, [true; 1024]);
}

async fn batches_of_an_expired_key_see_it_missing(ns: Namespace) {
    let set = ns.ok(SetRequest { expiry: ttl(30), ..set("k", "1") }).await;
    while ns.ok(get("k")).await.time_ms < set.time_ms + 30 {}
    assert_eq!(keys(&ns.ok(batch_get(&["k"])).await.slots), [None]);
    assert_eq!(ns.ok(batch_delete(&["k"])).await.deleted, [false]);
    assert_eq!(ns.ok(batch_set([item("k", "2")])).await.entries[0].version, 1);
}

async fn a_batch_is_seen_whole_or_not_at_all(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let values = ["x".repeat(40), "y".repeat(4)];
    for round in 0..40 {
        let value = &values[round % 2];
        let names: Vec<String> = (0..20).map(|number| format!("k{number}")).collect();
        let items = names.iter().map(|name| item(name, value));
        pipe.send([pipeline_call::Operation::BatchSet(batch_set(items))]);
        let listed = ns.ok(list(all())).await;
        assert!([0, 20].contains(&listed.entries.len()));
        for entry in &listed.entries {
            assert_eq!(entry.value, listed.entries[0].value);
            assert_eq!(entry.mod_revision, listed.revision);
        }
    }
    for outcome in pipe.answers(40).await.into_values() {
        assert!(matches!(outcome, Outcome::BatchSet(_)));
    }
}
