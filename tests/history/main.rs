//! Histories: clients on real servers, through faults, and a judge of all that they saw.
//!
//! `cargo test --test history` runs seeds that are the same each time, and a new one for each kind of store, which it
//! prints. Variables make it do more, and docs/reliability.md says what is judged:
//!
//! - `HISTORY_SECONDS=600 cargo test --release --test history -- long` goes on with new seeds for so long.
//! - `HISTORY_SEED=7 cargo test --test history -- seed` runs one seed on each kind of store; with `HISTORY_SECONDS`
//!   again and again, since only what the clients decide is the same each time.
//! - `HISTORY_ON=Files` leaves out all other kinds, `HISTORY_STEPS=500` has each client do so much.
//! - `HISTORY_FAULTS=Kill,Pause` has these faults and no others.
//! - `HISTORY_HOLDFASTD=PATH` judges that program.

#[path = "../common/mod.rs"]
mod common;

mod changes;
mod client;
#[path = "../model/coordination.rs"]
#[allow(dead_code, reason = "the judge uses a part of the model")]
mod coordination;
#[path = "../model/draft.rs"]
mod draft;
mod falsified;
mod faults;
mod history;
mod judge;
mod made_up;
#[path = "../model/model.rs"]
#[allow(dead_code, reason = "the judge uses a part of the model")]
mod model;
mod mutations;
mod mutations_lineages;
mod mutations_losses;
mod run;
mod servers;
mod soak;
mod watching;
mod witness;
mod workload;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
    time::{Duration, Instant},
};

use libtest_mimic::{Arguments, Failed, Trial};

use common::RUNTIME;
use faults::Fault;
use history::{Chronicle, Epoch};
use run::Plan;
use servers::{Kind, kinds};

/// What each client does in a run.
const STEPS: usize = 120;

/// Seeds that are run each time.
const SEEDS: [u64; 2] = [1, 2];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Each run has servers and clients enough for a machine.
    arguments.test_threads = Some(1);
    let only: Option<String> = from_env("HISTORY_ON");
    let kinds: Vec<Kind> = kinds()
        .into_iter()
        .filter(|kind| only.as_ref().is_none_or(|only| *only == format!("{kind:?}")))
        .collect();
    let mut trials = vec![Trial::test("soak", || soak::soak(seconds().unwrap_or(soak::SMOKE)))];
    trials.extend(mutations::trials());
    trials.extend(mutations_lineages::trials());
    trials.extend(mutations_losses::trials());
    trials.extend(made_up::trials());
    for &kind in &kinds {
        for seed in SEEDS {
            let name = format!("{kind:?}::seed_{seed}");
            trials.push(Trial::test(name, move || judged(&Plan::of(seed, kind, STEPS))));
        }
        let name = format!("{kind:?}::new_seed");
        trials.push(Trial::test(name, move || judged(&Plan::of(any_seed(), kind, STEPS))));
    }
    if let Some(limit) = seconds() {
        trials.push(Trial::test("long", {
            let kinds = kinds.clone();
            move || again(limit, &kinds, any_seed)
        }));
    }
    if let Some(seed) = from_env("HISTORY_SEED") {
        let limit = seconds().unwrap_or_default();
        trials.push(Trial::test("seed", move || again(limit, &kinds, || seed)));
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// Run after run until the time is over, at least one on each kind of store.
fn again(limit: Duration, kinds: &[Kind], seed: impl Fn() -> u64) -> Result<(), Failed> {
    let (start, mut runs) = (Instant::now(), 0);
    loop {
        for &kind in kinds {
            let steps = from_env("HISTORY_STEPS").unwrap_or(3 * STEPS);
            let mut plan = Plan::of(seed(), kind, steps);
            if let Ok(names) = env::var("HISTORY_FAULTS") {
                plan.faults = Fault::named(kind, &names);
            }
            judged(&plan)?;
            runs += 1;
        }
        if start.elapsed() >= limit {
            eprintln!("{runs} runs");
            return Ok(());
        }
    }
}

/// One run, and what the judge says of it.
fn judged(plan: &Plan) -> Result<(), Failed> {
    eprintln!("{plan}");
    let chronicles = RUNTIME.block_on(run::run(plan));
    chronicles.iter().for_each(|chronicle| eprintln!("  {chronicle}"));
    chronicles.iter().try_for_each(|chronicle| judge_one(plan, chronicle))
}

fn judge_one(plan: &Plan, chronicle: &Chronicle) -> Result<(), Failed> {
    judge::judge_all(chronicle).map_err(|violation| {
        let path = keep(chronicle, plan.seed);
        let seed = plan.seed;
        let again = format!(
            "HISTORY_SEED={seed} HISTORY_ON={:?} HISTORY_STEPS={} HISTORY_FAULTS={} HISTORY_SECONDS=60 \
             cargo test --test history -- seed",
            plan.kind,
            plan.steps,
            plan.fault_names(",")
        );
        format!("{violation}\n{plan}\nthe whole history: {}\nrepeat with {again}", path.display()).into()
    })
}

/// Writes down all that was seen, for who looks into it.
fn keep(chronicle: &Chronicle, seed: u64) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}.txt"));
    let mut lines: Vec<String> = chronicle.calls.iter().map(ToString::to_string).collect();
    lines.extend(chronicle.changes.iter().map(|change| format!("{change:?}")));
    for epoch in &chronicle.epochs {
        let Epoch { lineage, base, shared, last, initial, log, lock_log, .. } = epoch;
        lines.push(format!(
            "lineage {lineage} from {base} to {last}, sharing {shared:?}, with {initial:?}"
        ));
        lines.extend(log.iter().map(|event| format!("log: {event:?}")));
        lines.extend(lock_log.iter().map(|event| format!("log of locks: {event:?}")));
    }
    lines.extend(chronicle.watches.iter().map(|watch| format!("{watch:?}")));
    lines.extend(chronicle.lock_watches.iter().map(|watch| format!("{watch:?}")));
    fs::write(&path, lines.join("\n")).expect("a file can be written");
    path
}

fn seconds() -> Option<Duration> {
    from_env("HISTORY_SECONDS").map(Duration::from_secs)
}

fn from_env<T: FromStr>(name: &str) -> Option<T> {
    env::var(name).ok()?.parse().ok()
}

/// Another one each time.
fn any_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    // Short enough to be typed.
    RandomState::new().hash_one(()) % 1_000_000_000
}
