//! Changes as they happen, over as many connections as it takes.

mod resume;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream::BoxStream};
use holdfast_proto::v1;

use crate::{
    Codec, Cursor, Entry, Error, Event, EventType, Namespace, Revision, Selector,
    call::{Pending, awaitable, call_options},
    error::{Cause, Failure},
    retry::Backoff,
    transport::Opened,
    types::millis_rounded_up,
    wire::{self, Reader},
};
use resume::{Resume, Start, Step};

/// How often a server speaks up unless asked otherwise.
const DEFAULT_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// A watch to be; made by [`Namespace::watch`]. Awaiting it gives the [`WatchStream`], once the watch
/// stands: every change committed after that is seen.
///
/// Unless it is told where to start, it starts now. A namespace can be watched before it exists.
///
/// # Errors
/// [`Error::Compacted`], [`Error::LineageChanged`] or [`Error::FutureRevision`] if it cannot start
/// [after](Self::after) its cursor; the failures of any call.
#[must_use = "a watch does nothing until it is awaited"]
pub struct Watch<C, T> {
    call: Pending<v1::WatchRequest>,
    reader: Reader<C, T>,
    start: Start,
    cursor: Option<Cursor>,
    or_initial: bool,
}

impl<C: Codec, T: 'static> Watch<C, T> {
    pub(crate) fn new(
        namespace: &Namespace<C>,
        selector: Selector,
        keys_only: bool,
        reader: Reader<C, T>,
    ) -> Self {
        Self {
            call: namespace.pending(v1::WatchRequest {
                namespace: namespace.namespace(),
                selectors: vec![wire::selector(selector)],
                keys_only,
                ..Default::default()
            }),
            reader,
            start: Start::Now,
            cursor: None,
            or_initial: false,
        }
    }

    /// Watches these keys too; up to 100 selectors in all.
    pub fn also(mut self, selector: Selector) -> Self {
        self.call.request.selectors.push(wire::selector(selector));
        self
    }

    /// Starts with the entries there are, up to [`WatchItem::InitialEnd`]; then what changes.
    pub fn initial(mut self) -> Self {
        self.start = Start::Initial;
        self.cursor = None;
        self
    }

    /// Starts after what was seen up to this cursor.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.start = Start::After(cursor.revision.get());
        self.cursor = Some(cursor);
        self
    }

    /// Starts after this revision of whatever lineage the namespace has; 0 is its beginning. Prefer
    /// [`after`](Self::after), which notices if the namespace has been made anew.
    pub fn after_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.start = Start::After(revision.into().get());
        self.cursor = None;
        self
    }

    /// Whenever the cursor can no longer be used, at the start or later, begins again with the entries
    /// there are rather than end with an error. The consumer is told by [`WatchItem::Reset`].
    pub fn or_initial(mut self) -> Self {
        self.or_initial = true;
        self
    }

    /// Brings with each event the entry before the change.
    pub fn with_previous(mut self) -> Self {
        self.call.request.with_previous = true;
        self
    }

    /// Only events of these types. [`EventType::Cleared`] comes also where `Deleted` is asked for.
    pub fn types(mut self, types: impl IntoIterator<Item = EventType>) -> Self {
        self.call.request.types =
            types.into_iter().map(|event_type| event_type.to_wire() as i32).collect();
        self
    }

    /// Only keys that end by their deadline, each with its last entry.
    pub fn expiries(self) -> Self {
        self.types([EventType::Expired]).with_previous()
    }

    /// After what time without a message the server says how far the watch has come: 100 ms to an hour,
    /// 10 s unless set. After three such times of silence the connection is taken for dead.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.call.request.progress_interval_ms = Some(millis_rounded_up(interval));
        self
    }

    call_options!();

    async fn send(self) -> Result<WatchStream<T>, Error> {
        let timeout = self.call.timeout.unwrap_or(self.call.client.transport.timeout());
        let interval = match self.call.request.progress_interval_ms {
            Some(millis) => Duration::from_millis(millis),
            None => DEFAULT_PROGRESS_INTERVAL,
        };
        let lineage = self.cursor.map(|cursor| cursor.lineage);
        let mut session = Session {
            call: self.call,
            resume: Resume::new(self.start, lineage, self.or_initial),
            timeout,
            longest_silence: interval.saturating_mul(3),
        };
        let started = tokio::time::timeout(timeout, session.start()).await;
        let (connection, steps) = started.map_err(|_| Error::DeadlineExceeded)??;
        Ok(WatchStream {
            cursor: session.resume.cursor(),
            steps: session.run(connection, steps).boxed(),
            read: reading(self.reader),
        })
    }
}

