//! Several servers on one Redis: fair to each other, and none is starved.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use holdfast_proto::v1::{
    BatchSetRequest, ClearNamespaceRequest, DeleteNamespaceRequest, ErrorReason, EventType,
    SetRequest, WatchRequest, WriteOptions,
};

use crate::{
    common::{
        backends::TestServer,
        build::*,
        coordination::*,
        namespace::Namespace,
        redis::{Options, Proxy, Redis, RedisClock},
    },
    fixture::*,
};

crate::cases! {
    a_queue_is_fair_across_servers,
    each_expiry_is_told_once_by_however_many_servers,
    all_servers_make_progress_in_a_hot_namespace,
    a_large_delete_commits_beside_a_hot_writer,
    the_end_of_a_large_lease_is_committed_beside_a_hot_writer,
    a_turn_ends_also_where_the_clock_stands_still,
    a_write_goes_on_from_what_another_server_has_just_written,
    one_of_many_begins_a_namespace_anew,
    a_clear_takes_nothing_that_has_ended,
}

/// A Redis with so many servers, and a namespace through each.
async fn several(count: usize) -> (Redis, Vec<TestServer>, Vec<Namespace>) {
    let (redis, server, ns) = started().await;
    let mut servers = vec![server];
    while servers.len() < count {
        servers.push(serve(&redis.url()).await);
    }
    let namespaces = servers.iter().map(|server| ns.through(server)).collect();
    (redis, servers, namespaces)
}

async fn one_of_many_begins_a_namespace_anew() {
    let (_redis, _servers, namespaces) = several(2).await;
    for _ in 0..50 {
        namespaces[0].ok(DeleteNamespaceRequest::default()).await;
        let begin = (0..8_usize).map(|number| {
            let options =
                Some(WriteOptions { expected_lineage: Some(String::new()), ..Default::default() });
            let request = SetRequest { options, ..set(&number.to_string(), "v") };
            namespaces[number % 2].call(request)
        });
        let begun = futures::future::join_all(begin).await;
        let (begun, refused): (Vec<_>, Vec<_>) = begun.into_iter().partition(Result::is_ok);
        assert_eq!(begun.len(), 1, "{begun:?}");
        for failure in refused.into_iter().filter_map(Result::err) {
            failure.expect(ErrorReason::LineageChanged);
        }
    }
}

