//! Single keys: get, set, delete, exists, TTL, increment.

use holdfast_proto::v1::{get_ttl_response::Ttl, *};

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    get_of_missing_key_is_an_answer_without_an_entry,
    reads_of_a_missing_namespace_find_nothing_and_create_nothing,
    set_then_get_gives_the_whole_entry,
    set_answers_with_metadata_and_no_value,
    set_again_counts_the_version_and_keeps_the_creation,
    set_of_the_same_value_is_a_change,
    set_replaces_the_content_type,
    set_can_return_the_previous_entry,
    empty_value_is_a_value,
    value_of_one_mebibyte_is_accepted,
    longest_key_is_accepted,
    keys_are_any_text_without_nul,
    delete_of_missing_key_succeeds,
    delete_removes_and_can_return_the_previous_entry,
    key_set_after_delete_is_created_anew,
    exists_tells_whether_a_key_is_there,
    revisions_rise_by_one_and_time_never_goes_back,
    every_answer_carries_revision_and_time,
    namespaces_do_not_share_keys,
    get_ttl_tells_missing_never_and_remaining,
    set_ttl_is_a_change_of_the_expiry_alone,
    set_ttl_of_missing_key_changes_nothing,
    touch_sets_the_expiry_of_what_it_reads,
    touch_of_missing_key_changes_nothing,
}

async fn get_of_missing_key_is_an_answer_without_an_entry(ns: Namespace) {
    let written = ns.set("other", "1").await;
    let answer = ns.ok(get("missing")).await;
    assert_eq!(answer.entry, None);
    assert_eq!(answer.revision, written.mod_revision);
}

async fn reads_of_a_missing_namespace_find_nothing_and_create_nothing(ns: Namespace) {
    let answer = ns.ok(get("a")).await;
    assert_eq!((answer.revision, answer.entry), (0, None));
    assert!(answer.time_ms > 0);
    assert!(!ns.ok(exists("a")).await.exists);
    assert_eq!(ns.ok(count(all())).await.count, 0);
    assert_eq!(ns.ok(get_ttl("a")).await.ttl, Some(Ttl::Missing(Default::default())));
    let listed = ns.ok(list(all())).await;
    assert_eq!((listed.revision, listed.entries.len(), listed.lineage.as_str()), (0, 0, ""));
    assert_eq!(ns.ok(history("a")).await.events, []);
    assert_eq!(ns.ok(batch_get(&["a", "b"])).await.slots.len(), 2);
    ns.ok(transact([op::get("a")])).await;
    // Nor do writes that change nothing create it.
    assert!(!ns.ok(delete("a")).await.deleted);
    assert!(!ns.ok(set_ttl("a", ttl(1000))).await.found);
    assert_eq!(ns.ok(delete_range(all())).await.deleted, 0);
    let state = ns.state().await;
    assert_eq!((state.revision, state.namespace), (0, None));
}

async fn set_then_get_gives_the_whole_entry(ns: Namespace) {
    let answer =
        ns.ok(SetRequest { content_type: "application/json".into(), ..set("k", "{}") }).await;
    assert!(answer.created);
    let expected = Entry {
        key: "k".into(),
        value: Some("{}".into()),
        content_type: "application/json".into(),
        version: 1,
        create_revision: answer.revision,
        mod_revision: answer.revision,
        created_at_ms: answer.time_ms,
        updated_at_ms: answer.time_ms,
        expires_at_ms: None,
        lease_id: None,
    };
    let read = ns.ok(get("k")).await;
    assert_eq!(read.entry, Some(expected));
    assert_eq!(read.revision, answer.revision);
    assert!(read.time_ms >= answer.time_ms);
}

async fn set_answers_with_metadata_and_no_value(ns: Namespace) {
    let answer = ns.ok(set("k", "value")).await;
    let read = ns.get("k").await.expect("the key is set");
    let entry = answer.entry.expect("Set answers with the entry");
    assert_eq!(entry.value, None);
    assert_eq!(Entry { value: None, ..read }, entry);
    assert_eq!(answer.previous, None);
}

async fn set_again_counts_the_version_and_keeps_the_creation(ns: Namespace) {
    let first = ns.set("k", "1").await;
    let answer = ns.ok(set("k", "2")).await;
    let second = answer.entry.expect("Set answers with the entry");
    assert!(!answer.created);
    assert_eq!(second.version, 2);
    assert_eq!(second.create_revision, first.create_revision);
    assert_eq!(second.created_at_ms, first.created_at_ms);
    assert_eq!(second.mod_revision, first.mod_revision + 1);
    assert_eq!(second.updated_at_ms, answer.time_ms);
}

