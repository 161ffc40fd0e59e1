//! Writes whose answers are lost: applied once, and told truly.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_client::{Client, Compare, Error, Expiry, Namespace, Op, Selector, Text};

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    proxy::{LostAnswers, Proxy},
};

/// The same namespace over a proxy.
async fn through(proxy: &Proxy, namespace: &Namespace, max_attempts: u32) -> Namespace {
    let builder = Client::builder(proxy.address.to_string()).timeout(PATIENCE);
    let client = builder.max_attempts(max_attempts).connect_lazy().expect("a client");
    client.namespace(namespace.name())
}

#[test]
fn increments_whose_answers_are_lost_add_up() {
    const INCREMENTS: usize = 10_000;
    with_namespace("lost_answers", async |ns| {
        let lost = LostAnswers::one_in(97);
        let proxy = Proxy::losing(fixture::shared(), lost.clone()).await;
        let far = through(&proxy, &ns, 1_000).await;
        let increments = stream::iter(0..INCREMENTS).map(|_| far.increment("n", 1).into_future());
        let mut seen: Vec<i64> =
            increments.buffer_unordered(16).try_collect().await.expect("all are answered");
        assert!(lost.count() >= INCREMENTS / 97, "{} were lost", lost.count());
        // Each has got an answer of its own: none was applied twice, and none was given another's.
        seen.sort_unstable();
        assert!(seen.iter().copied().eq(1..=INCREMENTS as i64));
        let total = ns.with_codec(Text).get::<i64>("n").await.expect("answers");
        assert_eq!(total.expect("is there").value, INCREMENTS as i64);
    });
}

#[test]
fn every_kind_of_write_is_applied_once() {
    with_namespace("lost_kinds", async |ns| {
        // Of two answers one is lost, so every other write is sent twice.
        let proxy = Proxy::losing(fixture::shared(), LostAnswers::one_in(2)).await;
        let far = through(&proxy, &ns, 100).await;
        for round in 1..=10_u64 {
            let set = far.set("k", &round).await.expect("answers");
            assert_eq!(set.created, round == 1);
            let only = far.set(format!("once:{round}"), "x").if_absent();
            assert!(only.await.expect("was absent").created);
            let batch = [(format!("a:{round}"), 1), (format!("b:{round}"), 2)];
            assert_eq!(far.set_many(batch).await.expect("answers").len(), 2);
            let both = [format!("a:{round}"), format!("b:{round}")];
            assert_eq!(far.delete_many(both).await.expect("answers"), [true, true]);
            let appended = far
                .transaction()
                .compare(Compare::key(format!("tx:{round}")).missing())
                .then(Op::set(format!("tx:{round}"), "x"))
                .then(Op::increment("total", 1));
            assert!(appended.await.expect("answers").succeeded);
            let counted = far.transact(async |tx| {
                let so_far = tx.get::<u64>("counted").await?.unwrap_or(0);
                tx.set("counted", &(so_far + 1))?;
                Ok(so_far)
            });
            assert_eq!(counted.await.expect("commits").value, round - 1);
            assert!(far.delete(format!("once:{round}")).await.expect("answers").deleted);
        }
        let total = ns.with_codec(Text).get::<u64>("total").await.expect("answers");
        assert_eq!(total.expect("is there").value, 10);
        let k = ns.get::<u64>("k").await.expect("answers").expect("is there");
        assert_eq!((k.value, k.metadata.version), (10, 10));
        assert_eq!(ns.count(Selector::prefix("tx:")).await.expect("answers"), 10);
    });
}

#[test]
fn a_write_that_is_never_answered_is_of_unknown_outcome_and_applied_once() {
    with_namespace("never_answered", async |ns| {
        let lost = LostAnswers::one_in(1);
        let proxy = Proxy::losing(fixture::shared(), lost.clone()).await;
        let far = through(&proxy, &ns, 3).await;
        let error = far.increment("n", 1).await.expect_err("no answer comes");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert_eq!(lost.count(), 3);
        assert_eq!(ns.increment("n", 0).await.expect("answers"), 1);
    });
}

