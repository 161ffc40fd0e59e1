//! What becomes of locks, as it happens.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::Stream;
use holdfast_proto::v1;

use super::LockInfo;
use crate::{
    Client, Codec, Cursor, Error, Namespace, Revision, Timestamp, Token,
    call::{Pending, awaitable, call_options},
    error::Failure,
    transport::Transport,
    types::millis_rounded_up,
    watch::{
        resume::{Body, Located, Message, Place, Resume, Start, Step},
        session::{self, Connection, Feed, Steps},
        topic::Topic,
    },
};

/// A watch of locks to be; made by [`Namespace::watch_lock`] and [`Namespace::watch_locks`]. Awaiting it gives
/// the [`LockStream`], once the watch stands.
///
/// It starts with the locks that are held, unless it is told where to start. A namespace can be watched before
/// it exists.
///
/// # Errors
/// [`Error::Compacted`], [`Error::LineageChanged`] or [`Error::FutureRevision`] if it cannot start
/// [after](Self::after) its cursor; the failures of any call.
#[must_use = "a watch does nothing until it is awaited"]
pub struct WatchLocks {
    call: Pending<v1::WatchLocksRequest>,
    cursor: Option<Cursor>,
    or_initial: bool,
}

impl WatchLocks {
    pub(super) fn new<C: Codec>(
        namespace: &Namespace<C>,
        locks: v1::watch_locks_request::Locks,
    ) -> Self {
        Self {
            call: namespace.pending(v1::WatchLocksRequest {
                namespace: namespace.namespace(),
                locks: Some(locks),
                ..Default::default()
            }),
            cursor: None,
            or_initial: false,
        }
    }

    /// Starts after what was seen up to this cursor.
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.cursor = Some(cursor);
        self
    }

    /// Whenever the cursor can no longer be used, at the start or later, begins again with the locks that are held
    /// rather than end with an error. The consumer is told by [`LockItem::Reset`].
    pub fn or_initial(mut self) -> Self {
        self.or_initial = true;
        self
    }

    /// After what time without a message the server says how far the watch has come: 100 ms to an hour, 10 s
    /// unless set. After three such times of silence the connection is taken for dead.
    pub fn progress_interval(mut self, interval: Duration) -> Self {
        self.call.request.progress_interval_ms = Some(millis_rounded_up(interval));
        self
    }

    call_options!();

    pub(crate) async fn send(self) -> Result<LockStream, Error> {
        let interval = self.call.request.progress_interval_ms;
        let (start, lineage) = match self.cursor {
            Some(cursor) => (Start::After(cursor.revision.get()), Some(cursor.lineage)),
            None => (Start::Initial, None),
        };
        let resume = Resume::new(start, lineage, self.or_initial);
        Ok(LockStream { steps: session::start(self.call, resume, interval).await?.into_steps() })
    }
}

awaitable!([] WatchLocks => LockStream);

/// What a watch of locks tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockItem {
    /// A lock that is held at the start, in order of the names.
    State(LockInfo),
    /// Those were all; what becomes of locks after this follows.
    StateEnd(Cursor),
    /// Something has become of a lock.
    Event(LockEvent),
    /// Every event up to here has been told: the place to come back to. Comes after events, and from time to
    /// time without.
    Progress(Cursor),
    /// Forget what this watch has told so far: the locks that are held follow, from the beginning. Either a
    /// connection broke before they were all told, or the watch has lost its place and may
    /// [begin again](WatchLocks::or_initial).
    Reset,
}

/// One change of one lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LockEvent {
    /// The name of the lock.
    pub name: String,
    /// The token of the hold that the event is about.
    pub token: Token,
    /// The revision of the change.
    pub revision: Revision,
    /// When it was committed.
    pub time: Timestamp,
    /// What happened.
    pub change: LockChange,
}

/// What happened to a lock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LockChange {
    /// It was granted.
    Granted(LockInfo),
    /// Its holder gave it up, or its lease was revoked.
    Released,
    /// Its TTL ended, or its lease.
    Expired,
    /// It was taken away.
    Broken {
        /// Why, as was said.
        reason: String,
    },
    /// Its holder shows another value.
    ValueChanged(LockInfo),
}

