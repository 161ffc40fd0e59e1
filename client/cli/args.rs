//! What can be said on the command line; the arguments of a command stand beside it in its module.

use std::{env, process::ExitCode, time::Duration};

use clap::{
    Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    builder::Resettable,
};

use crate::{
    batch, bench, elect, failure::Failure, keys, lease, lock, locks, namespaces, parse, ranges,
    server, transfer, txn, watch, write,
};

/// Reads, writes and watches the state that a Holdfast server keeps.
#[derive(Parser)]
#[command(
    name = "holdfast",
    version,
    max_term_width = 100,
    after_help = HELP
)]
pub struct Cli {
    #[command(flatten)]
    pub globals: Globals,
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What was said; else the status to end with, after telling why.
    pub fn read() -> Result<Self, ExitCode> {
        let read = grammar().try_get_matches();
        read.and_then(|read| Self::from_arg_matches(&read)).map_err(|error| {
            // Where nobody reads it there is nobody to tell.
            let _ = error.print();
            if !error.use_stderr() {
                return ExitCode::SUCCESS;
            }
            ExitCode::from(if is_about_lock() { lock::OWN_STATUS } else { WRONG_USAGE })
        })
    }
}

/// What can be said. A variable that is empty says nothing.
fn grammar() -> clap::Command {
    Cli::command().mut_args(|arg| {
        let value = arg.get_env().and_then(env::var_os);
        match value.is_some_and(|value| value.is_empty()) {
            true => arg.env(Resettable::Reset),
            false => arg,
        }
    })
}

/// Whether arguments that cannot be read are those of `lock`.
fn is_about_lock() -> bool {
    let read = grammar().ignore_errors(true).try_get_matches();
    read.is_ok_and(|read| read.subcommand_name() == Some("lock"))
}

const WRONG_USAGE: u8 = 2;

const HELP: &str = "\
Exit status:
  0  done
  1  the answer is no: a key is missing, a condition or compare does not hold, a lock is taken or lost
  2  wrong usage, or the server refuses the request as it is
  3  any other error; nobody answers, for example, or nobody reads what came of a write or an export
  `lock` has statuses of its own: see its help.

Output:
  text is for people: control characters, line breaks and what is not UTF-8 appear as \\n, \\x1b, \\xff …
  (but `get` prints the bytes as they are). json prints one object a line: a value is `value` if it is
  UTF-8, else `value_base64`; revisions and tokens are numbers, ids of leases strings of digits, times
  milliseconds since 1970. Errors go to standard error, with -o json as an object too, but for arguments
  that cannot be read.

Environment:
  HOLDFAST_ADDR       the address, unless --addr is given
  HOLDFAST_NAMESPACE  the namespace, unless -n is given
  HOLDFAST_TOKEN      the token to show to the server
  HOLDFAST_CA         the certificates to trust, unless --ca is given
  One that is empty is as good as none.

Durations are written 500ms, 30s, 5m, 2h, 7d, or \"1h 30m\". Write -- before a key or value that begins
with a dash.";

/// What can be said beside every command.
#[derive(Args)]
#[command(next_help_heading = "Global options")]
pub struct Globals {
    /// The server's address; https:// for TLS
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "HOLDFAST_ADDR",
        hide_env = true,
        default_value = "http://127.0.0.1:4653"
    )]
    pub addr: String,
    /// A PEM file with the certificates to trust instead of the system's; TLS is used then
    #[arg(long, global = true, value_name = "FILE", env = "HOLDFAST_CA", hide_env = true)]
    pub ca: Option<String>,
    /// The namespace to work in; `default` unless set
    #[arg(short, long, global = true, env = "HOLDFAST_NAMESPACE", hide_env = true)]
    pub namespace: Option<String>,
    /// How to print: for people, or one JSON object a line
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Text)]
    pub output: Format,
    /// How long a call may take
    #[arg(
        long,
        global = true,
        value_name = "DURATION",
        value_parser = parse::duration,
        default_value = "5s"
    )]
    pub timeout: Duration,
}

