//! Watches of the typed client, over connections that break.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt as _;
use holdfast_client::{
    Change, Client, Entry, Error, Event, Namespace, Selector, WatchItem, WatchStream,
};
use tokio::time::timeout;

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    proxy::Proxy,
};

#[test]
fn a_watch_survives_cut_connections() {
    const WRITES: u64 = 3_000;
    const CUTS: u64 = 10;
    with_namespace("cuts", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let mut watch = far.watch::<u64>(Selector::prefix("k")).await.expect("stands");
        let writer = tokio::spawn(async move {
            for number in 0..WRITES {
                // Two events a revision, so that a cut may fall inside of one.
                let pair = [("k:left", number), ("k:right", number)];
                ns.set_many(pair).await.expect("the writer's connection stands");
            }
        });
        for number in 0..WRITES {
            let left = event(&mut watch).await;
            let right = event(&mut watch).await;
            assert_eq!((left.key.as_str(), set_value(&left)), ("k:left", number));
            assert_eq!((right.key.as_str(), set_value(&right)), ("k:right", number));
            assert_eq!(left.revision, right.revision);
            if number % (WRITES / CUTS) == 0 {
                proxy.cut();
            }
        }
        writer.await.expect("all is written");
    });
}

#[test]
fn an_initial_state_that_was_cut_begins_again() {
    with_namespace("cut_initial", async |ns| {
        const ENTRIES: u64 = 5_000;
        for part in 0..5 {
            let items =
                (0..1_000).map(|n| (format!("k{:05}", part * 1_000 + n), "x".repeat(1_000)));
            ns.set_many(items).await.expect("answers");
        }
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let mut watch = far.watch::<String>(Selector::all()).initial().await.expect("stands");
        proxy.cut();
        let mut state = BTreeMap::new();
        loop {
            match next(&mut watch).await.expect("goes on") {
                WatchItem::Initial(entry) => {
                    let known = state.insert(entry.key().to_owned(), entry.value);
                    assert_eq!(known, None, "each comes once, or after a reset");
                }
                WatchItem::Reset => state.clear(),
                WatchItem::InitialEnd(cursor) => {
                    assert_eq!(watch.cursor(), Some(&cursor));
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(state.len() as u64, ENTRIES);
        ns.delete("k00000").await.expect("answers");
        assert!(matches!(event(&mut watch).await.change, Change::Deleted));
    });
}

#[test]
fn an_expiry_watch_has_the_last_value_and_nothing_else() {
    with_namespace("expiries", async |ns| {
        let mut watch = ns.watch::<String>(Selector::all()).expiries().await.expect("stands");
        ns.set("stays", "x").await.expect("answers");
        ns.set("deleted", "x").ttl(Duration::from_secs(60)).await.expect("answers");
        ns.delete("deleted").await.expect("answers");
        ns.set("brief", "first").ttl(Duration::from_millis(50)).await.expect("answers");
        let last = ns.set("brief", "last").ttl(Duration::from_millis(100)).await;
        let last = last.expect("answers").metadata;
        let expired = event(&mut watch).await;
        assert!(matches!(expired.change, Change::Expired));
        assert!(expired.time >= last.expires_at.expect("it has a TTL"), "never early");
        let previous = expired.previous.expect("was asked for");
        // The first value may have ended before the second came.
        if previous.value == "first" {
            let expired = event(&mut watch).await;
            assert_eq!(expired.previous.map(Entry::into_value), Some("last".to_owned()));
        } else {
            assert_eq!((previous.value.as_str(), previous.metadata), ("last", last));
        }
        assert!(!ns.exists("brief").await.expect("answers"));
    });
}

#[test]
fn another_client_goes_on_from_a_cursor() {
    with_namespace("cursor", async |ns| {
        let mut watch = ns.watch::<u32>(Selector::all()).initial().await.expect("stands");
        let WatchItem::InitialEnd(_) = next(&mut watch).await.expect("goes on") else {
            panic!("there is nothing yet");
        };
        ns.set("k", &1).await.expect("answers");
        assert_eq!(set_value(&event(&mut watch).await), 1);
        let cursor = loop {
            if let WatchItem::Progress(cursor) = next(&mut watch).await.expect("goes on") {
                break cursor;
            }
        };
        drop(watch);
        ns.set("k", &2).await.expect("answers");
        ns.set("k", &3).await.expect("answers");
        let other = other_client(&ns).await;
        let cursor = cursor.to_string().parse().expect("a cursor survives as text");
        let mut watch = other.watch::<u32>(Selector::all()).after(cursor).await.expect("stands");
        assert_eq!(set_value(&event(&mut watch).await), 2);
        assert_eq!(set_value(&event(&mut watch).await), 3);
    });
}

#[test]
fn a_cursor_that_is_no_longer_held_is_told_or_made_good() {
    with_namespace("compacted", async |ns| {
        let first = ns.set("k", &1).await.expect("answers").header.revision;
        let last = ns.set("k", &2).await.expect("answers").header.revision;
        ns.compact(last).await.expect("answers");
        let watch = || ns.watch::<u32>(Selector::all()).after_revision(first);
        let error = watch().await.expect_err("compacted");
        assert!(matches!(error, Error::Compacted { .. }), "{error}");
        let mut watch = watch().or_initial().await.expect("stands");
        assert!(matches!(next(&mut watch).await, Ok(WatchItem::Reset)));
        match next(&mut watch).await {
            Ok(WatchItem::Initial(entry)) => assert_eq!(entry.value, 2),
            other => panic!("{other:?}"),
        }
        assert!(matches!(next(&mut watch).await, Ok(WatchItem::InitialEnd(_))));
    });
}

#[test]
fn a_watch_may_come_before_its_namespace_and_ends_with_it() {
    with_namespace("before", async |ns| {
        let mut watch = ns.watch_keys(Selector::glob("a:?")).await.expect("stands");
        ns.set_many([("a:1", 1), ("b:1", 1)]).await.expect("answers");
        ns.clear().await.expect("answers");
        assert_eq!(event(&mut watch).await.key, "a:1");
        assert!(matches!(event(&mut watch).await.change, Change::Cleared));
        ns.delete_namespace().await.expect("answers");
        let end = loop {
            match next(&mut watch).await {
                Ok(WatchItem::Progress(_)) => {}
                Ok(other) => panic!("{other:?}"),
                Err(error) => break error,
            }
        };
        assert!(matches!(end, Error::LineageChanged { .. }), "{end}");
    });
}

async fn other_client(ns: &Namespace) -> Namespace {
    let builder = Client::builder(fixture::shared().to_string()).timeout(PATIENCE);
    builder.connect().await.expect("the server answers").namespace(ns.name())
}

pub async fn next<T>(watch: &mut WatchStream<T>) -> Result<WatchItem<T>, Error> {
    let item = timeout(PATIENCE, watch.next()).await.expect("something comes");
    item.expect("a watch does not end without an error")
}

/// The next event; progress may come before.
pub async fn event<T: std::fmt::Debug>(watch: &mut WatchStream<T>) -> Event<T> {
    loop {
        match next(watch).await.expect("goes on") {
            WatchItem::Event(event) => return event,
            WatchItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

pub fn set_value<T: Clone + std::fmt::Debug>(event: &Event<T>) -> T {
    match &event.change {
        Change::Set(entry) => entry.value.clone(),
        other => panic!("{other:?}"),
    }
}
