//! A clock that is moved by hand, for the servers and for what their state is in.

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use holdfast_server::clock::{Clock, ManualClock};

use super::redis::RedisClock;

/// Moves only when told to.
pub struct TestClock {
    servers: Arc<ManualClock>,
    redis: OnceLock<RedisClock>,
}

impl TestClock {
    /// A clock that stands at so many milliseconds since the Unix epoch.
    pub fn at(start_ms: i64) -> Arc<Self> {
        Arc::new(Self { servers: ManualClock::new(start_ms), redis: OnceLock::new() })
    }

    /// When it is.
    pub fn now_ms(&self) -> i64 {
        self.servers.now_ms()
    }

    /// Moves it on, first where the state is: who is woken by it finds that it has passed.
    pub fn advance(&self, duration: Duration) {
        if let Some(redis) = self.redis.get() {
            redis.set(redis.now_ms() + i64::try_from(duration.as_millis()).expect("a short time"));
        }
        self.servers.advance(duration);
    }

    /// That of the servers.
    pub fn of_servers(&self) -> Arc<dyn Clock> {
        self.servers.clone()
    }

    /// That of a Redis that is to be started.
    pub fn of_redis(&self) -> RedisClock {
        let made = || RedisClock::at(self.now_ms()).expect("there is a C compiler");
        self.redis.get_or_init(made).clone()
    }
}
