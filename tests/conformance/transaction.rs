//! Transactions: compare, then act, as one step.

use futures::future::join_all;
use holdfast_proto::v1::{compare::Operand, operation_result::Kind, *};

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    no_compares_hold,
    failed_compares_are_an_answer_and_run_otherwise,
    later_operations_see_earlier_ones,
    all_writes_share_one_revision,
    results_are_one_an_operation,
    set_twice_is_one_change,
    deleted_then_set_is_created_anew,
    created_then_deleted_is_no_change,
    set_then_set_ttl_is_one_set_event,
    reads_alone_take_no_revision,
    a_failing_operation_fails_the_whole,
    a_failing_operation_of_otherwise_names_its_branch,
    over_10000_keys_is_too_large,
    over_a_quota_fails_the_whole,
    a_quota_is_about_the_outcome,
    delete_range_and_list_take_limits,
    expired_keys_are_absent,
    concurrent_transfers_keep_the_sum,
}

pub fn with(
    compares: impl IntoIterator<Item = Compare>,
    request: TransactRequest,
) -> TransactRequest {
    TransactRequest { compares: compares.into_iter().collect(), ..request }
}

fn results(answer: TransactResponse) -> Vec<Kind> {
    let kinds = answer.results.into_iter().map(|result| result.kind);
    kinds.map(|kind| kind.expect("a result has a kind")).collect()
}

async fn no_compares_hold(ns: Namespace) {
    let answer = ns.ok(transact([op::set("k", "1")])).await;
    assert!(answer.succeeded);
    assert!(answer.failed_compares.is_empty());
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
}

async fn failed_compares_are_an_answer_and_run_otherwise(ns: Namespace) {
    let written = ns.set("k", "1").await;
    let request = TransactRequest {
        otherwise: vec![op::set("otherwise", "1"), op::get("k")],
        ..transact([op::set("then", "1")])
    };
    let compares = [
        compare("k", Comparison::Equal, Operand::Exists(false)),
        compare("k", Comparison::Equal, Operand::Version(1)),
        compare("none", Comparison::Equal, Operand::ModRevision(0)),
    ];
    let answer = ns.ok(with(compares, request)).await;
    assert!(!answer.succeeded);
    assert_eq!(answer.failed_compares, [0, 2]);
    assert_eq!(answer.revision, written.mod_revision + 1);
    assert_eq!(answer.results.len(), 2);
    assert_eq!(ns.keys(all()).await, ["k", "otherwise"]);
    // Nothing to do otherwise is an answer too.
    let compares = [compare("k", Comparison::Equal, Operand::Exists(false))];
    let answer = ns.ok(with(compares, transact([op::set("then", "1")]))).await;
    assert!(!answer.succeeded && answer.results.is_empty());
}

async fn later_operations_see_earlier_ones(ns: Namespace) {
    ns.set("gone", "1").await;
    let answer = ns
        .ok(transact([
            op::set("n", "5"),
            op::increment("n", 2),
            op::get("n"),
            op::delete("gone"),
            op::get("gone"),
            op::set("o", "1"),
            op::list(all()),
            op::delete_range(prefix("n"), None),
            op::list(all()),
        ]))
        .await;
    let revision = answer.revision;
    let results = results(answer);
    assert_eq!(results[1], Kind::Increment(operation_result::Increment { value: 7 }));
    let Kind::Get(read) = &results[2] else { panic!("{:?}", results[2]) };
    let entry = read.entry.clone().expect("set before");
    assert_eq!(entry.value, Some("7".into()));
    assert_eq!((entry.version, entry.mod_revision), (1, revision));
    assert_eq!(results[4], Kind::Get(Default::default()));
    assert_eq!(listed(&results[6]), ["n", "o"]);
    assert_eq!(listed(&results[8]), ["o"]);
}

