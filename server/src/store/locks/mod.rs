//! Locks beyond the commands on them: how they are read and watched, and how calls wait for them.

mod acquire;
mod read;
mod sweep;
mod watch;

pub(super) use acquire::WaitingCalls;
pub use watch::{LockEvent, LockEventKind, LockSelector, LockWatchItem, LockWatchQuery};
