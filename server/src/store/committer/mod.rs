//! The one path on which anything is written.
//!
//! Per namespace, what is waiting is taken together: commands run one after the other over what was read, and
//! their writes are committed as one. Whoever finds the namespace free does this on its own task; what comes
//! meanwhile waits and is taken next.
//!
//! Invariant: commands are applied in the order in which they were submitted. Of a namespace at most one commit is being made in
//! this process. Where a backend says that one is on its way, the next is made upon it, and fails if it does.

mod batch;
mod load;
mod progress;
mod requests;
#[cfg(test)]
mod tests;
mod turn;
mod whole;

use std::{
    mem,
    sync::{Arc, atomic::Ordering},
};

use hashbrown::HashSet;

pub(super) use self::turn::Queue;
use self::{
    batch::{Loaded, Run},
    progress::Progress,
    turn::{Entered, Turn},
};
use super::{
    Store,
    command::{Command, EntryView, Guard, Reply},
    error::{Refusal, StoreError},
    namespace::Namespace,
    record::request::RecordName,
    settings::Settings,
    workspace::RangeView,
};
use crate::backend::{
    BackendError, Begun, Commit, CommitOutcome, Committed, Key, NamespaceName, Position, Revision,
    Tip, WriteOp,
};

/// Most commands of one commit.
const MAX_COMMANDS: usize = 1024;
/// About the most bytes of one commit of several commands.
const MAX_BYTES: usize = 8 << 20;
/// Most commands that wait for their turn in one namespace.
const MAX_WAITING: usize = 100_000;
/// About the most bytes that they hold together.
const MAX_WAITING_BYTES: usize = 256 << 20;
/// Most commands of one submission whose ranges are read before their turn.
const MAX_PREPARED: usize = 4;
/// How often a commit is tried while others change what it reads.
const MAX_ATTEMPTS: u32 = 64;
/// After how many attempts a delete of many leaves out what is about to fall due.
const PATIENCE: u32 = 8;
/// How many places of a lock's queue are read at first, and by how many times more each time they are not enough.
const QUEUE_DEPTH: usize = 16;

/// What can be submitted.
#[derive(Debug, Clone)]
pub enum Work {
    /// A command.
    Command(Command),
    /// Remove all keys of users at one revision.
    Clear,
    /// Remove the namespace.
    DeleteNamespace,
}

/// A piece of work with what goes along with any.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Do it only if the namespace has this lineage; empty: if it does not exist.
    pub expected_lineage: Option<String>,
    /// Do it only if these holds are current.
    pub guards: Vec<Guard>,
    /// What tells whether it was done before.
    pub request: Option<RequestId>,
    /// What to do.
    pub work: Work,
}

/// Names a request, so that it is not applied twice. After RIFL (Lee et al., SOSP 2015).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestId {
    /// The client.
    pub client: u64,
    /// Counts its requests to the namespace.
    pub seq: u64,
    /// Those before this one will not come again.
    pub done_below: u64,
    /// Tells the request from others, with great probability.
    pub fingerprint: u64,
}

/// What came of a piece of work.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its revision, or that of the state in which it changed nothing.
    pub revision: Revision,
    /// The time of that.
    pub time_ms: i64,
    /// What it answers.
    pub reply: Reply<EntryView>,
}

type Outcome = Result<Answer, StoreError>;

/// A submission, with the ranges it needs as they were read before its turn, which may take long.
struct Job {
    submission: Submission,
    ranges: Option<(Position, Vec<RangeView>)>,
}

impl From<Submission> for Job {
    fn from(submission: Submission) -> Self {
        Self { submission, ranges: None }
    }
}

impl Store {
    /// Does several pieces of work on one namespace, in order; one that is refused does not stop the next.
    /// Answers one outcome each. Once submitted, work is done whether or not the answer is awaited.
    pub async fn submit(
        self: &Arc<Self>,
        name: &NamespaceName,
        submissions: Vec<Submission>,
    ) -> Vec<Outcome> {
        let namespace = self.namespace(name);
        let count = submissions.len();
        self.counters.commands.fetch_add(count as u64, Ordering::Relaxed);
        let jobs = self.prepare(&namespace, submissions).await;
        let outcomes = match Turn::enter(self, &namespace, jobs) {
            Entered::OurTurn(turn, jobs) => match turn.work(jobs) {
                Ok(outcomes) => Ok(outcomes),
                Err(receiver) => receiver.await,
            },
            Entered::Waiting(receiver) => receiver.await,
            Entered::Full => {
                return vec![Err(StoreError::Overloaded); count];
            }
        };
        let lost = BackendError::OutcomeUnknown("the server stopped in the middle of it".into());
        outcomes.unwrap_or_else(|_| vec![Err(lost.into()); count])
    }

