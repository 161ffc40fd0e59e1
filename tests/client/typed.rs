//! The typed client: values, conditions, batches, transactions, lists.

use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, future::join_all};
use holdfast_client::{
    Change, Compare, Entry, Error, Expiry, Op, OpResult, Raw, Revision, Selector, Text,
    TransactOptions, Ttl,
};
use serde::{Deserialize, Serialize};

use crate::fixture::with_namespace;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    visits: u32,
}

fn user(name: &str, visits: u32) -> User {
    User { name: name.to_owned(), visits }
}

#[test]
fn values_go_through_serde() {
    with_namespace("values", async |users| {
        assert_eq!(users.get::<User>("u").await.expect("answers"), None);
        let set = users.set("u", &user("ann", 1)).await.expect("answers");
        assert!(set.created);
        let entry = users.get::<User>("u").await.expect("answers").expect("is there");
        assert_eq!(entry.value, user("ann", 1));
        assert_eq!(entry.metadata, set.metadata);
        assert_eq!(entry.metadata.content_type, "application/json");
        // Another codec on the same key.
        let raw = users.with_codec(Raw::new());
        let bytes = raw.get::<String>("u").await.expect("answers").expect("is there");
        assert_eq!(bytes.value, r#"{"name":"ann","visits":1}"#);
        let error = users.with_codec(Text).get::<i64>("u").await.expect_err("not text");
        assert!(matches!(error, Error::UnexpectedContentType { .. }), "{error}");
        let error = users.get::<u64>("u").await.expect_err("not a number");
        assert!(matches!(error, Error::Codec { .. }), "{error}");
    });
}

#[test]
fn compare_and_set_tells_what_is_there() {
    with_namespace("cas", async |users| {
        let first = users.set("u", &user("ann", 1)).if_absent().await.expect("is absent");
        let second = users.set("u", &user("ann", 2)).if_revision(first.metadata.mod_revision);
        let second = second.return_previous::<User>().await.expect("is at that revision");
        assert_eq!(second.previous.map(Entry::into_value), Some(user("ann", 1)));
        let stale = users.set("u", &user("ann", 3)).if_revision(first.metadata.mod_revision);
        match stale.await {
            Err(Error::ConditionNotMet { current: Some(current), .. }) => {
                assert_eq!(*current, second.metadata);
            }
            other => panic!("{other:?}"),
        }
        match users.set("v", &1).if_present().await {
            Err(Error::ConditionNotMet { current: None, .. }) => {}
            other => panic!("{other:?}"),
        }
        let deleted = users.delete("u").if_revision(second.metadata.mod_revision);
        let deleted = deleted.return_previous::<User>().await.expect("is at that revision");
        assert!(deleted.deleted);
        assert_eq!(deleted.previous.map(Entry::into_value), Some(user("ann", 2)));
        assert!(!users.exists("u").await.expect("answers"));
    });
}

#[test]
fn of_many_writers_at_one_revision_one_wins() {
    with_namespace("race", async |ns| {
        let first = ns.set("k", &0).await.expect("answers").metadata.mod_revision;
        let writers = (0..64).map(|n| {
            let ns = ns.clone();
            async move { ns.set("k", &n).if_revision(first).await }
        });
        let outcomes = join_all(writers).await;
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        for outcome in outcomes {
            assert!(matches!(outcome, Ok(_) | Err(Error::ConditionNotMet { .. })), "{outcome:?}");
        }
    });
}

#[test]
fn ttls_and_counters() {
    with_namespace("ttl", async |ns| {
        assert_eq!(ns.ttl("n").await.expect("answers"), Ttl::Missing);
        let hour = Duration::from_secs(3600);
        assert_eq!(ns.increment("n", 2).initial(40).ttl(hour).await.expect("answers"), 42);
        assert_eq!(ns.increment("n", -43).await.expect("answers"), -1);
        match ns.ttl("n").await.expect("answers") {
            Ttl::Remaining(left) => assert!(left <= hour && left > hour / 2),
            other => panic!("{other:?}"),
        }
        assert!(ns.set_ttl("n", Expiry::Never).await.expect("answers"));
        assert_eq!(ns.ttl("n").await.expect("answers"), Ttl::Never);
        let number = ns.with_codec(Text).get::<i64>("n").await.expect("answers");
        assert_eq!(number.map(Entry::into_value), Some(-1));
        ns.set("text", "x").await.expect("answers");
        let error = ns.increment("text", 1).await.expect_err("not a number");
        assert!(matches!(error, Error::NotANumber { step: None, .. }), "{error}");
    });
}

#[test]
fn batches_are_one_revision() {
    with_namespace("batch", async |ns| {
        let batch =
            ns.set_many([("a", 1), ("b", 2)]).set_expiring("c", &3, Duration::from_secs(60));
        let set = batch.with_header().await.expect("answers");
        assert!(set.value.iter().all(|entry| entry.mod_revision == set.header.revision));
        assert!(set.value[2].expires_at.is_some() && set.value[0].expires_at.is_none());
        let got = ns.get_many::<i32>(["c", "none", "a"]).await.expect("answers");
        let values: Vec<_> = got.into_iter().map(|entry| entry.map(Entry::into_value)).collect();
        assert_eq!(values, [Some(3), None, Some(1)]);
        assert_eq!(ns.delete_many(["a", "none"]).await.expect("answers"), [true, false]);
        assert_eq!(ns.count(Selector::all()).await.expect("answers"), 2);
        match ns.set_many([("a", 1), ("a", 2)]).await {
            Err(Error::Invalid { field: Some(field), .. }) => assert_eq!(field, "items[1]"),
            other => panic!("{other:?}"),
        }
    });
}

#[test]
fn a_transaction_runs_one_branch_or_the_other() {
    with_namespace("transaction", async |ns| {
        let attempt = || {
            ns.transaction()
                .compare(Compare::key("owner").missing())
                .then(Op::set("owner", &user("ann", 0)))
                .then(Op::increment("count", 1))
                .otherwise(Op::get("owner"))
        };
        let first = attempt().await.expect("answers");
        assert!(first.succeeded);
        assert!(matches!(first.results[1], OpResult::Increment { value: 1 }));
        let second = attempt().await.expect("answers");
        assert_eq!((second.succeeded, second.failed_compares.as_slice()), (false, &[0][..]));
        let owner = second.get::<User>(0).expect("fits").expect("is there");
        assert_eq!(owner.value, user("ann", 0));
        assert_eq!(owner.mod_revision(), first.header.revision);
    });
}

#[test]
fn racing_optimistic_transactions_add_up() {
    const TASKS: u64 = 8;
    const EACH: u64 = 20;
    with_namespace("optimistic", async |ns| {
        let tasks = (0..TASKS).map(|_| {
            let ns = ns.clone();
            async move {
                let mut attempts = 0;
                for _ in 0..EACH {
                    let options = TransactOptions::new().max_attempts(1_000);
                    let committed = ns
                        .transact_with(options, async |tx| -> Result<(), Error> {
                            let left = tx.get::<u64>("left").await?.unwrap_or(0);
                            let right = tx.get::<u64>("right").await?.unwrap_or(0);
                            assert_eq!(left, right, "a transaction sees one state");
                            tx.set("left", &(left + 1))?;
                            tx.set("right", &(right + 1))?;
                            Ok(())
                        })
                        .await;
                    attempts += committed.expect("succeeds in the end").attempts;
                }
                attempts
            }
        });
        let attempts: u32 = join_all(tasks).await.into_iter().sum();
        assert!(u64::from(attempts) >= TASKS * EACH);
        for key in ["left", "right"] {
            let total = ns.get::<u64>(key).await.expect("answers").expect("is there");
            assert_eq!(total.value, TASKS * EACH);
            assert_eq!(total.metadata.version, TASKS * EACH, "each is applied once");
        }
    });
}

#[test]
fn an_optimistic_transaction_that_fails_changes_nothing() {
    with_namespace("rollback", async |ns| {
        ns.set("k", &1).await.expect("answers");
        let result = ns
            .transact(async |tx| {
                tx.set("k", &2)?;
                tx.get::<String>("k").await?;
                Ok(())
            })
            .await;
        assert!(result.is_err(), "{result:?}");
        let value = ns.get::<i32>("k").await.expect("answers").map(Entry::into_value);
        assert_eq!(value, Some(1));
    });
}

#[test]
fn lists_stream_over_pages_of_one_state() {
    const ENTRIES: usize = 2_500;
    with_namespace("pages", async |ns| {
        fill(&ns, ENTRIES).await;
        let mut entries = ns.list::<usize>(Selector::prefix("k")).page_size(100).stream();
        let mut seen = Vec::new();
        while let Some(entry) = entries.next().await {
            let entry = entry.expect("goes on");
            assert_eq!(entry.value, seen.len(), "later writes do not show");
            seen.push(entry.key().to_owned());
            // Writers change what is still to be listed.
            if seen.len() % 500 == 1 {
                ns.set(key(ENTRIES - seen.len()), &999_999).await.expect("answers");
                ns.delete(key(ENTRIES - 1)).await.expect("answers");
                ns.set(format!("{}x", key(ENTRIES / 2)), &999_999).await.expect("answers");
            }
        }
        assert_eq!(seen.len(), ENTRIES);
        assert!(seen.is_sorted());
        let header = entries.header().expect("it has begun");
        let cursor = entries.cursor().expect("it has begun");
        assert_eq!(cursor.revision, header.revision);
        // The same state again, by its revision, from behind, without values.
        let again = ns.scan_keys(Selector::prefix("k")).at_revision(header.revision).reverse();
        let again: Vec<_> = again.stream().try_collect().await.expect("is held");
        assert!(again.iter().rev().map(Entry::key).eq(seen.iter().map(String::as_str)));
    });
}

#[test]
fn a_list_by_hand_goes_from_page_to_page() {
    with_namespace("page", async |ns| {
        fill(&ns, 5).await;
        let first = ns.list::<usize>(Selector::all()).page_size(2).page().await.expect("answers");
        assert_eq!(first.entries.len(), 2);
        let next = first.next.clone().expect("there is more");
        let rest = ns.list::<usize>(Selector::all()).page_size(10).page_token(next);
        match rest.page().await {
            // The size may change from page to page; what is listed may not.
            Ok(page) => {
                assert_eq!((page.entries.len(), page.header.revision), (3, first.header.revision));
                assert_eq!(page.next, None);
            }
            Err(error) => panic!("{error}"),
        }
        let other = ns.list::<usize>(Selector::glob("x*")).page_token(first.next.expect("it has"));
        let error = other.page().await.expect_err("another list");
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
    });
}

#[test]
fn the_past_can_be_read_until_it_is_compacted() {
    with_namespace("past", async |ns| {
        let first = ns.set("k", &1).await.expect("answers").header.revision;
        let second = ns.set("k", &2).await.expect("answers").header.revision;
        ns.delete("k").await.expect("answers");
        let old = ns.get::<i32>("k").at_revision(first).await.expect("is held");
        assert_eq!(old.map(Entry::into_value), Some(1));
        let history = ns.history::<i32>("k").limit(2).await.expect("answers");
        assert!(history.more);
        assert!(matches!(history.events[0].change, Change::Deleted));
        let before = history.events[1].revision;
        assert_eq!(before, second);
        let rest = ns.history::<i32>("k").before(before).await.expect("answers");
        assert_eq!((rest.events.len(), rest.more), (1, false));
        assert_eq!(ns.compact(second).await.expect("answers"), second);
        let error = ns.get::<i32>("k").at_revision(first).await.expect_err("compacted");
        assert!(matches!(error, Error::Compacted { oldest } if oldest > first), "{error}");
        let future = Revision::new(second.get() + 100);
        let error = ns.get::<i32>("k").at_revision(future).await.expect_err("not yet");
        assert!(matches!(error, Error::FutureRevision { .. }), "{error}");
    });
}

#[test]
fn ranges_are_deleted_and_namespaces_cleared() {
    with_namespace("ranges", async |ns| {
        fill(&ns, 30).await;
        let part = ns.delete_range(Selector::range(key(0)..key(10))).limit(4);
        let part = part.await.expect("answers");
        assert_eq!((part.deleted, part.more), (4, true));
        assert_eq!(ns.count(Selector::all()).await.expect("answers"), 26);
        assert_eq!(ns.clear().await.expect("answers"), 26);
        let info = ns.update_settings().quota_max_keys(1).await.expect("answers");
        assert_eq!((info.key_count, info.settings.quota_max_keys), (0, Some(1)));
        let error = ns.set_many([("a", 1), ("b", 2)]).await.expect_err("over the quota");
        assert!(matches!(error, Error::QuotaExceeded { .. }), "{error}");
        assert!(ns.delete_namespace().await.expect("answers"));
        assert_eq!(ns.info().await.expect("answers"), None);
    });
}

fn key(number: usize) -> String {
    format!("k{number:05}")
}

async fn fill(ns: &holdfast_client::Namespace, entries: usize) {
    let numbers: Vec<usize> = (0..entries).collect();
    for part in numbers.chunks(1_000) {
        let items = part.iter().map(|number| (key(*number), *number));
        ns.set_many(items).await.expect("answers");
    }
}
