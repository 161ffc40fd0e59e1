//! TLS and tokens.

use holdfast_proto::v1::{GetRequest, kv_service_client::KvServiceClient};
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use super::harness::{holdfastd, start};

#[tokio::test]
async fn tls_encrypts_and_refuses_plain_text() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let program = holdfastd(&[
        "--listen=127.0.0.1:0",
        "--backend=memory:",
        "--tls-cert=cert.pem",
        "--tls-key=key.pem",
    ])
    .file("cert.pem", &made.cert.pem())
    .file("key.pem", &made.signing_key.serialize_pem())
    .start()
    .await;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(made.cert.pem()))
        .domain_name("localhost");
    let encrypted = program.endpoint("https").tls_config(tls).unwrap().connect().await.unwrap();
    get(encrypted, None).await.unwrap();

    let stranger = ClientTlsConfig::new().domain_name("localhost");
    let distrusting = program.endpoint("https").tls_config(stranger).unwrap();
    assert!(distrusting.connect().await.is_err(), "the certificate is not known to this client");
    let plain = program.endpoint("http").connect_lazy();
    assert!(get(plain, None).await.is_err());
}

#[tokio::test]
async fn only_callers_with_a_token_are_served() {
    let program = holdfastd(&["--listen=127.0.0.1:0", "--backend=memory:"])
        .variable("HOLDFASTD_AUTH_TOKENS", "old-token, new-token")
        .start()
        .await;
    let channel = program.channel().await;
    for authorization in ["Bearer old-token", "bearer new-token"] {
        get(channel.clone(), Some(authorization)).await.unwrap();
    }
    for authorization in [None, Some("Bearer"), Some("Bearer old"), Some("Basic old-token")] {
        let refused = get(channel.clone(), authorization).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{authorization:?}");
    }
    let health = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    health.expect("who asks for the health has no token");
}

#[tokio::test]
async fn no_token_is_wanted_where_none_is_set() {
    let program = start(&[]).await;
    get(program.channel().await, Some("Bearer anything")).await.unwrap();
}

async fn get(channel: Channel, authorization: Option<&'static str>) -> Result<(), Status> {
    let get = GetRequest { namespace: "n".into(), key: "k".into(), ..GetRequest::default() };
    let mut request = Request::new(get);
    if let Some(authorization) = authorization {
        request.metadata_mut().insert("authorization", authorization.parse().unwrap());
    }
    KvServiceClient::new(channel).get(request).await.map(|_| ())
}
