//! The real program on a real Redis: killed beside others that go on, let in by passwords and certificates.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod access;
#[expect(dead_code, reason = "the other suites use all of it")]
#[path = "../program/harness.rs"]
mod harness;
mod killed;
#[path = "../../../tests/common/redis/mod.rs"]
mod redis;

use std::{process::ExitCode, time::Duration};

use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Trial};
use tokio::runtime::Runtime;

/// A case with its name.
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
    let arguments = Arguments::from_args();
    let mut trials = Vec::new();
    for (file, cases) in [("access", access::CASES), ("killed", killed::CASES)] {
        for (name, run) in cases {
            let test = move || {
                let runtime = Runtime::new().unwrap();
                runtime
                    .block_on(async { tokio::time::timeout(HANGS, run()).await })
                    .map_err(|_| "the case hangs".into())
            };
            let trial = Trial::test(format!("{file}::{name}"), test);
            trials.push(trial.with_ignored_flag(!redis::is_installed()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
