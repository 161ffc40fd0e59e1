//! Expiry against refreshes, against other writers, and in masses.

use std::collections::{BTreeMap, HashMap, HashSet};

use futures::future::join_all;
use holdfast_proto::v1::{pipeline_call::Operation as Op, *};

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    a_refresh_that_succeeds_prevents_the_expiry,
    creators_waiting_for_a_deadline_win_once,
    thousands_due_at_once_go_in_bounded_batches,
    mass_expiry_holds_up_no_writer,
    a_delete_of_many_succeeds_while_they_fall_due,
    expiry_beside_many_long_lived_keys,
}

fn leaving(key: &str, ttl_ms: u64) -> SetRequest {
    SetRequest { expiry: ttl(ttl_ms), ..set(key, "1") }
}

/// Refreshes keys until each has died; then every life must have ended by its last deadline, once.
async fn a_refresh_that_succeeds_prevents_the_expiry(ns: Namespace) {
    let base = ns.set("other", "1").await.mod_revision;
    let refreshers = join_all((0..32_u64).map(|number| {
        let ns = ns.clone();
        async move {
            let name = format!("k{number}");
            let mut until = ns.ok(leaving(&name, 20)).await.time_ms + 20;
            // The refresh comes about when the deadline does, now before and now after it.
            for round in 0..20 {
                let early = i64::try_from((number + round) % 4).expect("small");
                while ns.ok(exists("other")).await.time_ms < until - early {}
                let refreshed = ns.ok(set_ttl(&name, ttl(20))).await;
                assert_eq!(
                    refreshed.found,
                    refreshed.time_ms < until,
                    "{refreshed:?}, due {until}"
                );
                if !refreshed.found {
                    return;
                }
                until = refreshed.time_ms + 20;
            }
        }
    }));
    refreshers.await;
    let mut watcher =
        ns.watching(WatchRequest { with_previous: true, ..watch_after(all(), base) }).await;
    let mut due: HashMap<String, Option<i64>> = HashMap::new();
    let mut expired = 0;
    while expired < 32 {
        for event in watcher.events(1).await {
            if event.r#type() == EventType::Expire {
                let until = due.remove(&event.key).flatten().expect("it had a deadline");
                assert!(event.time_ms >= until, "early: {event:?}");
                expired += 1;
            } else {
                let ends = event.entry.and_then(|entry| entry.expires_at_ms);
                due.insert(event.key, ends);
            }
        }
    }
    assert!(due.is_empty());
}

/// 16 callers try to create a key that is there until its deadline: the first after it succeeds.
async fn creators_waiting_for_a_deadline_win_once(ns: Namespace) {
    let first = ns.ok(leaving("k", 50)).await;
    let due = first.time_ms + 50;
    let winners = join_all((0..16).map(|number| {
        let ns = ns.clone();
        async move {
            loop {
                let creating = SetRequest { condition: absent(), ..set("k", number.to_string()) };
                match ns.call(creating).await {
                    Ok(answer) => {
                        assert!(answer.time_ms >= due, "early: {answer:?}");
                        return true;
                    }
                    Err(failure) => {
                        let detail = failure.expect(ErrorReason::ConditionNotMet).condition;
                        let found = detail.and_then(|detail| detail.current).expect("it exists");
                        if found.expires_at_ms.is_none() {
                            return false;
                        }
                    }
                }
            }
        }
    }));
    let won = winners.await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    let events = ns.events_after(first.revision).await;
    let types: Vec<_> = events.iter().map(Event::r#type).collect();
    assert_eq!(types, [EventType::Expire, EventType::Set]);
}

/// Sets this many keys that all end at one moment, well after the last is set; the moment.
async fn set_due_together(ns: &Namespace, keys: u32, in_ms: i64) -> i64 {
    let due = ns.ok(get("none")).await.time_ms + in_ms;
    let mut pipe = ns.pipe().await;
    let mut sent = 0;
    for chunk in 0..keys.div_ceil(1000) {
        let items =
            (chunk * 1000..keys.min((chunk + 1) * 1000)).map(|number| batch_set_request::Item {
                expiry: expires_at(due),
                ..item(&format!("due/{number:06}"), "1")
            });
        pipe.send([Op::BatchSet(batch_set(items))]);
        sent += 1;
    }
    pipe.answers(sent).await;
    due
}

async fn thousands_due_at_once_go_in_bounded_batches(ns: Namespace) {
    const KEYS: u32 = 25_000;
    let base = ns.set("other", "1").await.mod_revision;
    let due = set_due_together(&ns, KEYS, 2_000).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            keys_only: true,
            ..watch_after(all(), base)
        })
        .await;
    let events = watcher.events(KEYS as usize).await;
    let mut keys = HashSet::new();
    let mut revisions: BTreeMap<u64, usize> = BTreeMap::new();
    for event in events {
        assert!(event.time_ms >= due, "early: {event:?}");
        *revisions.entry(event.revision).or_default() += 1;
        assert!(keys.insert(event.key), "twice");
    }
    assert_eq!(keys.len(), KEYS as usize);
    assert!(revisions.len() > 1, "one revision for all");
    assert!(revisions.values().all(|keys| *keys <= 10_000), "{revisions:?}");
    assert_eq!(ns.keys(all()).await, ["other"]);
}

