//! The store by itself, without the network: one thread, 10,000 keys, values of 256 bytes, with the log, the
//! versions and the deadlines all on.

use std::{
    collections::BTreeMap,
    hint::black_box,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use holdfast_server::{
    backend::{
        Key, NamespaceName,
        embedded::{Capacity, Embedded},
    },
    clock::SystemClock,
    store::{
        RequestId, Store, StoreOptions, Submission,
        command::{Command, Condition, Expiry, Set},
    },
};
use parking_lot::Mutex;

use super::measure::{median, round, rounds, scaled};

const KEYS: usize = 10_000;
const VALUE_BYTES: usize = 256;

/// Prints operations a second, for single operations and batches of 64, beside a locked ordered map that keeps
/// no log, no versions and no deadlines.
pub fn run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let bare = Bare::default();
    let heart = Heart::new();
    runtime.block_on(heart.fill());
    println!("{:<22} {:>12} {:>12} {:>8}", "median of rounds", "store/s", "bare map/s", "ratio");
    for (what, batch) in [("set", 64), ("set", 1), ("get", 64), ("get", 1)] {
        let (mut store_rates, mut bare_rates) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            store_rates.push(runtime.block_on(heart.measure(what, batch)));
            bare_rates.push(bare.measure(what, batch));
        }
        let (store, bare) = (median(store_rates), median(bare_rates));
        let name = format!("{what}, {batch} at once");
        println!("{name:<22} {store:>12.0} {bare:>12.0} {:>8.2}", store / bare);
    }
}

/// The store on the memory backend.
pub struct Heart {
    store: Arc<Store>,
    namespace: NamespaceName,
    keys: Vec<Key>,
    /// How many requests have had an id.
    requests: AtomicU64,
}

impl Heart {
    /// An empty one.
    pub fn new() -> Self {
        let clock = Arc::new(SystemClock::default());
        let backend = Arc::new(Embedded::new(clock.clone(), Capacity::default()));
        Self {
            store: Store::new(backend, clock, StoreOptions::default()),
            namespace: NamespaceName::new("bench"),
            keys: (0..KEYS).map(|index| Key::new(name(index).as_bytes())).collect(),
            requests: AtomicU64::new(0),
        }
    }

    /// Writes until the log is as full as it gets, so that what is measured includes forgetting.
    pub async fn fill(&self) {
        for round in 0..scaled(KEYS * 200 / 64) {
            self.set(round * 64, 64, false).await;
        }
    }

    /// Operations a second: `set`, `set with an id`, or `get`.
    pub async fn measure(&self, what: &str, batch: usize) -> f64 {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < round() {
            for _ in 0..256 / batch {
                match what {
                    "set" => self.set(done, batch, false).await,
                    "set with an id" => self.set(done, batch, true).await,
                    _ => self.get(done, batch).await,
                }
                done += batch;
            }
        }
        done as f64 / start.elapsed().as_secs_f64()
    }

    async fn set(&self, from: usize, batch: usize, with_ids: bool) {
        let value = [b'x'; VALUE_BYTES];
        let before = match with_ids {
            true => self.requests.fetch_add(batch as u64, Ordering::Relaxed),
            false => 0,
        };
        let id = |index: usize| RequestId {
            client: 1,
            seq: before + 1 + (index - from) as u64,
            done_below: before + 1,
            fingerprint: index as u64,
        };
        let submissions = (from..from + batch)
            .map(|index| {
                let set = Submission::command_only(Command::Set(Set {
                    key: self.keys[scatter(index)].clone(),
                    value: Bytes::copy_from_slice(&value),
                    content_type: "application/octet-stream".into(),
                    expiry: Expiry::Ttl(3_600_000),
                    condition: Condition::None,
                    return_previous: false,
                }));
                Submission { request: with_ids.then(|| id(index)), ..set }
            })
            .collect();
        for outcome in self.store.submit(&self.namespace, submissions).await {
            black_box(outcome.expect("a set succeeds"));
        }
    }

    async fn get(&self, from: usize, batch: usize) {
        let keys: Vec<_> =
            (from..from + batch).map(|index| self.keys[scatter(index)].clone()).collect();
        let snapshot = self.store.read(&self.namespace, &keys, None).await;
        black_box(snapshot.expect("a read succeeds"));
    }
}

/// What is left if all meaning is taken away.
#[derive(Default)]
struct Bare {
    map: Mutex<BTreeMap<String, Bytes>>,
}

impl Bare {
    fn measure(&self, what: &str, batch: usize) -> f64 {
        let names: Vec<_> = (0..KEYS).map(name).collect();
        let value = [b'x'; VALUE_BYTES];
        for name in &names {
            self.map.lock().insert(name.clone(), Bytes::copy_from_slice(&value));
        }
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < round() {
            for _ in 0..256 / batch {
                let mut map = self.map.lock();
                for index in done..done + batch {
                    let name = &names[scatter(index)];
                    if what == "set" {
                        map.insert(name.clone(), Bytes::copy_from_slice(&value));
                    } else {
                        black_box(map.get(name).cloned());
                    }
                }
                done += batch;
            }
        }
        done as f64 / start.elapsed().as_secs_f64()
    }
}

fn name(index: usize) -> String {
    format!("key:{index:012}")
}

/// Walks through all keys in no order that a map could make use of.
fn scatter(index: usize) -> usize {
    index.wrapping_mul(7919) % KEYS
}
