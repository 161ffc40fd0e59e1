//! How requests reach a server. Nothing outside this module knows that each is a gRPC call of its own.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use holdfast_proto::v1::{
    self, admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient, lock_service_client::LockServiceClient,
    namespace_service_client::NamespaceServiceClient,
    transaction_service_client::TransactionServiceClient, watch_service_client::WatchServiceClient,
};
use tokio::time::{Instant, timeout_at};
use tonic::{
    Request, Response, Status, Streaming,
    metadata::{Ascii, MetadataValue},
    service::{Interceptor, interceptor::InterceptedService},
    transport::Channel,
};

use crate::{
    Error,
    error::{Cause, Failure, into_status},
    request_id::{RequestIds, Ticket},
    retry::{Attempts, Effect},
};

/// Entries may be larger than the 4 MiB that gRPC libraries accept by default.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A request with one answer. Nearly all may be sent again: a read, because it changes nothing; a write by its
/// request id, or because it does no harm to run it twice. The [`Effect`] tells.
pub(crate) trait Rpc: Clone + Send + 'static {
    type Response: Send + 'static;

    fn effect(&self) -> Effect;

    /// Where a request id goes, if this request takes one: its namespace and its options.
    fn identified(&mut self) -> Option<(&str, &mut Option<v1::WriteOptions>)>;

    fn send(
        request: Request<Self>,
        lane: Lane,
    ) -> impl Future<Output = Result<Response<Self::Response>, Status>> + Send;
}

/// A connection with the caller's credentials.
pub(crate) type Lane = InterceptedService<Channel, Credentials>;

/// Connections to one or several servers of the same state. One is used at a time, the next when it fails.
#[derive(Debug)]
pub(crate) struct Transport {
    servers: Vec<Server>,
    current: AtomicUsize,
    credentials: Credentials,
    ids: RequestIds,
    timeout: Duration,
    max_attempts: u32,
}

/// A server and the connection to it, which is made and made again as needed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) channel: Channel,
}

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

/// Which connection an attempt used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint(usize);

impl Transport {
    /// `servers` must not be empty.
    pub(crate) fn new(
        servers: Vec<Server>,
        credentials: Credentials,
        timeout: Duration,
        max_attempts: u32,
    ) -> Self {
        Self {
            servers,
            current: AtomicUsize::new(0),
            credentials,
            ids: RequestIds::new(rand::random()),
            timeout,
            max_attempts: max_attempts.max(1),
        }
    }

    /// How long a call may take if it does not say.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// How often a call is tried at the most.
    pub(crate) fn max_attempts(&self) -> u32 {
        self.max_attempts
    }

