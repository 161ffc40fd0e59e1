//! A watch and the connections it goes through, whatever is watched.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream::BoxStream};

use super::resume::{Located, Message, Place, Resume, Step};
use crate::{
    Client, Cursor, Error,
    call::Pending,
    error::{Cause, Failure},
    retry::Backoff,
    transport::{Opened, Transport, deadline_after},
};

/// How often a server speaks up unless asked otherwise, in milliseconds.
const DEFAULT_PROGRESS_INTERVAL_MS: u64 = 10_000;

/// A request that a server answers with a stream to be resumed.
pub(crate) trait Feed: Clone + Send + Sync + 'static {
    /// What the initial state is made of.
    type Item: Send + 'static;
    type Event: Located + Send + 'static;

    /// Opens the stream at this place of this lineage; one attempt.
    fn open(
        self,
        transport: &Transport,
        place: Place,
        lineage: Option<String>,
    ) -> impl Future<Output = Result<Connection<Self::Item, Self::Event>, Failure>> + Send;
}

pub(crate) type Connection<I, E> = Opened<Message<I, E>>;

/// Starts a watch and waits until it stands.
pub(crate) async fn start<F: Feed>(
    call: Pending<F>,
    resume: Resume,
    progress_interval_ms: Option<u64>,
) -> Result<Signals<F::Item, F::Event>, Error> {
    if let Some(error) = call.failed {
        return Err(error);
    }
    let timeout = call.timeout.unwrap_or(call.client.transport.timeout());
    let interval_ms = progress_interval_ms.unwrap_or(DEFAULT_PROGRESS_INTERVAL_MS);
    let mut session = Session {
        client: call.client,
        feed: call.request,
        resume,
        timeout,
        longest_silence: Duration::from_millis(interval_ms).saturating_mul(3),
    };
    let started = tokio::time::timeout(timeout, session.start()).await;
    let (connection, steps) = started.map_err(|_| Error::DeadlineExceeded)??;
    Ok(Signals { cursor: session.resume.cursor(), signals: session.run(connection, steps).boxed() })
}

/// What a watch has to tell, and what becomes of its connections.
#[derive(Debug)]
pub(crate) enum Signal<I, E> {
    Step(Step<I, E>),
    /// What the steps so far add up to was the whole state at this time, by the clock of the store in milliseconds.
    #[cfg_attr(not(feature = "near-cache"), expect(dead_code, reason = "only near caches ask"))]
    AsOf(i64),
    /// The connection is gone; the watch looks for another.
    Lost,
    /// It has found one.
    Standing,
}

/// The signals of a watch, whose first connection stands, and the place it has begun at.
pub(crate) struct Signals<I, E> {
    pub(crate) signals: BoxStream<'static, Result<Signal<I, E>, Error>>,
    cursor: Option<Cursor>,
}

impl<I: Send + 'static, E: Send + 'static> Signals<I, E> {
    /// Only what is told, whatever the connections.
    pub(crate) fn into_steps(self) -> Steps<I, E> {
        let steps = self.signals.filter_map(async |signal| match signal {
            Ok(Signal::Step(step)) => Some(Ok(step)),
            Ok(Signal::AsOf(_) | Signal::Lost | Signal::Standing) => None,
            Err(error) => Some(Err(error)),
        });
        Steps { steps: steps.boxed(), cursor: self.cursor }
    }
}

/// What a watch has to tell, and the place to come back to.
pub(crate) struct Steps<I, E> {
    steps: BoxStream<'static, Result<Step<I, E>, Error>>,
    cursor: Option<Cursor>,
}

impl<I, E> Steps<I, E> {
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }
}

impl<I, E> Stream for Steps<I, E> {
    type Item = Result<Step<I, E>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let step = ready!(self.steps.poll_next_unpin(cx));
        match &step {
            Some(Ok(Step::InitialEnd(cursor) | Step::Progress(cursor))) => {
                self.cursor = Some(cursor.clone());
            }
            Some(Ok(Step::Reset)) => self.cursor = None,
            _ => {}
        }
        Poll::Ready(step)
    }
}

