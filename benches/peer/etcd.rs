//! etcd, as far as it is compared with, over bare gRPC: what the crate `etcd-client` does too, which cannot be built
//! without `protoc`. The messages are those of etcd's `rpc.proto`, `kv.proto` and `v3lock.proto`.

use std::{path::Path, process::Command, time::Duration};

use bytes::Bytes;
use tokio::sync::mpsc;
use tonic::{
    Request, Status, Streaming,
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
    /// Starts one with its data in a directory, if there is an `etcd` on the path; else says so.
    pub async fn start(directory: &Path) -> Option<Self> {
        let Some(program) = find("etcd") else {
            println!("no `etcd` on the path: it is skipped");
            return None;
        };
        let (client_url, peer_url) = (url(), url());
        let process = Peer::start(Command::new(program).args([
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

/// Which one is on the path.
pub fn version() -> Option<String> {
    super::version("etcd")
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
        let request = PutRequest { key: key.into_bytes().into(), value };
        let put = self.unary::<_, PutResponse>("/etcdserverpb.KV/Put", request);
        put.await.map(|_| ())
    }

    /// Reads a key that is there, from the member's own state, without asking others.
    pub async fn get_serializable(&mut self, key: String) -> Bytes {
        let request = RangeRequest { key: key.into_bytes().into(), serializable: true };
        let answer = self.unary::<_, RangeResponse>("/etcdserverpb.KV/Range", request).await;
        let mut entries = answer.expect("a get succeeds").kvs;
        entries.pop().expect("the key is there").value
    }

    /// Makes a lease, by which locks are held.
    pub async fn grant(&mut self, ttl_s: i64) -> i64 {
        let request = LeaseGrantRequest { ttl_s };
        let path = "/etcdserverpb.Lease/LeaseGrant";
        self.unary::<_, LeaseGrantResponse>(path, request).await.expect("a lease is granted").id
    }

    /// Takes a lock and gives it up.
    pub async fn lock_and_unlock(&mut self, name: String, lease: i64) {
        let request = LockRequest { name: name.into_bytes().into(), lease };
        let taken = self.unary::<_, LockResponse>("/v3lockpb.Lock/Lock", request).await;
        let request = UnlockRequest { key: taken.expect("a lock is taken").key };
        let given_up = self.unary::<_, UnlockResponse>("/v3lockpb.Lock/Unlock", request).await;
        given_up.expect("a lock is given up");
    }

    /// Follows all keys with a prefix by so many watches, all of them over one stream, as etcd's clients do.
    pub async fn watch(&mut self, prefix: &str, watches: usize) -> Watches {
        let (requests, mut queue) = mpsc::unbounded_channel();
        let mut range_end = prefix.as_bytes().to_vec();
        *range_end.last_mut().expect("the prefix is not empty") += 1;
        for _ in 0..watches {
            let create = WatchCreateRequest {
                key: Bytes::copy_from_slice(prefix.as_bytes()),
                range_end: range_end.clone().into(),
            };
            let request = WatchRequest { create_request: Some(create) };
            requests.send(request).expect("the queue is open");
        }
        self.0.ready().await.expect("the connection stands");
        let stream = futures::stream::poll_fn(move |context| queue.poll_recv(context));
        let path = PathAndQuery::from_static("/etcdserverpb.Watch/Watch");
        let codec = ProstCodec::<WatchRequest, WatchResponse>::default();
        let answers = self.0.streaming(Request::new(stream), path, codec).await;
        let answers = answers.expect("a watch begins").into_inner();
        let mut watches_left = Watches { _requests: requests, answers };
        let mut created = 0;
        while created < watches {
            created += usize::from(watches_left.next().await.created);
        }
        watches_left
    }

    async fn unary<Q, A>(&mut self, path: &'static str, request: Q) -> Result<A, Status>
    where
        Q: prost::Message + 'static,
        A: prost::Message + Default + 'static,
    {
        let ready = self.0.ready().await;
        ready.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = ProstCodec::<Q, A>::default();
        let path = PathAndQuery::from_static(path);
        Ok(self.0.unary(Request::new(request), path, codec).await?.into_inner())
    }
}

/// Watches that stand.
pub struct Watches {
    /// Held, for its end ends the watches.
    _requests: mpsc::UnboundedSender<WatchRequest>,
    answers: Streaming<WatchResponse>,
}

impl Watches {
    /// How many events of all watches together came in the next message.
    pub async fn events(&mut self) -> usize {
        self.next().await.events.len()
    }

    async fn next(&mut self) -> WatchResponse {
        let answer = self.answers.message().await.expect("the watches go on");
        let answer = answer.expect("the stream does not end");
        assert!(!answer.canceled, "a watch goes on");
        answer
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct ResponseHeader {
    #[prost(uint64, tag = "1")]
    cluster_id: u64,
    #[prost(uint64, tag = "2")]
    member_id: u64,
    #[prost(int64, tag = "3")]
    revision: i64,
    #[prost(uint64, tag = "4")]
    raft_term: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(int64, tag = "2")]
    create_revision: i64,
    #[prost(int64, tag = "3")]
    mod_revision: i64,
    #[prost(int64, tag = "4")]
    version: i64,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
    #[prost(int64, tag = "6")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bool, tag = "7")]
    serializable: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
    #[prost(int64, tag = "4")]
    count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantRequest {
    #[prost(int64, tag = "1")]
    ttl_s: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LeaseGrantResponse {
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockRequest {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(int64, tag = "2")]
    lease: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct LockResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(bytes = "bytes", tag = "2")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnlockRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct UnlockResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchRequest {
    #[prost(message, optional, tag = "1")]
    create_request: Option<WatchCreateRequest>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchCreateRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    range_end: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct WatchResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<ResponseHeader>,
    #[prost(int64, tag = "2")]
    watch_id: i64,
    #[prost(bool, tag = "3")]
    created: bool,
    #[prost(bool, tag = "4")]
    canceled: bool,
    #[prost(message, repeated, tag = "11")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(message, optional, tag = "2")]
    kv: Option<KeyValue>,
}
