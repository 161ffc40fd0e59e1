//! What durability costs: sets on every journal beside `memory:` and etcd, the start beside Redis, and snapshots while
//! sets go on. Every server is a process of its own, with its data in one temporary directory. What is not on this
//! machine is named and skipped.

mod disk;
mod puts;
mod snapshot;
mod start;
mod value;

use super::{measure, peer, server};

/// Prints what durability costs.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        puts::run().await;
        start::run().await;
        snapshot::run().await;
    });
}
