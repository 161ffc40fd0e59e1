//! What happens to servers on Redis when Redis, or the way to it, fails: faults made with real processes.
//!
//! The cases of all backends are those of the other suites; here is what only a store apart from the server can do.

#[path = "../common/mod.rs"]
mod common;

mod answers;
mod away;
mod fixture;
mod lost;
mod many;
mod moved;
mod state;

use std::{process::ExitCode, time::Duration};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};

use common::{RUNTIME, redis};

/// A fault with its name.
type Case = (&'static str, fn() -> BoxFuture<'static, ()>);

/// Lists the cases of a file.
macro_rules! cases {
    ($($name:ident,)*) => {
        pub const CASES: &[$crate::Case] = &[$((stringify!($name), || Box::pin($name())),)*];
    };
}
pub(crate) use cases;

/// Ends a case that waits for what never comes.
const HANGS: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each has processes of its own, and some of them work hard.
    arguments.test_threads.get_or_insert(4);
    let files = [
        ("answers", answers::CASES),
        ("away", away::CASES),
        ("lost", lost::CASES),
        ("many", many::CASES),
        ("moved", moved::CASES),
        ("state", state::CASES),
    ];
    let mut trials = Vec::new();
    for (file, cases) in files {
        for (name, run) in cases {
            let test = move || {
                RUNTIME
                    .block_on(async { tokio::time::timeout(HANGS, run()).await })
                    .map_err(|_| "the case hangs".into())
            };
            let trial = Trial::test(format!("{file}::{name}"), test);
            trials.push(trial.with_ignored_flag(!redis::is_installed()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