awaitable!([C: Codec, T: 'static] Watch<C, T> => WatchStream<T>);

/// What a watch tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WatchItem<T> {
    /// An entry of the initial state, in order of the keys.
    Initial(Entry<T>),
    /// The initial state is complete; changes after this follow.
    InitialEnd(Cursor),
    /// A change.
    Event(Event<T>),
    /// Every matching event up to here has been told: the place to come back to. Comes after events, and
    /// from time to time without.
    Progress(Cursor),
    /// Forget what this watch has told so far: the initial state follows, from its beginning. Either a
    /// connection broke before the initial state was complete, or the watch has lost its place and may
    /// [begin again](Watch::or_initial).
    Reset,
}

/// The changes of a namespace, in order, each exactly once, however often the connection breaks.
///
/// A value that the codec cannot read is an error in its place, and the stream goes on after it. Any other
/// error ends the stream: [`Error::Compacted`] or [`Error::LineageChanged`] when it can no longer go on
/// without a gap, and what no new connection would help against. A reader may be slow: the server catches
/// it up from its log.
#[must_use = "a stream does nothing until it is read"]
pub struct WatchStream<T> {
    steps: BoxStream<'static, Result<Step, Error>>,
    read: ReadStep<T>,
    cursor: Option<Cursor>,
}

type ReadStep<T> = Box<dyn Fn(Step) -> Result<WatchItem<T>, Error> + Send + Sync>;

impl<T> WatchStream<T> {
    /// The place to come back to: every matching event up to it has been told. None while the initial
    /// state is not complete.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.cursor.as_ref()
    }
}

impl<T> Stream for WatchStream<T> {
    type Item = Result<WatchItem<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Poll::Ready(step) = self.steps.poll_next_unpin(cx) else {
            return Poll::Pending;
        };
        match &step {
            Some(Ok(Step::InitialEnd(cursor) | Step::Progress(cursor))) => {
                self.cursor = Some(cursor.clone());
            }
            Some(Ok(Step::Reset)) => self.cursor = None,
            _ => {}
        }
        Poll::Ready(step.map(|step| (self.read)(step?)))
    }
}

impl<T> fmt::Debug for WatchStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

fn reading<C: Codec, T: 'static>(reader: Reader<C, T>) -> ReadStep<T> {
    Box::new(move |step| {
        Ok(match step {
            Step::Reset => WatchItem::Reset,
            Step::Initial(entry) => WatchItem::Initial(reader.read(entry)?),
            Step::InitialEnd(cursor) => WatchItem::InitialEnd(cursor),
            Step::Event(event) => WatchItem::Event(Event::from_wire(&reader, event)?),
            Step::Progress(cursor) => WatchItem::Progress(cursor),
        })
    })
}

type Connection = Opened<v1::WatchResponse>;

/// A watch and the connections it goes through.
struct Session {
    call: Pending<v1::WatchRequest>,
    resume: Resume,
    /// How long a connection may take to stand.
    timeout: Duration,
    longest_silence: Duration,
}

impl Session {
    /// The first connection: tried a bounded number of times.
    async fn start(&mut self) -> Result<(Connection, Vec<Step>), Error> {
        let max_attempts = self.call.client.transport.max_attempts();
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
        mut connection: Connection,
        steps: Vec<Step>,
    ) -> impl Stream<Item = Result<Step, Error>> + Send {
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
    async fn connect(&mut self) -> Result<(Connection, Vec<Step>), Failure> {
        let (start, lineage) = self.resume.request();
        let request = v1::WatchRequest { start: Some(start), lineage, ..self.call.request.clone() };
        let transport = &self.call.client.transport;
        let endpoint = transport.endpoint();
        let attempt = async {
            let mut connection = transport.watch(request).await?;
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
    async fn receive(&self, connection: &mut Connection) -> Result<v1::WatchResponse, Failure> {
        let next = tokio::time::timeout(self.longest_silence, connection.messages.next()).await;
        let received = match next {
            Ok(Some(message)) => message,
            Ok(None) => Err(lost("the server has ended the watch")),
            Err(_) => Err(lost("the server has fallen silent")),
        };
        received.inspect_err(|failure| {
            let transport = &self.call.client.transport;
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

#[cfg(test)]
mod tests;