/// While thousands go, reads see none of them and writes find their turn between the batches.
async fn mass_expiry_holds_up_no_writer(ns: Namespace) {
    let base = ns.set("other", "1").await.mod_revision;
    let due = set_due_together(&ns, 25_000, 1_500).await;
    while ns.ok(get("none")).await.time_ms < due {}
    for round in 0..20_u32 {
        assert_eq!(ns.ok(count(prefix("due/"))).await.count, 0);
        ns.set("other", round.to_string()).await;
    }
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            keys_only: true,
            ..watch_after(all(), base)
        })
        .await;
    assert_eq!(watcher.events(25_000).await.len(), 25_000);
}

/// One key falls due every millisecond: more often than a delete of all of them can be judged.
async fn a_delete_of_many_succeeds_while_they_fall_due(ns: Namespace) {
    const KEYS: i64 = 10_000;
    let base = ns.set("other", "1").await;
    let first_due = base.updated_at_ms + 1_500;
    let mut pipe = ns.pipe().await;
    for chunk in 0..KEYS / 1000 {
        let items = (chunk * 1000..(chunk + 1) * 1000).map(|number| batch_set_request::Item {
            expiry: expires_at(first_due + number),
            ..item(&format!("due/{number:06}"), "1")
        });
        pipe.send([Op::BatchSet(batch_set(items))]);
    }
    pipe.answers(KEYS as usize / 1000).await;
    while ns.ok(get("none")).await.time_ms < first_due {}
    let mut deleted = 0;
    loop {
        let answer = ns.ok(delete_range(prefix("due/"))).await;
        deleted += answer.deleted;
        if !answer.more {
            break;
        }
    }
    assert_eq!(ns.keys(all()).await, ["other"]);
    let events = ns.events_after(base.mod_revision).await;
    let of = |kind| events.iter().filter(move |event| event.r#type() == kind);
    assert_eq!(of(EventType::Delete).count() as u64, deleted);
    assert_eq!(of(EventType::Expire).count() as u64, KEYS as u64 - deleted);
    for event in of(EventType::Expire) {
        let number: i64 = event.key["due/".len()..].parse().expect("the number of the key");
        assert!(event.time_ms >= first_due + number, "early: {event:?}");
    }
}

async fn expiry_beside_many_long_lived_keys(ns: Namespace) {
    let base = ns.set("other", "1").await.mod_revision;
    let mut pipe = ns.pipe().await;
    for chunk in 0..10 {
        let items = (0..1000).map(|number| batch_set_request::Item {
            expiry: ttl(3_600_000),
            ..item(&format!("long/{chunk}/{number}"), "1")
        });
        pipe.send([Op::BatchSet(batch_set(items))]);
    }
    pipe.send((0..100).map(|number| Op::Set(leaving(&format!("short/{number}"), 10 + number))));
    pipe.answers(110).await;
    let mut watcher = ns
        .watching(WatchRequest {
            types: vec![EventType::Expire.into()],
            ..watch_after(all(), base)
        })
        .await;
    let events = watcher.events(100).await;
    assert_eq!(events.len(), 100);
    assert!(events.iter().all(|event| event.key.starts_with("short/")));
    assert_eq!(ns.ok(count(prefix("long/"))).await.count, 10_000);
}
