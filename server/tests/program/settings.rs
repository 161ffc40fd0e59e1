//! Where settings come from, and that they have an effect.

use holdfast_proto::v1::{
    GetNamespaceRequest, NamespaceSettings, SetRequest,
    namespace_service_client::NamespaceServiceClient,
};
use tonic::Code;

use super::harness::{holdfastd, start};

#[tokio::test]
async fn flags_come_before_the_environment_before_the_file_before_defaults() {
    let printed = holdfastd(&["--print-config", "--config", "h.yaml", "--listen", "[::1]:1"])
        .variable("HOLDFASTD_LISTEN", "127.0.0.1:2")
        .variable("HOLDFASTD_LOG_FILTER", "info,holdfast_server=debug")
        .file(
            "h.yaml",
            "listen: 127.0.0.1:3\nlog: {filter: warn, format: json}\ntls:\n# cert: cert.pem\n",
        )
        .prints()
        .await;
    for line in [
        "listen = \"[::1]:1\"",
        "filter = \"info,holdfast_server=debug\"",
        "format = \"json\"",
        "backend = \"files:holdfast-data\"",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
}

#[tokio::test]
async fn the_printed_configuration_can_be_used_again() {
    let first =
        holdfastd(&["--print-config", "--namespace-defaults-quota-max-keys", "7"]).prints().await;
    assert!(first.contains("quota_max_keys = 7"), "{first}");
    let arguments = ["--print-config", "--config", "printed.toml"];
    let again = holdfastd(&arguments).file("printed.toml", &first).prints().await;
    assert_eq!(again, first);
}

#[tokio::test]
async fn secrets_are_not_printed() {
    let printed = holdfastd(&["--print-config", "--backend", "redis://me:s3cret@host:1/0"])
        .variable("HOLDFASTD_AUTH_TOKENS", "t0ken")
        .prints()
        .await;
    assert!(!printed.contains("s3cret") && !printed.contains("t0ken"), "{printed}");
    assert!(printed.contains("redis://me:(hidden)@host:1/0"), "{printed}");
}

#[tokio::test]
async fn limits_and_namespace_defaults_have_an_effect() {
    let program = start(&[
        "--limits-max-value-bytes=4",
        "--limits-max-request-bytes=65536",
        "--namespace-defaults-default-ttl-ms=60000",
    ])
    .await;
    let mut kv = program.kv().await;
    let set = |length: usize| SetRequest {
        namespace: "n".into(),
        key: "k".into(),
        value: vec![b'v'; length].into(),
        ..SetRequest::default()
    };
    kv.set(set(4)).await.unwrap();
    assert_eq!(kv.set(set(5)).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(kv.set(set(70_000)).await.unwrap_err().code(), Code::OutOfRange);

    let mut namespaces = NamespaceServiceClient::new(program.channel().await);
    let request = GetNamespaceRequest { namespace: "n".into() };
    let namespace = namespaces.get_namespace(request).await.unwrap().into_inner().namespace;
    let settings =
        NamespaceSettings { default_ttl_ms: Some(60_000), ..NamespaceSettings::default() };
    assert_eq!(namespace.unwrap().settings, Some(settings));
}
