//! How late expiry events arrive at a watch over gRPC, beside how late a bare timer fires in the same program.
//!
//! First 5,000 keys that end within one second among 200,000 that do not; then 200,000 that do.

use std::time::{Duration, SystemTime};

use futures::StreamExt as _;
use holdfast_client::{Event, Expiry, Namespace, Raw, Selector, Timestamp, WatchItem};

use super::{measure::scaled, server};

const BYSTANDERS: usize = 200_000;
const BATCH: usize = 1000;

/// Prints the lateness of both rounds.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let client = server::connect(&server::start().await).await;
        let namespace = client.namespace("bench").with_codec(Raw::new());
        let bystanders: Vec<_> =
            (0..scaled(BYSTANDERS)).map(|index| format!("stays:{index}")).collect();
        set(&namespace, &bystanders, |_| Expiry::Ttl(Duration::from_secs(3600))).await;
        println!("{:<44} {:>8} {:>8} {:>8}", "lateness in ms", "p50", "p99", "max");
        measure(&namespace, "first", scaled(5_000)).await;
        measure(&namespace, "second", scaled(200_000)).await;
        bare_timers(scaled(5_000)).await;
    });
}

/// Lets `count` keys end within one second and prints how late their events arrive.
async fn measure(namespace: &Namespace<Raw>, prefix: &str, count: usize) {
    let mut events = namespace
        .watch::<Vec<u8>>(Selector::prefix(prefix))
        .expiries()
        .await
        .expect("a namespace can be watched");
    // All are to be written before the first ends.
    let first_ms = now_ms() + 2_000 + count as i64 / 20;
    let keys: Vec<_> = (0..count).map(|index| format!("{prefix}:{index:06}")).collect();
    let deadline = |index: usize| Timestamp::from_millis(first_ms + (index * 1000 / count) as i64);
    set(namespace, &keys, |index| Expiry::At(deadline(index))).await;
    assert!(now_ms() < first_ms, "this machine is too slow to write the keys before they end");

    let mut lateness = Vec::with_capacity(count);
    while lateness.len() < count {
        let item = events.next().await.expect("a watch does not end").expect("a watch goes on");
        if let WatchItem::Event(event) = item {
            lateness.push(now_ms() - deadline_of(&event));
        }
    }
    print(&format!("{count} keys in one second, at a watch"), lateness);
}

fn deadline_of(event: &Event<Vec<u8>>) -> i64 {
    let previous = event.previous.as_ref().expect("an expiry tells what ended");
    let deadline = previous.metadata.expires_at.expect("what ended had a deadline").as_millis();
    assert!(event.time.as_millis() >= deadline, "{} ended early", event.key);
    deadline
}

async fn set(namespace: &Namespace<Raw>, keys: &[String], expiry: impl Fn(usize) -> Expiry) {
    for (batch, keys) in keys.chunks(BATCH).enumerate() {
        let mut set = namespace.set_many(std::iter::empty::<(String, &[u8])>());
        for (index, key) in keys.iter().enumerate() {
            set = set.set_expiring(key, &[b'x'; 64], expiry(batch * BATCH + index));
        }
        set.await.expect("a batch can be set");
    }
}

/// The baseline: as many timers as there were keys, and nothing else.
async fn bare_timers(count: usize) {
    let first_ms = now_ms() + 500;
    let timers = (0..count).map(|index| async move {
        let deadline = first_ms + (index * 1000 / count) as i64;
        tokio::time::sleep(Duration::from_millis((deadline - now_ms()).max(0) as u64)).await;
        now_ms() - deadline
    });
    let tasks: Vec<_> = timers.map(tokio::spawn).collect();
    let mut lateness = Vec::with_capacity(count);
    for task in tasks {
        lateness.push(task.await.expect("a timer fires"));
    }
    print(&format!("{count} bare timers in one second"), lateness);
}

fn print(what: &str, mut lateness: Vec<i64>) {
    lateness.sort_unstable();
    let at = |percent: usize| lateness[(lateness.len() - 1) * percent / 100];
    println!("{what:<44} {:>8} {:>8} {:>8}", at(50), at(99), at(100));
}

fn now_ms() -> i64 {
    Timestamp::from(SystemTime::now()).as_millis()
}
