//! Logs to standard error.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Sends the log of this process to standard error, as set. Where a log has been set up before, that stays.
pub fn start_logging(log: &Log) {
    // The configuration has been checked; a filter made by hand that is wrong falls back to errors alone.
    let filter = EnvFilter::builder().parse_lossy(&log.filter);
    let log_to = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr);
    let started = match log.format {
        LogFormat::Human => log_to.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => log_to.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!("logging was set up before: {error}");
    }
}
