//! Where watches start: cursors, lineages, compaction, namespaces that come and go.

use holdfast_proto::v1::{pipeline_call::Operation as Op, *};

use crate::common::{build::*, namespace::Namespace, watcher::Watcher};

crate::cases! {
    resuming_at_each_revision_gives_exactly_the_rest,
    resuming_while_writers_write_loses_and_repeats_nothing,
    a_change_between_read_and_watch_is_not_missed,
    after_revision_zero_is_the_beginning,
    after_revision_zero_of_a_deleted_namespace_is_its_next_beginning,
    future_revision_is_refused,
    compacted_revision_is_refused,
    or_initial_resets_a_compacted_cursor,
    or_initial_resets_a_cursor_from_the_future,
    or_initial_leaves_a_good_cursor_alone,
    another_lineage_is_refused,
    or_initial_resets_a_cursor_of_another_lineage,
    the_right_lineage_is_accepted,
    deleting_the_namespace_ends_its_watches,
    a_namespace_made_anew_goes_on_counting_under_another_lineage,
    watch_before_the_namespace_exists,
    watch_before_the_namespace_exists_creates_nothing,
    a_live_watch_survives_compaction,
    a_clear_is_seen_by_those_who_resume_before_and_after_it,
}

async fn resuming_at_each_revision_gives_exactly_the_rest(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    for round in 0..20_u32 {
        match round % 4 {
            0 => drop(ns.ok(batch_set([item("a", "1"), item("b", "1"), item("c", "1")])).await),
            1 => drop(ns.ok(delete("a")).await),
            2 => drop(ns.ok(set_ttl("b", ttl(3_600_000))).await),
            _ => drop(ns.set("a", round.to_string()).await),
        }
    }
    let last = ns.revision().await;
    let whole = ns.events_after(base).await;
    for after_revision in base..=last {
        let rest = ns.events_after(after_revision).await;
        let expected: Vec<_> =
            whole.iter().filter(|event| event.revision > after_revision).collect();
        assert_eq!(rest.iter().collect::<Vec<_>>(), expected);
    }
}

/// A watcher that loses its stream all the time, and resumes as the documentation says.
async fn resuming_while_writers_write_loses_and_repeats_nothing(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let last = base + 200;
    let writer = async {
        let mut pipe = ns.pipe().await;
        for round in 0..200_u32 {
            let names: Vec<String> =
                (0..5).map(|number| format!("k{}", (round + number) % 9)).collect();
            let items = names.iter().map(|name| item(name, round.to_string()));
            pipe.run(Op::BatchSet(batch_set(items))).await;
        }
    };
    let reader = async {
        let lineage = ns.lineage().await;
        let mut found: Vec<Event> = Vec::new();
        let mut cursor = base;
        while cursor < last {
            let mut watcher = ns
                .watching(WatchRequest {
                    lineage: Some(lineage.clone()),
                    ..watch_after(all(), cursor)
                })
                .await;
            found.extend(watcher.events_through(cursor + 1).await);
            cursor = watcher.complete_through;
            found.retain(|event| event.revision <= cursor);
        }
        found
    };
    let ((), found) = futures::join!(writer, reader);
    assert_eq!(found.len(), 1000);
    let mut expected = ns.watching(watch_after(all(), base)).await;
    assert_eq!(found, expected.events_through(last).await);
}

async fn a_change_between_read_and_watch_is_not_missed(ns: Namespace) {
    for round in 0..20 {
        let listed = ns.ok(list(all())).await;
        ns.set("k", round.to_string()).await;
        let mut watcher = ns.watching(watch_after(all(), listed.revision)).await;
        let events = watcher.events(1).await;
        assert_eq!(
            events[0].entry.as_ref().and_then(|entry| entry.value.clone()),
            Some(round.to_string().into())
        );
    }
}

async fn after_revision_zero_is_the_beginning(ns: Namespace) {
    let first = ns.set("k", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), 0)).await;
    let events = watcher.events_through(first).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].revision, first);
}

async fn after_revision_zero_of_a_deleted_namespace_is_its_next_beginning(ns: Namespace) {
    ns.set("k", "1").await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    let mut watcher = ns.watching(watch_after(all(), 0)).await;
    watcher.next().await.expect("progress");
    let next = ns.set("k", "2").await.mod_revision;
    let events = watcher.events_through(next).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].revision, next);
    assert_eq!(watcher.new_lineage, Some(ns.lineage().await));
}

async fn future_revision_is_refused(ns: Namespace) {
    let newest = ns.set("k", "1").await.mod_revision;
    let failure = ns.watch(watch_after(all(), newest + 1)).await.err();
    let failure = failure.expect("refused").expect(ErrorReason::FutureRevision);
    assert_eq!(failure.number("newest_revision"), newest);
    ns.watching(watch_after(all(), newest)).await;
}

/// Writes ten revisions and compacts half of them: first, compacted, last.
async fn half_compacted(ns: &Namespace) -> (u64, u64, u64) {
    let first = ns.set("k", "0").await.mod_revision;
    for value in 1..10 {
        ns.set("k", value.to_string()).await;
    }
    ns.ok(compact(first + 5)).await;
    (first, first + 5, first + 9)
}

async fn compacted_revision_is_refused(ns: Namespace) {
    let (first, compacted, last) = half_compacted(&ns).await;
    for old in [0, first, compacted - 1] {
        let failure = ns.watch(watch_after(all(), old)).await.err();
        let failure = failure.expect("refused").expect(ErrorReason::Compacted);
        assert_eq!(failure.number("oldest_revision"), compacted);
    }
    let mut watcher = ns.watching(watch_after(all(), compacted)).await;
    assert_eq!(watcher.created.compacted_revision, compacted);
    assert_eq!(watcher.events_through(last).await.len(), 4);
}

