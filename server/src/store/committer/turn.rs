//! Whose turn it is to commit to a namespace.
//!
//! Invariant: at most one [`Turn`] of a namespace is held. Whoever lets go of it looks once more for work that
//! came meanwhile, so none is left waiting; also when a panic took the turn's holder.

use std::{collections::VecDeque, sync::Arc};

use futures::FutureExt as _;
use tokio::{runtime::Handle, sync::oneshot};

use super::{Job, MAX_WAITING, MAX_WAITING_BYTES, Outcome};
use crate::store::{Store, command::Command, namespace::Namespace};

/// Work waiting for its turn.
#[derive(Default)]
pub(in crate::store) struct Queue {
    /// Whether somebody has the turn.
    taken: bool,
    waiting: VecDeque<Waiting>,
    /// How many jobs are waiting, and about how many bytes they hold.
    jobs: usize,
    bytes: usize,
}

struct Waiting {
    jobs: Vec<Job>,
    answer: oneshot::Sender<Vec<Outcome>>,
}

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
        let bytes: usize =
            jobs.iter().filter_map(|job| job.submission.command()).map(Command::bytes).sum();
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
        let mut work = Box::pin(async move {
            let outcomes = self.store.work(&self.namespace, jobs).await;
            (outcomes, self)
        });
        if let Some((outcomes, turn)) = work.as_mut().now_or_never() {
            drop(turn);
            return Ok(outcomes);
        }
        let (answer, receiver) = oneshot::channel();
        tokio::spawn(async move {
            let (outcomes, turn) = work.await;
            // Nobody may be waiting any more.
            let _ = answer.send(outcomes);
            turn.serve(VecDeque::new()).await;
        });
        Err(receiver)
    }

    /// Serves these, then who is waiting, until nobody is.
    async fn serve(self, mut waiting: VecDeque<Waiting>) {
        loop {
            if waiting.is_empty() {
                waiting = self.namespace.queue.lock().take();
            }
            if waiting.is_empty() {
                return;
            }
            let (mut jobs, mut answers) = (Vec::new(), Vec::new());
            for Waiting { jobs: more, answer } in waiting.drain(..) {
                answers.push((more.len(), answer));
                jobs.extend(more);
            }
            let mut outcomes = self.store.work(&self.namespace, jobs).await.into_iter();
            for (count, answer) in answers {
                // Nobody may be waiting any more.
                let _ = answer.send(outcomes.by_ref().take(count).collect());
            }
            tokio::task::yield_now().await;
        }
    }
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
        let waiting = {
            let mut queue = self.namespace.queue.lock();
            queue.taken = !queue.waiting.is_empty();
            queue.take()
        };
        if waiting.is_empty() {
            return;
        }
        // A runtime that is shutting down drops what it is handed at once, and this turn with it: so the lock is not
        // held, and what was waiting goes along, rather than be found by that turn, and by the one after it, for ever.
        let turn = Self { store: self.store.clone(), namespace: self.namespace.clone() };
        let serving = turn.serve(waiting);
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(serving);
        }
    }
}
