//! A register under a lock: what guards are for.
//!
//! Each client takes the lock, reads the register, adds one and writes it with its token. Between any two of its
//! steps it may be paused for as long as it takes another to get the lock. Which client is next is drawn from a
//! fixed seed, and a step is over before the next begins.

use holdfast_proto::v1::*;

use crate::common::{build::*, coordination::*, namespace::Namespace};

crate::cases! {
    without_guards_paused_clients_overwrite_others,
    with_guards_no_write_comes_late_and_none_is_lost,
}

const CLIENTS: usize = 5;
const STEPS: usize = 400;

/// What a client does next.
enum Next {
    Acquire,
    Read(Lock),
    Write(Lock, u64),
    Release(Lock),
}

/// How many writes were answered as applied.
async fn run(ns: &Namespace, with_guards: bool) -> u64 {
    ns.set("register", "0 0").await;
    let mut clients: Vec<Next> = (0..CLIENTS).map(|_| Next::Acquire).collect();
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut applied = 0;
    for _ in 0..STEPS {
        // The generator of Marsaglia's "Xorshift RNGs".
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        let client = &mut clients[usize::try_from(seed >> 33).expect("31 bits") % CLIENTS];
        *client = match std::mem::replace(client, Next::Acquire) {
            // Whoever holds the lock is paused meanwhile, for so long that it loses it.
            Next::Acquire => {
                if let Some(paused) = ns.lock("l").await {
                    assert!(ns.ok(break_lock(&paused, "paused")).await.broken);
                }
                Next::Read(ns.hold(acquire("l")).await)
            }
            Next::Read(lock) => {
                let (count, _) = parse(&ns.value("register").await.expect("set"));
                Next::Write(lock, count)
            }
            Next::Write(lock, count) => {
                let value = format!("{} {}", count + 1, lock.token);
                let options = with_guards.then(|| guarded([&lock])).flatten();
                match ns.call(SetRequest { options, ..set("register", value) }).await {
                    Ok(_) => applied += 1,
                    Err(failure) => drop(failure.expect(ErrorReason::LockLost)),
                }
                Next::Release(lock)
            }
            Next::Release(lock) => {
                ns.ok(release(&lock)).await;
                Next::Acquire
            }
        };
    }
    applied
}

/// The count and the token in the register.
fn parse(value: &str) -> (u64, u64) {
    let (count, token) = value.split_once(' ').expect("two numbers");
    (count.parse().expect("a number"), token.parse().expect("a number"))
}

/// What was written, in order.
async fn written(ns: &Namespace) -> Vec<(u64, u64)> {
    let answer = ns.ok(HistoryRequest { limit: 1_000, ..history("register") }).await;
    assert!(!answer.more, "few enough for one page");
    let values = answer.events.into_iter().rev().map(|event| {
        let value = event.entry.expect("never removed").value.expect("history has values");
        parse(std::str::from_utf8(&value).expect("text"))
    });
    values.collect()
}

/// How many writes came after one with a later token.
fn late(written: &[(u64, u64)]) -> usize {
    let mut newest = 0;
    let mut late = 0;
    for (_, token) in written {
        late += usize::from(*token < newest);
        newest = newest.max(*token);
    }
    late
}

async fn without_guards_paused_clients_overwrite_others(ns: Namespace) {
    let applied = run(&ns, false).await;
    let written = written(&ns).await;
    assert!(late(&written) > 0, "a register that accepts rising tokens only would refuse some");
    assert!(written.last().expect("written").0 < applied, "some additions are lost");
}

async fn with_guards_no_write_comes_late_and_none_is_lost(ns: Namespace) {
    let applied = run(&ns, true).await;
    let written = written(&ns).await;
    assert_eq!(late(&written), 0, "{written:?}");
    assert_eq!(written.last().expect("written").0, applied);
    assert!(applied > 0, "somebody got through");
}
