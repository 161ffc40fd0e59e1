//! How a client finds its server.

use std::{net::SocketAddr, time::Duration};

use futures::stream::Empty;
use holdfast_proto::v1::{
    self,
    admin_service_server::{AdminService, AdminServiceServer},
};
use tokio::net::{TcpListener, TcpSocket};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Identity, ServerTlsConfig},
};

use super::{Client, Tls, url};
use crate::Error;

/// Answers those who know the token.
struct Guarded;

#[tonic::async_trait]
impl AdminService for Guarded {
    async fn get_server_info(
        &self,
        request: Request<v1::GetServerInfoRequest>,
    ) -> Result<Response<v1::GetServerInfoResponse>, Status> {
        let token = request.metadata().get("authorization");
        if token.is_none_or(|token| token != "Bearer s3cret") {
            return Err(Status::unauthenticated("who are you?"));
        }
        Ok(Response::new(v1::GetServerInfoResponse {
            version: "1.2.3".to_owned(),
            ..Default::default()
        }))
    }

    async fn get_stats(
        &self,
        _: Request<v1::GetStatsRequest>,
    ) -> Result<Response<v1::GetStatsResponse>, Status> {
        Err(Status::permission_denied("not for you"))
    }

    async fn compact(
        &self,
        _: Request<v1::CompactRequest>,
    ) -> Result<Response<v1::CompactResponse>, Status> {
        Err(Status::permission_denied("not for you"))
    }

    type ExportStream = Empty<Result<v1::ExportResponse, Status>>;

    async fn export(
        &self,
        _: Request<v1::ExportRequest>,
    ) -> Result<Response<Self::ExportStream>, Status> {
        Err(Status::permission_denied("not for you"))
    }

    async fn import(
        &self,
        _: Request<Streaming<v1::ImportRequest>>,
    ) -> Result<Response<v1::ImportResponse>, Status> {
        Err(Status::permission_denied("not for you"))
    }
}

async fn guarded_server() -> String {
    guarded(tonic::transport::Server::builder()).await
}

/// The same with TLS, and the certificate it shows.
async fn guarded_tls_server() -> (String, String) {
    let names = vec!["127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
    let identity = Identity::from_pem(&certificate, key);
    let server =
        tonic::transport::Server::builder().tls_config(ServerTlsConfig::new().identity(identity));
    (guarded(server.expect("a good certificate")).await, certificate)
}

async fn guarded(mut server: tonic::transport::Server) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address").to_string();
    let server = server
        .add_service(AdminServiceServer::new(Guarded))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

/// An address where nobody listens, nor will as long as the socket is held.
fn refusing_address() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().expect("a socket");
    let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
    socket.bind(any_port).expect("a free port");
    let address = socket.local_addr().expect("its address").to_string();
    (socket, address)
}

#[tokio::test]
async fn the_next_server_is_used_when_one_is_down() {
    let (_held, refusing) = refusing_address();
    let builder = Client::builder(refusing).endpoint(guarded_server().await);
    let client = builder.token("s3cret").connect().await.expect("the second answers");
    assert_eq!(client.server_info().await.expect("an answer").version, "1.2.3");
}

#[tokio::test]
async fn the_next_server_is_used_when_one_does_not_answer() {
    // Connections wait to be accepted for ever.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = silent.local_addr().expect("its address").to_string();
    let builder = Client::builder(address).endpoint(guarded_server().await).token("s3cret");
    let client = builder.connect_lazy().expect("a client");
    let call = v1::GetServerInfoRequest {};
    let late = client.transport.call(call, Some(Duration::from_millis(50))).await;
    assert!(matches!(late, Err(Error::DeadlineExceeded)), "{late:?}");
    assert_eq!(client.server_info().await.expect("an answer").version, "1.2.3");
}

#[tokio::test]
async fn a_caller_the_server_does_not_know_is_told_so() {
    let connected = Client::connect(guarded_server().await).await;
    assert!(matches!(connected, Err(Error::Unauthenticated { .. })), "{connected:?}");
}

#[test]
fn an_address_needs_no_scheme() {
    assert_eq!(url("localhost:4653", false), "http://localhost:4653");
    assert_eq!(url("localhost:4653", true), "https://localhost:4653");
    assert_eq!(url("http://a:1", true), "http://a:1");
}

#[tokio::test]
async fn a_bad_address_is_named() {
    for address in ["", "ftp://a:1", "http://", "http://a b"] {
        match Client::builder(address).connect_lazy() {
            Err(Error::Configuration { message }) => {
                assert!(message.contains(&format!("{address:?}")), "{message}");
            }
            other => panic!("{address:?}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_token_goes_over_tls_to_a_server_that_is_trusted() {
    let (address, certificate) = guarded_tls_server().await;
    let builder = |certificate| {
        Client::builder(&address).token("s3cret").tls(Tls::new().ca_certificate(certificate))
    };
    let client = builder(certificate).connect().await.expect("it is trusted");
    assert_eq!(client.server_info().await.expect("an answer").version, "1.2.3");
    let (_, another) = guarded_tls_server().await;
    match builder(another).max_attempts(1).connect().await {
        Err(Error::Unavailable { message, .. }) => {
            assert!(message.contains("certificate"), "{message}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn tls_that_cannot_be_meant_is_refused() {
    let refused = |address, tls| match Client::builder(address).tls(tls).connect_lazy() {
        Err(Error::Configuration { message }) => message,
        other => panic!("{other:?}"),
    };
    let in_the_clear = refused("http://a:1", Tls::new());
    assert!(in_the_clear.contains("it must begin with https://"), "{in_the_clear}");
    let no_certificate = refused("a:1", Tls::new().ca_certificate("-----BEGIN PRIVATE KEY-----"));
    assert!(no_certificate.contains("not PEM-encoded"), "{no_certificate}");
}

#[tokio::test]
async fn secrets_do_not_show() {
    let builder = Client::builder("a:1").token("s3cret");
    assert!(!format!("{builder:?}").contains("s3cret"));
    let client = builder.connect_lazy().expect("a client");
    assert!(!format!("{client:?} {:?}", client.transport).contains("s3cret"));
}

#[tokio::test]
async fn a_refused_connection_is_unavailable_and_names_the_server() {
    let (_held, address) = refusing_address();
    let connected = Client::builder(&address).max_attempts(2).connect().await;
    match connected {
        Err(Error::Unavailable { message, .. }) => {
            assert!(message.starts_with(&address), "{message}");
        }
        other => panic!("{other:?}"),
    }
}