    /// Reads ranges before the turn, where there are not too many: the first that is committed changes what the
    /// others have read.
    async fn prepare(&self, namespace: &Namespace, submissions: Vec<Submission>) -> Vec<Job> {
        let mut jobs = Vec::with_capacity(submissions.len());
        let mut room = MAX_PREPARED;
        for submission in submissions {
            let mut job = Job::from(submission);
            if let Some(command) = job.submission.command().filter(|it| it.reads_ranges())
                && room > 0
            {
                room -= 1;
                // What fails now is tried again in its turn, and fails there for all to see.
                job.ranges = self.load_ranges(namespace, command).await.ok();
            }
            jobs.push(job);
        }
        jobs
    }

    /// Works through jobs, as many together as can be. For those that are the first together it may have been read.
    async fn work(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        jobs: Vec<Job>,
        mut loaded: Option<Loaded>,
    ) -> Progress {
        let mut parts = Vec::with_capacity(1);
        let mut rest = &jobs[..];
        while let Some(first) = rest.first() {
            let (batch, after) = rest.split_at(count_together(rest));
            rest = after;
            match &first.submission.work {
                Work::Command(_) => {
                    parts.push(self.run_batch(namespace, batch, loaded.take()).await);
                }
                Work::Clear => {
                    let outcome = self.clear(namespace, &first.submission).await;
                    parts.push(Progress::Done(vec![outcome]));
                }
                Work::DeleteNamespace => {
                    let outcome = self.delete(namespace, &first.submission).await;
                    parts.push(Progress::Done(vec![outcome]));
                }
            }
        }
        Progress::together(parts)
    }

    async fn run_batch(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        batch: &[Job],
        loaded: Option<Loaded>,
    ) -> Progress {
        match self.try_batch(namespace, batch, loaded).await {
            Ok(progress) => progress,
            // One command too much for the backend, one that cannot be judged beside them, or one of which a key cannot be
            // read is no reason to refuse the others.
            Err(
                StoreError::Backend(BackendError::Full { .. } | BackendError::Corrupt(_))
                | StoreError::Contended { .. },
            ) if batch.len() > 1 => {
                let mut outcomes = Vec::with_capacity(batch.len());
                for job in batch.chunks(1) {
                    let progress = Box::pin(self.run_batch(namespace, job, None)).await;
                    outcomes.append(&mut progress.outcomes().await);
                }
                Progress::Done(outcomes)
            }
            Err(error) => Progress::Done(vec![Err(error); batch.len()]),
        }
    }

