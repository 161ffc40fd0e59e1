//! Where there are no signals but Ctrl-C, and a process can only be stopped.

use std::{env, future, process::ExitStatus};

use tokio::process::{Child, Command};

use crate::failure::Failure;

/// What would be a signal elsewhere: its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    pub const INT: Self = Self(2);
    pub const KILL: Self = Self(9);
    pub const TERM: Self = Self(15);

    pub fn as_raw(self) -> i32 {
        self.0
    }
}

/// Ctrl-C.
pub struct Signals;

impl Signals {
    pub fn listen() -> Result<Self, Failure> {
        Ok(Signals)
    }

    pub async fn next(&mut self) -> Signal {
        match tokio::signal::ctrl_c().await {
            Ok(()) => Signal::INT,
            Err(_) => future::pending().await,
        }
    }
}

/// The process alone.
pub struct Target;

/// Nothing has to be prepared.
pub struct Prepared;

impl Target {
    pub fn prepare(_: &mut Command) -> Prepared {
        Prepared
    }

    /// Ctrl-C reaches all programs of a console.
    pub fn has_got(&self, signal: Signal) -> bool {
        signal == Signal::INT
    }

    pub fn send(&self, child: &mut Child, _: Signal) {
        // That it has just ended is no mistake, and about all that can go wrong.
        let _ = child.start_kill();
    }

    pub async fn empty(&self) {}
}

impl Prepared {
    pub fn started(self, _: &Child) -> Target {
        Target
    }
}

/// What this machine is called.
pub fn host() -> String {
    env::var("COMPUTERNAME").unwrap_or_default()
}

/// Nothing ends by a signal.
pub fn status_of_signal(_: ExitStatus) -> u8 {
    u8::MAX
}
