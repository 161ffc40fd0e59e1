//! How requests reach a server. Nothing outside this module knows whether they share a stream or go alone.

mod credentials;
mod pipeline;
mod rpc;
mod servers;
mod streams;

use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use tonic::{Request, Status, service::interceptor::InterceptedService, transport::Channel};

use crate::{
    Error,
    error::{Cause, Failure},
    request_id::{RequestIds, Ticket},
    retry::Attempts,
};
use pipeline::{Pipelines, Unanswered};
use servers::Servers;
pub(crate) use {
    credentials::Credentials, holdfast_proto::one_task::OneTask, rpc::Rpc, servers::Endpoint,
    streams::Opened,
};

/// Entries may be larger than the 4 MiB that gRPC libraries accept by default.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Most connections to one server.
const MAX_CONNECTIONS: usize = 4;

/// A connection with the caller's credentials.
pub(crate) type Lane = InterceptedService<Channel, Credentials>;

/// Connections to one or several servers of the same state. One is used at a time, another when it fails.
#[derive(Debug)]
pub(crate) struct Transport {
    links: Vec<Link>,
    servers: Servers,
    ids: RequestIds,
    timeout: Duration,
    max_attempts: u32,
}

/// A server and the connections to it.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: String,
    /// The first is that of all calls; the others help where there are many at once.
    pub(crate) connections: [Connection; MAX_CONNECTIONS],
}

/// A connection, which is made and made again as needed.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) channel: Channel,
    /// Where what the channel does in the background runs.
    pub(crate) background: OneTask,
}

/// How a client goes about its calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// How long a call may take if it does not say.
    pub(crate) timeout: Duration,
    /// How often a call is tried at the most; at least once.
    pub(crate) max_attempts: u32,
    /// Whether calls share streams where they can.
    pub(crate) pipeline: bool,
}

/// The ways to one server.
#[derive(Debug)]
struct Link {
    address: String,
    lane: Lane,
    /// Where what the connection does in the background runs.
    background: OneTask,
    pipelines: Option<Pipelines>,
}

impl Transport {
    /// `servers` must not be empty.
    pub(crate) fn new(servers: Vec<Server>, credentials: Credentials, manner: Manner) -> Self {
        let links = servers.into_iter().map(|Server { address, connections }| {
            let lanes = connections.map(|Connection { channel, background }| {
                (InterceptedService::new(channel, credentials.clone()), background)
            });
            let pipelines = manner.pipeline.then(|| Pipelines::new(&lanes));
            let [(lane, background), ..] = lanes;
            Link { address, lane, background, pipelines }
        });
        let links: Vec<_> = links.collect();
        Self {
            servers: Servers::new(links.len()),
            links,
            ids: RequestIds::new(rand::random()),
            timeout: manner.timeout,
            max_attempts: manner.max_attempts.max(1),
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
        self.call_in_place(&mut request, timeout).await
    }

    /// The same for a request that stays where it is: futures within futures would each have room for it. Afterwards it
    /// is as it was, but for the id by which a write was sent.
    pub(crate) async fn call_in_place<R: Rpc>(
        &self,
        request: &mut R,
        timeout: Option<Duration>,
    ) -> Result<R::Response, Error> {
        let started = Instant::now();
        let deadline = deadline_from(started, timeout.unwrap_or(self.timeout));
        // Kept until the call is over: then it will not be sent again.
        let _ticket = self.identify(request);
        match self.attempt_shared(request, deadline).await {
            Ok(response) => Ok(response),
            Err(failure) => {
                let attempts =
                    Attempts::new(request.effect(), self.max_attempts, started, deadline);
                Box::pin(self.call_again(request, deadline, attempts, failure)).await
            }
        }
    }

    /// Goes on with a call whose first attempt has failed.
    async fn call_again<R: Rpc>(
        &self,
        request: &mut R,
        deadline: Instant,
        mut attempts: Attempts,
        mut failure: Failure,
    ) -> Result<R::Response, Error> {
        loop {
            let wait = attempts.after(failure, Instant::now())?;
            tokio::time::sleep(wait).await;
            match self.attempt_shared(request, deadline).await {
                Ok(response) => return Ok(response),
                Err(next) => failure = next,
            }
        }
    }

    /// Sends a request once.
    pub(crate) async fn attempt<R: Rpc>(
        &self,
        mut request: R,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        self.attempt_shared(&mut request, deadline).await
    }

    /// Sends a request once, together with others if it can be. Afterwards it is as it was.
    async fn attempt_shared<R: Rpc>(
        &self,
        request: &mut R,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let endpoint = self.endpoint();
        let link = &self.links[endpoint.0];
        let attempt = match &link.pipelines {
            Some(pipelines) => pipelines.exchange(request, deadline).await,
            None => Err(Unanswered::GoesAlone),
        };
        let failure = match attempt {
            Ok(Ok(response)) => {
                self.servers.answered(endpoint);
                return Ok(response);
            }
            Ok(Err(failure)) => failure,
            Err(Unanswered::GoesAlone) => {
                return Box::pin(self.attempt_alone(endpoint, request.clone(), deadline)).await;
            }
            Err(Unanswered::Late) => late(),
            Err(Unanswered::NotRun(status)) => self.broken(endpoint, &status, Cause::NotSent),
            Err(Unanswered::Lost(status)) => self.broken(endpoint, &status, Cause::Lost),
        };
        self.note(endpoint, &failure);
        Err(failure)
    }

    /// Sends a request once, as a call of its own.
    async fn attempt_alone<R: Rpc>(
        &self,
        endpoint: Endpoint,
        request: R,
        deadline: Instant,
    ) -> Result<R::Response, Failure> {
        let lane = self.links[endpoint.0].lane.clone();
        let mut attempt = Request::new(request);
        attempt.set_timeout(deadline.saturating_duration_since(Instant::now()));
        let failure = match timeout_at(deadline, R::send(attempt, lane)).await {
            Ok(Ok(response)) => {
                self.servers.answered(endpoint);
                return Ok(response.into_inner());
            }
            Ok(Err(status)) => self.failure(endpoint, status),
            Err(_) => late(),
        };
        self.note(endpoint, &failure);
        Err(failure)
    }

    /// Gives a write the id by which the server knows it again.
    fn identify<R: Rpc>(&self, request: &mut R) -> Option<Ticket<'_>> {
        let (namespace, options) = request.identified()?;
        let (ticket, id) = self.ids.next(namespace);
        options.get_or_insert_default().request_id = Some(id);
        Some(ticket)
    }