/// How to print.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Subcommand)]
pub enum Command {
    /// Print a value
    Get(keys::GetArgs),
    /// Write a value
    Set(write::SetArgs),
    /// Delete keys: all or none, in one revision
    Del(write::DelArgs),
    /// Tell whether a key exists
    Exists(keys::KeyArgs),
    /// Tell how long a key has to live
    Ttl(keys::KeyArgs),
    /// Change when a key ends
    Expire(keys::ExpireArgs),
    /// Add to a number and print the new one
    Incr(keys::IncrArgs),
    /// List entries in the order of their keys
    List(ranges::ListArgs),
    /// Count keys
    Count(ranges::CountArgs),
    /// Print the changes of a key that are still held, newest first
    History(ranges::HistoryArgs),
    /// Print several values, all as of one revision
    Mget(batch::MgetArgs),
    /// Write several values: all or none, in one revision
    Mset(batch::MsetArgs),
    /// Compare, then act, as one atomic step
    #[command(after_help = txn::HELP)]
    Txn(txn::TxnArgs),
    /// Follow changes, expiry included, until Ctrl-C
    #[command(after_help = watch::HELP)]
    Watch(watch::WatchArgs),
    /// Run a command while holding a lock
    #[command(after_help = lock::HELP)]
    Lock(Box<lock::LockArgs>),
    /// List the locks that are held
    Locks(locks::LocksArgs),
    /// Take a lock away from its holder
    Unlock(locks::UnlockArgs),
    /// Lead, or follow who leads
    #[command(after_help = elect::HELP)]
    Elect(elect::ElectArgs),
    /// Leases: what keys and locks may live as long as
    #[command(subcommand)]
    Lease(lease::LeaseCommand),
    /// Namespaces and their settings
    #[command(subcommand)]
    Ns(namespaces::NsCommand),
    /// Write whole namespaces to a file
    #[command(after_help = transfer::EXPORT_HELP)]
    Export(transfer::ExportArgs),
    /// Read whole namespaces from a file
    #[command(after_help = transfer::IMPORT_HELP)]
    Import(transfer::ImportArgs),
    /// Print what the server has done since it started
    Stats,
    /// Forget history up to a revision
    Compact(server::CompactArgs),
    /// Print what the server is
    Info,
    /// Put a load on the server, and print rates and latencies
    #[command(after_help = bench::HELP)]
    Bench(bench::BenchArgs),
}

impl Command {
    /// The status of whatever goes wrong that is not the doing of a command that is run; none where each
    /// failure has its own.
    pub fn own_status(&self) -> Option<u8> {
        matches!(self, Command::Lock(_)).then_some(lock::OWN_STATUS)
    }

    /// Whether a lock may be left to be given up where it fails.
    pub fn takes_locks(&self) -> bool {
        matches!(self, Command::Lock(_) | Command::Elect(_))
    }

    /// Whether all is well where nobody reads the output to its end: nothing was done that has to be told.
    pub fn only_reads(&self) -> bool {
        match self {
            Command::Get(_)
            | Command::Exists(_)
            | Command::Ttl(_)
            | Command::List(_)
            | Command::Count(_)
            | Command::History(_)
            | Command::Mget(_)
            | Command::Watch(_)
            | Command::Locks(_)
            | Command::Stats
            | Command::Info => true,
            Command::Elect(args) => args.only_reads(),
            Command::Lease(command) => command.only_reads(),
            Command::Ns(command) => command.only_reads(),
            _ => false,
        }
    }

    /// The namespace to work in where none is named.
    pub fn default_namespace(&self) -> &'static str {
        if matches!(self, Command::Bench(_)) { bench::NAMESPACE } else { "default" }
    }
}

/// The token of the environment: not an argument, for everybody on the machine can see those.
pub fn token() -> Result<Option<String>, Failure> {
    match env::var("HOLDFAST_TOKEN") {
        Ok(token) if token.is_empty() => Ok(None),
        Ok(token) => Ok(Some(token)),
        Err(env::VarError::NotPresent) => Ok(None),
        Err(env::VarError::NotUnicode(_)) => Err(Failure::usage("HOLDFAST_TOKEN is not UTF-8")),
    }
}
