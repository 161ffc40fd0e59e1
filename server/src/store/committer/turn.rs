//! Whose turn it is to commit to a namespace.
//!
//! Invariant: at most one [`Turn`] of a namespace is held. Whoever lets go of it looks once more for work that
//! came meanwhile, so none is left waiting; also when a panic took the turn's holder.

use std::{
    collections::VecDeque,
    pin::pin,
    sync::{Arc, atomic::Ordering},
};

use futures::FutureExt as _;
use tokio::{runtime::Handle, sync::oneshot, task::JoinHandle};

use super::{Job, MAX_WAITING, MAX_WAITING_BYTES, Outcome, batch::Loaded, progress::Progress};
use crate::{
    backend::{BackendError, Begun},
    store::{Store, error::StoreError, namespace::Namespace},
};

/// Work waiting for its turn.
#[derive(Default)]
pub(in crate::store) struct Queue {
    /// Whether somebody has the turn.
    taken: bool,
    /// Comes before what is waiting.
    ahead: Option<Ahead>,
    waiting: VecDeque<Waiting>,
    /// How many jobs are waiting, and about how many bytes they hold.
    jobs: usize,
    bytes: usize,
}

struct Waiting {
    jobs: Vec<Job>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

/// Work that is being read for while the commit before it is under way.
struct Ahead {
    loading: JoinHandle<(Vec<Job>, Result<Loaded, StoreError>)>,
    answers: Vec<Answers>,
}

/// How many outcomes go where.
type Answers = (usize, oneshot::Sender<Vec<Outcome>>);

/// What becomes of work that is handed in.
pub(super) enum Entered {
    /// It is our turn: do it.
    OurTurn(Turn, Vec<Job>),
    /// It waits; this is where the outcomes will come.
    Waiting(oneshot::Receiver<Vec<Outcome>>),
    /// Too much is waiting already.
    Full,
}

/// The right to commit to a namespace.
pub(super) struct Turn {
    store: Arc<Store>,
    namespace: Arc<Namespace>,
}

impl Turn {
    /// Takes the turn with some work, or puts the work in the queue, which is bounded.
    pub fn enter(store: &Arc<Store>, namespace: &Arc<Namespace>, jobs: Vec<Job>) -> Entered {
        let mut queue = namespace.queue.lock();
        if !queue.taken {
            queue.taken = true;
            let turn = Self { store: store.clone(), namespace: namespace.clone() };
            return Entered::OurTurn(turn, jobs);
        }
        let bytes: usize = jobs.iter().map(|job| job.submission.bytes()).sum();
        if queue.jobs + jobs.len() > MAX_WAITING || queue.bytes + bytes > MAX_WAITING_BYTES {
            return Entered::Full;
        }
        let (answer, receiver) = oneshot::channel();
        queue.jobs += jobs.len();
        queue.bytes += bytes;
        queue.waiting.push_back(Waiting { jobs, answer });
        Entered::Waiting(receiver)
    }

    /// Works on the caller's task as far as nothing has to be waited for, which in memory is to the end;
    /// otherwise on a task of its own, so that a caller that goes away leaves nothing half done.
    pub fn work(self, jobs: Vec<Job>) -> Result<Vec<Outcome>, oneshot::Receiver<Vec<Outcome>>> {
        let count = jobs.len();
        let mut work = Box::pin(async move {
            let progress = self.store.work(&self.namespace, jobs, None).await;
            (progress, self)
        });
        let begun = match work.as_mut().now_or_never() {
            Some((Progress::Done(outcomes), turn)) => {
                drop(turn);
                return Ok(outcomes);
            }
            begun => begun,
        };
        let (answer, receiver) = oneshot::channel();
        let answers = vec![(count, answer)];
        match begun {
            Some((progress, turn)) => {
                drop(turn);
                deliver(progress, answers);
            }
            None => {
                tokio::spawn(async move {
                    let (progress, turn) = work.await;
                    deliver(progress, answers);
                    turn.serve(None, VecDeque::new()).await;
                });
            }
        }
        Err(receiver)
    }

