//! What is stored: what is not known is left alone, and what nobody uses costs nothing.

use std::collections::BTreeMap;

use futures::future::join_all;
use holdfast_proto::v1::{
    ErrorReason, pipeline_answer::Result as Outcome, pipeline_call::Operation as Op,
};

use crate::{
    common::{build::*, failure::Failure, namespace::Namespace, redis::Redis},
    fixture::*,
};

crate::cases! {
    state_of_an_unknown_format_is_refused_and_left_alone,
    a_broken_record_is_of_no_concern_to_others,
    idle_namespaces_cost_no_polling,
    prefixes_and_databases_are_apart,
    a_write_takes_two_trips_and_one_where_it_is_known_what_was_there,
}

async fn state_of_an_unknown_format_is_refused_and_left_alone() {
    let (redis, server, ns) = started().await;
    ns.ok(holdfast_proto::v1::SetRequest { expiry: ttl(600_000), ..set("k", "v") }).await;
    let idle = ns.sibling("idle");
    idle.ok(holdfast_proto::v1::SetRequest { expiry: ttl(100), ..set("due", "v") }).await;
    drop(server);
    let head = format!("holdfast:{{{}}}:head", ns.name);
    redis.run::<()>(&["HSET", &head, "format", "4711"]);
    let before = dump(&redis, &ns);
    assert!(before.len() > 2, "{:?}", before.keys());
    let server = serve(&redis.url()).await;
    let ns = ns.through(&server);
    for failure in [
        ns.call(get("k")).await.expect_err("refused"),
        ns.call(set("k", "w")).await.expect_err("refused"),
        ns.call(delete_range(all())).await.expect_err("refused"),
        ns.call(holdfast_proto::v1::ClearNamespaceRequest::default()).await.expect_err("refused"),
        ns.call(holdfast_proto::v1::DeleteNamespaceRequest::default()).await.expect_err("refused"),
    ] {
        assert!(failure.message.contains("format"), "{failure:?}");
        failure.expect(ErrorReason::Corrupt);
    }
    // Others are served.
    let other = ns.sibling("other");
    other.set("k", "v").await;
    // Also what falls due where nobody asks for anything.
    let deadlines = format!("holdfast:{{{}}}:ud", idle.name);
    let removed = async {
        while redis.run::<u64>(&["ZCARD", &deadlines]) > 0 {
            other.get("k").await;
        }
    };
    tokio::time::timeout(PATIENCE, removed).await.expect("what was due is removed");
    assert_eq!(dump(&redis, &ns), before);
}

async fn a_broken_record_is_of_no_concern_to_others() {
    let (redis, server, ns) = started().await;
    ns.ok(batch_set([item("bad", "v"), item("good", "v")])).await;
    drop(server);
    redis.run::<()>(&["HSET", &format!("holdfast:{{{}}}:ue", ns.name), "bad", "S what is this"]);
    let server = serve(&redis.url()).await;
    let ns = ns.through(&server);
    let mut pipe = ns.pipe().await;
    // Of each message all reads are made together, and so are all writes.
    for operations in [
        [Op::Get(get("good")), Op::Get(get("bad")), Op::Get(get("good"))],
        [Op::Set(set("good", "w")), Op::Set(set("bad", "w")), Op::Set(set("new", "w"))],
    ] {
        let first = pipe.send(operations);
        let answers = pipe.answers(3).await;
        assert!(matches!(answers[&first], Outcome::Get(_) | Outcome::Set(_)), "{answers:?}");
        assert!(matches!(answers[&(first + 2)], Outcome::Get(_) | Outcome::Set(_)), "{answers:?}");
        let Outcome::Status(status) = answers[&(first + 1)].clone() else {
            panic!("a failure expected: {answers:?}");
        };
        Failure::from(status).expect(ErrorReason::Corrupt);
    }
}

/// All that is stored of a namespace, as Redis itself would move it.
fn dump(redis: &Redis, ns: &Namespace) -> BTreeMap<String, Vec<u8>> {
    let keys: Vec<String> = redis.run(&["KEYS", &format!("holdfast:{{{}}}:*", ns.name)]);
    keys.into_iter().map(|key| (key.clone(), redis.run(&["DUMP", &key]))).collect()
}

