//! The real programs that a run is on: `holdfastd`, one or two, each behind a proxy, and what their state is in.

use std::{
    env,
    net::SocketAddr,
    path::PathBuf,
    process::{Command as BlockingCommand, Stdio},
    sync::{Arc, LazyLock},
    time::Duration,
};

use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    sync::oneshot,
    time::timeout,
};
use tonic::transport::Endpoint;

use crate::common::{
    fault_proxy::FaultProxy,
    program,
    redis::{self, Options, Proxy, Redis, Sentinels},
};

/// Only ends a run that would hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long to wait where nothing came.
pub const AWAY: Duration = Duration::from_millis(20);

/// How a server notices soon that Redis does not answer.
const IMPATIENT: &str = "?connect_timeout=500ms&command_timeout=1s";

/// The program, built from the sources as they are; or the one that `HISTORY_HOLDFASTD` names.
static HOLDFASTD: LazyLock<PathBuf> = LazyLock::new(|| {
    if let Some(program) = env::var_os("HISTORY_HOLDFASTD") {
        return program.into();
    }
    program::built("holdfastd")
});

/// The library that moves the clock of a program, where this machine has it.
static FAKETIME: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    let directories = ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime"];
    let paths = directories.map(|directory| PathBuf::from(directory).join("libfaketimeMT.so.1"));
    let found = paths.into_iter().find(|path| path.exists());
    if found.is_none() {
        eprintln!("no libfaketime here: no clock jumps");
    }
    found
});

/// What the state is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Files,
    Sqlite,
    /// Two servers on one Redis.
    RedisPair,
    /// Two servers on a Redis with a replica, which sentinels make the primary when that is gone.
    Sentinels,
}

impl Kind {
    /// Whether Redis keeps the state.
    pub fn is_on_redis(self) -> bool {
        matches!(self, Self::RedisPair | Self::Sentinels)
    }
}

/// All kinds that this machine has.
pub fn kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Memory, Kind::Files, Kind::Sqlite];
    if redis::is_installed() {
        kinds.extend([Kind::RedisPair, Kind::Sentinels]);
    }
    kinds
}

/// Whether the clock of a server can be moved here.
pub fn has_faketime() -> bool {
    FAKETIME.is_some()
}

/// The servers of a run. They end when it is dropped.
pub struct Servers {
    pub servers: Vec<Server>,
    pub redis: Option<(Mutex<Redis>, Proxy)>,
    pub sentinels: Option<Arc<Mutex<Sentinels>>>,
    /// Goes away with all that is in it.
    _directory: TempDir,
}

/// One server behind its proxy.
pub struct Server {
    pub proxy: FaultProxy,
    url: String,
    /// Where the time is told by which it goes; none: by that of the machine.
    clock: Option<PathBuf>,
    running: Arc<Mutex<Option<Running>>>,
}

struct Running {
    child: Child,
    address: SocketAddr,
    /// Its log, once it has ended.
    log: oneshot::Receiver<String>,
}

impl Servers {
    /// Starts servers on a fresh store; with clocks that can be moved, or waiting for replicas, if asked to.
    pub async fn start(kind: Kind, movable_clocks: bool, waiting: bool) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let directory = directory.expect("a directory can be made");
        let path = directory.path().join("data").display().to_string();
        let (mut redis, mut sentinels) = (None, None);
        let urls = match kind {
            Kind::Memory => vec!["memory:".to_owned()],
            // Small enough that snapshots are made all the time.
            Kind::Files => vec![format!("files:{path}?snapshot_every=64KiB")],
            Kind::Sqlite => vec![format!("sqlite:{path}")],
            Kind::RedisPair => {
                let server = Redis::with(Options::default()).expect("it is installed");
                let proxy = Proxy::to(&server.address()).await;
                let url = format!("redis://{}{IMPATIENT}", proxy.address);
                redis = Some((Mutex::new(server), proxy));
                vec![url.clone(), url]
            }
            Kind::Sentinels => {
                let started = tokio::task::spawn_blocking(|| Sentinels::start(1)).await;
                let started = started.expect("they start").expect("it is installed");
                let waiting = if waiting { "&wait_replicas=1&wait_timeout=300ms" } else { "" };
                let url = format!("{}{IMPATIENT}{waiting}", started.url());
                sentinels = Some(Arc::new(Mutex::new(started)));
                vec![url.clone(), url]
            }
        };
        let mut servers = Vec::new();
        for (number, url) in urls.into_iter().enumerate() {
            let clock = movable_clocks.then(|| directory.path().join(format!("clock{number}")));
            servers.push(Server::start(url, clock).await);
        }
        Servers { servers, redis, sentinels, _directory: directory }
    }

    /// Where clients find the servers: by way of their proxies.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        self.servers.iter().map(|server| endpoint(server.proxy.address)).collect()
    }
}