    async fn try_batch(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        batch: &[Job],
        loaded: Option<Loaded>,
    ) -> Result<Progress, StoreError> {
        let mut depth = QUEUE_DEPTH;
        let loaded = loaded.filter(|loaded| loaded.due_leases().is_empty());
        let mut loaded = match loaded {
            Some(loaded) => loaded,
            None => self.load_alive(namespace, batch, false, depth).await?,
        };
        let mut is_old = loaded.is_old;
        for attempt in 0..MAX_ATTEMPTS {
            if loaded.is_short {
                loaded = self.load_alive(namespace, batch, true, depth).await?;
            }
            let (run, commit) = loaded.run(self, namespace, batch, spared_ms(attempt));
            if run.needs_more {
                depth = depth.saturating_mul(QUEUE_DEPTH);
                loaded = self.load_alive(namespace, batch, true, depth).await?;
                continue;
            }
            // What changes nothing and was read in one step needs no commit.
            if commit.groups.is_empty() && loaded.ranges.is_empty() {
                // No commit would find out whether this still holds, or is kept.
                if mem::take(&mut is_old) || loaded.upon.is_some() {
                    loaded = self.load_alive(namespace, batch, true, depth).await?;
                    continue;
                }
                self.confirm(namespace, &run).await?;
                let Tip { revision, time_ms, .. } = loaded.tip;
                return Ok(Progress::Done(run.outcomes(&[], revision, time_ms)));
            }
            if commit.groups.is_empty() {
                self.confirm(namespace, &run).await?;
            }
            let removed = removed_answers(&run, &commit);
            let written = self.backend.is_remote().then(|| commit.groups.clone());
            let commit = self.backend.begin(&namespace.name, commit);
            match self.commit_and_read_ahead(namespace, commit).await? {
                Begun::UnderWay(committed) => {
                    // The next batch goes by it.
                    Self::note_kept(namespace, batch, &removed, &run.kept);
                    return Ok(run.committing(self.clone(), namespace.clone(), committed));
                }
                Begun::Ended(CommitOutcome::Committed(committed)) => {
                    if let Some(written) = written {
                        namespace.known.commit(written, &committed, self.clock.now_ms());
                    }
                    if !committed.stamps.is_empty() {
                        Self::note_kept(namespace, batch, &removed, &run.kept);
                    }
                    let outcomes = run.committed(self, namespace, &committed).await;
                    return Ok(Progress::Done(outcomes));
                }
                Begun::Ended(CommitOutcome::Moved(moved)) => {
                    if !loaded.follow(moved) {
                        loaded = self.load_alive(namespace, batch, true, depth).await?;
                    }
                }
            }
        }
        Err(StoreError::Contended { attempts: MAX_ATTEMPTS })
    }

    /// Has what was done before, and is answered once more by a batch that writes nothing, be as durable as is promised: it may
    /// not have been when it was answered first.
    async fn confirm(&self, namespace: &Namespace, run: &Run) -> Result<(), StoreError> {
        if run.tells_what_was_done() {
            self.backend.confirm(&namespace.name).await?;
        }
        Ok(())
    }

    /// Reads what a batch needs, once the leases that it has to do with and that are due have ended.
    async fn load_alive(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        batch: &[Job],
        fresh: bool,
        depth: usize,
    ) -> Result<Loaded, StoreError> {
        let mut loaded = self.load(namespace, batch, fresh, depth).await?;
        while !is_expiry(batch) {
            let due = loaded.due_leases();
            if due.is_empty() {
                break;
            }
            let expire = Job::from(Submission::command_only(Command::Expire(due)));
            Box::pin(self.try_batch(namespace, &[expire], None)).await?.end().await?;
            loaded = self.load(namespace, batch, true, depth).await?;
        }
        Ok(loaded)
    }

    /// Notes what a commit has left to expire and to forget.
    pub(super) fn note_commit(&self, namespace: &Namespace, committed: &Committed) {
        self.counters.commits.fetch_add(1, Ordering::Relaxed);
        if let Some(last) = committed.stamps.last() {
            namespace.committed.fetch_max(last.revision.0, Ordering::Relaxed);
        }
        if let Some(deadline_ms) = committed.next_deadline_ms {
            self.deadlines.note(namespace, deadline_ms);
        }
        let mut log = namespace.log.lock();
        // Of several on their way the first may be noted last.
        if log.position <= committed.tip.position {
            log.position = committed.tip.position;
            log.shape = committed.log;
        }
        log.commits += 1;
    }

    /// Reads what plain jobs need, of which a batch is to be made, while the commit before them is under way.
    async fn load_ahead(&self, namespace: &Namespace, jobs: &[Job]) -> Result<Loaded, StoreError> {
        let batch = &jobs[..count_together(jobs)];
        let loaded = self.load(namespace, batch, true, QUEUE_DEPTH).await?;
        Ok(Loaded { is_old: true, ..loaded })
    }

    async fn committed(
        &self,
        namespace: &Namespace,
        expired: u64,
        settings: &Settings,
        committed: &Committed,
    ) {
        self.counters.expired.fetch_add(expired, Ordering::Relaxed);
        self.note_commit(namespace, committed);
        if settings.is_log_over(committed.log, committed.tip.time_ms) {
            let limit = 2 * committed.stamps.len() + 64;
            let trimmed = self.trim(namespace, settings, committed.tip.time_ms, limit).await;
            if let Err(error) = trimmed {
                // It is tried again: a log that is too long for a while does no harm.
                tracing::warn!(namespace = namespace.name.as_str(), ?error, "trimming failed");
            }
        }
    }

