//! Time that stands still while anybody has something to do, and then goes on to the next moment that somebody waits for.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use async_trait::async_trait;
use holdfast_server::clock::Clock;
use parking_lot::Mutex;

/// When a schedule begins, in milliseconds since the Unix epoch.
pub const START_MS: i64 = 1_700_000_000_000;

/// The clock of one schedule. Who sleeps until the same moment is woken in the order in which they fell asleep.
#[derive(Debug)]
pub struct SimClock(Mutex<State>);

#[derive(Debug)]
struct State {
    now_ms: i64,
    sleepers: u64,
    timers: BTreeMap<(i64, u64), Waker>,
}

impl SimClock {
    /// A clock that stands at [`START_MS`].
    pub fn new() -> Arc<Self> {
        let timers = BTreeMap::new();
        Arc::new(Self(Mutex::new(State { now_ms: START_MS, sleepers: 0, timers })))
    }

    /// Goes on to the next moment that somebody waits for; `false` where nobody does.
    pub fn go_on(&self) -> bool {
        let mut state = self.0.lock();
        let Some(((at_ms, _), _)) = state.timers.first_key_value() else {
            return false;
        };
        let now_ms = state.now_ms.max(*at_ms);
        state.now_ms = now_ms;
        let later = state.timers.split_off(&(now_ms + 1, 0));
        let due = std::mem::replace(&mut state.timers, later);
        drop(state);
        due.into_values().for_each(Waker::wake);
        true
    }

    /// Moves on at once, past all that anybody waits for in between.
    pub fn jump(&self, by_ms: i64) {
        self.0.lock().now_ms += by_ms;
    }

    /// Sleeps so many milliseconds.
    pub async fn sleep_ms(&self, ms: u64) {
        self.sleep(Duration::from_millis(ms)).await;
    }
}

#[async_trait]
impl Clock for SimClock {
    fn now_ms(&self) -> i64 {
        self.0.lock().now_ms
    }

    async fn sleep(&self, duration: Duration) {
        if duration.is_zero() {
            return tokio::task::yield_now().await;
        }
        let timer = {
            let mut state = self.0.lock();
            state.sleepers += 1;
            // Up, so that nobody is early.
            let ms = duration.as_nanos().div_ceil(1_000_000);
            let end_ms = state.now_ms.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX));
            (end_ms, state.sleepers)
        };
        Sleep { clock: self, timer }.await;
    }
}

struct Sleep<'a> {
    clock: &'a SimClock,
    timer: (i64, u64),
}

impl Future for Sleep<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.clock.0.lock();
        if state.now_ms >= self.timer.0 {
            return Poll::Ready(());
        }
        state.timers.insert(self.timer, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep<'_> {
    fn drop(&mut self) {
        self.clock.0.lock().timers.remove(&self.timer);
    }
}
