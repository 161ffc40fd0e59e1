//! Single calls over gRPC, as other languages make them, beside a bare tonic service that only sends the same value
//! back: 10,000 keys, values of 256 bytes, everything in this program and over one connection.

use bytes::Bytes;
use holdfast_client::{Namespace, Raw};

use super::{
    echo::Echo,
    measure::{calls, median, rounds},
    server,
};

const KEYS: usize = 10_000;
const VALUE: [u8; 256] = [b'x'; 256];

/// Prints calls a second of both, with 1 and 64 callers, measured in turns.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let client = server::connect(&server::start().await).await;
        let namespace = client.namespace("bench").with_codec(Raw::new());
        for index in 0..KEYS {
            set(namespace.clone(), index, 0).await;
        }
        let echo = Echo::start().await;
        println!(
            "{:<22} {:>12} {:>12} {:>8}",
            "median of rounds", "holdfast/s", "bare tonic/s", "ratio"
        );
        for callers in [1, 64] {
            let (mut gets, mut sets, mut echoes) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..rounds() {
                gets.push(calls(callers, &namespace, get).await.rate);
                sets.push(calls(callers, &namespace, set).await.rate);
                echoes.push(calls(callers, &echo, send).await.rate);
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

async fn get(namespace: Namespace<Raw>, caller: usize, call: usize) {
    let entry = namespace.get::<Bytes>(key(caller, call)).await;
    assert!(entry.expect("a get succeeds").is_some());
}

async fn set(namespace: Namespace<Raw>, caller: usize, call: usize) {
    namespace.set(key(caller, call), &VALUE).await.expect("a set succeeds");
}

async fn send(mut echo: Echo, _: usize, _: usize) {
    echo.call(Bytes::from_static(&VALUE)).await;
}

fn key(caller: usize, call: usize) -> String {
    format!("key:{:012}", (call * 67 + caller) % KEYS)
}
