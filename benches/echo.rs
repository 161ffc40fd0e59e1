//! The bare baseline of a unary call: a tonic service that sends back what it gets, and a client of it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    body::Body,
    codegen::http::{self, uri::PathAndQuery},
    server::{NamedService, UnaryService},
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

type Codec = ProstCodec<Bytes, Bytes>;

/// A client of the baseline.
#[derive(Clone)]
pub struct Echo(tonic::client::Grpc<Channel>);

impl Echo {
    /// Starts the service on a free port, for as long as the runtime runs, and connects to it.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be bound");
        let address = listener.local_addr().expect("it has an address");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        tokio::spawn(Server::builder().add_service(EchoService).serve_with_incoming(incoming));
        let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a good address");
        let channel = endpoint.tcp_nodelay(true).connect().await.expect("the service serves");
        Self(tonic::client::Grpc::new(channel))
    }

    /// Sends a value there and back.
    pub async fn call(&mut self, value: Bytes) -> Bytes {
        self.0.ready().await.expect("the connection stands");
        let path = PathAndQuery::from_static("/bench.Echo/Echo");
        let answer = self.0.unary(Request::new(value), path, Codec::default()).await;
        answer.expect("an echo comes").into_inner()
    }
}

#[derive(Clone)]
struct EchoService;

impl NamedService for EchoService {
    const NAME: &'static str = "bench.Echo";
}

impl tower_service::Service<http::Request<Body>> for EchoService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async {
            Ok(tonic::server::Grpc::new(Codec::default()).unary(SendBack, request).await)
        })
    }
}

struct SendBack;

impl UnaryService<Bytes> for SendBack {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
