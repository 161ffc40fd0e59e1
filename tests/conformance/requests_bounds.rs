//! How many requests are remembered.

use holdfast_proto::v1::{pipeline_answer::Result as Outcome, pipeline_call::Operation as Op, *};
use prost::bytes::Bytes;

use crate::common::{
    build::*, coordination::*, failure::Failure, namespace::Namespace, pipe::Pipe,
};

crate::cases! {
    any_number_of_requests_passes_when_done_below_follows,
    one_more_than_is_remembered_is_refused_and_none_is_forgotten,
}

/// The most requests that a namespace remembers.
const MOST: u64 = 100_000;
const AT_ONCE: u64 = 4_000;

/// Adds one in each of these requests; the answers in order.
async fn add(
    pipe: &mut Pipe,
    client: &Bytes,
    seqs: impl Iterator<Item = u64>,
    done_below: u64,
) -> Vec<Outcome> {
    let adding = |seq| {
        let options = numbered_done(client, seq, done_below);
        Op::Increment(IncrementRequest { options, ..increment("n", 1) })
    };
    let requests: Vec<Op> = seqs.map(adding).collect();
    let count = requests.len();
    let first = pipe.send(requests);
    let mut answers = pipe.answers(count).await;
    (first..).take(count).map(|id| answers.remove(&id).expect("answered")).collect()
}

#[track_caller]
fn value(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Increment(answer) => answer.value.unsigned_abs(),
        Outcome::Status(status) => panic!("{:?}", Failure::from(status.clone())),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn is_overloaded(outcome: Outcome) {
    match outcome {
        Outcome::Status(status) => drop(Failure::from(status).expect(ErrorReason::Overloaded)),
        other => panic!("{other:?}"),
    }
}

async fn any_number_of_requests_passes_when_done_below_follows(ns: Namespace) {
    let client = unique(8);
    let mut pipe = ns.pipe().await;
    for start in (1..=MOST + MOST / 2).step_by(usize::try_from(AT_ONCE).expect("small")) {
        for (seq, outcome) in
            (start..).zip(add(&mut pipe, &client, start..start + AT_ONCE, start).await)
        {
            assert_eq!(value(&outcome), seq);
        }
    }
}

async fn one_more_than_is_remembered_is_refused_and_none_is_forgotten(ns: Namespace) {
    let client = unique(8);
    let mut pipe = ns.pipe().await;
    for start in (1..=MOST).step_by(usize::try_from(AT_ONCE).expect("small")) {
        let answers = add(&mut pipe, &client, start..start + AT_ONCE, 0).await;
        assert_eq!(value(answers.last().expect("many")), start + AT_ONCE - 1);
    }
    is_overloaded(add(&mut pipe, &client, MOST + 1..MOST + 2, 0).await.remove(0));
    // Another client has no more room.
    is_overloaded(add(&mut pipe, &unique(8), 1..2, 0).await.remove(0));
    assert_eq!(ns.value("n").await, Some(MOST.to_string()));
    // What is remembered is answered, and what needs no memory is served.
    for seq in [1, MOST / 2, MOST] {
        assert_eq!(value(&add(&mut pipe, &client, seq..seq + 1, 0).await[0]), seq);
    }
    assert_eq!(ns.ok(increment("n", 0)).await.value.unsigned_abs(), MOST);
    // Who says what is done makes room for others.
    let answers = add(&mut pipe, &client, MOST + 1..MOST + 2, MOST - 10).await;
    assert_eq!(value(&answers[0]), MOST + 1);
    assert_eq!(value(&add(&mut pipe, &unique(8), 1..2, 0).await[0]), MOST + 2);
    assert_eq!(value(&add(&mut pipe, &client, MOST..MOST + 1, 0).await[0]), MOST);
}
