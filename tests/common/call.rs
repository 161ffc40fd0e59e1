//! Every unary call, sent by the type of its request; beside them KeepAlive, on a stream of one.

use holdfast_proto::v1::{
    admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient, lock_service_client::LockServiceClient,
    namespace_service_client::NamespaceServiceClient,
    transaction_service_client::TransactionServiceClient, *,
};
use tonic::{Status, transport::Channel};

/// A request of a unary call.
pub trait Call: Sized + Send {
    /// Its answer.
    type Answer: Send + std::fmt::Debug;

    /// The namespace it names, if it is about one.
    fn namespace(&mut self) -> Option<&mut String>;

    /// Sends it as it is.
    fn send(self, channel: Channel) -> impl Future<Output = Result<Self::Answer, Status>> + Send;
}

macro_rules! calls {
    ($($client:ident . $method:ident ($request:ident $(, $namespace:ident)?) -> $answer:ident;)*) => {$(
        impl Call for $request {
            type Answer = $answer;

            fn namespace(&mut self) -> Option<&mut String> {
                None$(.or(Some(&mut self.$namespace)))?
            }

            async fn send(self, channel: Channel) -> Result<$answer, Status> {
                Ok($client::new(channel).$method(self).await?.into_inner())
            }
        }
    )*};
}

calls! {
    KvServiceClient.get(GetRequest, namespace) -> GetResponse;
    KvServiceClient.set(SetRequest, namespace) -> SetResponse;
    KvServiceClient.delete(DeleteRequest, namespace) -> DeleteResponse;
    KvServiceClient.exists(ExistsRequest, namespace) -> ExistsResponse;
    KvServiceClient.get_ttl(GetTtlRequest, namespace) -> GetTtlResponse;
    KvServiceClient.set_ttl(SetTtlRequest, namespace) -> SetTtlResponse;
    KvServiceClient.increment(IncrementRequest, namespace) -> IncrementResponse;
    KvServiceClient.list(ListRequest, namespace) -> ListResponse;
    KvServiceClient.count(CountRequest, namespace) -> CountResponse;
    KvServiceClient.history(HistoryRequest, namespace) -> HistoryResponse;
    KvServiceClient.delete_range(DeleteRangeRequest, namespace) -> DeleteRangeResponse;
    KvServiceClient.batch_get(BatchGetRequest, namespace) -> BatchGetResponse;
    KvServiceClient.batch_set(BatchSetRequest, namespace) -> BatchSetResponse;
    KvServiceClient.batch_delete(BatchDeleteRequest, namespace) -> BatchDeleteResponse;
    TransactionServiceClient.transact(TransactRequest, namespace) -> TransactResponse;
    LockServiceClient.acquire(AcquireRequest, namespace) -> AcquireResponse;
    LockServiceClient.renew(RenewRequest, namespace) -> RenewResponse;
    LockServiceClient.release(ReleaseRequest, namespace) -> ReleaseResponse;
    LockServiceClient.update_value(UpdateValueRequest, namespace) -> UpdateValueResponse;
    LockServiceClient.get_lock(GetLockRequest, namespace) -> GetLockResponse;
    LockServiceClient.list_locks(ListLocksRequest, namespace) -> ListLocksResponse;
    LockServiceClient.break_lock(BreakLockRequest, namespace) -> BreakLockResponse;
    LeaseServiceClient.grant(GrantRequest, namespace) -> GrantResponse;
    LeaseServiceClient.revoke(RevokeRequest, namespace) -> RevokeResponse;
    LeaseServiceClient.get_lease(GetLeaseRequest, namespace) -> GetLeaseResponse;
    LeaseServiceClient.list_leases(ListLeasesRequest, namespace) -> ListLeasesResponse;
    NamespaceServiceClient.get_namespace(GetNamespaceRequest, namespace) -> GetNamespaceResponse;
    NamespaceServiceClient.list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
    NamespaceServiceClient.update_namespace(UpdateNamespaceRequest, namespace) -> UpdateNamespaceResponse;
    NamespaceServiceClient.clear_namespace(ClearNamespaceRequest, namespace) -> ClearNamespaceResponse;
    NamespaceServiceClient.delete_namespace(DeleteNamespaceRequest, namespace) -> DeleteNamespaceResponse;
    AdminServiceClient.get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
    AdminServiceClient.get_stats(GetStatsRequest) -> GetStatsResponse;
    AdminServiceClient.compact(CompactRequest, namespace) -> CompactResponse;
}

impl Call for KeepAliveRequest {
    type Answer = KeepAliveResponse;

    fn namespace(&mut self) -> Option<&mut String> {
        Some(&mut self.namespace)
    }

    /// A lease that is gone is an answer here, not an error.
    async fn send(self, channel: Channel) -> Result<KeepAliveResponse, Status> {
        let stream = futures::stream::iter([self]);
        let mut answers = LeaseServiceClient::new(channel).keep_alive(stream).await?.into_inner();
        Ok(answers.message().await?.expect("every message is answered"))
    }
}
