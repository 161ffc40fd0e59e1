//! Equal watches of one client, which share a stream: each sees what it would see on a stream of its own.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::future::{join_all, try_join_all};
use holdfast_client::{Client, Error, Namespace, Raw, Selector, WatchItem, WatchStream};
use tokio::time::{sleep, timeout};

use crate::{
    fixture::{self, PATIENCE, fresh_name},
    proxy::Proxy,
    typed_watch::{event, next, set_value},
};

#[test]
fn equal_watches_have_one_stream_and_it_ends_with_the_last_of_them() {
    with_server(async |address, ns| {
        let watches = join_all((0..100).map(|_| watch(&ns))).await;
        let mut later = watch(&ns.client().clone().namespace(ns.name())).await;
        let mut other = ns.watch::<u64>(Selector::prefix("other")).await.expect("stands");
        until_open(address, 2).await;
        ns.set("k", &1).await.expect("answers");
        ns.set("other", &2).await.expect("answers");
        assert_eq!(set_value(&event(&mut later).await), 1);
        assert_eq!(set_value(&event(&mut other).await), 2);
        for mut watch in watches {
            assert_eq!(set_value(&event(&mut watch).await), 1);
            assert_eq!(set_value(&event(&mut watch).await), 2);
        }
        until_open(address, 2).await;
        drop(later);
        until_open(address, 1).await;
        drop(other);
        until_open(address, 0).await;
    });
}

#[test]
fn a_watch_that_joins_sees_what_is_written_from_then_on_and_nothing_else() {
    with_server(async |address, ns| {
        let mut first = watch(&ns).await;
        let mut watches = Vec::new();
        for number in 0..300 {
            ns.set("before", &number).await.expect("answers");
            // Many at a time: what comes meanwhile keeps the stream busy.
            let mut joined =
                try_join_all((0..3).map(|_| ns.watch::<u64>(Selector::all()).into_future()))
                    .await
                    .expect("stand");
            ns.set("after", &number).await.expect("answers");
            for watch in &mut joined {
                let seen = event(watch).await;
                assert_eq!((seen.key.as_str(), set_value(&seen)), ("after", number));
            }
            watches.extend(joined.pop());
        }
        until_open(address, 1).await;
        for number in 0..300 {
            assert_eq!(event(&mut first).await.key, "before");
            assert_eq!(set_value(&event(&mut first).await), number);
        }
    });
}

#[test]
fn who_stands_still_loses_nothing_and_holds_up_nobody() {
    const WRITES: u64 = 300;
    const KEYS: u64 = 100;
    with_server(async |address, ns| {
        let mut slow = watch(&ns).await;
        let mut fast = watch(&ns).await;
        for write in 0..WRITES {
            let pairs = (0..KEYS).map(|key| (format!("k{key:02}"), write));
            ns.set_many(pairs).await.expect("answers");
            for _ in 0..KEYS {
                assert_eq!(set_value(&event(&mut fast).await), write);
            }
        }
        for write in 0..WRITES {
            for key in 0..KEYS {
                let seen = event(&mut slow).await;
                let value = set_value(&seen);
                assert_eq!((seen.key, value), (format!("k{key:02}"), write));
            }
        }
        until_shared(address, &ns, &mut [slow, fast]).await;
    });
}

#[test]
fn revisions_that_take_several_messages_are_told_in_whole() {
    // As much as a revision may have; some of it has gone by when the slow one comes to it.
    const KEYS: usize = 31;
    with_server(async |_, ns| {
        let large = ns.clone().with_codec(Raw::new());
        let (mut fast, mut slow) = (watch_large(&large).await, watch_large(&large).await);
        let mut revisions = 0..;
        for at_once in [1, 2, 3, 1, 2] {
            let revisions: Vec<u8> = revisions.by_ref().take(at_once).collect();
            for revision in &revisions {
                set_large(&large, KEYS, *revision).await;
                read_large(&mut fast, KEYS, *revision).await;
            }
            for revision in &revisions {
                read_large(&mut slow, KEYS, *revision).await;
            }
        }
    });
}

#[test]
fn who_stands_still_does_not_hold_up_those_who_come_later() {
    const REVISIONS: u8 = 4;
    const KEYS: usize = 20;
    with_server(async |_, ns| {
        let large = ns.clone().with_codec(Raw::new());
        let mut still = watch_large(&large).await;
        for revision in 0..REVISIONS {
            set_large(&large, KEYS, revision).await;
        }
        let mut later = watch_large(&large).await;
        set_large(&large, KEYS, REVISIONS).await;
        read_large(&mut later, KEYS, REVISIONS).await;
        for revision in 0..=REVISIONS {
            read_large(&mut still, KEYS, revision).await;
        }
    });
}

#[test]
fn a_watch_alone_may_stand_still_too() {
    const WRITES: u64 = 2_000;
    with_server(async |_, ns| {
        let mut watch = watch(&ns).await;
        for number in 0..WRITES {
            ns.set("k", &number).await.expect("answers");
        }
        for number in 0..WRITES {
            assert_eq!(set_value(&event(&mut watch).await), number);
        }
    });
}

