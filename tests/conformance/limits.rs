//! Limits of the memory backend, given in its URL. These alone are about one backend.

use holdfast_proto::v1::*;
use libtest_mimic::Trial;

use crate::common::{RUNTIME, backends::TestServer, build::*, namespace::Namespace};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("memory::limits::keys_over_the_limit_are_refused", || {
            let server = TestServer::on_url("memory:?max_keys=3");
            RUNTIME.block_on(keys_over_the_limit_are_refused(Namespace::fresh(&server, "keys")));
            Ok(())
        }),
        Trial::test("memory::limits::bytes_over_the_limit_are_refused", || {
            let server = TestServer::on_url("memory:?max_bytes=1000");
            RUNTIME.block_on(bytes_over_the_limit_are_refused(Namespace::fresh(&server, "bytes")));
            Ok(())
        }),
    ]
}

async fn keys_over_the_limit_are_refused(ns: Namespace) {
    let other = ns.sibling("other");
    ns.set("a", "1").await;
    ns.set("b", "1").await;
    other.set("c", "1").await;
    let before = ns.revision().await;
    ns.fails(set("d", "1"), ErrorReason::QuotaExceeded).await;
    other.fails(increment("n", 1), ErrorReason::QuotaExceeded).await;
    ns.fails(batch_set([item("a", "2"), item("d", "2")]), ErrorReason::QuotaExceeded).await;
    ns.fails(transact([op::set("d", "1")]), ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, before);
    ns.set("a", "2").await;
    other.ok(delete("c")).await;
    ns.set("d", "1").await;
    assert_eq!(ns.keys(all()).await, ["a", "b", "d"]);
}

async fn bytes_over_the_limit_are_refused(ns: Namespace) {
    let before = ns.set("a", "x".repeat(900)).await.mod_revision;
    ns.fails(set("b", "x".repeat(200)), ErrorReason::QuotaExceeded).await;
    ns.fails(set("a", "x".repeat(1000)), ErrorReason::QuotaExceeded).await;
    assert_eq!(ns.revision().await, before);
    ns.set("a", "1").await;
    ns.set("b", "x".repeat(200)).await;
}