async fn set_of_the_same_value_is_a_change(ns: Namespace) {
    let first = ns.set("k", "same").await;
    let second = ns.set("k", "same").await;
    assert_eq!(second.version, 2);
    assert_eq!(second.mod_revision, first.mod_revision + 1);
}

async fn set_replaces_the_content_type(ns: Namespace) {
    let typed = SetRequest { content_type: "x".repeat(128), ..set("k", "1") };
    ns.ok(typed).await;
    assert_eq!(ns.get("k").await.expect("set").content_type.len(), 128);
    ns.set("k", "2").await;
    assert_eq!(ns.get("k").await.expect("set").content_type, "");
}

async fn set_can_return_the_previous_entry(ns: Namespace) {
    let asking = SetRequest { return_previous: true, ..set("k", "1") };
    assert_eq!(ns.ok(asking.clone()).await.previous, None);
    let before = ns.get("k").await;
    assert_eq!(ns.ok(asking).await.previous, before);
}

async fn empty_value_is_a_value(ns: Namespace) {
    ns.set("k", "").await;
    assert_eq!(ns.get("k").await.expect("set").value, Some("".into()));
    assert!(ns.ok(exists("k")).await.exists);
}

async fn value_of_one_mebibyte_is_accepted(ns: Namespace) {
    let info = ns.ok(GetServerInfoRequest {}).await;
    let limits = info.limits.expect("a server has limits");
    let value = vec![7; usize::try_from(limits.max_value_bytes).expect("small")];
    assert!(value.len() >= 1 << 20);
    ns.set("k", &value).await;
    assert_eq!(ns.get("k").await.expect("set").value, Some(value.into()));
}

async fn longest_key_is_accepted(ns: Namespace) {
    for longest in ["k".repeat(1024), "é".repeat(512)] {
        ns.set(&longest, "1").await;
        assert_eq!(ns.value(&longest).await.as_deref(), Some("1"));
    }
}

async fn keys_are_any_text_without_nul(ns: Namespace) {
    let odd =
        [" ", "a b", "/", "..", "*", "\\", "\u{1}", "ключ", "鍵", "😀", "\u{feff}", "%00", "_x"];
    for key in odd {
        ns.set(key, key).await;
    }
    for key in odd {
        assert_eq!(ns.value(key).await.as_deref(), Some(key));
    }
    assert_eq!(ns.ok(count(all())).await.count, odd.len() as u64);
}

async fn delete_of_missing_key_succeeds(ns: Namespace) {
    let written = ns.set("other", "1").await;
    let answer = ns.ok(DeleteRequest { return_previous: true, ..delete("missing") }).await;
    assert_eq!((answer.deleted, answer.previous), (false, None));
    assert_eq!(answer.revision, written.mod_revision);
    assert_eq!(ns.revision().await, written.mod_revision);
}

async fn delete_removes_and_can_return_the_previous_entry(ns: Namespace) {
    let written = ns.set("k", "1").await;
    let before = ns.get("k").await;
    let answer = ns.ok(DeleteRequest { return_previous: true, ..delete("k") }).await;
    assert_eq!((answer.deleted, answer.previous), (true, before));
    assert_eq!(answer.revision, written.mod_revision + 1);
    assert_eq!(ns.get("k").await, None);
    ns.set("k", "2").await;
    let answer = ns.ok(delete("k")).await;
    assert_eq!((answer.deleted, answer.previous), (true, None));
}

async fn key_set_after_delete_is_created_anew(ns: Namespace) {
    ns.set("k", "1").await;
    ns.set("k", "2").await;
    ns.ok(delete("k")).await;
    let answer = ns.ok(set("k", "3")).await;
    let entry = answer.entry.expect("Set answers with the entry");
    assert!(answer.created);
    assert_eq!((entry.version, entry.create_revision), (1, answer.revision));
}

async fn exists_tells_whether_a_key_is_there(ns: Namespace) {
    ns.set("k", "1").await;
    assert!(ns.ok(exists("k")).await.exists);
    assert!(!ns.ok(exists("K")).await.exists);
    ns.ok(delete("k")).await;
    assert!(!ns.ok(exists("k")).await.exists);
}

async fn revisions_rise_by_one_and_time_never_goes_back(ns: Namespace) {
    let mut last = ns.ok(set("k", "0")).await;
    for round in 1..100_u32 {
        let answer = ns.ok(set("k", round.to_string())).await;
        assert_eq!(answer.revision, last.revision + 1);
        assert!(answer.time_ms >= last.time_ms);
        assert!(answer.revision < 1 << 53);
        last = answer;
    }
}

