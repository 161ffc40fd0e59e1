//! The requests that have one answer: what they do, how they go alone, and where they stand in a pipeline.

use std::future::Future;

use futures::stream;
use holdfast_proto::v1::{
    self, admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient, lock_service_client::LockServiceClient,
    namespace_service_client::NamespaceServiceClient,
    transaction_service_client::TransactionServiceClient,
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{Lane, MAX_MESSAGE_BYTES};
use crate::{error::into_status, retry::Effect};

/// A request with one answer. Nearly all may be sent again: a read, because it changes nothing; a write by its
/// request id, or because it does no harm to run it twice. The [`Effect`] tells.
pub(crate) trait Rpc: Message + Clone + 'static {
    type Response: Message + Default + 'static;

    fn effect(&self) -> Effect;

    /// Where a request id goes, if this request takes one: its namespace and its options.
    fn identified(&mut self) -> Option<(&str, &mut Option<v1::WriteOptions>)>;

    /// Where this request stands in a pipeline; nothing if it always goes alone.
    fn place(&mut self) -> Option<Place<'_>>;

    /// Sends it alone.
    fn send(
        request: Request<Self>,
        lane: Lane,
    ) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;
}

/// Where a request stands in a pipeline.
pub(crate) struct Place<'a> {
    /// The number of its field in a `PipelineCall`, and of that of its answer in a `PipelineAnswer`.
    pub(crate) field: u32,
    /// Its answer may be long, and others should not wait behind it.
    pub(crate) bulk: bool,
    pub(crate) namespace: &'a mut String,
}

macro_rules! rpcs {
    ($($client:ident { $(
        $kind:ident $method:ident($request:ident) -> $response:ident  $(= $field:literal $($how:ident)*)?;
    )* })*) => {$($(
        impl Rpc for v1::$request {
            type Response = v1::$response;

            rpcs!(@$kind);
            rpcs!(@place $($field $($how)*)?);

            async fn send(
                request: Request<Self>,
                lane: Lane,
            ) -> Result<Response<Self::Response>, Status> {
                $client::new(lane)
                    .max_decoding_message_size(MAX_MESSAGE_BYTES)
                    .$method(request)
                    .await
            }
        }
    )*)*};

    // It changes nothing.
    (@read) => {
        rpcs!(@effect Reads);
        rpcs!(@unidentified);
    };

    // A write that does no harm when it is run twice.
    (@again) => {
        rpcs!(@effect Writes);
        rpcs!(@unidentified);
    };

    // A write that is known again by its id.
    (@write) => {
        rpcs!(@effect Writes);

        fn identified(&mut self) -> Option<(&str, &mut Option<v1::WriteOptions>)> {
            Some((&self.namespace, &mut self.options))
        }
    };

    // A write that takes its own record away. What it does to one lineage it cannot do twice.
    (@unrecorded) => {
        fn effect(&self) -> Effect {
            let options = self.options.as_ref();
            let of_one = options.is_some_and(|options| options.expected_lineage.is_some());
            if of_one { Effect::Writes } else { Effect::WritesUnrecorded }
        }

        rpcs!(@unidentified);
    };

    // It depends on what it holds.
    (@either) => {
        fn effect(&self) -> Effect {
            if self.writes() { Effect::Writes } else { Effect::Reads }
        }

        fn identified(&mut self) -> Option<(&str, &mut Option<v1::WriteOptions>)> {
            self.writes().then_some((&*self.namespace, &mut self.options))
        }
    };

    // It goes alone.
    (@place) => {
        fn place(&mut self) -> Option<Place<'_>> {
            None
        }
    };

    (@place $field:literal) => {
        fn place(&mut self) -> Option<Place<'_>> {
            Some(Place { field: $field, bulk: false, namespace: &mut self.namespace })
        }
    };

    // Its answer may be long.
    (@place $field:literal bulk) => {
        fn place(&mut self) -> Option<Place<'_>> {
            Some(Place { field: $field, bulk: true, namespace: &mut self.namespace })
        }
    };

    // In a pipeline it cannot wait.
    (@place $field:literal at_once) => {
        fn place(&mut self) -> Option<Place<'_>> {
            let namespace = &mut self.namespace;
            (self.wait_ms == 0).then_some(Place { field: $field, bulk: false, namespace })
        }
    };

    (@effect $effect:ident) => {
        fn effect(&self) -> Effect {
            Effect::$effect
        }
    };

    (@unidentified) => {
        fn identified(&mut self) -> Option<(&str, &mut Option<v1::WriteOptions>)> {
            None
        }
    };
}

