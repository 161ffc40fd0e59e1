//! Sets with a request id beside sets without.

use std::{collections::BTreeSet, sync::Arc};

use holdfast_proto::v1::{RequestId, WriteOptions, kv_service_client::KvServiceClient};
use parking_lot::Mutex;
use tonic::transport::Channel;

use super::{
    heart::Heart,
    measure::{calls, median, rounds},
    set, set_with,
};

/// Prints the ratio of unary sets.
pub async fn run(channel: &Channel) {
    let kv = KvServiceClient::new(channel.clone());
    let numbered = (kv.clone(), Arc::new(Mutex::new(Numbers::default())));
    print_head();
    for callers in [1, 64] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            with.push(calls(callers, &numbered, set_numbered).await.rate);
            without.push(calls(callers, &kv, set).await.rate);
        }
        print(&format!("unary sets, {callers} callers"), with, without);
    }
}

/// Prints the ratio of sets in the store alone.
pub fn run_in_store() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime can be built");
    let heart = Heart::new();
    runtime.block_on(heart.fill());
    print_head();
    for batch in [64, 1] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..rounds() {
            with.push(runtime.block_on(heart.measure("set with an id", batch)));
            without.push(runtime.block_on(heart.measure("set", batch)));
        }
        print(&format!("sets in the store, {batch} at once"), with, without);
    }
}

fn print_head() {
    println!("{:<32} {:>12} {:>12} {:>8}", "median of rounds", "with id/s", "without/s", "ratio");
}

fn print(what: &str, with: Vec<f64>, without: Vec<f64>) {
    let (with, without) = (median(with), median(without));
    println!("{what:<32} {with:>12.0} {without:>12.0} {:>8.2}", with / without);
}

type Numbered = (KvServiceClient<Channel>, Arc<Mutex<Numbers>>);

async fn set_numbered((kv, numbers): Numbered, caller: usize, call: usize) {
    let (seq, done_below) = numbers.lock().begin();
    let request_id = RequestId { client_id: b"benchmrk"[..].into(), seq, done_below };
    let options = WriteOptions { request_id: Some(request_id), ..WriteOptions::default() };
    set_with(kv, caller, call, Some(options)).await;
    numbers.lock().under_way.remove(&seq);
}

/// The numbers of a client's requests.
#[derive(Default)]
struct Numbers {
    last: u64,
    under_way: BTreeSet<u64>,
}

impl Numbers {
    /// The next, and below which all have been answered.
    fn begin(&mut self) -> (u64, u64) {
        self.last += 1;
        self.under_way.insert(self.last);
        (self.last, *self.under_way.first().unwrap_or(&self.last))
    }
}