async fn every_answer_carries_revision_and_time(ns: Namespace) {
    let written = ns.ok(set("k", "1")).await;
    let (revision, time_ms) = (written.revision, written.time_ms);
    let answers = [
        state(ns.ok(get("k")).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(exists("k")).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(get_ttl("k")).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(list(all())).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(count(all())).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(history("k")).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(batch_get(&["k"])).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(delete("none")).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(set_ttl("none", ttl(9))).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(delete_range(prefix("none"))).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(batch_delete(&["none"])).await, |a| (a.revision, a.time_ms)),
        state(ns.ok(transact([op::get("k")])).await, |a| (a.revision, a.time_ms)),
        state(ns.state().await, |a| (a.revision, a.time_ms)),
    ];
    for answer in answers {
        assert_eq!(answer.0, revision);
        assert!(answer.1 >= time_ms);
    }
}

fn state<A>(answer: A, of: fn(&A) -> (u64, i64)) -> (u64, i64) {
    of(&answer)
}

async fn namespaces_do_not_share_keys(ns: Namespace) {
    let other = ns.sibling("other");
    ns.set("k", "here").await;
    other.set("k", "there").await;
    assert_eq!(ns.value("k").await.as_deref(), Some("here"));
    other.ok(delete_range(all())).await;
    assert_eq!(ns.value("k").await.as_deref(), Some("here"));
    assert_ne!(ns.lineage().await, other.lineage().await);
}

async fn get_ttl_tells_missing_never_and_remaining(ns: Namespace) {
    ns.set("forever", "1").await;
    let answer = ns.ok(SetRequest { expiry: ttl(60_000), ..set("leaving", "1") }).await;
    let deadline = answer.entry.and_then(|entry| entry.expires_at_ms);
    let deadline = deadline.expect("an expiry was set");
    assert_eq!(ns.ok(get_ttl("none")).await.ttl, Some(Ttl::Missing(Default::default())));
    assert_eq!(ns.ok(get_ttl("forever")).await.ttl, Some(Ttl::Never(Default::default())));
    let answer = ns.ok(get_ttl("leaving")).await;
    let left = u64::try_from(deadline - answer.time_ms).expect("a minute has not passed");
    assert_eq!(answer.ttl, Some(Ttl::RemainingMs(left)));
}

async fn set_ttl_is_a_change_of_the_expiry_alone(ns: Namespace) {
    ns.set("k", "1").await;
    let before = ns.get("k").await.expect("set");
    let answer = ns.ok(set_ttl("k", ttl(60_000))).await;
    assert!(answer.found);
    assert_eq!(answer.revision, before.mod_revision + 1);
    let mut expected = Entry {
        version: 2,
        mod_revision: answer.revision,
        updated_at_ms: answer.time_ms,
        expires_at_ms: Some(answer.time_ms + 60_000),
        ..before
    };
    assert_eq!(ns.get("k").await, Some(expected.clone()));
    let answer = ns.ok(set_ttl("k", never())).await;
    expected.version = 3;
    expected.mod_revision = answer.revision;
    expected.updated_at_ms = answer.time_ms;
    expected.expires_at_ms = None;
    assert_eq!(ns.get("k").await, Some(expected));
}

async fn set_ttl_of_missing_key_changes_nothing(ns: Namespace) {
    let written = ns.set("other", "1").await;
    let answer = ns.ok(set_ttl("missing", ttl(1000))).await;
    assert!(!answer.found);
    assert_eq!(answer.revision, written.mod_revision);
    assert!(!ns.ok(exists("missing")).await.exists);
}

async fn touch_sets_the_expiry_of_what_it_reads(ns: Namespace) {
    let written = ns.set("k", "1").await;
    let answer = ns.ok(GetRequest { touch: ttl(60_000), ..get("k") }).await;
    assert_eq!(answer.revision, written.mod_revision + 1);
    let entry = answer.entry.expect("the key exists");
    assert_eq!(entry.value, Some("1".into()));
    assert_eq!((entry.version, entry.mod_revision), (2, answer.revision));
    assert_eq!(entry.expires_at_ms, Some(answer.time_ms + 60_000));
    assert_eq!(ns.get("k").await, Some(entry));
}

async fn touch_of_missing_key_changes_nothing(ns: Namespace) {
    let written = ns.set("other", "1").await;
    let answer = ns.ok(GetRequest { touch: ttl(60_000), ..get("k") }).await;
    assert_eq!((answer.entry, answer.revision), (None, written.mod_revision));
}