fn listed(result: &Kind) -> Vec<&str> {
    let Kind::List(list) = result else { panic!("{result:?}") };
    list.entries.iter().map(|entry| entry.key.as_str()).collect()
}

async fn all_writes_share_one_revision(ns: Namespace) {
    let before = ns.set("old", "1").await.mod_revision;
    let answer =
        ns.ok(transact([op::set("a", "1"), op::delete("old"), op::increment("n", 1)])).await;
    assert_eq!(answer.revision, before + 1);
    let events = ns.events_after(before).await;
    let kinds: Vec<_> = events.iter().map(|event| (event.key.as_str(), event.r#type())).collect();
    assert_eq!(kinds.len(), 3);
    for expected in [("a", EventType::Set), ("old", EventType::Delete), ("n", EventType::Set)] {
        assert!(kinds.contains(&expected), "{kinds:?}");
    }
    assert!(events.iter().all(|event| event.revision == answer.revision));
}

async fn results_are_one_an_operation(ns: Namespace) {
    ns.set("k", "1").await;
    let before = ns.get("k").await;
    let answer = ns
        .ok(transact([
            op::set("k", "2"),
            op::set_ttl("k", ttl(60_000)),
            op::set_ttl("none", ttl(60_000)),
            op::delete("none"),
            op::delete("k"),
        ]))
        .await;
    let (revision, time_ms) = (answer.revision, answer.time_ms);
    let results = results(answer);
    let Kind::Set(set) = &results[0] else { panic!("{:?}", results[0]) };
    assert_eq!((set.created, &set.previous), (false, &before));
    let entry = set.entry.clone().expect("Set answers with the entry");
    assert_eq!((entry.value, entry.version, entry.mod_revision), (None, 2, revision));
    assert_eq!(entry.updated_at_ms, time_ms);
    assert_eq!(results[1], Kind::SetTtl(operation_result::SetTtl { found: true }));
    assert_eq!(results[2], Kind::SetTtl(operation_result::SetTtl { found: false }));
    assert_eq!(results[3], Kind::Delete(Default::default()));
    let Kind::Delete(deleted) = &results[4] else { panic!("{:?}", results[4]) };
    let previous = deleted.previous.clone().expect("asked for");
    assert!(deleted.deleted);
    assert_eq!(previous.value, Some("2".into()));
}

async fn set_twice_is_one_change(ns: Namespace) {
    let before = ns.set("k", "0").await.mod_revision;
    let answer = ns.ok(transact([op::set("k", "1"), op::set("k", "2")])).await;
    let entry = ns.get("k").await.expect("set");
    assert_eq!((entry.version, entry.value), (2, Some("2".into())));
    let events = ns.events_after(before).await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].r#type(), events[0].revision), (EventType::Set, answer.revision));
    let previous = events[0].previous.clone().expect("with_previous");
    assert_eq!(previous.value, Some("0".into()));
}

async fn deleted_then_set_is_created_anew(ns: Namespace) {
    ns.set("k", "0").await;
    let before = ns.set("k", "1").await.mod_revision;
    let answer = ns.ok(transact([op::delete("k"), op::set("k", "2")])).await;
    let entry = ns.get("k").await.expect("set");
    assert_eq!((entry.version, entry.create_revision), (1, answer.revision));
    assert_eq!(entry.created_at_ms, answer.time_ms);
    let events = ns.events_after(before).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].r#type(), EventType::Set);
    assert_eq!(events[0].entry, Some(entry));
    let previous = events[0].previous.clone().expect("with_previous");
    assert_eq!(previous.value, Some("1".into()));
}

async fn created_then_deleted_is_no_change(ns: Namespace) {
    let before = ns.set("other", "0").await.mod_revision;
    let answer = ns.ok(transact([op::set("k", "1"), op::delete("k")])).await;
    assert_eq!((answer.revision, ns.revision().await), (before, before));
    let answer = ns.ok(transact([op::set("k", "1"), op::delete("k"), op::set("l", "1")])).await;
    assert_eq!(answer.revision, before + 1);
    let events = ns.events_after(before).await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].key, "l");
    assert_eq!(ns.ok(history("k")).await.events, []);
}

