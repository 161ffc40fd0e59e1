//! The thread that hands commits to the journal, and applies what that has kept.
//!
//! Whatever waits when the journal has done with a group is the next group: all of it shares one write and one sync.
//! The same thread begins snapshots, between two groups, so that a snapshot has all that was appended before; they are
//! written on another. After a failure nothing is accepted until the journal is mended, which is tried again and again.

use std::{
    mem,
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
};

use super::{
    Intervals,
    cells::{Cell, Cells, Turn},
    durable::{Stamped, apply, is_stale, refuse},
    journal::{AppendError, Encoder, Journal, Pending, Record, SnapshotWriter},
    snapshot::{Beside, write_snapshot},
};
use crate::{
    backend::{BackendError, Committed, Generation},
    busy_poll::Patience,
    clock::Clock,
};

/// About the most bytes that are appended together.
const MAX_GROUP_BYTES: usize = 32 << 20;
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The way to the journal. Dropped, it waits until all that was handed in is done.
pub(super) struct Writer {
    queue: Sender<Message>,
    encoder: Encoder,
    thread: Option<JoinHandle<()>>,
    /// Ends the timers when dropped.
    _timers: JoinSet<()>,
}

enum Message {
    Write(Job),
    /// Make durable what is not yet.
    Sync,
    /// Write a snapshot, if anything was appended since the last.
    Snapshot,
    /// Write a snapshot in any case, and tell when it has ended.
    Rewrite(Asker),
    /// A snapshot has ended.
    SnapshotEnded(Result<(), String>),
    /// Try to mend the journal.
    Mend,
    Stop,
}

/// Who waits for a snapshot.
type Asker = oneshot::Sender<Result<(), String>>;

struct Job {
    pending: Pending,
    waiting: Waiting,
}

/// Who waits for a commit.
struct Waiting {
    place: Place,
    answer: oneshot::Sender<Result<Committed, BackendError>>,
}

/// That of a commit in its namespace. Dropped before it is applied, it is refused: also where this thread has ended.
struct Place {
    cell: Arc<Cell>,
    generation: Generation,
    is_applied: bool,
    _turn: Turn,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.is_applied {
            refuse(&self.cell, self.generation);
        }
    }
}

/// Where the answer comes; it does not if the thread has ended.
pub(super) type Answered = oneshot::Receiver<Result<Committed, BackendError>>;

impl Writer {
    /// Starts the thread and its timers.
    pub fn start(
        journal: Box<dyn Journal>,
        cells: Arc<Cells>,
        clock: Arc<dyn Clock>,
        intervals: Intervals,
        writable: watch::Sender<bool>,
    ) -> Self {
        let (queue, messages) = mpsc::channel();
        let encoder = journal.encoder();
        let runtime = Handle::current();
        let mut timers = JoinSet::new();
        for (interval, message) in [
            (intervals.sync, (|| Message::Sync) as fn() -> Message),
            (intervals.snapshot, || Message::Snapshot),
        ] {
            if let Some(interval) = interval {
                timers.spawn(tick(clock.clone(), interval, queue.clone(), message));
            }
        }
        let worker = Worker {
            journal,
            cells,
            clock,
            runtime,
            queue: queue.clone(),
            writable,
            state: State::Fit,
            attempts: 0,
            snapshot: None,
            askers: Vec::new(),
            beside: Arc::default(),
            patience: Patience::new(),
        };
        let thread = thread::Builder::new().name("journal".into());
        let thread = thread
            .spawn(move || worker.run(&messages))
            .expect("a system that cannot start one thread cannot run this program");
        Self { queue, encoder, thread: Some(thread), _timers: timers }
    }

    /// Has a commit kept and applied. Once handed in that is done whether or not the answer is awaited.
    pub async fn write(
        &self,
        cell: Arc<Cell>,
        turn: Turn,
        stamped: Stamped,
    ) -> Result<Committed, BackendError> {
        self.hand_in(cell, turn, stamped).await.map_err(|_| lost())?
    }

    /// The same, where the answer may be awaited elsewhere.
    pub fn hand_in(
        &self,
        cell: Arc<Cell>,
        turn: Turn,
        Stamped { record, generation }: Stamped,
    ) -> Answered {
        let encoded = (self.encoder)(&record);
        let pending = Pending { record, encoded };
        let (answer, answered) = oneshot::channel();
        // Without the thread the job is dropped, and the receiver finds out.
        let place = Place { cell, generation, is_applied: false, _turn: turn };
        let waiting = Waiting { place, answer };
        let _ = self.queue.send(Message::Write(Job { pending, waiting }));
        answered
    }

    /// Has everything written anew.
    pub async fn rewrite(&self) -> Result<(), BackendError> {
        let (asker, answered) = oneshot::channel();
        // Without the thread the question is dropped, and the receiver finds out.
        let _ = self.queue.send(Message::Rewrite(asker));
        answered.await.map_err(|_| lost())?.map_err(BackendError::Unavailable)
    }
}

