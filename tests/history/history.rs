//! What a run has seen: every call with the moments at which it began and ended, every watch with its messages.

use std::{fmt, time::Instant};

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};
use parking_lot::Mutex;

use crate::common::{failure::Failure, transfer::Exported};

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
    /// Gives all settings that matter here these values.
    Update(NamespaceSettings),
    /// Asks where the namespace stands.
    Look,
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
    /// The settings were changed.
    Updated(UpdateNamespaceResponse),
    /// Where it stands.
    Looked(GetNamespaceResponse),
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
    /// When it had ended.
    pub closed: Moment,
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

/// Where a lineage goes on from what was left of another.
#[derive(Debug, Clone)]
pub struct Border {
    /// That other.
    pub lineage: String,
    /// The last of its revisions that was left.
    pub through: u64,
    /// The revision after which it goes on: with nothing new in it.
    pub resumed: u64,
    /// Whether all that was acknowledged was left; if not, what takes no revision may be gone as of the last that was left.
    pub is_whole: bool,
}

/// All that was seen of one lineage of a namespace, and of those that it goes on from as far as they were left.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// The revision that it began with, or the first of those that it goes on from.
    pub base: u64,
    /// The last revision of which all is known.
    pub last: u64,
    /// The time of the store when all was over.
    pub end_ms: i64,
    pub lineage: String,
    /// What it goes on from, the oldest first.
    pub borders: Vec<Border>,
    /// Whether another lineage came after it.
    pub is_over: bool,
    /// The last revision that was left of it, where nothing may be lost that was acknowledged.
    pub kept: Option<u64>,
    /// Whether no fault can have kept the servers from saying in time that they live.
    pub is_steady: bool,
    /// What there was at the beginning.
    pub initial: Vec<Entry>,
    /// The leases and the locks that came with that, if it was imported.
    pub imported: Imported,
    /// The log as a watch of all keys told it from the first revision to the last, with previous values.
    pub log: Vec<Event>,
    /// The log as a watch of all locks told it.
    pub lock_log: Vec<LockEvent>,
    pub calls: Vec<Call>,
    pub watches: Vec<Watch>,
    pub lock_watches: Vec<LockWatch>,
}

/// Leases and locks that an import brings.
#[derive(Debug, Clone, Default)]
pub struct Imported {
    pub leases: Vec<TransferLease>,
    /// Their grants, as if the log had told them.
    pub granted: Vec<LockEvent>,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Imported {
    /// What was exported.
    pub fn of(exported: &Exported) -> Self {
        let granted = exported.locks().into_iter().map(|it| granted(it, &exported.leases()));
        let (leases, entries) = (exported.leases(), exported.entries());
        Imported { granted: granted.collect(), leases, entries }
    }

    /// The holds.
    pub fn holds(&self) -> Vec<Lock> {
        self.granted.iter().filter_map(|event| event.lock.clone()).collect()
    }
}

/// The grant of a hold that was exported.
fn granted(it: TransferLock, leases: &[TransferLease]) -> LockEvent {
    use transfer_lock::Duration;
    let (ttl_ms, lease_id) = match it.duration {
        Some(Duration::TtlMs(ttl_ms)) => (ttl_ms, None),
        Some(Duration::LeaseId(id)) => (0, Some(id)),
        None => unreachable!("it has one: {it:?}"),
    };
    let lease = leases.iter().find(|lease| Some(lease.id) == lease_id);
    let until = it.expires_at_ms.or(lease.map(|lease| lease.expires_at_ms));
    let lock = Lock {
        name: it.name.clone(),
        token: it.token,
        owner: it.owner,
        value: it.value,
        acquired_at_ms: it.acquired_at_ms,
        ttl_ms,
        expires_at_ms: until.expect("it has an end"),
        lease_id,
        waiting: 0,
    };
    LockEvent {
        r#type: LockEventType::Granted.into(),
        revision: it.token,
        time_ms: it.acquired_at_ms,
        name: it.name,
        token: it.token,
        lock: Some(lock),
        ..LockEvent::default()
    }
}

/// One lineage, as those took it down who watched all of it.
#[derive(Debug, Clone, Default)]
pub struct Epoch {
    pub lineage: String,
    pub base: u64,
    /// The last revision that it shares with the one before, if it goes on from that.
    pub shared: Option<u64>,
    /// Whether it is known what it began with; else nothing of it can be judged.
    pub is_known: bool,
    /// Up to where it was taken down; what came after was gone before that.
    pub last: u64,
    pub initial: Vec<Entry>,
    pub log: Vec<Event>,
    pub lock_log: Vec<LockEvent>,
}

/// Something was done that begins another lineage, if it succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Change {
    pub begun: Moment,
    pub done: Moment,
    /// All that was known by then is left, if that much is known.
    pub kept: Option<Moment>,
}