    /// Where a namespace stands.
    pub(super) async fn tip(&self, name: &NamespaceName) -> Result<Tip, BackendError> {
        Ok(self.backend.read(name, &[], None).await?.tip)
    }
}

impl Job {
    /// Whether its keys are all that has to be read for it, and nothing else to be done before.
    fn is_plain(&self) -> bool {
        let command = self.submission.command();
        let is_plain = |command: &Command| {
            let mut keys = Vec::new();
            command.add_keys(&mut keys);
            !command.reads_ranges() && !command.goes_alone() && !keys.iter().any(Key::is_internal)
        };
        self.submission.guards.is_empty() && command.is_some_and(is_plain)
    }
}

impl Submission {
    /// A command without conditions beyond its own.
    pub fn command_only(command: Command) -> Self {
        let work = Work::Command(command);
        Self { expected_lineage: None, guards: Vec::new(), request: None, work }
    }

    fn command(&self) -> Option<&Command> {
        match &self.work {
            Work::Command(command) => Some(command),
            Work::Clear | Work::DeleteNamespace => None,
        }
    }

    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        let lineage = self.expected_lineage.as_ref().map_or(0, String::len);
        let guards: usize = self.guards.iter().map(|guard| guard.lock.as_bytes().len()).sum();
        lineage + guards + self.command().map_or(0, Command::bytes)
    }

    fn lineage_refusal<E>(&self, tip: &Tip) -> Option<Refusal<E>> {
        let expected = self.expected_lineage.as_ref()?;
        let lineage = tip.lineage;
        let now = lineage.map(|lineage| lineage.to_string()).unwrap_or_default();
        (now != *expected).then_some(Refusal::LineageChanged { lineage })
    }
}

/// The records of answers that a commit removes, or puts a mark in the place of.
fn removed_answers(run: &Run, commit: &Commit<'_>) -> Vec<RecordName> {
    let writes = commit.groups.writes.iter();
    let removed = writes.filter(|write| matches!(write.op, WriteOp::RemoveUnlogged));
    let names = removed.filter_map(|write| RecordName::parse(&write.key));
    run.done.iter().copied().chain(names).collect()
}

/// Whether the batch does nothing but remove what is due.
fn is_expiry(batch: &[Job]) -> bool {
    commands(batch).all(|(_, command)| matches!(command, Command::Expire(_)))
}

/// A batch is made of commands only.
fn commands(batch: &[Job]) -> impl Iterator<Item = (&Job, &Command)> {
    batch.iter().filter_map(|job| Some((job, job.submission.command()?)))
}

/// How soon an entry must fall due to be left out of a delete of many. Where some do all the time, one does while the
/// others are being looked at, and the whole would have to be judged anew for ever.
fn spared_ms(attempt: u32) -> Option<i64> {
    (attempt >= PATIENCE).then(|| i64::from(attempt * attempt / PATIENCE))
}

/// How many of the jobs at the front are committed as one. What expects that there is no namespace yet begins a new
/// commit, for the lineage is looked at once for each. So does a request that came before within the same, and what
/// frees a lock that somebody may have queued up for within the same: answers and queues are read before all of them.
fn count_together(jobs: &[Job]) -> usize {
    let has_requests = jobs.first().is_some_and(|job| job.submission.request.is_some());
    let room = if has_requests { jobs.len().min(MAX_COMMANDS) } else { 0 };
    let (mut bytes, mut queued_for, mut requests) =
        (0, HashSet::new(), HashSet::with_capacity(room));
    let joins = |(index, job): &(usize, &Job)| {
        let Some(command) = job.submission.command() else {
            return false;
        };
        bytes += command.bytes();
        let expects_none = job.submission.expected_lineage.as_deref() == Some("");
        let request = job.submission.request.as_ref();
        let is_new = request.is_none_or(|request| requests.insert((request.client, request.seq)));
        let frees_late = command.lock_freed().is_some_and(|lock| queued_for.contains(lock));
        queued_for.extend(command.lock_queued_for().cloned());
        bytes <= MAX_BYTES
            && is_new
            && !frees_late
            && !command.goes_alone()
            && !(expects_none && *index > 0)
    };
    jobs.iter().enumerate().take(MAX_COMMANDS).take_while(joins).count().max(1)
}
