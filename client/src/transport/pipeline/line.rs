//! One line to a server: its stream, as far as there is one, and the calls that go over it.

use std::{
    future::Future as _,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
};

use tokio::{sync::Semaphore, task::yield_now, time::Instant};
use tonic::Status;

use super::{
    FIRST_ANSWER, LONGEST_REFUSED, MAX_BARREN, OPENING, PATIENCE, ROOM_BYTES, SHORTEST_REFUSED,
    Unanswered,
    calls::{Aftermath, CallId, Calls},
    driver::{self, Driver},
    wire::{Answer, Message},
};
use crate::{
    Error,
    error::{Cause, Failure},
    retry::Backoff,
    transport::{Lane, OneTask},
};

/// How often a message waits for callers that are about to go on, before it goes without them.
const MAX_YIELDS: u32 = 3;

/// Shared by the callers, the task that takes the answers, and the one that sends the messages.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) lane: Lane,
    background: OneTask,
    /// In bytes. Who waits for it is served in turn.
    pub(super) room: Semaphore,
    /// Whether its stream is open, for who does not want to lock.
    is_open: AtomicBool,
    state: Mutex<State>,
}

/// Why a stream is no more.
#[derive(Debug)]
pub(super) enum End {
    /// The client is gone.
    Closed,
    /// It never came to be.
    Unopened(Status),
    /// It was accepted, and brings no answers.
    Mute,
    /// It broke, or the server has ended it.
    Broken(Status),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// Counts the streams.
    stream: u64,
    calls: Calls,
    proof: Proof,
    /// Streams in a row that have broken before they brought an answer.
    barren: u32,
    /// Until then calls go alone; afterwards too, until a stream has opened.
    refused_until: Option<Instant>,
    refusals: Backoff,
    is_closed: bool,
    driver: Option<Waker>,
    sender: Option<Waker>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Idle,
    /// The server has not accepted the stream yet; whether calls wait for it.
    Opening {
        since: Instant,
        awaited: bool,
    },
    Open,
}

/// Whether the stream works.
#[derive(Clone, Copy, Debug)]
enum Proof {
    Unused,
    /// Nothing was answered since.
    DueSince(Instant),
    Proven,
}

impl Line {
    pub(super) fn new(lane: Lane, background: OneTask) -> Self {
        Self {
            lane,
            background,
            room: Semaphore::new(ROOM_BYTES),
            is_open: AtomicBool::new(false),
            state: Mutex::new(State::new()),
        }
    }

    /// Puts a call into the queue; nothing if it is to go alone. Opens a stream if there is none.
    pub(super) fn join(
        self: &Arc<Self>,
        namespace: &str,
        room: usize,
        deadline: Instant,
        waker: Waker,
        put: impl FnOnce(CallId, &mut Vec<u8>),
    ) -> Option<CallId> {
        let (mut opened, mut wakes) = (None, [None, None]);
        let mut state = self.state();
        if let Phase::Idle = state.phase {
            opened = state.open(Instant::now(), true);
        }
        let id = state.takes_calls().then(|| {
            let earliest = state.calls.earliest();
            let id = state.calls.add(namespace, room, deadline, waker, put);
            wakes[0] = state.sender.take();
            if state.calls.earliest() != earliest {
                wakes[1] = state.driver.take();
            }
            id
        });
        drop(state);
        wakes.into_iter().flatten().for_each(Waker::wake);
        self.drive(opened);
        id
    }

    /// Whether its stream is open. If there is none, one is opened, though no call waits for it.
    pub(super) fn helps(self: &Arc<Self>) -> bool {
        if self.is_open.load(Ordering::Relaxed) {
            return true;
        }
        let mut opened = None;
        let mut state = self.state();
        if let Phase::Idle = state.phase {
            opened = state.open(Instant::now(), false);
        }
        drop(state);
        self.drive(opened);
        false
    }

    fn drive(self: &Arc<Self>, opened: Option<u64>) {
        if let Some(stream) = opened {
            self.background.spawn(driver::drive(Driver::new(Arc::clone(self), stream)));
        }
    }

    /// What has become of a call.
    pub(super) fn poll(
        &self,
        id: CallId,
        context: &mut Context<'_>,
    ) -> Poll<Result<Answer, Unanswered>> {
        self.change(|state, after| state.calls.poll(id, context, after))
    }

