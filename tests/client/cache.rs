//! The near cache: true under writers, cuts and resets, and never late.

use std::{collections::BTreeMap, time::Duration};

use futures::future::join_all;
use holdfast_client::{
    Cached, Error, Expiry, Json, Metadata, Namespace, NearCache, Raw, Revision, Selector, Timestamp,
};

use crate::{
    fixture::{self, with_namespace},
    proxy::Proxy,
};

/// Longer than any test.
const LONG: Duration = Duration::from_secs(600);

/// A cache whose connection goes through a proxy, while `ns` goes directly.
async fn far_cache(ns: &Namespace, bound: Duration) -> (Proxy, NearCache<Json, u64>) {
    let proxy = Proxy::to(fixture::shared()).await;
    let far = fixture::connect(proxy.address).await.namespace(ns.name());
    let cache = far.near_cache::<u64>("k").max_staleness(bound).await.expect("is filled");
    (proxy, cache)
}

/// Waits for what nothing else tells of.
async fn until(mut reached: impl FnMut() -> bool) {
    while !reached() {
        // There is nothing to wait on: what is asked for changes with time alone, or by a cut.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// What the cache knows from memory, as a value: the inner none is a missing key.
fn known<C>(cached: Cached<C>) -> Option<Option<C>>
where
    C: Copy,
{
    match cached {
        Cached::Held(entry) => Some(Some(*entry.value)),
        Cached::Missing => Some(None),
        Cached::Unknown => None,
    }
}

#[test]
fn keys_of_the_prefix_are_answered_from_memory_missing_ones_too() {
    with_namespace("near", async |ns| {
        let set = ns.set("k1", &1_u64).await.expect("answers");
        ns.set("other", &2_u64).await.expect("answers");
        let (proxy, cache) = far_cache(&ns, LONG).await;
        assert_eq!(cache.len(), 1);
        // Without the server.
        proxy.block();
        let entry = cache.get("k1").await.expect("from memory").expect("is there");
        assert_eq!((*entry.value, &entry.metadata), (1, &set.metadata));
        assert_eq!(cache.get("k2").await.expect("from memory"), None);
        assert_eq!(known(cache.get_fresh("k1")), Some(Some(1)));
        assert_eq!(cache.get_cached("other"), Cached::Unknown);
        proxy.unblock();
        let other = cache.get("other").await.expect("from the server").expect("is there");
        assert_eq!(*other.value, 2);
    });
}

#[test]
fn it_stays_true_under_writers_and_cuts() {
    const WRITERS: u64 = 6;
    with_namespace("true", async |ns| {
        let (proxy, cache) = far_cache(&ns, LONG).await;
        let writers = (0..WRITERS).map(|writer| write_at_random(ns.clone(), writer, &proxy));
        join_all(writers).await;
        let last = ns.set("k:last", &0_u64).await.expect("answers").header.revision;
        cache.wait_for(last).await;
        let listed = ns.list::<u64>(Selector::prefix("k")).all().await.expect("answers");
        let listed: BTreeMap<String, (u64, Metadata)> = listed
            .into_iter()
            .map(|entry| (entry.key().to_owned(), (entry.value, entry.metadata)))
            .collect();
        for key in (0..KEYS).map(|key| format!("k{key}")).chain(["k:last".to_owned()]) {
            // What has ended is unknown until the event of that comes.
            until(|| cache.get_fresh(&key) != Cached::Unknown).await;
            let held = match cache.get_fresh(&key) {
                Cached::Held(entry) => Some((*entry.value, entry.metadata.clone())),
                Cached::Missing => None,
                Cached::Unknown => panic!("{key} is not known"),
            };
            assert_eq!(held.as_ref(), listed.get(&key), "{key}");
        }
        assert_eq!(cache.len(), listed.len());
        assert!(cache.freshness().holds_all);
    });
}

const KEYS: u64 = 40;
const WRITES: u64 = 300;

/// Writes whatever can be written, and cuts the connections of the cache now and then.
async fn write_at_random(ns: Namespace, seed: u64, proxy: &Proxy) {
    let mut random = seed;
    let mut below = |bound: u64| {
        // Splitmix64: enough to mix things up, and the same each time.
        random = random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed >> 32) % bound
    };
    for write in 0..WRITES {
        let key = format!("k{}", below(KEYS));
        match below(100) {
            0..50 => drop(ns.set(key, &write).await.expect("answers")),
            50..60 => drop(ns.set(key, &write).ttl(LONG).await.expect("answers")),
            60..65 => {
                drop(ns.set(key, &write).ttl(Duration::from_millis(1)).await.expect("answers"))
            }
            65..80 => drop(ns.delete(key).await.expect("answers")),
            80..90 => drop(ns.set_ttl(key, LONG).await.expect("answers")),
            90..94 => drop(ns.set_ttl(key, Expiry::Never).await.expect("answers")),
            94..99 => {
                let pair = [(key, write), ("k:pair".to_owned() + &seed.to_string(), write)];
                drop(ns.set_many(pair).await.expect("answers"));
            }
            _ => drop(ns.delete_range(Selector::prefix("k1")).await.expect("answers")),
        }
        if below(WRITES) == 0 {
            proxy.cut();
        }
    }
    ns.delete("k:pair".to_owned() + &seed.to_string()).await.expect("answers");
}

#[test]
fn nothing_is_answered_past_its_deadline_by_the_clock_of_the_store() {
    with_namespace("late", async |ns| {
        let (proxy, cache) = far_cache(&ns, LONG).await;
        let mut last = Revision::new(0);
        let mut deadlines = BTreeMap::<String, Timestamp>::new();
        for number in 0..100_u64 {
            let ttl = Duration::from_millis(1_000 + 20 * number);
            let set = ns.set(format!("k{number}"), &number).ttl(ttl).await.expect("answers");
            deadlines.insert(set.metadata.key, set.metadata.expires_at.expect("has a TTL"));
            last = set.header.revision;
        }
        cache.wait_for(last).await;
        // From here on no event comes: the cache has nothing but its clock.
        proxy.block();
        let mut answered = 0;
        loop {
            let now = ns.exists("k").with_header().await.expect("answers").header.time;
            for (key, deadline) in &deadlines {
                match cache.get_cached(key) {
                    Cached::Held(_) => {
                        assert!(now < *deadline, "{key} ended at {deadline}, and it is {now}");
                        answered += 1;
                    }
                    Cached::Missing | Cached::Unknown => {}
                }
            }
            if deadlines.values().all(|deadline| now >= *deadline) {
                break;
            }
        }
        assert!(answered > 0);
    });
}

#[test]
fn while_disconnected_it_says_so_and_then_it_is_true_again() {
    with_namespace("gone", async |ns| {
        ns.set("k", &1_u64).await.expect("answers");
        let (proxy, cache) = far_cache(&ns, Duration::from_secs(1)).await;
        let before = cache.freshness();
        assert!(before.is_fresh && before.disconnected_for.is_none(), "{before:?}");
        proxy.block();
        until(|| cache.freshness().disconnected_for.is_some()).await;
        let changed = ns.set("k", &2_u64).await.expect("answers").header.revision;
        until(|| !cache.freshness().is_fresh).await;
        let stale = cache.freshness();
        assert!(stale.age > Some(Duration::from_secs(1)), "{stale:?}");
        assert!(stale.complete_through.as_ref().is_some_and(|through| through.revision < changed));
        // Asked for, what is old is answered; else the server has to be asked, which is away.
        assert_eq!(cache.get_fresh("k"), Cached::Unknown);
        assert_eq!(known(cache.get_cached("k")), Some(Some(1)));
        let error = cache.get("k").await.expect_err("the server is away");
        assert!(error.is_transient(), "{error}");
        proxy.unblock();
        cache.wait_for(changed).await;
        until(|| cache.freshness().is_fresh).await;
        assert_eq!(known(cache.get_fresh("k")), Some(Some(2)));
        assert_eq!(cache.freshness().disconnected_for, None);
    });
}

#[test]
fn it_does_not_grow_old_in_a_quiet_namespace() {
    with_namespace("quiet", async |ns| {
        // It does not even exist.
        let cache = ns.near_cache::<u64>("k").max_staleness(Duration::from_secs(1));
        let cache = cache.await.expect("is filled");
        let first = cache.freshness().as_of.expect("is filled");
        until(|| cache.freshness().as_of > Some(first + Duration::from_secs(2))).await;
        assert_eq!(known(cache.get_fresh("k")), Some(None));
        let born = ns.set("k", &1_u64).await.expect("answers").header.revision;
        cache.wait_for(born).await;
        assert_eq!(known(cache.get_fresh("k")), Some(Some(1)));
    });
}

#[test]
fn a_clear_and_another_history_are_followed() {
    with_namespace("history", async |ns| {
        ns.set_many([("k1", 1_u64), ("k2", 2)]).await.expect("answers");
        let (proxy, cache) = far_cache(&ns, LONG).await;
        let cleared = ns.clear().with_header().await.expect("answers").header.revision;
        cache.wait_for(cleared).await;
        assert_eq!((cache.len(), known(cache.get_fresh("k1"))), (0, Some(None)));

        ns.set("k1", &3_u64).await.expect("answers");
        ns.delete_namespace().await.expect("answers");
        let anew = ns.set("k2", &4_u64).await.expect("answers").header.revision;
        cache.wait_for(anew).await;
        assert_eq!(known(cache.get_fresh("k1")), Some(None));
        assert_eq!(known(cache.get_fresh("k2")), Some(Some(4)));

        // What it would go on from is no longer held.
        proxy.block();
        until(|| cache.freshness().disconnected_for.is_some()).await;
        ns.set("k1", &5_u64).await.expect("answers");
        let last = ns.delete("k2").await.expect("answers").header.revision;
        ns.compact(last).await.expect("answers");
        proxy.unblock();
        cache.wait_for(last).await;
        assert_eq!(known(cache.get_fresh("k1")), Some(Some(5)));
        assert_eq!(known(cache.get_fresh("k2")), Some(None));
    });
}

#[test]
fn own_writes_are_read() {
    with_namespace("own", async |ns| {
        let cache = ns.near_cache::<u64>("k").await.expect("is filled");
        for number in 0..200_u64 {
            let written = ns.set("k", &number).await.expect("answers").header.revision;
            if number % 2 == 0 {
                let read = cache.get_at_least("k", written).await.expect("answers");
                assert_eq!(read.map(|entry| *entry.value), Some(number));
            } else {
                cache.wait_for(written).await;
                assert_eq!(known(cache.get_fresh("k")), Some(Some(number)));
            }
        }
    });
}

#[test]
fn what_has_no_room_is_read_from_the_server() {
    with_namespace("room", async |ns| {
        ns.set_many((0..10_u64).map(|n| (format!("k{n}"), n))).await.expect("answers");
        let cache = ns.near_cache::<u64>("k").max_entries(4).await.expect("is filled");
        assert_eq!((cache.len(), cache.freshness().holds_all), (4, false));
        for number in 0..10_u64 {
            let read = cache.get(&format!("k{number}")).await.expect("answers");
            assert_eq!(read.map(|entry| *entry.value), Some(number));
        }
        assert_eq!(cache.get("k10").await.expect("answers"), None);
        assert_eq!(cache.get_cached("k10"), Cached::Unknown);
        let cleared = ns.clear().with_header().await.expect("answers").header.revision;
        cache.wait_for(cleared).await;
        assert!(cache.freshness().holds_all);
        assert_eq!(cache.get_cached("k1"), Cached::Missing);
    });
}

#[test]
fn a_value_that_cannot_be_read_is_told_where_it_is_asked_for() {
    with_namespace("odd", async |ns| {
        ns.with_codec(Raw::new()).set("k1", "bytes").await.expect("answers");
        ns.set("k2", &2_u64).await.expect("answers");
        let cache = ns.near_cache::<u64>("k").await.expect("is filled");
        let error = cache.get("k1").await.expect_err("is no JSON");
        assert!(matches!(error, Error::UnexpectedContentType { .. }), "{error}");
        assert_eq!(known(cache.get_fresh("k2")), Some(Some(2)));
    });
}

#[test]
fn leased_entries_are_read_from_the_server_unless_asked_for() {
    with_namespace("leased", async |ns| {
        let lease = ns.grant_lease(Duration::from_secs(60)).await.expect("answers");
        let strict = ns.near_cache::<u64>("k").await.expect("is filled");
        let relaxed = ns.near_cache::<u64>("k").with_leased().await.expect("is filled");
        let set = ns.set("k", &1_u64).lease(&lease).await.expect("answers").header.revision;
        strict.wait_for(set).await;
        relaxed.wait_for(set).await;
        assert_eq!(strict.get_cached("k"), Cached::Unknown);
        assert_eq!(strict.get("k").await.expect("answers").map(|entry| *entry.value), Some(1));
        assert_eq!(known(relaxed.get_fresh("k")), Some(Some(1)));
        lease.revoke().await.expect("answers");
        let gone = ns.exists("k").with_header().await.expect("answers").header.revision;
        relaxed.wait_for(gone).await;
        assert_eq!(known(relaxed.get_fresh("k")), Some(None));
    });
}
