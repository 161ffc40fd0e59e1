//! Redis for tests: processes on free ports, that keep nothing unless asked to and end with the test.

#![allow(dead_code, unused_imports, reason = "each suite uses its part of this")]
#![allow(clippy::disallowed_methods, reason = "it waits for processes, by the machine's clock")]

mod clock;
mod cluster;
mod launch;
mod proxy;
mod sentinel;

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
    time::{Duration, Instant},
};

use redis::{Connection, FromRedisValue, ToRedisArgs};
use tempfile::TempDir;

pub use clock::RedisClock;
pub use cluster::Cluster;
pub use proxy::Proxy;
pub use sentinel::Sentinels;

use launch::{Running, launch};

/// Only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server is started with.
#[derive(Clone, Default)]
pub struct Options {
    /// Arguments of `redis-server` besides; `{free}` in them is a port that nobody listens on.
    pub arguments: Vec<String>,
    /// Takes the place of the machine's clock.
    pub clock: Option<RedisClock>,
    /// What the tests themselves have to say to be let in.
    pub password: Option<String>,
}

/// A Redis server, or a sentinel: killed when dropped.
pub struct Redis {
    running: Option<Running>,
    options: Options,
    /// Where it listens, on 127.0.0.1.
    pub port: u16,
    directory: TempDir,
}

/// Whether this machine has what these tests start; says so where it has not.
pub fn is_installed() -> bool {
    static INSTALLED: LazyLock<bool> = LazyLock::new(|| {
        let installed = ["redis-server", "redis-cli"].iter().all(|program| {
            Command::new(program).arg("--version").output().is_ok_and(|it| it.status.success())
        });
        if !installed {
            eprintln!("no redis-server and redis-cli here: the cases on Redis are ignored");
        }
        installed
    });
    *INSTALLED
}

/// Asks again and again until there is an answer: what is asked is another process.
#[track_caller]
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < PATIENCE, "{what}: not within {PATIENCE:?}");
        // Each question is work for the process that is waited for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Redis {
    /// Starts a server that writes nothing to disk; `None` where Redis is not installed.
    pub fn start() -> Option<Self> {
        Self::with(Options::default())
    }

    /// The same with arguments of its own.
    pub fn with_arguments(arguments: &[&str]) -> Option<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Self::with(Options { arguments, ..Options::default() })
    }

    /// The same with all there is to choose.
    pub fn with(options: Options) -> Option<Self> {
        is_installed().then(|| {
            let directory = tempfile::tempdir().expect("a directory can be made");
            let (running, port) = launch(&options, directory.path(), None);
            Redis { running: Some(running), options, port, directory }
        })
    }

    /// `HOST:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The URL by which a server of Holdfast keeps its state here.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Its directory, which goes away with it.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// A connection that goes past the network, and past what a test does to that.
    pub fn connection(&self) -> Connection {
        let password = self.options.password.as_ref();
        let password = password.map_or(String::new(), |password| format!("?pass={password}"));
        let url = format!("redis+unix://{}{password}", socket(self.directory.path()).display());
        let client = redis::Client::open(url).expect("a good address");
        let connection = client.get_connection_with_timeout(PATIENCE);
        connection.unwrap_or_else(|error| panic!("{error}: {}", self.log()))
    }

    /// Runs a command, by words.
    #[track_caller]
    pub fn run<T: FromRedisValue>(&self, words: &[impl ToRedisArgs]) -> T {
        match self.try_run(words) {
            Ok(answer) => answer,
            Err(error) => panic!("{error}"),
        }
    }

    /// Runs a command that may be refused.
    pub fn try_run<T: FromRedisValue>(
        &self,
        words: &[impl ToRedisArgs],
    ) -> Result<T, redis::RedisError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word);
        }
        command.query(&mut self.connection())
    }

    /// Runs commands on one connection: what the first does to those that are made later does not matter to it.
    #[track_caller]
    pub fn run_all(&self, commands: &[&[&str]]) {
        let mut connection = self.connection();
        for words in commands {
            let mut command = redis::Cmd::new();
            command.arg(*words).exec(&mut connection).unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// A line of `INFO`.
    #[track_caller]
    pub fn info(&self, name: &str) -> String {
        let info: String = self.run(&["INFO", "all"]);
        let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no `{name}` in {info}")).to_owned()
    }

    /// Stops it in the middle of whatever it does.
    pub fn pause(&self) {
        self.signal("STOP");
    }

    /// Lets it go on.
    pub fn go_on(&self) {
        self.signal("CONT");
    }

    /// Kills it. Its directory stays.
    pub fn kill(&mut self) {
        self.running = None;
    }

    /// Starts it again at the same address after it was killed; it loads what it has kept, if it keeps anything.
    pub fn start_again(&mut self) {
        self.kill();
        let (running, _) = launch(&self.options, self.directory.path(), Some(self.port));
        self.running = Some(running);
    }

    /// Starts it as a replica of the server at this port after it was killed, without what it had.
    pub fn follow(&mut self, port: &str) {
        let arguments = &mut self.options.arguments;
        if let Some(at) = arguments.iter().position(|argument| argument == "--replicaof") {
            arguments.drain(at..at + 3);
        }
        arguments.extend(["--replicaof", "127.0.0.1", port].map(str::to_owned));
        self.kill();
        self.forget();
        self.start_again();
    }

    /// Writes down all that it has by now: what it comes back with when it is started again.
    pub fn save(&self) {
        self.run::<()>(&["SAVE"]);
    }

    /// Takes away what it has written down.
    pub fn forget(&self) {
        // There may be nothing.
        let _ = std::fs::remove_file(self.directory.path().join("dump.rdb"));
    }

    /// What it has said.
    pub fn log(&self) -> String {
        self.running.as_ref().map_or("killed".to_owned(), Running::log)
    }

    fn signal(&self, name: &str) {
        let running = self.running.as_ref().expect("it runs");
        let sent = Command::new("kill").args(["-s", name, &running.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "{name}");
    }
}

/// Its socket for those on this machine.
fn socket(directory: &Path) -> PathBuf {
    directory.join("socket")
}