    /// Serves what was read for ahead, then these, then who is waiting, until nobody is.
    async fn serve(self, mut ahead: Option<Ahead>, mut waiting: VecDeque<Waiting>) {
        loop {
            let next = ahead.take().or_else(|| self.namespace.queue.lock().ahead.take());
            let (jobs, loaded, answers) = if let Some(Ahead { loading, answers }) = next {
                // Whoever is not answered, because that panicked, is told so.
                let Ok((jobs, loaded)) = loading.await else { continue };
                (jobs, loaded.ok().filter(|it| self.is_after_commits(it)), answers)
            } else {
                if waiting.is_empty() {
                    waiting = self.namespace.queue.lock().take();
                }
                if waiting.is_empty() {
                    return;
                }
                let (jobs, answers) = together(waiting.drain(..));
                (jobs, None, answers)
            };
            deliver(self.store.work(&self.namespace, jobs, loaded).await, answers);
            tokio::task::yield_now().await;
        }
    }

    /// Whether what was read ahead has in it what was committed meanwhile.
    fn is_after_commits(&self, loaded: &Loaded) -> bool {
        loaded.tip.revision.0 >= self.namespace.committed.load(Ordering::Relaxed)
    }
}

impl Store {
    /// Waits for a commit; where that takes a while, and what is known does not suffice of late, begins to read for what is
    /// waiting meanwhile, so that it need not be waited for after it. It is sent after the commit, and mostly done after
    /// it. Where not, and where the commit is tried again, it is read once more, or found out by the commit that relies on
    /// it.
    pub(super) async fn commit_and_read_ahead(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        commit: impl Future<Output = Result<Begun, BackendError>>,
    ) -> Result<Begun, BackendError> {
        let mut commit = pin!(commit);
        if let Some(outcome) = commit.as_mut().now_or_never() {
            return outcome;
        }
        if self.backend.is_remote() && !namespace.known.suffices() {
            self.read_ahead(namespace);
        }
        commit.await
    }

    fn read_ahead(self: &Arc<Self>, namespace: &Arc<Namespace>) {
        let mut queue = namespace.queue.lock();
        let fits = queue.waiting.iter().all(|waiting| waiting.jobs.iter().all(Job::is_plain));
        if !fits || queue.ahead.is_some() || queue.jobs == 0 {
            return;
        }
        let (jobs, answers) = together(queue.take().into_iter());
        let (store, namespace) = (self.clone(), namespace.clone());
        let loading = tokio::spawn(async move {
            let loaded = store.load_ahead(&namespace, &jobs).await;
            (jobs, loaded)
        });
        queue.ahead = Some(Ahead { loading, answers });
    }
}

/// Hands outcomes to who waits for them, once they are known.
fn deliver(progress: Progress, answers: Vec<Answers>) {
    let hand_over = |outcomes: Vec<Outcome>| {
        let mut outcomes = outcomes.into_iter();
        for (count, answer) in answers {
            // Nobody may be waiting any more.
            let _ = answer.send(outcomes.by_ref().take(count).collect());
        }
    };
    match progress {
        Progress::Done(outcomes) => hand_over(outcomes),
        committing => {
            tokio::spawn(async move { hand_over(committing.outcomes().await) });
        }
    }
}

fn together(waiting: impl Iterator<Item = Waiting>) -> (Vec<Job>, Vec<Answers>) {
    let (mut jobs, mut answers) = (Vec::new(), Vec::new());
    for Waiting { jobs: more, answer } in waiting {
        answers.push((more.len(), answer));
        jobs.extend(more);
    }
    (jobs, answers)
}

impl Queue {
    /// All that is waiting.
    fn take(&mut self) -> VecDeque<Waiting> {
        (self.jobs, self.bytes) = (0, 0);
        std::mem::take(&mut self.waiting)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (ahead, waiting) = {
            let mut queue = self.namespace.queue.lock();
            let ahead = queue.ahead.take();
            queue.taken = ahead.is_some() || !queue.waiting.is_empty();
            (ahead, queue.take())
        };
        if ahead.is_none() && waiting.is_empty() {
            return;
        }
        // A runtime that is shutting down drops what it is handed at once, and this turn with it: so the lock is not
        // held, and what was waiting goes along, rather than be found by that turn, and by the one after it, for ever.
        let turn = Self { store: self.store.clone(), namespace: self.namespace.clone() };
        let serving = turn.serve(ahead, waiting);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(serving);
        }
    }
}