/// Nobody knows what came of it.
pub(super) fn lost() -> BackendError {
    BackendError::OutcomeUnknown("the journal's thread has ended".into())
}

impl Drop for Writer {
    fn drop(&mut self) {
        // The thread may have ended by a panic; then there is nothing to wait for.
        let _ = self.queue.send(Message::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn tick(
    clock: Arc<dyn Clock>,
    interval: Duration,
    queue: Sender<Message>,
    message: fn() -> Message,
) {
    loop {
        clock.sleep(interval).await;
        if queue.send(message()).is_err() {
            return;
        }
    }
}

/// Whether commits are accepted.
enum State {
    /// They are.
    Fit,
    /// The journal failed, and why.
    Unfit(String),
    /// They will be once the snapshot under way is finished.
    Mending(String),
}

struct Worker {
    journal: Box<dyn Journal>,
    cells: Arc<Cells>,
    clock: Arc<dyn Clock>,
    runtime: Handle,
    queue: Sender<Message>,
    writable: watch::Sender<bool>,
    state: State,
    /// How often it was tried in vain to mend it.
    attempts: u32,
    /// The thread that writes a snapshot.
    snapshot: Option<JoinHandle<()>>,
    /// Who waits for it to end.
    askers: Vec<Asker>,
    /// What it and this thread know of each other.
    beside: Arc<Beside>,
    patience: Patience,
}

impl Worker {
    fn run(mut self, messages: &Receiver<Message>) {
        let runtime = self.runtime.clone();
        let _runtime = runtime.enter();
        let mut group = Group::default();
        while let Some(message) = self.next(messages) {
            let mut next = Some(message);
            let mut stop = false;
            while let Some(message) = next.take() {
                match message {
                    Message::Write(job) if job.is_stale() => job.refuse(),
                    Message::Write(job) => group.add(job),
                    other => {
                        // What came before is done before.
                        self.write(&mut group);
                        stop = self.handle(other);
                    }
                }
                if !stop && group.bytes < MAX_GROUP_BYTES {
                    next = messages.try_recv().ok();
                }
            }
            self.write(&mut group);
            if stop {
                break;
            }
            if matches!(self.state, State::Fit) && self.journal.wants_snapshot() {
                self.begin_snapshot();
            }
        }
        self.beside.stop();
        if let Some(snapshot) = self.snapshot.take() {
            let _ = snapshot.join();
        }
        self.sync();
    }

    /// Waits for a message.
    fn next(&mut self, messages: &Receiver<Message>) -> Option<Message> {
        let mut found = None;
        self.patience.look(|| {
            found = messages.try_recv().ok();
            found.is_some()
        });
        let next = found.or_else(|| messages.recv().ok());
        self.patience.end();
        next
    }

    /// Answers whether to stop.
    fn handle(&mut self, message: Message) -> bool {
        match message {
            Message::Write(_) => {}
            Message::Sync => self.sync(),
            Message::Snapshot => {
                if self.journal.has_grown() {
                    self.begin_snapshot();
                }
            }
            Message::Rewrite(asker) => self.rewrite(asker),
            Message::SnapshotEnded(result) => self.end_snapshot(result),
            Message::Mend => self.mend(),
            Message::Stop => return true,
        }
        false
    }

    fn write(&mut self, group: &mut Group) {
        if group.jobs.is_empty() {
            return;
        }
        let Group { pending, jobs, .. } = mem::take(group);
        self.beside.note_commit();
        let result = match &self.state {
            State::Fit => self.journal.append(&pending),
            State::Unfit(why) | State::Mending(why) => Err(AppendError::NotKept(why.clone())),
        };
        // Who gets the error finds the state told accordingly.
        if let Err(error) = &result
            && matches!(self.state, State::Fit)
        {
            self.fail(error);
        }
        for (Pending { record, .. }, mut waiting) in pending.into_iter().zip(jobs) {
            let answered = match &result {
                Ok(()) => Ok(waiting.place.apply(&self.cells, record)),
                Err(error) => Err(BackendError::from(error.clone())),
            };
            waiting.tell(answered);
        }
    }

    fn sync(&mut self) {
        if matches!(self.state, State::Fit)
            && let Err(error) = self.journal.sync()
        {
            self.fail(&error);
        }
    }

    fn fail(&mut self, error: &AppendError) {
        tracing::error!(%error, "the journal failed: nothing is accepted until it is mended; reads go on");
        self.state = State::Unfit(format!("the journal failed and is not mended yet: {error}"));
        self.writable.send_replace(false);
        self.mend_later();
    }

    fn mend_later(&self) {
        let (clock, queue) = (self.clock.clone(), self.queue.clone());
        self.runtime.spawn(async move {
            clock.sleep(PAUSE).await;
            // The server may have stopped meanwhile.
            let _ = queue.send(Message::Mend);
        });
    }

    fn mend(&mut self) {
        let State::Unfit(why) = &self.state else {
            return;
        };
        if self.snapshot.is_some() {
            // It is of the journal as it was before the failure.
            self.beside.stop();
            return self.mend_later();
        }
        match self.journal.mend() {
            Ok(None) => self.mended(),
            Ok(Some(writer)) => {
                self.state = State::Mending(why.clone());
                self.spawn_snapshot(writer);
            }
            Err(error) => {
                self.tell_hindrance(&error);
                self.mend_later();
            }
        }
    }

    /// Told at growing intervals: it may last for days.
    fn tell_hindrance(&mut self, error: &str) {
        self.attempts += 1;
        if self.attempts.is_power_of_two() {
            let attempts = self.attempts;
            tracing::warn!(
                error,
                attempts,
                "the journal cannot be mended yet; it is tried every second"
            );
        }
    }

    fn mended(&mut self) {
        tracing::info!(
            attempts = self.attempts,
            "the journal is mended: commits are accepted again"
        );
        self.state = State::Fit;
        self.attempts = 0;
        self.writable.send_replace(true);
    }

    fn rewrite(&mut self, asker: Asker) {
        let refused = match &self.state {
            State::Fit if self.snapshot.is_some() => Some("a snapshot is being written".into()),
            State::Fit => None,
            State::Unfit(why) | State::Mending(why) => Some(why.clone()),
        };
        if let Some(refused) = refused {
            // Nobody may be waiting any more.
            let _ = asker.send(Err(refused));
            return;
        }
        self.askers.push(asker);
        match self.journal.begin_snapshot() {
            Ok(writer) => self.spawn_snapshot(writer),
            Err(error) => self.end_snapshot(Err(error)),
        }
    }

    fn begin_snapshot(&mut self) {
        if self.snapshot.is_some() || !matches!(self.state, State::Fit) {
            return;
        }
        match self.journal.begin_snapshot() {
            Ok(writer) => self.spawn_snapshot(writer),
            Err(error) => tracing::warn!(error, "no snapshot could be begun; trying again later"),
        }
    }

    fn spawn_snapshot(&mut self, writer: Box<dyn SnapshotWriter>) {
        self.beside = Arc::default();
        let (cells, beside, queue) = (self.cells.clone(), self.beside.clone(), self.queue.clone());
        let write = move || {
            let result = write_snapshot(&cells, writer, &beside);
            // The engine may have ended meanwhile.
            let _ = queue.send(Message::SnapshotEnded(result));
        };
        match thread::Builder::new().name("snapshot".into()).spawn(write) {
            Ok(thread) => self.snapshot = Some(thread),
            Err(error) => self.end_snapshot(Err(format!("no thread for it: {error}"))),
        }
    }

    fn end_snapshot(&mut self, result: Result<(), String>) {
        self.snapshot = None;
        for asker in self.askers.drain(..) {
            // Nobody may be waiting any more.
            let _ = asker.send(result.clone());
        }
        match (&self.state, result) {
            (State::Mending(_), Ok(())) => self.mended(),
            (State::Mending(why), Err(error)) => {
                self.state = State::Unfit(why.clone());
                self.tell_hindrance(&error);
                self.mend_later();
            }
            (_, Ok(())) => {}
            (_, Err(error)) => {
                tracing::warn!(
                    error,
                    "the snapshot was not finished; what it was to replace stays"
                );
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!("the journal's thread has ended: nothing is accepted any more");
            self.writable.send_replace(false);
        }
    }
}

/// Commits that wait, and who waits for them.
#[derive(Default)]
struct Group {
    pending: Vec<Pending>,
    jobs: Vec<Waiting>,
    bytes: usize,
}

impl Job {
    fn is_stale(&self) -> bool {
        is_stale(&self.waiting.place.cell, self.waiting.place.generation)
    }

    /// One that was made upon one that was not kept.
    fn refuse(self) {
        let why = "a commit that it was made upon could not be kept";
        self.waiting.tell(Err(BackendError::Unavailable(why.into())));
    }
}

impl Place {
    fn apply(&mut self, cells: &Cells, record: Record) -> Committed {
        let committed = apply(cells, &self.cell, record);
        cells.show(&self.cell);
        self.is_applied = true;
        committed
    }
}

impl Waiting {
    fn tell(self, answered: Result<Committed, BackendError>) {
        // Who is answered finds what became of it.
        drop(self.place);
        // Nobody may be waiting any more.
        let _ = self.answer.send(answered);
    }
}

impl Group {
    fn add(&mut self, Job { pending, waiting }: Job) {
        // A journal of tables is told of records as they are.
        self.bytes += pending.encoded.len().max(pending.record.bytes());
        self.pending.push(pending);
        self.jobs.push(waiting);
    }
}

impl From<AppendError> for BackendError {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::NotKept(why) => Self::Unavailable(why),
            AppendError::Unknown(why) => Self::OutcomeUnknown(why),
        }
    }
}
