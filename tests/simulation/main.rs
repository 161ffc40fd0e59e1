//! Simulated servers: the store with its committer, expiry, watches and locks, on one thread, under a clock that goes on
//! only when everybody waits, over a backend that fails by the seed in every way that its contract allows. What was
//! answered is judged by what the log says was done.
//!
//! The same seed is the same run. A failure prints the seed; `SEED=… cargo test --test simulation` repeats it, and
//! `SIMULATE_SECONDS=… cargo test --release --test simulation` runs as many schedules as fit, on all cores.

mod call;
mod client;
mod clock;
mod faults;
mod holder;
mod judge;
#[path = "../common/random.rs"]
mod random;
mod schedule;
mod servers;
mod truth;
mod watcher;

use std::{
    env,
    hash::{BuildHasher as _, RandomState},
    num::NonZero,
    str::FromStr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use faults::Breach;

/// How many schedules are run unless it is said for how long.
const SCHEDULES: u64 = 150;

/// Schedules that have once shown a fault, each with what it showed.
const FORMER: [(u64, &str); 3] = [
    (7, "a server that was stopped while work was waiting hung for ever"),
    (12, "the same"),
    (17, "the same"),
];

#[test]
fn what_was_answered_is_what_was_done() {
    if let Some(seed) = from_env("SEED") {
        let report = schedule::run(seed, None);
        if report.verdict.is_err() || env::var_os("TRACE").is_some() {
            println!("{report}");
        }
        return report.verdict.unwrap();
    }
    let first = RandomState::new().hash_one(());
    let next = AtomicU64::new(first);
    let seconds = from_env("SIMULATE_SECONDS").map(Duration::from_secs);
    let begin = Instant::now();
    let (threads, is_over): (_, &(dyn Fn(u64) -> bool + Sync)) = match seconds {
        None => (1, &|seed: u64| seed.wrapping_sub(first) >= SCHEDULES),
        Some(seconds) => {
            let threads = thread::available_parallelism().map_or(1, NonZero::get);
            (threads, &move |_| begin.elapsed() >= seconds)
        }
    };
    let revisions = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if is_over(seed) {
                        return;
                    }
                    let report = schedule::run(seed, None);
                    revisions.fetch_add(report.revisions, Ordering::Relaxed);
                    assert!(report.verdict.is_ok(), "{report}");
                }
            });
        }
    });
    let schedules = next.into_inner().wrapping_sub(first) - threads as u64;
    println!("{schedules} schedules with {revisions:?} revisions from SEED={first} on");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..12 {
        let (once, again) = (schedule::run(seed, None).trace, schedule::run(seed, None).trace);
        let differ = once.lines.iter().zip(&again.lines).find(|(once, again)| once != again);
        assert_eq!(differ, None, "with SEED={seed}");
        assert_eq!(once.hash(), again.hash(), "with SEED={seed}");
    }
}

#[test]
fn what_once_failed_does_not_any_more() {
    for (seed, what) in FORMER {
        let report = schedule::run(seed, None);
        assert!(report.verdict.is_ok(), "{what}\n{report}");
    }
}

/// The judge is worth something only if it finds what is wrong.
#[test]
fn a_backend_that_breaks_its_contract_is_found_out() {
    for breach in [
        Breach::AppliesWhatFailed,
        Breach::LosesWrites,
        Breach::IgnoresReads,
        Breach::SkipsEvents,
        Breach::ReadsThePast,
        Breach::IsFromTheFuture,
    ] {
        let found = (0..60).find(|seed| schedule::run(*seed, Some(breach)).verdict.is_err());
        assert!(found.is_some(), "{breach:?} is not noticed");
    }
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}