/// What becomes of locks, in order, each event exactly once, however often the connection breaks.
///
/// An event of a type that this client does not know is an error in its place, and the stream goes on after it. Any other
/// error ends the stream: [`Error::Compacted`] or [`Error::LineageChanged`] when it can no longer go on without a gap, and
/// what no new connection would help against.
#[must_use = "a stream does nothing until it is read"]
pub struct LockStream {
    steps: Steps<v1::Lock, v1::LockEvent>,
}

impl LockStream {
    /// The place to come back to: every event up to it has been told. None while the state at the start is not
    /// complete.
    pub fn cursor(&self) -> Option<&Cursor> {
        self.steps.cursor()
    }
}

impl Stream for LockStream {
    type Item = Result<LockItem, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let step = ready!(self.steps.poll_next_step(cx));
        Poll::Ready(step.map(|step| LockItem::from_step(step?)))
    }
}

impl fmt::Debug for LockStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockStream").field("cursor", &self.cursor()).finish_non_exhaustive()
    }
}

impl LockItem {
    fn from_step(step: Step<v1::Lock, v1::LockEvent>) -> Result<Self, Error> {
        Ok(match step {
            Step::Reset => Self::Reset,
            Step::Initial(lock) => Self::State(LockInfo::from_wire(lock)),
            Step::InitialEnd(cursor) => Self::StateEnd(cursor),
            Step::Event(event) => Self::Event(LockEvent::from_wire(event)?),
            Step::Progress(cursor) => Self::Progress(cursor),
        })
    }
}

impl LockEvent {
    fn from_wire(event: v1::LockEvent) -> Result<Self, Error> {
        use v1::LockEventType as Type;
        let change = match event.r#type() {
            Type::Granted => LockChange::Granted(LockInfo::answered(event.lock)?),
            Type::ValueChanged => LockChange::ValueChanged(LockInfo::answered(event.lock)?),
            Type::Released => LockChange::Released,
            Type::Expired => LockChange::Expired,
            Type::Broken => LockChange::Broken { reason: event.reason },
            Type::Unspecified => {
                return Err(Error::protocol("an event of a lock is of no known type"));
            }
        };
        Ok(Self {
            name: event.name,
            token: Token::new(event.token),
            revision: Revision::new(event.revision),
            time: Timestamp::from_millis(event.time_ms),
            change,
        })
    }
}

impl Feed for v1::WatchLocksRequest {
    type Item = v1::Lock;
    type Event = v1::LockEvent;

    async fn open(
        self,
        transport: &Transport,
        place: Place,
        lineage: Option<String>,
    ) -> Result<Connection<v1::Lock, v1::LockEvent>, Failure> {
        let after_revision = match place {
            // A watch of locks that is not told where to start begins with those that are held.
            Place::Now | Place::Initial => None,
            Place::After { revision, or_initial } => {
                Some(v1::watch_locks_request::AfterRevision { revision, or_initial })
            }
        };
        let request = v1::WatchLocksRequest { after_revision, lineage, ..self };
        Ok(transport.watch_locks(request).await?.map(Message::from))
    }

    fn topic(&self, _client: &Client) -> Option<Arc<Topic<v1::Lock, v1::LockEvent>>> {
        None
    }
}

impl From<v1::WatchLocksResponse> for Message<v1::Lock, v1::LockEvent> {
    fn from(message: v1::WatchLocksResponse) -> Self {
        use v1::watch_locks_response::Body as Wire;
        let body = match message.body {
            Some(Wire::Created(created)) => Body::Created {
                lineage: created.lineage,
                revision: created.revision,
                reset: created.reset,
            },
            Some(Wire::State(state)) => Body::Initial { items: state.locks, end: state.end },
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

impl Located for v1::LockEvent {
    fn revision(&self) -> u64 {
        self.revision
    }

    /// One revision may end a hold and begin the next.
    fn identity(&self) -> String {
        format!("{} {} {}", self.r#type, self.token, self.name)
    }
}
