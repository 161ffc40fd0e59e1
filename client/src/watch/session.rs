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
    transport::{Opened, Transport},
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
) -> Result<Steps<F::Item, F::Event>, Error> {
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
    Ok(Steps { cursor: session.resume.cursor(), steps: session.run(connection, steps).boxed() })
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

    /// Everything the watch has to tell, over this connection and those after it.
    fn run(
        mut self,
        mut connection: Connection<F::Item, F::Event>,
        steps: Vec<Step<F::Item, F::Event>>,
    ) -> impl Stream<Item = Result<Step<F::Item, F::Event>, Error>> + Send {
        async_stream::try_stream! {
            for step in steps {
                yield step;
            }
            let mut backoff = Backoff::for_watches();
            loop {
                let mut failure = match self.receive(&mut connection).await {
                    Ok(message) => {
                        backoff = Backoff::for_watches();
                        for step in self.resume.accept(message)? {
                            yield step;
                        }
                        continue;
                    }
                    Err(failure) => failure,
                };
                loop {
                    if !self.resume.survives(&failure) {
                        Err(failure.error)?;
                        unreachable!("the error has ended the stream");
                    }
                    tokio::time::sleep(backoff.wait(failure.error.retry_after())).await;
                    match self.connect().await {
                        Ok((next, steps)) => {
                            connection = next;
                            for step in steps {
                                yield step;
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
        let endpoint = transport.endpoint();
        let attempt = async {
            let mut connection = self.feed.clone().open(transport, place, lineage).await?;
            let first = connection.messages.next().await;
            let first = first.unwrap_or_else(|| Err(lost("the watch ended before it stood")))?;
            Ok((connection, first))
        };
        let (connection, first) =
            tokio::time::timeout(self.timeout, attempt).await.unwrap_or_else(|_| {
                transport.avoid(endpoint);
                Err(lost("the server did not answer in time"))
            })?;
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