struct Session<F> {
    client: Client,
    feed: F,
    resume: Resume,
    /// How long a connection may take to stand.
    timeout: Duration,
    longest_silence: Duration,
}

type Connected<F> = (
    Connection<<F as Feed>::Item, <F as Feed>::Event>,
    Vec<Step<<F as Feed>::Item, <F as Feed>::Event>>,
);

impl<F: Feed> Session<F> {
    /// The first connection: tried a bounded number of times.
    async fn start(&mut self) -> Result<Connected<F>, Error> {
        let max_attempts = self.client.transport.max_attempts();
        let mut backoff = Backoff::for_calls();
        let mut attempts = 0;
        loop {
            attempts += 1;
            match self.connect().await {
                Ok(connected) => return Ok(connected),
                Err(failure) if attempts < max_attempts && self.resume.survives(&failure) => {
                    tokio::time::sleep(backoff.wait(failure.error.retry_after())).await;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Everything the watch has to tell and what becomes of its connections, over this connection and those after it.
    fn run(
        mut self,
        mut connection: Connection<F::Item, F::Event>,
        steps: Vec<Step<F::Item, F::Event>>,
    ) -> impl Stream<Item = Result<Signal<F::Item, F::Event>, Error>> + Send {
        async_stream::try_stream! {
            for step in steps {
                yield Signal::Step(step);
            }
            let mut backoff = Backoff::for_watches();
            loop {
                let mut failure = match self.receive(&mut connection).await {
                    Ok(message) => {
                        backoff = Backoff::for_watches();
                        let as_of = message.complete_as_of();
                        for step in self.resume.accept(message)? {
                            yield Signal::Step(step);
                        }
                        if let Some(time_ms) = as_of {
                            yield Signal::AsOf(time_ms);
                        }
                        continue;
                    }
                    Err(failure) => failure,
                };
                yield Signal::Lost;
                loop {
                    if !self.resume.survives(&failure) {
                        Err(failure.error)?;
                        unreachable!("the error has ended the stream");
                    }
                    tokio::time::sleep(backoff.wait(failure.error.retry_after())).await;
                    match self.connect().await {
                        Ok((next, steps)) => {
                            connection = next;
                            yield Signal::Standing;
                            for step in steps {
                                yield Signal::Step(step);
                            }
                            break;
                        }
                        Err(next) => failure = next,
                    }
                }
            }
        }
    }

    /// Connects, from where the watch has come to, and waits until the server says that it stands.
    async fn connect(&mut self) -> Result<Connected<F>, Failure> {
        let (place, lineage) = self.resume.request();
        let transport = &self.client.transport;
        let attempt = async {
            let mut connection = self.feed.clone().open(transport, place, lineage).await?;
            let first = connection.messages.next().await;
            let first = first.unwrap_or_else(|| Err(lost("the watch ended before it stood")))?;
            Ok((connection, first))
        };
        let deadline = deadline_after(self.timeout);
        let (connection, first) = transport.in_time(deadline, attempt).await?;
        let steps =
            self.resume.accept(first).map_err(|error| Failure { error, cause: Cause::Answered })?;
        Ok((connection, steps))
    }

    /// The next message. Silence is a failure too: a connection whose other side is gone without a word
    /// looks like nothing else.
    async fn receive(
        &self,
        connection: &mut Connection<F::Item, F::Event>,
    ) -> Result<Message<F::Item, F::Event>, Failure> {
        let next = tokio::time::timeout(self.longest_silence, connection.messages.next()).await;
        let received = match next {
            Ok(Some(message)) => message,
            Ok(None) => Err(lost("the server has ended the watch")),
            Err(_) => Err(lost("the server has fallen silent")),
        };
        received.inspect_err(|failure| {
            let transport = &self.client.transport;
            transport.note(connection.endpoint, failure);
        })
    }
}

fn lost(message: &str) -> Failure {
    Failure {
        error: Error::Unavailable { message: message.to_owned(), retry_after: None },
        cause: Cause::Lost,
    }
}
