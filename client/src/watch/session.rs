//! A watch and the connections it goes through, whatever is watched.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{FutureExt as _, Stream, StreamExt as _, stream::BoxStream};
use tokio::time::Instant;

use super::{
    broadcast::{Began, Gone, Subscriber},
    resume::{Body, Located, Message, Place, Resume, Step},
    told::Told,
    topic::{self, Joined, Opening, Topic},
};
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
    type Item: Send + Sync + 'static;
    type Event: Located + Clone + Send + Sync + 'static;

    /// Opens the stream at this place of this lineage; one attempt.
    fn open(
        self,
        transport: &Transport,
        place: Place,
        lineage: Option<String>,
    ) -> impl Future<Output = Result<Connection<Self::Item, Self::Event>, Failure>> + Send;

    /// What all equal requests are about, whose streams can be one; nothing if each is to have its own.
    fn topic(&self, client: &Client) -> Option<Arc<Topic<Self::Item, Self::Event>>>;
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
        topic: call.request.topic(&call.client),
        client: call.client,
        feed: call.request,
        leads: resume.request().0 == Place::Now,
        resume,
        timeout,
        longest_silence: Duration::from_millis(interval_ms).saturating_mul(3),
        from_nothing: None,
    };
    let started = tokio::time::timeout(timeout, session.start()).await;
    let (source, told) = started.map_err(|_| Error::DeadlineExceeded)??;
    let cursor = session.resume.cursor();
    Ok(Signals { heard: session.run(source, told).boxed(), told: Told::default(), cursor })
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

/// What comes at once: the signals of one message, or one of the connection.
enum Heard<I, E> {
    Told(Told<I, E>),
    Lost,
    Standing,
}

/// The signals of a watch, whose first connection stands, and the place it has begun at.
pub(crate) struct Signals<I, E> {
    heard: BoxStream<'static, Result<Heard<I, E>, Error>>,
    /// What the last message has yet to tell.
    told: Told<I, E>,
    cursor: Option<Cursor>,
}

impl<I, E> Signals<I, E> {
    /// Only what is told, whatever the connections.
    pub(crate) fn into_steps(self) -> Steps<I, E> {
        Steps(self)
    }
}

/// Nothing in it is pinned where it is.
impl<I, E> Unpin for Signals<I, E> {}

impl<I, E: Clone> Stream for Signals<I, E> {
    type Item = Result<Signal<I, E>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let told = &mut self.told;
            let signal = told.next().map(Signal::Step);
            if let Some(signal) = signal.or_else(|| told.as_of.take().map(Signal::AsOf)) {
                return Poll::Ready(Some(Ok(signal)));
            }
            match ready!(self.heard.poll_next_unpin(cx)) {
                Some(Ok(Heard::Told(told))) => self.told = told,
                Some(Ok(Heard::Lost)) => return Poll::Ready(Some(Ok(Signal::Lost))),
                Some(Ok(Heard::Standing)) => return Poll::Ready(Some(Ok(Signal::Standing))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
    }
}

/// What a watch has to tell, and the place to come back to.
pub(crate) struct Steps<I, E>(Signals<I, E>);

impl<I, E> Steps<I, E> {
    pub(crate) fn cursor(&self) -> Option<&Cursor> {
        self.0.cursor.as_ref()
    }

    /// The next step, if that is an event which has come already. Many may be told the same: it is lent, and not copied.
    pub(crate) fn next_event(&mut self) -> Option<&E> {
        self.0.told.next_event()
    }

