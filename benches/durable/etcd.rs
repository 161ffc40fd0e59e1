//! etcd, as far as its `Put` goes.

use std::{path::Path, process::Command, time::Duration};

use bytes::Bytes;
use tonic::{
    Request, Status,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_prost::ProstCodec;

use super::{Peer, find, free_port};

/// A server with one member.
pub struct Etcd {
    _process: Peer,
    /// A connection to it.
    pub client: Client,
}

impl Etcd {
    /// Starts one with its data in a directory, if there is an `etcd` on the path.
    pub async fn start(directory: &Path) -> Option<Self> {
        let (client_url, peer_url) = (url(), url());
        let process = Peer::start(Command::new(find("etcd")?).args([
            "--data-dir",
            directory.to_str()?,
            "--listen-client-urls",
            &client_url,
            "--advertise-client-urls",
            &client_url,
            "--listen-peer-urls",
            &peer_url,
            "--initial-advertise-peer-urls",
            &peer_url,
            "--initial-cluster",
            &format!("default={peer_url}"),
        ]));
        let endpoint = Endpoint::from_shared(client_url).expect("a good address");
        let channel = endpoint.tcp_nodelay(true).connect_lazy();
        let client = Client(tonic::client::Grpc::new(channel));
        for _ in 0..300 {
            if client.clone().try_put("first".into(), Bytes::new()).await.is_ok() {
                return Some(Self { _process: process, client });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("etcd starts within half a minute")
    }
}

fn url() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

/// A client of it.
#[derive(Clone)]
pub struct Client(tonic::client::Grpc<Channel>);

impl Client {
    /// Sets a key.
    pub async fn put(&mut self, key: String, value: Bytes) {
        self.try_put(key, value).await.expect("a put succeeds");
    }

    async fn try_put(&mut self, key: String, value: Bytes) -> Result<(), Status> {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<PutRequest, PutResponse>::default();
        let path = PathAndQuery::from_static("/etcdserverpb.KV/Put");
        let request = PutRequest { key: key.into_bytes().into(), value };
        self.0.unary(Request::new(request), path, codec).await.map(|_| ())
    }
}

/// `etcdserverpb.PutRequest`, as far as it is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

/// `etcdserverpb.PutResponse`, of which nothing is used.
#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}
