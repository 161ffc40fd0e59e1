//! Redis loses what it had, or a part of it: whoever followed that is told, and no revision or token is given twice.

use std::collections::BTreeSet;

use holdfast_client::Error;
use holdfast_proto::v1::{
    ErrorReason, ImportRequest, SetRequest, WatchRequest, admin_service_client::AdminServiceClient,
};
use tokio::sync::mpsc;

use crate::{
    common::{
        build::*,
        coordination::*,
        failure::Failure,
        namespace::Namespace,
        redis::{Options, Redis, Sentinels, until},
    },
    fixture::*,
};

crate::cases! {
    a_flushed_redis_begins_another_history,
    a_redis_that_comes_back_empty_begins_another_history,
    a_redis_that_kept_everything_goes_on_far_beyond,
    what_is_lost_right_after_a_restart_is_not_given_again,
    a_watch_of_what_was_lost_is_told_and_the_next_goes_on,
    a_watch_survives_restarts_of_a_redis_that_keeps_everything,
    a_failover_repeats_no_revision_and_no_token,
    a_failover_under_load_repeats_nothing,
    an_import_of_which_a_part_was_lost_is_not_put_in_place,
}

async fn a_flushed_redis_begins_another_history() {
    let (redis, _server, ns) = started().await;
    loses_everything(&ns, || redis.run::<()>(&["FLUSHALL"])).await;
}

async fn a_redis_that_comes_back_empty_begins_another_history() {
    let (mut redis, _server, ns) = started().await;
    loses_everything(&ns, || redis.start_again()).await;
}

async fn loses_everything(ns: &Namespace, lose: impl FnOnce()) {
    let mut watch = watch_record(&typed(ns).await).await;
    let mut record = Record::default();
    for _ in 0..20 {
        record.write_until_done(ns).await;
    }
    record.check(&mut watch).await;
    let lock = ns.hold(acquire("l")).await;
    let (last, lineage) = (ns.revision().await, ns.lineage().await);
    lose();
    // Nobody writes, and yet the watch is told.
    let error = end(&mut watch).await;
    assert!(matches!(error, Error::LineageChanged { .. }), "{error}");
    let next = record.write_until_done(ns).await;
    assert!(next > last, "{next} comes after {last}");
    assert_eq!(ns.keys(prefix("w")).await.len(), 1);
    assert_ne!(ns.lineage().await, lineage);
    assert_eq!(ns.lock("l").await, None);
    assert!(ns.hold(acquire("l")).await.token > lock.token);
    let resumed = WatchRequest { lineage: Some(lineage), ..watch_after(all(), last) };
    let Err(failure) = ns.watch(resumed).await else {
        panic!("the history that it follows is gone");
    };
    failure.expect(ErrorReason::LineageChanged);
}

/// One that writes to disk before it answers.
fn keeping() -> Redis {
    let arguments = ["--appendonly", "yes", "--appendfsync", "always"].map(str::to_owned).to_vec();
    Redis::with(Options { arguments, ..Options::default() }).expect("it is installed")
}

async fn a_redis_that_kept_everything_goes_on_far_beyond() {
    let mut redis = keeping();
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    ns.set("k", "1").await;
    let lock = ns.hold(acquire_for("l", 600_000)).await;
    let (last, lineage) = (ns.revision().await, ns.lineage().await);
    redis.start_again();
    let mut record = Record::default();
    let next = record.write_until_done(&ns).await;
    // What was given and lost, if anything was, is passed over.
    assert!(next > last + (1 << 10), "{next} is far beyond {last}");
    assert_ne!(ns.lineage().await, lineage);
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
    // The hold is still the hold, and guards.
    ns.ok(SetRequest { options: guarded([&lock]), ..set("guarded", "1") }).await;
    // Who had seen nothing that could have been lost goes on.
    let resumed = WatchRequest { lineage: Some(lineage.clone()), ..watch_after(all(), last) };
    let mut watcher = ns.watching(resumed).await;
    assert_eq!(watcher.events(1).await[0].revision, next);
    let further = WatchRequest { lineage: Some(lineage), ..watch_after(all(), last + 1) };
    let Err(failure) = ns.watch(further).await else {
        panic!("that revision was not of this history");
    };
    assert_eq!(failure.expect(ErrorReason::LineageChanged).number("valid_through"), last);
}

async fn what_is_lost_right_after_a_restart_is_not_given_again() {
    let mut redis = keeping();
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    ns.set("k", "1").await;
    redis.start_again();
    let mut record = Record::default();
    let beyond = record.write_until_done(&ns).await;
    redis.run::<()>(&["FLUSHALL"]);
    // However far it had gone beyond what it came back with.
    let next = record.write_until_done(&ns).await;
    assert!(next > beyond, "{next} comes after {beyond}");
}

