//! What can go wrong, and how that is told.

use std::{
    fmt,
    io::{self, Write as _},
    time::Duration,
};

use holdfast_client::Error;
use serde::Serialize;

use crate::{
    args::{Cli, Format},
    shape::in_words,
};

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The client or the server says so.
    Call(Error),
    /// The command makes no sense as it is.
    Usage(String),
    /// A file cannot be read.
    Io { what: String, error: io::Error },
    /// The output cannot be written.
    Output(io::Error),
    /// A hold or a lease ended too early.
    Lost(String),
    /// A command cannot be run.
    Command { program: String, error: io::Error },
}

impl Failure {
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::Usage(message.into())
    }

    pub fn io(what: impl Into<String>, error: io::Error) -> Self {
        let what = what.into();
        Failure::Io { what, error }
    }

    /// The status of the program; `own` stands for whatever has nothing to do with a command that is run.
    pub fn status(&self, own: Option<u8>) -> u8 {
        match self {
            // As shells have it.
            Failure::Command { error, .. } if error.kind() == io::ErrorKind::NotFound => 127,
            Failure::Command { .. } => 126,
            _ => own.unwrap_or_else(|| self.plain_status()),
        }
    }

    fn plain_status(&self) -> u8 {
        match self {
            Failure::Usage(_)
            | Failure::Call(Error::Invalid { .. } | Error::Configuration { .. }) => 2,
            Failure::Call(
                Error::ConditionNotMet { .. } | Error::LockLost { .. } | Error::LockTaken { .. },
            ) => 1,
            _ => 3,
        }
    }

    /// Whether nobody reads the output any more.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure::Call(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Call(error) => describe(error, f),
            Failure::Usage(message) => f.write_str(message),
            Failure::Io { what, error } => write!(f, "{what}: {error}"),
            Failure::Output(error) => write!(f, "cannot write the output: {error}"),
            Failure::Lost(message) => f.write_str(message),
            Failure::Command { program, error } => write!(f, "cannot run {program:?}: {error}"),
        }
    }
}

/// Tells failures to whoever called the program, with what they can do about it.
pub struct Report {
    format: Format,
    addr: String,
    timeout: Duration,
}

impl Report {
    pub fn new(cli: &Cli) -> Self {
        Self {
            format: cli.globals.output,
            addr: cli.globals.addr.clone(),
            timeout: cli.globals.timeout,
        }
    }

    pub fn print(&self, failure: &Failure) {
        let hint = self.hint(failure);
        let text = match self.format {
            Format::Text => match hint {
                Some(hint) => format!("holdfast: {}\n{hint}", self.message(failure)),
                None => format!("holdfast: {}", self.message(failure)),
            },
            Format::Json => {
                let error =
                    ErrorShape { reason: reason(failure), message: self.message(failure), hint };
                serde_json::to_string(&Wrapped { error }).expect("texts make JSON")
            }
        };
        // Where standard error is closed there is nobody to tell.
        let _ = writeln!(io::stderr(), "{text}");
    }

    fn message(&self, failure: &Failure) -> String {
        match failure {
            Failure::Call(Error::DeadlineExceeded) => format!(
                "no answer from {} within {}; if it was to write, that may have been done all the same",
                self.addr,
                in_words(self.timeout)
            ),
            _ => failure.to_string(),
        }
    }

    fn hint(&self, failure: &Failure) -> Option<String> {
        let Failure::Call(error) = failure else {
            return None;
        };
        Some(match error {
            Error::Unavailable { message, .. } if message.contains("certificate") => {
                "--ca or HOLDFAST_CA names a file with the certificates to trust.".to_owned()
            }
            Error::Unavailable { message, .. } if message.starts_with(&self.addr) => {
                "Is a server running there? `holdfastd` starts one; --addr or HOLDFAST_ADDR names another, \
                 with https:// if it uses TLS."
                    .to_owned()
            }
            Error::DeadlineExceeded => "--timeout gives it longer.".to_owned(),
            Error::Unauthenticated { .. } => {
                "Put a token that the server accepts into HOLDFAST_TOKEN.".to_owned()
            }
            Error::Compacted { .. } => {
                "Begin with the present state: watch with --initial, list or get without --at.".to_owned()
            }
            Error::LineageChanged { .. } => {
                "What was known of the namespace before no longer counts: begin with the present state."
                    .to_owned()
            }
            Error::NamespaceNotEmpty { .. } => {
                "import --replace puts what is imported in its place.".to_owned()
            }
            Error::OutcomeUnknown { .. } => {
                "Read the key to see whether it was, before doing it again.".to_owned()
            }
            _ => return None,
        })
    }
}

#[derive(Serialize)]
struct Wrapped<'a> {
    error: ErrorShape<'a>,
}

#[derive(Serialize)]
struct ErrorShape<'a> {
    reason: &'a str,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

/// The error's message with its causes.
fn describe(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{error}")?;
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        write!(f, ": {cause}")?;
        source = cause.source();
    }
    Ok(())
}

/// A name for programs to decide by: the server's reason, or the name of its gRPC status.
fn reason(failure: &Failure) -> &str {
    let error = match failure {
        Failure::Call(error) => error,
        Failure::Usage(_) => return "USAGE",
        Failure::Io { .. } | Failure::Output(_) => return "IO",
        Failure::Lost(_) => return "LOCK_LOST",
        Failure::Command { .. } => return "COMMAND",
    };
    match error {
        Error::ConditionNotMet { .. } => "CONDITION_NOT_MET",
        Error::LineageChanged { .. } => "LINEAGE_CHANGED",
        Error::Compacted { .. } => "COMPACTED",
        Error::FutureRevision { .. } => "FUTURE_REVISION",
        Error::NotANumber { .. } => "NOT_A_NUMBER",
        Error::LockLost { .. } => "LOCK_LOST",
        Error::LockTaken { .. } => "LOCK_TAKEN",
        Error::LeaseNotFound { .. } => "LEASE_NOT_FOUND",
        Error::LeaseIdUsed { .. } => "LEASE_ID_USED",
        Error::RequestReused { .. } => "REQUEST_REUSED",
        Error::NamespaceNotEmpty { .. } => "NAMESPACE_NOT_EMPTY",
        Error::Io { .. } => "IO",
        Error::Malformed { .. } => "MALFORMED",
        Error::QuotaExceeded { .. } => "QUOTA_EXCEEDED",
        Error::TooLarge { .. } => "TOO_LARGE",
        Error::Overloaded { .. } => "OVERLOADED",
        Error::Invalid { reason, .. } => reason,
        Error::Unavailable { .. } => "UNAVAILABLE",
        Error::OutcomeUnknown { .. } => "OUTCOME_UNKNOWN",
        Error::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Error::Corrupt { .. } => "CORRUPT",
        Error::Unauthenticated { .. } => "UNAUTHENTICATED",
        Error::PermissionDenied { .. } => "PERMISSION_DENIED",
        Error::Configuration { .. } => "USAGE",
        Error::Other { reason: Some(reason), .. } => reason,
        _ => "OTHER",
    }
}
