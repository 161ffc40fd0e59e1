//! The servers of the same state, and which of them is used.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::retry::Backoff;

/// For how long a server that has failed is avoided at first, and at the most. Each time is shortened by
/// chance to no less than half of it.
const SHORTEST_AVOIDED: Duration = Duration::from_millis(500);
const LONGEST_AVOIDED: Duration = Duration::from_secs(30);

/// Which server an attempt used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint(pub(super) usize);

/// Which of several servers is used: one at a time, as long as it is good.
#[derive(Debug)]
pub(super) struct Servers {
    current: AtomicUsize,
    health: Mutex<Vec<Health>>,
    /// Those that have failed since they last answered.
    troubled: Vec<AtomicBool>,
}

#[derive(Debug)]
struct Health {
    backoff: Backoff,
    /// Not before then, if there is another.
    avoid_until: Option<Instant>,
}

impl Servers {
    /// `count` is at least 1.
    pub(super) fn new(count: usize) -> Self {
        let health = (0..count).map(|_| Health::good()).collect();
        Self {
            current: AtomicUsize::new(0),
            health: Mutex::new(health),
            troubled: (0..count).map(|_| AtomicBool::new(false)).collect(),
        }
    }

    /// The one that the next request will take.
    pub(super) fn current(&self) -> Endpoint {
        Endpoint(self.current.load(Ordering::Relaxed))
    }

    /// One that fails its users is left for the next that is not avoided, or else for the one that was to be
    /// avoided for the shortest time.
    pub(super) fn avoid(&self, failed: Endpoint, now: Instant) {
        let mut health = self.health();
        // If it is no longer the current one, somebody else has moved on already.
        if health.len() == 1 || self.current() != failed {
            return;
        }
        let count = health.len();
        let own = &mut health[failed.0];
        own.avoid_until = Some(now + own.backoff.wait(None));
        let others = (1..count).map(|step| (failed.0 + step) % count);
        let next =
            others.min_by_key(|&index| health[index].avoid_until.filter(|&until| until > now));
        self.current.store(next.unwrap_or(failed.0), Ordering::Relaxed);
        self.troubled[failed.0].store(true, Ordering::Relaxed);
    }

    /// One has answered, and is as good as new.
    pub(super) fn answered(&self, endpoint: Endpoint) {
        let troubled = &self.troubled[endpoint.0];
        if troubled.load(Ordering::Relaxed) && troubled.swap(false, Ordering::Relaxed) {
            self.health()[endpoint.0] = Health::good();
        }
    }

    fn health(&self) -> MutexGuard<'_, Vec<Health>> {
        // No method panics halfway through a change.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Health {
    fn good() -> Self {
        Self { backoff: Backoff::new(SHORTEST_AVOIDED, LONGEST_AVOIDED), avoid_until: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_good_server_is_kept_and_one_that_failed_is_avoided() {
        let servers = Servers::new(3);
        let now = Instant::now();
        assert_eq!(servers.current(), Endpoint(0));
        servers.avoid(Endpoint(0), now);
        assert_eq!(servers.current(), Endpoint(1));
        // Many calls fail together: they count once.
        servers.avoid(Endpoint(0), now);
        assert_eq!(servers.current(), Endpoint(1));
        servers.avoid(Endpoint(1), now);
        assert_eq!(servers.current(), Endpoint(2));
        // The first is good again by now.
        servers.avoid(Endpoint(2), now + SHORTEST_AVOIDED);
        assert_eq!(servers.current(), Endpoint(0));
    }

    #[test]
    fn if_all_fail_the_one_that_failed_least_comes_next() {
        let servers = Servers::new(2);
        let now = Instant::now();
        for failed in [0, 1, 0, 1] {
            servers.avoid(Endpoint(failed), now);
        }
        assert_eq!(servers.current(), Endpoint(0));
        servers.answered(Endpoint(0));
        servers.avoid(Endpoint(0), now);
        assert_eq!(servers.current(), Endpoint(1));
    }

    #[test]
    fn the_only_server_is_always_used() {
        let servers = Servers::new(1);
        servers.avoid(Endpoint(0), Instant::now());
        assert_eq!(servers.current(), Endpoint(0));
    }
}