    /// Nobody waits for a call any more.
    pub(super) fn give_up(&self, id: CallId) {
        self.change(|state, after| state.calls.give_up(id, after));
    }

    /// Nobody will make another call.
    pub(super) fn close(&self) {
        self.change(|state, after| {
            state.is_closed = true;
            after.wakers.extend(state.driver.take());
            after.wakers.extend(state.sender.take());
        });
    }

    /// The next message of a stream, once there is one; nothing once it is to end. `yields` counts how often it has
    /// waited for callers that are about to go on.
    pub(super) fn poll_message(
        &self,
        stream: u64,
        yields: &mut u32,
        context: &mut Context<'_>,
    ) -> Poll<Option<Message>> {
        let mut state = self.state();
        if state.is_closed || state.stream != stream {
            return Poll::Ready(None);
        }
        if !state.is_open() || !state.calls.has_queued() {
            state.sender = Some(context.waker().clone());
            return Poll::Pending;
        }
        if state.calls.has_unclaimed() && *yields < MAX_YIELDS {
            *yields += 1;
            drop(state);
            // Once it has been polled, what else is ready runs first.
            return pin!(yield_now()).poll(context).map(|()| None);
        }
        *yields = 0;
        let message = state.calls.take_message();
        let wakes_driver = state.note_sent();
        drop(state);
        wakes_driver.into_iter().for_each(Waker::wake);
        Poll::Ready(message)
    }

    /// A server has accepted a stream.
    pub(super) fn opened(&self) {
        self.change(|state, after| {
            state.phase = Phase::Open;
            self.is_open.store(true, Ordering::Relaxed);
            after.wakers.extend(state.sender.take());
        });
    }

    /// Hands out answers.
    pub(super) fn answer(
        &self,
        answers: impl Iterator<Item = (CallId, Answer)>,
        after: &mut Aftermath,
    ) {
        let mut state = self.state();
        state.prove();
        for (id, answer) in answers {
            state.calls.answer(id, answer, after);
        }
    }

    /// Does what `after` says.
    pub(super) fn conclude(&self, after: &mut Aftermath) {
        if after.room > 0 {
            self.room.add_permits(std::mem::take(&mut after.room));
        }
        after.wakers.drain(..).for_each(Waker::wake);
    }

    /// When the stream is to be looked after next; an error once it is to end. Wakes this task if that changes.
    pub(super) fn next_check(&self, context: &Context<'_>) -> Result<Option<Instant>, End> {
        let mut state = self.state();
        if state.is_closed {
            return Err(End::Closed);
        }
        state.driver = Some(context.waker().clone());
        Ok(state.next_check())
    }

    /// Does what is due.
    pub(super) fn check(&self, now: Instant) -> Result<(), End> {
        self.change(|state, after| state.check(now, after))
    }

