//! Changes as they happen, over as many connections as it takes.

mod broadcast;
pub(crate) mod resume;
pub(crate) mod session;
mod told;
pub(crate) mod topic;

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::Stream;
use holdfast_proto::v1;
use prost::Message as _;

use crate::{
    Client, Codec, Cursor, Entry, Error, Event, EventType, Namespace, Revision, Selector,
    call::{Pending, awaitable, call_options},
    error::Failure,
    transport::Transport,
    types::millis_rounded_up,
    wire::{self, Reader},
};
use resume::{Body, Located, Message, Place, Resume, Start, Step};
use session::{Connection, Feed, Signals, Steps};
use topic::Topic;

/// A watch to be; made by [`Namespace::watch`]. Awaiting it gives the [`WatchStream`], once the watch
/// stands: every change committed after that is seen.
///
/// Unless it is told where to start, it starts now. A namespace can be watched before it exists.
///
/// Watches of one [`Client`] that start now and ask for the same share one stream of the server. Each sees
/// what it would see on one of its own: one that is read more slowly than others leaves them, and is caught up alone.
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
        let (signals, reader) = self.signals().await?;
        let reader = Arc::new(reader);
        let of_entries = Arc::clone(&reader);
        Ok(WatchStream {
            steps: signals.into_steps(),
            read_event: Box::new(move |event| {
                Poll::Ready(Some(Event::from_wire(&reader, event).map(WatchItem::Event)))
            }),
            read_entry: Box::new(move |entry| of_entries.read(entry)),
        })
    }

    /// The watch with what it tells of its connections, and how to read its values.
    pub(crate) async fn signals(
        self,
    ) -> Result<(Signals<v1::Entry, v1::Event>, Reader<C, T>), Error> {
        let interval = self.call.request.progress_interval_ms;
        let lineage = self.cursor.map(|cursor| cursor.lineage);
        let resume = Resume::new(self.start, lineage, self.or_initial);
        Ok((session::start(self.call, resume, interval).await?, self.reader))
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
/// A value that the codec cannot read, or an event of a type that this client does not know, is an error in its place, and
/// the stream goes on after it. Any other error ends the stream: [`Error::Compacted`] or [`Error::LineageChanged`] when it
/// can no longer go on without a gap, and what no new connection would help against. A reader may be slow: the server
/// catches it up from its log.
#[must_use = "a stream does nothing until it is read"]
pub struct WatchStream<T> {
    steps: Steps<v1::Entry, v1::Event>,
    read_event: ReadEvent<T>,
    read_entry: ReadEntry<T>,
}

/// What polling a watch gives.
type Polled<T> = Poll<Option<Result<WatchItem<T>, Error>>>;

/// Reads an event as what polling gives: large as that is, it is made where it goes.
type ReadEvent<T> = Box<dyn Fn(&v1::Event) -> Polled<T> + Send + Sync>;
type ReadEntry<T> = Box<dyn Fn(v1::Entry) -> Result<Entry<T>, Error> + Send + Sync>;

impl<T> WatchStream<T> {
    /// The place to come back to: every matching event up to it has been told. None while the initial
    /// state is not complete.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.steps.cursor()
    }
}

impl<T> Stream for WatchStream<T> {
    type Item = Result<WatchItem<T>, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { steps, read_event, read_entry } = &mut *self;
        // Most of what is told is one of several events that have come together.
        if let Some(event) = steps.next_event() {
            return read_event(event);
        }
        let step = match ready!(steps.poll_next_step(cx)) {
            Some(Ok(step)) => step,
            Some(Err(error)) => return Poll::Ready(Some(Err(error))),
            None => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(match step {
            Step::Event(event) => return read_event(&event),
            Step::Initial(entry) => {
                return Poll::Ready(Some(read_entry(entry).map(WatchItem::Initial)));
            }
            Step::Reset => WatchItem::Reset,
            Step::InitialEnd(cursor) => WatchItem::InitialEnd(cursor),
            Step::Progress(cursor) => WatchItem::Progress(cursor),
        })))
    }
}

impl<T> fmt::Debug for WatchStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

impl Feed for v1::WatchRequest {
    type Item = v1::Entry;
    type Event = v1::Event;

    async fn open(
        self,
        transport: &Transport,
        place: Place,
        lineage: Option<String>,
    ) -> Result<Connection<v1::Entry, v1::Event>, Failure> {
        let start = Some(start(place));
        let opened = transport.watch(v1::WatchRequest { start, lineage, ..self }).await?;
        Ok(opened.map(Message::from))
    }

    fn topic(&self, client: &Client) -> Option<Arc<Topic<v1::Entry, v1::Event>>> {
        let request = Self { start: None, lineage: None, ..self.clone() };
        let probe = v1::ListRequest {
            namespace: self.namespace.clone(),
            selector: Some(wire::selector(Selector::key(key_of(&self.selectors)))),
            keys_only: true,
            ..Default::default()
        };
        Some(client.topics.topic(request.encode_to_vec(), probe, settle))
    }
}

/// A key to ask about: one that whoever may watch these may read. Whether it is there does not matter.
fn key_of(selectors: &[v1::Selector]) -> String {
    use v1::selector::Kind;
    match selectors.first().and_then(|selector| selector.kind.as_ref()) {
        Some(Kind::Key(key) | Kind::Prefix(key)) if !key.is_empty() => key.clone(),
        _ => "now".to_owned(),
    }
}

/// A message to be kept for many: small values of it would keep all that came with them.
fn settle(mut message: Message<v1::Entry, v1::Event>) -> (Message<v1::Entry, v1::Event>, usize) {
    let mut bytes = 0;
    if let Body::Events(events) = &mut message.body {
        for event in events {
            bytes += size_of_val(event) + event.encoded_len();
            let entries = event.entry.iter_mut().chain(&mut event.previous);
            for value in entries.filter_map(|entry| entry.value.as_mut()) {
                *value = Bytes::copy_from_slice(value);
            }
        }
    }
    (message, bytes)
}

fn start(place: Place) -> v1::watch_request::Start {
    use v1::watch_request::{AfterRevision, Initial, Now, Start};
    match place {
        Place::Now => Start::Now(Now {}),
        Place::Initial => Start::Initial(Initial {}),
        Place::After { revision, or_initial } => {
            Start::AfterRevision(AfterRevision { revision, or_initial })
        }
    }
}

impl From<v1::WatchResponse> for Message<v1::Entry, v1::Event> {
    fn from(message: v1::WatchResponse) -> Self {
        use v1::watch_response::Body as Wire;
        let body = match message.body {
            Some(Wire::Created(created)) => Body::Created {
                lineage: created.lineage,
                revision: created.revision,
                reset: created.reset,
            },
            Some(Wire::Initial(initial)) => {
                Body::Initial { items: initial.entries, end: initial.end }
            }
            Some(Wire::Events(events)) => Body::Events(events.events),
            Some(Wire::Progress(_)) | None => Body::Nothing,
        };
        Self {
            revision: message.revision,
            time_ms: message.time_ms,
            complete_through: message.complete_through,
            new_lineage: message.new_lineage,
            body,
        }
    }
}

impl Located for v1::Event {
    fn revision(&self) -> u64 {
        self.revision
    }

    /// A revision has at most one event for a key.
    fn identity(&self) -> String {
        self.key.clone()
    }
}

#[cfg(test)]
pub(crate) mod tests;
