//! Random sequences of every operation, with a clock moved by hand, judged step by step by one small model.
//!
//! A failure prints the shortest sequence found and the seed; `SEED=… cargo test --test model` repeats it,
//! `CASES=…` runs more sequences than usual.

#[path = "../common/mod.rs"]
mod common;

mod by_hand;
mod by_hand_leases;
mod by_hand_locks;
mod by_hand_requests;
mod coordination;
mod draft;
mod model;
mod run;
mod steps;

use std::{
    env,
    process::ExitCode,
    str::FromStr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use libtest_mimic::{Arguments, Failed, Trial};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use common::{
    RUNTIME,
    backends::{BACKENDS, Backend, TestServer},
    clock::TestClock,
    namespace::Namespace,
};

/// How many sequences.
const CASES: u32 = 300;

/// How many where each step is a trip to another process, and the same rules run on three variants.
const CASES_ON_REDIS: u32 = 60;

/// Ends what waits for what never comes.
const HANGS: Duration = Duration::from_secs(20);

/// The server that all cases on a backend share, and its clock.
type Shared = Arc<OnceLock<(TestServer, Arc<TestClock>)>>;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // The output of panics is turned off and on for all threads.
    arguments.test_threads = Some(1);
    let mut trials = Vec::new();
    for backend in BACKENDS {
        let shared = Shared::default();
        let files =
            [by_hand::CASES, by_hand_leases::CASES, by_hand_locks::CASES, by_hand_requests::CASES];
        for case in files.into_iter().flatten() {
            let name = format!("{}::{}", backend.name, case.0);
            let shared = shared.clone();
            let trial = Trial::test(name, move || by_hand(backend, &shared, *case));
            trials.push(trial.with_ignored_flag(!(backend.is_here_with_clock)()));
        }
        let name = format!("{}::random_sequences_agree_with_the_model", backend.name);
        let trial = Trial::test(name, move || random_sequences(backend, &shared));
        trials.push(trial.with_ignored_flag(!(backend.is_here_with_clock)()));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

fn by_hand(backend: &Backend, shared: &Shared, (name, run): by_hand::Case) -> Result<(), Failed> {
    let (server, clock) = shared.get_or_init(|| start(backend));
    let run = run(Namespace::fresh(server, name), clock.clone());
    RUNTIME
        .block_on(async { tokio::time::timeout(HANGS, run).await })
        .map_err(|_| "the case hangs".into())
}

fn start(backend: &Backend) -> (TestServer, Arc<TestClock>) {
    let clock = TestClock::at(1_700_000_000_000);
    (TestServer::with_clock(backend, &clock), clock)
}

fn random_sequences(backend: &Backend, shared: &Shared) -> Result<(), Failed> {
    let (server, clock) = shared.get_or_init(|| start(backend));
    let cases = match backend.name.starts_with("redis") {
        true => CASES_ON_REDIS,
        false => CASES,
    };
    let seed = from_env("SEED").unwrap_or_else(any_seed);
    eprintln!("SEED={seed}");
    let config = Config {
        cases: from_env("CASES").unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 500,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&u64::to_le_bytes(seed));
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let hook = Arc::new(std::panic::take_hook());
    let ours = std::thread::current().id();
    let (shown, restored) = (Arc::clone(&hook), hook);
    // Shrinking panics often; what matters is in the error in the end. Panics of the server show.
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().id() != ours {
            shown(info);
        }
    }));
    let outcome = TestRunner::new_with_rng(config, random).run(&steps::steps(), |steps| {
        let namespace = Namespace::fresh(server, "model");
        let run = run::run(namespace, Arc::clone(clock), steps);
        let ended = RUNTIME.block_on(async { tokio::time::timeout(HANGS, run).await });
        ended.expect("the sequence hangs");
        Ok(())
    });
    std::panic::set_hook(Box::new(move |info| restored(info)));
    let name = backend.name;
    outcome.map_err(|error| {
        let again = format!("SEED={seed} cargo test --test model -- {name}::random");
        format!("{error}\nrepeat with {again}").into()
    })
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// Another one each time.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(())
}
