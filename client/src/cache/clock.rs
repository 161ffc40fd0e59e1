//! The clock of the store, as far as it can be known without asking.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

/// Later than any deadline, and far enough from the end of the range to be added to.
pub(super) const UNKNOWN: i64 = i64::MAX / 4;

/// An upper bound of the store's clock by this machine's own, in microseconds since the Unix epoch.
///
/// A store that answers with a time has read its clock after the question was sent, so that clock has at most shown
/// this time then. From there on it is reckoned to run faster than ours by one part in 1,024, which is more than clocks
/// differ. So the bound is early by the round trip of the best answer and a millisecond a second since, and never late,
/// except that a store whose clock is set forward is noticed only by the next time that it tells.
#[derive(Debug)]
pub(super) struct StoreClock {
    epoch: Instant,
    /// What to add to [`hastened`](Self::hastened) time.
    offset: AtomicI64,
    /// When the store's clock was last found to have been set forward: what was asked before is void.
    set_forward: Mutex<Option<Instant>>,
}

impl StoreClock {
    pub(super) fn new() -> Self {
        let epoch = Instant::now();
        Self { epoch, offset: AtomicI64::new(UNKNOWN), set_forward: Mutex::new(None) }
    }

    /// The latest that the store's clock can be at this moment; later than any deadline while nothing is known.
    pub(super) fn latest(&self, at: Instant) -> i64 {
        self.hastened(at) + self.offset.load(Ordering::Relaxed)
    }

    /// Takes the time of an answer to a question that was sent then, and answered until `received`.
    pub(super) fn answered(&self, sent: Instant, received: Instant, time_ms: i64) {
        self.told(received, time_ms);
        let set_forward = self.set_forward.lock().unwrap_or_else(PoisonError::into_inner);
        if set_forward.is_none_or(|noticed| noticed <= sent || noticed == received) {
            // The clock is told in whole milliseconds, rounded down.
            let offset = micros(time_ms + 1) - self.hastened(sent);
            // Both bounds hold, so the nearer counts.
            self.offset.fetch_min(offset, Ordering::Relaxed);
        }
    }

    /// Takes a time that the store's clock has shown before `received`. Whether it was set forward: then nothing is
    /// known of it before it is asked again.
    pub(super) fn told(&self, received: Instant, time_ms: i64) -> bool {
        let was_set_forward = micros(time_ms) > self.latest(received);
        if was_set_forward {
            let mut set_forward = self.set_forward.lock().unwrap_or_else(PoisonError::into_inner);
            *set_forward = Some(received);
            self.offset.store(UNKNOWN, Ordering::Relaxed);
        }
        was_set_forward
    }

    /// Our own time since the epoch in microseconds, a little faster than it goes.
    fn hastened(&self, at: Instant) -> i64 {
        let passed = at.saturating_duration_since(self.epoch);
        let passed = i64::try_from(passed.as_micros()).unwrap_or(UNKNOWN);
        passed + (passed >> 10)
    }
}

/// A time or deadline of the store in microseconds.
pub(super) fn micros(millis: i64) -> i64 {
    millis.saturating_mul(1_000).min(UNKNOWN)
}

/// A bound on ages in microseconds.
pub(super) fn span(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).map_or(UNKNOWN, |span| span.min(UNKNOWN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_700_000_000_000;

    fn after(clock: &StoreClock, millis: u64) -> Instant {
        clock.epoch + Duration::from_millis(millis)
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        let clock = StoreClock::new();
        assert!(clock.latest(after(&clock, 0)) > micros(NOON));
    }

    #[test]
    fn the_bound_counts_from_when_the_question_was_sent() {
        let clock = StoreClock::new();
        clock.answered(after(&clock, 0), after(&clock, 80), NOON + 50);
        assert_eq!(clock.latest(after(&clock, 0)), micros(NOON + 51));
        let later = clock.latest(after(&clock, 1_024));
        assert_eq!(later, micros(NOON + 51 + 1_025));
    }

    #[test]
    fn the_nearest_bound_counts() {
        let clock = StoreClock::new();
        clock.answered(after(&clock, 0), after(&clock, 100), NOON + 50);
        clock.answered(after(&clock, 200), after(&clock, 202), NOON + 201);
        let near = clock.latest(after(&clock, 200));
        assert_eq!(near, micros(NOON + 202));
        clock.answered(after(&clock, 300), after(&clock, 500), NOON + 450);
        assert!(clock.latest(after(&clock, 200)) <= near);
    }

    #[test]
    fn a_clock_set_forward_is_followed_and_what_was_asked_before_is_void() {
        let clock = StoreClock::new();
        clock.answered(after(&clock, 0), after(&clock, 0), NOON);
        assert!(!clock.told(after(&clock, 10), NOON + 5));
        assert!(clock.latest(after(&clock, 10)) < micros(NOON + 12));
        assert!(clock.told(after(&clock, 20), NOON + 60_000));
        assert!(clock.latest(after(&clock, 20)) >= UNKNOWN);
        clock.answered(after(&clock, 15), after(&clock, 25), NOON + 16);
        assert!(clock.latest(after(&clock, 20)) >= UNKNOWN);
        clock.answered(after(&clock, 30), after(&clock, 32), NOON + 60_011);
        assert_eq!(clock.latest(after(&clock, 30)), micros(NOON + 60_012));
        // Set forward again, and found out by a question.
        clock.answered(after(&clock, 40), after(&clock, 41), NOON + 90_000);
        assert_eq!(clock.latest(after(&clock, 40)), micros(NOON + 90_001));
    }
}
