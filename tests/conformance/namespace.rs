//! Namespaces: settings, quotas, lists of them, clear and delete.

use holdfast_proto::v1::{pipeline_answer::Result as Outcome, pipeline_call::Operation as Op, *};

use crate::common::{build::*, failure::Failure, namespace::Namespace};

crate::cases! {
    missing_namespace_is_an_answer_without_it,
    first_write_creates_the_namespace,
    update_creates_the_namespace_and_takes_no_revision,
    namespace_tells_what_it_holds,
    names_may_have_all_their_characters,
    update_changes_only_what_is_set,
    update_mask_says_which_fields_to_take,
    updates_at_once_are_answered_with_what_each_has_made,
    a_namespace_is_told_as_of_one_state,
    settings_survive_clear_and_not_delete,
    default_ttl_counts_for_entries_without_an_expiry,
    key_quota_refuses_new_keys_only,
    byte_quota_refuses_what_would_exceed_it,
    quota_below_what_is_there_lets_go,
    quotas_hold_for_those_who_write_at_once,
    clear_removes_all_keys_at_one_revision,
    clear_of_an_empty_namespace_changes_nothing,
    keys_set_after_a_clear_are_created_anew,
    cleared_keys_do_not_expire,
    delete_keeps_name_and_last_revision,
    delete_of_missing_namespace_succeeds,
    revisions_never_go_back_over_deletes,
    namespaces_are_listed_in_order_and_pages,
    deleted_namespaces_are_not_listed,
}

fn clear() -> ClearNamespaceRequest {
    ClearNamespaceRequest::default()
}

fn delete_namespace() -> DeleteNamespaceRequest {
    DeleteNamespaceRequest::default()
}

async fn settings(ns: &Namespace) -> NamespaceSettings {
    let namespace = ns.state().await.namespace.expect("the namespace exists");
    namespace.settings.unwrap_or_default()
}

async fn missing_namespace_is_an_answer_without_it(ns: Namespace) {
    let state = ns.state().await;
    assert_eq!((state.revision, state.namespace), (0, None));
    assert!(state.time_ms > 0);
}

async fn first_write_creates_the_namespace(ns: Namespace) {
    let written = ns.ok(set("k", "1")).await;
    let state = ns.state().await;
    assert_eq!(state.revision, written.revision);
    let namespace = state.namespace.expect("created");
    assert_eq!((&namespace.name, namespace.revision), (&ns.name, written.revision));
    assert!(namespace.compacted_revision < written.revision);
    assert_eq!(namespace.lineage.len(), 36, "a UUID: {}", namespace.lineage);
    assert!(namespace.created_at_ms <= written.time_ms && namespace.created_at_ms > 0);
    assert_eq!(settings(&ns).await, NamespaceSettings::default());
}

async fn update_creates_the_namespace_and_takes_no_revision(ns: Namespace) {
    let created = ns.ok(update(NamespaceSettings::default())).await;
    let namespace = created.namespace.expect("answered");
    assert_eq!((&namespace.name, namespace.revision), (&ns.name, created.revision));
    let written = ns.set("k", "1").await;
    assert_eq!(written.mod_revision, created.revision + 1);
    let updated = ns
        .ok(update(NamespaceSettings { default_ttl_ms: Some(60_000), ..Default::default() }))
        .await;
    assert_eq!(updated.revision, written.mod_revision);
    assert_eq!(updated.namespace.expect("answered").lineage, namespace.lineage);
}

async fn namespace_tells_what_it_holds(ns: Namespace) {
    ns.ok(SetRequest { content_type: "12345".into(), ..set("abc", "1234567") }).await;
    ns.set("b", "").await;
    let namespace = ns.state().await.namespace.expect("created");
    assert_eq!((namespace.key_count, namespace.byte_count), (2, 3 + 5 + 7 + 1));
    ns.set("abc", "1").await;
    ns.ok(delete("b")).await;
    let namespace = ns.state().await.namespace.expect("created");
    assert_eq!((namespace.key_count, namespace.byte_count), (1, 4));
}

async fn names_may_have_all_their_characters(ns: Namespace) {
    let longest = format!("{}{}", ns.name, "x".repeat(128 - ns.name.len()));
    let odd = format!("{}/:._-AZaz09", ns.name);
    for name in [longest, odd] {
        let ns = Namespace { name: name.clone(), ..ns.clone() };
        ns.set("k", "1").await;
        assert_eq!(ns.state().await.namespace.expect("created").name, name);
    }
    for name in [".", "-", "/", ":"] {
        Namespace { name: name.into(), ..ns.clone() }.ok(get("k")).await;
    }
}

