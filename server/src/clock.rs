//! Now and sleep, as values that are passed in.

mod system;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use tokio::sync::watch;

pub use self::system::{BootTime, SystemClock, boot_id};

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

    /// What has to be kept of it so that a clock of the next process is not behind; none where a restart does not set
    /// it back.
    fn boot_time(&self) -> Option<&BootTime> {
        None
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
