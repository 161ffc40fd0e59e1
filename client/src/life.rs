//! Whether something that has to be kept alive still is, by this program's own clock.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// Further ahead than any deadline matters, and near enough to be told.
const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);

/// A server counts in whole milliseconds, and so from up to this much before it got a request.
const ROUNDING: Duration = Duration::from_millis(1);

/// The life of a hold or a lease, as far as it is known without asking.
///
/// It lasts from when the last acknowledged renewal was sent, and a millisecond less than its TTL: the server
/// counts from a moment after that, so it is never the first to find the end. What is lost once is lost for good, even if a renewal is
/// acknowledged later.
#[derive(Debug)]
pub(crate) struct Life<L> {
    state: watch::Sender<State<L>>,
    /// How it is lost when nobody has renewed it.
    overdue: L,
}

#[derive(Debug)]
struct State<L> {
    deadline: Instant,
    loss: Option<L>,
}

impl<L: Clone + Send + Sync + 'static> Life<L> {
    /// A life that was acknowledged to last `ttl` by the answer to a request sent at `sent`; without `ttl`, as long
    /// as nothing else is said.
    pub(crate) fn new(sent: Instant, ttl: Option<Duration>, overdue: L) -> Self {
        let state = State { deadline: deadline(sent, ttl), loss: None };
        Self { state: watch::Sender::new(state), overdue }
    }

    /// When it ends unless it is renewed.
    pub(crate) fn deadline(&self) -> Instant {
        self.state.borrow().deadline
    }

    /// How it was lost, if it was.
    pub(crate) fn loss(&self) -> Option<L> {
        self.look();
        self.state.borrow().loss.clone()
    }

    /// Takes the acknowledgement of a renewal that was sent at `sent`.
    pub(crate) fn renewed(&self, sent: Instant, ttl: Option<Duration>) {
        self.look();
        self.state.send_if_modified(|state| {
            let deadline = deadline(sent, ttl);
            let later = state.loss.is_none() && deadline > state.deadline;
            if later {
                state.deadline = deadline;
            }
            later
        });
    }

    /// Takes the news that it is lost.
    pub(crate) fn lose(&self, loss: L) {
        self.state.send_if_modified(|state| {
            let news = state.loss.is_none();
            state.loss.get_or_insert(loss);
            news
        });
    }

    /// Resolves when it is lost.
    pub(crate) async fn lost(self: Arc<Self>) -> L {
        let mut changes = self.state.subscribe();
        loop {
            changes.borrow_and_update();
            if let Some(loss) = self.loss() {
                return loss;
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = sleep_until(self.deadline()) => {}
            }
        }
    }

    /// Notices that the deadline has passed.
    fn look(&self) {
        let now = Instant::now();
        self.state.send_if_modified(|state| {
            let over = state.loss.is_none() && state.deadline <= now;
            if over {
                state.loss = Some(self.overdue.clone());
            }
            over
        });
    }
}

fn deadline(sent: Instant, ttl: Option<Duration>) -> Instant {
    sent + ttl.unwrap_or(FAR).min(FAR).saturating_sub(ROUNDING)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const TTL: Option<Duration> = Some(Duration::from_secs(30));

    fn life() -> Arc<Life<&'static str>> {
        Arc::new(Life::new(Instant::now(), TTL, "overdue"))
    }

    #[tokio::test(start_paused = true)]
    async fn it_lasts_from_when_the_renewal_was_sent() {
        let life = life();
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(20)).await;
        life.renewed(sent, TTL);
        tokio::time::advance(Duration::from_millis(9_998)).await;
        assert_eq!(life.loss(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(life.loss(), Some("overdue"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_renewal_acknowledged_too_late_does_not_bring_it_back() {
        let life = life();
        tokio::time::advance(Duration::from_secs(29)).await;
        let sent = Instant::now();
        tokio::time::advance(Duration::from_secs(1)).await;
        life.renewed(sent, TTL);
        assert_eq!(life.loss(), Some("overdue"));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_its_loss_is_told_by_the_clock_or_by_news() {
        let first = life();
        let mut lost = Box::pin(Arc::clone(&first).lost());
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(lost.as_mut().now_or_never(), None);
        first.renewed(Instant::now(), TTL);
        tokio::time::advance(Duration::from_secs(29)).await;
        assert_eq!(lost.as_mut().now_or_never(), None);
        let before = Instant::now();
        assert_eq!(lost.await, "overdue");
        assert!(before.elapsed() >= Duration::from_secs(1) - ROUNDING);

        let second = life();
        let lost = tokio::spawn(Arc::clone(&second).lost());
        second.lose("broken");
        second.lose("again");
        assert_eq!(lost.await.expect("no panic"), "broken");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_ttl_the_clock_ends_nothing() {
        let life = Life::new(Instant::now(), None, "overdue");
        tokio::time::advance(Duration::from_secs(1 << 29)).await;
        assert_eq!(life.loss(), None);
        Life::new(Instant::now(), Some(Duration::MAX), "overdue");
    }
}
