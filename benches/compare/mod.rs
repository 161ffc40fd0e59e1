//! Holdfast beside what else could do the same: a bare tonic echo, Redis by way of its crate, etcd. Values have 256
//! bytes, keys are 10,000 unless said; every server is a process of its own, all clients are this one. What is compared
//! runs in turns, several times; what counts is the ratio of the medians. What is not on this machine is named and
//! skipped.
//!
//! The tables are Markdown; beside them `compare.json` and `compare.svg` are written into `target/bench`, or into the
//! directory that `HOLDFAST_BENCH_OUTPUT` names.

mod cache;
pub mod callers;
mod durable;
mod locks;
mod memory;
mod plot;
mod rates;
mod report;
mod watchers;

use std::path::{Path, PathBuf};

use super::{measure, peer, server};
use report::Report;

/// Where the results are written, unless into `target/bench`.
const OUTPUT: &str = "HOLDFAST_BENCH_OUTPUT";

const KEYS: usize = 10_000;
pub const VALUE: [u8; 256] = [b'x'; 256];
pub const NAMESPACE: &str = "bench";

/// Prints what was compared, with its goals, and writes it to files.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    let mut report = Report::new();
    runtime.block_on(async {
        rates::run(&mut report).await;
        durable::run(&mut report).await;
        memory::run(&mut report).await;
        cache::run(&mut report).await;
    });
    println!("{}", report.markdown());
    let directory = std::env::var_os(OUTPUT).map_or_else(output, PathBuf::from);
    report.write(&directory).expect("the results can be written");
    println!("written to {}", directory.display());
}

fn output() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("bench")
}

/// The key of a number.
fn key(number: usize) -> String {
    format!("key:{number:012}")
}

/// The key of a call: callers walk through all of them, each from its own place on.
pub fn key_of(caller: usize, call: usize) -> String {
    key((call * 67 + caller) % KEYS)
}