impl Server {
    async fn start(url: String, clock: Option<PathBuf>) -> Self {
        if let Some(clock) = &clock {
            std::fs::write(clock, "+0").expect("a file can be written");
        }
        let running = Running::start(&url, clock.as_ref()).await.expect("the server starts");
        let proxy = FaultProxy::to(running.address).await;
        Server { proxy, url, clock, running: Arc::new(Mutex::new(Some(running))) }
    }

    /// The id of its process.
    pub fn process(&self) -> u32 {
        let running = self.running.lock();
        running.as_ref().and_then(|running| running.child.id()).expect("it runs")
    }

    /// Where it is, past its proxy.
    pub fn direct(&self) -> Endpoint {
        let running = self.running.lock();
        endpoint(running.as_ref().expect("it runs").address)
    }

    /// Kills it in the middle of whatever it does; its log.
    pub async fn kill(&self) -> String {
        let running = self.running.lock().take().expect("it runs");
        self.proxy.lead_to(None);
        self.proxy.cut();
        let Running { mut child, log, .. } = running;
        child.kill().await.expect("it can be killed");
        log.await.unwrap_or_default()
    }

    /// Starts it again after it was killed.
    pub async fn start_again(&self) -> Result<(), String> {
        let running = Running::start(&self.url, self.clock.as_ref()).await?;
        self.proxy.lead_to(Some(running.address));
        *self.running.lock() = Some(running);
        Ok(())
    }

    /// Sends a signal, such as `STOP`.
    pub fn signal(&self, name: &str) {
        let process = self.process().to_string();
        let sent = BlockingCommand::new("kill").args(["-s", name, &process]).status();
        assert!(sent.expect("kill runs").success(), "{name}");
    }

    /// The largest file that it can write from now on; none: any.
    pub fn limit_files(&self, bytes: Option<u64>) {
        let limit = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
        let process = self.process().to_string();
        let mut command = BlockingCommand::new("prlimit");
        let set = command.args(["--pid", &process, &format!("--fsize={limit}:")]).status();
        assert!(set.expect("prlimit runs").success(), "{limit}");
    }

    /// Moves its clock to so many milliseconds before or after that of the machine.
    pub fn set_clock(&self, offset_ms: i64) {
        let Some(clock) = &self.clock else { return };
        // In one step: it may be read at any moment.
        let written = clock.with_extension("new");
        let seconds = format!("{:+.3}", offset_ms as f64 / 1000.0);
        std::fs::write(&written, seconds).expect("a file can be written");
        std::fs::rename(&written, clock).expect("a file can be renamed");
    }
}

impl Running {
    async fn start(url: &str, clock: Option<&PathBuf>) -> Result<Self, String> {
        // Writes beyond a limit fail then as on a full disk.
        const SCRIPT: &str = "trap '' XFSZ; exec \"$0\" \"$@\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT])
            .arg(&*HOLDFASTD)
            .args(["--listen", "127.0.0.1:0", "--backend", url])
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let (Some(clock), Some(library)) = (clock, &*FAKETIME) {
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", clock)
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        }
        let mut child = command.spawn().expect("sh runs");
        let mut errors = child.stderr.take().expect("it has one");
        let (sender, log) = oneshot::channel();
        tokio::spawn(async move {
            let mut text = String::new();
            // What could be read of it is all there is to tell.
            let _ = errors.read_to_string(&mut text).await;
            let _ = sender.send(text);
        });
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().expect("it has one"));
        let read = timeout(PATIENCE, out.read_line(&mut line)).await;
        read.expect("it starts or ends").expect("its output can be read");
        let address = line.trim().strip_prefix("holdfastd listening on ");
        match address.and_then(|address| address.parse().ok()) {
            Some(address) => Ok(Running { child, address, log }),
            None => Err(format!("{line}{}", log.await.unwrap_or_default())),
        }
    }
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address makes a URL")
        .connect_timeout(Duration::from_secs(1))
}
