//! The network side: decodes and checks requests, turns them into commands and reads of the store, and encodes
//! what comes of them. The only place that knows protobuf.
//!
//! A unary call and a call of a pipeline take the same way: `dispatch` makes a checked `dispatch::Call` of
//! the request and an answer of what came of it.

mod admin;
mod caller;
mod course;
mod dispatch;
mod entry;
mod entry_wire;
mod keep_alive;
mod kv;
mod lease;
mod list;
mod lock;
mod lock_watch;
mod namespace;
mod options;
mod page_token;
mod path;
mod pipeline;
mod read;
mod single;
mod status;
mod transaction;
pub mod transfer;
mod validate;
mod watch;
mod watch_server;

use std::sync::Arc;

use holdfast_proto::v1::{
    admin_service_server::AdminServiceServer, kv_service_server::KvServiceServer,
    lease_service_server::LeaseServiceServer, lock_service_server::LockServiceServer,
    namespace_service_server::NamespaceServiceServer,
    transaction_service_server::TransactionServiceServer,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

pub use caller::Caller;
use pipeline::Pipelines;
use watch_server::Watching;

use crate::store::{Store, command::MAX_ANSWER_BYTES as MESSAGE_BYTES};

/// What requests may bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
}

impl Default for Limits {
    /// Values of 1 MiB, and requests of 20 MiB: a batch may bring the 16 MiB of a revision.
    fn default() -> Self {
        Self { max_value_bytes: 1 << 20, max_request_bytes: 20 << 20 }
    }
}

/// What the server says of itself.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// Its version.
    pub version: String,
    /// A UUID, new at every start.
    pub server_id: String,
    /// When it started, in milliseconds since the Unix epoch.
    pub started_at_ms: i64,
}

/// All services of `holdfast.v1`, to be served together with others. Once `stopping` is cancelled, watches,
/// pipelines, streams that keep leases alive and waits for locks end with `UNAVAILABLE`; all other calls end by
/// themselves. Calls whose requests have a [`Caller`] among their extensions stop to wait once that is gone.
pub fn routes(
    store: Arc<Store>,
    limits: Limits,
    info: ServerInfo,
    stopping: CancellationToken,
) -> Routes {
    let services = Arc::new(Services { store, limits, info, stopping });
    let max_bytes = limits.max_request_bytes;
    macro_rules! server {
        ($server:ident) => {
            $server::from_arc(services.clone()).max_decoding_message_size(max_bytes)
        };
    }
    Routes::new(server!(KvServiceServer))
        .add_service(server!(TransactionServiceServer))
        .add_service(Watching { services: services.clone(), max_bytes })
        .add_service(server!(LockServiceServer))
        .add_service(server!(LeaseServiceServer))
        .add_service(Pipelines { services: services.clone(), max_bytes })
        .add_service(server!(NamespaceServiceServer))
        .add_service(server!(AdminServiceServer))
}

/// All services: each is implemented in the file of its name.
struct Services {
    store: Arc<Store>,
    limits: Limits,
    info: ServerInfo,
    stopping: CancellationToken,
}
