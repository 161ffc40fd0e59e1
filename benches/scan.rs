//! What a scan of a million keys does to writes that come meanwhile, over gRPC: the latency of single sets without
//! and with scans under way, and with writers besides the one measured instead of scans.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::StreamExt as _;
use holdfast_client::{Namespace, Raw, Selector};

use super::{measure::scaled, server};

const KEYS: usize = 1_000_000;
const SETS: usize = 5_000;

/// Prints the latency of sets beside scans, and beside as busy a program that does not scan.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let server = server::start().await;
        let client = server::connect(&server).await;
        let namespace = client.namespace("bench").with_codec(Raw::new());
        let other = server::connect(&server).await.namespace("bench").with_codec(Raw::new());
        for batch in 0..scaled(KEYS / 1000) {
            let keys = (0..1000).map(|index| (format!("key:{batch:06}:{index:03}"), [b'x'; 16]));
            namespace.set_many(keys).await.expect("a batch can be set");
        }
        println!("{:<44} {:>8} {:>8} {:>8}", "latency of a set in µs", "p50", "p99", "max");
        measure("nothing else going on", &namespace).await;
        let reader = Busy::start(get_all_the_time, &other);
        measure("while another client gets", &namespace).await;
        reader.stop().await;
        let scanner = Busy::start(scan_all_the_time, &other);
        measure("while another client scans 1,000,000 keys", &namespace).await;
        let scanned = scanner.stop().await;
        println!("entries scanned meanwhile: {scanned}");
    });
}

async fn measure(what: &str, namespace: &Namespace<Raw>) {
    let mut latencies = Vec::with_capacity(scaled(SETS));
    for index in 0..scaled(SETS) {
        let start = Instant::now();
        namespace.set(format!("key:{index:06}:000"), &[b'y'; 16]).await.expect("a set succeeds");
        latencies.push(start.elapsed().as_micros());
    }
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100];
    println!("{what:<44} {:>8} {:>8} {:>8}", at(50), at(99), at(100));
}

async fn scan_all_the_time(namespace: Namespace<Raw>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let mut entries = namespace.scan_keys(Selector::all()).stream();
        while let Some(entry) = entries.next().await
            && !stop.load(Ordering::Relaxed)
        {
            entry.expect("a scan goes on");
            done.fetch_add(1, Ordering::Relaxed);
        }
    }
}

async fn get_all_the_time(namespace: Namespace<Raw>, stop: Arc<AtomicBool>, done: Arc<AtomicU64>) {
    while !stop.load(Ordering::Relaxed) {
        let entry = namespace.get::<Vec<u8>>("key:000500:500").await;
        entry.expect("a get succeeds");
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Something that goes on in the background.
struct Busy {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    task: tokio::task::JoinHandle<()>,
}

impl Busy {
    fn start<F>(
        work: fn(Namespace<Raw>, Arc<AtomicBool>, Arc<AtomicU64>) -> F,
        namespace: &Namespace<Raw>,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stop, done) = <(Arc<AtomicBool>, Arc<AtomicU64>)>::default();
        let task = tokio::spawn(work(namespace.clone(), stop.clone(), done.clone()));
        Self { stop, done, task }
    }

    async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        tokio::time::timeout(Duration::from_secs(10), self.task)
            .await
            .expect("it stops soon")
            .expect("it does not fail");
        self.done.load(Ordering::Relaxed)
    }
}