async fn set_then_set_ttl_is_one_set_event(ns: Namespace) {
    let before = ns.set("k", "0").await.mod_revision;
    let answer = ns.ok(transact([op::set("k", "1"), op::set_ttl("k", ttl(60_000))])).await;
    let events = ns.events_after(before).await;
    assert_eq!(events.len(), 1);
    let entry = events[0].entry.clone().expect("a Set has an entry");
    assert_eq!(events[0].r#type(), EventType::Set);
    assert_eq!((entry.version, entry.value), (2, Some("1".into())));
    assert_eq!(entry.expires_at_ms, Some(answer.time_ms + 60_000));
}

async fn reads_alone_take_no_revision(ns: Namespace) {
    let before = ns.set("k", "0").await.mod_revision;
    let reads = [op::get("k"), op::list(all()), op::delete("none"), op::set_ttl("none", never())];
    assert_eq!(ns.ok(transact(reads)).await.revision, before);
    assert_eq!(ns.revision().await, before);
}

async fn a_failing_operation_fails_the_whole(ns: Namespace) {
    let before = ns.set("text", "x").await.mod_revision;
    let request = transact([
        op::set("a", "1"),
        op::delete("text"),
        op::set("text", "y"),
        op::increment("text", 1),
        op::set("b", "1"),
    ]);
    let failure = ns.fails(request, ErrorReason::NotANumber).await;
    assert_eq!(failure.metadata.get("branch").map(String::as_str), Some("then"));
    assert_eq!(failure.number("operation"), 3);
    assert_eq!(ns.revision().await, before);
    assert_eq!(ns.keys(all()).await, ["text"]);
    assert_eq!(ns.value("text").await.as_deref(), Some("x"));
}

async fn a_failing_operation_of_otherwise_names_its_branch(ns: Namespace) {
    let before = ns.set("text", "x").await.mod_revision;
    let request = TransactRequest {
        compares: vec![compare("text", Comparison::Equal, Operand::Exists(false))],
        otherwise: vec![op::set("a", "1"), op::increment("text", 1)],
        ..transact([op::set("b", "1")])
    };
    let failure = ns.fails(request, ErrorReason::NotANumber).await;
    assert_eq!(failure.metadata.get("branch").map(String::as_str), Some("otherwise"));
    assert_eq!(failure.number("operation"), 1);
    assert_eq!(ns.revision().await, before);
}

async fn over_10000_keys_is_too_large(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    for chunk in 0..12 {
        let names: Vec<String> =
            (0..1000).map(|number| format!("{chunk:02}/{number:04}")).collect();
        let items = names.iter().map(|name| item(name, ""));
        pipe.send([pipeline_call::Operation::BatchSet(batch_set(items))]);
    }
    pipe.answers(12).await;
    let before = ns.revision().await;
    let halves = [
        op::delete_range(range("00", Some(b"06")), None),
        op::delete_range(range("06", Some(b"12")), None),
    ];
    let failure = ns.fails(transact(halves), ErrorReason::TooLarge).await;
    assert_eq!(failure.metadata.get("branch").map(String::as_str), Some("then"));
    assert_eq!(failure.number("operation"), 1);
    assert_eq!(ns.revision().await, before);
    assert_eq!(ns.ok(count(all())).await.count, 12_000);
}

async fn over_a_quota_fails_the_whole(ns: Namespace) {
    ns.ok(update(NamespaceSettings { quota_max_keys: Some(2), ..Default::default() })).await;
    let before = ns.set("a", "1").await.mod_revision;
    let request = transact([op::set("b", "1"), op::set("c", "1")]);
    ns.fails(request, ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, before);
    assert_eq!(ns.keys(all()).await, ["a"]);
}

async fn a_quota_is_about_the_outcome(ns: Namespace) {
    ns.ok(update(NamespaceSettings { quota_max_keys: Some(1), ..Default::default() })).await;
    ns.set("a", "1").await;
    ns.ok(transact([op::delete("a"), op::set("b", "1")])).await;
    assert_eq!(ns.keys(all()).await, ["b"]);
}

async fn delete_range_and_list_take_limits(ns: Namespace) {
    for key in ["a", "b", "c", "d"] {
        ns.set(key, key).await;
    }
    let limited = Operation {
        kind: Some(operation::Kind::List(operation::List {
            selector: Some(all()),
            reverse: true,
            limit: 2,
            keys_only: true,
            ..Default::default()
        })),
    };
    let request =
        transact([limited, op::delete_range(all(), Some(3)), op::delete_range(all(), Some(3))]);
    let results = results(ns.ok(request).await);
    assert_eq!(listed(&results[0]), ["d", "c"]);
    let Kind::List(list) = &results[0] else { unreachable!("listed") };
    assert!(list.more && list.entries.iter().all(|entry| entry.value.is_none()));
    let removed =
        |deleted, more| Kind::DeleteRange(operation_result::DeleteRange { deleted, more });
    assert_eq!(results[1], removed(3, true));
    assert_eq!(results[2], removed(1, false));
}

async fn expired_keys_are_absent(ns: Namespace) {
    let set = ns.ok(SetRequest { expiry: ttl(30), ..set("k", "1") }).await;
    while ns.ok(get("k")).await.time_ms < set.time_ms + 30 {}
    let compares = [compare("k", Comparison::Equal, Operand::Exists(false))];
    let request = transact([op::get("k"), op::list(all()), op::increment("k", 5), op::get("k")]);
    let answer = ns.ok(with(compares, request)).await;
    assert!(answer.succeeded);
    let results = results(answer);
    assert_eq!(results[0], Kind::Get(Default::default()));
    assert_eq!(listed(&results[1]), [""; 0]);
    assert_eq!(results[2], Kind::Increment(operation_result::Increment { value: 5 }));
}

async fn concurrent_transfers_keep_the_sum(ns: Namespace) {
    let accounts = ["a", "b", "c", "d"];
    for account in accounts {
        ns.set(account, "100").await;
    }
    let transfers = join_all((0..16).map(|worker| {
        let ns = ns.clone();
        async move {
            for round in 0..10 {
                transfer(&ns, accounts[worker % 4], accounts[(worker + round + 1) % 4]).await;
            }
        }
    }));
    let audits = async {
        for _ in 0..50 {
            let slots = ns.ok(batch_get(&accounts)).await.slots;
            let sum: i64 = slots.into_iter().map(|slot| amount(&slot.entry.expect("set"))).sum();
            assert_eq!(sum, 400);
        }
    };
    futures::join!(transfers, audits);
}

fn amount(entry: &Entry) -> i64 {
    let value = entry.value.as_ref().expect("asked for");
    let text = std::str::from_utf8(value).expect("text");
    text.parse().expect("a number")
}

/// Moves one unit, by compare-and-set on both accounts, as often as it takes.
async fn transfer(ns: &Namespace, from: &str, to: &str) {
    loop {
        let (source, target) = (ns.get(from).await.expect("set"), ns.get(to).await.expect("set"));
        if from == to {
            return;
        }
        let unchanged = |entry: &Entry| {
            compare(&entry.key, Comparison::Equal, Operand::ModRevision(entry.mod_revision))
        };
        let request = transact([
            op::set(from, (amount(&source) - 1).to_string()),
            op::set(to, (amount(&target) + 1).to_string()),
        ]);
        let compares = [unchanged(&source), unchanged(&target)];
        if ns.ok(with(compares, request)).await.succeeded {
            return;
        }
    }
}
