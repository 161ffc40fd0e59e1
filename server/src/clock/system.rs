//! The clock of the machine.

use std::{
    fs,
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use tokio::sync::Notify;

use super::Clock;

/// The machine's clock, which is set forward with it but never back: it then goes on from where it was, so that
/// deadlines still come.
///
/// Its time is what has passed since the machine's start, added to when that was by the wall clock: the latest that this
/// ever said, up to a limit.
#[derive(Debug, Default)]
pub struct SystemClock {
    boot_time: BootTime,
}

/// When the machine was started, by a wall clock that may be set at any time. In nanoseconds since the Unix epoch.
#[derive(Debug)]
pub struct BootTime {
    /// The latest that was seen.
    latest_ns: AtomicI64,
    /// The latest that the clock goes by.
    limit_ns: AtomicI64,
    exceeded: Notify,
}

impl Default for BootTime {
    fn default() -> Self {
        Self {
            latest_ns: AtomicI64::new(i64::MIN),
            limit_ns: AtomicI64::new(i64::MAX),
            exceeded: Notify::new(),
        }
    }
}

impl BootTime {
    /// The latest that was seen, by the wall clock as it stands or before.
    pub fn latest_ns(&self) -> i64 {
        self.see().1
    }

    /// It was that late in the eyes of a former process.
    pub fn resume_from(&self, boot_ns: i64) {
        self.latest_ns.fetch_max(boot_ns, Ordering::Relaxed);
    }

    /// The clock goes by none that is later, until told otherwise.
    pub fn limit_to(&self, boot_ns: i64) {
        self.limit_ns.store(boot_ns, Ordering::Relaxed);
    }

    /// Waits until one later than the limit was seen, which is seen when the clock is asked; answers it.
    pub async fn exceeded(&self) -> i64 {
        loop {
            let latest_ns = self.latest_ns.load(Ordering::Relaxed);
            if latest_ns > self.limit_ns.load(Ordering::Relaxed) {
                return latest_ns;
            }
            self.exceeded.notified().await;
        }
    }

    /// Looks at the wall clock; what has passed since the machine's start, and the latest that this was seen to be.
    fn see(&self) -> (i64, i64) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        // A machine set before 1970 is taken to stand at 1970.
        let wall_ns = since_epoch.map_or(0, |elapsed| elapsed.as_nanos() as i64);
        // Asked after the wall clock: a pause in between must not make the start seem later.
        let running_ns = since_boot_ns();
        let boot_ns = wall_ns - running_ns;
        (running_ns, self.latest_ns.fetch_max(boot_ns, Ordering::Relaxed).max(boot_ns))
    }

    fn now_ns(&self) -> i64 {
        let (running_ns, latest_ns) = self.see();
        let limit_ns = self.limit_ns.load(Ordering::Relaxed);
        if latest_ns > limit_ns {
            self.exceeded.notify_one();
        }
        running_ns.saturating_add(latest_ns.min(limit_ns))
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        self.boot_time.now_ns() / 1_000_000
    }

    async fn sleep(&self, duration: Duration) {
        #[expect(clippy::disallowed_methods, reason = "this is the one place that sleeps")]
        tokio::time::sleep(duration).await;
    }

    fn boot_time(&self) -> Option<&BootTime> {
        Some(&self.boot_time)
    }
}

/// What has passed since the machine's start, but for when it was suspended.
#[cfg(unix)]
fn since_boot_ns() -> i64 {
    let rustix::time::Timespec { tv_sec, tv_nsec } =
        rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    tv_sec * 1_000_000_000 + tv_nsec
}

/// What has passed since the process first asked, which serves as well where [`boot_id`] is not known.
#[cfg(not(unix))]
fn since_boot_ns() -> i64 {
    use std::{sync::LazyLock, time::Instant};
    #[expect(clippy::disallowed_methods, reason = "this is the one place that asks")]
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed().as_nanos() as i64
}

/// Tells one start of the machine from another, and those apart to whom it seems to have been at another time; none where
/// the system has no such id.
pub fn boot_id() -> Option<String> {
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    // Processes in another time namespace count from another moment (time_namespaces(7)).
    let counts_in = fs::read_link("/proc/self/ns/time").unwrap_or_default();
    Some(format!("{} {}", boot.trim(), counts_in.display()))
}