    /// Sends a request until it is answered, as long as there is time.
    pub(crate) async fn call<R: Rpc>(
        &self,
        mut request: R,
        timeout: Option<Duration>,
    ) -> Result<R::Response, Error> {
        let now = Instant::now();
        let deadline = deadline_after(timeout.unwrap_or(self.timeout));
        let mut attempts = Attempts::new(request.effect(), self.max_attempts, now, deadline);
        // Kept until the call is over: then it will not be sent again.
        let _ticket = self.identify(&mut request);
        loop {
            match self.attempt(request.clone(), deadline).await {
                Ok(response) => return Ok(response),
                Err(failure) => {
                    let wait = attempts.after(failure, Instant::now())?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Sends a request once.
    pub(crate) async fn attempt<R: Rpc>(
        &self,
        request: R,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let (endpoint, lane) = self.lane();
        let mut attempt = Request::new(request);
        attempt.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let failure = match timeout_at(deadline, R::send(attempt, lane)).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => self.failure(endpoint, status),
            Err(_) => Failure { error: Error::DeadlineExceeded, cause: Cause::Answered },
        };
        self.note(endpoint, &failure);
        Err(failure)
    }

    /// Gives a write the id by which the server knows it again.
    fn identify<R: Rpc>(&self, request: &mut R) -> Option<Ticket> {
        let (namespace, options) = request.identified()?;
        let ticket = self.ids.next(namespace);
        options.get_or_insert_default().request_id = Some(ticket.id.clone());
        Some(ticket)
    }

    /// Opens a scan; one attempt.
    pub(crate) async fn scan(
        &self,
        request: v1::ScanRequest,
    ) -> Result<Opened<v1::ScanResponse>, Failure> {
        let (endpoint, lane) = self.lane();
        let opened = kv(lane).scan(request).await;
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

    /// The connection that the next request will take.
    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint(self.current.load(Ordering::Relaxed))
    }

    /// Tells that a connection fails its users, so that the next request takes another.
    pub(crate) fn avoid(&self, endpoint: Endpoint) {
        let next = (endpoint.0 + 1) % self.servers.len();
        // If it is no longer the current one, somebody else has moved on already.
        let _ =
            self.current.compare_exchange(endpoint.0, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Moves on to the next server if this one cannot be reached, does not answer in time, or cannot reach
    /// its backend.
    pub(crate) fn note(&self, endpoint: Endpoint, failure: &Failure) {
        let fails = matches!(failure.error, Error::Unavailable { .. } | Error::DeadlineExceeded);
        if fails || failure.cause != Cause::Answered {
            self.avoid(endpoint);
        }
    }

    fn lane(&self) -> (Endpoint, Lane) {
        let endpoint = self.endpoint();
        let channel = self.servers[endpoint.0].channel.clone();
        let lane = InterceptedService::new(channel, self.credentials.clone());
        (endpoint, lane)
    }

    /// What a status means; trouble on the way to a server names the server.
    fn failure(&self, endpoint: Endpoint, status: Status) -> Failure {
        let mut failure = Failure::from_status(status);
        if let (Cause::NotSent | Cause::Lost, Error::Unavailable { message, .. }) =
            (failure.cause, &mut failure.error)
        {
            *message = format!("{}: {message}", self.servers[endpoint.0].address);
        }
        failure
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

/// What every request says about its sender.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    bearer: Option<MetadataValue<Ascii>>,
}

impl Credentials {
    pub(crate) fn bearer(token: &str) -> Result<Self, Error> {
        let mut bearer: MetadataValue<Ascii> = format!("Bearer {token}")
            .parse()
            .map_err(|_| Error::configuration("the token has characters no header may have"))?;
        bearer.set_sensitive(true);
        Ok(Self { bearer: Some(bearer) })
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        Ok(request)
    }
}

fn kv(lane: Lane) -> KvServiceClient<Lane> {
    KvServiceClient::new(lane).max_decoding_message_size(MAX_MESSAGE_BYTES)
}

/// When a timeout that starts now is over. A deadline so far away that it cannot be told is as good as one
/// in thirty years.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    Instant::now() + timeout.min(FAR)
}

macro_rules! rpcs {
    ($($client:ident { $($kind:ident $method:ident($request:ident) -> $response:ident;)* })*) => {$($(
        impl Rpc for v1::$request {
            type Response = v1::$response;

            rpcs!(@$kind);

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
            if of_one { Effect::EndsLineage } else { Effect::WritesUnrecorded }
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
        either get(GetRequest) -> GetResponse;
        write set(SetRequest) -> SetResponse;
        write delete(DeleteRequest) -> DeleteResponse;
        read exists(ExistsRequest) -> ExistsResponse;
        read get_ttl(GetTtlRequest) -> GetTtlResponse;
        write set_ttl(SetTtlRequest) -> SetTtlResponse;
        write increment(IncrementRequest) -> IncrementResponse;
        read list(ListRequest) -> ListResponse;
        read count(CountRequest) -> CountResponse;
        read history(HistoryRequest) -> HistoryResponse;
        write delete_range(DeleteRangeRequest) -> DeleteRangeResponse;
        read batch_get(BatchGetRequest) -> BatchGetResponse;
        write batch_set(BatchSetRequest) -> BatchSetResponse;
        write batch_delete(BatchDeleteRequest) -> BatchDeleteResponse;
    }
    TransactionServiceClient {
        either transact(TransactRequest) -> TransactResponse;
    }
    LockServiceClient {
        // Known again by its `acquire_id`.
        again acquire(AcquireRequest) -> AcquireResponse;
        again renew(RenewRequest) -> RenewResponse;
        write release(ReleaseRequest) -> ReleaseResponse;
        write update_value(UpdateValueRequest) -> UpdateValueResponse;
        read get_lock(GetLockRequest) -> GetLockResponse;
        read list_locks(ListLocksRequest) -> ListLocksResponse;
        write break_lock(BreakLockRequest) -> BreakLockResponse;
    }
    LeaseServiceClient {
        write grant(GrantRequest) -> GrantResponse;
        write revoke(RevokeRequest) -> RevokeResponse;
        read get_lease(GetLeaseRequest) -> GetLeaseResponse;
        read list_leases(ListLeasesRequest) -> ListLeasesResponse;
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
