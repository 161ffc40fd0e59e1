//! Signals and process groups.

use std::{
    fs::{self, File},
    future,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    task::Poll,
    time::Duration,
};

pub use rustix::process::Signal;
use rustix::{
    process::{self, Pid},
    system, termios,
};
use tokio::{
    process::{Child, Command},
    signal::unix::{self, SignalKind},
    time,
};

use crate::failure::Failure;

/// How often to look whether the last process of a group has ended: nobody tells of those that are not children.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// The signals by which a program is asked to end.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

/// The signals that ask this program to end, from now on: they no longer do that by themselves.
pub struct Signals(Vec<(Signal, unix::Signal)>);

impl Signals {
    pub fn listen() -> Result<Self, Failure> {
        let listen = |signal: Signal| {
            let listener = unix::signal(SignalKind::from_raw(signal.as_raw()));
            listener.map(|listener| (signal, listener))
        };
        let listeners = ENDING
            .into_iter()
            // What `nohup` wants ignored stays so.
            .filter(|signal| *signal != Signal::HUP || !is_ignored(Signal::HUP))
            .map(listen)
            .collect::<Result<_, _>>();
        listeners.map(Self).map_err(|error| Failure::io("cannot listen for signals", error))
    }

    /// The next of them.
    pub async fn next(&mut self) -> Signal {
        future::poll_fn(|context| {
            for (signal, listener) in &mut self.0 {
                if listener.poll_recv(context).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// What signals for a command are sent to.
///
/// With a terminal, the command stays in the process group of this program: the shell moves both to the
/// foreground and back, and Ctrl-C and Ctrl-Z reach both. Without, it gets a group of its own, so that what it
/// starts gets the signals, too, and ends with it.
pub enum Target {
    Process,
    Group(Pid),
}

/// Where a command is to be started.
pub struct Prepared {
    own_group: bool,
}

impl Target {
    pub fn prepare(command: &mut Command) -> Prepared {
        let own_group = terminal().is_none();
        if own_group {
            command.process_group(0);
        }
        Prepared { own_group }
    }

    /// Whether the command got a signal when this program did: the terminal sends its own to both.
    pub fn has_got(&self, signal: Signal) -> bool {
        let from_terminal = matches!(signal, Signal::INT | Signal::QUIT);
        matches!(self, Target::Process) && from_terminal && in_foreground()
    }

    /// Sends a signal to what has not ended yet.
    pub fn send(&self, child: &mut Child, signal: Signal) {
        // That it has just ended is no mistake, and about all that can go wrong.
        let _ = match self {
            Target::Group(group) => process::kill_process_group(*group, signal),
            Target::Process => match pid(child) {
                Some(pid) => process::kill_process(pid, signal),
                None => Ok(()),
            },
        };
    }

    /// Waits until nothing is left in the group.
    pub async fn empty(&self) {
        if let Target::Group(group) = self {
            while process::test_kill_process_group(*group).is_ok() {
                time::sleep(LOOK_INTERVAL).await;
            }
        }
    }
}

impl Prepared {
    pub fn started(self, child: &Child) -> Target {
        match pid(child) {
            Some(group) if self.own_group => Target::Group(group),
            _ => Target::Process,
        }
    }
}

/// What this machine is called.
pub fn host() -> String {
    system::uname().nodename().to_string_lossy().into_owned()
}

/// What a shell reports of a command that a signal has ended.
pub fn status_of_signal(status: ExitStatus) -> u8 {
    let signal = status.signal().unwrap_or_default();
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

fn pid(child: &Child) -> Option<Pid> {
    child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw)
}

/// The terminal that this program belongs to.
fn terminal() -> Option<File> {
    File::open("/dev/tty").ok()
}

fn in_foreground() -> bool {
    let group = terminal().and_then(|terminal| termios::tcgetpgrp(terminal).ok());
    group == Some(process::getpgrp())
}

/// Whether a signal was ignored when this program was started, where the system tells.
fn is_ignored(signal: Signal) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    ignored & (1 << (signal.as_raw() - 1)) != 0
}
