//! When to try again, and how long to wait before.

use std::time::Duration;

use rand::Rng as _;
use tokio::time::Instant;

use crate::{
    Error,
    error::{Cause, Failure},
};

/// The longest that a server can make a client wait.
const LONGEST_ASKED: Duration = Duration::from_secs(30);

/// Waits that double up to a bound, each shortened by chance to no less than half of itself, so that many
/// clients that failed together do not come back together.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// For calls, which have a deadline.
    pub(crate) fn for_calls() -> Self {
        Self::new(Duration::from_millis(25), Duration::from_secs(1))
    }

    /// For watches, which go on for ever.
    pub(crate) fn for_watches() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_secs(5))
    }

    /// The next wait, at least what the server asks for, up to half a minute.
    pub(crate) fn wait(&mut self, at_least: Option<Duration>) -> Duration {
        let full = self.next;
        self.next = (full * 2).min(self.longest);
        let jittered = full.mul_f64(rand::rng().random_range(0.5..=1.0));
        jittered.max(at_least.unwrap_or_default().min(LONGEST_ASKED))
    }
}

/// How long an answer is surely kept for a write that is sent again: a little less than the ten minutes of
/// the server.
const RECORDS_LAST: Duration = Duration::from_secs(9 * 60);

/// What a call does to the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Reads,
    /// It may change it. Sent again, it does what it did before, or gets the answer of then: by its request
    /// id, or by what it is.
    Writes,
    /// It may change it, and no record of that is kept: it is not sent again once it may have been applied.
    WritesUnrecorded,
}

/// The attempts of one call: whether there is another, and what a failure means.
#[derive(Debug)]
pub(crate) struct Attempts {
    effect: Effect,
    left: u32,
    deadline: Instant,
    /// From then on, a write whose answer was lost can no longer be told from a new one.
    records_until: Instant,
    backoff: Backoff,
    /// An attempt may have been run although its answer did not come.
    lost: bool,
}

impl Attempts {
    /// `max` attempts until `deadline`, the first of them now.
    pub(crate) fn new(effect: Effect, max: u32, now: Instant, deadline: Instant) -> Self {
        Self {
            effect,
            left: max,
            deadline,
            records_until: now + RECORDS_LAST,
            backoff: Backoff::for_calls(),
            lost: false,
        }
    }

    /// What the failure of the only attempt there is says of a call.
    pub(crate) fn only_one(effect: Effect, failure: Failure) -> Error {
        verdict(effect, failure.may_be_applied(), failure.error)
    }

    /// How long to wait before the next attempt after this one has failed.
    ///
    /// # Errors
    /// There will be none. If one attempt of a write may have been applied, that is never a clean failure.
    pub(crate) fn after(&mut self, failure: Failure, now: Instant) -> Result<Duration, Error> {
        self.left = self.left.saturating_sub(1);
        let may_be_applied = failure.may_be_applied();
        self.lost |= may_be_applied;
        let worth_it = may_be_applied
            || failure.cause == Cause::NotSent
            || matches!(failure.error, Error::Unavailable { .. } | Error::Overloaded { .. });
        let wait = self.backoff.wait(failure.error.retry_after());
        let next = now + wait;
        let in_time = next < self.deadline && (!self.lost || self.repeatable(next));
        if worth_it && self.left > 0 && in_time {
            return Ok(wait);
        }
        Err(verdict(self.effect, self.lost, failure.error))
    }

    /// Whether the call may be sent at this moment although it may have been run before.
    fn repeatable(&self, now: Instant) -> bool {
        match self.effect {
            Effect::Reads => true,
            Effect::Writes => now < self.records_until,
            Effect::WritesUnrecorded => false,
        }
    }
}

/// What the last error says of the call as a whole, where an attempt may have been run without an answer or not.
pub(crate) fn verdict(effect: Effect, lost: bool, error: Error) -> Error {
    if effect == Effect::Reads || !lost || settles(&error) {
        return error;
    }
    let message = match error {
        Error::Unavailable { message, .. } | Error::OutcomeUnknown { message } => message,
        other => other.to_string(),
    };
    Error::OutcomeUnknown { message }
}

