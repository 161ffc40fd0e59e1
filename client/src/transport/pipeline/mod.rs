//! Calls of many callers over one stream to a server, as `PipelineService` takes them.
//!
//! A call encodes itself into the queue. Whenever the connection takes more, all that is queued goes, a message
//! for each namespace; nothing waits for company. One task for each stream takes the answers and wakes the
//! callers, who decode them. The stream is opened by the first call, and again by the next one after it has
//! broken.
//!
//! Invariant: no call is handed to a stream before the server has accepted the stream. So a server or a proxy that
//! knows no pipelines is found out without risk, and the calls go alone for a while.
//!
//! Where many calls are under way, further streams over connections of their own help, once they are open; nobody waits
//! for one of these to be opened.
//!
//! Invariant: what waits is bounded in number and bytes. Callers beyond that wait for room, in turn and no
//! longer than until their deadlines.

mod calls;
mod driver;
mod line;
mod wire;

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout_at},
};
use tonic::Status;

use super::{
    Lane, MAX_CONNECTIONS, OneTask,
    rpc::{Place, Rpc},
};
use calls::CallId;
use line::Line;
use wire::Answer;

use crate::{error::Failure, retry::Effect};

/// Most calls of one message; the server takes as many.
const MAX_CALLS: usize = 4096;
/// About the most bytes of one message: less than the least that a server can be set to accept.
const MESSAGE_BYTES: usize = 60 << 10;
/// The largest request that shares a stream: what is larger would hold up others, and gains little.
const MAX_CALL_BYTES: usize = 16 << 10;
/// With so many calls a pipeline has enough to do, where there is another.
const FEW_CALLS: usize = 16;
/// Most streams that writes go over. A namespace makes one commit at a time: with two, one is made while the other comes or is
/// answered, and with more each has less in it. Reads are done at the same time, over all of them.
const MAX_WRITING: usize = 2;
/// Room for calls of a pipeline that wait to be sent or to be answered, in bytes.
const ROOM_BYTES: usize = 16 << 20;
/// What a call takes of it beside its request. So there are at most 32,768.
const CALL_BYTES: usize = 512;

/// How long calls wait for the first stream to be opened before they go alone.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a server may take to accept a stream.
const OPENING: Duration = Duration::from_secs(30);
/// How long the first answer of a stream may take. If none comes, something on the way holds it back.
const FIRST_ANSWER: Duration = Duration::from_secs(5);
/// How many streams in a row may break before they have brought any answer.
const MAX_BARREN: u32 = 2;
/// How long calls go alone at first after a stream was refused, and at the most.
const SHORTEST_REFUSED: Duration = Duration::from_secs(5);
const LONGEST_REFUSED: Duration = Duration::from_secs(300);

/// Why a call has no answer.
#[derive(Clone, Debug)]
pub(super) enum Unanswered {
    /// It is not for a pipeline, or there is none now. It was not sent.
    GoesAlone,
    /// Its deadline has passed.
    Late,
    /// It was surely not run.
    NotRun(Arc<Status>),
    /// The stream broke, and it may have been run.
    Lost(Arc<Status>),
}

/// The pipelines to one server.
#[derive(Debug)]
pub(super) struct Pipelines {
    /// Each on a connection of its own, the first that of all else.
    short: [Pipeline; MAX_CONNECTIONS],
    /// For calls with long answers, behind which others should not wait.
    bulk: Pipeline,
}

impl Pipelines {
    pub(super) fn new(lanes: &[(Lane, OneTask); MAX_CONNECTIONS]) -> Self {
        let [first, ..] = lanes;
        Self { short: lanes.each_ref().map(Pipeline::new), bulk: Pipeline::new(first) }
    }

    /// The pipeline for a call with a short answer: the first that has not much to do, or else of those that are open
    /// the one with the fewest calls. The callers of one pipeline come to ask and be answered together, so that client
    /// and server would take turns if there were no other.
    fn short(&self, effect: Effect) -> &Pipeline {
        let [first, helpers @ ..] = &self.short;
        let (mut best, mut fewest) = (first, first.calls());
        let most = if effect == Effect::Reads { MAX_CONNECTIONS } else { MAX_WRITING };
        for helper in &helpers[..most - 1] {
            if fewest < FEW_CALLS {
                break;
            }
            let calls = helper.calls();
            if calls < fewest && helper.line.helps() {
                (best, fewest) = (helper, calls);
            }
        }
        best
    }