#[test]
fn cut_connections_cost_nothing_and_are_shared_again() {
    const WRITES: u64 = 2_000;
    const READERS: usize = 30;
    with_server(async |address, ns| {
        let proxy = Proxy::to(address).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let watches = join_all((0..READERS).map(|_| watch(&far))).await;
        let readers = watches.into_iter().map(|mut watch| {
            tokio::spawn(async move {
                for number in 0..WRITES {
                    let (left, right) = (event(&mut watch).await, event(&mut watch).await);
                    assert_eq!((left.key.as_str(), set_value(&left)), ("left", number));
                    assert_eq!((right.key.as_str(), set_value(&right)), ("right", number));
                }
                watch
            })
        });
        let readers: Vec<_> = readers.collect();
        for number in 0..WRITES {
            // Two events a revision, so that a cut may fall inside of one.
            ns.set_many([("left", number), ("right", number)]).await.expect("answers");
            if number % 200 == 100 {
                proxy.cut();
                sleep(Duration::from_millis(20)).await;
            }
        }
        let mut watches = try_join_all(readers).await.expect("nothing is lost or comes twice");
        until_shared(address, &ns, &mut watches).await;
    });
}

#[test]
fn a_watch_of_a_namespace_made_anew_is_not_ended_with_the_former() {
    with_server(async |address, ns| {
        for number in 0..50 {
            ns.set("k", &number).await.expect("answers");
            let former = join_all((0..5).map(|_| watch(&ns))).await;
            ns.set("k", &number).await.expect("answers");
            ns.delete_namespace().await.expect("answers");
            // The streams of the former one may not have noticed yet.
            let mut anew = join_all((0..5).map(|_| watch(&ns))).await;
            ns.set("new", &number).await.expect("answers");
            for mut watch in former {
                let end = end_of(&mut watch).await;
                assert!(matches!(end, Error::LineageChanged { .. }), "{end}");
            }
            for watch in &mut anew {
                assert_eq!(event(watch).await.key, "new");
            }
            until_open(address, 1).await;
            drop(anew);
            ns.delete_namespace().await.expect("answers");
        }
    });
}

/// Runs a test on a server that nobody else watches, and a namespace there.
fn with_server(run: impl AsyncFnOnce(SocketAddr, Namespace)) {
    let address = fixture::start();
    fixture::block_on(async {
        let client = fixture::connect(address).await;
        let whole = run(address, client.namespace(fresh_name("shared")));
        timeout(2 * PATIENCE, whole).await.expect("the test comes to an end");
    });
}

async fn watch(ns: &Namespace) -> WatchStream<u64> {
    ns.watch(Selector::all()).await.expect("stands")
}

async fn watch_large(ns: &Namespace<Raw>) -> WatchStream<Bytes> {
    ns.watch(Selector::all()).await.expect("stands")
}

/// Writes so many values of half a mebibyte at one revision.
async fn set_large(ns: &Namespace<Raw>, keys: usize, byte: u8) {
    let value = vec![byte; 512 << 10];
    let pairs = (0..keys).map(|key| (format!("k{key:02}"), &value));
    ns.set_many(pairs).await.expect("answers");
}

/// Reads what was written.
async fn read_large(watch: &mut WatchStream<Bytes>, keys: usize, byte: u8) {
    for key in 0..keys {
        let seen = event(watch).await;
        let expected = (format!("k{key:02}"), byte);
        let value = set_value(&seen)[0];
        assert_eq!((seen.key, value), expected);
    }
}

/// Waits until the server has so many watches.
async fn until_open(address: SocketAddr, watches: u64) {
    let client = fixture::connect(address).await;
    let reached = async {
        while open_watches(&client).await != watches {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(PATIENCE, reached).await.is_err() {
        panic!("{} watches are open, not {watches}", open_watches(&client).await);
    }
}

async fn open_watches(client: &Client) -> u64 {
    client.stats().await.expect("answers").watches
}

/// Writes, and reads that by all of these, until they have found each other on one stream.
async fn until_shared(address: SocketAddr, ns: &Namespace, watches: &mut [WatchStream<u64>]) {
    let client = fixture::connect(address).await;
    let shared = async {
        for number in 1_000_000.. {
            ns.set("last", &number).await.expect("answers");
            for watch in &mut *watches {
                assert_eq!(set_value(&event(watch).await), number);
            }
            if open_watches(&client).await == 1 {
                break;
            }
        }
    };
    timeout(PATIENCE, shared).await.expect("they share a stream");
}

/// What a watch ends with. The last change before its namespace was deleted may have gone with that.
async fn end_of(watch: &mut WatchStream<u64>) -> Error {
    loop {
        match next(watch).await {
            Ok(WatchItem::Progress(_)) => {}
            Ok(WatchItem::Event(event)) => assert_eq!(event.key, "k"),
            Ok(other) => panic!("{other:?}"),
            Err(error) => return error,
        }
    }
}
