//! The server itself: information, statistics, compaction.

use futures::stream;
use holdfast_proto::v1::*;
use tonic::{Request, client::Grpc, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::common::{
    backends::statistics,
    build::*,
    health::{SERVING, health},
    namespace::Namespace,
};

crate::cases! {
    server_tells_what_it_is,
    limits_are_those_of_the_documentation,
    statistics_count_what_happens,
    health_is_serving,
    reflection_knows_all_services,
    compaction_of_everything_keeps_the_namespace_writable,
}

async fn server_tells_what_it_is(ns: Namespace) {
    let info = ns.ok(GetServerInfoRequest {}).await;
    assert_eq!(info.version, env!("CARGO_PKG_VERSION"));
    assert_eq!(info.server_id.len(), 36, "a UUID: {}", info.server_id);
    assert!(!info.backend.is_empty() && !info.durability.is_empty());
    assert!(info.started_at_ms > 0 && info.started_at_ms <= info.time_ms);
    let again = ns.ok(GetServerInfoRequest {}).await;
    assert_eq!(again.server_id, info.server_id);
    assert!(again.time_ms >= info.time_ms);
}

async fn limits_are_those_of_the_documentation(ns: Namespace) {
    let info = ns.ok(GetServerInfoRequest {}).await;
    let limits = info.limits.expect("a server has limits");
    assert_eq!(limits.max_value_bytes, 1 << 20);
    assert_eq!(limits.max_key_bytes, 1024);
    assert_eq!(limits.max_batch_keys, 1024);
    assert_eq!(limits.max_revision_keys, 10_000);
    assert_eq!(limits.max_revision_bytes, 16 << 20);
    assert!(limits.max_request_bytes > limits.max_value_bytes);
}

async fn statistics_count_what_happens(ns: Namespace) {
    let before = statistics(&ns.servers).await;
    let base = ns.set("k", "12345678").await.mod_revision;
    let watcher = ns.watching(watch(all())).await;
    let mut expiring = ns.watching(watch_after(all(), base)).await;
    ns.ok(SetRequest { expiry: ttl(1), ..set("short", "1") }).await;
    expiring.events(2).await;
    let after = statistics(&ns.servers).await;
    // Other cases run beside this one: what only rises can be compared.
    assert!(after.commands >= before.commands + 2);
    assert!(after.commits > before.commits);
    assert!(after.expired > before.expired);
    assert!(after.watches >= 2);
    assert!(after.namespaces >= 1 && after.keys >= 1 && after.bytes >= 9);
    assert!(after.log_events >= 3 && after.log_bytes >= 9);
    assert!(after.time_ms >= before.time_ms);
    drop(watcher);
}

async fn compaction_of_everything_keeps_the_namespace_writable(ns: Namespace) {
    for round in 0..5_u32 {
        let revision = ns.set("k", round.to_string()).await.mod_revision;
        let answer = ns.ok(compact(revision)).await;
        assert_eq!((answer.revision, answer.compacted_revision), (revision, revision));
        assert!(answer.time_ms > 0);
        assert_eq!(ns.value("k").await, Some(round.to_string()));
    }
    assert_eq!(ns.get("k").await.expect("set").version, 5);
}

async fn health_is_serving(ns: Namespace) {
    for service in ["", "holdfast.v1.KvService", "holdfast.v1.WatchService"] {
        assert_eq!(health(ns.channel.clone(), service).await, SERVING, "{service}");
    }
}

/// `grpc.reflection.v1`, as far as it is about the names of services.
#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionRequest {
    #[prost(string, optional, tag = "7")]
    list_services: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReflectionResponse {
    #[prost(message, optional, tag = "6")]
    services: Option<Services>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Services {
    #[prost(message, repeated, tag = "1")]
    service: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    service: String,
}

async fn reflection_knows_all_services(ns: Namespace) {
    let mut client = Grpc::new(ns.channel.clone());
    client.ready().await.expect("the server is there");
    let path =
        PathAndQuery::from_static("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo");
    let codec = ProstCodec::<ReflectionRequest, ReflectionResponse>::new();
    let request = ReflectionRequest { list_services: Some("*".to_owned()) };
    let requests = Request::new(stream::iter([request]));
    let answers = client.streaming(requests, path, codec).await;
    let mut answers = answers.expect("answered").into_inner();
    let answer = answers.message().await.expect("answered").expect("one answer");
    let services = answer.services.expect("asked for").service;
    for name in ["Kv", "Transaction", "Watch", "Pipeline", "Namespace", "Admin"] {
        let name = format!("holdfast.v1.{name}Service");
        assert!(services.iter().any(|found| found.service == name), "{name} is missing");
    }
}
