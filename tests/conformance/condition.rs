//! Conditions, expected lineages, and races between those who use them.

use futures::future::join_all;
use holdfast_proto::v1::*;

use crate::common::{build::*, failure::Failure, namespace::Namespace};

crate::cases! {
    absent_creates_and_never_overwrites,
    present_overwrites_and_never_creates,
    mod_revision_matches_the_present_entry_only,
    missing_key_equals_no_mod_revision,
    conditions_hold_for_deletes_too,
    failed_condition_brings_the_current_metadata,
    failed_condition_creates_no_namespace,
    mod_revision_tells_a_key_created_anew,
    set_ttl_moves_the_mod_revision,
    of_64_creators_one_wins,
    of_64_compare_and_set_writers_one_wins_each_round,
    of_64_conditional_deletes_one_wins,
    compare_and_set_loops_of_64_writers_lose_nothing,
    expected_lineage_must_be_the_present_one,
    empty_expected_lineage_means_a_missing_namespace,
    validation_comes_before_lineage_and_lineage_before_the_condition,
}

fn set_if(key: &str, value: &str, condition: Option<Condition>) -> SetRequest {
    SetRequest { condition, ..set(key, value) }
}

fn delete_if(key: &str, condition: Option<Condition>) -> DeleteRequest {
    DeleteRequest { condition, ..delete(key) }
}

/// The entry that a failed condition found.
fn current(failure: &Failure) -> Option<&Entry> {
    let detail = failure.condition.as_ref().expect("checked with the reason");
    detail.current.as_ref()
}

async fn absent_creates_and_never_overwrites(ns: Namespace) {
    assert!(ns.ok(set_if("k", "1", absent())).await.created);
    ns.fails(set_if("k", "2", absent()), ErrorReason::ConditionNotMet).await;
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
    ns.ok(delete("k")).await;
    assert!(ns.ok(set_if("k", "3", absent())).await.created);
}

async fn present_overwrites_and_never_creates(ns: Namespace) {
    ns.fails(set_if("k", "1", present()), ErrorReason::ConditionNotMet).await;
    assert_eq!(ns.get("k").await, None);
    ns.set("k", "2").await;
    assert!(!ns.ok(set_if("k", "3", present())).await.created);
    assert_eq!(ns.value("k").await.as_deref(), Some("3"));
}

async fn mod_revision_matches_the_present_entry_only(ns: Namespace) {
    let first = ns.set("k", "1").await.mod_revision;
    let second = ns.ok(set_if("k", "2", at_mod(first))).await.revision;
    for wrong in [first, second + 1, 0, u64::MAX] {
        ns.fails(set_if("k", "x", at_mod(wrong)), ErrorReason::ConditionNotMet).await;
    }
    assert_eq!(ns.value("k").await.as_deref(), Some("2"));
    assert_eq!(ns.revision().await, second);
    ns.ok(set_if("k", "3", at_mod(second))).await;
}

async fn missing_key_equals_no_mod_revision(ns: Namespace) {
    let revision = ns.set("other", "1").await.mod_revision;
    for number in [0, 1, 7, revision, revision + 1] {
        let failure =
            ns.fails(set_if("k", "x", at_mod(number)), ErrorReason::ConditionNotMet).await;
        assert_eq!(current(&failure), None);
    }
    assert_eq!(ns.get("k").await, None);
}

async fn conditions_hold_for_deletes_too(ns: Namespace) {
    ns.fails(delete_if("k", present()), ErrorReason::ConditionNotMet).await;
    ns.fails(delete_if("k", at_mod(0)), ErrorReason::ConditionNotMet).await;
    assert!(!ns.ok(delete_if("k", absent())).await.deleted);
    let first = ns.set("k", "1").await.mod_revision;
    let second = ns.set("k", "2").await.mod_revision;
    ns.fails(delete_if("k", absent()), ErrorReason::ConditionNotMet).await;
    ns.fails(delete_if("k", at_mod(first)), ErrorReason::ConditionNotMet).await;
    assert_eq!(ns.revision().await, second);
    assert!(ns.ok(delete_if("k", at_mod(second))).await.deleted);
    ns.set("k", "3").await;
    assert!(ns.ok(delete_if("k", present())).await.deleted);
}