/// Whether this answer to a write also tells that an earlier attempt of it was not applied: the server looks
/// for that first, unless it or somebody on the way refuses the request unseen.
fn settles(error: &Error) -> bool {
    !matches!(
        error,
        Error::Unavailable { .. }
            | Error::Overloaded { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Unauthenticated { .. }
            | Error::PermissionDenied { .. }
            | Error::Protocol { .. }
            | Error::Other { .. }
            // The records of the former lineage went with it.
            | Error::LineageChanged { .. }
            // Whoever does not let in a message, or an answer, of that size has not looked.
            | Error::TooLarge { .. }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(effect: Effect, max: u32) -> Attempts {
        let now = Instant::now();
        Attempts::new(effect, max, now, now + Duration::from_secs(10))
    }

    fn failure(cause: Cause, error: Error) -> Failure {
        Failure { error, cause }
    }

    fn unavailable(cause: Cause) -> Failure {
        failure(cause, Error::Unavailable { message: "gone".to_owned(), retry_after: None })
    }

    fn after(attempts: &mut Attempts, failure: Failure) -> Result<Duration, Error> {
        attempts.after(failure, Instant::now())
    }

    #[test]
    fn whatever_an_answer_does_not_settle_is_tried_again() {
        let unknown = || Error::OutcomeUnknown { message: String::new() };
        let overloaded = || Error::Overloaded { message: String::new(), retry_after: None };
        for effect in [Effect::Reads, Effect::Writes] {
            for failure in [
                unavailable(Cause::NotSent),
                unavailable(Cause::Lost),
                unavailable(Cause::Answered),
                failure(Cause::Answered, overloaded()),
                failure(Cause::Answered, unknown()),
            ] {
                assert!(after(&mut attempts(effect, 2), failure).is_ok());
            }
            let compacted = Error::Compacted { oldest: crate::Revision::new(1) };
            let answered = failure(Cause::Answered, compacted);
            assert!(after(&mut attempts(effect, 2), answered).is_err());
        }
    }

    #[test]
    fn a_lost_answer_of_a_write_is_an_unknown_outcome_once_there_is_no_attempt_left() {
        for last in [Cause::Lost, Cause::NotSent, Cause::Answered] {
            let mut write = attempts(Effect::Writes, 2);
            after(&mut write, unavailable(Cause::Lost)).expect("one left");
            let error = after(&mut write, unavailable(last)).expect_err("none left");
            assert!(matches!(error, Error::OutcomeUnknown { message } if message == "gone"));
        }
        let mut read = attempts(Effect::Reads, 1);
        let error = after(&mut read, unavailable(Cause::Lost)).expect_err("none left");
        assert!(matches!(error, Error::Unavailable { .. }));
    }

    #[test]
    fn a_write_that_surely_was_not_applied_fails_cleanly() {
        for cause in [Cause::NotSent, Cause::Answered] {
            let mut write = attempts(Effect::Writes, 1);
            let error = after(&mut write, unavailable(cause)).expect_err("none left");
            assert!(matches!(error, Error::Unavailable { .. }));
        }
    }

    #[test]
    fn what_the_server_answers_after_a_lost_attempt_counts_if_it_has_looked() {
        let mut write = attempts(Effect::Writes, 5);
        after(&mut write, unavailable(Cause::Lost)).expect("more left");
        let refused = Error::ConditionNotMet { current: None, revision: crate::Revision::new(1) };
        let error = after(&mut write, failure(Cause::Answered, refused)).expect_err("an answer");
        assert!(matches!(error, Error::ConditionNotMet { .. }));

        let mut write = attempts(Effect::Writes, 5);
        after(&mut write, unavailable(Cause::Lost)).expect("more left");
        let refused = Error::Unauthenticated { message: "who?".to_owned() };
        let error = after(&mut write, failure(Cause::Answered, refused)).expect_err("an answer");
        assert!(matches!(error, Error::OutcomeUnknown { .. }));
    }

    #[test]
    fn what_no_record_is_kept_of_is_sent_again_only_if_it_surely_was_not_applied() {
        let not_sent = unavailable(Cause::NotSent);
        assert!(after(&mut attempts(Effect::WritesUnrecorded, 5), not_sent).is_ok());
        let lost = unavailable(Cause::Lost);
        let error = after(&mut attempts(Effect::WritesUnrecorded, 5), lost).expect_err("no more");
        assert!(matches!(error, Error::OutcomeUnknown { message } if message == "gone"));
    }

    #[test]
    fn what_does_not_come_from_the_record_settles_nothing_after_a_lost_answer() {
        let changed = || {
            let lineage = crate::Lineage::default();
            Error::LineageChanged { lineage, valid_through: None }
        };
        let too_large = || Error::TooLarge { message: String::new(), step: None };
        for refused in [&changed as &dyn Fn() -> Error, &too_large] {
            let answer = || failure(Cause::Answered, refused());
            let error = after(&mut attempts(Effect::Writes, 5), answer()).expect_err("an answer");
            assert!(!error.outcome_unknown());
            let mut write = attempts(Effect::Writes, 5);
            after(&mut write, unavailable(Cause::Lost)).expect("more left");
            let error = after(&mut write, answer()).expect_err("an answer");
            assert!(matches!(error, Error::OutcomeUnknown { .. }));
        }
    }

    #[test]
    fn a_passed_deadline_is_told_as_one() {
        let failure = failure(Cause::Answered, Error::DeadlineExceeded);
        let error = after(&mut attempts(Effect::Writes, 5), failure).expect_err("too late");
        assert!(matches!(error, Error::DeadlineExceeded));
    }

    #[test]
    fn a_write_is_not_sent_again_once_its_record_may_be_gone() {
        let now = Instant::now();
        let hour = now + Duration::from_secs(3600);
        let late = now + RECORDS_LAST;
        let mut write = Attempts::new(Effect::Writes, 5, now, hour);
        let error = write.after(unavailable(Cause::Lost), late).expect_err("too late");
        assert!(matches!(error, Error::OutcomeUnknown { .. }));
        let mut write = Attempts::new(Effect::Writes, 5, now, hour);
        assert!(write.after(unavailable(Cause::NotSent), late).is_ok());
    }

    #[test]
    fn a_read_is_sent_again_as_long_as_there_is_time() {
        let now = Instant::now();
        let mut read = Attempts::new(Effect::Reads, 5, now, now + Duration::from_secs(3600));
        assert!(read.after(unavailable(Cause::Lost), now + RECORDS_LAST).is_ok());
    }

    #[test]
    fn waits_grow_up_to_a_bound_and_heed_the_server() {
        let mut backoff = Backoff::new(Duration::from_millis(10), Duration::from_millis(40));
        for full in [10, 20, 40, 40] {
            let full = Duration::from_millis(full);
            let wait = backoff.wait(None);
            assert!(wait >= full / 2 && wait <= full, "{wait:?} of {full:?}");
        }
        let asked = Duration::from_secs(3);
        assert_eq!(backoff.wait(Some(asked)), asked);
        assert_eq!(backoff.wait(Some(asked * 1000)), LONGEST_ASKED);
    }
}
