//! Bad input for everything but calls on keys, and bytes that are no request at all.

use holdfast_proto::v1::{
    kv_service_client::KvServiceClient, watch_service_client::WatchServiceClient, *,
};
use prost::bytes::Bytes;
use tonic::{Code, codegen::http::uri::PathAndQuery};

use crate::common::{
    build::*, call::Call, coordination::*, failure::Failure, lock_watcher::LockWatcher,
    namespace::Namespace,
};

crate::cases! {
    bad_namespace_names_are_refused_by_every_call,
    bad_settings_are_refused,
    bad_watches_are_refused,
    bad_scans_are_refused,
    bad_lists_of_namespaces_are_refused,
    bad_pipeline_messages_are_refused,
    a_bad_namespace_in_a_pipeline_fails_its_calls,
    keys_that_are_not_utf8_are_refused,
    requests_over_the_limit_are_refused,
    unknown_methods_are_unimplemented,
}

const BAD_NAMES: [&str; 8] = ["", "_hidden", "a b", "é", "a\0", "a\n", "a*", "a,b"];

fn is_bad_namespace<A: std::fmt::Debug>(result: Result<A, Failure>) {
    let failure = result.expect_err("refused").expect(ErrorReason::InvalidNamespace);
    assert_eq!(failure.fields, ["namespace"]);
}

async fn bad_namespace_names_are_refused_by_every_call(ns: Namespace) {
    let long = "x".repeat(129);
    let lock = Lock { name: "l".into(), token: 1, ..Default::default() };
    for name in BAD_NAMES.into_iter().chain([long.as_str()]) {
        let bad = Namespace { name: name.to_owned(), ..ns.clone() };
        is_bad_namespace(bad.call(get("k")).await);
        is_bad_namespace(bad.call(set("k", "1")).await);
        is_bad_namespace(bad.call(delete("k")).await);
        is_bad_namespace(bad.call(exists("k")).await);
        is_bad_namespace(bad.call(get_ttl("k")).await);
        is_bad_namespace(bad.call(set_ttl("k", ttl(9))).await);
        is_bad_namespace(bad.call(increment("k", 1)).await);
        is_bad_namespace(bad.call(list(all())).await);
        is_bad_namespace(bad.scan(scan(all())).await);
        is_bad_namespace(bad.call(count(all())).await);
        is_bad_namespace(bad.call(history("k")).await);
        is_bad_namespace(bad.call(delete_range(all())).await);
        is_bad_namespace(bad.call(batch_get(&["k"])).await);
        is_bad_namespace(bad.call(batch_set([item("k", "1")])).await);
        is_bad_namespace(bad.call(batch_delete(&["k"])).await);
        is_bad_namespace(bad.call(transact([op::get("k")])).await);
        is_bad_namespace(bad.watch(watch(all())).await.map(drop));
        is_bad_namespace(bad.call(acquire("l")).await);
        is_bad_namespace(bad.call(renew(&lock)).await);
        is_bad_namespace(bad.call(release(&lock)).await);
        is_bad_namespace(bad.call(update_value(&lock, "v")).await);
        is_bad_namespace(bad.call(get_lock("l")).await);
        is_bad_namespace(bad.call(list_locks("")).await);
        is_bad_namespace(bad.call(break_lock(&lock, "")).await);
        is_bad_namespace(LockWatcher::open(&bad, watch_locks("")).await.map(drop));
        is_bad_namespace(bad.call(grant(9)).await);
        is_bad_namespace(bad.keep(1).await);
        is_bad_namespace(bad.call(revoke(1)).await);
        is_bad_namespace(bad.call(get_lease(1)).await);
        is_bad_namespace(bad.call(ListLeasesRequest::default()).await);
        is_bad_namespace(bad.call(GetNamespaceRequest::default()).await);
        is_bad_namespace(bad.call(update(Default::default())).await);
        is_bad_namespace(bad.call(ClearNamespaceRequest::default()).await);
        is_bad_namespace(bad.call(DeleteNamespaceRequest::default()).await);
        is_bad_namespace(bad.call(compact(0)).await);
    }
    ns.set("k", "alive").await;
}

