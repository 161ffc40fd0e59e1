//! How requests reach a server. Nothing outside this module knows that each is a gRPC call of its own.

use std::{
    future::Future,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, stream::BoxStream};
use holdfast_proto::v1::{
    self, admin_service_client::AdminServiceClient, kv_service_client::KvServiceClient,
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
    error::{Cause, Failure},
    retry::{Backoff, Verdict, judge},
};

/// Entries may be larger than the 4 MiB that gRPC libraries accept by default.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// A request with one answer.
pub(crate) trait Rpc: Clone + Send + 'static {
    type Response: Send + 'static;

    /// Whether running it twice does no harm.
    fn repeatable(&self) -> bool;

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

    /// Sends a request until it is answered, as long as trying again is safe, and there is time.
    pub(crate) async fn call<R: Rpc>(
        &self,
        request: R,
        timeout: Option<Duration>,
    ) -> Result<R::Response, Error> {
        let timeout = timeout.unwrap_or(self.timeout);
        let deadline = deadline_after(timeout);
        let repeatable = request.repeatable();
        let mut backoff = Backoff::for_calls();
        let mut attempts = 0;
        loop {
            attempts += 1;
            let (endpoint, lane) = self.lane();
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let failure = match timeout_at(deadline, R::send(attempt, lane)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => self.failure(endpoint, status),
                Err(_) => Failure { error: Error::DeadlineExceeded, cause: Cause::Answered },
            };
            self.note(endpoint, &failure);
            let error = match judge(failure, repeatable) {
                Verdict::Fail(error) => return Err(error),
                Verdict::Retry(error) => error,
            };
            let wait = backoff.wait(error.retry_after());
            if attempts >= self.max_attempts || Instant::now() + wait >= deadline {
                return Err(error);
            }
            tokio::time::sleep(wait).await;
        }
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
    ($($client:ident { $($method:ident($request:ident) -> $response:ident, $repeatable:expr;)* })*) => {$($(
        impl Rpc for v1::$request {
            type Response = v1::$response;

            fn repeatable(&self) -> bool {
                let repeatable: fn(&Self) -> bool = $repeatable;
                repeatable(self)
            }

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
}

rpcs! {
    KvServiceClient {
        get(GetRequest) -> GetResponse, |request| request.touch.is_none();
        set(SetRequest) -> SetResponse, |_| false;
        delete(DeleteRequest) -> DeleteResponse, |_| false;
        exists(ExistsRequest) -> ExistsResponse, |_| true;
        get_ttl(GetTtlRequest) -> GetTtlResponse, |_| true;
        set_ttl(SetTtlRequest) -> SetTtlResponse, |_| false;
        increment(IncrementRequest) -> IncrementResponse, |_| false;
        list(ListRequest) -> ListResponse, |_| true;
        count(CountRequest) -> CountResponse, |_| true;
        history(HistoryRequest) -> HistoryResponse, |_| true;
        delete_range(DeleteRangeRequest) -> DeleteRangeResponse, |_| false;
        batch_get(BatchGetRequest) -> BatchGetResponse, |_| true;
        batch_set(BatchSetRequest) -> BatchSetResponse, |_| false;
        batch_delete(BatchDeleteRequest) -> BatchDeleteResponse, |_| false;
    }
    TransactionServiceClient {
        transact(TransactRequest) -> TransactResponse, only_reads;
    }
    NamespaceServiceClient {
        get_namespace(GetNamespaceRequest) -> GetNamespaceResponse, |_| true;
        list_namespaces(ListNamespacesRequest) -> ListNamespacesResponse, |_| true;
        update_namespace(UpdateNamespaceRequest) -> UpdateNamespaceResponse, |_| false;
        clear_namespace(ClearNamespaceRequest) -> ClearNamespaceResponse, |_| false;
        delete_namespace(DeleteNamespaceRequest) -> DeleteNamespaceResponse, |_| false;
    }
    AdminServiceClient {
        get_server_info(GetServerInfoRequest) -> GetServerInfoResponse, |_| true;
        get_stats(GetStatsRequest) -> GetStatsResponse, |_| true;
        // What is compacted through a revision already is compacted through it again.
        compact(CompactRequest) -> CompactResponse, |_| true;
    }
}

fn only_reads(request: &v1::TransactRequest) -> bool {
    use v1::operation::Kind;
    request
        .then
        .iter()
        .chain(&request.otherwise)
        .all(|operation| matches!(operation.kind, Some(Kind::Get(_) | Kind::List(_))))
}
