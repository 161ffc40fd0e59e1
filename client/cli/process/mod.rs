//! A command that is run, and signals: those that this program gets, and those that it sends to the command.

#[cfg(not(unix))]
mod other;
#[cfg(unix)]
mod unix;

use std::{
    ffi::OsStr,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::time;

#[cfg(not(unix))]
pub use other::Signals;
#[cfg(unix)]
pub use unix::Signals;

#[cfg(not(unix))]
use other::{Signal, Target, host, status_of_signal};
#[cfg(unix)]
use unix::{Signal, Target, host, status_of_signal};

/// Names this process among those of all machines.
pub fn name() -> String {
    format!("{}:{}", host(), std::process::id())
}

/// What a shell reports of a program that a signal has ended.
pub fn ended_by(signal: Signal) -> u8 {
    u8::try_from(128 + signal.as_raw()).unwrap_or(u8::MAX)
}

/// A command that runs with the standard streams of this program.
pub struct Process {
    child: tokio::process::Child,
    target: Target,
}

impl Process {
    /// Starts a command, with variables added to its environment.
    pub fn start<'a>(
        command: &[impl AsRef<OsStr>],
        environment: impl IntoIterator<Item = (&'a str, String)>,
    ) -> io::Result<Self> {
        let [program, args @ ..] = command else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut command = tokio::process::Command::new(program);
        command
            .args(args)
            .envs(environment)
            .stdin(Stdio::inherit())
            .stdout(Stdio::inherit())
            .stderr(Stdio::inherit());
        let prepared = Target::prepare(&mut command);
        let child = command.spawn()?;
        Ok(Self { target: prepared.started(&child), child })
    }

    /// Waits until the command has ended; the status that a shell would report. Can be asked again.
    pub async fn status(&mut self) -> io::Result<u8> {
        self.child.wait().await.map(status)
    }

    /// Hands on a signal that this program got.
    pub fn pass_on(&mut self, signal: Signal) {
        if !self.target.has_got(signal) {
            self.target.send(&mut self.child, signal);
        }
    }

    /// Ends the command: asks it to, and after `grace` does not ask. Returns when it has ended.
    pub async fn end(&mut self, grace: Duration) -> io::Result<()> {
        self.target.send(&mut self.child, Signal::TERM);
        let whole = async {
            let status = self.child.wait().await;
            self.target.empty().await;
            status
        };
        if let Ok(status) = time::timeout(grace, whole).await {
            return status.map(|_| ());
        }
        self.target.send(&mut self.child, Signal::KILL);
        self.child.wait().await.map(|_| ())
    }
}

fn status(status: ExitStatus) -> u8 {
    match status.code() {
        // Only the lowest byte of a status gets to whoever asks.
        Some(code) => u8::try_from(code & 0xff).expect("a byte is left"),
        None => status_of_signal(status),
    }
}
