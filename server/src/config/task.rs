//! What the program is called to do.

use clap::{Arg, ArgAction, ArgMatches, Command};

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Serve.
    Serve,
    /// Print the settings.
    PrintConfig,
    /// Work on stored state without a server.
    Offline(Offline),
}

/// What can be done to stored state without a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Offline {
    /// Write namespaces to a file.
    Export {
        /// The file; `-` is the standard output.
        file: String,
        /// Which; none: all.
        namespaces: Vec<String>,
    },
    /// Read namespaces from a file.
    Import {
        /// The file; `-` is the standard input.
        file: String,
        /// Whether to replace those that are not empty.
        replace: bool,
    },
    /// Check every checksum and invariant.
    Verify,
    /// Forget all history.
    Compact,
    /// Save what is sound before damage.
    Repair {
        /// The directory to save it in.
        into: String,
    },
}

const FILE: &str = "file";
const NAMESPACE: &str = "namespace";
const REPLACE: &str = "replace";
const INTO: &str = "into";

/// The commands beside serving.
pub(super) fn commands() -> [Command; 5] {
    let export = Command::new("export")
        .about("Writes namespaces to a file of JSON lines, the same as `holdfast export`")
        .arg(Arg::new(FILE).default_value("-").help("The file; `-`: the standard output"))
        .arg(
            Arg::new(NAMESPACE)
                .long(NAMESPACE)
                .value_name("NAMESPACE")
                .action(ArgAction::Append)
                .help("Only this one; may be given several times"),
        );
    let import = Command::new("import")
        .about("Reads namespaces from a file, each in one step")
        .arg(Arg::new(FILE).required(true).help("The file; `-`: the standard input"))
        .arg(
            Arg::new(REPLACE)
                .long(REPLACE)
                .action(ArgAction::SetTrue)
                .help("Puts what is imported in the place of namespaces that are not empty"),
        );
    let verify = Command::new("verify")
        .about("Checks every checksum and invariant of stored state, and changes nothing");
    let compact =
        Command::new("compact").about("Forgets all history, and writes what is left anew");
    let repair = Command::new("repair")
        .about("Saves what `files:` has before damage in a journal in another directory, and changes nothing else")
        .arg(Arg::new(INTO).required(true).help("The directory; empty, or not there yet"));
    [export, import, verify, compact, repair]
}

/// What a command line asks for beside serving.
pub(super) fn offline(flags: &ArgMatches) -> Option<Offline> {
    let (name, flags) = flags.subcommand()?;
    let file = || flags.get_one::<String>(FILE).cloned().unwrap_or_default();
    Some(match name {
        "export" => {
            let named = flags.get_many(NAMESPACE).into_iter().flatten();
            Offline::Export { file: file(), namespaces: named.cloned().collect() }
        }
        "import" => Offline::Import { file: file(), replace: flags.get_flag(REPLACE) },
        "verify" => Offline::Verify,
        "repair" => {
            Offline::Repair { into: flags.get_one::<String>(INTO).cloned().unwrap_or_default() }
        }
        _ => Offline::Compact,
    })
}