async fn a_clear_takes_nothing_that_has_ended() {
    let redis = Redis::start().expect("there is a redis-server");
    let (near, far) = (Proxy::to(&redis.address()).await, Proxy::to(&redis.address()).await);
    let through = |proxy: &Proxy| format!("redis://{}", proxy.address);
    let gone = TestServer::on(&through(&near)).await;
    let server = TestServer::on(&through(&far)).await;
    let namespaces = (0..12).map(|number| Namespace::fresh(&gone, &format!("n{number}")));
    let namespaces: Vec<_> = namespaces.collect();
    for ns in &namespaces {
        ns.set("first", "1").await;
    }
    // The one that is the first to look at the deadlines of half of them is cut off.
    near.block();
    far.delay(Duration::from_millis(3));
    for (ns, before_ms) in namespaces.iter().zip((8..).step_by(3)) {
        let ns = ns.through(&server);
        let begun = ns.revision().await;
        let lease = ns.ok(grant(150)).await.lease.expect("granted");
        ns.ok(SetRequest { expiry: with_lease(lease.lease_id), ..set("k", "1") }).await;
        ns.until(lease.expires_at_ms - before_ms).await;
        let cleared = ns.ok(ClearNamespaceRequest::default()).await;
        let mut watcher = ns.watching(watch_after(all(), begun)).await;
        let events = watcher.events_through(cleared.revision).await;
        let has_expired = events.iter().any(|event| event.r#type() == EventType::Expire);
        assert_eq!(has_expired, cleared.time_ms >= lease.expires_at_ms, "{before_ms} {events:?}");
    }
}

async fn a_queue_is_fair_across_servers() {
    const WAITERS: u32 = 30;
    let (_redis, _servers, namespaces) = several(2).await;
    let mut lock = namespaces[0].hold(acquire("l")).await;
    let mut waiters = Vec::new();
    for place in 1..=WAITERS {
        let ns = &namespaces[place as usize % 2];
        waiters.push(ns.queue(patient(acquire_for("l", 60_000)), place).await);
    }
    for (place, waiter) in waiters.into_iter().enumerate() {
        // Whichever server the holder is at, the next may be at the other.
        assert!(namespaces[place % 2].ok(release(&lock)).await.released);
        let next = waiter.granted().await;
        assert!(next.token > lock.token);
        lock = next;
    }
}

async fn each_expiry_is_told_once_by_however_many_servers() {
    const KEYS: usize = 2_000;
    let (_redis, _servers, namespaces) = several(3).await;
    let base = namespaces[0].set("other", "1").await.mod_revision;
    for (number, ns) in namespaces.iter().cycle().take(KEYS / 100).enumerate() {
        let items = (0..100).map(|item_number| holdfast_proto::v1::batch_set_request::Item {
            expiry: ttl(1_000 + item_number * 10),
            ..item(&format!("k{number}/{item_number}"), "1")
        });
        ns.ok(batch_set(items)).await;
    }
    for ns in &namespaces {
        let types = vec![EventType::Expire.into()];
        let watch = WatchRequest { types, with_previous: true, ..watch_after(all(), base) };
        let mut watcher = ns.watching(watch).await;
        let mut events = watcher.events(KEYS).await;
        for event in &events {
            let previous = event.previous.as_ref().expect("asked for");
            let due = previous.expires_at_ms.expect("it had a TTL");
            assert!(event.time_ms >= due, "early: {event:?}");
            assert!(event.time_ms <= due + 1_000, "late: {event:?}");
        }
        events.sort_by(|a, b| a.key.cmp(&b.key));
        events.dedup_by(|a, b| a.key == b.key);
        assert_eq!(events.len(), KEYS, "each comes once");
    }
}

async fn all_servers_make_progress_in_a_hot_namespace() {
    const CALLERS: usize = 4;
    const ENOUGH: usize = 200;
    let (redis, mut servers, _) = several(2).await;
    let proxy = Proxy::to(&redis.address()).await;
    proxy.delay(Duration::from_millis(1));
    servers.push(TestServer::on(&format!("redis://{}", proxy.address)).await);
    let ns = Namespace::fresh(&servers[0], "hot");
    let counts: Arc<Vec<AtomicUsize>> = Arc::new(servers.iter().map(|_| 0.into()).collect());
    let mut callers = Vec::new();
    for (number, server) in servers.iter().enumerate() {
        let client = typed(&ns.through(server)).await;
        for _ in 0..CALLERS {
            let (client, counts) = (client.clone(), counts.clone());
            callers.push(tokio::spawn(async move {
                // All read and write the same key: each commit spoils what the others have read.
                while counts.iter().any(|count| count.load(Ordering::Relaxed) < ENOUGH) {
                    client.increment("n", 1).await.expect("it comes through");
                    counts[number].fetch_add(1, Ordering::Relaxed);
                }
            }));
        }
    }
    for caller in callers {
        caller.await.expect("it does not fail");
    }
    let counts: Vec<_> = counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
    let total: usize = counts.iter().sum();
    assert_eq!(ns.value("n").await, Some(total.to_string()));
    // About a third each; much less only where one gets no time of a processor when it is its turn.
    assert!(counts.iter().all(|count| count * 8 > total), "{counts:?}");
}

/// Writes keys that begin with `hot/` through a server, until told to stop.
fn write_hot(ns: &Namespace) -> (Arc<AtomicBool>, tokio::task::JoinHandle<()>) {
    let (over, ns) = (Arc::new(AtomicBool::new(false)), ns.clone());
    let until = over.clone();
    let writing = tokio::spawn(async move {
        let mut number = 0_u64;
        while !until.load(Ordering::Relaxed) {
            ns.set(&format!("hot/{}", number % 10), "v").await;
            number += 1;
        }
    });
    (over, writing)
}

fn chunk(number: usize) -> BatchSetRequest {
    batch_set((0..1_000).map(|key| item(&format!("all/{number}/{key:03}"), "v")))
}

async fn a_large_delete_commits_beside_a_hot_writer() {
    const CHUNKS: usize = 9;
    let (_redis, _servers, namespaces) = several(2).await;
    let [ns, other] = &namespaces[..] else { unreachable!("two were asked for") };
    for number in 0..CHUNKS {
        ns.ok(chunk(number)).await;
    }
    let (over, writing) = write_hot(other);
    while other.get("hot/9").await.is_none() {}
    // The range that is read is written to all the time.
    let answer = ns.ok(delete_range(all())).await;
    assert!(answer.deleted >= (CHUNKS * 1_000) as u64 && !answer.more, "{answer:?}");
    over.store(true, Ordering::Relaxed);
    writing.await.expect("it does not fail");
    assert_eq!(ns.ok(count(prefix("all/"))).await.count, 0);
}

async fn the_end_of_a_large_lease_is_committed_beside_a_hot_writer() {
    const KEYS: usize = 5_000;
    let (_redis, _servers, namespaces) = several(2).await;
    let [ns, other] = &namespaces[..] else { unreachable!("two were asked for") };
    let lease = ns.lease(600_000).await;
    for number in 0..KEYS / 1_000 {
        let mut batch = chunk(number);
        for item in &mut batch.items {
            item.expiry = with_lease(lease);
        }
        ns.ok(batch).await;
    }
    let (over, writing) = write_hot(other);
    while other.get("hot/9").await.is_none() {}
    assert!(ns.ok(revoke(lease)).await.revoked);
    over.store(true, Ordering::Relaxed);
    writing.await.expect("it does not fail");
    assert_eq!(other.ok(count(prefix("all/"))).await.count, 0);
}

async fn a_turn_ends_also_where_the_clock_stands_still() {
    const NOW_MS: i64 = 1_700_000_000_000;
    let Some(clock) = RedisClock::at(NOW_MS) else {
        return;
    };
    let redis = Redis::with(Options { clock: Some(clock), ..Options::default() });
    let redis = redis.expect("it is installed");
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    ns.set("k", "1").await;
    let head = format!("holdfast:{{{}}}:head", ns.name);
    let turn = format!("another {NOW_MS} {} 3", NOW_MS + 200);
    redis.run::<()>(&["HSET", &head, "turn", &turn]);
    ns.set("k", "2").await;
    // It is over for all, not passed over each time.
    assert!(!redis.run::<String>(&["HGET", &head, "turn"]).contains("another"));
    assert_eq!(ns.value("k").await.as_deref(), Some("2"));
}

async fn a_write_goes_on_from_what_another_server_has_just_written() {
    let (_redis, _servers, namespaces) = several(2).await;
    // Once, twice and three times in a row by the same server, which knows then what it wrote itself.
    let by_whom = [0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 1].into_iter().cycle().take(120);
    for (version, server) in (1..).zip(by_whom) {
        assert_eq!(namespaces[server].set("k", "v").await.version, version);
    }
    let create = || SetRequest { condition: absent(), ..set("k", "v") };
    for _ in 0..20 {
        let [here, there] = [&namespaces[0], &namespaces[1]];
        here.fails(create(), ErrorReason::ConditionNotMet).await;
        there.ok(delete("k")).await;
        assert!(here.ok(create()).await.created);
        there.fails(create(), ErrorReason::ConditionNotMet).await;
        here.ok(delete("k")).await;
        assert!(there.ok(create()).await.created);
    }
}
