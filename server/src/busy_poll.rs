//! Looking for work a moment longer before a thread sleeps.
//!
//! A processor without work sleeps, and takes 20 to 50 µs to wake up, which is longer than most calls take. So a thread
//! whose work came shortly after the last of late looks for more for a while, and lets others have its processor meanwhile. Where
//! that is in vain it sleeps at once again. Linux does the same on idle virtual machines, as `haltpoll`.

use std::{
    cell::RefCell,
    io,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};

/// How long threads look, in nanoseconds: not at all, unless the program says so.
static LONGEST_NS: AtomicU64 = AtomicU64::new(0);

/// A short wait counts one, up to the most; a long one takes one off. With enough it is worth it to look: not where no more
/// than every other wait is short, as what comes right after a call makes it, and still where some are long.
const ENOUGH: u32 = 3;
const MOST: u32 = 6;

/// How one thread waits for work.
#[derive(Debug)]
pub struct Patience {
    /// Short waits, less long ones.
    short: u32,
    since: Instant,
}

impl Patience {
    /// Of a thread that begins.
    pub fn new() -> Self {
        Self { short: 0, since: now() }
    }

    /// Begins to wait.
    fn begin(&mut self) {
        self.since = now();
    }

    /// Begins to wait: looks for work as long as that is worth it. Whether it was found.
    pub fn look(&mut self, is_there: impl FnMut() -> bool) -> bool {
        self.look_for(longest(), is_there)
    }

    fn look_for(&mut self, longest: Duration, mut is_there: impl FnMut() -> bool) -> bool {
        self.begin();
        if self.short < ENOUGH || longest.is_zero() {
            return false;
        }
        while !is_there() {
            if now().duration_since(self.since) >= longest {
                return false;
            }
            thread::yield_now();
        }
        true
    }

    /// The wait is over, whether or not it was slept.
    pub fn end(&mut self) {
        self.end_of(longest());
    }

    fn end_of(&mut self, longest: Duration) {
        let is_short = now().duration_since(self.since) < longest;
        self.short = if is_short { MOST.min(self.short + 1) } else { self.short.saturating_sub(1) };
    }
}

impl Default for Patience {
    fn default() -> Self {
        Self::new()
    }
}

fn longest() -> Duration {
    Duration::from_nanos(LONGEST_NS.load(Ordering::Relaxed))
}

#[expect(clippy::disallowed_methods, reason = "how long a thread looks is no time of the store's")]
fn now() -> Instant {
    Instant::now()
}

/// A runtime whose workers look for so long for what comes over [watched](watch) connections, and has the other threads of
/// the process look, too. Only the first of a process does.
///
/// # Errors
/// If there is no room for another thread.
pub fn runtime(longest: Duration) -> io::Result<Runtime> {
    let mut runtime = Builder::new_multi_thread();
    // With a single processor whoever is waited for could not work meanwhile.
    if !longest.is_zero() && thread::available_parallelism().map_or(1, usize::from) > 1 {
        LONGEST_NS.store(longest.as_nanos().try_into().unwrap_or(u64::MAX), Ordering::Relaxed);
        workers::attend(&mut runtime);
    }
    runtime.enable_all().build()
}

pub use workers::watch;

thread_local! {
    static PATIENCE: RefCell<Patience> = RefCell::new(Patience::new());
}

/// The workers of the runtime.
#[cfg(target_os = "linux")]
mod workers {
    use std::{
        os::fd::{AsFd, OwnedFd},
        sync::{
            OnceLock,
            atomic::{AtomicBool, AtomicUsize, Ordering},
        },
    };

    use rustix::event::{Timespec, epoll};
    use tokio::runtime::{Builder, Handle};

    use super::PATIENCE;

    static WORKERS: OnceLock<Workers> = OnceLock::new();

    struct Workers {
        connections: OwnedFd,
        has_connections: AtomicBool,
        /// How many of them have no work.
        waiting: AtomicUsize,
    }

