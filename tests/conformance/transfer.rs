//! Export and import.

use holdfast_proto::v1::{admin_service_client::AdminServiceClient, *};

use crate::common::{build::*, coordination::*, namespace::Namespace};

crate::cases! {
    an_import_of_an_export_is_equal_in_all_that_can_be_read,
    an_imported_namespace_has_a_new_lineage_and_goes_on_after_both_revisions,
    a_namespace_that_is_not_empty_is_refused,
    a_namespace_with_only_a_lease_or_a_lock_is_not_empty,
    a_namespace_that_was_emptied_is_imported_into,
    replacing_takes_away_all_that_was_there,
    watches_of_a_replaced_namespace_end,
    a_watch_from_before_there_was_a_namespace_does_not_miss_the_import,
    former_revisions_are_not_readable_after_an_import,
    holders_go_on_after_an_import,
    tokens_rise_over_an_import,
    leases_go_on_after_an_import,
    leases_that_end_take_imported_keys_and_locks_along,
    what_has_ended_does_not_travel,
    deadlines_travel,
    request_records_do_not_travel,
    settings_travel,
    a_stream_without_its_end_changes_nothing,
    a_stream_that_breaks_off_changes_nothing,
    changed_content_is_refused,
    parts_out_of_order_are_refused,
    entries_out_of_order_are_refused,
    an_entry_of_a_missing_lease_is_refused,
    unknown_formats_are_refused,
    a_namespace_that_does_not_exist_is_left_out,
    several_namespaces_are_imported_in_one_stream,
    an_empty_namespace_travels,
    messages_stay_under_their_limit,
    an_export_is_of_one_revision_while_others_write,
    an_export_while_leases_and_holds_come_and_go_can_be_imported,
    many_entries_travel,
}