async fn bad_settings_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    let before = ns.state().await;
    let none = NamespaceSettings::default;
    let years = |years: u64| Some(years * 366 * 24 * 3_600_000);
    let table = [
        ("default_ttl_ms", NamespaceSettings { default_ttl_ms: Some(0), ..none() }),
        ("default_ttl_ms", NamespaceSettings { default_ttl_ms: years(101), ..none() }),
        ("default_ttl_ms", NamespaceSettings { default_ttl_ms: Some(u64::MAX), ..none() }),
        ("log_max_events", NamespaceSettings { log_max_events: Some(0), ..none() }),
        ("log_max_events", NamespaceSettings { log_max_events: Some(1_000_000_001), ..none() }),
        ("log_max_age_ms", NamespaceSettings { log_max_age_ms: Some(999), ..none() }),
        ("log_max_age_ms", NamespaceSettings { log_max_age_ms: years(11), ..none() }),
        ("log_max_bytes", NamespaceSettings { log_max_bytes: Some((1 << 20) - 1), ..none() }),
        ("log_max_bytes", NamespaceSettings { log_max_bytes: Some((1 << 40) + 1), ..none() }),
    ];
    for (field, settings) in table {
        let failure = ns.fails(update(settings), ErrorReason::InvalidSettings).await;
        assert_eq!(failure.fields, [format!("settings.{field}")]);
    }
    for path in ["", "nonsense", "settings.default_ttl_ms", "Default_ttl_ms", "*"] {
        let mask = prost_types::FieldMask { paths: vec!["quota_max_keys".into(), path.into()] };
        let request = UpdateNamespaceRequest { update_mask: Some(mask), ..update(none()) };
        let failure = ns.fails(request, ErrorReason::InvalidSettings).await;
        assert!(failure.fields[0].starts_with("update_mask"), "{failure:?}");
    }
    let after = ns.state().await;
    assert_eq!((after.revision, after.namespace), (before.revision, before.namespace));
}

async fn bad_watches_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    let field = ErrorReason::InvalidField;
    let selecting = |selectors| WatchRequest { selectors, ..watch(all()) };
    let typed = |kind| WatchRequest { types: vec![EventType::Set.into(), kind], ..watch(all()) };
    let paced = |interval| WatchRequest { progress_interval_ms: Some(interval), ..watch(all()) };
    let table = [
        (selecting(vec![]), ErrorReason::InvalidSelector, "selectors"),
        (selecting(vec![all(); 101]), ErrorReason::InvalidSelector, "selectors"),
        (selecting(vec![glob(&"x".repeat(1000)); 5]), ErrorReason::InvalidSelector, "selectors"),
        (selecting(vec![all(), Selector::default()]), ErrorReason::InvalidSelector, "selectors[1]"),
        (selecting(vec![glob("[")]), ErrorReason::InvalidGlob, "selectors[0].glob"),
        (selecting(vec![key("")]), ErrorReason::InvalidKey, "selectors[0].key"),
        (selecting(vec![all(), prefix("")]), ErrorReason::InvalidSelector, "selectors[1].prefix"),
        (
            selecting(vec![range("b", Some(b"a"))]),
            ErrorReason::InvalidSelector,
            "selectors[0].range",
        ),
        (typed(0), field, "types[1]"),
        (typed(99), field, "types[1]"),
        (typed(-1), field, "types[1]"),
        (paced(0), field, "progress_interval_ms"),
        (paced(99), field, "progress_interval_ms"),
        (paced(3_600_001), field, "progress_interval_ms"),
    ];
    for (mut request, reason, path) in table {
        request.namespace.clone_from(&ns.name);
        let mut client = WatchServiceClient::new(ns.channel.clone());
        let status = match client.watch(request).await {
            Err(status) => status,
            Ok(mut stream) => stream.get_mut().message().await.expect_err("refused"),
        };
        let failure = Failure::from(status).expect(reason);
        assert!(failure.fields[0].starts_with(path), "{path} expected: {failure:?}");
    }
    ns.watching(watch(all())).await;
}

async fn bad_scans_are_refused(ns: Namespace) {
    ns.set("k", "1").await;
    let table = [
        (None, ErrorReason::InvalidSelector, "selector"),
        (Some(Selector::default()), ErrorReason::InvalidSelector, "selector"),
        (Some(prefix("")), ErrorReason::InvalidSelector, "selector.prefix"),
        (Some(key("a\0")), ErrorReason::InvalidKey, "selector.key"),
        (Some(glob("a\\")), ErrorReason::InvalidGlob, "selector.glob"),
        (Some(glob("\0*")), ErrorReason::InvalidGlob, "selector.glob"),
    ];
    for (selector, reason, path) in table {
        let request = ScanRequest { selector, ..Default::default() };
        let failure = ns.scan(request).await.expect_err("refused").expect(reason);
        assert!(failure.fields[0].starts_with(path), "{path} expected: {failure:?}");
    }
}