    pub(super) fn attend(runtime: &mut Builder) {
        // Without it nobody looks, and all goes on as ever.
        let Ok(connections) = epoll::create(epoll::CreateFlags::CLOEXEC) else {
            return;
        };
        let (has_connections, waiting) = (AtomicBool::new(false), AtomicUsize::new(0));
        if WORKERS.set(Workers { connections, has_connections, waiting }).is_ok() {
            runtime.on_thread_park(|| _ = WORKERS.get().inspect(|it| it.begin_to_wait()));
            runtime.on_thread_unpark(|| _ = WORKERS.get().inspect(|it| it.end_wait()));
        }
    }

    /// Has workers look for what comes over a connection as long as it is open. There must be no other connections that
    /// calls wait for: those are not looked at.
    pub fn watch(connection: &impl AsFd) {
        if let Some(workers) = WORKERS.get() {
            let data = epoll::EventData::new_u64(0);
            let added = epoll::add(&workers.connections, connection, data, epoll::EventFlags::IN);
            workers.has_connections.fetch_or(added.is_ok(), Ordering::Relaxed);
        }
    }

    impl Workers {
        fn begin_to_wait(&self) {
            let waiting = self.waiting.fetch_add(1, Ordering::Relaxed) + 1;
            PATIENCE.with_borrow_mut(super::Patience::begin);
            if !self.has_connections.load(Ordering::Relaxed) {
                return;
            }
            let Ok(runtime) = Handle::try_current() else {
                return;
            };
            let runtime = runtime.metrics();
            // One looks for all, and only where all wait.
            let all = runtime.num_workers();
            if waiting < all {
                return;
            }
            PATIENCE.with_borrow_mut(|patience| {
                patience.look(|| {
                    self.has_come()
                        || runtime.global_queue_depth() > 0
                        || self.waiting.load(Ordering::Relaxed) < all
                })
            });
        }

        fn end_wait(&self) {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            PATIENCE.with_borrow_mut(super::Patience::end);
        }

        /// Whether anything has come over a connection.
        fn has_come(&self) -> bool {
            const AT_ONCE: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };
            let nothing = epoll::Event {
                flags: epoll::EventFlags::empty(),
                data: epoll::EventData::new_u64(0),
            };
            let found = epoll::wait(&self.connections, &mut [nothing][..], Some(&AT_ONCE));
            found.is_ok_and(|count| count > 0)
        }
    }
}

/// Elsewhere they sleep at once.
#[cfg(not(target_os = "linux"))]
mod workers {
    pub(super) fn attend(_: &mut tokio::runtime::Builder) {}

    pub fn watch<T>(_: &T) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Of a thread whose waits were short.
    fn patience() -> Patience {
        let mut patience = Patience::new();
        for _ in 0..ENOUGH {
            assert!(!patience.look_for(LONG, || panic!("it is not looked")));
            patience.end_of(LONG);
        }
        patience
    }

    #[test]
    fn who_waited_long_does_not_look_until_more_waits_are_short() {
        let mut patience = patience();
        let mut left = 3;
        assert!(patience.look_for(LONG, || {
            left -= 1;
            left == 0
        }));
        for _ in 0..10 {
            // As if it had been longer than it may be.
            patience.end_of(Duration::ZERO);
            assert!(!patience.look_for(LONG, || panic!("it is not looked")));
            patience.end_of(LONG);
        }
        for _ in 0..MOST {
            patience.end_of(LONG);
        }
        patience.end_of(Duration::ZERO);
        assert!(patience.look_for(LONG, || true));
    }

    #[test]
    fn nobody_looks_for_longer_than_is_allowed() {
        let mut patience = patience();
        assert!(!patience.look_for(Duration::ZERO, || panic!("it is not looked")));
        assert!(!patience.look_for(Duration::from_nanos(1), || false));
    }
}