async fn update_changes_only_what_is_set(ns: Namespace) {
    ns.ok(update(NamespaceSettings {
        default_ttl_ms: Some(60_000),
        quota_max_keys: Some(10),
        ..Default::default()
    }))
    .await;
    let answer = ns
        .ok(update(NamespaceSettings {
            default_ttl_ms: Some(70_000),
            log_max_events: Some(500),
            ..Default::default()
        }))
        .await;
    let expected = NamespaceSettings {
        default_ttl_ms: Some(70_000),
        log_max_events: Some(500),
        quota_max_keys: Some(10),
        ..Default::default()
    };
    assert_eq!(answer.namespace.and_then(|namespace| namespace.settings), Some(expected));
    assert_eq!(settings(&ns).await, expected);
}

async fn update_mask_says_which_fields_to_take(ns: Namespace) {
    ns.ok(update(NamespaceSettings {
        default_ttl_ms: Some(60_000),
        quota_max_keys: Some(10),
        quota_max_bytes: Some(1_000_000),
        ..Default::default()
    }))
    .await;
    ns.ok(UpdateNamespaceRequest {
        update_mask: Some(prost_types::FieldMask {
            paths: vec!["default_ttl_ms".into(), "quota_max_keys".into()],
        }),
        ..update(NamespaceSettings {
            quota_max_keys: Some(20),
            quota_max_bytes: Some(5),
            ..Default::default()
        })
    })
    .await;
    let expected = NamespaceSettings {
        quota_max_keys: Some(20),
        quota_max_bytes: Some(1_000_000),
        ..Default::default()
    };
    assert_eq!(settings(&ns).await, expected, "named and absent is the default again");
}

async fn updates_at_once_are_answered_with_what_each_has_made(ns: Namespace) {
    let updates = (1..=64_u64).map(|ttl| {
        let ns = ns.clone();
        async move {
            let asked = NamespaceSettings { default_ttl_ms: Some(ttl), ..Default::default() };
            let answered = ns.ok(update(asked)).await.namespace.expect("answered");
            assert_eq!(answered.settings, Some(asked));
        }
    });
    futures::future::join_all(updates).await;
}

async fn a_namespace_is_told_as_of_one_state(ns: Namespace) {
    // There is room for one more key at the most, and never for less than there are.
    let write = async {
        for count in 1..=100 {
            let room = NamespaceSettings { quota_max_keys: Some(count), ..Default::default() };
            ns.ok(update(room)).await;
            ns.set(&count.to_string(), "v").await;
        }
    };
    let look = async {
        loop {
            let Some(seen) = ns.state().await.namespace else { continue };
            let room = seen.settings.and_then(|settings| settings.quota_max_keys);
            let room = room.expect("it is there from the beginning");
            assert!([seen.key_count, seen.key_count + 1].contains(&room), "{seen:?}");
        }
    };
    tokio::select! {
        () = write => {}
        () = look => {}
    }
}

async fn settings_survive_clear_and_not_delete(ns: Namespace) {
    let wanted = NamespaceSettings { quota_max_keys: Some(10), ..Default::default() };
    ns.ok(update(wanted)).await;
    ns.set("k", "1").await;
    ns.ok(clear()).await;
    assert_eq!(settings(&ns).await, wanted);
    ns.ok(delete_namespace()).await;
    ns.set("k", "1").await;
    assert_eq!(settings(&ns).await, NamespaceSettings::default());
}

