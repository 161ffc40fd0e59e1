//! Changes as they happen, over as many connections as it takes.

pub(crate) mod resume;
pub(crate) mod session;

use std::{
    fmt,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{Stream, StreamExt as _};
use holdfast_proto::v1;

use crate::{
    Codec, Cursor, Entry, Error, Event, EventType, Namespace, Revision, Selector,
    call::{Pending, awaitable, call_options},
    error::Failure,
    transport::Transport,
    types::millis_rounded_up,
    wire::{self, Reader},
};
use resume::{Body, Located, Message, Place, Resume, Start, Step};
use session::{Connection, Feed, Signals, Steps};

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
        let (signals, reader) = self.signals().await?;
        Ok(WatchStream { steps: signals.into_steps(), read: reading(reader) })
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
/// A value that the codec cannot read is an error in its place, and the stream goes on after it. Any other
/// error ends the stream: [`Error::Compacted`] or [`Error::LineageChanged`] when it can no longer go on
/// without a gap, and what no new connection would help against. A reader may be slow: the server catches
/// it up from its log.
#[must_use = "a stream does nothing until it is read"]
pub struct WatchStream<T> {
    steps: Steps<v1::Entry, v1::Event>,
    read: ReadStep<T>,
}

type ReadStep<T> =
    Box<dyn Fn(Step<v1::Entry, v1::Event>) -> Result<WatchItem<T>, Error> + Send + Sync>;

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
        let step = ready!(self.steps.poll_next_unpin(cx));
        Poll::Ready(step.map(|step| (self.read)(step?)))
    }
}

impl<T> fmt::Debug for WatchStream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchStream").field("cursor", &self.cursor()).finish_non_exhaustive()
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
