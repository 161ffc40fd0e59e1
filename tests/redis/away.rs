//! Redis stands still, cuts connections, or is full: nothing is lost, and all goes on when it is over.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use holdfast_client::Text;
use holdfast_proto::v1::{
    ClearNamespaceRequest, DeleteRequest, ErrorReason, GrantRequest, RevokeRequest, SetRequest,
};

use crate::{
    common::{
        backends::TestServer,
        build::*,
        coordination::*,
        health::{HealthWatch, NOT_SERVING, SERVING},
        namespace::Namespace,
        redis::{Redis, until},
    },
    fixture::*,
};

crate::cases! {
    what_stands_still_for_a_while_loses_nothing,
    killed_connections_lose_nothing_and_repeat_nothing,
    what_is_full_refuses_writes_and_goes_on_reading,
    what_is_not_there_at_the_start_is_told,
    what_is_a_replica_for_a_while_is_neither_written_nor_read,
    a_commit_is_acknowledged_once_replicas_have_it,
}

async fn what_stands_still_for_a_while_loses_nothing() {
    let redis = Redis::start().expect("it is installed");
    let server = TestServer::on(&(redis.url() + IMPATIENT)).await;
    let ns = Namespace::fresh(&server, "ns");
    let mut health = HealthWatch::of(ns.channel.clone()).await;
    health.until(SERVING).await;
    let mut watch = watch_record(&typed(&ns).await).await;
    let mut record = Record::default();
    record.write_until_done(&ns).await;
    redis.pause();
    assert!(!record.write(&ns).await.is_done());
    health.until(NOT_SERVING).await;
    for _ in 0..3 {
        assert!(!record.write(&ns).await.is_done());
    }
    ns.fails(get("w000000"), ErrorReason::BackendUnavailable).await;
    redis.go_on();
    health.until(SERVING).await;
    for _ in 0..10 {
        record.write_until_done(&ns).await;
    }
    record.check(&mut watch).await;
    assert_eq!(ns.get("w000000").await.expect("written").version, 1);
}

async fn killed_connections_lose_nothing_and_repeat_nothing() {
    const CALLERS: usize = 8;
    const EACH: usize = 250;
    const KILLS: usize = 10;
    let (redis, _server, ns) = started().await;
    let client = typed(&ns).await;
    let mut watch = watch_record(&client).await;
    let count = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, count) = (client.clone(), count.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for _ in 0..EACH {
                    seen.push(client.increment("n", 1).await.expect("it comes through"));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                seen
            })
        })
        .collect();
    let mut record = Record::default();
    for kill in 0..KILLS {
        while count.load(Ordering::Relaxed) < kill * CALLERS * EACH / KILLS {
            record.write(&ns).await;
        }
        for kind in ["normal", "pubsub"] {
            redis.run::<usize>(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.expect("it does not fail"));
    }
    seen.sort_unstable();
    assert!(seen.into_iter().eq(1..=(CALLERS * EACH) as i64), "each was applied once");
    let total = client.with_codec(Text).get::<usize>("n").await.expect("answers");
    assert_eq!(total.expect("is there").value, CALLERS * EACH);
    record.write_until_done(&ns).await;
    record.check(&mut watch).await;
}

async fn what_is_full_refuses_writes_and_goes_on_reading() {
    let (redis, _server, ns) = started().await;
    let mut health = HealthWatch::of(ns.channel.clone()).await;
    let value = "v".repeat(64 << 10);
    ns.set("first", "v").await;
    let used: u64 = redis.info("used_memory").parse().expect("a number");
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", &(used + (4 << 20)).to_string()]);
    ns.ok(GrantRequest { lease_id: Some(77), ..grant(3_600_000) }).await;
    ns.attach("leased", 77).await;
    let mut kept = 0;
    let failure = loop {
        match ns.call(set(&format!("k{kept}"), &value)).await {
            Ok(_) => kept += 1,
            Err(failure) => break failure,
        }
    };
    failure.expect(ErrorReason::BackendUnavailable);
    // What is refused is refused for what Redis uses before it, buffers included, which come and go: what was just over the
    // bound may be below it in a moment. From now on it is far over.
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", &(used / 2).to_string()]);
    ns.fails(set("more", &value), ErrorReason::BackendUnavailable).await;
    health.until(NOT_SERVING).await;
    assert_eq!(ns.value("first").await.as_deref(), Some("v"));
    assert_eq!(ns.ok(count(prefix("k"))).await.count, kept);
    assert_eq!(ns.get("more").await, None);
    // What makes room goes on, also where it leaves a note of itself.
    let client = Bytes::from_static(&[7; 8]);
    ns.ok(DeleteRequest { options: numbered(&client, 1), ..delete("k0") }).await;
    ns.ok(RevokeRequest { options: numbered(&client, 2), ..revoke(77) }).await;
    assert_eq!(ns.get("leased").await, None);
    ns.ok(delete_range(prefix("k1"))).await;
    let left = ns.ok(count(prefix("k"))).await.count;
    assert!(left < kept, "{left}");
    let last = ns.ok(count(all())).await.revision;
    ns.ok(compact(last)).await;
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    health.until(SERVING).await;
    ns.set("more", &value).await;
    assert_eq!(ns.ok(count(prefix("k"))).await.count, left);
}