    /// Sends a request over a stream, and waits for what the server says. Afterwards the request is as it was.
    pub(super) async fn exchange<R: Rpc>(
        &self,
        request: &mut R,
        deadline: Instant,
    ) -> Result<Result<R::Response, Failure>, Unanswered> {
        let effect = request.effect();
        let Some(Place { field, bulk, namespace }) = request.place() else {
            return Err(Unanswered::GoesAlone);
        };
        // One bad name would spoil the message for all.
        if !is_name(namespace) {
            return Err(Unanswered::GoesAlone);
        }
        // The message has it.
        let namespace = std::mem::take(namespace);
        let pipeline = if bulk { &self.bulk } else { self.short(effect) };
        let joined = pipeline.join(request, &namespace, field, deadline).await;
        if let Some(place) = request.place() {
            *place.namespace = namespace;
        }
        let answer = joined?.await?;
        Ok(answer.read::<R>(field))
    }
}

/// Calls that share one stream at a time to a server.
#[derive(Debug)]
struct Pipeline {
    line: Arc<Line>,
    /// How many calls have joined and are not over.
    calls: AtomicUsize,
}

impl Pipeline {
    fn new((lane, background): &(Lane, OneTask)) -> Self {
        let line = Arc::new(Line::new(lane.clone(), background.clone()));
        Self { line, calls: AtomicUsize::new(0) }
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Puts a request into the queue as soon as there is room.
    async fn join<R: Rpc>(
        &self,
        request: &R,
        namespace: &str,
        field: u32,
        deadline: Instant,
    ) -> Result<Waiting<'_>, Unanswered> {
        let bytes = request.encoded_len();
        if bytes > MAX_CALL_BYTES {
            return Err(Unanswered::GoesAlone);
        }
        let room = CALL_BYTES + bytes;
        let permits = room as u32;
        match self.line.room.try_acquire_many(permits) {
            Ok(permit) => permit.forget(),
            Err(_) => Box::pin(wait_for_room(&self.line.room, permits, deadline)).await?,
        }
        let joined = poll_fn(|context| {
            let waker = context.waker().clone();
            let put = |id: CallId, calls: &mut Vec<u8>| {
                wire::put_call(id.0, field, request, bytes, calls);
            };
            Poll::Ready(self.line.join(namespace, room, deadline, waker, put))
        });
        match joined.await {
            Some(id) => {
                self.calls.fetch_add(1, Ordering::Relaxed);
                Ok(Waiting { pipeline: self, id: Some(id), is_new: true })
            }
            None => {
                self.line.room.add_permits(room);
                Err(Unanswered::GoesAlone)
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.line.close();
    }
}

async fn wait_for_room(
    room: &Semaphore,
    permits: u32,
    deadline: Instant,
) -> Result<(), Unanswered> {
    match timeout_at(deadline, room.acquire_many(permits)).await {
        Ok(Ok(permit)) => {
            permit.forget();
            Ok(())
        }
        // It is never closed.
        Ok(Err(_)) | Err(_) => Err(Unanswered::Late),
    }
}

/// A call that has joined a pipeline. Dropped, it is taken out of the queue, or its answer is thrown away.
struct Waiting<'a> {
    pipeline: &'a Pipeline,
    id: Option<CallId>,
    /// It has joined with the waker of the task that polls it first: nothing is to be done then.
    is_new: bool,
}

impl Future for Waiting<'_> {
    type Output = Result<Answer, Unanswered>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(id) = self.id else {
            unreachable!("a future is not polled once it is done");
        };
        if std::mem::take(&mut self.is_new) {
            return Poll::Pending;
        }
        let polled = self.pipeline.line.poll(id, context);
        if polled.is_ready() {
            self.id = None;
            self.pipeline.calls.fetch_sub(1, Ordering::Relaxed);
        }
        polled
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.pipeline.line.give_up(id);
            self.pipeline.calls.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Whether the server takes this for the name of a namespace, as far as this client knows. If not, the server
/// is to say so.
fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    (1..=128).contains(&name.len()) && !name.starts_with('_') && name.bytes().all(allowed)
}
