//! Pipelines: many operations over one stream.

use holdfast_proto::v1::{pipeline_answer::Result as Outcome, pipeline_call::Operation as Op, *};
use prost::Message;

use crate::common::{build::*, coordination::*, failure::Failure, namespace::Namespace};

crate::cases! {
    every_operation_has_its_answer,
    every_call_on_locks_and_leases_has_its_answer,
    writes_are_applied_in_the_order_sent,
    a_failing_call_does_not_stop_the_next,
    range_deletes_of_one_message_follow_each_other,
    failures_are_those_of_unary_calls,
    ordered_reads_see_the_writes_before_them,
    reads_see_writes_that_were_answered,
    answers_carry_the_ids_of_their_calls,
    the_namespace_of_a_call_must_be_empty_or_that_of_the_message,
    one_stream_serves_several_namespaces,
    a_call_without_an_operation_fails_alone,
    everything_sent_is_answered_before_the_stream_ends,
    large_answers_stay_below_4_mib,
    a_pipeline_may_stay_idle,
    an_abandoned_pipeline_harms_nobody,
    pipelines_and_unary_calls_share_one_order,
}

fn failure(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Status(status) => Failure::from(status),
        other => panic!("a failure expected, got {other:?}"),
    }
}

fn revision_of_set(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Set(answer) => answer.revision,
        other => panic!("{other:?}"),
    }
}

async fn every_operation_has_its_answer(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let read = |outcome| matches!(outcome, Outcome::Get(GetResponse { entry: Some(_), .. }));
    assert!(
        matches!(pipe.run(Op::Set(set("k", "1"))).await, Outcome::Set(answer) if answer.created)
    );
    assert!(read(pipe.run(Op::Get(get("k"))).await));
    assert!(
        matches!(pipe.run(Op::Exists(exists("k"))).await, Outcome::Exists(answer) if answer.exists)
    );
    assert!(
        matches!(pipe.run(Op::SetTtl(set_ttl("k", ttl(60_000)))).await, Outcome::SetTtl(answer) if answer.found)
    );
    let left = pipe.run(Op::GetTtl(get_ttl("k"))).await;
    assert!(matches!(
        left,
        Outcome::GetTtl(GetTtlResponse { ttl: Some(get_ttl_response::Ttl::RemainingMs(_)), .. })
    ));
    assert!(
        matches!(pipe.run(Op::Increment(increment("n", 3))).await, Outcome::Increment(answer) if answer.value == 3)
    );
    assert!(
        matches!(pipe.run(Op::List(list(all()))).await, Outcome::List(answer) if answer.entries.len() == 2)
    );
    assert!(
        matches!(pipe.run(Op::Count(count(all()))).await, Outcome::Count(answer) if answer.count == 2)
    );
    assert!(
        matches!(pipe.run(Op::History(history("k"))).await, Outcome::History(answer) if answer.events.len() == 2)
    );
    assert!(
        matches!(pipe.run(Op::BatchGet(batch_get(&["k", "x"]))).await, Outcome::BatchGet(answer) if answer.slots.len() == 2)
    );
    assert!(
        matches!(pipe.run(Op::BatchSet(batch_set([item("a", "1"), item("b", "1")]))).await, Outcome::BatchSet(answer) if answer.entries.len() == 2)
    );
    assert!(
        matches!(pipe.run(Op::BatchDelete(batch_delete(&["a", "x"]))).await, Outcome::BatchDelete(answer) if answer.deleted == [true, false])
    );
    assert!(
        matches!(pipe.run(Op::Transact(transact([op::get("k")]))).await, Outcome::Transact(answer) if answer.succeeded)
    );
    assert!(
        matches!(pipe.run(Op::Delete(delete("k"))).await, Outcome::Delete(answer) if answer.deleted)
    );
    assert!(
        matches!(pipe.run(Op::DeleteRange(delete_range(all()))).await, Outcome::DeleteRange(answer) if answer.deleted == 2)
    );
    let touching = GetRequest { touch: ttl(9), ..get("none") };
    assert!(
        matches!(pipe.run(Op::Get(touching)).await, Outcome::Get(answer) if answer.entry.is_none())
    );
}

