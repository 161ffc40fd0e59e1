//! Everything that goes on in the background of a connection, run as one task.
//!
//! A connection of `hyper` is several tasks that hand every message on to each other: one owns the socket, one feeds
//! it with what a stream sends, one takes what a stream brings. On a runtime with several threads each step may wake
//! another thread, which costs more than the step itself, and the tasks then wait for each other's locks. Here they are
//! futures within one task: what one of them wakes is polled next, and the runtime learns of nothing.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use hyper::rt::Executor;
use slab::Slab;
use tokio::task::coop;

/// How often members are polled before other tasks have their turn.
const MAX_ROUNDS: usize = 256;

type Member = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs futures within one task, which is there as long as any of them is.
#[derive(Clone, Debug, Default)]
pub struct OneTask(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared(Mutex<State>);

#[derive(Default)]
struct State {
    /// Futures that have come and are not members yet.
    arrived: Vec<Member>,
    /// The places of members that are to be polled.
    woken: Vec<usize>,
    /// What wakes the task, while it waits.
    task: Option<Waker>,
    has_task: bool,
}

/// The task.
struct Run {
    shared: Arc<Shared>,
    members: Slab<(Member, Waker, Arc<Place>)>,
    /// Memory for the next round.
    woken: Vec<usize>,
    is_over: bool,
}

/// Where a member stands. It is what wakes that.
struct Place {
    shared: Arc<Shared>,
    number: usize,
    is_woken: AtomicBool,
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for OneTask {
    fn execute(&self, future: F) {
        self.spawn(future);
    }
}

impl OneTask {
    /// Runs a future beside the others. To be called within a runtime.
    pub fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut state = self.0.state();
        state.arrived.push(Box::pin(future));
        let had_task = std::mem::replace(&mut state.has_task, true);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
        if !had_task {
            let shared = Arc::clone(&self.0);
            tokio::spawn(Run { shared, members: Slab::new(), woken: Vec::new(), is_over: false });
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // No method panics halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").field("has_task", &self.has_task).finish_non_exhaustive()
    }
}

impl Wake for Place {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_woken.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut state = self.shared.state();
        state.woken.push(self.number);
        let task = state.task.take();
        drop(state);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Future for Run {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let run = &mut *self;
        let mut rounds = 0;
        loop {
            let mut state = run.shared.state();
            if state.arrived.is_empty() && state.woken.is_empty() {
                if run.members.is_empty() {
                    state.has_task = false;
                    run.is_over = true;
                    return Poll::Ready(());
                }
                state.task = Some(context.waker().clone());
                return Poll::Pending;
            }
            // Other tasks are to have their turn, too.
            if rounds == MAX_ROUNDS || !coop::has_budget_remaining() {
                drop(state);
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
            rounds += 1;
            let arrived = std::mem::take(&mut state.arrived);
            std::mem::swap(&mut state.woken, &mut run.woken);
            drop(state);
            for member in arrived {
                let number = run.add(member);
                run.poll_member(number);
            }
            let mut woken = std::mem::take(&mut run.woken);
            for number in woken.drain(..) {
                run.poll_member(number);
            }
            run.woken = woken;
        }
    }
}

impl Run {
    fn add(&mut self, member: Member) -> usize {
        let entry = self.members.vacant_entry();
        let number = entry.key();
        let shared = Arc::clone(&self.shared);
        let place = Arc::new(Place { shared, number, is_woken: AtomicBool::new(true) });
        entry.insert((member, Arc::clone(&place).into(), place));
        number
    }

    /// Lets a member go on. One that panics is gone, and the others go on.
    fn poll_member(&mut self, number: usize) {
        // One that has ended may be woken late.
        let Some((member, waker, place)) = self.members.get_mut(number) else {
            return;
        };
        place.is_woken.store(false, Ordering::Release);
        let mut context = Context::from_waker(waker);
        let poll = AssertUnwindSafe(|| member.as_mut().poll(&mut context));
        if !matches!(catch_unwind(poll), Ok(Poll::Pending)) {
            drop(self.members.remove(number));
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        // The runtime has ended.
        let mut state = self.shared.state();
        state.has_task = false;
        let dropped = (std::mem::take(&mut state.arrived), state.task.take());
        drop(state);
        drop(dropped);
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, time::Duration};

    use tokio::{
        sync::{mpsc, oneshot},
        task::yield_now,
        time::timeout,
    };

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn members_wake_each_other_and_are_woken_from_outside() {
        let task = OneTask::default();
        let (to_member, mut from_test) = mpsc::channel::<u32>(1);
        let (to_other, mut from_member) = mpsc::channel::<u32>(1);
        let (to_test, mut from_other) = mpsc::channel::<u32>(1);
        task.spawn(async move {
            while let Some(number) = from_test.recv().await {
                to_other.send(number + 1).await.unwrap();
            }
        });
        task.spawn(async move {
            while let Some(number) = from_member.recv().await {
                yield_now().await;
                to_test.send(number + 1).await.unwrap();
            }
        });
        for number in 0..1000 {
            to_member.send(number).await.unwrap();
            assert_eq!(from_other.recv().await, Some(number + 2));
        }
        drop(to_member);
        assert_eq!(from_other.recv().await, None);
        // With the last of them the task ends, and with the next another begins.
        while task.0.state().has_task {
            yield_now().await;
        }
        let (done, told) = oneshot::channel();
        task.spawn(async move { done.send(()).unwrap() });
        told.await.unwrap();
    }

    #[tokio::test]
    async fn one_that_panics_or_never_rests_does_not_stop_the_others() {
        let task = OneTask::default();
        task.spawn(async { panic!("on purpose") });
        task.spawn(async {
            loop {
                coop::consume_budget().await;
            }
        });
        task.spawn(std::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::Pending
        }));
        let (done, told) = oneshot::channel();
        task.spawn(async move { done.send(()).unwrap() });
        timeout(Duration::from_secs(60), told).await.expect("it goes on").unwrap();
    }

    #[test]
    fn with_the_runtime_all_are_dropped() {
        struct Told(std::sync::mpsc::Sender<()>);
        impl Drop for Told {
            fn drop(&mut self) {
                self.0.send(()).unwrap();
            }
        }
        let task = OneTask::default();
        let (send, receive) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let told = Told(send);
            task.spawn(async move {
                let _told = told;
                pending::<()>().await;
            });
            yield_now().await;
        });
        drop(runtime);
        receive.try_recv().expect("it was dropped");
        assert!(!task.0.state().has_task);
    }
}