    /// A stream is no more: each of its calls comes to what is known of it.
    pub(super) fn end(&self, end: End) {
        self.change(|state, after| {
            self.is_open.store(false, Ordering::Relaxed);
            state.end(end, Instant::now(), after);
        });
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, &mut Aftermath) -> T) -> T {
        let mut after = Aftermath::default();
        let changed = change(&mut self.state(), &mut after);
        self.conclude(&mut after);
        changed
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No method panics halfway through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn new() -> Self {
        Self {
            phase: Phase::Idle,
            stream: 0,
            calls: Calls::default(),
            proof: Proof::Unused,
            barren: 0,
            refused_until: None,
            refusals: refusals(),
            is_closed: false,
            driver: None,
            sender: None,
        }
    }

    /// Begins to open a stream, unless one was refused a short time ago. Answers its number. Calls may wait for it,
    /// if they are to, unless the last one was refused.
    fn open(&mut self, now: Instant, awaited: bool) -> Option<u64> {
        if self.refused_until.is_some_and(|until| now < until) {
            return None;
        }
        let awaited = awaited && self.refused_until.is_none();
        self.phase = Phase::Opening { since: now, awaited };
        self.stream += 1;
        self.proof = Proof::Unused;
        Some(self.stream)
    }

    fn takes_calls(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Opening { awaited: true, .. })
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open)
    }

    /// A message is sent. From the first one on an answer is due, and the driver is to know of that.
    fn note_sent(&mut self) -> Option<Waker> {
        if !matches!(self.proof, Proof::Unused) {
            return None;
        }
        self.proof = Proof::DueSince(Instant::now());
        self.driver.take()
    }

    fn next_check(&self) -> Option<Instant> {
        let own = match self.phase {
            Phase::Idle => None,
            Phase::Opening { since, awaited: true } => Some(since + PATIENCE),
            Phase::Opening { since, awaited: false } => Some(since + OPENING),
            Phase::Open => self.proof.due(),
        };
        own.into_iter().chain(self.calls.earliest()).min()
    }

    fn check(&mut self, now: Instant, after: &mut Aftermath) -> Result<(), End> {
        self.calls.expire(now, after);
        match self.phase {
            Phase::Opening { since, awaited: true } if now >= since + PATIENCE => {
                self.phase = Phase::Opening { since, awaited: false };
                self.calls.end_queued(&Unanswered::GoesAlone, after);
                Ok(())
            }
            Phase::Opening { since, .. } if now >= since + OPENING => {
                Err(End::Unopened(Status::deadline_exceeded("the stream was not accepted")))
            }
            Phase::Open if self.proof.due().is_some_and(|due| now >= due) => Err(End::Mute),
            _ => Ok(()),
        }
    }

    /// The stream has brought an answer.
    fn prove(&mut self) {
        if matches!(self.proof, Proof::Proven) {
            return;
        }
        self.proof = Proof::Proven;
        self.barren = 0;
        self.refused_until = None;
        self.refusals = refusals();
    }

    fn end(&mut self, end: End, now: Instant, after: &mut Aftermath) {
        let (queued, sent) = match end {
            End::Closed => (Unanswered::GoesAlone, lost(Status::cancelled("the client is gone"))),
            End::Unopened(status) => {
                let status = Arc::new(status);
                let queued = if is_unreachable(&status) {
                    // Else whoever comes next would try again at once.
                    if !self.takes_calls() {
                        self.refused_until = Some(now + SHORTEST_REFUSED);
                    }
                    Unanswered::NotRun(Arc::clone(&status))
                } else {
                    self.refuse(now);
                    Unanswered::GoesAlone
                };
                (queued, Unanswered::NotRun(status))
            }
            End::Mute => {
                self.refuse(now);
                (Unanswered::GoesAlone, lost(Status::unavailable("the stream brings no answers")))
            }
            End::Broken(status) => self.broken(Arc::new(status), now),
        };
        self.phase = Phase::Idle;
        self.stream += 1;
        self.calls.end_queued(&queued, after);
        self.calls.end_sent(&sent, after);
        after.wakers.extend(self.sender.take());
    }

    /// What becomes of the calls that are queued, and of those that are sent.
    fn broken(&mut self, status: Arc<Status>, now: Instant) -> (Unanswered, Unanswered) {
        let is_over = is_stopping(&status);
        if !is_over && !matches!(self.proof, Proof::Proven) {
            self.barren += 1;
        }
        let not_run = Unanswered::NotRun(Arc::clone(&status));
        let queued = if self.barren >= MAX_BARREN {
            self.refuse(now);
            Unanswered::GoesAlone
        } else {
            not_run.clone()
        };
        (queued, if is_over { not_run } else { Unanswered::Lost(status) })
    }

    fn refuse(&mut self, now: Instant) {
        self.barren = 0;
        self.refused_until = Some(now + self.refusals.wait(None));
    }
}

impl Proof {
    /// When there must be an answer.
    fn due(self) -> Option<Instant> {
        match self {
            Proof::DueSince(since) => Some(since + FIRST_ANSWER),
            Proof::Unused | Proof::Proven => None,
        }
    }
}

fn lost(status: Status) -> Unanswered {
    Unanswered::Lost(Arc::new(status))
}

/// Whether the server was never asked.
fn is_unreachable(status: &Status) -> bool {
    Failure::from_status(status.clone()).cause == Cause::NotSent
}

/// Whether the server itself ends the stream, because it stops. It has answered all that it has taken in then, and
/// what is without an answer was not run.
fn is_stopping(status: &Status) -> bool {
    let Failure { error, cause } = Failure::from_status(status.clone());
    cause == Cause::Answered && matches!(error, Error::Unavailable { .. })
}

fn refusals() -> Backoff {
    Backoff::new(SHORTEST_REFUSED, LONGEST_REFUSED)
}
