//! The conformance suite: every case on every backend, over gRPC, against a server in this process.
//!
//! A case gets a namespace that nobody has used and a connection of its own; its name is the sentence
//! that it proves. Adding a backend is one line in `common/backends.rs`.

#[path = "../common/mod.rs"]
mod common;

mod admin;
mod batch;
mod compare;
mod condition;
mod errors;
mod errors_calls;
mod errors_coordination;
mod errors_parts;
mod expiry;
mod expiry_races;
mod guards;
mod history_at_revision;
mod increment;
mod kv;
mod leases;
mod leases_keys;
mod limits;
mod list_scan;
mod locks;
mod locks_queue;
mod locks_watch;
mod namespace;
mod pages;
mod pipeline;
mod register;
mod requests;
mod requests_bounds;
mod transaction;
mod transfer;
mod transfer_locks;
mod watch;
mod watch_cursor;
mod watch_state;

use std::{
    process::ExitCode,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};

use common::{
    RUNTIME,
    backends::{BACKENDS, Backend, TestServer},
    namespace::Namespace,
};

/// One sentence of behaviour.
struct Case {
    name: &'static str,
    run: fn(Namespace) -> BoxFuture<'static, ()>,
}

/// Lists the cases of a topic; one that is forgotten is dead code, which the lints refuse.
macro_rules! cases {
    ($($name:ident,)*) => {
        pub fn cases() -> Vec<crate::Case> {
            vec![$(crate::Case {
                name: stringify!($name),
                run: |ns| Box::pin($name(ns)),
            },)*]
        }
    };
}
pub(crate) use cases;

/// Ends a case that waits for what never comes; no case takes a tenth of it.
const HANGS: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Cases wait more than they work.
    arguments.test_threads.get_or_insert(8);
    let topics = [
        ("admin", admin::cases()),
        ("batch", batch::cases()),
        ("compare", compare::cases()),
        ("condition", condition::cases()),
        ("errors", errors::cases()),
        ("errors", errors_calls::cases()),
        ("errors", errors_coordination::cases()),
        ("errors", errors_parts::cases()),
        ("expiry", expiry::cases()),
        ("expiry", expiry_races::cases()),
        ("guards", guards::cases()),
        ("guards", register::cases()),
        ("history", history_at_revision::cases()),
        ("increment", increment::cases()),
        ("kv", kv::cases()),
        ("leases", leases::cases()),
        ("leases", leases_keys::cases()),
        ("list", list_scan::cases()),
        ("list", pages::cases()),
        ("locks", locks::cases()),
        ("locks", locks_queue::cases()),
        ("locks", locks_watch::cases()),
        ("namespace", namespace::cases()),
        ("pipeline", pipeline::cases()),
        ("requests", requests::cases()),
        ("requests", requests_bounds::cases()),
        ("transaction", transaction::cases()),
        ("transfer", transfer::cases()),
        ("transfer_locks", transfer_locks::cases()),
        ("watch", watch::cases()),
        ("watch", watch_cursor::cases()),
        ("watch", watch_state::cases()),
    ];
    let mut trials = limits::trials();
    for backend in BACKENDS {
        let server = Arc::new(OnceLock::new());
        for (topic, cases) in &topics {
            for case in cases {
                trials.push(trial(backend, topic, case, server.clone()));
            }
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// A case on a backend, by the server that all of them share; ignored where the backend cannot be had.
fn trial(
    backend: &'static Backend,
    topic: &str,
    case: &Case,
    server: Arc<OnceLock<TestServer>>,
) -> Trial {
    let (name, run) = (case.name, case.run);
    let test = move || {
        let server = server.get_or_init(|| TestServer::start(backend));
        let namespace = Namespace::fresh(server, name);
        RUNTIME
            .block_on(async { tokio::time::timeout(HANGS, run(namespace)).await })
            .map_err(|_| "the case hangs".into())
    };
    let name = format!("{}::{topic}::{name}", backend.name);
    Trial::test(name, test).with_ignored_flag(!(backend.is_here)())
}
