//! Leases against servers that share a state, of which one has lost its backend.

use futures::{StreamExt as _, stream::BoxStream};
use holdfast_proto::v1::{
    self, keep_alive_response,
    lease_service_server::{LeaseService, LeaseServiceServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;
use crate::optimistic::tests::status;

const TTL: Duration = Duration::from_secs(3);

/// Grants leases, and keeps them alive if it has its backend.
struct Script {
    is_away: bool,
    /// The leases that it was asked to keep alive.
    asked: mpsc::UnboundedSender<u64>,
}

fn lease(lease_id: u64) -> v1::Lease {
    v1::Lease { lease_id, ttl_ms: millis_rounded_up(TTL), ..Default::default() }
}

impl Script {
    /// One answer among those of a stream, which goes on after it.
    fn keep(&self, request: v1::KeepAliveRequest) -> v1::KeepAliveResponse {
        let v1::KeepAliveRequest { namespace, lease_id } = request;
        // A test that has seen enough listens no more.
        let _ = self.asked.send(lease_id);
        let result = match self.is_away {
            true => keep_alive_response::Result::Status(away()),
            false => keep_alive_response::Result::Lease(lease(lease_id)),
        };
        v1::KeepAliveResponse { namespace, lease_id, result: Some(result), ..Default::default() }
    }
}

fn away() -> v1::Status {
    use prost::Message as _;
    let away = status(Code::Unavailable, "BACKEND_UNAVAILABLE");
    v1::Status::decode(away.details()).expect("the same on the wire")
}

struct Shared(Arc<Script>);

#[tonic::async_trait]
impl LeaseService for Shared {
    type KeepAliveStream = BoxStream<'static, Result<v1::KeepAliveResponse, Status>>;

    async fn grant(
        &self,
        _: Request<v1::GrantRequest>,
    ) -> Result<Response<v1::GrantResponse>, Status> {
        Ok(Response::new(v1::GrantResponse { lease: Some(lease(7)), ..Default::default() }))
    }

    async fn keep_alive(
        &self,
        requests: Request<Streaming<v1::KeepAliveRequest>>,
    ) -> Result<Response<Self::KeepAliveStream>, Status> {
        let script = Arc::clone(&self.0);
        let requests = requests.into_inner();
        let answers = requests.map(move |request| request.map(|request| script.keep(request)));
        Ok(Response::new(answers.boxed()))
    }

    async fn revoke(
        &self,
        _: Request<v1::RevokeRequest>,
    ) -> Result<Response<v1::RevokeResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn get_lease(
        &self,
        _: Request<v1::GetLeaseRequest>,
    ) -> Result<Response<v1::GetLeaseResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_leases(
        &self,
        _: Request<v1::ListLeasesRequest>,
    ) -> Result<Response<v1::ListLeasesResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// The address of such a server, and what it is asked to keep alive.
async fn server(is_away: bool) -> (String, mpsc::UnboundedReceiver<u64>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let script = Shared(Arc::new(Script { is_away, asked }));
    let server = tonic::transport::Server::builder()
        .add_service(LeaseServiceServer::new(script))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (address.to_string(), requests)
}

#[tokio::test]
async fn a_lease_lives_on_over_another_server_where_one_has_lost_its_backend() {
    let (first, mut refused) = server(true).await;
    let (second, mut kept) = server(false).await;
    let client = Client::builder(first).endpoint(second).connect_lazy().expect("a client");
    let lease = client.namespace("n").grant_lease(TTL).await.expect("granted");
    tokio::select! {
        asked = kept.recv() => assert_eq!(asked, Some(7)),
        loss = lease.lost() => panic!("{loss}"),
    }
    assert_eq!(refused.recv().await, Some(7));
    assert!(refused.try_recv().is_err(), "it was left at once");
}

#[tokio::test]
async fn the_only_server_is_asked_again() {
    let (only, mut refused) = server(true).await;
    let client = Client::builder(only).connect_lazy().expect("a client");
    let lease = client.namespace("n").grant_lease(TTL).await.expect("granted");
    for _ in 0..2 {
        assert_eq!(refused.recv().await, Some(7));
    }
    assert!(lease.is_alive());
}