async fn a_watch_of_what_was_lost_is_told_and_the_next_goes_on() {
    let mut redis = Redis::start().expect("it is installed");
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    let kept = ns.set("kept", "1").await.mod_revision;
    let mut watcher = ns.watching(watch_after(all(), kept)).await;
    redis.save();
    // It is told of what will be lost.
    let lost = ns.set("lost", "1").await.mod_revision;
    assert_eq!(watcher.events(1).await[0].revision, lost);
    redis.start_again();
    let next = Record::default().write_until_done(&ns).await;
    let failure = watcher.end().await.expect(ErrorReason::LineageChanged);
    assert_eq!(failure.number("valid_through"), kept);
    // Who begins after that hears of all that comes.
    let mut watcher = ns.watching(watch_after(all(), kept)).await;
    assert_eq!(watcher.events(1).await[0].revision, next);
    let later = ns.set("later", "1").await.mod_revision;
    assert_eq!(watcher.events(1).await[0].revision, later);
}

async fn a_watch_survives_restarts_of_a_redis_that_keeps_everything() {
    const RESTARTS: usize = 3;
    let mut redis = keeping();
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    let mut watch = watch_record(&typed(&ns).await).await;
    let mut record = Record::default();
    for _ in 0..RESTARTS {
        for _ in 0..100 {
            record.write_until_done(&ns).await;
        }
        redis.start_again();
    }
    record.write_until_done(&ns).await;
    record.check(&mut watch).await;
}

async fn a_failover_repeats_no_revision_and_no_token() {
    let mut redis = Sentinels::start(1).expect("it is installed");
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    ns.set("kept", "1").await;
    let kept = ns.hold(acquire_for("kept", 600_000)).await;
    let lineage = ns.lineage().await;
    // From now on the replica does not get what is written, though it is acknowledged.
    redis.part();
    let lost = ns.hold(acquire_for("lost", 600_000)).await;
    let last = ns.set("lost", "1").await.mod_revision;
    redis.fail_over();
    let mut record = Record::default();
    let next = record.write_until_done(&ns).await;
    assert!(next > last, "{next} comes after {last}");
    assert_eq!(ns.value("kept").await.as_deref(), Some("1"));
    assert_eq!(ns.get("lost").await, None);
    assert_eq!(ns.lock("kept").await.expect("still held").token, kept.token);
    assert!(ns.hold(acquire("lost")).await.token > lost.token);
    let resumed = WatchRequest { lineage: Some(lineage.clone()), ..watch_after(all(), last) };
    let Err(failure) = ns.watch(resumed).await else {
        panic!("what it follows was lost");
    };
    let through = failure.expect(ErrorReason::LineageChanged).number("valid_through");
    assert!((kept.token..lost.token).contains(&through), "{through}");
    let resumed = WatchRequest { lineage: Some(lineage), ..watch_after(all(), through) };
    assert_eq!(ns.watching(resumed).await.events(1).await[0].revision, next);
}

async fn a_failover_under_load_repeats_nothing() {
    const WRITERS: usize = 4;
    const EACH: usize = 200;
    let mut redis = Sentinels::start(2).expect("it is installed");
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let ns = ns.clone();
            tokio::spawn(async move { write_and_lock(&ns, writer, EACH).await })
        })
        .collect();
    // In the midst of it.
    while ns.call(count(all())).await.map_or(0, |answer| answer.count) < (WRITERS * 20) as u64 {}
    redis.fail_over();
    let mut given = BTreeSet::new();
    for writer in writers {
        let of_writer = writer.await.expect("it does not fail");
        assert!(of_writer.is_sorted(), "revisions never go back");
        for revision in of_writer {
            assert!(given.insert(revision), "{revision} was given twice");
        }
    }
}

/// Makes so many writes and grants that are acknowledged; the revisions that they got.
async fn write_and_lock(ns: &Namespace, writer: usize, count: usize) -> Vec<u64> {
    let mut given = Vec::new();
    while given.len() < count {
        let key = format!("{writer}/{}", given.len());
        match ns.call(set(&key, "v")).await {
            Ok(answer) => given.push(answer.revision),
            Err(failure) => drop(fate(failure)),
        }
        match ns.call(acquire(&key)).await {
            Ok(answer) => {
                if let Some(lock) = granted(answer) {
                    given.push(lock.token);
                }
            }
            Err(failure) => drop(fate(failure)),
        }
    }
    given
}

async fn an_import_of_which_a_part_was_lost_is_not_put_in_place() {
    let (redis, _server, ns) = started().await;
    let value = "v".repeat(64 << 10);
    for number in 0..200 {
        ns.set(&format!("k{number:03}"), &value).await;
    }
    let copy = ns.sibling("copy");
    let mut parts = ns.export().await.parts(&copy).into_iter();
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let send = |part| {
        let request = ImportRequest { part: Some(part), replace: false };
        sender.send(request).expect("it is listened to");
    };
    let mut client = AdminServiceClient::new(copy.channel.clone());
    let requests = futures::stream::poll_fn(move |context| receiver.poll_recv(context));
    let importing = tokio::spawn(async move { client.import(requests).await });
    parts.by_ref().take(3).for_each(send);
    until("a part is staged", || {
        let keys: Vec<String> = redis.run(&["KEYS", &format!("*{{{}}}*", copy.name)]);
        (!keys.is_empty()).then_some(())
    });
    redis.run::<()>(&["FLUSHALL"]);
    parts.for_each(send);
    drop(sender);
    let answer = importing.await.expect("it ends");
    let failure = Failure::from(answer.expect_err("the first part is gone"));
    failure.expect(ErrorReason::BackendUnavailable);
    assert_eq!(copy.state().await.namespace, None);
}