async fn every_call_on_locks_and_leases_has_its_answer(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    /// Runs a call; the answer of its kind.
    macro_rules! run {
        ($kind:ident($request:expr)) => {
            match pipe.run(Op::$kind($request)).await {
                Outcome::$kind(answer) => answer,
                other => panic!("{other:?}"),
            }
        };
    }
    let lock = granted(run!(Acquire(acquire("l")))).expect("it is free");
    assert_eq!(granted(run!(Acquire(acquire("l")))), None);
    assert_eq!(run!(Renew(renew(&lock))).lock.expect("answered").token, lock.token);
    assert_eq!(run!(UpdateValue(update_value(&lock, "v"))).lock.expect("answered").value, "v");
    assert_eq!(run!(GetLock(get_lock("l"))).lock.expect("held").token, lock.token);
    assert_eq!(run!(ListLocks(list_locks(""))).locks.len(), 1);
    assert!(run!(Release(release(&lock))).released);
    assert!(!run!(BreakLock(break_lock(&lock, ""))).broken);

    let lease = run!(Grant(grant(60_000))).lease.expect("answered").lease_id;
    assert_eq!(kept(run!(KeepAlive(keep_alive(lease)))).expect("it lives").lease_id, lease);
    assert_eq!(run!(GetLease(get_lease(lease))).lease.expect("it lives").lease_id, lease);
    assert_eq!(run!(ListLeases(ListLeasesRequest::default())).leases.len(), 1);
    assert!(run!(Revoke(revoke(lease))).revoked);
}

async fn writes_are_applied_in_the_order_sent(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let mut ids = Vec::new();
    for message in 0..20 {
        let operations = (0..50).map(|number| Op::Set(set("k", format!("{message}/{number}"))));
        let first = pipe.send(operations);
        ids.extend(first..first + 50);
    }
    let answers = pipe.answers(1000).await;
    let revisions: Vec<u64> = ids.iter().map(|id| revision_of_set(&answers[id])).collect();
    assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
    assert_eq!(ns.value("k").await.as_deref(), Some("19/49"));
    assert_eq!(ns.get("k").await.expect("set").version, 1000);
}

async fn a_failing_call_does_not_stop_the_next(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let first = pipe.send([
        Op::Set(set("k", "text")),
        Op::Increment(increment("k", 1)),
        Op::Set(set("", "bad key")),
        Op::Set(SetRequest { condition: absent(), ..set("k", "2") }),
        Op::Set(set("k", "last")),
    ]);
    let mut answers = pipe.answers(5).await;
    let mut outcome = |place| answers.remove(&(first + place)).expect("answered");
    let before = revision_of_set(&outcome(0));
    failure(outcome(1)).expect(ErrorReason::NotANumber);
    failure(outcome(2)).expect(ErrorReason::InvalidKey);
    failure(outcome(3)).expect(ErrorReason::ConditionNotMet);
    assert_eq!(revision_of_set(&outcome(4)), before + 1);
    assert_eq!(ns.value("k").await.as_deref(), Some("last"));
}

async fn range_deletes_of_one_message_follow_each_other(ns: Namespace) {
    ns.ok(batch_set(["a/1", "a/2", "b"].map(|name| item(name, "1")))).await;
    let before = ns.revision().await;
    let mut pipe = ns.pipe().await;
    let first = pipe.send([prefix("a/"), all(), all()].map(|it| Op::DeleteRange(delete_range(it))));
    let answers = pipe.answers(3).await;
    for (id, expected) in (first..).zip([(2, before + 1), (1, before + 2), (0, before + 2)]) {
        let Outcome::DeleteRange(answer) = &answers[&id] else { panic!("{:?}", answers[&id]) };
        assert_eq!((answer.deleted, answer.revision), expected);
    }
}