    /// The connection that the next request will take.
    pub(crate) fn endpoint(&self) -> Endpoint {
        self.servers.current()
    }

    /// Where what goes on in the background of that connection runs.
    pub(crate) fn background(&self) -> &OneTask {
        &self.links[self.endpoint().0].background
    }

    /// Tells that a connection fails its users, so that the next request takes another.
    pub(crate) fn avoid(&self, endpoint: Endpoint) {
        self.servers.avoid(endpoint, Instant::now());
    }

    /// Moves on to another server if this one cannot be reached, does not answer in time, or cannot reach
    /// its backend.
    pub(crate) fn note(&self, endpoint: Endpoint, failure: &Failure) {
        let fails = matches!(failure.error, Error::Unavailable { .. } | Error::DeadlineExceeded);
        if fails || failure.cause != Cause::Answered {
            self.avoid(endpoint);
        }
    }

    fn lane(&self) -> (Endpoint, Lane) {
        let endpoint = self.endpoint();
        (endpoint, self.links[endpoint.0].lane.clone())
    }

    /// What a status means; trouble on the way to a server names the server.
    fn failure(&self, endpoint: Endpoint, status: Status) -> Failure {
        let mut failure = Failure::from_status(status);
        if let (Cause::NotSent | Cause::Lost, Error::Unavailable { message, .. }) =
            (failure.cause, &mut failure.error)
        {
            *message = format!("{}: {message}", self.links[endpoint.0].address);
        }
        failure
    }

    /// What it means that the stream a call was to go over, or has gone over, is no more.
    fn broken(&self, endpoint: Endpoint, status: &Status, cause: Cause) -> Failure {
        let Failure { error, .. } = self.failure(endpoint, status.clone());
        let (message, mut retry_after) = match error {
            Error::Unavailable { message, retry_after } => (message, retry_after),
            other => (format!("{}: {other}", self.links[endpoint.0].address), None),
        };
        // What one server asks for is not to keep anybody from the next.
        if self.links.len() > 1 {
            retry_after = None;
        }
        Failure { error: Error::Unavailable { message, retry_after }, cause }
    }
}

fn late() -> Failure {
    Failure { error: Error::DeadlineExceeded, cause: Cause::Answered }
}

/// When a timeout that starts now is over.
pub(crate) fn deadline_after(timeout: Duration) -> Instant {
    deadline_from(Instant::now(), timeout)
}

/// A deadline so far away that it cannot be told is as good as one in thirty years.
fn deadline_from(start: Instant, timeout: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    start + timeout.min(FAR)
}
