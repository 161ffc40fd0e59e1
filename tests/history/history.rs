//! What a run has seen: every call with the moments at which it began and ended, every watch with its messages.

use std::{fmt, time::Instant};

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};
use parking_lot::Mutex;

use crate::common::failure::Failure;

/// Nanoseconds since the run began.
pub type Moment = u64;

/// What was asked.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
pub enum Request {
    /// An operation on keys, locks or leases.
    Do(Op),
    /// Removes all keys.
    Clear,
    /// Forgets the log up to a revision.
    Compact(u64),
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// An answer.
    Answered(Answer),
    /// The keys were removed.
    Cleared(ClearNamespaceResponse),
    /// The log was forgotten.
    Compacted(CompactResponse),
    /// It was refused: nothing was changed by it.
    Refused(Failure),
    /// It may or may not have been applied, then or later; and why that is not known.
    Unknown { why: String },
}

/// One call of one client, with all its attempts.
#[derive(Debug, Clone)]
pub struct Call {
    pub client: usize,
    pub invoked: Moment,
    pub returned: Moment,
    /// How often it was sent.
    pub attempts: u32,
    /// Its place in a message of a pipeline, if it came in one.
    pub sent: Option<Sent>,
    pub request: Request,
    pub outcome: Outcome,
}

/// A place in a message of a pipeline.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// The message, by the moment at which it was sent and who sent it.
    pub message: (Moment, usize),
    /// Whether it sees all writes that came before it in the message. Writes always do.
    pub ordered: bool,
}

/// One watch, from its opening until it ended or was given up.
#[derive(Debug, Clone)]
pub struct Session<R, M> {
    pub request: R,
    pub opened: Moment,
    pub messages: Vec<(Moment, M)>,
    /// What the server ended it with.
    pub end: Option<Failure>,
    /// Whether it was to go on until everything had come, and did not get there.
    pub starved: bool,
}

/// A watch of keys.
pub type Watch = Session<WatchRequest, WatchResponse>;

/// A watch of locks.
pub type LockWatch = Session<WatchLocksRequest, WatchLocksResponse>;

/// All of a run, on one namespace of one lineage.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The revision that the namespace began with.
    pub base: u64,
    /// The last revision, when all was over.
    pub last: u64,
    /// The time of the store then.
    pub end_ms: i64,
    pub lineage: String,
    /// The log as a watch of all keys told it from the first revision to the last, with previous values.
    pub log: Vec<Event>,
    /// The log as a watch of all locks told it.
    pub lock_log: Vec<LockEvent>,
    pub calls: Vec<Call>,
    pub watches: Vec<Watch>,
    pub lock_watches: Vec<LockWatch>,
}

impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown =
            self.calls.iter().filter(|call| matches!(call.outcome, Outcome::Unknown { .. }));
        write!(
            f,
            "{} revisions; {} calls, the fate of {} of them unknown; {} watches",
            self.last - self.base,
            self.calls.len(),
            unknown.count(),
            self.watches.len() + self.lock_watches.len(),
        )
    }
}

/// Takes down what is seen, from many tasks.
pub struct Recorder {
    start: Instant,
    history: Mutex<History>,
}

impl Recorder {
    /// Begins a run on a namespace that is at this revision, and has nothing yet.
    pub fn new(base: u64, lineage: String) -> Self {
        let history = History { base, lineage, ..History::default() };
        Recorder { start: Instant::now(), history: Mutex::new(history) }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run lasts less than centuries")
    }

    /// How many calls have ended so far.
    pub fn calls(&self) -> usize {
        self.history.lock().calls.len()
    }

    pub fn call(&self, call: Call) {
        self.history.lock().calls.push(call);
    }

    pub fn watches(&self, watches: Vec<Watch>, of_locks: Vec<LockWatch>) {
        let mut history = self.history.lock();
        history.watches.extend(watches);
        history.lock_watches.extend(of_locks);
    }

    /// The end of the run.
    pub fn finish(&self, end: impl FnOnce(&mut History)) -> History {
        let mut history = std::mem::take(&mut *self.history.lock());
        end(&mut history);
        history.calls.sort_by_key(|call| call.invoked);
        history.watches.sort_by_key(|watch| watch.opened);
        history
    }
}

impl Call {
    /// Whether it can have been applied without having been answered so, by an attempt whose answer was lost.
    pub fn may_have_been_applied(&self) -> bool {
        matches!(self.outcome, Outcome::Unknown { .. }) || self.attempts > 1
    }

    /// The revision and the time of the state that it was answered of.
    pub fn state(&self) -> Option<(u64, i64)> {
        match &self.outcome {
            Outcome::Answered(answer) => Some(state_of(answer)),
            Outcome::Cleared(answer) => Some((answer.revision, answer.time_ms)),
            Outcome::Compacted(answer) => Some((answer.revision, answer.time_ms)),
            Outcome::Refused(_) | Outcome::Unknown { .. } => None,
        }
    }

    /// Whether it reads what a former revision held.
    pub fn is_of_the_past(&self) -> bool {
        match &self.request {
            Request::Do(Op::Get(r)) => r.at_revision.is_some(),
            Request::Do(Op::List(r)) => r.at_revision.is_some(),
            Request::Do(Op::BatchGet(r)) => r.at_revision.is_some(),
            _ => false,
        }
    }

    /// What any write may carry.
    pub fn options(&self) -> Option<&WriteOptions> {
        match &self.request {
            Request::Do(op) => options(op),
            Request::Clear | Request::Compact(_) => None,
        }
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (from, to) = (self.invoked / 1000, self.returned / 1000);
        write!(f, "client {} from {from} to {to} us: {:?}", self.client, self.request)?;
        if self.attempts > 1 {
            write!(f, ", sent {} times", self.attempts)?;
        }
        match &self.outcome {
            Outcome::Answered(answer) => write!(f, " => {answer:?}"),
            Outcome::Unknown { why } => write!(f, " => unknown: {why}"),
            Outcome::Refused(failure) => {
                write!(f, " => refused: {} {}", failure.reason, failure.message)
            }
            other => write!(f, " => {other:?}"),
        }
    }
}

/// The revision and the time of the state that an answer is of.
pub fn state_of(answer: &Answer) -> (u64, i64) {
    macro_rules! states {
        ($($kind:ident)*) => {
            match answer {
                $(Answer::$kind(answer) => (answer.revision, answer.time_ms),)*
                Answer::Status(status) => unreachable!("refusals are kept apart: {status:?}"),
            }
        };
    }
    states! {
        Get Set Delete Exists GetTtl SetTtl Increment List Count History DeleteRange
        BatchGet BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue GetLock ListLocks BreakLock
        Grant KeepAlive Revoke GetLease ListLeases
    }
}

/// What any write may carry; none for reads and keep-alives.
pub fn options(op: &Op) -> Option<&WriteOptions> {
    macro_rules! by_kind {
        ($($kind:ident)*) => {
            match op {
                $(Op::$kind(request) => request.options.as_ref(),)*
                _ => None,
            }
        };
    }
    by_kind! {
        Get Set Delete SetTtl Increment DeleteRange BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue BreakLock Grant Revoke
    }
}
