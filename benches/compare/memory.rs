//! How much memory a server takes for a million keys.

use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use holdfast_client::Raw;

use super::{
    NAMESPACE, VALUE, key,
    measure::scaled,
    peer::redis::Redis,
    report::{Goal, Report, Unit},
    server::{self, Apart, resident_bytes},
};

const KEYS: usize = 1_000_000;
/// How many sets are under way at once.
const AT_ONCE: usize = 1000;
/// How long a server has to give back what it needed for the sets alone.
const PAUSE: Duration = Duration::from_secs(5);

/// Compares with Redis.
pub async fn run(report: &mut Report) {
    let Some(redis) = Redis::start().await else {
        return;
    };
    let keys = scaled(KEYS);
    let server = Apart::start("memory:");
    let namespace = server::connect(&server.address).await.namespace(NAMESPACE);
    let namespace = namespace.with_codec(Raw::new());
    stream::iter(0..keys)
        .for_each_concurrent(AT_ONCE, |number| {
            let set = namespace.set(key(number), &VALUE);
            async { drop(set.await.expect("a set succeeds")) }
        })
        .await;
    redis.fill((0..keys).map(|number| (key(number), Bytes::from_static(&VALUE)))).await;
    tokio::time::sleep(PAUSE.mul_f64(super::measure::scale())).await;
    let Some((ours, theirs)) = resident_bytes(server.id()).zip(resident_bytes(redis.id())) else {
        println!("this system does not say how much memory a process has: it is skipped");
        return;
    };
    let what = format!("resident memory, {keys} keys, `memory:`");
    let figures = (ours as f64, theirs as f64);
    report.add(&what, "Redis", Unit::Bytes, figures, Some(Goal::AtMost(1.3)));
}