fn or_initial(revision: u64) -> WatchRequest {
    WatchRequest { start: after(revision, true), ..watch(all()) }
}

/// Checks that a watch begins anew with this state.
async fn is_reset(mut watcher: Watcher, ns: &Namespace) {
    assert!(watcher.created.reset);
    let (entries, revision) = watcher.initial().await;
    let listed = ns.ok(list(all())).await;
    assert_eq!((entries, revision), (listed.entries, listed.revision));
    let next = ns.set("next", "1").await.mod_revision;
    assert_eq!(watcher.events_through(next).await.len(), 1);
}

async fn or_initial_resets_a_compacted_cursor(ns: Namespace) {
    let (first, ..) = half_compacted(&ns).await;
    is_reset(ns.watching(or_initial(first)).await, &ns).await;
}

async fn or_initial_resets_a_cursor_from_the_future(ns: Namespace) {
    let newest = ns.set("k", "1").await.mod_revision;
    is_reset(ns.watching(or_initial(newest + 1)).await, &ns).await;
}

async fn or_initial_leaves_a_good_cursor_alone(ns: Namespace) {
    let (_, compacted, last) = half_compacted(&ns).await;
    let mut watcher = ns.watching(or_initial(compacted)).await;
    assert!(!watcher.created.reset);
    assert_eq!(watcher.events_through(last).await.len(), 4);
}

async fn another_lineage_is_refused(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let lineage = ns.lineage().await;
    for wrong in ["", "00000000-0000-0000-0000-000000000000"] {
        let request = WatchRequest { lineage: Some(wrong.into()), ..watch_after(all(), revision) };
        let failure = ns.watch(request).await.err().expect("refused");
        let failure = failure.expect(ErrorReason::LineageChanged);
        assert_eq!(failure.metadata.get("lineage"), Some(&lineage));
        assert!(failure.number("valid_through") <= revision);
    }
}

async fn or_initial_resets_a_cursor_of_another_lineage(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let old = ns.lineage().await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    ns.set("k", "2").await;
    let request = WatchRequest { lineage: Some(old), ..or_initial(revision) };
    is_reset(ns.watching(request).await, &ns).await;
}

async fn the_right_lineage_is_accepted(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let request =
        WatchRequest { lineage: Some(ns.lineage().await), ..watch_after(all(), revision) };
    assert!(!ns.watching(request).await.created.reset);
}

async fn deleting_the_namespace_ends_its_watches(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let mut watchers = vec![
        ns.watching(watch(all())).await,
        ns.watching(watch(prefix("elsewhere"))).await,
        ns.watching(watch_after(key("k"), revision)).await,
    ];
    let mut initial = ns.watching(watch_initial(all())).await;
    initial.initial().await;
    watchers.push(initial);
    assert!(ns.ok(DeleteNamespaceRequest::default()).await.deleted);
    for watcher in &mut watchers {
        watcher.end().await.expect(ErrorReason::LineageChanged);
    }
}

async fn a_namespace_made_anew_goes_on_counting_under_another_lineage(ns: Namespace) {
    let old = ns.set("k", "1").await.mod_revision;
    let lineage = ns.lineage().await;
    ns.ok(DeleteNamespaceRequest::default()).await;
    let new = ns.set("k", "2").await;
    assert!(new.mod_revision > old);
    assert_eq!((new.version, new.create_revision), (1, new.mod_revision));
    assert_ne!(ns.lineage().await, lineage);
    let request = WatchRequest { lineage: Some(lineage), ..watch_after(all(), old) };
    let failure = ns.watch(request).await.err().expect("refused");
    failure.expect(ErrorReason::LineageChanged);
}

async fn watch_before_the_namespace_exists(ns: Namespace) {
    for (number, start) in
        [None, after(0, false), watch_initial(all()).start].into_iter().enumerate()
    {
        let ns = ns.sibling(&number.to_string());
        let request = WatchRequest { start, ..watch(all()) };
        let initial = number == 2;
        let mut watcher = ns.watching(request).await;
        assert_eq!((watcher.created.lineage.as_str(), watcher.created.revision), ("", 0));
        if initial {
            assert_eq!(watcher.initial().await, (vec![], 0));
        }
        let first = ns.set("k", "1").await.mod_revision;
        let events = watcher.events_through(first).await;
        assert_eq!(events.len(), 1);
        assert_eq!(events[0].revision, first);
        assert_eq!(watcher.new_lineage, Some(ns.lineage().await));
    }
}

async fn watch_before_the_namespace_exists_creates_nothing(ns: Namespace) {
    let mut watcher = ns.watching(watch(all())).await;
    watcher.next().await.expect("progress comes");
    assert_eq!(ns.state().await.namespace, None);
}

async fn a_live_watch_survives_compaction(ns: Namespace) {
    let mut watcher = ns.watching(watch(all())).await;
    for round in 0..50 {
        let revision = ns.set("k", round.to_string()).await.mod_revision;
        assert_eq!(watcher.events_through(revision).await.len(), 1);
        ns.ok(compact(revision)).await;
    }
}

async fn a_clear_is_seen_by_those_who_resume_before_and_after_it(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let cleared = ns.ok(ClearNamespaceRequest::default()).await.revision;
    let last = ns.set("k", "2").await.mod_revision;
    assert_eq!(ns.events_after(cleared).await.len(), 1);
    match ns.watch(watch_after(all(), before)).await {
        Ok(mut watcher) => {
            let events = watcher.events_through(last).await;
            let types: Vec<_> = events.iter().map(Event::r#type).collect();
            assert_eq!(types, [EventType::Clear, EventType::Set]);
        }
        Err(failure) => drop(failure.expect(ErrorReason::Compacted)),
    }
}
