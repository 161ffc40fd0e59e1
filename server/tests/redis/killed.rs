//! A server is killed beside another one on the same Redis, which does what it would have done.

use std::collections::BTreeSet;

use holdfast_proto::v1::{
    AcquireRequest, EventType, ExistsRequest, Expiry, GetLockRequest, Lock, ReleaseRequest,
    Selector, SetRequest, WatchRequest, acquire_response::Outcome, expiry,
    kv_service_client::KvServiceClient, lock_service_client::LockServiceClient, release_request,
    selector, watch_request, watch_response::Body,
};
use tonic::transport::Channel;

use super::{
    harness::{Program, start},
    redis::Redis,
};

crate::cases! {
    what_a_killed_server_was_to_expire_expires_once,
    the_waiters_of_a_killed_server_are_passed_over,
    the_holder_at_a_killed_server_keeps_its_hold,
}

/// Two programs on a Redis.
async fn pair(redis: &Redis) -> [Program; 2] {
    let url = redis.url();
    [start(&["--backend", &url]).await, start(&["--backend", &url]).await]
}

async fn what_a_killed_server_was_to_expire_expires_once() {
    const NAMESPACES: usize = 20;
    const KEYS: u64 = 50;
    let redis = Redis::start().unwrap();
    let [killed, left] = pair(&redis).await;
    let mut kv = left.kv().await;
    let mut first_due = i64::MAX;
    for namespace in 0..NAMESPACES {
        for key in 0..KEYS {
            let answer = kv.set(expiring(namespace, key)).await.unwrap().into_inner();
            first_due = first_due.min(answer.entry.unwrap().expires_at_ms.unwrap());
        }
    }
    // Some namespaces are for the one to look after, some for the other; they are in the midst of it.
    while time_ms(&mut kv).await < first_due + 300 {}
    killed.signal("KILL").await;
    for namespace in 0..NAMESPACES {
        let mut seen = BTreeSet::new();
        let mut watch = left.watches().await.watch(expiries(namespace)).await.unwrap().into_inner();
        while seen.len() < KEYS as usize {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            let Some(Body::Events(events)) = message.body else {
                continue;
            };
            for event in events.events {
                let due = event.previous.unwrap().expires_at_ms.unwrap();
                let late_ms = event.time_ms - due;
                assert!((0..1_500).contains(&late_ms), "{} comes after {late_ms} ms", event.key);
                assert!(seen.insert(event.key), "twice");
            }
        }
        // What comes last says that nothing came twice later on.
        let answer = kv.set(expiring(namespace, KEYS)).await.unwrap().into_inner();
        loop {
            let message = watch.message().await.unwrap().expect("the watch goes on");
            if let Some(Body::Events(events)) = message.body {
                assert_eq!(events.events.len(), 1);
                assert_eq!(events.events[0].key, answer.entry.unwrap().key);
                break;
            }
        }
    }
}

fn expiring(namespace: usize, key: u64) -> SetRequest {
    SetRequest {
        namespace: format!("n{namespace}"),
        key: format!("k{key}"),
        value: "v".into(),
        expiry: Some(Expiry { kind: Some(expiry::Kind::TtlMs(2_000 + key * 20)) }),
        ..SetRequest::default()
    }
}

fn expiries(namespace: usize) -> WatchRequest {
    let after = watch_request::AfterRevision { revision: 0, or_initial: false };
    WatchRequest {
        namespace: format!("n{namespace}"),
        selectors: vec![Selector { kind: Some(selector::Kind::All(selector::All {})) }],
        start: Some(watch_request::Start::AfterRevision(after)),
        types: vec![EventType::Expire.into()],
        with_previous: true,
        ..WatchRequest::default()
    }
}

async fn time_ms(kv: &mut KvServiceClient<Channel>) -> i64 {
    let request = ExistsRequest { namespace: "n0".into(), key: "none".into() };
    kv.exists(request).await.unwrap().into_inner().time_ms
}

async fn the_waiters_of_a_killed_server_are_passed_over() {
    let redis = Redis::start().unwrap();
    let [killed, left] = pair(&redis).await;
    let mut locks = LockServiceClient::new(left.channel().await);
    let held = hold(&mut locks, acquire(1, 0)).await;
    let mut gone = Vec::new();
    for number in 2..5 {
        let mut locks = LockServiceClient::new(killed.channel().await);
        gone.push(tokio::spawn(async move { locks.acquire(acquire(number, 60_000)).await }));
        until_waiting(&mut locks_of(&left).await, u32::from(number) - 1).await;
    }
    let mut waiting = locks_of(&left).await;
    let waiter = tokio::spawn(async move { hold(&mut waiting, acquire(5, 60_000)).await });
    until_waiting(&mut locks, 4).await;
    killed.signal("KILL").await;
    killed.ended().await;
    for call in gone {
        call.await.unwrap().unwrap_err();
    }
    let release = ReleaseRequest {
        namespace: "n".into(),
        name: "l".into(),
        hold: Some(release_request::Hold::Token(held.token)),
        ..ReleaseRequest::default()
    };
    let released = locks.release(release).await.unwrap().into_inner();
    assert!(released.released);
    let next = waiter.await.unwrap();
    let late_ms = next.acquired_at_ms - released.time_ms;
    assert!((0..3_000).contains(&late_ms), "{late_ms} ms after the release");
}

async fn the_holder_at_a_killed_server_keeps_its_hold() {
    let redis = Redis::start().unwrap();
    let [killed, left] = pair(&redis).await;
    let held = hold(&mut locks_of(&killed).await, acquire(1, 0)).await;
    killed.signal("KILL").await;
    killed.ended().await;
    // Its hold is its own, wherever it asks next.
    assert_eq!(hold(&mut locks_of(&left).await, acquire(1, 0)).await, held);
}

async fn locks_of(program: &Program) -> LockServiceClient<Channel> {
    LockServiceClient::new(program.channel().await)
}

fn acquire(number: u8, wait_ms: u64) -> AcquireRequest {
    AcquireRequest {
        namespace: "n".into(),
        name: "l".into(),
        acquire_id: vec![number; 16].into(),
        wait_ms,
        ..AcquireRequest::default()
    }
}

async fn hold(locks: &mut LockServiceClient<Channel>, request: AcquireRequest) -> Lock {
    match locks.acquire(request).await.unwrap().into_inner().outcome.unwrap() {
        Outcome::Lock(lock) => lock,
        Outcome::Holder(holder) => panic!("it is taken: {holder:?}"),
    }
}

async fn until_waiting(locks: &mut LockServiceClient<Channel>, count: u32) {
    let request = GetLockRequest { namespace: "n".into(), name: "l".into() };
    loop {
        let answer = locks.get_lock(request.clone()).await.unwrap().into_inner();
        if answer.lock.is_some_and(|lock| lock.waiting == count) {
            return;
        }
    }
}
