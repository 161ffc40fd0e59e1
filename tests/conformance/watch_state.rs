//! Watches: initial states, large revisions, progress.

use holdfast_proto::v1::{pipeline_call::Operation as Op, watch_response::Body, *};
use prost::Message;

use super::watch::brief;
use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    initial_state_then_changes,
    initial_state_of_nothing_still_ends,
    initial_state_over_4_mib_is_several_messages,
    initial_state_leaves_out_due_entries,
    initial_state_and_changes_join_while_writers_write,
    revisions_with_many_keys_are_complete_together,
    revisions_over_4_mib_are_split_and_complete_at_the_end,
    progress_comes_without_events,
    progress_rises_with_changes_that_do_not_match,
}

async fn initial_state_then_changes(ns: Namespace) {
    for name in ["c", "a", "b"] {
        ns.set(name, name).await;
    }
    let listed = ns.ok(list(all())).await;
    let mut watcher = ns.watching(watch_initial(all())).await;
    let (entries, revision) = watcher.initial().await;
    assert_eq!((&entries, revision), (&listed.entries, listed.revision));
    assert_eq!(watcher.complete_through, revision, "now there is something to resume from");
    ns.set("a", "2").await;
    let last = ns.ok(delete("b")).await.revision;
    let events = watcher.events_through(last).await;
    assert_eq!(brief(&events), [(EventType::Set, "a"), (EventType::Delete, "b")]);
}

async fn initial_state_of_nothing_still_ends(ns: Namespace) {
    ns.set("k", "1").await;
    let mut watcher = ns.watching(watch_initial(prefix("none"))).await;
    assert_eq!(watcher.initial().await.0, []);
    let mut watcher = ns.sibling("missing").watching(watch_initial(all())).await;
    assert_eq!(watcher.initial().await, (vec![], 0));
}

async fn initial_state_over_4_mib_is_several_messages(ns: Namespace) {
    for number in 0..9 {
        ns.set(&format!("k{number}"), vec![b'x'; 1 << 20]).await;
    }
    let mut watcher = ns.watching(watch_initial(all())).await;
    let mut messages = 0;
    let mut entries = 0;
    loop {
        let message = watcher.next().await.expect("the watch lives");
        assert!(message.encoded_len() <= 4 << 20);
        messages += 1;
        let Some(Body::Initial(initial)) = message.body else { panic!("{message:?}") };
        entries += initial.entries.len();
        if initial.end {
            break;
        }
    }
    assert!(messages >= 3);
    assert_eq!(entries, 9);
}

async fn initial_state_leaves_out_due_entries(ns: Namespace) {
    ns.set("stays", "1").await;
    for round in 0..20 {
        let name = format!("k{round}");
        let answer = ns.ok(SetRequest { expiry: ttl(10), ..set(&name, "1") }).await;
        while ns.ok(exists("none")).await.time_ms < answer.time_ms + 10 {}
        let (entries, _) = ns.watching(watch_initial(all())).await.initial().await;
        let keys: Vec<_> = entries.iter().map(|entry| entry.key.as_str()).collect();
        assert_eq!(keys, ["stays"]);
    }
}

/// An initial state and the changes after it add up to what is there in the end: none lost between.
async fn initial_state_and_changes_join_while_writers_write(ns: Namespace) {
    let writer = async {
        let mut pipe = ns.pipe().await;
        for round in 0..300_u32 {
            let name = format!("k{:02}", round * 7 % 40);
            let operation = match round % 3 {
                0 => Op::Delete(delete(&name)),
                _ => Op::Set(set(&name, round.to_string())),
            };
            pipe.run(operation).await;
        }
    };
    let joiner = async {
        let mut watchers = Vec::new();
        for _ in 0..20 {
            let mut watcher = ns.watching(watch_initial(all())).await;
            let state = watcher.initial().await;
            watchers.push((watcher, state));
        }
        watchers
    };
    let ((), watchers) = futures::join!(writer, joiner);
    let expected = ns.ok(list(all())).await;
    for (mut watcher, (entries, revision)) in watchers {
        let mut state: std::collections::BTreeMap<String, Entry> =
            entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
        for event in watcher.events_through(expected.revision).await {
            assert!(event.revision > revision);
            match event.entry {
                Some(entry) => drop(state.insert(event.key, entry)),
                None => assert!(state.remove(&event.key).is_some(), "removed twice"),
            }
        }
        assert_eq!(state.into_values().collect::<Vec<_>>(), expected.entries);
    }
}

async fn revisions_with_many_keys_are_complete_together(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let mut watcher = ns.watching(watch(all())).await;
    for round in 0..20 {
        let items = (0..500).map(|number| item(&format!("{number}"), round.to_string()));
        ns.ok(batch_set(items)).await;
    }
    let mut per_revision = std::collections::BTreeMap::<u64, usize>::new();
    while watcher.complete_through < base + 20 {
        let message = watcher.next().await.expect("the watch lives");
        if let Some(Body::Events(events)) = message.body {
            for event in events.events {
                *per_revision.entry(event.revision).or_default() += 1;
            }
        }
        for (revision, events) in &per_revision {
            if *revision <= watcher.complete_through {
                assert_eq!(*events, 500, "revision {revision} is said to be complete");
            }
        }
    }
    assert_eq!(per_revision.len(), 20);
}

async fn revisions_over_4_mib_are_split_and_complete_at_the_end(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let mut watcher = ns.watching(watch(all())).await;
    // One revision of 10 MiB, made from small requests: the keys are there, one transaction rewrites them.
    let value = vec![b'x'; 1 << 20];
    let names: Vec<String> = (0..10).map(|number| format!("k{number}")).collect();
    let info = ns.ok(GetServerInfoRequest {}).await;
    let fits = info.limits.expect("has limits").max_request_bytes > 11 << 20;
    let names = if fits { names } else { names[..3].to_vec() };
    let last = ns.ok(batch_set(names.iter().map(|name| item(name, &value)))).await.revision;
    assert_eq!(last, base + 1);
    let mut seen = 0;
    while watcher.complete_through < last {
        let message = watcher.next().await.expect("the watch lives");
        assert!(message.encoded_len() <= 4 << 20);
        if let Some(Body::Events(events)) = message.body {
            seen += events.events.len();
            assert_eq!(message.complete_through == last, seen == names.len());
        }
    }
    assert_eq!(seen, names.len());
    // Resuming inside is not possible: from before it the whole comes again.
    let mut again = ns.watching(watch_after(all(), base)).await;
    assert_eq!(again.events_through(last).await.len(), names.len());
}

async fn progress_comes_without_events(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let mut watcher = ns.watching(watch(all())).await;
    for _ in 0..3 {
        let message = watcher.next().await.expect("the watch lives");
        assert!(matches!(message.body, Some(Body::Progress(_))), "{message:?}");
        assert_eq!((message.revision, message.complete_through), (revision, revision));
        assert!(message.time_ms > 0);
    }
}

async fn progress_rises_with_changes_that_do_not_match(ns: Namespace) {
    let mut watcher = ns.watching(watch(prefix("mine/"))).await;
    for round in 0..100 {
        ns.set("other", round.to_string()).await;
    }
    let last = ns.revision().await;
    assert_eq!(watcher.events_through(last).await, []);
    let mine = ns.set("mine/1", "1").await.mod_revision;
    let events = watcher.events_through(mine).await;
    assert_eq!(brief(&events), [(EventType::Set, "mine/1")]);
}