async fn idle_namespaces_cost_no_polling() {
    const NAMESPACES: u32 = 2_000;
    const CALLS_A_SECOND: u64 = 100;
    let (redis, _server, ns) = started().await;
    let siblings: Vec<_> = (0..NAMESPACES).map(|number| ns.sibling(&number.to_string())).collect();
    for some in siblings.chunks(100) {
        join_all(some.iter().map(|sibling| sibling.set("k", "v"))).await;
    }
    // Each is watched, without being told how far the watch has come.
    let watching = |sibling: Namespace| async move {
        let request = holdfast_proto::v1::WatchRequest {
            progress_interval_ms: Some(3_600_000),
            ..watch(all())
        };
        sibling.watching(request).await
    };
    let mut watchers = Vec::new();
    for some in siblings.chunks(100) {
        watchers.extend(join_all(some.iter().cloned().map(watching)).await);
    }
    // What they were busy with at first comes to an end.
    for second in 0.. {
        let (calls, before) = (calls(&redis), ns.ok(get("k")).await.time_ms);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await; // What is measured is a rate.
        let taken_ms = ns.ok(get("k")).await.time_ms - before;
        let a_second = (self::calls(&redis) - calls) * 1_000 / taken_ms.unsigned_abs();
        if a_second < CALLS_A_SECOND {
            break;
        }
        assert!(second < 20, "{a_second} calls a second");
    }
    // And yet each is told at once.
    let (last, watcher) = (&siblings[1_234], &mut watchers[1_234]);
    let revision = last.set("k", "w").await.mod_revision;
    assert_eq!(watcher.events(1).await[0].revision, revision);
}

/// How many commands Redis has been asked for, those of scripts among them.
fn calls(redis: &Redis) -> u64 {
    calls_of(redis, |_| true)
}

fn calls_of(redis: &Redis, is_asked: impl Fn(&str) -> bool) -> u64 {
    let stats: String = redis.run(&["INFO", "commandstats"]);
    let calls = stats.lines().filter_map(|line| {
        let (command, rest) = line.split_once(":calls=")?;
        is_asked(command).then(|| rest.split(',').next()?.parse::<u64>().ok())?
    });
    calls.sum()
}

async fn prefixes_and_databases_are_apart() {
    let (redis, _server, ns) = started().await;
    ns.set("k", "1").await;
    for (number, place) in ["/1?", "?prefix=other", "/1?prefix=other"].into_iter().enumerate() {
        let server = crate::common::backends::TestServer::on(&(redis.url() + place)).await;
        let ns = ns.through(&server);
        assert_eq!(ns.get("k").await, None, "{place}");
        let mut watcher = ns.watching(watch(all())).await;
        ns.set("k", number.to_string()).await;
        assert_eq!(watcher.events(1).await.len(), 1, "{place}");
    }
    assert_eq!(ns.get("k").await.expect("set").version, 1);
}

async fn a_write_takes_two_trips_and_one_where_it_is_known_what_was_there() {
    const WRITES: u64 = 50;
    let (redis, _server, ns) = started().await;
    ns.set("first", "v").await;
    let steps = || calls_of(&redis, |command| command == "cmdstat_exec");
    let scripts = || calls_of(&redis, |command| command == "cmdstat_evalsha");
    let (steps_before, scripts_before) = (steps(), scripts());
    let start_ms = ns.ok(get("first")).await.time_ms;
    for number in 0..WRITES {
        ns.set(&format!("k{number}"), "v").await;
    }
    let seconds = (ns.ok(get("first")).await.time_ms - start_ms) as u64 / 1000;
    // One reads, one commits. Signs of life, retention, and looks behind the messages come besides.
    for calls in [steps() - steps_before, scripts() - scripts_before] {
        assert!((WRITES..WRITES + 8 * (seconds + 2)).contains(&calls), "{calls}");
    }
    let (steps_before, scripts_before) = (steps(), scripts());
    for _ in 0..WRITES {
        ns.set("k0", "w").await;
    }
    let (steps, scripts) = (steps() - steps_before, scripts() - scripts_before);
    assert!(scripts >= WRITES, "{scripts}");
    // On a busy machine some come too late for that.
    assert!(steps < WRITES, "{steps}");
}
