//! The answer to a commit is lost on its way: what became of it is told truly, and nothing is applied twice.

use std::time::Duration;

use holdfast_proto::v1::{
    SetRequest, pipeline_answer::Result as Outcome, pipeline_call::Operation as Op,
};

use crate::{
    common::{
        backends::TestServer,
        build::*,
        coordination::*,
        namespace::Namespace,
        redis::{Proxy, Redis},
    },
    fixture::*,
};

crate::cases! {
    a_commit_whose_connection_is_cut_is_applied_once,
    a_commit_that_is_never_answered_is_applied_once,
    a_request_of_the_typed_client_is_applied_once_and_answered,
    connections_that_are_cut_again_and_again_lose_nothing,
    a_slow_way_to_redis_is_only_slow,
    a_large_commit_holds_redis_up_no_longer_than_its_writes_take,
}

/// A Redis, a server that reaches it through a proxy, and a namespace through that and through another server.
struct Apart {
    proxy: Proxy,
    far: Namespace,
    near: Namespace,
    _servers: [TestServer; 2],
    _redis: Redis,
}

async fn apart(options: &str) -> Apart {
    let redis = Redis::start().expect("it is installed");
    let proxy = Proxy::to(&redis.address()).await;
    let far = TestServer::on(&format!("redis://{}?{options}", proxy.address)).await;
    let near = serve(&redis.url()).await;
    let ns = Namespace::fresh(&far, "ns");
    // Redis knows the scripts from here on: what a marker is in is answered by what it does.
    ns.set("first", "v").await;
    Apart { proxy, near: ns.through(&near), far: ns, _servers: [far, near], _redis: redis }
}

async fn a_commit_whose_connection_is_cut_is_applied_once() {
    let Apart { proxy, far, near, .. } = &apart("command_timeout=30s").await;
    for round in 1..=5 {
        // The value is in the commit and nowhere else.
        let value = format!("lost-{round}");
        proxy.lose_answer_to(&value);
        let (ns, written) = (far.clone(), value.clone());
        let call = tokio::spawn(async move { try_set(&ns, "k", &written).await });
        proxy.lost(round).await;
        while near.value("k").await.as_ref() != Some(&value) {}
        let entry = near.get("k").await.expect("it is there");
        proxy.cut();
        match call.await.expect("it ends") {
            Fate::Done(revision) => assert_eq!(revision, entry.mod_revision),
            fate => assert_eq!(fate, Fate::Unknown, "it was applied"),
        }
        let mut record = Record::default();
        record.write_until_done(far).await;
        // It was not sent again since.
        assert_eq!(near.get("k").await, Some(entry));
        near.ok(delete_range(prefix("w"))).await;
    }
    assert_eq!(near.get("k").await.expect("it is there").version, 5);
}

async fn a_commit_that_is_never_answered_is_applied_once() {
    let Apart { proxy, far, near, .. } = &apart("command_timeout=1s&connect_timeout=5s").await;
    proxy.lose_answer_to("lost-value");
    match try_set(far, "k", "lost-value").await {
        Fate::Done(revision) => {
            assert_eq!(near.get("k").await.expect("applied").mod_revision, revision);
        }
        fate => assert_eq!(fate, Fate::Unknown, "it was applied"),
    }
    Record::default().write_until_done(far).await;
    let entry = near.get("k").await.expect("it was applied");
    assert_eq!(entry.version, 1);
}

async fn a_request_of_the_typed_client_is_applied_once_and_answered() {
    let Apart { proxy, far, near, .. } = &apart("command_timeout=1s&connect_timeout=5s").await;
    let client = typed(far).await;
    for round in 1..=5 {
        let value = format!("lost-{round}");
        proxy.lose_answer_to(&value);
        let done = client.set("k", &value).await.expect("it comes through");
        let entry = near.get("k").await.expect("it was applied");
        assert_eq!(entry.version, round);
        assert_eq!(entry.mod_revision, done.metadata.mod_revision.get());
    }
}

async fn connections_that_are_cut_again_and_again_lose_nothing() {
    const CUTS: usize = 20;
    let Apart { proxy, far, near, .. } = &apart("command_timeout=30s").await;
    let mut watch = watch_record(&typed(far).await).await;
    let mut record = Record::default();
    for _ in 0..CUTS {
        for _ in 0..10 {
            record.write(far).await;
        }
        proxy.cut();
    }
    record.write_until_done(far).await;
    record.check(&mut watch).await;
    let mut watch = watch_record(&typed(near).await).await;
    record.write_until_done(far).await;
    assert_eq!(next_key(&mut watch).await.1, *record.done.values().max().expect("written"));
}

async fn a_slow_way_to_redis_is_only_slow() {
    let Apart { proxy, far, near, .. } = &apart("command_timeout=30s").await;
    proxy.delay(Duration::from_millis(50));
    let entry = far.set("k", "v").await;
    assert_eq!(near.get("k").await.expect("set").mod_revision, entry.mod_revision);
    let mut watcher = far.watching(watch(all())).await;
    let next = near.set("k", "w").await;
    assert_eq!(watcher.events(1).await[0].revision, next.mod_revision);
}

async fn a_large_commit_holds_redis_up_no_longer_than_its_writes_take() {
    let redis = Redis::start().expect("it is installed");
    let server = TestServer::on(&(redis.url() + "?command_timeout=5s")).await;
    let ns = Namespace::fresh(&server, "ns");
    let lease_id = ns.lease(3_600_000).await;
    // All in one commit: many keys that are new, and the note of a lease on another that comes and goes.
    let batch = |first: usize| {
        let keys = (first..first + 1000).map(|number| item(&format!("k{number}"), ""));
        Op::BatchSet(batch_set(keys))
    };
    let leased = SetRequest { expiry: with_lease(lease_id), ..set("k", "") };
    let calls = (0..40).map(|number| batch(1000 * number));
    let calls = calls.chain([Op::Set(leased), Op::Set(set("k", ""))]);
    let mut pipe = ns.pipe().await;
    pipe.send(calls);
    for outcome in pipe.answers(42).await.into_values() {
        assert!(matches!(outcome, Outcome::BatchSet(_) | Outcome::Set(_)), "{outcome:?}");
    }
    assert_eq!(ns.ok(count(all())).await.count, 40_001);
}
