//! Locks: taken and given up without contention, and handed over from one to the next.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use holdfast_proto::v1::{
    AcquireRequest, ReleaseRequest, acquire_request::Duration, acquire_response::Outcome,
    kv_service_client::KvServiceClient, lock_service_client::LockServiceClient,
    release_request::Hold,
};
use tonic::transport::Channel;

use super::{
    measure::{calls, median, micros, percentile, rounds, scaled},
    set,
};

const WAITERS: usize = 50;
const GRANTS_EACH: usize = 100;

/// Prints the rates of both.
pub async fn run(channel: &Channel) {
    uncontended(channel).await;
    handed_over(channel).await;
}

async fn uncontended(channel: &Channel) {
    let (locks, kv) =
        (LockServiceClient::new(channel.clone()), KvServiceClient::new(channel.clone()));
    println!("{:<44} {:>10} {:>10} {:>8}", "median of rounds", "pairs/s", "sets/s", "ratio");
    for callers in [1, 64] {
        let (mut pairs, mut sets) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            pairs.push(calls(callers, &locks, take_and_release).await.rate);
            sets.push(calls(callers, &kv, set).await.rate);
        }
        let (pairs, sets) = (median(pairs), median(sets));
        let name = format!("acquire and release (two calls), {callers} callers");
        println!("{name:<44} {pairs:>10.0} {sets:>10.0} {:>8.2}", pairs / sets);
    }
}

async fn take_and_release(mut locks: LockServiceClient<Channel>, caller: usize, _: usize) {
    let name = format!("lock:{caller}");
    let token = acquire(&mut locks, &name, 0).await;
    release(&mut locks, &name, token).await;
}

/// Each of the waiters takes the same lock again and again, and gives it up at once.
async fn handed_over(channel: &Channel) {
    let kv = KvServiceClient::new(channel.clone());
    let before_us = median(calls(1, &kv, set).await.latencies_us);
    let locks = LockServiceClient::new(channel.clone());
    let (start, released_us) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let tasks = (0..WAITERS).map(|_| {
        let (mut locks, released_us) = (locks.clone(), released_us.clone());
        tokio::spawn(async move {
            let mut latencies_us = Vec::new();
            for _ in 0..scaled(GRANTS_EACH) {
                let token = acquire(&mut locks, "handed over", 600_000).await;
                let now_us = micros(start.elapsed()) as u64;
                latencies_us.push((now_us - released_us.load(Ordering::SeqCst)) as f64);
                released_us.store(micros(start.elapsed()) as u64, Ordering::SeqCst);
                release(&mut locks, "handed over", token).await;
            }
            latencies_us
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.expect("a waiter does not fail"));
    }
    let rate = latencies_us.len() as f64 / start.elapsed().as_secs_f64();
    let set_us = before_us.midpoint(median(calls(1, &kv, set).await.latencies_us));
    let (p50, p99) = (percentile(latencies_us.clone(), 50), percentile(latencies_us, 99));
    println!("one lock, {WAITERS} waiting: {rate:.0} grants/s");
    println!(
        "from a release being sent to the next grant: p50 {p50:.0} µs, p99 {p99:.0} µs; \
         a set, one caller: p50 {set_us:.0} µs; ratio {:.2}",
        p50 / set_us
    );
}

async fn acquire(locks: &mut LockServiceClient<Channel>, name: &str, wait_ms: u64) -> u64 {
    let request = AcquireRequest {
        namespace: "locks".into(),
        name: name.into(),
        acquire_id: next_id().into(),
        duration: Some(Duration::TtlMs(600_000)),
        wait_ms,
        ..AcquireRequest::default()
    };
    let answer = locks.acquire(request).await.expect("a lock can be asked for").into_inner();
    match answer.outcome.expect("it is always set") {
        Outcome::Lock(lock) => lock.token,
        Outcome::Holder(holder) => panic!("{name} is held: {holder:?}"),
    }
}

async fn release(locks: &mut LockServiceClient<Channel>, name: &str, token: u64) {
    let request = ReleaseRequest {
        namespace: "locks".into(),
        name: name.into(),
        hold: Some(Hold::Token(token)),
        ..ReleaseRequest::default()
    };
    let answer = locks.release(request).await.expect("a lock can be released").into_inner();
    assert!(answer.released, "{name} was held until now");
}

/// An `acquire_id` that comes once.
fn next_id() -> Vec<u8> {
    static LAST: AtomicU64 = AtomicU64::new(0);
    u128::from(LAST.fetch_add(1, Ordering::Relaxed) + 1).to_be_bytes().to_vec()
}