async fn failures_are_those_of_unary_calls(ns: Namespace) {
    ns.set("k", "1").await;
    let request = SetRequest { condition: absent(), ..set("k", "2") };
    let unary = ns.fails(request.clone(), ErrorReason::ConditionNotMet).await;
    let piped =
        failure(ns.pipe().await.run(Op::Set(request)).await).expect(ErrorReason::ConditionNotMet);
    assert_eq!((piped.code, piped.message), (unary.code, unary.message));
    assert_eq!((piped.metadata, piped.condition), (unary.metadata, unary.condition));
}

async fn ordered_reads_see_the_writes_before_them(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let call = |ordered, operation| PipelineCall { id: 0, ordered, operation: Some(operation) };
    let mut reads = Vec::new();
    for round in 0..200_u32 {
        let value = round.to_string();
        // In one message, and over two.
        let read = call(true, Op::Get(get("k")));
        if round % 2 == 0 {
            reads.push((
                pipe.send_calls(vec![call(false, Op::Set(set("k", &value))), read]) + 1,
                round,
            ));
        } else {
            pipe.send([Op::Set(set("k", &value))]);
            reads.push((pipe.send_calls(vec![read]), round));
        }
    }
    let answers = pipe.answers(400).await;
    for (id, round) in reads {
        let Outcome::Get(answer) = &answers[&id] else { panic!("{:?}", answers[&id]) };
        let value =
            answer.entry.as_ref().and_then(|entry| entry.value.as_ref()).expect("written before");
        let seen: u32 = std::str::from_utf8(value).expect("text").parse().expect("a number");
        assert!(seen >= round, "{seen} where {round} was written before");
    }
}

async fn reads_see_writes_that_were_answered(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    for round in 0..100_u32 {
        pipe.run(Op::Set(set("k", round.to_string()))).await;
        let Outcome::Get(answer) = pipe.run(Op::Get(get("k"))).await else {
            panic!("a Get is answered")
        };
        let value = answer.entry.and_then(|entry| entry.value);
        assert_eq!(value, Some(round.to_string().into()));
    }
}

async fn answers_carry_the_ids_of_their_calls(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let ids = [u64::MAX, 0, 7, 7, 1 << 60];
    let calls = ids.map(|id| PipelineCall {
        id,
        ordered: false,
        operation: Some(Op::Increment(increment("k", 1))),
    });
    pipe.send_raw(PipelineRequest { namespace: ns.name.clone(), calls: calls.to_vec() });
    let mut found = Vec::new();
    for _ in ids {
        found.push(pipe.next().await.expect("lives").expect("goes on").id);
    }
    found.sort_unstable();
    assert_eq!(found, [0, 7, 7, 1 << 60, u64::MAX], "an id is the client's own business");
}

async fn the_namespace_of_a_call_must_be_empty_or_that_of_the_message(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let named =
        |namespace: &str| Op::Set(SetRequest { namespace: namespace.into(), ..set("k", "1") });
    let first = pipe.send([named(""), named(&ns.name), named("elsewhere"), named("")]);
    let mut answers = pipe.answers(4).await;
    let mut outcome = |place| answers.remove(&(first + place)).expect("answered");
    revision_of_set(&outcome(0));
    revision_of_set(&outcome(1));
    assert_eq!(failure(outcome(2)).code, i32::from(tonic::Code::InvalidArgument));
    revision_of_set(&outcome(3));
    let elsewhere = Namespace { name: "elsewhere".into(), ..ns.clone() };
    assert_eq!(elsewhere.get("k").await, None);
}