rpcs! {
    KvServiceClient {
        either get(GetRequest) -> GetResponse = 3;
        write set(SetRequest) -> SetResponse = 4;
        write delete(DeleteRequest) -> DeleteResponse = 5;
        read exists(ExistsRequest) -> ExistsResponse = 6;
        read get_ttl(GetTtlRequest) -> GetTtlResponse = 7;
        write set_ttl(SetTtlRequest) -> SetTtlResponse = 8;
        write increment(IncrementRequest) -> IncrementResponse = 9;
        read list(ListRequest) -> ListResponse = 10 bulk;
        read count(CountRequest) -> CountResponse = 11;
        read history(HistoryRequest) -> HistoryResponse = 12 bulk;
        write delete_range(DeleteRangeRequest) -> DeleteRangeResponse = 13;
        read batch_get(BatchGetRequest) -> BatchGetResponse = 14 bulk;
        write batch_set(BatchSetRequest) -> BatchSetResponse = 15;
        write batch_delete(BatchDeleteRequest) -> BatchDeleteResponse = 16;
    }
    TransactionServiceClient {
        either transact(TransactRequest) -> TransactResponse = 17;
    }
    LockServiceClient {
        // Known again by its `acquire_id`.
        again acquire(AcquireRequest) -> AcquireResponse = 18 at_once;
        again renew(RenewRequest) -> RenewResponse = 19;
        write release(ReleaseRequest) -> ReleaseResponse = 20;
        write update_value(UpdateValueRequest) -> UpdateValueResponse = 21;
        read get_lock(GetLockRequest) -> GetLockResponse = 22;
        read list_locks(ListLocksRequest) -> ListLocksResponse = 23 bulk;
        write break_lock(BreakLockRequest) -> BreakLockResponse = 24;
    }
    LeaseServiceClient {
        write grant(GrantRequest) -> GrantResponse = 25;
        write revoke(RevokeRequest) -> RevokeResponse = 27;
        read get_lease(GetLeaseRequest) -> GetLeaseResponse = 28 bulk;
        read list_leases(ListLeasesRequest) -> ListLeasesResponse = 29 bulk;
    }
    NamespaceServiceClient {
        read get_namespace(GetNamespaceRequest) -> GetNamespaceResponse;
        read list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
        write update_namespace(UpdateNamespaceRequest) -> UpdateNamespaceResponse;
        write clear_namespace(ClearNamespaceRequest) -> ClearNamespaceResponse;
        unrecorded delete_namespace(DeleteNamespaceRequest) -> DeleteNamespaceResponse;
    }
    AdminServiceClient {
        read get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
        read get_stats(GetStatsRequest) -> GetStatsResponse;
        // What is compacted through a revision already is compacted through it again.
        again compact(CompactRequest) -> CompactResponse;
    }
}

/// One message of a stream that has no other: what is kept alive twice, is kept alive.
impl Rpc for v1::KeepAliveRequest {
    type Response = v1::KeepAliveResponse;

    rpcs!(@again);
    rpcs!(@place 26);

    async fn send(request: Request<Self>, lane: Lane) -> Result<Response<Self::Response>, Status> {
        let request = request.map(|message| stream::iter([message]));
        let answers = LeaseServiceClient::new(lane).keep_alive(request).await?;
        let (metadata, mut messages, extensions) = answers.into_parts();
        let mut message = messages
            .message()
            .await?
            .ok_or_else(|| Status::unavailable("the server ended the stream without an answer"))?;
        match message.result.take() {
            Some(v1::keep_alive_response::Result::Status(status)) => Err(into_status(status)),
            result => {
                message.result = result;
                Ok(Response::from_parts(metadata, message, extensions))
            }
        }
    }
}

/// Whether a request that may do either is a write.
trait MayWrite {
    fn writes(&self) -> bool;
}

impl MayWrite for v1::GetRequest {
    fn writes(&self) -> bool {
        self.touch.is_some()
    }
}

impl MayWrite for v1::TransactRequest {
    fn writes(&self) -> bool {
        use v1::operation::Kind;
        let mut operations = self.then.iter().chain(&self.otherwise);
        operations.any(|operation| !matches!(operation.kind, Some(Kind::Get(_) | Kind::List(_))))
    }
}