async fn default_ttl_counts_for_entries_without_an_expiry(ns: Namespace) {
    let old = ns.set("old", "1").await;
    ns.ok(update(NamespaceSettings { default_ttl_ms: Some(60_000), ..Default::default() })).await;
    let time_and_end = |time_ms: i64, entry: Option<Entry>| {
        let ends = entry.expect("answered").expires_at_ms;
        ends.map(|ends| ends - time_ms)
    };
    let answer = ns.ok(set("k", "1")).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entry), Some(60_000));
    let answer = ns.ok(SetRequest { expiry: ttl(5_000), ..set("k", "1") }).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entry), Some(5_000));
    let answer = ns.ok(SetRequest { expiry: never(), ..set("k", "1") }).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entry), None);
    let answer = ns.ok(SetRequest { expiry: keep(), ..set("k", "1") }).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entry), None);
    let answer = ns.ok(SetRequest { expiry: keep(), ..set("new", "1") }).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entry), Some(60_000));
    let answer = ns.ok(batch_set([item("b", "1")])).await;
    assert_eq!(time_and_end(answer.time_ms, answer.entries.first().cloned()), Some(60_000));
    let answer = ns.ok(increment("n", 1)).await;
    assert_eq!(time_and_end(answer.time_ms, ns.get("n").await), Some(60_000));
    let answer = ns.ok(transact([op::set("t", "1")])).await;
    assert_eq!(time_and_end(answer.time_ms, ns.get("t").await), Some(60_000));
    assert_eq!(ns.get("old").await.expect("set").mod_revision, old.mod_revision);
    assert_eq!(ns.get("old").await.expect("set").expires_at_ms, None);
}

async fn key_quota_refuses_new_keys_only(ns: Namespace) {
    ns.ok(update(NamespaceSettings { quota_max_keys: Some(2), ..Default::default() })).await;
    ns.set("a", "1").await;
    let before = ns.set("b", "1").await.mod_revision;
    ns.fails(set("c", "1"), ErrorReason::QuotaExceeded).await;
    ns.fails(increment("n", 1), ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, before);
    ns.set("a", "2").await;
    ns.ok(delete("b")).await;
    ns.set("c", "1").await;
    assert_eq!(ns.keys(all()).await, ["a", "c"]);
}

async fn byte_quota_refuses_what_would_exceed_it(ns: Namespace) {
    ns.ok(update(NamespaceSettings { quota_max_bytes: Some(100), ..Default::default() })).await;
    let before = ns.set("a", "x".repeat(99)).await.mod_revision;
    ns.fails(set("b", ""), ErrorReason::QuotaExceeded).await;
    ns.fails(set("a", "x".repeat(100)), ErrorReason::QuotaExceeded).await;
    let typed = SetRequest { content_type: "t".into(), ..set("a", "x".repeat(99)) };
    ns.fails(typed, ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, before);
    ns.set("a", "x".repeat(98)).await;
    ns.set("b", "").await;
}

async fn quota_below_what_is_there_lets_go(ns: Namespace) {
    for name in ["a", "b", "c"] {
        ns.set(name, "1").await;
    }
    ns.ok(update(NamespaceSettings { quota_max_keys: Some(1), ..Default::default() })).await;
    assert_eq!(ns.keys(all()).await.len(), 3, "nothing is thrown away");
    ns.fails(set("d", "1"), ErrorReason::QuotaExceeded).await;
    assert!(ns.ok(delete("a")).await.deleted);
    assert_eq!(ns.ok(delete_range(all())).await.deleted, 2);
    ns.set("d", "1").await;
}

async fn clear_removes_all_keys_at_one_revision(ns: Namespace) {
    for name in ["a", "b", "c"] {
        ns.set(name, "1").await;
    }
    let before = ns.revision().await;
    let lineage = ns.lineage().await;
    let cleared = ns.ok(clear()).await;
    assert_eq!((cleared.cleared, cleared.revision), (3, before + 1));
    assert_eq!(ns.keys(all()).await.len(), 0);
    assert_eq!(ns.ok(count(all())).await.count, 0);
    let namespace = ns.state().await.namespace.expect("still there");
    assert_eq!((namespace.key_count, namespace.byte_count), (0, 0));
    assert_eq!((namespace.lineage, namespace.revision), (lineage, before + 1));
}

async fn clear_of_an_empty_namespace_changes_nothing(ns: Namespace) {
    let missing = ns.ok(clear()).await;
    assert_eq!((missing.cleared, missing.revision), (0, 0));
    assert_eq!(ns.state().await.namespace, None);
    ns.set("k", "1").await;
    let before = ns.ok(delete("k")).await.revision;
    let cleared = ns.ok(clear()).await;
    assert_eq!((cleared.cleared, cleared.revision), (0, before));
    assert_eq!(ns.revision().await, before);
}

async fn keys_set_after_a_clear_are_created_anew(ns: Namespace) {
    ns.set("k", "1").await;
    ns.set("k", "2").await;
    let cleared = ns.ok(clear()).await.revision;
    let entry = ns.set("k", "3").await;
    assert_eq!((entry.version, entry.create_revision), (1, cleared + 1));
}