async fn what_is_not_there_at_the_start_is_told() {
    let (mut redis, _server, ns) = started().await;
    let mut record = Record::default();
    record.write_until_done(&ns).await;
    redis.kill();
    ns.fails(get("w000000"), ErrorReason::BackendUnavailable).await;
    ns.fails(set("k", "v"), ErrorReason::BackendUnavailable).await;
    redis.start_again();
    // What it kept nothing of is gone.
    record.write_until_done(&ns).await;
    assert_eq!(ns.get("w000000").await, None);
}

async fn what_is_a_replica_for_a_while_is_neither_written_nor_read() {
    let (redis, _server, ns) = started().await;
    let mut health = HealthWatch::of(ns.channel.clone()).await;
    let mut watch = watch_record(&typed(&ns).await).await;
    let mut record = Record::default();
    let last = record.write_until_done(&ns).await;
    // Of nobody: it keeps what it has.
    redis.run::<()>(&["REPLICAOF", "127.0.0.1", "1"]);
    ns.fails(set("k", "v"), ErrorReason::BackendUnavailable).await;
    ns.fails(get("w000000"), ErrorReason::BackendUnavailable).await;
    health.until(NOT_SERVING).await;
    redis.run::<()>(&["REPLICAOF", "NO", "ONE"]);
    health.until(SERVING).await;
    assert!(record.write_until_done(&ns).await > last);
    record.check(&mut watch).await;
    assert_eq!(ns.get("k").await, None);
}

async fn a_commit_is_acknowledged_once_replicas_have_it() {
    let redis = Redis::start().expect("it is installed");
    let address = redis.address();
    let (host, port) = address.split_once(':').expect("HOST:PORT");
    let replica = Redis::with_arguments(&["--replicaof", host, port]).expect("it is installed");
    until("the replica follows", || {
        let is_known = redis.info("connected_slaves") == "1";
        (is_known && redis.info("slave0").contains("online")).then_some(())
    });
    let options = "?wait_replicas=1&wait_timeout=1s&command_timeout=30s&connect_timeout=10s";
    let server = TestServer::on(&(redis.url() + options)).await;
    let ns = Namespace::fresh(&server, "ns");
    let mut record = Record::default();
    for _ in 0..20 {
        record.write_until_done(&ns).await;
    }
    let entries = format!("holdfast:{{{}}}:ue", ns.name);
    for key in record.done.keys() {
        assert!(replica.run::<bool>(&["HEXISTS", &entries, key]), "{key} was acknowledged");
    }
    replica.pause();
    let client = Bytes::from_static(&[7; 8]);
    let options = numbered(&client, 1);
    let again = SetRequest { expiry: ttl(100), options, ..set("k", "v") };
    ns.fails(again.clone(), ErrorReason::OutcomeUnknown).await;
    // It is there, and reads wait for no replica; nor do they where something has to be settled before, as it has ended.
    while ns.get("k").await.is_some() {}
    // But sent again it is no more than it was. Nor is a clear.
    ns.fails(again.clone(), ErrorReason::OutcomeUnknown).await;
    let clear = ClearNamespaceRequest { options: numbered(&client, 2), ..Default::default() };
    ns.fails(clear.clone(), ErrorReason::OutcomeUnknown).await;
    ns.fails(clear.clone(), ErrorReason::OutcomeUnknown).await;
    replica.go_on();
    ns.ok(again).await;
    ns.ok(clear).await;
    record.write_until_done(&ns).await;
}
