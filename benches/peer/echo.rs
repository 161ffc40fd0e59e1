//! The bare baseline of a unary call: a tonic service that sends back what it gets, and a client of it.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io::Write as _,
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
    transport::{Channel, Server, server::TcpIncoming},
};
use tonic_prost::ProstCodec;

use super::server::{self, Apart};

/// The argument by which this program is an echo and nothing else.
pub const SERVE: &str = "--serve-echo";

type Codec = ProstCodec<Bytes, Bytes>;

/// The service in a process of its own.
pub struct Echo {
    _process: Apart,
    /// A connection to it.
    pub client: Client,
}

impl Echo {
    /// Starts the service and connects to it.
    pub async fn start() -> Self {
        let process = Apart::start_with(&[SERVE]);
        let client = Client(tonic::client::Grpc::new(server::channel(&process.address).await));
        Self { _process: process, client }
    }
}

/// A client of the baseline.
#[derive(Clone)]
pub struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// Sends a value there and back.
    pub async fn call(&mut self, value: Bytes) -> Bytes {
        self.0.ready().await.expect("the connection stands");
        let path = PathAndQuery::from_static("/bench.Echo/Echo");
        let answer = self.0.unary(Request::new(value), path, Codec::default()).await;
        answer.expect("an echo comes").into_inner()
    }
}

/// Is an echo until it is killed. The first line printed is its address.
pub fn serve() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port can be bound");
        println!("{}", listener.local_addr().expect("it has an address"));
        std::io::stdout().flush().expect("somebody listens");
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = Server::builder().add_service(EchoService).serve_with_incoming(incoming);
        served.await.expect("it serves until it is killed");
    });
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
