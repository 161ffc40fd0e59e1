//! What the suites share: servers to test, and the one place that touches the raw API.
#![allow(dead_code, reason = "each suite uses its part of this")]

pub mod backends;
pub mod build;
pub mod call;
pub mod clock;
pub mod coordination;
pub mod failure;
pub mod fault_proxy;
pub mod health;
pub mod keeper;
pub mod lock_watcher;
pub mod namespace;
pub mod pair;
pub mod pipe;
pub mod program;
pub mod redis;
pub mod transfer;
pub mod watcher;

use std::sync::LazyLock;

use tokio::runtime::{Builder, Runtime};

/// Runs the servers and the cases of a suite.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime can be made")
});