async fn cleared_keys_do_not_expire(ns: Namespace) {
    ns.ok(SetRequest { expiry: ttl(50), ..set("k", "1") }).await;
    let cleared = ns.ok(clear()).await;
    if cleared.cleared == 0 {
        return;
    }
    ns.ok(SetRequest { expiry: ttl(100), ..set("probe", "1") }).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            ..watch_after(all(), cleared.revision)
        })
        .await;
    assert_eq!(watcher.events(1).await[0].key, "probe");
}

async fn delete_keeps_name_and_last_revision(ns: Namespace) {
    let last = ns.set("k", "1").await.mod_revision;
    let deleted = ns.ok(delete_namespace()).await;
    assert!(deleted.deleted && deleted.revision >= last);
    let state = ns.state().await;
    assert_eq!((state.revision, state.namespace), (deleted.revision, None));
    assert_eq!(ns.get("k").await, None);
    assert_eq!(ns.ok(history("k")).await.events, []);
    assert_eq!(ns.ok(list(all())).await.lineage, "");
}

async fn delete_of_missing_namespace_succeeds(ns: Namespace) {
    let answer = ns.ok(delete_namespace()).await;
    assert_eq!((answer.deleted, answer.revision), (false, 0));
    ns.set("k", "1").await;
    ns.ok(delete_namespace()).await;
    assert!(!ns.ok(delete_namespace()).await.deleted);
}

async fn revisions_never_go_back_over_deletes(ns: Namespace) {
    let mut last = 0;
    let mut lineages = std::collections::HashSet::new();
    for _ in 0..10 {
        let revision = ns.set("k", "1").await.mod_revision;
        assert!(revision > last);
        assert!(lineages.insert(ns.lineage().await), "a lineage came back");
        last = ns.ok(delete_namespace()).await.revision;
        assert!(last >= revision);
    }
}

async fn list_names(ns: &Namespace, page_size: u32) -> Vec<String> {
    let mut names = Vec::new();
    let mut page_token = Default::default();
    loop {
        let request =
            ListNamespacesRequest { prefix: format!("{}.", ns.name), page_size, page_token };
        let page = ns.ok(request).await;
        assert!(page.time_ms > 0);
        names.extend(page.namespaces.into_iter().map(|namespace| namespace.name));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return names;
        }
    }
}

async fn namespaces_are_listed_in_order_and_pages(ns: Namespace) {
    let mut expected = Vec::new();
    for suffix in ["b", "a", "c/1", "c", "Z", "c.1"] {
        let sibling = ns.sibling(suffix);
        sibling.set("k", "1").await;
        expected.push(sibling.name);
    }
    expected.sort();
    for page_size in [0, 1, 2, 6, 1000] {
        assert_eq!(list_names(&ns, page_size).await, expected);
    }
    let everything = ListNamespacesRequest { page_size: 1000, ..Default::default() };
    let whole = ns.ok(everything).await.namespaces;
    let found = whole.iter().find(|namespace| namespace.name == expected[0]);
    assert_eq!(found.expect("listed").key_count, 1);
}

async fn deleted_namespaces_are_not_listed(ns: Namespace) {
    for suffix in ["a", "b"] {
        ns.sibling(suffix).set("k", "1").await;
    }
    ns.sibling("a").ok(delete_namespace()).await;
    assert_eq!(list_names(&ns, 0).await, [ns.sibling("b").name]);
}

async fn quotas_hold_for_those_who_write_at_once(ns: Namespace) {
    // Pipelines, of which each may come to another server.
    let mut pipes = futures::future::join_all((0..6).map(|_| ns.pipe())).await;
    for round in 1..=20 {
        ns.ok(update(NamespaceSettings { quota_max_keys: Some(round), ..Default::default() }))
            .await;
        let writes = pipes.iter_mut().enumerate().map(|(writer, pipe)| async move {
            match pipe.run(Op::Set(set(&format!("{round}/{writer}"), "v"))).await {
                Outcome::Set(_) => 1,
                Outcome::Status(status) => {
                    Failure::from(status).expect(ErrorReason::QuotaExceeded);
                    0
                }
                other => panic!("{other:?}"),
            }
        });
        let kept: u64 = futures::future::join_all(writes).await.into_iter().sum();
        assert_eq!((kept, ns.ok(count(all())).await.count), (1, round));
    }
}
