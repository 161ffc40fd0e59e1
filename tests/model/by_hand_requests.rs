//! How long requests are remembered.

use std::{sync::Arc, time::Duration};

use holdfast_proto::v1::*;

use crate::{
    by_hand::{by_hand, pass},
    common::{build::*, clock::TestClock, coordination::*, namespace::Namespace},
};

by_hand! {
    a_request_is_remembered_for_ten_minutes_and_no_longer,
    a_replay_does_not_lengthen_the_memory,
    a_deadline_counts_from_the_first_time,
}

const REMEMBERED: Duration = Duration::from_mins(10);
const INSTANT: Duration = Duration::from_millis(1);

fn counted() -> IncrementRequest {
    IncrementRequest { options: numbered(&unique(8), 1), ..increment("n", 1) }
}

async fn a_request_is_remembered_for_ten_minutes_and_no_longer(
    ns: Namespace,
    clock: Arc<TestClock>,
) {
    let request = counted();
    let answer = ns.ok(request.clone()).await;
    clock.advance(REMEMBERED - INSTANT);
    assert_eq!(ns.ok(request.clone()).await, answer);
    clock.advance(INSTANT);
    assert_eq!(ns.ok(request).await.value, 2);
}

async fn a_replay_does_not_lengthen_the_memory(ns: Namespace, clock: Arc<TestClock>) {
    let request = counted();
    ns.ok(request.clone()).await;
    clock.advance(REMEMBERED / 2);
    assert_eq!(ns.ok(request.clone()).await.value, 1);
    clock.advance(REMEMBERED / 2);
    assert_eq!(ns.ok(request).await.value, 2);
}

async fn a_deadline_counts_from_the_first_time(ns: Namespace, clock: Arc<TestClock>) {
    let options = numbered(&unique(8), 1);
    let request = SetRequest { options, expiry: ttl(1_000), ..set("k", "1") };
    let answer = ns.ok(request.clone()).await;
    pass(&clock, 600);
    assert_eq!(ns.ok(request.clone()).await, answer);
    pass(&clock, 400);
    assert_eq!(ns.get("k").await, None);
    assert_eq!(ns.ok(request).await, answer);
    assert_eq!(ns.get("k").await, None);
}
