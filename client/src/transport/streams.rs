//! The calls that bring or take a stream: each is one attempt, and goes on to be tried again by who makes it.

use futures::{Stream, StreamExt as _, stream::BoxStream};
use holdfast_proto::v1::{
    self, admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient, lock_service_client::LockServiceClient,
    watch_service_client::WatchServiceClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::{Response, Status, Streaming};

use super::{Endpoint, MAX_MESSAGE_BYTES, Transport, late};
use crate::error::Failure;

/// A stream of answers, and which connection it comes over.
pub(crate) struct Opened<R> {
    pub(crate) messages: BoxStream<'static, Result<R, Failure>>,
    pub(crate) endpoint: Endpoint,
}

impl<R: 'static> Opened<R> {
    /// The same with its messages in another form.
    pub(crate) fn map<S>(self, form: impl Fn(R) -> S + Send + 'static) -> Opened<S> {
        let messages = self.messages.map(move |message| message.map(&form)).boxed();
        Opened { messages, endpoint: self.endpoint }
    }
}

impl Transport {
    /// Makes an attempt that is to be over by then. A server that is late is avoided.
    pub(crate) async fn in_time<T>(
        &self,
        deadline: Instant,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let endpoint = self.endpoint();
        timeout_at(deadline, attempt).await.unwrap_or_else(|_| {
            self.avoid(endpoint);
            Err(late())
        })
    }

    /// Opens a scan; one attempt.
    pub(crate) async fn scan(
        &self,
        request: v1::ScanRequest,
    ) -> Result<Opened<v1::ScanResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = KvServiceClient::new(lane)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .scan(request)
            .await;
        self.opened(endpoint, opened)
    }

    /// Opens a watch; one attempt.
    pub(crate) async fn watch(
        &self,
        request: v1::WatchRequest,
    ) -> Result<Opened<v1::WatchResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = WatchServiceClient::new(lane)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .watch(request)
            .await;
        self.opened(endpoint, opened)
    }

    /// Opens a watch of locks; one attempt.
    pub(crate) async fn watch_locks(
        &self,
        request: v1::WatchLocksRequest,
    ) -> Result<Opened<v1::WatchLocksResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = LockServiceClient::new(lane)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .watch_locks(request)
            .await;
        self.opened(endpoint, opened)
    }

    /// Opens a stream that keeps alive the leases that `requests` names; one attempt.
    pub(crate) async fn keep_alive(
        &self,
        requests: impl Stream<Item = v1::KeepAliveRequest> + Send + 'static,
    ) -> Result<Opened<v1::KeepAliveResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = LeaseServiceClient::new(lane)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .keep_alive(requests)
            .await;
        self.opened(endpoint, opened)
    }

    /// Opens an export; one attempt.
    pub(crate) async fn export(
        &self,
        request: v1::ExportRequest,
    ) -> Result<Opened<v1::ExportResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = AdminServiceClient::new(lane)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .export(request)
            .await;
        self.opened(endpoint, opened)
    }

    /// Imports what `requests` brings; one attempt.
    pub(crate) async fn import(
        &self,
        requests: impl Stream<Item = v1::ImportRequest> + Send + 'static,
    ) -> Result<v1::ImportResponse, Failure> {
        let (endpoint, lane) = self.lane();
        match AdminServiceClient::new(lane).import(requests).await {
            Ok(response) => Ok(response.into_inner()),
            Err(status) => {
                let failure = self.failure(endpoint, status);
                self.note(endpoint, &failure);
                Err(failure)
            }
        }
    }

    fn opened<R: Send + 'static>(
        &self,
        endpoint: Endpoint,
        opened: Result<Response<Streaming<R>>, Status>,
    ) -> Result<Opened<R>, Failure> {
        match opened {
            Ok(response) => Ok(Opened {
                messages: response
                    .into_inner()
                    .map(|message| message.map_err(Failure::from_status))
                    .boxed(),
                endpoint,
            }),
            Err(status) => {
                let failure = self.failure(endpoint, status);
                self.note(endpoint, &failure);
                Err(failure)
            }
        }
    }
}
