//! Two servers that look like one: what is written goes to the first, what is read comes from the second.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures::{future::BoxFuture, stream};
use tokio::net::TcpListener;
use tonic::{
    Status,
    body::Body,
    codegen::http::{Request, Response},
    transport::{Channel, Endpoint, Server},
};
use tower_service::Service;

/// The calls that only read.
const READS: &[&str] = &[
    "Get",
    "Exists",
    "GetTtl",
    "List",
    "Scan",
    "Count",
    "History",
    "BatchGet",
    "Watch",
    "GetLock",
    "ListLocks",
    "WatchLocks",
    "GetLease",
    "ListLeases",
    "GetNamespace",
    "ListNamespaces",
    "Export",
    "GetServerInfo",
    "GetStats",
];

/// The calls of which each server gets every other: those that wait, and streams of all kinds of calls.
const EITHER: &[&str] = &["Acquire", "KeepAlive", "Pipeline"];

/// Listens on a free port, and hands each call to one of two servers.
pub async fn listen(servers: [Endpoint; 2]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
    let address = listener.local_addr().expect("it has an address");
    let turn = Arc::new(AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            // Connections of its own to both: theirs end when this one does, as the servers have to see.
            let channels = servers.each_ref().map(Endpoint::connect_lazy);
            let router = Router { channels, turn: turn.clone() };
            let only = stream::iter([Ok::<_, io::Error>(connection)]);
            let served = Server::builder().serve_with_incoming(router, only).await;
            served.expect("connections can be served");
        }
    });
    address
}

/// What serves one connection.
#[derive(Clone)]
struct Router {
    channels: [Channel; 2],
    turn: Arc<AtomicUsize>,
}

impl Service<Request<Body>> for Router {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let server = match method {
            _ if READS.contains(&method) => 1,
            _ if EITHER.contains(&method) => self.turn.fetch_add(1, Ordering::Relaxed) % 2,
            _ => 0,
        };
        let mut channel = self.channels[server].clone();
        Box::pin(async move {
            let answer = match poll_fn(|context| channel.poll_ready(context)).await {
                Ok(()) => channel.call(request).await,
                Err(error) => Err(error),
            };
            Ok(answer.unwrap_or_else(|error| Status::unavailable(error.to_string()).into_http()))
        })
    }
}
