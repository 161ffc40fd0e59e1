//! Locks, leases and requests with ids, over gRPC and in the store, each beside plain sets of the same run.

mod leases;
mod locks;
mod requests;

use holdfast_proto::v1::{SetRequest, WriteOptions, kv_service_client::KvServiceClient};
use tonic::transport::Channel;

use super::{heart, measure, server};

const KEYS: usize = 10_000;

/// Prints what locks, leases and request ids cost.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let channel = server::channel(&server::start().await).await;
        locks::run(&channel).await;
        leases::run(&channel).await;
        requests::run(&channel).await;
    });
    requests::run_in_store();
}

/// A set without an id, as other languages make it.
async fn set(kv: KvServiceClient<Channel>, caller: usize, call: usize) {
    set_with(kv, caller, call, None).await;
}

async fn set_with(
    mut kv: KvServiceClient<Channel>,
    caller: usize,
    call: usize,
    options: Option<WriteOptions>,
) {
    let request = SetRequest { options, ..set_request(caller, call) };
    kv.set(request).await.expect("a set succeeds");
}

fn set_request(caller: usize, call: usize) -> SetRequest {
    SetRequest {
        namespace: "sets".into(),
        key: format!("key:{:012}", (call * 67 + caller) % KEYS),
        value: vec![b'x'; 256].into(),
        ..SetRequest::default()
    }
}
