//! Numbers: increments, alone and many at once.

use futures::future::join_all;
use holdfast_proto::v1::*;

use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    increment_counts_a_missing_key_as_initial,
    increment_stores_decimal_text,
    increment_keeps_expiry_and_content_type,
    increment_by_zero_is_a_change,
    increment_of_what_is_no_number_changes_nothing,
    increment_over_the_bounds_changes_nothing,
    increment_reaches_the_bounds,
    concurrent_increments_all_count,
}

async fn increment_counts_a_missing_key_as_initial(ns: Namespace) {
    assert_eq!(ns.ok(increment("plain", 5)).await.value, 5);
    let answer = ns
        .ok(IncrementRequest { initial: 100, expiry: ttl(60_000), ..increment("from", -1) })
        .await;
    assert_eq!(answer.value, 99);
    let entry = ns.get("from").await.expect("created");
    assert_eq!(entry.expires_at_ms, Some(answer.time_ms + 60_000));
    assert_eq!((entry.version, entry.mod_revision), (1, answer.revision));
    let again = ns.ok(IncrementRequest { initial: 100, ..increment("from", -1) }).await;
    assert_eq!(again.value, 98, "initial is for missing keys only");
}

async fn increment_stores_decimal_text(ns: Namespace) {
    ns.ok(increment("k", -12)).await;
    let entry = ns.get("k").await.expect("created");
    assert_eq!(entry.value, Some("-12".into()));
    assert_eq!(entry.content_type, "text/plain");
    ns.set("text", "41").await;
    assert_eq!(ns.ok(increment("text", 1)).await.value, 42);
}

async fn increment_keeps_expiry_and_content_type(ns: Namespace) {
    let written = ns
        .ok(SetRequest { content_type: "number/own".into(), expiry: ttl(60_000), ..set("k", "1") })
        .await;
    ns.ok(IncrementRequest { expiry: ttl(5), ..increment("k", 1) }).await;
    let entry = ns.get("k").await.expect("kept");
    assert_eq!(entry.content_type, "number/own");
    assert_eq!(entry.expires_at_ms, Some(written.time_ms + 60_000));
    assert_eq!(entry.version, 2);
}

async fn increment_by_zero_is_a_change(ns: Namespace) {
    let written = ns.set("k", "7").await;
    let answer = ns.ok(increment("k", 0)).await;
    assert_eq!((answer.value, answer.revision), (7, written.mod_revision + 1));
}

async fn increment_of_what_is_no_number_changes_nothing(ns: Namespace) {
    let not_numbers = [
        "",
        "a",
        "01",
        "+1",
        " 1",
        "1 ",
        "1.0",
        "1e3",
        "--1",
        "-",
        "0x1",
        "９",
        "9223372036854775808",
        "-01",
    ];
    for text in not_numbers {
        let written = ns.set("k", text).await;
        ns.fails(increment("k", 1), ErrorReason::NotANumber).await;
        assert_eq!(ns.value("k").await.as_deref(), Some(text));
        assert_eq!(ns.revision().await, written.mod_revision);
    }
}

async fn increment_over_the_bounds_changes_nothing(ns: Namespace) {
    for (start, delta) in [(i64::MAX, 1), (i64::MIN, -1), (1, i64::MAX), (-2, i64::MIN)] {
        let written = ns.set("k", start.to_string()).await;
        ns.fails(increment("k", delta), ErrorReason::NotANumber).await;
        assert_eq!(ns.value("k").await, Some(start.to_string()));
        assert_eq!(ns.revision().await, written.mod_revision);
    }
    let missing = IncrementRequest { initial: i64::MAX, ..increment("missing", 1) };
    ns.fails(missing, ErrorReason::NotANumber).await;
    assert!(!ns.ok(exists("missing")).await.exists);
}

async fn increment_reaches_the_bounds(ns: Namespace) {
    ns.set("k", i64::MAX.to_string()).await;
    assert_eq!(ns.ok(increment("k", -1)).await.value, i64::MAX - 1);
    assert_eq!(ns.ok(increment("k", 1)).await.value, i64::MAX);
    ns.set("k", i64::MIN.to_string()).await;
    assert_eq!(ns.ok(increment("k", i64::MAX)).await.value, -1);
}

async fn concurrent_increments_all_count(ns: Namespace) {
    let workers = (0..64).map(|_| async {
        let mut seen = Vec::new();
        for _ in 0..10 {
            seen.push(ns.ok(increment("k", 1)).await.value);
        }
        seen
    });
    let mut seen: Vec<i64> = join_all(workers).await.concat();
    seen.sort_unstable();
    assert_eq!(seen, (1..=640).collect::<Vec<_>>());
    assert_eq!(ns.get("k").await.expect("created").version, 640);
}
