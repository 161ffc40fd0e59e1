//! Callers that go on until they are stopped, at their own pace or at a given one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{operation::Caller, tally::Tally};

/// The longest that the thread which opens the gate sleeps, so that it ends soon after the load.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// When operations begin, and when no more do.
pub struct Pace {
    start: Instant,
    /// Operations a second; none where each caller begins the next when the last has ended.
    rate: Option<f64>,
    limit: u64,
    begun: AtomicU64,
    stopped: AtomicBool,
    /// Has a permit for each operation that is due; open where there is no rate.
    gate: Semaphore,
}

impl Pace {
    /// A pace for so many callers, that ends after so many operations.
    pub fn start(rate: Option<f64>, limit: Option<u64>, callers: u32) -> Arc<Self> {
        let pace = Arc::new(Self {
            start: Instant::now(),
            rate,
            limit: limit.unwrap_or(u64::MAX),
            begun: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            gate: Semaphore::new(0),
        });
        if let Some(rate) = rate {
            let pace = pace.clone();
            // The timer of the runtime has whole milliseconds, which would be the larger part of a latency.
            thread::spawn(move || pace.open_gate(rate, callers as usize));
        }
        pace
    }

    /// When the load began.
    pub fn began(&self) -> Instant {
        self.start
    }

    /// Lets nothing more begin.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
        self.gate.close();
    }

    /// Waits until the next operation is due; answers when that was. At a given rate this may be long ago, if all
    /// callers were busy: to count the latency from when a call *could* be made would leave out just what a
    /// server that stands still does to everybody who comes meanwhile (“coordinated omission”; Gil Tene, “How NOT
    /// to Measure Latency”, and his wrk2).
    pub async fn due(&self) -> Option<Instant> {
        if let Some(rate) = self.rate {
            self.gate.acquire().await.ok()?.forget();
            let number = self.next()?;
            return Some(self.start + Duration::from_secs_f64(number as f64 / rate));
        }
        self.next().map(|_| Instant::now())
    }

    fn next(&self) -> Option<u64> {
        if self.stopped.load(Ordering::Relaxed) {
            return None;
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        (number < self.limit).then_some(number)
    }

    fn open_gate(&self, rate: f64, callers: usize) {
        let mut released = 0;
        while released < self.limit && !self.gate.is_closed() {
            let due = (self.start.elapsed().as_secs_f64() * rate) as u64 + 1;
            let due = due.min(self.limit).max(released);
            self.gate
                .add_permits(usize::try_from(due - released).unwrap_or(Semaphore::MAX_PERMITS));
            released = due;
            let next = Duration::from_secs_f64(released as f64 / rate);
            thread::sleep(next.saturating_sub(self.start.elapsed()).min(LONGEST_NAP));
        }
        // Each caller is to find out that there is nothing more to do.
        self.gate.add_permits(callers);
    }
}

/// Makes one call after the other until the pace ends.
pub async fn call_until_stopped(
    mut caller: Caller,
    shard: usize,
    pace: Arc<Pace>,
    tally: Arc<Tally>,
) {
    while let Some(due) = pace.due().await {
        let kind = caller.pick();
        let done = caller.run(kind, due).await;
        tally.record(shard, kind, due.elapsed(), done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_begin_than_were_asked_for() {
        for rate in [None, Some(10_000.0)] {
            let pace = Pace::start(rate, Some(5), 2);
            for _ in 0..5 {
                assert!(pace.due().await.is_some());
            }
            assert!(pace.due().await.is_none());
            assert!(pace.due().await.is_none());
        }
    }

    #[tokio::test]
    async fn operations_are_due_at_even_times_even_if_they_begin_late() {
        let pace = Pace::start(Some(1_000.0), Some(3), 1);
        for number in 0..3 {
            let due = pace.due().await.expect("it is within the limit");
            assert_eq!(due, pace.began() + Duration::from_millis(number));
            assert!(due <= Instant::now());
        }
    }

    #[tokio::test]
    async fn a_caller_that_waits_is_told_of_the_end() {
        let pace = Pace::start(Some(0.001), None, 1);
        assert!(pace.due().await.is_some());
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.due().await }
        });
        pace.stop();
        assert!(waiting.await.expect("it does not fail").is_none());
    }
}
