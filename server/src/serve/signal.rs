//! The signals that end a program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and SIGINT, caught from when this is made.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals, from within a runtime.
    pub fn catch() -> Self {
        const ALLOWED: &str = "these signals can be caught on every Unix";
        Self {
            terminate: signal(SignalKind::terminate()).expect(ALLOWED),
            interrupt: signal(SignalKind::interrupt()).expect(ALLOWED),
        }
    }

    /// Waits for the next one; answers the exit status of a program that it ends.
    pub async fn next(&mut self) -> i32 {
        const KILLED: i32 = 128;
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        KILLED + kind.as_raw_value()
    }
}
