//! When to try again, and how long to wait before.

use std::time::Duration;

use rand::Rng as _;

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

/// What to do about a failed attempt.
#[derive(Debug)]
pub(crate) enum Verdict {
    /// Trying again is safe and may help. If there is no time or no attempt left, this is the error.
    Retry(Error),
    /// It is not, or would not.
    Fail(Error),
}

/// Judges a failed attempt. `repeatable` says that running the request twice does no harm.
///
/// A request that is not repeatable is tried again only if it surely was not applied: the server said so,
/// or it never left this machine.
pub(crate) fn judge(failure: Failure, repeatable: bool) -> Verdict {
    match (failure.cause, failure.error) {
        (Cause::NotSent, error) => Verdict::Retry(error),
        (Cause::Lost, error) if repeatable => Verdict::Retry(error),
        (Cause::Lost, error) => Verdict::Fail(Error::OutcomeUnknown {
            message: match error {
                Error::Unavailable { message, .. } => message,
                other => other.to_string(),
            },
        }),
        (Cause::Answered, error @ (Error::Unavailable { .. } | Error::Overloaded { .. })) => {
            Verdict::Retry(error)
        }
        (Cause::Answered, error) => Verdict::Fail(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unavailable(cause: Cause) -> Failure {
        Failure {
            error: Error::Unavailable { message: "gone".to_owned(), retry_after: None },
            cause,
        }
    }

    #[test]
    fn a_lost_answer_of_a_write_is_an_unknown_outcome() {
        assert!(matches!(
            judge(unavailable(Cause::Lost), false),
            Verdict::Fail(Error::OutcomeUnknown { .. })
        ));
        assert!(matches!(
            judge(unavailable(Cause::Lost), true),
            Verdict::Retry(Error::Unavailable { .. })
        ));
    }

    #[test]
    fn what_was_surely_not_applied_is_tried_again() {
        for cause in [Cause::NotSent, Cause::Answered] {
            assert!(matches!(
                judge(unavailable(cause), false),
                Verdict::Retry(Error::Unavailable { .. })
            ));
        }
    }

    #[test]
    fn an_answer_is_final() {
        for repeatable in [false, true] {
            let failure = Failure { error: Error::DeadlineExceeded, cause: Cause::Answered };
            assert!(matches!(judge(failure, repeatable), Verdict::Fail(Error::DeadlineExceeded)));
        }
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
