//! How long a start with a million keys takes.

use std::{sync::Arc, time::Instant};

use holdfast_server::{backend::registry::Registry, clock::SystemClock};

use super::{
    measure::{median, rounds, scaled},
    peer::{directory, redis},
    server::Apart,
    snapshot::fill,
    value::{Form, key},
};

const KEYS: usize = 1_000_000;
/// Large enough for no snapshot to be written.
const JOURNAL_ONLY: &str = "snapshot_every=64GiB&snapshot_interval=never";

/// Prints the time from the start of the process until it serves.
pub async fn run() {
    let (data, keys) = (directory(), scaled(KEYS));
    let (journal, snapshot, other) =
        (data.path().join("journal"), data.path().join("snapshot"), data.path().join("redis"));
    let journal = format!("files:{}?{JOURNAL_ONLY}", journal.display());
    let snapshot = format!("files:{}?{JOURNAL_ONLY}", snapshot.display());
    let sqlite = format!("sqlite:{}", data.path().join("state.sqlite").display());
    for url in [&journal, &snapshot, &sqlite] {
        fill(&Apart::start(url).address, keys).await;
    }
    rewrite(&snapshot).await;
    let items = (0..keys).map(|number| (key(number), Form::Text.value(number)));
    redis::write_append_only_file(&other, items);
    let subjects = [
        ("files:, from its journal", &journal),
        ("files:, from a snapshot", &snapshot),
        ("sqlite:", &sqlite),
    ];
    let mut times_ms = [Vec::new(), Vec::new(), Vec::new()];
    let mut redis_ms = Vec::new();
    for _ in 0..rounds().min(3) {
        for ((_, url), times_ms) in subjects.iter().zip(&mut times_ms) {
            let start = Instant::now();
            let apart = Apart::start(url);
            times_ms.push(start.elapsed().as_secs_f64() * 1e3);
            drop(apart);
        }
        let taken = redis::start_from_file(&other, keys);
        redis_ms.extend(taken.map(|taken| taken.as_secs_f64() * 1e3));
    }
    if redis_ms.is_empty() {
        println!("no `redis-server` on the path: it is skipped");
    }
    let redis_ms = (!redis_ms.is_empty()).then(|| median(redis_ms));
    println!(
        "{:<44} {:>10} {:>10}",
        format!("start with {keys} keys of 256 bytes"),
        "ms",
        "of Redis"
    );
    for ((name, _), times_ms) in subjects.iter().zip(times_ms) {
        let ms = median(times_ms);
        let ratio = redis_ms.map_or("-".into(), |redis_ms| format!("{:.2}", ms / redis_ms));
        println!("{name:<44} {ms:>10.0} {ratio:>10}");
    }
    if let Some(redis_ms) = redis_ms {
        println!("{:<44} {redis_ms:>10.0} {:>10}", "Redis, from its append-only file", "1.00");
    }
}

/// Leaves nothing but a snapshot, as `holdfastd compact` does.
async fn rewrite(url: &str) {
    let backend = Registry::default().open(url, Arc::new(SystemClock::default())).await;
    let backend = backend.expect("the data can be opened");
    backend.rewrite().await.expect("a snapshot can be written");
}