/// All that was seen of one namespace: one lineage after the other under the same name.
#[derive(Debug, Clone, Default)]
pub struct Chronicle {
    pub namespace: String,
    pub epochs: Vec<Epoch>,
    pub changes: Vec<Change>,
    pub end_ms: i64,
    pub is_steady: bool,
    /// Whether what is acknowledged is also where the store goes on when a part of it is lost.
    pub is_replicated: bool,
    /// What was imported, wherever something was.
    pub imported: Imported,
    pub calls: Vec<Call>,
    pub watches: Vec<Watch>,
    pub lock_watches: Vec<LockWatch>,
}

impl History {
    /// Which lineage had a revision.
    pub fn lineage_at(&self, revision: u64) -> &str {
        let former = self.borders.iter().find(|border| revision <= border.through);
        former.map_or(&self.lineage, |border| &border.lineage)
    }

    /// Up to where a lineage is a part of this one; nothing if it is not.
    pub fn shares_through(&self, lineage: &str) -> Option<u64> {
        let former = self.borders.iter().find(|border| border.lineage == lineage);
        let itself = (self.lineage == lineage).then_some(u64::MAX);
        itself.or(former.map(|border| border.through))
    }

    /// The border in which a revision lies that is of none of the two sides.
    pub fn lost_at(&self, revision: u64) -> Option<&Border> {
        let mut borders = self.borders.iter();
        borders.find(|border| border.through < revision && revision < border.resumed)
    }
}

impl fmt::Display for Chronicle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unknown =
            self.calls.iter().filter(|call| matches!(call.outcome, Outcome::Unknown { .. }));
        let revisions: u64 = self.epochs.iter().map(|epoch| epoch.last - epoch.base).sum();
        write!(
            f,
            "{}: {} lineages, {revisions} revisions; {} calls, the fate of {} of them unknown; {} watches",
            self.namespace,
            self.epochs.len(),
            self.calls.len(),
            unknown.count(),
            self.watches.len() + self.lock_watches.len(),
        )?;
        for epoch in &self.epochs {
            let Some(through) = epoch.shared else { continue };
            let answered = self.calls.iter().filter_map(|call| Some(call.state()?.0));
            let lost = answered.filter(|it| (through + 1..epoch.base).contains(it)).count();
            write!(f, "; {lost} answers of what was lost after {through}")?;
        }
        Ok(())
    }
}

/// Takes down what is seen of a namespace, from many tasks.
pub struct Recorder {
    namespace: String,
    start: Instant,
    chronicle: Mutex<Chronicle>,
}

impl Recorder {
    /// Begins a run; all of one run begin at the same moment.
    pub fn new(namespace: &str, start: Instant) -> Self {
        let chronicle = Chronicle { namespace: namespace.to_owned(), ..Chronicle::default() };
        Recorder { namespace: namespace.to_owned(), start, chronicle: Mutex::new(chronicle) }
    }

    /// Now.
    pub fn now(&self) -> Moment {
        u64::try_from(self.start.elapsed().as_nanos()).expect("a run lasts less than centuries")
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// How many calls have ended so far.
    pub fn calls(&self) -> usize {
        self.chronicle.lock().calls.len()
    }

    pub fn call(&self, call: Call) {
        self.chronicle.lock().calls.push(call);
    }

    /// Something that begins another lineage was begun then, and is done; with the moment by which all is left.
    pub fn change(&self, begun: Moment, kept: Option<Moment>) {
        let done = self.now();
        self.chronicle.lock().changes.push(Change { begun, done, kept });
    }

    /// The end of the run.
    pub fn finish(&self, end: impl FnOnce(&mut Chronicle)) -> Chronicle {
        let mut chronicle = std::mem::take(&mut *self.chronicle.lock());
        end(&mut chronicle);
        chronicle.calls.sort_by_key(|call| call.invoked);
        chronicle.watches.sort_by_key(|watch| watch.opened);
        chronicle.lock_watches.sort_by_key(|watch| watch.opened);
        chronicle
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
            Outcome::Updated(answer) => Some((answer.revision, answer.time_ms)),
            Outcome::Looked(answer) => Some((answer.revision, answer.time_ms)),
            Outcome::Refused(_) | Outcome::Unknown { .. } => None,
        }
    }

    /// Whether it reads what a former revision held.
    pub fn is_of_the_past(&self) -> bool {
        self.at_revision().is_some()
    }

    /// The former revision that it is to read.
    pub fn at_revision(&self) -> Option<u64> {
        match &self.request {
            Request::Do(Op::Get(r)) => r.at_revision,
            Request::Do(Op::List(r)) => r.at_revision,
            Request::Do(Op::BatchGet(r)) => r.at_revision,
            _ => None,
        }
    }

    /// What any write may carry.
    pub fn options(&self) -> Option<&WriteOptions> {
        match &self.request {
            Request::Do(op) => options(op),
            _ => None,
        }
    }

    /// The lineage that it was to be applied to, if it named one.
    pub fn expected_lineage(&self) -> Option<&str> {
        self.options()?.expected_lineage.as_deref()
    }

    /// Whether it is granted something at a moment that may be long before its answer.
    pub fn waits(&self) -> bool {
        matches!(&self.request, Request::Do(Op::Acquire(r)) if r.wait_ms > 0)
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
