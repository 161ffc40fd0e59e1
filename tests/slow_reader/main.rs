//! What a client can have a server keep for it: a watcher that does not read while a million events pass costs bounded memory,
//! holds up nobody, and afterwards gets everything exactly once, or is told what it cannot have; small calls whose answers are
//! large cost as little; and answers that are kept for requests with an id are bounded in bytes, too.

#[path = "../common/mod.rs"]
mod common;

use std::{fs, process::ExitCode};

use futures::future::BoxFuture;
use holdfast_proto::v1::{pipeline_answer::Result as Outcome, pipeline_call::Operation as Op, *};
use libtest_mimic::{Arguments, Trial};
use prost::Message as _;

use common::{
    RUNTIME,
    backends::{BACKENDS, TestServer},
    build::{all, batch_set, get, item, key, op, transact, update, watch},
    coordination::{numbered_done, unique},
    namespace::Namespace,
};

const EVENTS: u64 = 1_000_000;
/// How many on variants of Redis, where what sends them is the same as on Redis itself.
const EVENTS_ON_VARIANTS: u64 = 200_000;
const PER_REVISION: u64 = 1_000;

/// Much less than a million events take, much more than the rest of a busy server.
const SMALL_GROWTH: u64 = 256 << 20;
/// What the log of the other case may take, with all that belongs to its events.
const LARGE_GROWTH: u64 = 1 << 30;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // Memory is measured: one at a time, the small one first.
    arguments.test_threads = Some(1);
    type Case = (&'static str, fn(Namespace, Namespace, u64) -> BoxFuture<'static, ()>);
    let cases: [Case; 3] = [
        ("small_calls_with_large_answers_cost_little", |ns, reader, _| {
            Box::pin(large_answers(ns, reader))
        }),
        ("a_slow_reader_outside_the_log_is_told_so", |ns, slow, events| {
            Box::pin(outside(ns, slow, events))
        }),
        ("a_slow_reader_inside_the_log_gets_everything_once", |ns, slow, events| {
            Box::pin(inside(ns, slow, events))
        }),
    ];
    let kept: Case =
        ("large_answers_are_kept_up_to_a_bound", |ns, _, _| Box::pin(large_kept_answers(ns)));
    let mut trials = Vec::new();
    for backend in BACKENDS {
        let is_variant = backend.name.starts_with("redis-");
        let events = if is_variant { EVENTS_ON_VARIANTS } else { EVENTS };
        // It is for the store to count them, whatever keeps them.
        let kept = (backend.name == "memory").then_some(kept);
        for (name, run) in cases.into_iter().chain(kept) {
            let test = move || {
                let server = TestServer::start(backend);
                let namespace = Namespace::fresh(&server, name);
                let reader = Namespace { channel: server.connect(), ..namespace.clone() };
                RUNTIME.block_on(run(namespace, reader, events));
                Ok(())
            };
            let trial = Trial::test(format!("{}::{name}", backend.name), test);
            trials.push(trial.with_ignored_flag(!(backend.is_here)()));
        }
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}

async fn large_answers(ns: Namespace, reader: Namespace) {
    const CALLS: usize = 200;
    const VALUE_BYTES: usize = 1 << 20;
    let keys = ["a", "b", "c"];
    for key in keys {
        ns.set(key, vec![b'x'; VALUE_BYTES]).await;
    }
    let mut pipe = reader.pipe().await;
    let before = memory();
    pipe.send((0..CALLS).map(|_| Op::Transact(transact(keys.map(op::get)))));
    for _ in 0..CALLS {
        let answer = pipe.next().await.expect("lives").expect("goes on");
        assert!(answer.encoded_len() > keys.len() * VALUE_BYTES);
        assert_growth(before, SMALL_GROWTH);
    }
    pipe.send((0..CALLS).map(|_| Op::Get(get("a"))));
    for _ in 0..CALLS {
        let answer = pipe.next().await.expect("lives").expect("goes on");
        assert!(answer.encoded_len() > VALUE_BYTES);
        assert_growth(before, SMALL_GROWTH);
    }
}

