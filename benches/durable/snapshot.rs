//! What a snapshot of a million keys does to sets that come meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_proto::v1::{
    BatchSetRequest, SetRequest, batch_set_request::Item, kv_service_client::KvServiceClient,
};
use tonic::transport::Channel;

use super::{
    measure::{micros, percentile, scaled},
    peer::directory,
    server::{self, Apart},
    value::{Form, key},
};

const KEYS: usize = 1_000_000;
/// How many snapshots are waited for.
const SNAPSHOTS: usize = 4;

/// Prints the latency of sets while a snapshot is written, and between two.
pub async fn run() {
    let (data, keys) = (directory(), scaled(KEYS));
    let files = data.path().join("files");
    let url = format!("files:{}?snapshot_every=64GiB&snapshot_interval=10s", files.display());
    let apart = Apart::start(&url);
    fill(&apart.address, keys).await;
    let kv = KvServiceClient::new(server::channel(&apart.address).await);
    println!(
        "{:<52} {:>8} {:>8} {:>8}",
        format!("latency in µs of sets beside {keys} keys"),
        "p50",
        "p99",
        "count"
    );
    for callers in [1, 64] {
        measure(&kv, callers, &files).await;
    }
}

/// Sets keys in a new server so many to a message.
pub async fn fill(address: &str, keys: usize) {
    let mut kv = KvServiceClient::new(server::channel(address).await);
    let numbers: Vec<_> = (0..keys).collect();
    for numbers in numbers.chunks(1000) {
        let items = numbers.iter().map(|number| Item {
            key: key(*number),
            value: Form::Text.value(*number),
            content_type: Form::Text.content_type().into(),
            ..Item::default()
        });
        let request = BatchSetRequest {
            namespace: "bench".into(),
            items: items.collect(),
            ..BatchSetRequest::default()
        };
        kv.batch_set(request).await.expect("a batch can be set");
    }
}

async fn measure(kv: &KvServiceClient<Channel>, callers: usize, files: &Path) {
    let watch = Watch::start(files.to_owned());
    let tasks = (0..callers).map(|caller| {
        let (kv, watch) = (kv.clone(), watch.clone());
        tokio::spawn(set_until(kv, watch, caller))
    });
    let tasks: Vec<_> = tasks.collect();
    let (mut during, mut between) = (Vec::new(), Vec::new());
    for task in tasks {
        for (is_during, latency_us) in task.await.expect("sets go on") {
            let latencies = if is_during { &mut during } else { &mut between };
            latencies.push(latency_us);
        }
    }
    let print = |what: &str, latencies: Vec<f64>| {
        let what = format!("{callers} callers, {what}");
        if latencies.is_empty() {
            println!("{what:<52} {:>8} {:>8} {:>8}", "-", "-", 0);
            return f64::NAN;
        }
        let (p50, p99) = (percentile(latencies.clone(), 50), percentile(latencies.clone(), 99));
        println!("{what:<52} {p50:>8.0} {p99:>8.0} {:>8}", latencies.len());
        p99
    };
    let p99_between = print("between two snapshots", between);
    let p99_during = print("while a snapshot is written", during);
    println!(
        "ratio of the p99: {:.2}; a snapshot took {:.1} s",
        p99_during / p99_between,
        watch.mean_s()
    );
}

async fn set_until(
    mut kv: KvServiceClient<Channel>,
    watch: Arc<Watch>,
    caller: usize,
) -> Vec<(bool, f64)> {
    let mut latencies = Vec::new();
    while watch.written.load(Ordering::SeqCst) < SNAPSHOTS {
        let number = (latencies.len() * 67 + caller) % scaled(KEYS);
        let request = SetRequest {
            namespace: "bench".into(),
            key: key(number),
            value: Form::Text.value(number),
            content_type: Form::Text.content_type().into(),
            ..SetRequest::default()
        };
        let (before, start) = (watch.writing.load(Ordering::SeqCst), Instant::now());
        kv.set(request).await.expect("a set succeeds");
        let latency_us = micros(start.elapsed());
        latencies.push((before || watch.writing.load(Ordering::SeqCst), latency_us));
    }
    latencies
}

/// Looks whether a snapshot is being written: then there is one with a temporary name.
struct Watch {
    writing: AtomicBool,
    written: AtomicUsize,
    micros_written: AtomicUsize,
}

impl Watch {
    fn start(files: PathBuf) -> Arc<Self> {
        let watch = Arc::new(Self {
            writing: AtomicBool::new(false),
            written: AtomicUsize::new(0),
            micros_written: AtomicUsize::new(0),
        });
        let watching = watch.clone();
        tokio::task::spawn_blocking(move || watching.look(&files));
        watch
    }

    fn look(&self, files: &Path) {
        let mut began: Option<Instant> = None;
        while self.written.load(Ordering::SeqCst) < SNAPSHOTS {
            let is_writing = is_written(files);
            self.writing.store(is_writing, Ordering::SeqCst);
            if is_writing {
                began = began.or_else(|| Some(Instant::now()));
            } else if let Some(began) = began.take() {
                let taken_us = micros(began.elapsed()) as usize;
                self.micros_written.fetch_add(taken_us, Ordering::SeqCst);
                self.written.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn mean_s(&self) -> f64 {
        let micros_written = self.micros_written.load(Ordering::SeqCst);
        micros_written as f64 / 1e6 / self.written.load(Ordering::SeqCst).max(1) as f64
    }
}

fn is_written(files: &Path) -> bool {
    let entries = fs::read_dir(files).expect("the directory of a server can be read");
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.into_iter().any(|name| name.starts_with("snapshot-") && name.ends_with(".tmp"))
}
