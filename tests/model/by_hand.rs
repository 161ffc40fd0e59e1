//! What needs a clock moved by hand to be seen to the millisecond, or at all.

use std::{sync::Arc, time::Duration};

use futures::future::BoxFuture;
use holdfast_proto::v1::{get_ttl_response::Ttl, *};

use crate::common::{build::*, clock::TestClock, namespace::Namespace};

/// A case with its name; it may move the clock, which is nobody else's meanwhile.
pub type Case = (&'static str, fn(Namespace, Arc<TestClock>) -> BoxFuture<'static, ()>);

/// Lists cases, by their functions.
macro_rules! by_hand {
    ($($name:ident,)*) => {
        pub const CASES: &[$crate::by_hand::Case] = &[
            $((stringify!($name), |ns, clock| Box::pin($name(ns, clock))),)*
        ];
    };
}
pub(crate) use by_hand;

by_hand! {
    an_entry_lives_to_the_last_millisecond,
    the_expiry_is_committed_when_the_deadline_comes,
    a_hundred_years_pass,
    a_refresh_at_the_last_millisecond_counts,
    events_grow_old_and_are_forgotten,
    pages_are_of_the_first_pages_time,
}

fn leaving(key: &str, ttl_ms: u64) -> SetRequest {
    SetRequest { expiry: ttl(ttl_ms), ..set(key, "1") }
}

/// Moves the clock on.
pub fn pass(clock: &TestClock, ms: u64) {
    clock.advance(Duration::from_millis(ms));
}

async fn an_entry_lives_to_the_last_millisecond(ns: Namespace, clock: Arc<TestClock>) {
    let answer = ns.ok(leaving("k", 1000)).await;
    assert_eq!(answer.time_ms, clock.now_ms());
    pass(&clock, 999);
    assert!(ns.ok(exists("k")).await.exists);
    assert_eq!(ns.ok(get_ttl("k")).await.ttl, Some(Ttl::RemainingMs(1)));
    pass(&clock, 1);
    assert!(!ns.ok(exists("k")).await.exists);
    assert_eq!(ns.ok(get_ttl("k")).await.ttl, Some(Ttl::Missing(Default::default())));
}

async fn the_expiry_is_committed_when_the_deadline_comes(ns: Namespace, clock: Arc<TestClock>) {
    let mut watcher = ns.watching(watch(all())).await;
    let mut due = Vec::new();
    for round in 1..=5 {
        due.push(
            ns.ok(leaving(&format!("k{round}"), round * 100)).await.time_ms + 100 * round as i64,
        );
    }
    watcher.events(5).await;
    for (round, due) in (1..).zip(due) {
        pass(&clock, 100);
        let event = watcher.events(1).await.remove(0);
        assert_eq!((event.r#type(), event.key), (EventType::Expire, format!("k{round}")));
        assert_eq!(event.time_ms, due);
    }
}

async fn a_hundred_years_pass(ns: Namespace, clock: Arc<TestClock>) {
    const YEARS: u64 = 36_500 * 24 * 3_600_000;
    let set = ns.ok(leaving("k", YEARS)).await;
    pass(&clock, YEARS - 1);
    assert!(ns.ok(exists("k")).await.exists);
    pass(&clock, 1);
    assert!(!ns.ok(exists("k")).await.exists);
    let mut watcher = ns.watching(watch_after(all(), set.revision)).await;
    assert_eq!(watcher.events(1).await[0].r#type(), EventType::Expire);
}

async fn a_refresh_at_the_last_millisecond_counts(ns: Namespace, clock: Arc<TestClock>) {
    let set = ns.ok(leaving("k", 50)).await;
    for _ in 0..20 {
        pass(&clock, 49);
        assert!(ns.ok(set_ttl("k", ttl(50))).await.found);
    }
    pass(&clock, 50);
    assert!(!ns.ok(set_ttl("k", ttl(50))).await.found);
    let mut watcher = ns.watching(watch_after(all(), set.revision)).await;
    let events = watcher.events(21).await;
    assert_eq!(events[20].r#type(), EventType::Expire);
    assert_eq!(events[20].time_ms, clock.now_ms());
}

async fn events_grow_old_and_are_forgotten(ns: Namespace, clock: Arc<TestClock>) {
    ns.ok(update(NamespaceSettings { log_max_age_ms: Some(60_000), ..Default::default() })).await;
    let old = ns.set("k", "1").await.mod_revision;
    let next = ns.set("k", "2").await.mod_revision;
    pass(&clock, 59_000);
    let young = ns.set("k", "3").await.mod_revision;
    ns.ok(get_at("k", old)).await;
    assert_eq!(ns.events_after(old).await.len(), 2);
    pass(&clock, 2_000);
    // Forgetting goes on beside the writes; each gives it a reason to.
    let oldest = loop {
        match ns.call(get_at("k", old)).await {
            Ok(_) => drop(ns.set("other", "1").await),
            Err(failure) => {
                break failure.expect(ErrorReason::Compacted).number("oldest_revision");
            }
        }
    };
    assert!(oldest >= next && oldest < young, "what is younger is held: {oldest}");
    assert_eq!(ns.value("k").await.as_deref(), Some("3"));
    assert!(!ns.events_after(young - 1).await.is_empty());
}

async fn pages_are_of_the_first_pages_time(ns: Namespace, clock: Arc<TestClock>) {
    for name in ["a", "b", "c", "d"] {
        ns.ok(leaving(name, 100)).await;
    }
    let paged = ListRequest { page_size: 2, ..list(all()) };
    let first = ns.ok(paged.clone()).await;
    pass(&clock, 100);
    assert!(ns.keys(all()).await.is_empty());
    let rest = ns.ok(ListRequest { page_token: first.next_page_token, ..paged }).await;
    let keys: Vec<_> = rest.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["c", "d"]);
    assert_eq!((rest.revision, rest.time_ms), (first.revision, first.time_ms));
}