async fn large_kept_answers(ns: Namespace) {
    const BOUND: u64 = 256 << 20;
    /// Each is kept in a record of its own, for a record is written anew with each answer.
    const STEP: u64 = 16;
    let client = unique(8);
    let keys: Vec<String> = (0..1000).map(|number| format!("{number:01000}")).collect();
    let set = |number, done_below| BatchSetRequest {
        options: numbered_done(&client, number * STEP, done_below * STEP),
        ..batch_set(keys.iter().map(|key| item(key, "")))
    };
    let before = memory();
    let answer = ns.ok(set(1, 0)).await;
    let answer_bytes = answer.encoded_len() as u64;
    let mut kept = 1;
    let failure = loop {
        assert!(kept * answer_bytes < 2 * BOUND, "{kept} answers are kept");
        match ns.call(set(kept + 1, 0)).await {
            Ok(_) => kept += 1,
            Err(failure) => break failure,
        }
    };
    let failure = failure.expect(ErrorReason::Overloaded);
    assert_eq!(failure.number("limit"), BOUND);
    assert!(kept * answer_bytes > BOUND / 2, "{kept} answers of {answer_bytes} bytes");
    assert_growth(before, 2 * BOUND);
    assert_eq!(ns.ok(set(1, 0)).await, answer);
    // Who says what is done makes room for others.
    ns.ok(set(kept + 1, kept)).await;
    ns.ok(set(kept + 2, kept)).await;
}

async fn outside(ns: Namespace, reader: Namespace, events: u64) {
    ns.ok(update(NamespaceSettings {
        log_max_events: Some(1_000),
        log_max_bytes: Some(1 << 20),
        ..Default::default()
    }))
    .await;
    let mut slow = reader.watching(slow_watch()).await;
    let before = memory();
    let last = write(&ns, events).await;
    assert_growth(before, SMALL_GROWTH);
    // What was on its way may still come, in order; then the log no longer holds what is next.
    let failure = slow.end().await.expect(ErrorReason::Compacted);
    let oldest = failure.number("oldest_revision");
    assert!(oldest > slow.complete_through && oldest <= last);
    // Who asks for a fresh start gets one.
    let again =
        WatchRequest { start: common::build::after(slow.complete_through, true), ..slow_watch() };
    let mut again = reader.watching(again).await;
    assert!(again.created.reset);
    assert_eq!(again.initial().await.1, last);
}

async fn inside(ns: Namespace, reader: Namespace, events: u64) {
    ns.ok(update(NamespaceSettings {
        log_max_events: Some(events + 1),
        log_max_bytes: Some(1 << 30),
        ..Default::default()
    }))
    .await;
    let mut slow = reader.watching(slow_watch()).await;
    let first = slow.created.revision + 1;
    let before = memory();
    // One who keeps up is not held up: the writer ends, and so does this reader.
    let mut prompt = ns.watching(watch(key("k00000"))).await;
    let its_events = (events / PER_REVISION / 10) as usize;
    let (last, seen) = futures::join!(write(&ns, events), prompt.events(its_events));
    assert_eq!(seen.len(), its_events);
    assert_growth(before, LARGE_GROWTH);
    // The watcher itself checks that nothing comes twice or out of order; so the number says it all.
    let mut seen = 0;
    while slow.complete_through < last {
        let message = slow.next().await.expect("the watch lives");
        if let Some(watch_response::Body::Events(next)) = message.body {
            seen += next.events.len() as u64;
        }
    }
    assert_eq!(seen, events);
    assert_eq!(last - first + 1, events / PER_REVISION);
}

fn slow_watch() -> WatchRequest {
    WatchRequest { progress_interval_ms: None, ..watch(all()) }
}

/// Writes on a connection of its own; the last revision.
async fn write(ns: &Namespace, events: u64) -> u64 {
    const WINDOW: u64 = 8;
    let mut pipe = ns.pipe().await;
    let mut last = 0;
    for message in 0..events / PER_REVISION {
        let first_key = message % 10 * PER_REVISION;
        let names: Vec<String> =
            (first_key..first_key + PER_REVISION).map(|number| format!("k{number:05}")).collect();
        let value = format!("{message:0100}");
        pipe.send([Op::BatchSet(batch_set(names.iter().map(|name| item(name, &value))))]);
        if message >= WINDOW {
            last = next_revision(&mut pipe).await.max(last);
        }
    }
    for _ in 0..WINDOW {
        last = next_revision(&mut pipe).await.max(last);
    }
    last
}

async fn next_revision(pipe: &mut common::pipe::Pipe) -> u64 {
    let answer = pipe.next().await.expect("lives").expect("goes on");
    match answer.result {
        Some(Outcome::BatchSet(answer)) => answer.revision,
        other => panic!("{other:?}"),
    }
}

/// Bytes of memory this process has, its server included; 0 where that cannot be had.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn assert_growth(before: u64, bound: u64) {
    let growth = memory().saturating_sub(before);
    assert!(growth < bound, "{} MiB more than before", growth >> 20);
}