/// A namespace with everything that travels.
async fn furnish(ns: &Namespace) -> (Lock, Lock, u64) {
    let settings = NamespaceSettings { quota_max_keys: Some(1_000), ..Default::default() };
    ns.ok(update(settings)).await;
    let json = SetRequest { content_type: "application/json".into(), ..set("a", r#"{"n":1}"#) };
    ns.ok(json).await;
    ns.set("b", [0xff, 0x00]).await;
    ns.set("b", [0xfe]).await;
    ns.set("empty", "").await;
    ns.ok(SetRequest { expiry: ttl(3_600_000), ..set("ttl", "t") }).await;
    let lease_id = ns.lease(3_600_000).await;
    ns.attach("leased", lease_id).await;
    ns.keep(lease_id).await.expect("it lives");
    let owner = LockOwner { id: "me".into(), who: "ann".into(), ..Default::default() };
    let value = "shown".to_owned().into();
    let request = AcquireRequest { owner: Some(owner), value, ..acquire_for("own", 3_600_000) };
    let lock = ns.hold(request).await;
    ns.ok(update_value(&lock, "shown now")).await;
    let leased = ns.hold(acquire_by("by-lease", lease_id)).await;
    (lock, leased, lease_id)
}

/// All that can be read of a namespace, but for what is its own.
async fn readable(
    ns: &Namespace,
) -> (Vec<Entry>, Vec<Lock>, Vec<Lease>, Option<NamespaceSettings>) {
    let state = ns.state().await.namespace.expect("it exists");
    (
        ns.list_all(list(all())).await.entries,
        ns.ok(list_locks("")).await.locks,
        ns.ok(ListLeasesRequest::default()).await.leases,
        state.settings,
    )
}

async fn an_import_of_an_export_is_equal_in_all_that_can_be_read(ns: Namespace) {
    furnish(&ns).await;
    let exported = ns.export().await;
    let copy = ns.sibling("copy");
    let answer = copy.import(&exported, false).await.expect("it is imported");
    assert_eq!((answer.namespace_count, answer.entry_count), (1, 5));
    assert_eq!((answer.lease_count, answer.lock_count), (1, 2));
    assert_eq!(readable(&copy).await, readable(&ns).await);
    assert_eq!(copy.export().await.content(), exported.content());
    let (there, here) = (copy.state().await.namespace, ns.state().await.namespace);
    let size =
        |it: Option<holdfast_proto::v1::Namespace>| it.map(|it| (it.key_count, it.byte_count));
    assert_eq!(size(there), size(here));
}

async fn an_imported_namespace_has_a_new_lineage_and_goes_on_after_both_revisions(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    assert_eq!(exported.start.revision, ns.revision().await);
    assert_eq!(exported.start.lineage, ns.lineage().await);
    let copy = ns.sibling("copy");
    let answer = copy.import(&exported, false).await.expect("it is imported");
    let imported = &answer.namespaces[0];
    assert!(imported.revision > exported.start.revision, "{imported:?}");
    assert_eq!((imported.revision, &imported.namespace), (copy.revision().await, &copy.name));
    assert_eq!(imported.lineage, copy.lineage().await);
    assert_ne!(imported.lineage, exported.start.lineage);
    // Back into where it came from, which has gone on.
    ns.set("k", "2").await;
    let before = ns.revision().await;
    let answer = ns.import(&exported, true).await.expect("it is imported");
    assert_eq!(answer.namespaces[0].revision, before + 1);
    assert_ne!(ns.lineage().await, exported.start.lineage);
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
    assert_eq!(ns.set("k", "3").await.mod_revision, before + 2);
    assert_eq!(ns.get("k").await.expect("set").version, 2);
}

async fn a_namespace_that_is_not_empty_is_refused(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    let before = ns.state().await;
    let failure = ns.import(&exported, false).await.expect_err("it has a key");
    let failure = failure.expect(ErrorReason::NamespaceNotEmpty);
    assert_eq!(failure.metadata["namespace"], ns.name);
    let after = ns.state().await;
    assert_eq!((after.revision, after.namespace), (before.revision, before.namespace));
}

async fn a_namespace_with_only_a_lease_or_a_lock_is_not_empty(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    let (leased, locked) = (ns.sibling("leased"), ns.sibling("locked"));
    leased.lease(3_600_000).await;
    locked.hold(acquire("l")).await;
    for target in [leased, locked] {
        let failure = target.import(&exported, false).await.expect_err("it has something");
        failure.expect(ErrorReason::NamespaceNotEmpty);
    }
}

async fn a_namespace_that_was_emptied_is_imported_into(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    ns.ok(delete("k")).await;
    let lock = ns.hold(acquire("l")).await;
    ns.ok(release(&lock)).await;
    let lease = ns.lease(60_000).await;
    ns.ok(revoke(lease)).await;
    ns.import(&exported, false).await.expect("nothing is left there");
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
}

async fn replacing_takes_away_all_that_was_there(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    let other = ns.sibling("other");
    furnish(&other).await;
    other.import(&exported, true).await.expect("it is replaced");
    let (entries, locks, leases, settings) = readable(&other).await;
    assert_eq!(entries, ns.list_all(list(all())).await.entries);
    assert_eq!((locks, leases), (Vec::new(), Vec::new()));
    assert_eq!(settings, ns.state().await.namespace.and_then(|it| it.settings));
}

async fn watches_of_a_replaced_namespace_end(ns: Namespace) {
    ns.set("k", "1").await;
    let exported = ns.export().await;
    let mut live = ns.watching(watch(all())).await;
    let before = (ns.revision().await, ns.lineage().await);
    ns.import(&exported, true).await.expect("it is replaced");
    live.end().await.expect(ErrorReason::LineageChanged);
    let request = WatchRequest { lineage: Some(before.1), ..watch_after(all(), before.0) };
    let failure = ns.watch(request).await.err().expect("that history is over");
    failure.expect(ErrorReason::LineageChanged);
    let failure = ns.watch(watch_after(all(), before.0)).await.err().expect("it is not held");
    failure.expect(ErrorReason::Compacted);
}

async fn a_watch_from_before_there_was_a_namespace_does_not_miss_the_import(ns: Namespace) {
    let copy = ns.sibling("copy");
    let mut early = copy.watching(watch(all())).await;
    ns.set("k", "1").await;
    copy.import(&ns.export().await, false).await.expect("it is imported");
    early.end().await.expect(ErrorReason::Compacted);
    let start = copy.watch(watch_after(all(), 0)).await.err().expect("entries came without events");
    start.expect(ErrorReason::Compacted);
}

async fn former_revisions_are_not_readable_after_an_import(ns: Namespace) {
    let first = ns.set("k", "1").await.mod_revision;
    let exported = ns.export().await;
    let answer = ns.import(&exported, true).await.expect("it is imported");
    let revision = answer.namespaces[0].revision;
    let failure = ns.fails(get_at("k", first), ErrorReason::Compacted).await;
    assert_eq!(failure.number("oldest_revision"), revision);
    let now = ns.ok(get_at("k", revision)).await.entry.expect("it is there");
    assert_eq!(now.mod_revision, first);
}

async fn holders_go_on_after_an_import(ns: Namespace) {
    let (lock, leased, lease_id) = furnish(&ns).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    let shown = copy.lock("own").await.expect("it is held");
    assert_eq!((shown.token, shown.value), (lock.token, "shown now".into()));
    assert_eq!(copy.lock("by-lease").await.expect("it is held").lease_id, Some(lease_id));
    let renewed = copy.ok(renew(&lock)).await.lock.expect("answered");
    assert_eq!(renewed.token, lock.token);
    copy.ok(SetRequest { options: guarded([&lock, &leased]), ..set("guarded", "1") }).await;
    copy.taken(acquire("own")).await;
    assert!(copy.ok(release(&lock)).await.released);
    assert!(copy.ok(release(&leased)).await.released);
    let held = copy.ok(get_lease(lease_id)).await.lease.expect("it lives");
    assert_eq!((held.keys, held.locks), (1, 0));
}

async fn tokens_rise_over_an_import(ns: Namespace) {
    let first = ns.hold(acquire("l")).await;
    let exported = ns.export().await;
    ns.ok(release(&first)).await;
    let second = ns.hold(acquire("l")).await;
    ns.import(&exported, true).await.expect("it is replaced");
    // The hold of the export is back; the one after it is lost.
    ns.fails(renew(&second), ErrorReason::LockLost).await;
    assert!(ns.ok(release(&first)).await.released);
    let third = ns.hold(acquire("l")).await;
    assert!(third.token > second.token, "{} after {}", third.token, second.token);
}

async fn leases_go_on_after_an_import(ns: Namespace) {
    let (.., lease_id) = furnish(&ns).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    let lease = copy.ok(get_lease(lease_id)).await;
    assert_eq!((lease.keys, lease.locks), (vec!["leased".into()], vec!["by-lease".into()]));
    copy.keep(lease_id).await.expect("it lives");
    copy.attach("also", lease_id).await;
    let lease = copy.ok(get_lease(lease_id)).await.lease.expect("it lives");
    assert_eq!((lease.keys, lease.locks), (2, 1));
}

async fn leases_that_end_take_imported_keys_and_locks_along(ns: Namespace) {
    let (.., lease_id) = furnish(&ns).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    let answer = copy.ok(revoke(lease_id)).await;
    assert_eq!((answer.keys, answer.locks), (1, 1));
    assert_eq!(copy.get("leased").await, None);
    assert_eq!(copy.lock("by-lease").await, None);
}

async fn what_has_ended_does_not_travel(ns: Namespace) {
    ns.set("stays", "1").await;
    ns.ok(SetRequest { expiry: ttl(1), ..set("short", "1") }).await;
    let lease_id = ns.lease(2_000).await;
    ns.attach("leased", lease_id).await;
    let lock = ns.hold(acquire_by("l", lease_id)).await;
    ns.until(lock.expires_at_ms).await;
    let exported = ns.export().await;
    let keys: Vec<_> = exported.entries().into_iter().map(|entry| entry.key).collect();
    assert_eq!(keys, ["stays"]);
    assert_eq!((exported.leases(), exported.locks()), (Vec::new(), Vec::new()));
}

async fn deadlines_travel(ns: Namespace) {
    let entry = ns.ok(SetRequest { expiry: ttl(3_000), ..set("short", "1") }).await.entry;
    let ends_ms = entry.and_then(|entry| entry.expires_at_ms).expect("it ends");
    let exported = ns.export().await;
    let copy = ns.sibling("copy");
    let answer = copy.import(&exported, false).await.expect("it is imported");
    let revision = answer.namespaces[0].revision;
    let mut watcher = copy.watching(watch_after(all(), revision)).await;
    let ended = watcher.events(1).await.remove(0);
    assert_eq!((ended.r#type(), ended.key.as_str()), (EventType::Expire, "short"));
    assert!(ended.time_ms >= ends_ms);
}

async fn request_records_do_not_travel(ns: Namespace) {
    let client_id = unique(8);
    let request = SetRequest { options: numbered(&client_id, 1), ..set("k", "1") };
    let first = ns.ok(request.clone()).await.revision;
    assert_eq!(ns.ok(request.clone()).await.revision, first);
    ns.import(&ns.export().await, true).await.expect("it is replaced");
    assert!(ns.ok(request).await.revision > first, "it is run anew");
}

async fn settings_travel(ns: Namespace) {
    let settings = NamespaceSettings { quota_max_keys: Some(1), ..Default::default() };
    ns.ok(update(settings)).await;
    ns.set("k", "1").await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    copy.fails(set("l", "1"), ErrorReason::QuotaExceeded).await;
}

async fn a_stream_without_its_end_changes_nothing(ns: Namespace) {
    furnish(&ns).await;
    let exported = ns.export().await;
    let before = (ns.state().await.namespace, readable(&ns).await);
    let mut parts = exported.parts(&ns);
    parts.pop();
    let failure = ns.import_parts(parts, true).await.expect_err("it has no end");
    failure.expect(ErrorReason::InvalidField);
    assert_eq!((ns.state().await.namespace, readable(&ns).await), before);
}

async fn a_stream_that_breaks_off_changes_nothing(ns: Namespace) {
    ns.set("k", "1").await;
    let parts = ns.export().await.parts(&ns.sibling("copy"));
    let before = ns.state().await.namespace;
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = AdminServiceClient::new(ns.reconnected().channel);
    let requests = futures::stream::unfold(receiver, async |mut receiver| {
        Some((receiver.recv().await?, receiver))
    });
    let call = tokio::spawn(async move { client.import(requests).await });
    for part in &parts[..parts.len() - 1] {
        let request = ImportRequest { part: Some(part.clone()), replace: true };
        sender.send(request).await.expect("it is taken");
    }
    call.abort();
    drop(call.await);
    drop(sender);
    assert_eq!(ns.sibling("copy").state().await.namespace, None);
    assert_eq!(ns.state().await.namespace, before);
}

async fn changed_content_is_refused(ns: Namespace) {
    furnish(&ns).await;
    let exported = ns.export().await;
    let copy = ns.sibling("copy");
    let changes: [fn(&mut TransferItems); 5] = [
        |items| items.entries.iter_mut().for_each(|it| it.value = Some("x".into())),
        |items| items.entries.iter_mut().for_each(|it| it.created_at_ms += 1),
        |items| items.entries.truncate(1),
        |items| items.locks.iter_mut().for_each(|it| it.value = "x".into()),
        |items| items.leases.iter_mut().for_each(|it| it.ttl_ms += 1),
    ];
    for change in changes {
        let mut changed = exported.clone();
        changed.items.iter_mut().for_each(change);
        let failure = copy.import(&changed, false).await.expect_err("its checksum is wrong");
        failure.expect(ErrorReason::InvalidField);
    }
    assert_eq!(copy.state().await.namespace, None);
}

async fn parts_out_of_order_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    ns.hold(acquire_for("l", 3_600_000)).await;
    let copy = ns.sibling("copy");
    let parts = ns.export().await.parts(&copy);
    let (start, end) = (parts[0].clone(), parts[parts.len() - 1].clone());
    let items = &parts[1..parts.len() - 1];
    let mut backwards = vec![start.clone()];
    backwards.extend(items.iter().rev().cloned());
    let wrong = [
        vec![end.clone()],
        items.to_vec(),
        vec![start.clone(), start.clone()],
        vec![start, TransferPart::default()],
        backwards,
    ];
    for parts in wrong {
        let failure = copy.import_parts(parts, false).await.expect_err("out of order");
        failure.expect(ErrorReason::InvalidField);
    }
    assert_eq!(copy.state().await.namespace, None);
}

async fn entries_out_of_order_are_refused(ns: Namespace) {
    ns.set("a", "1").await;
    ns.set("b", "1").await;
    let mut exported = ns.export().await;
    exported.items.iter_mut().for_each(|items| items.entries.reverse());
    let failure = ns.sibling("copy").import(&exported, false).await.expect_err("out of order");
    failure.expect(ErrorReason::InvalidKey);
}

async fn an_entry_of_a_missing_lease_is_refused(ns: Namespace) {
    let lease_id = ns.lease(3_600_000).await;
    ns.attach("k", lease_id).await;
    let mut exported = ns.export().await;
    exported.items.iter_mut().for_each(|items| items.leases.clear());
    let failure = ns.sibling("copy").import(&exported, false).await.expect_err("no such lease");
    assert_eq!(failure.expect(ErrorReason::LeaseNotFound).number("lease_id"), lease_id);
}

async fn unknown_formats_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    let mut exported = ns.export().await;
    exported.start.format = 2;
    let failure = ns.sibling("copy").import(&exported, false).await.expect_err("unknown");
    assert_eq!(failure.expect(ErrorReason::InvalidField).fields, ["start.format"]);
}

async fn a_namespace_that_does_not_exist_is_left_out(ns: Namespace) {
    assert!(ns.export_parts().await.is_empty());
    assert_eq!(ns.state().await.namespace, None);
}

async fn several_namespaces_are_imported_in_one_stream(ns: Namespace) {
    let other = ns.sibling("other");
    ns.set("k", "1").await;
    other.set("k", "2").await;
    let (first, second) = (ns.sibling("first"), ns.sibling("second"));
    let mut parts = ns.export().await.parts(&first);
    parts.extend(other.export().await.parts(&second));
    let answer = ns.import_parts(parts, false).await.expect("both are imported");
    let names: Vec<_> = answer.namespaces.into_iter().map(|it| it.namespace).collect();
    assert_eq!(names, [first.name.clone(), second.name.clone()]);
    assert_eq!(first.value("k").await.as_deref(), Some("1"));
    assert_eq!(second.value("k").await.as_deref(), Some("2"));
}

async fn an_empty_namespace_travels(ns: Namespace) {
    ns.set("k", "1").await;
    ns.ok(delete("k")).await;
    let copy = ns.sibling("copy");
    copy.import(&ns.export().await, false).await.expect("it is imported");
    assert_eq!(copy.state().await.namespace.expect("it exists").key_count, 0);
    copy.set("k", "1").await;
}

async fn messages_stay_under_their_limit(ns: Namespace) {
    let value = vec![7; 300_000];
    for index in 0..20 {
        ns.set(&format!("k{index:02}"), &value).await;
    }
    let exported = ns.export().await;
    for items in &exported.items {
        assert!(prost::Message::encoded_len(items) < 4 << 20);
    }
    assert_eq!(exported.entries().len(), 20);
}

async fn an_export_is_of_one_revision_while_others_write(ns: Namespace) {
    // Two keys that are always equal, in different pages of the export.
    let equal = |value: &str| transact([op::set("a", value), op::set("z", value)]);
    for page in 0..5 {
        let items = (0..1_000).map(|index| item(&format!("m{page}{index:03}"), "1"));
        ns.ok(batch_set(items)).await;
    }
    ns.ok(equal("0")).await;
    let writer = tokio::spawn({
        let ns = ns.clone();
        async move {
            for round in 1..500 {
                ns.ok(equal(&round.to_string())).await;
            }
        }
    });
    for _ in 0..5 {
        let entries = ns.export().await.entries();
        let ends = (entries.first().expect("some"), entries.last().expect("some"));
        assert_eq!((ends.0.key.as_str(), ends.1.key.as_str()), ("a", "z"));
        assert_eq!((&ends.0.value, ends.0.mod_revision), (&ends.1.value, ends.1.mod_revision));
    }
    writer.await.expect("it writes");
}

async fn an_export_while_leases_and_holds_come_and_go_can_be_imported(ns: Namespace) {
    for page in 0..5 {
        let items = (0..1_000).map(|index| item(&format!("m{page}{index:03}"), "1"));
        ns.ok(batch_set(items)).await;
    }
    let stop = tokio::sync::watch::Sender::new(false);
    let writers = (0..4).map(|writer| {
        let (ns, stop) = (ns.clone(), stop.subscribe());
        tokio::spawn(async move {
            let key = format!("z{writer}");
            while !*stop.borrow() {
                let lease_id = ns.lease(5 + writer).await;
                // Any of these may come too late for the lease.
                let request = SetRequest { expiry: with_lease(lease_id), ..set(&key, "leased") };
                drop(ns.call(request).await);
                drop(ns.keep(lease_id).await);
                drop(ns.call(acquire_by(&key, lease_id)).await);
                ns.set("other", "1").await;
                drop(ns.keep(lease_id).await);
                let lock = ns.hold(acquire_for(&format!("own-{key}"), 60_000)).await;
                ns.ok(renew(&lock)).await;
                ns.set("other", "2").await;
                ns.ok(renew(&lock)).await;
                ns.ok(release(&lock)).await;
                drop(ns.call(revoke(lease_id)).await);
            }
        })
    });
    let writers: Vec<_> = writers.collect();
    for round in 0..10 {
        let copy = ns.sibling(&round.to_string());
        copy.import(&ns.export().await, false).await.expect("it is whole");
    }
    stop.send_replace(true);
    for writer in writers {
        writer.await.expect("it writes");
    }
}

async fn many_entries_travel(ns: Namespace) {
    for batch in 0..200 {
        let items = (0..1_000).map(|index| item(&format!("{batch:03}/{index:03}"), "x"));
        ns.ok(batch_set(items)).await;
    }
    let exported = ns.export().await;
    assert_eq!(exported.end.entry_count, 200_000);
    let copy = ns.sibling("copy");
    let answer = copy.import(&exported, false).await.expect("it is imported");
    assert_eq!(answer.entry_count, 200_000);
    assert_eq!(copy.ok(count(all())).await.count, 200_000);
    assert_eq!(copy.export().await.end, exported.end);
}
