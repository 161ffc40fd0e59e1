//! Request ids: what is sent again is not applied again.

use futures::future::join_all;
use holdfast_proto::v1::{
    operation_result::Kind as Done, pipeline_answer::Result as Outcome,
    pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;

use crate::common::{build::*, coordination::*, failure::Failure, namespace::Namespace};

crate::cases! {
    every_write_sent_again_gets_its_answer_again,
    calls_on_locks_and_leases_sent_again_get_their_answers_again,
    a_clear_sent_again_clears_once,
    unary_calls_and_pipelines_know_each_others_requests,
    an_answer_stays_the_same_whatever_comes_after,
    sent_many_times_at_once_it_is_applied_once,
    twice_in_one_message_it_is_applied_once,
    requests_of_clients_and_namespaces_are_apart,
    a_refused_write_is_not_recorded,
    a_write_that_changed_nothing_is_not_recorded,
    a_failed_transaction_is_not_recorded,
    another_request_with_the_same_id_is_refused,
    a_reused_id_is_refused_in_a_pipeline,
    values_over_4_kib_are_left_out_of_a_replay,
    large_values_are_compared_too,
    a_record_takes_no_revision_of_its_own,
    records_are_no_keys,
    records_survive_a_clear,
    reads_of_transactions_are_replayed_as_they_were,
    requests_may_come_out_of_order,
    a_thousand_increments_each_sent_twice,
    a_late_copy_of_a_request_that_the_client_is_done_with_is_refused,
    a_late_copy_is_refused_by_a_server_that_was_told_nothing,
}

/// Every kind of write, each of which changes something where `k` is 1 and `n` is missing.
fn writes() -> Vec<Op> {
    vec![
        Op::Set(SetRequest { return_previous: true, expiry: ttl(60_000), ..set("k", "2") }),
        Op::Set(SetRequest { condition: present(), ..set("k", "2") }),
        Op::Delete(DeleteRequest { return_previous: true, ..delete("k") }),
        Op::SetTtl(set_ttl("k", ttl(60_000))),
        Op::Get(GetRequest { touch: ttl(60_000), ..get("k") }),
        Op::Increment(increment("k", 5)),
        Op::DeleteRange(delete_range(all())),
        Op::BatchSet(batch_set([item("k", "2"), item("n", "2")])),
        Op::BatchDelete(batch_delete(&["n", "k"])),
        Op::Transact(transact([op::get("k"), op::increment("k", 1), op::list(all())])),
    ]
}

async fn sent(ns: &Namespace, operation: Op) -> Outcome {
    match ns.send(operation.clone()).await {
        Ok(answer) => answer,
        Err(failure) => panic!("{operation:?}: {failure:?}"),
    }
}

/// What an operation leaves, its own record aside.
async fn state(ns: &Namespace) -> (u64, Vec<Entry>) {
    let listed = ns.list_all(list(all())).await;
    (listed.revision, listed.entries)
}

async fn every_write_sent_again_gets_its_answer_again(ns: Namespace) {
    let client = unique(8);
    for (seq, write) in (1..).zip(writes()) {
        ns.ok(delete("n")).await;
        let before = ns.set("k", "1").await.mod_revision;
        let write = with_options(write, numbered(&client, seq));
        let answer = sent(&ns, write.clone()).await;
        let after = state(&ns).await;
        assert_eq!(after.0, before + 1, "{write:?}");
        for _ in 0..3 {
            assert_eq!(sent(&ns, write.clone()).await, answer);
        }
        assert_eq!(state(&ns).await, after, "{write:?} is applied once");
    }
}

async fn calls_on_locks_and_leases_sent_again_get_their_answers_again(ns: Namespace) {
    let client = unique(8);
    let (a, b) = (ns.hold(acquire("a")).await, ns.hold(acquire("b")).await);
    let lease = ns.lease(60_000).await;
    ns.attach("k", lease).await;
    let calls = [
        Op::Renew(renew(&a)),
        Op::UpdateValue(update_value(&a, "v")),
        Op::Release(release(&a)),
        Op::BreakLock(break_lock(&b, "why")),
        Op::Grant(grant(60_000)),
        Op::Revoke(revoke(lease)),
    ];
    for (seq, call) in (1..).zip(calls) {
        let call = with_options(call, numbered(&client, seq));
        let answer = sent(&ns, call.clone()).await;
        let after = ns.revision().await;
        for _ in 0..3 {
            assert_eq!(sent(&ns, call.clone()).await, answer);
        }
        assert_eq!(ns.revision().await, after, "{call:?} is applied once");
    }
    assert_eq!(ns.ok(ListLeasesRequest::default()).await.leases.len(), 1);
}

async fn a_clear_sent_again_clears_once(ns: Namespace) {
    ns.set("a", "1").await;
    let options = numbered(&unique(8), 1);
    let clear = ClearNamespaceRequest { options, ..Default::default() };
    let answer = ns.ok(clear.clone()).await;
    assert_eq!(answer.cleared, 1);
    ns.set("b", "1").await;
    assert_eq!(ns.ok(clear).await, answer);
    assert_eq!(ns.keys(all()).await, ["b"]);
}

async fn unary_calls_and_pipelines_know_each_others_requests(ns: Namespace) {
    let client = unique(8);
    let mut pipe = ns.pipe().await;
    let first =
        Op::Increment(IncrementRequest { options: numbered(&client, 1), ..increment("n", 1) });
    let second = with_options(first.clone(), numbered(&client, 2));
    let answer = sent(&ns, first.clone()).await;
    assert_eq!(pipe.run(first).await, answer);
    let answer = pipe.run(second.clone()).await;
    assert_eq!(sent(&ns, second).await, answer);
    assert_eq!(ns.value("n").await.as_deref(), Some("2"));
}

async fn an_answer_stays_the_same_whatever_comes_after(ns: Namespace) {
    let write =
        SetRequest { options: numbered(&unique(8), 1), condition: absent(), ..set("k", "first") };
    let answer = ns.ok(write.clone()).await;
    ns.set("k", "second").await;
    assert_eq!(ns.ok(write.clone()).await, answer);
    ns.ok(delete("k")).await;
    assert_eq!(ns.ok(write).await, answer);
    assert_eq!(ns.get("k").await, None);
}

async fn sent_many_times_at_once_it_is_applied_once(ns: Namespace) {
    let client = unique(8);
    for seq in 1..=20 {
        let write = IncrementRequest { options: numbered(&client, seq), ..increment("n", 1) };
        let answers = join_all((0..16).map(|_| ns.ok(write.clone()))).await;
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
        assert_eq!(answers[0].value, i64::try_from(seq).expect("small"));
    }
}

async fn twice_in_one_message_it_is_applied_once(ns: Namespace) {
    let write = IncrementRequest { options: numbered(&unique(8), 1), ..increment("n", 1) };
    let mut pipe = ns.pipe().await;
    let first = pipe.send([Op::Increment(write.clone()), Op::Increment(write)]);
    let answers = pipe.answers(2).await;
    assert_eq!(answers[&first], answers[&(first + 1)]);
    assert_eq!(ns.value("n").await.as_deref(), Some("1"));
}

async fn requests_of_clients_and_namespaces_are_apart(ns: Namespace) {
    let (one, two) = (unique(8), unique(8));
    let write =
        |client: &Bytes| IncrementRequest { options: numbered(client, 1), ..increment("n", 1) };
    assert_eq!(ns.ok(write(&one)).await.value, 1);
    assert_eq!(ns.ok(write(&two)).await.value, 2);
    assert_eq!(ns.sibling("other").ok(write(&one)).await.value, 1);
    assert_eq!(ns.ok(write(&one)).await.value, 1);
}

async fn a_refused_write_is_not_recorded(ns: Namespace) {
    ns.set("k", "1").await;
    let creating =
        SetRequest { options: numbered(&unique(8), 1), condition: absent(), ..set("k", "2") };
    for _ in 0..2 {
        ns.fails(creating.clone(), ErrorReason::ConditionNotMet).await;
    }
    ns.ok(delete("k")).await;
    assert!(ns.ok(creating).await.created);
    assert_eq!(ns.value("k").await.as_deref(), Some("2"));
}

async fn a_write_that_changed_nothing_is_not_recorded(ns: Namespace) {
    let deleting = DeleteRequest { options: numbered(&unique(8), 1), ..delete("k") };
    assert!(!ns.ok(deleting.clone()).await.deleted);
    ns.set("k", "1").await;
    assert!(ns.ok(deleting.clone()).await.deleted);
    ns.set("k", "2").await;
    assert!(ns.ok(deleting).await.deleted, "the answer of the one that was applied");
    assert_eq!(ns.value("k").await.as_deref(), Some("2"));
}

async fn a_failed_transaction_is_not_recorded(ns: Namespace) {
    ns.set("n", "no number").await;
    let options = numbered(&unique(8), 1);
    let request =
        TransactRequest { options, ..transact([op::set("k", "1"), op::increment("n", 1)]) };
    ns.fails(request.clone(), ErrorReason::NotANumber).await;
    ns.set("n", "1").await;
    assert!(ns.ok(request).await.succeeded);
    assert_eq!(ns.value("n").await.as_deref(), Some("2"));
}

async fn another_request_with_the_same_id_is_refused(ns: Namespace) {
    let options = numbered(&unique(8), 1);
    let first = Op::Set(SetRequest { options: options.clone(), ..set("k", "1") });
    let answer = sent(&ns, first.clone()).await;
    let before = state(&ns).await;
    let others = [
        Op::Set(set("k", "2")),
        Op::Set(set("other", "1")),
        Op::Set(SetRequest { expiry: ttl(60_000), ..set("k", "1") }),
        Op::Set(SetRequest { condition: present(), ..set("k", "1") }),
        Op::Set(SetRequest { return_previous: true, ..set("k", "1") }),
        Op::Delete(delete("k")),
        Op::Increment(increment("n", 1)),
        Op::Transact(transact([op::set("k", "1")])),
        Op::Grant(grant(60_000)),
    ];
    for other in others {
        let failure = ns.send(with_options(other, options.clone())).await;
        failure.expect_err("refused").expect(ErrorReason::RequestReused);
    }
    assert_eq!(state(&ns).await, before);
    assert_eq!(sent(&ns, first).await, answer, "the first is still known");
}

async fn a_reused_id_is_refused_in_a_pipeline(ns: Namespace) {
    let options = numbered(&unique(8), 1);
    let mut pipe = ns.pipe().await;
    let first = pipe.send([
        Op::Set(SetRequest { options: options.clone(), ..set("k", "1") }),
        Op::Set(SetRequest { options, ..set("k", "2") }),
        Op::Set(set("other", "1")),
    ]);
    let mut answers = pipe.answers(3).await;
    assert!(matches!(answers[&first], Outcome::Set(_)));
    match answers.remove(&(first + 1)) {
        Some(Outcome::Status(status)) => {
            Failure::from(status).expect(ErrorReason::RequestReused);
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(answers[&(first + 2)], Outcome::Set(_)));
    assert_eq!(ns.value("k").await.as_deref(), Some("1"));
}

async fn values_over_4_kib_are_left_out_of_a_replay(ns: Namespace) {
    let client = unique(8);
    for (seq, length, shown) in [(1, 4096, true), (3, 4097, false)] {
        let value = "x".repeat(length);
        ns.set("k", &value).await;
        let replacing = SetRequest {
            options: numbered(&client, seq),
            return_previous: true,
            ..set("k", "short")
        };
        let first = ns.ok(replacing.clone()).await;
        let previous = first.previous.clone().expect("there was one");
        assert_eq!(previous.value, Some(value.clone().into()));
        let again = ns.ok(replacing).await;
        let kept = previous.value.clone().filter(|_| shown);
        let expected = Entry { value: kept, ..previous };
        assert_eq!(again, SetResponse { previous: Some(expected), ..first });

        ns.set("k", &value).await;
        let reading = TransactRequest {
            options: numbered(&client, seq + 1),
            ..transact([op::get("k"), op::set("n", "1")])
        };
        ns.ok(reading.clone()).await;
        match ns.ok(reading).await.results[0].kind.as_ref() {
            Some(Done::Get(found)) => {
                let entry = found.entry.as_ref().expect("it is there");
                assert_eq!(entry.value.is_some(), shown);
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn large_values_are_compared_too(ns: Namespace) {
    let options = numbered(&unique(8), 1);
    let (one, two) = ("x".repeat(100_000), "x".repeat(99_999) + "y");
    let first = SetRequest { options: options.clone(), ..set("k", one) };
    let answer = ns.ok(first.clone()).await;
    ns.fails(SetRequest { options, ..set("k", two) }, ErrorReason::RequestReused).await;
    assert_eq!(ns.ok(first).await, answer);
}

async fn a_record_takes_no_revision_of_its_own(ns: Namespace) {
    let client = unique(8);
    let before = ns.set("k", "1").await.mod_revision;
    for seq in 1..=10 {
        let write = SetRequest { options: numbered(&client, seq), ..set("k", "2") };
        assert_eq!(ns.ok(write).await.revision, before + seq);
    }
    assert_eq!(ns.events_after(before).await.len(), 10);
}

async fn records_are_no_keys(ns: Namespace) {
    let client = unique(8);
    for seq in 1..=5 {
        ns.ok(SetRequest { options: numbered(&client, seq), ..set("k", "1") }).await;
    }
    assert_eq!(ns.keys(all()).await, ["k"]);
    let namespace = ns.state().await.namespace.expect("it exists");
    assert_eq!((namespace.key_count, namespace.byte_count), (1, 2));
}

async fn records_survive_a_clear(ns: Namespace) {
    let write = IncrementRequest { options: numbered(&unique(8), 1), ..increment("n", 1) };
    let answer = ns.ok(write.clone()).await;
    ns.ok(ClearNamespaceRequest::default()).await;
    assert_eq!(ns.ok(write).await, answer);
    assert_eq!(ns.get("n").await, None);
}

async fn reads_of_transactions_are_replayed_as_they_were(ns: Namespace) {
    ns.set("a", "1").await;
    ns.set("b", "1").await;
    let request = TransactRequest {
        options: numbered(&unique(8), 1),
        ..transact([op::list(all()), op::get("a"), op::delete("a"), op::increment("n", 1)])
    };
    let answer = ns.ok(request.clone()).await;
    ns.ok(delete_range(all())).await;
    assert_eq!(ns.ok(request).await, answer);
}

async fn requests_may_come_out_of_order(ns: Namespace) {
    let client = unique(8);
    let mut answers = Vec::new();
    for seq in [7, 3, 1, 900, 2] {
        let write = IncrementRequest { options: numbered(&client, seq), ..increment("n", 1) };
        answers.push((write.clone(), ns.ok(write).await));
    }
    for (write, answer) in answers {
        assert_eq!(ns.ok(write).await, answer);
    }
    assert_eq!(ns.value("n").await.as_deref(), Some("5"));
}

/// As if every other answer had been lost, with `done_below` following behind.
async fn a_thousand_increments_each_sent_twice(ns: Namespace) {
    let client = unique(8);
    let mut pipe = ns.pipe().await;
    for hundred in 0..10_u64 {
        let requests = (1..=100).map(|number| {
            let options = numbered_done(&client, hundred * 100 + number, hundred * 100 + 1);
            Op::Increment(IncrementRequest { options, ..increment("n", 1) })
        });
        let first = pipe.send(requests.clone().chain(requests));
        let answers = pipe.answers(200).await;
        for id in first..first + 100 {
            assert_eq!(answers[&id], answers[&(id + 100)]);
        }
    }
    assert_eq!(ns.value("n").await.as_deref(), Some("1000"));
}

async fn a_late_copy_of_a_request_that_the_client_is_done_with_is_refused(ns: Namespace) {
    const COUNT: u64 = 40;
    let client = unique(8);
    let add = |seq, done_below| {
        let options = numbered_done(&client, seq, done_below);
        with_options(Op::Increment(increment("n", 1)), options)
    };
    for seq in 1..=COUNT {
        // Those before have been answered: the records of the first are gone in the end.
        sent(&ns, add(seq, seq)).await;
    }
    for (late, said) in [(1, 1), (16, 16), (16, 3)] {
        let failure = ns.send(add(late, said)).await.expect_err("it is not applied again");
        let failure = failure.expect(ErrorReason::InvalidRequestId);
        assert_eq!(failure.fields, ["options.request_id.seq"]);
    }
    assert_eq!(ns.value("n").await, Some(COUNT.to_string()));
    // What is still recorded is answered, and the client goes on.
    sent(&ns, add(COUNT, COUNT)).await;
    sent(&ns, add(COUNT + 1, COUNT + 1)).await;
    assert_eq!(ns.value("n").await, Some((COUNT + 1).to_string()));
}

async fn a_late_copy_is_refused_by_a_server_that_was_told_nothing(ns: Namespace) {
    let client = unique(8);
    let add =
        |seq| IncrementRequest { options: numbered_done(&client, seq, seq), ..increment("n", 1) };
    for seq in 1..=33 {
        ns.ok(add(seq)).await;
    }
    // Where several share the state, each of them.
    for server in &ns.servers {
        let there = Namespace { channel: server.connect_lazy(), ..ns.clone() };
        let failure = there.call(add(1)).await.expect_err("it is not applied again");
        failure.expect(ErrorReason::InvalidRequestId);
    }
    assert_eq!(ns.value("n").await.as_deref(), Some("33"));
}
