//! Now and sleep, as values that are passed in.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::watch;

/// A clock that an embedded backend takes its time from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;

    /// Resolves once `duration` has passed.
    async fn sleep(&self, duration: Duration);

    /// Resolves once `now_ms` is at least `at_ms`, also where it was moved there just before.
    async fn sleep_until(&self, at_ms: i64) {
        let left_ms = at_ms.saturating_sub(self.now_ms()).max(0);
        self.sleep(Duration::from_millis(left_ms as u64)).await;
    }
}

/// The machine's clock, which is set forward with it but never back: it then goes on from where it was, so that
/// deadlines still come.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
    /// What the wall clock was ahead of the time since `start`, at the most, in nanoseconds.
    ahead_ns: AtomicI64,
}

impl Default for SystemClock {
    fn default() -> Self {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
        let start = Instant::now();
        Self { start, ahead_ns: AtomicI64::new(0) }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        // A machine set before 1970 is taken to stand at 1970.
        let wall_ns = since_epoch.map_or(0, |elapsed| elapsed.as_nanos() as i64);
        // Asked after the wall clock: a pause in between must not make that seem further ahead.
        let running_ns = self.start.elapsed().as_nanos() as i64;
        let ahead_ns = wall_ns - running_ns;
        let most_ns = self.ahead_ns.fetch_max(ahead_ns, Ordering::Relaxed).max(ahead_ns);
        (running_ns + most_ns) / 1_000_000
    }

    async fn sleep(&self, duration: Duration) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps")]
        tokio::time::sleep(duration).await;
    }
}

/// A clock that moves only when told to, for tests.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: watch::Sender<i64>,
}

impl ManualClock {
    /// A clock that stands at `start_ms` milliseconds since the Unix epoch.
    pub fn new(start_ms: i64) -> Arc<Self> {
        let (now_ms, _) = watch::channel(start_ms);
        Arc::new(Self { now_ms })
    }

    /// Moves the clock on and wakes who sleeps until then.
    pub fn advance(&self, duration: Duration) {
        self.now_ms.send_modify(|now| *now += duration.as_millis() as i64);
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now_ms(&self) -> i64 {
        *self.now_ms.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        self.sleep_until(self.now_ms() + duration.as_millis() as i64).await;
    }

    async fn sleep_until(&self, at_ms: i64) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.now_ms.subscribe().wait_for(|now_ms| *now_ms >= at_ms).await;
    }
}