async fn one_stream_serves_several_namespaces(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let others: Vec<Namespace> = (0..5).map(|number| ns.sibling(&number.to_string())).collect();
    for (id, other) in others.iter().enumerate() {
        let operation = Some(Op::Set(set("k", &other.name)));
        let calls = vec![PipelineCall { id: id as u64, ordered: false, operation }];
        pipe.send_raw(PipelineRequest { namespace: other.name.clone(), calls });
    }
    pipe.answers(5).await;
    for other in others {
        assert_eq!(other.value("k").await, Some(other.name.clone()));
    }
}

async fn a_call_without_an_operation_fails_alone(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let call = |operation| PipelineCall { id: 0, ordered: false, operation };
    let first = pipe.send_calls(vec![call(None), call(Some(Op::Set(set("k", "1"))))]);
    let mut answers = pipe.answers(2).await;
    failure(answers.remove(&first).expect("answered")).expect(ErrorReason::InvalidOperation);
    assert!(matches!(answers[&(first + 1)], Outcome::Set(_)));
}

async fn everything_sent_is_answered_before_the_stream_ends(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    for message in 0..10 {
        pipe.send((0..100).map(|number| Op::Set(set(&format!("{message}/{number}"), "1"))));
    }
    pipe.finish();
    pipe.answers(1000).await;
    assert!(pipe.next().await.expect("ends well").is_none());
    assert_eq!(ns.ok(count(all())).await.count, 1000);
}

/// Clients of other languages refuse larger messages; this one does too.
async fn large_answers_stay_below_4_mib(ns: Namespace) {
    for number in 0..6 {
        ns.set(&format!("k{number}"), vec![b'x'; 1 << 20]).await;
    }
    let mut pipe = ns.pipe().await;
    let reads = (0..24).map(|number| match number % 3 {
        0 => Op::Get(get(&format!("k{}", number % 6))),
        1 => Op::List(list(all())),
        _ => Op::BatchGet(batch_get(&["k0", "k1", "k2", "k3", "k4", "k5"])),
    });
    pipe.send(reads);
    for outcome in pipe.answers(24).await.into_values() {
        match outcome {
            Outcome::Get(answer) => assert!(answer.entry.is_some()),
            Outcome::List(answer) => {
                assert!(answer.encoded_len() <= 4 << 20 && !answer.next_page_token.is_empty())
            }
            Outcome::BatchGet(answer) => {
                assert!(answer.encoded_len() <= 4 << 20 && !answer.next_page_token.is_empty())
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn a_pipeline_may_stay_idle(ns: Namespace) {
    let mut pipes = Vec::new();
    for _ in 0..20 {
        pipes.push(ns.pipe().await);
    }
    ns.set("k", "1").await;
    for pipe in &mut pipes {
        assert!(matches!(pipe.run(Op::Increment(increment("k", 1))).await, Outcome::Increment(_)));
    }
    assert_eq!(ns.value("k").await.as_deref(), Some("21"));
}

async fn an_abandoned_pipeline_harms_nobody(ns: Namespace) {
    for _ in 0..20 {
        let mut pipe = ns.pipe().await;
        pipe.send((0..100).map(|_| Op::Increment(increment("k", 1))));
        drop(pipe);
    }
    ns.set("alive", "1").await;
    assert_eq!(ns.value("alive").await.as_deref(), Some("1"));
}

async fn pipelines_and_unary_calls_share_one_order(ns: Namespace) {
    let base = ns.set("start", "1").await.mod_revision;
    let piped = async {
        let mut pipe = ns.pipe().await;
        for _ in 0..10 {
            pipe.send((0..20).map(|_| Op::Increment(increment("n", 1))));
        }
        pipe.answers(200).await
    };
    let unary = async {
        for _ in 0..100 {
            ns.ok(increment("n", 1)).await;
        }
    };
    let (answers, ()) = futures::join!(piped, unary);
    assert_eq!(answers.len(), 200);
    assert_eq!(ns.value("n").await.as_deref(), Some("300"));
    assert_eq!(ns.revision().await, base + 300);
}
