//! Single calls over gRPC, as other languages make them, beside a bare tonic service that only sends the same value
//! back: 10,000 keys, values of 256 bytes, everything in this program and over one connection.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use bytes::Bytes;
use holdfast_client::{Namespace, Raw};

use super::{echo::Echo, server};

const KEYS: usize = 10_000;
const VALUE: [u8; 256] = [b'x'; 256];
const ROUNDS: usize = 5;
const ROUND: Duration = Duration::from_millis(1000);

/// Prints calls a second of both, with 1 and 64 callers, measured in turns.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let client = server::connect(&server::start().await).await;
        let namespace = client.namespace("bench").with_codec(Raw::new());
        for index in 0..KEYS {
            set(namespace.clone(), index).await;
        }
        let echo = Echo::start().await;
        println!(
            "{:<22} {:>12} {:>12} {:>8}",
            "median of rounds", "holdfast/s", "bare tonic/s", "ratio"
        );
        for callers in [1, 64] {
            let (mut gets, mut sets, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                gets.push(measure(callers, &namespace, get).await);
                sets.push(measure(callers, &namespace, set).await);
                echoes.push(measure(callers, &echo, send).await);
            }
            let bare = median(echoes);
            for (what, rates) in [("get", gets), ("set", sets)] {
                let rate = median(rates);
                let name = format!("{what}, {callers} callers");
                println!("{name:<22} {rate:>12.0} {bare:>12.0} {:>8.2}", rate / bare);
            }
        }
    });
}

async fn get(namespace: Namespace<Raw>, index: usize) {
    let entry = namespace.get::<Bytes>(format!("key:{:012}", index % KEYS)).await;
    assert!(entry.expect("a get succeeds").is_some());
}

async fn set(namespace: Namespace<Raw>, index: usize) {
    let key = format!("key:{:012}", index % KEYS);
    namespace.set(key, &VALUE).await.expect("a set succeeds");
}

async fn send(mut echo: Echo, _: usize) {
    echo.call(Bytes::from_static(&VALUE)).await;
}

/// Calls a second of so many callers, each of which makes one call after the other.
async fn measure<T, F>(callers: usize, client: &T, call: fn(T, usize) -> F) -> f64
where
    T: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let start = Instant::now();
    let tasks = (0..callers).map(|caller| {
        let client = client.clone();
        tokio::spawn(async move {
            let mut calls = 0;
            while start.elapsed() < ROUND {
                call(client.clone(), calls * callers + caller).await;
                calls += 1;
            }
            calls
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut calls = 0;
    for task in tasks {
        calls += task.await.expect("a caller does not fail");
    }
    calls as f64 / start.elapsed().as_secs_f64()
}

fn median(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
