//! `holdfast`, the command line of Holdfast.
//!
//! The modules in reading order: what can be said (`args`, `parse`), what is printed (`output`, `shape`),
//! what goes wrong (`failure`), what is run (`process`), and the commands, one module a group.

mod args;
mod parse;

mod failure;
mod output;
mod process;
mod shape;

mod batch;
mod bench;
mod elect;
mod keys;
mod lease;
mod lock;
mod locks;
mod namespaces;
mod ranges;
mod server;
mod transfer;
mod txn;
mod watch;
mod write;

use std::{process::ExitCode, time::Duration};

use holdfast_client::{Client, ClientBuilder, Namespace, Raw, Tls};
use tokio::{
    runtime::{Handle, Runtime},
    time,
};

use args::{Cli, Command, Globals};
use failure::{Failure, Report};
use output::Output;

/// The server's own: `bench` is to measure the server, and not how memory is found for its calls.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What a command comes to when nothing goes wrong; the status of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Done: status 0.
    Yes,
    /// A key is missing, a condition does not hold: status 1.
    No,
    /// What a command that was run came to, or was asked for.
    Status(u8),
}

impl Verdict {
    fn of(yes: bool) -> Self {
        if yes { Verdict::Yes } else { Verdict::No }
    }
}

/// What every command works with.
struct Session {
    client: Client,
    /// What makes further clients like it.
    builder: ClientBuilder,
    /// Values are bytes of any content type; unless told, the command line does not say what they are.
    namespace: Namespace<Raw>,
    out: Output,
    /// How long a call may take.
    timeout: Duration,
    /// What a command that is run needs to reach the same server.
    environment: Vec<(&'static str, String)>,
}

fn main() -> ExitCode {
    let cli = match Cli::read() {
        Ok(cli) => cli,
        Err(status) => return status,
    };
    let report = Report::new(&cli);
    let own_status = cli.command.own_status();
    let only_reads = cli.command.only_reads();
    match started(cli) {
        Ok(Verdict::Yes) => ExitCode::SUCCESS,
        Ok(Verdict::No) => ExitCode::from(1),
        Ok(Verdict::Status(status)) => ExitCode::from(status),
        // The reader has had enough: `holdfast list | head`.
        Err(failure) if only_reads && failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            report.print(&failure);
            ExitCode::from(failure.status(own_status))
        }
    }
}

fn started(cli: Cli) -> Result<Verdict, Failure> {
    let runtime = Runtime::new().map_err(|error| Failure::io("cannot start", error))?;
    let takes_locks = cli.command.takes_locks();
    let verdict = runtime.block_on(run(cli));
    if takes_locks {
        runtime.block_on(given_up());
    }
    // A thread that still waits for input would keep it from ending.
    runtime.shutdown_background();
    verdict
}

/// Waits a little for what goes on in the background: a lock that may have been granted is given up there.
async fn given_up() {
    let metrics = Handle::current().metrics();
    let all = async {
        while metrics.num_alive_tasks() > 0 {
            time::sleep(Duration::from_millis(1)).await;
        }
    };
    // What is not given up by then stands until its TTL ends.
    let _ = time::timeout(Duration::from_secs(1), all).await;
}

async fn run(cli: Cli) -> Result<Verdict, Failure> {
    let builder = builder(&cli)?;
    let client = builder.clone().connect_lazy()?;
    let default = cli.command.default_namespace();
    let name = cli.globals.namespace.as_deref().unwrap_or(default);
    let mut session = Session {
        namespace: client.namespace(name).with_codec(Raw::with_content_type("")),
        client,
        builder,
        out: Output::new(cli.globals.output),
        timeout: cli.globals.timeout,
        environment: environment(&cli.globals, name),
    };
    let verdict = dispatch(&mut session, cli.command).await?;
    session.out.flush()?;
    Ok(verdict)
}

fn builder(cli: &Cli) -> Result<ClientBuilder, Failure> {
    let mut builder = Client::builder(&cli.globals.addr)
        .connect_timeout(cli.globals.timeout)
        .timeout(cli.globals.timeout);
    if let Some(file) = &cli.globals.ca {
        builder = builder.tls(Tls::new().ca_certificate(parse::file(file)?));
    }
    if let Some(token) = args::token()? {
        builder = builder.token(token);
    }
    Ok(builder)
}

fn environment(globals: &Globals, namespace: &str) -> Vec<(&'static str, String)> {
    let mut environment =
        vec![("HOLDFAST_ADDR", globals.addr.clone()), ("HOLDFAST_NAMESPACE", namespace.to_owned())];
    environment.extend(globals.ca.clone().map(|ca| ("HOLDFAST_CA", ca)));
    environment
}

async fn dispatch(session: &mut Session, command: Command) -> Result<Verdict, Failure> {
    match command {
        Command::Get(args) => keys::get(session, args).await,
        Command::Set(args) => write::set(session, args).await,
        Command::Del(args) => write::del(session, args).await,
        Command::Exists(args) => keys::exists(session, args).await,
        Command::Ttl(args) => keys::ttl(session, args).await,
        Command::Expire(args) => keys::expire(session, args).await,
        Command::Incr(args) => keys::incr(session, args).await,
        Command::List(args) => ranges::list(session, args).await,
        Command::Count(args) => ranges::count(session, args).await,
        Command::History(args) => ranges::history(session, args).await,
        Command::Mget(args) => batch::mget(session, args).await,
        Command::Mset(args) => batch::mset(session, args).await,
        Command::Txn(args) => txn::txn(session, args).await,
        Command::Watch(args) => watch::watch(session, args).await,
        Command::Lock(args) => lock::lock(session, args).await,
        Command::Locks(args) => locks::locks(session, args).await,
        Command::Unlock(args) => locks::unlock(session, args).await,
        Command::Elect(args) => elect::elect(session, args).await,
        Command::Lease(command) => lease::lease(session, command).await,
        Command::Ns(command) => namespaces::ns(session, command).await,
        Command::Export(args) => transfer::export(session, args).await,
        Command::Import(args) => transfer::import(session, args).await,
        Command::Stats => server::stats(session).await,
        Command::Compact(args) => server::compact(session, args).await,
        Command::Info => server::info(session).await,
        Command::Bench(args) => bench::bench(session, args).await,
    }
}
