//! Reads that a near cache answers from the memory of this program, beside a cache that is nothing but a cache.

use std::{hint::black_box, time::Instant};

use bytes::Bytes;
use holdfast_client::{Cached, NearCache, Raw};
use moka::sync::Cache;

use super::{
    KEYS, NAMESPACE, VALUE,
    callers::{Call, Typed, fill},
    key,
    measure::{median, rounds, scaled},
    report::{Goal, Report, Unit},
    server::{self, Apart},
};

/// How many reads a round has.
const READS: usize = 5_000_000;

/// Compares with moka.
pub async fn run(report: &mut Report) {
    let server = Apart::start("memory:");
    let namespace = server::connect(&server.address).await.namespace(NAMESPACE);
    let namespace = namespace.with_codec(Raw::new());
    fill(Typed(namespace.clone(), Call::Set)).await;
    let ours = namespace.near_cache::<Bytes>("").await.expect("a cache can be filled");
    let theirs = Cache::new(KEYS as u64 * 2);
    let keys: Vec<_> = (0..KEYS).map(key).collect();
    for key in &keys {
        theirs.insert(key.clone(), Bytes::from_static(&VALUE));
    }
    let (mut our_ns, mut their_ns) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        our_ns.push(nanos_each(&keys, |key| hit(&ours, key)));
        their_ns.push(nanos_each(&keys, |key| {
            black_box(theirs.get(key).expect("the key is held"));
        }));
    }
    let figures = (median(our_ns), median(their_ns));
    let what = "near-cache hit, 1 thread";
    report.add(what, "moka get", Unit::Nanos, figures, Some(Goal::AtMost(2.0)));
}

fn hit(cache: &NearCache<Raw, Bytes>, key: &str) {
    let Cached::Held(entry) = cache.get_fresh(key) else {
        panic!("the key is held, and fresh");
    };
    black_box(entry);
}

fn nanos_each(keys: &[String], read: impl Fn(&String)) -> f64 {
    let (reads, start) = (scaled(READS), Instant::now());
    for number in 0..reads {
        read(&keys[number.wrapping_mul(7919) % KEYS]);
    }
    start.elapsed().as_nanos() as f64 / reads as f64
}
