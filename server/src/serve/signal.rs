//! The signals that end a program.

use std::process;

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

    /// Waits for the first one. Whoever sends a second does not want to wait: that ends the program at once.
    pub async fn shutdown(mut self) {
        self.next().await;
        tokio::spawn(async move { process::exit(self.next().await) });
    }

    /// Waits for the next one; answers the exit status of a program that it ends.
    async fn next(&mut self) -> i32 {
        const KILLED: i32 = 128;
        let kind = tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        };
        KILLED + kind.as_raw_value()
    }
}