async fn bad_lists_of_namespaces_are_refused(ns: Namespace) {
    let too_many = ListNamespacesRequest { page_size: 1001, ..Default::default() };
    let failure = ns.fails(too_many, ErrorReason::InvalidField).await;
    assert_eq!(failure.fields, ["page_size"]);
    for page_token in [Bytes::from("x"), vec![0xff; 50].into()] {
        let request = ListNamespacesRequest { page_token, ..Default::default() };
        let failure = ns.fails(request, ErrorReason::InvalidPageToken).await;
        assert_eq!(failure.fields, ["page_token"]);
    }
}

/// Such a message has no call to answer to, or too many: the stream ends with the error.
async fn bad_pipeline_messages_are_refused(ns: Namespace) {
    let call = PipelineCall {
        operation: Some(pipeline_call::Operation::Set(set("k", "1"))),
        ..Default::default()
    };
    for calls in [vec![], vec![call; 4097]] {
        let mut pipe = ns.pipe().await;
        pipe.send_raw(PipelineRequest { namespace: ns.name.clone(), calls });
        let failure = pipe.next().await.expect_err("refused");
        let failure = failure.expect(ErrorReason::InvalidBatch);
        assert!(failure.fields[0].starts_with("calls"), "{failure:?}");
    }
    assert_eq!(ns.state().await.namespace, None, "nothing was applied");
}

async fn a_bad_namespace_in_a_pipeline_fails_its_calls(ns: Namespace) {
    for name in BAD_NAMES {
        let mut pipe = ns.pipe().await;
        let calls = vec![PipelineCall {
            id: 5,
            ordered: false,
            operation: Some(pipeline_call::Operation::Set(set("k", "1"))),
        }];
        pipe.send_raw(PipelineRequest { namespace: name.into(), calls });
        let failure = match pipe.next().await {
            Err(failure) => failure,
            Ok(answer) => match answer.expect("answered") {
                PipelineAnswer { id: 5, result: Some(pipeline_answer::Result::Status(status)) } => {
                    status.into()
                }
                other => panic!("{other:?}"),
            },
        };
        failure.expect(ErrorReason::InvalidNamespace);
    }
}

/// A `SetRequest` whose texts are any bytes.
#[derive(Clone, PartialEq, prost::Message)]
struct RawSet {
    #[prost(bytes = "vec", tag = "1")]
    namespace: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    key: Vec<u8>,
}

/// Calls a method with a message of any type.
async fn call_raw<M: prost::Message + 'static>(
    ns: &Namespace,
    path: &'static str,
    message: M,
) -> tonic::Status {
    let mut client = tonic::client::Grpc::new(ns.channel.clone());
    client.ready().await.expect("the server is there");
    let codec = tonic_prost::ProstCodec::<M, SetResponse>::new();
    let result = client.unary(tonic::Request::new(message), PathAndQuery::from_static(path), codec);
    result.await.map(|answer| answer.into_inner()).expect_err("refused")
}

async fn keys_that_are_not_utf8_are_refused(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    for key in [vec![0xff], vec![b'a', 0xc3], vec![0xed, 0xa0, 0x80]] {
        let message = RawSet { namespace: ns.name.clone().into_bytes(), key };
        call_raw(&ns, "/holdfast.v1.KvService/Set", message).await;
    }
    assert_eq!(ns.revision().await, before);
    assert_eq!(ns.keys(all()).await, ["k"]);
}

async fn requests_over_the_limit_are_refused(ns: Namespace) {
    let before = ns.set("k", "1").await.mod_revision;
    let info = ns.ok(GetServerInfoRequest {}).await;
    let limit = info.limits.expect("a server has limits").max_request_bytes;
    let value = vec![0; usize::try_from(limit).expect("small") + 1];
    let request = SetRequest { namespace: ns.name.clone(), ..set("k", value) };
    let status = request.send(ns.channel.clone()).await.expect_err("refused");
    let expected = [Code::ResourceExhausted, Code::OutOfRange, Code::InvalidArgument];
    assert!(expected.contains(&status.code()), "{status:?}");
    assert_eq!(ns.revision().await, before);
}

async fn unknown_methods_are_unimplemented(ns: Namespace) {
    let status = call_raw(&ns, "/holdfast.v1.KvService/Nonsense", RawSet::default()).await;
    assert_eq!(status.code(), Code::Unimplemented);
    let mut client = KvServiceClient::new(ns.channel.clone());
    client.get(GetRequest { namespace: ns.name.clone(), ..get("k") }).await.expect("alive");
}
