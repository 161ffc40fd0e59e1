//! `export` and `import`: whole namespaces as files.

use std::{
    collections::BTreeSet,
    fmt,
    io::{IsTerminal as _, stderr},
    time::Duration,
};

use clap::Args;
use holdfast_client::{Error, ImportedNamespace, TransferProgress, Transferred};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use tokio::{
    fs::File,
    io::{AsyncBufRead, BufReader, BufWriter, stdin, stdout},
};

use crate::{
    Session, Verdict,
    failure::Failure,
    process::{Signals, ended_by},
};

pub const EXPORT_HELP: &str = "\
Writes lines of JSON: settings, leases, locks with their holds, and entries, each namespace as of one
revision. History, answers kept for retries and calls that wait for locks stay behind. A file is replaced
only once all is written, and if there was anything; an export that is not read to its end has failed.

  holdfast export > state.jsonl
  holdfast export | holdfast --addr http://other:4653 import -";

pub const IMPORT_HELP: &str = "\
Each namespace is put in place in one step, once all of it has come, and begins a new history: watches of
what was there end, revisions and tokens go on rising, and holders of locks go on holding them.";

#[derive(Args)]
pub struct ExportArgs {
    /// The file to write; `-` or nothing: the standard output
    #[arg(default_value = "-")]
    file: String,
    /// Export all namespaces, not only that of -n
    #[arg(long)]
    all: bool,
    /// Export these namespaces as well; may be given several times
    #[arg(long = "also", value_name = "NAMESPACE", conflicts_with = "all")]
    also: Vec<String>,
}

/// What is not whole is removed also where a signal ends it.
pub async fn export(session: &mut Session, args: ExportArgs) -> Result<Verdict, Failure> {
    let mut signals = Signals::listen()?;
    tokio::select! {
        verdict = write(session, args) => verdict,
        signal = signals.next() => Ok(Verdict::Status(ended_by(signal))),
    }
}

async fn write(session: &mut Session, args: ExportArgs) -> Result<Verdict, Failure> {
    let mut export = session.client.export();
    let mut expected = BTreeSet::new();
    if !args.all {
        expected.insert(session.namespace.name());
        expected.extend(args.also.iter().map(String::as_str));
        for name in &expected {
            export = export.namespace(*name);
        }
    }
    let bar = Bar::new("exported");
    let export = export.progress(bar.teller());
    let done = match args.file.as_str() {
        "-" => export.write_to(BufWriter::new(stdout())).await,
        file => export.write_to_file(file).await,
    };
    let done = done.map_err(|error| unwritten(&args.file, error))?;
    bar.end();
    if done.namespaces < expected.len() as u64 {
        session.out.remark("a namespace that was named does not exist, and was left out")?;
        tell_written(session, &args.file, done)?;
        return Ok(Verdict::No);
    }
    tell_written(session, &args.file, done)?;
    Ok(Verdict::Yes)
}

/// What was written is the result; where that went to the standard output nothing may stand beside it there.
fn tell_written(session: &mut Session, file: &str, done: Transferred) -> Result<(), Failure> {
    let shape = TotalShape::new(done);
    if file == "-" { session.out.remark(shape) } else { session.out.print(&shape) }
}

#[derive(Args)]
pub struct ImportArgs {
    /// The file to read, as `export` has written it; `-`: the standard input
    file: String,
    /// Put what is imported in the place of namespaces that are not empty
    #[arg(long)]
    replace: bool,
}

pub async fn import(session: &mut Session, args: ImportArgs) -> Result<Verdict, Failure> {
    let mut import = session.client.import();
    if args.replace {
        import = import.replace();
    }
    let bar = Bar::new("sent");
    let import = import.progress(bar.teller());
    let done = import.read_from(input(&args.file).await?).await?;
    bar.end();
    let namespaces = done.namespaces.iter().map(NamespaceShape::new).collect();
    session.out.print(&ImportShape { total: TotalShape::new(done.total), namespaces })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct TotalShape {
    namespaces: u64,
    entries: u64,
    leases: u64,
    locks: u64,
}

impl TotalShape {
    fn new(done: Transferred) -> Self {
        let Transferred { namespaces, entries, leases, locks, .. } = done;
        Self { namespaces, entries, leases, locks }
    }
}

impl fmt::Display for TotalShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let namespaces = counted(self.namespaces, "namespace", "namespaces");
        let entries = counted(self.entries, "entry", "entries");
        let leases = counted(self.leases, "lease", "leases");
        let locks = counted(self.locks, "lock", "locks");
        write!(f, "{namespaces}, {entries}, {leases}, {locks}")
    }
}

#[derive(Serialize)]
struct ImportShape {
    #[serde(rename = "imported")]
    total: TotalShape,
    namespaces: Vec<NamespaceShape>,
}

#[derive(Serialize)]
struct NamespaceShape {
    name: String,
    revision: u64,
    lineage: String,
}

impl NamespaceShape {
    fn new(namespace: &ImportedNamespace) -> Self {
        Self {
            name: namespace.name.clone(),
            revision: namespace.revision.get(),
            lineage: namespace.lineage.to_string(),
        }
    }
}

impl fmt::Display for ImportShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for namespace in &self.namespaces {
            writeln!(f, "{}\trevision {}", namespace.name, namespace.revision)?;
        }
        write!(f, "{}", self.total)
    }
}

/// Shows on a terminal how far it has come, on standard error.
struct Bar {
    bar: ProgressBar,
    verb: &'static str,
}

impl Bar {
    fn new(verb: &'static str) -> Self {
        let target = match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, verb }
    }

    fn teller(&self) -> impl FnMut(&TransferProgress) + Send + 'static {
        let (bar, verb) = (self.bar.clone(), self.verb);
        let mut namespace = String::new();
        let known = style("{spinner} {msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
        let unknown = style("{spinner} {msg} {human_pos} entries {per_sec}");
        move |progress| {
            if namespace != progress.namespace {
                namespace.clone_from(&progress.namespace);
                let expected = progress.expected_entries;
                bar.set_style(if expected > 0 { known.clone() } else { unknown.clone() });
                bar.set_message(format!("{verb} {namespace}"));
                bar.set_length(expected);
                bar.reset_eta();
            }
            bar.set_position(progress.entries);
        }
    }

    fn end(self) {
        self.bar.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

fn counted(number: u64, one: &str, many: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { many })
}

async fn input(file: &str) -> Result<Box<dyn AsyncBufRead + Unpin>, Failure> {
    if file == "-" {
        return Ok(Box::new(BufReader::new(stdin())));
    }
    let opened = File::open(file).await;
    let opened = opened.map_err(|error| Failure::io(format!("cannot read {file}"), error))?;
    Ok(Box::new(BufReader::with_capacity(1 << 20, opened)))
}

fn unwritten(file: &str, error: Error) -> Failure {
    match error {
        Error::Io { source, .. } if file == "-" => Failure::Output(source),
        Error::Io { source, .. } => Failure::io(format!("cannot write {file}"), source),
        error => error.into(),
    }
}