    /// The next step.
    pub(crate) fn poll_next_step(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Step<I, E>, Error>>>
    where
        E: Clone,
    {
        let Signals { heard, told, cursor } = &mut self.0;
        let step = loop {
            if let Some(step) = told.next() {
                break step;
            }
            match ready!(heard.poll_next_unpin(cx)) {
                Some(Ok(Heard::Told(next))) => *told = next,
                Some(Ok(Heard::Lost | Heard::Standing)) => {}
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        };
        match &step {
            Step::InitialEnd(next) | Step::Progress(next) => *cursor = Some(next.clone()),
            Step::Reset => *cursor = None,
            Step::Initial(_) | Step::Event(_) => {}
        }
        Poll::Ready(Some(Ok(step)))
    }
}

struct Session<F: Feed> {
    client: Client,
    feed: F,
    /// Where it may meet watches that are equal.
    topic: Option<Arc<Topic<F::Item, F::Event>>>,
    resume: Resume,
    /// How long a connection may take to stand.
    timeout: Duration,
    longest_silence: Duration,
    /// Whether it is about as far as the namespace, so that others may follow the stream that it opens.
    leads: bool,
    /// While it has told nothing since it joined an older stream where there was no namespace: the revision then. What
    /// that stream tells may be of a namespace that was gone by then.
    from_nothing: Option<u64>,
}

/// Where the messages come from.
enum Source<I, E> {
    Own(Connection<I, E>),
    /// The stream of all equal watches.
    Shared(Subscriber<I, E>),
}

/// Where the messages of a feed come from, and what the first of them tells.
type Connected<F> =
    (Source<<F as Feed>::Item, <F as Feed>::Event>, Told<<F as Feed>::Item, <F as Feed>::Event>);

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
                Err(failure) if attempts < max_attempts && self.survives(&failure) => {
                    tokio::time::sleep(backoff.wait(failure.error.retry_after())).await;
                }
                Err(failure) => return Err(failure.error),
            }
        }
    }

    /// Everything the watch has to tell and what becomes of its connections, over this connection and those after it.
    fn run(
        mut self,
        mut source: Source<F::Item, F::Event>,
        told: Told<F::Item, F::Event>,
    ) -> impl Stream<Item = Result<Heard<F::Item, F::Event>, Error>> + Send {
        async_stream::try_stream! {
            yield Heard::Told(told);
            let mut backoff = Backoff::for_watches();
            loop {
                let mut failure = match self.receive(&mut source).await {
                    Ok(message) => {
                        backoff = Backoff::for_watches();
                        yield Heard::Told(self.take(message, &mut source)?);
                        continue;
                    }
                    Err(failure) => failure,
                };
                yield Heard::Lost;
                loop {
                    if !self.survives(&failure) {
                        Err(failure.error)?;
                        unreachable!("the error has ended the stream");
                    }
                    tokio::time::sleep(backoff.wait(failure.error.retry_after())).await;
                    match self.connect().await {
                        Ok((next, told)) => {
                            source = next;
                            yield Heard::Standing;
                            yield Heard::Told(told);
                            break;
                        }
                        Err(next) => failure = next,
                    }
                }
            }
        }
    }

    /// Takes a message. A watch that has caught up need not go on alone.
    fn take(
        &mut self,
        message: Arc<Message<F::Item, F::Event>>,
        source: &mut Source<F::Item, F::Event>,
    ) -> Result<Told<F::Item, F::Event>, Error> {
        self.from_nothing.take_if(|revision| message.tells_past(*revision));
        self.leads |= message.is_newest();
        let told = self.resume.accept(message)?;
        if let (Source::Own(own), Some(topic)) = (&*source, &self.topic)
            && let Some((lineage, revision)) = self.resume.position()
            && let Some(subscriber) = topic.join_ahead(revision, lineage, own.endpoint)
        {
            *source = Source::Shared(subscriber);
            self.leads = true;
        }
        Ok(told)
    }

    /// Whether the watch goes on, with a new connection, after this failure. What has ended a history that was over
    /// before the watch began does not concern it: it begins once more where it began.
    fn survives(&mut self, failure: &Failure) -> bool {
        if self.resume.survives(failure) {
            return true;
        }
        let from_nothing = self.from_nothing.take();
        if let Some(revision) = from_nothing {
            self.resume.begin_again(revision);
        }
        from_nothing.is_some()
    }

    /// Connects, from where the watch has come to, and waits until the server says that it stands.
    async fn connect(&mut self) -> Result<Connected<F>, Failure> {
        let transport = Arc::clone(&self.client.transport);
        let deadline = deadline_after(self.timeout);
        transport.in_time(deadline, self.connect_in_time(deadline)).await
    }

    async fn connect_in_time(&mut self, deadline: Instant) -> Result<Connected<F>, Failure> {
        let joined = match self.topic.clone() {
            Some(topic) => self.join(&topic, deadline).await?,
            None => None,
        };
        let (source, first) = match joined {
            Some(Joined { subscriber, began: Began { lineage, after }, .. }) => {
                (Source::Shared(subscriber), created(lineage, after))
            }
            None => {
                let (place, lineage) = self.resume.request();
                let transport = &self.client.transport;
                let (connection, first) = open(&self.feed, transport, place, lineage).await?;
                (Source::Own(connection), first)
            }
        };
        let told =
            self.resume.accept(first).map_err(|error| Failure { error, cause: Cause::Answered })?;
        Ok((source, told))
    }

    /// Joins the stream of all equal watches, or opens it; nothing if this one has to go alone.
    async fn join(
        &mut self,
        topic: &Topic<F::Item, F::Event>,
        deadline: Instant,
    ) -> Result<Option<Joined<F::Item, F::Event>>, Failure> {
        let (place, lineage) = self.resume.request();
        let known = lineage.as_deref().unwrap_or_default();
        let joined = match place {
            Place::Now => {
                let transport = &self.client.transport;
                topic.join_now(transport, self.opening(place, None), deadline).await
            }
            Place::After { revision, .. } if self.resume.is_live() => {
                // Whoever may begin again does so alone.
                let place = Place::After { revision, or_initial: false };
                let opening = self.leads.then(|| self.opening(place, lineage.clone()));
                let endpoint = self.client.transport.endpoint();
                topic.join_after(revision, known, endpoint, opening).await
            }
            Place::After { .. } | Place::Initial => Ok(None),
        };
        match joined {
            Ok(joined) => {
                if place == Place::Now {
                    let older = joined.as_ref().filter(|it| it.is_older);
                    let from_nothing = older.filter(|it| it.began.lineage.is_empty());
                    self.from_nothing = from_nothing.map(|it| it.began.after);
                }
                Ok(joined)
            }
            // It was asked for the place of another.
            Err(failure) if place != Place::Now && !failure.is_passing() => Ok(None),
            Err(failure) => Err(failure.duplicate()),
        }
    }

    /// How a stream is opened that others may join.
    fn opening(
        &self,
        place: Place,
        lineage: Option<String>,
    ) -> impl Fn() -> Opening<F::Item, F::Event> + use<F> {
        let (feed, transport) = (self.feed.clone(), Arc::clone(&self.client.transport));
        // Whoever is in a hurry does not have others give up.
        let timeout = self.timeout.max(transport.timeout());
        let longest_silence = self.longest_silence;
        move || {
            let (feed, lineage, opened) = (feed.clone(), lineage.clone(), Arc::clone(&transport));
            let connecting = async move {
                let opening = open(&feed, &opened, place, lineage);
                opened.in_time(deadline_after(timeout), opening).await
            };
            let transport = Arc::clone(&transport);
            Opening { transport, connecting: connecting.boxed(), longest_silence }
        }
    }

    /// The next message.
    async fn receive(
        &mut self,
        source: &mut Source<F::Item, F::Event>,
    ) -> Result<Arc<Message<F::Item, F::Event>>, Failure> {
        match source {
            Source::Own(connection) => self.receive_own(connection).await.map(Arc::new),
            Source::Shared(subscriber) => match topic::next(subscriber).await {
                Ok(message) => Ok(message),
                Err(Gone::Ended(failure)) if is_of_place(&failure) => {
                    self.leads = false;
                    Err(lost("the stream for all has lost its place"))
                }
                Err(Gone::Ended(failure)) => Err(failure.duplicate()),
                Err(Gone::Behind) => {
                    self.leads = false;
                    Err(lost("others have read the watch faster"))
                }
            },
        }
    }

    /// The next message. Silence is a failure too: a connection whose other side is gone without a word
    /// looks like nothing else.
    async fn receive_own(
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

/// Opens a stream and waits for its first message.
async fn open<F: Feed>(
    feed: &F,
    transport: &Transport,
    place: Place,
    lineage: Option<String>,
) -> Result<topic::Connected<F::Item, F::Event>, Failure> {
    let mut connection = feed.clone().open(transport, place, lineage).await?;
    let first = connection.messages.next().await;
    let first = first.unwrap_or_else(|| Err(lost("the watch ended before it stood")));
    let first = first.inspect_err(|failure| transport.note(connection.endpoint, failure))?;
    Ok((connection, first))
}

/// What a stream of its own would tell a watch first.
fn created<I, E>(lineage: String, revision: u64) -> Message<I, E> {
    let body = Body::Created { lineage, revision, reset: false };
    let new_lineage = String::new();
    Message { revision, time_ms: 0, complete_through: 0, new_lineage, body }
}

/// Whether this is only about where a stream stood: one that others hold up may not have come as far as who joins it.
fn is_of_place(failure: &Failure) -> bool {
    let is_of_place =
        matches!(failure.error, Error::Compacted { .. } | Error::FutureRevision { .. });
    is_of_place && failure.cause == Cause::Answered
}

pub(super) fn lost(message: &str) -> Failure {
    Failure {
        error: Error::Unavailable { message: message.to_owned(), retry_after: None },
        cause: Cause::Lost,
    }
}