async fn failed_condition_brings_the_current_metadata(ns: Namespace) {
    ns.ok(SetRequest { content_type: "a/b".into(), expiry: ttl(60_000), ..set("k", "secret") })
        .await;
    let entry = ns.get("k").await.expect("set");
    ns.set("other", "1").await;
    let revision = ns.revision().await;
    let failure = ns.fails(set_if("k", "2", at_mod(1)), ErrorReason::ConditionNotMet).await;
    let expected = Entry { value: None, ..entry };
    assert_eq!(current(&failure), Some(&expected));
    let detail = failure.condition.expect("checked with the reason");
    assert_eq!(detail.revision, revision);
    // So a retry needs no read.
    let seen = detail.current.expect("the key exists").mod_revision;
    ns.ok(set_if("k", "2", at_mod(seen))).await;
}

async fn failed_condition_creates_no_namespace(ns: Namespace) {
    ns.fails(set_if("k", "1", present()), ErrorReason::ConditionNotMet).await;
    assert_eq!(ns.state().await.namespace, None);
}

async fn mod_revision_tells_a_key_created_anew(ns: Namespace) {
    let first = ns.set("k", "same").await;
    ns.ok(delete("k")).await;
    let second = ns.set("k", "same").await;
    assert_eq!(first.version, second.version);
    ns.fails(set_if("k", "x", at_mod(first.mod_revision)), ErrorReason::ConditionNotMet).await;
}

async fn set_ttl_moves_the_mod_revision(ns: Namespace) {
    let first = ns.set("k", "1").await;
    ns.ok(set_ttl("k", ttl(60_000))).await;
    ns.fails(set_if("k", "x", at_mod(first.mod_revision)), ErrorReason::ConditionNotMet).await;
}

async fn of_64_creators_one_wins(ns: Namespace) {
    let outcomes = join_all((0..64).map(|number| {
        let (ns, value) = (ns.clone(), number.to_string());
        async move {
            let outcome = ns.call(set_if("k", &value, absent())).await;
            (value, outcome)
        }
    }))
    .await;
    let mut winners = Vec::new();
    for (value, outcome) in outcomes {
        match outcome {
            Ok(_) => winners.push(value),
            Err(failure) => drop(failure.expect(ErrorReason::ConditionNotMet)),
        }
    }
    assert_eq!(winners.len(), 1);
    assert_eq!(ns.value("k").await, winners.pop());
    assert_eq!(ns.get("k").await.expect("created").version, 1);
}