#[test]
fn a_write_that_never_was_sent_fails_cleanly() {
    with_namespace("never_sent", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let address = proxy.address;
        drop(proxy);
        let builder = Client::builder(address.to_string()).max_attempts(2);
        let client = builder.timeout(Duration::from_secs(30)).connect_lazy().expect("a client");
        let error = client.namespace(ns.name()).set("k", "v").await.expect_err("nobody is there");
        assert!(matches!(error, Error::Unavailable { .. }), "{error}");
    });
}

#[test]
fn the_end_of_a_namespace_is_not_sent_again_after_a_lost_answer() {
    with_namespace("lost_end", async |ns| {
        ns.set("k", "v").await.expect("answers");
        let lost = LostAnswers::one_in(1);
        let proxy = Proxy::losing(fixture::shared(), lost.clone()).await;
        let far = through(&proxy, &ns, 3).await;
        let error = far.delete_namespace().await.expect_err("no answer comes");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        assert_eq!(lost.count(), 1);
        assert_eq!(ns.info().await.expect("answers"), None);
    });
}

#[test]
fn the_end_of_one_lineage_can_be_sent_again() {
    with_namespace("lost_lineage", async |ns| {
        ns.set("k", "v").await.expect("answers");
        let lineage = ns.info().await.expect("answers").expect("is there").lineage;
        let proxy = Proxy::losing(fixture::shared(), LostAnswers::one_in(2)).await;
        let far = through(&proxy, &ns, 3).await;
        // The first answer comes, the second does not.
        assert!(far.exists("k").await.expect("answers"));
        let delete = || far.delete_namespace().expected_lineage(lineage.clone());
        let error = delete().await.expect_err("the lineage is over, whoever has ended it");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
        // What came after it stays.
        ns.set("k", "new").await.expect("answers");
        let error = delete().await.expect_err("is over");
        assert!(matches!(error, Error::LineageChanged { .. }), "{error}");
        assert!(ns.exists("k").await.expect("answers"));
    });
}

#[test]
fn a_repeated_answer_may_leave_out_values() {
    with_namespace("lost_values", async |ns| {
        let large = "x".repeat(5_000);
        let omitted = |error: Error| matches!(error, Error::ValueOmitted { key } if key == "k");
        let proxy = Proxy::losing(fixture::shared(), LostAnswers::one_in(2)).await;
        let far = through(&proxy, &ns, 100).await;
        // The first answer comes; from then on, each comes at the second attempt.
        assert!(!far.exists("k").await.expect("answers"));

        ns.set("k", &large).await.expect("answers");
        let touched = far.get::<String>("k").touch(Expiry::Never).await.expect("answers");
        let touched = touched.expect("is there");
        assert_eq!((touched.metadata.version, touched.value), (2, large.clone()));

        let set = far.set("k", "new").return_previous::<String>();
        assert!(omitted(set.await.expect_err("the value before is left out")));
        assert_eq!(ns.get::<String>("k").await.expect("answers").expect("is there").value, "new");

        ns.set("k", &large).await.expect("answers");
        let read = far.transaction().then(Op::get("k")).then(Op::increment("n", 1));
        let read = read.await.expect("answers");
        assert!(omitted(read.get::<String>(0).expect_err("what was read is left out")));
        assert_eq!(ns.increment("n", 0).await.expect("answers"), 1);

        let delete = far.delete("k").return_previous::<String>();
        assert!(omitted(delete.await.expect_err("the value before is left out")));
        assert!(!ns.exists("k").await.expect("answers"));
    });
}

#[test]
fn a_lineage_that_ended_after_a_lost_answer_does_not_say_that_nothing_was_applied() {
    with_namespace("lost_then_ended", async |ns| {
        ns.set("first", "v").await.expect("answers");
        let lineage = ns.info().await.expect("answers").expect("is there").lineage;
        let proxy = Proxy::losing(fixture::shared(), LostAnswers::one_in(2)).await;
        let far = through(&proxy, &ns, 1_000).await;
        // The first answer comes, the second does not, and until further notice there is no other.
        assert!(!far.exists("k").await.expect("answers"));
        proxy.close();
        let setting = far.set("k", "v").expected_lineage(lineage).into_future();
        let setting = tokio::spawn(setting);
        while !ns.exists("k").await.expect("answers") {}
        ns.delete_namespace().await.expect("answers");
        proxy.unblock();
        let error = setting.await.expect("no panic").expect_err("the lineage is over");
        assert!(matches!(error, Error::OutcomeUnknown { .. }), "{error}");
    });
}
