//! Every unary call, sent by the type of its request.

use holdfast_proto::v1::{
    admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
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
    NamespaceServiceClient.get_namespace(GetNamespaceRequest, namespace) -> GetNamespaceResponse;
    NamespaceServiceClient.list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse;
    NamespaceServiceClient.update_namespace(UpdateNamespaceRequest, namespace) -> UpdateNamespaceResponse;
    NamespaceServiceClient.clear_namespace(ClearNamespaceRequest, namespace) -> ClearNamespaceResponse;
    NamespaceServiceClient.delete_namespace(DeleteNamespaceRequest, namespace) -> DeleteNamespaceResponse;
    AdminServiceClient.get_server_info(GetServerInfoRequest) -> GetServerInfoResponse;
    AdminServiceClient.get_stats(GetStatsRequest) -> GetStatsResponse;
    AdminServiceClient.compact(CompactRequest, namespace) -> CompactResponse;
}