async fn of_64_compare_and_set_writers_one_wins_each_round(ns: Namespace) {
    let mut revision = ns.set("k", "0").await.mod_revision;
    for round in 0..10 {
        let outcomes = join_all((0..64).map(|number| {
            let value = format!("{round}-{number}");
            let ns = ns.clone();
            async move { ns.call(set_if("k", &value, at_mod(revision))).await }
        }))
        .await;
        let (won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
        assert_eq!(won.len(), 1);
        for failure in lost.into_iter().filter_map(Result::err) {
            let failure = failure.expect(ErrorReason::ConditionNotMet);
            let found = current(&failure).expect("the key exists");
            assert_eq!(found.mod_revision, revision + 1);
        }
        revision += 1;
        assert_eq!(ns.revision().await, revision);
    }
}

async fn of_64_conditional_deletes_one_wins(ns: Namespace) {
    let revision = ns.set("k", "1").await.mod_revision;
    let outcomes = join_all((0..64).map(|_| ns.call(delete_if("k", at_mod(revision))))).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for failure in outcomes.into_iter().filter_map(Result::err) {
        let failure = failure.expect(ErrorReason::ConditionNotMet);
        assert_eq!(current(&failure), None);
    }
    assert_eq!(ns.revision().await, revision + 1);
}

async fn compare_and_set_loops_of_64_writers_lose_nothing(ns: Namespace) {
    ns.set("k", "0").await;
    join_all((0..64).map(|_| add_one_by_compare_and_set(&ns))).await;
    assert_eq!(ns.value("k").await.as_deref(), Some("64"));
    assert_eq!(ns.get("k").await.expect("set").version, 65);
}

async fn add_one_by_compare_and_set(ns: &Namespace) {
    loop {
        let entry = ns.get("k").await.expect("set");
        let value = entry.value.expect("Get answers with a value");
        let number: u64 = std::str::from_utf8(&value).expect("text").parse().expect("a number");
        let next = (number + 1).to_string();
        match ns.call(set_if("k", &next, at_mod(entry.mod_revision))).await {
            Ok(_) => return,
            Err(failure) => drop(failure.expect(ErrorReason::ConditionNotMet)),
        }
    }
}

async fn expected_lineage_must_be_the_present_one(ns: Namespace) {
    ns.set("k", "1").await;
    let lineage = ns.lineage().await;
    assert!(!lineage.is_empty());
    let revision =
        ns.ok(SetRequest { options: lineage_is(&lineage), ..set("k", "2") }).await.revision;
    for wrong in ["", "00000000-0000-0000-0000-000000000000"] {
        let options = || lineage_is(wrong);
        let reason = ErrorReason::LineageChanged;
        let failure = ns.fails(SetRequest { options: options(), ..set("k", "x") }, reason).await;
        assert_eq!(failure.metadata.get("lineage"), Some(&lineage));
        ns.fails(DeleteRequest { options: options(), ..delete("k") }, reason).await;
        ns.fails(SetTtlRequest { options: options(), ..set_ttl("k", ttl(9)) }, reason).await;
        ns.fails(IncrementRequest { options: options(), ..increment("n", 1) }, reason).await;
        ns.fails(DeleteRangeRequest { options: options(), ..delete_range(all()) }, reason).await;
        ns.fails(BatchSetRequest { options: options(), ..batch_set([item("k", "x")]) }, reason)
            .await;
        ns.fails(BatchDeleteRequest { options: options(), ..batch_delete(&["k"]) }, reason).await;
        ns.fails(TransactRequest { options: options(), ..transact([op::delete("k")]) }, reason)
            .await;
        ns.fails(GetRequest { touch: ttl(9), options: options(), ..get("k") }, reason).await;
        ns.fails(
            UpdateNamespaceRequest { options: options(), ..update(Default::default()) },
            reason,
        )
        .await;
        ns.fails(ClearNamespaceRequest { options: options(), ..Default::default() }, reason).await;
        ns.fails(DeleteNamespaceRequest { options: options(), ..Default::default() }, reason).await;
    }
    assert_eq!(ns.revision().await, revision);
    assert_eq!(ns.value("k").await.as_deref(), Some("2"));
}

async fn empty_expected_lineage_means_a_missing_namespace(ns: Namespace) {
    let first = SetRequest { options: lineage_is(""), ..set("k", "1") };
    ns.ok(first.clone()).await;
    ns.fails(first, ErrorReason::LineageChanged).await;
    let elsewhere = SetRequest { options: lineage_is(&ns.lineage().await), ..set("k", "1") };
    let other = ns.sibling("other");
    other.fails(elsewhere, ErrorReason::LineageChanged).await;
    assert_eq!(other.state().await.namespace, None);
}

async fn validation_comes_before_lineage_and_lineage_before_the_condition(ns: Namespace) {
    ns.set("k", "1").await;
    let wrong = SetRequest { options: lineage_is("wrong"), condition: absent(), ..set("k", "2") };
    let invalid = SetRequest { expiry: ttl(0), ..wrong.clone() };
    ns.fails(invalid, ErrorReason::InvalidExpiry).await;
    ns.fails(wrong.clone(), ErrorReason::LineageChanged).await;
    let right = SetRequest { options: lineage_is(&ns.lineage().await), ..wrong };
    ns.fails(right, ErrorReason::ConditionNotMet).await;
}
