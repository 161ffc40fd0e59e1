//! A primary with a replica, and three sentinels who watch over them.

use std::fs;

use tempfile::TempDir;

use super::{Options, Redis, until};

/// The name by which the sentinels know the primary.
const NAME: &str = "main";
/// How long a server may be silent, in milliseconds: a machine that tests is busy at times, and no reason to fail over.
const PATIENCE_MS: u64 = 30_000;
/// How long once the primary is known to be gone.
const HURRY_MS: u64 = 500;

/// Redis servers, of which the sentinels make another one the primary when that is gone.
pub struct Sentinels {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
    /// Where the sentinels write down what they learn.
    _files: Vec<TempDir>,
}

impl Sentinels {
    /// Starts a primary and so many replicas; `None` where Redis is not installed.
    pub fn start(replicas: usize) -> Option<Self> {
        let shared = ["--repl-diskless-sync-delay", "0", "--repl-ping-replica-period", "1"];
        let primary = Redis::with_arguments(&shared)?;
        let port = primary.port.to_string();
        let following = ["--replicaof", "127.0.0.1", &port];
        let mut servers = vec![primary];
        for _ in 0..replicas {
            servers.push(Redis::with_arguments(&[&shared[..], &following].concat())?);
        }
        until("the replicas follow", || {
            let is_online = |number| servers[0].info(&format!("slave{number}")).contains("online");
            let connected = servers[0].info("connected_slaves") == replicas.to_string();
            (connected && (0..replicas).all(is_online)).then_some(())
        });
        let started = (0..3).map(|_| sentinel(&port)).collect::<Option<Vec<_>>>()?;
        let (sentinels, files) = started.into_iter().unzip();
        let whole = Self { servers, sentinels, _files: files };
        until("the sentinels know of all", || whole.know_of_all().then_some(()));
        Some(whole)
    }

    /// The URL by which a server of Holdfast keeps its state here.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.sentinels.iter().map(Redis::address).collect();
        format!("redis+sentinel://{}/{NAME}", addresses.join(","))
    }

    /// The index of the primary, by what the sentinels say.
    pub fn primary(&self) -> usize {
        let words = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME];
        let (_, port): (String, u16) = self.sentinels[0].run(&words);
        let found = self.servers.iter().position(|server| server.port == port);
        found.expect("one of these is the primary")
    }

    /// Waits until the replicas have what the primary has by now.
    pub fn catch_up(&self) {
        let primary = self.primary();
        let offset = |server: &Redis, name: &str| server.info(name).parse::<u64>().expect("one");
        let by_now = offset(&self.servers[primary], "master_repl_offset");
        for (_, replica) in self.servers.iter().enumerate().filter(|(it, _)| *it != primary) {
            until("the replicas have all", || {
                (offset(replica, "slave_repl_offset") >= by_now).then_some(())
            });
        }
    }

    /// Has the primary go on without its replicas, which do not get what it is told from now on.
    pub fn part(&self) {
        let primary = self.primary();
        for (_, replica) in self.servers.iter().enumerate().filter(|(it, _)| *it != primary) {
            // There is none: it is not let in when it comes again.
            replica.run::<()>(&["CONFIG", "SET", "masterauth", "wrong"]);
        }
        self.servers[primary].run::<u64>(&["CLIENT", "KILL", "TYPE", "replica"]);
    }

    /// Kills the primary, and waits until there is another; the index of the former.
    pub fn fail_over(&mut self) -> usize {
        let former = self.primary();
        self.servers[former].kill();
        self.take_for_dead_after(HURRY_MS);
        until("there is another primary", || {
            let now = self.primary();
            (now != former && self.servers[now].info("role") == "master").then_some(())
        });
        self.take_for_dead_after(PATIENCE_MS);
        former
    }

    fn take_for_dead_after(&self, silent_ms: u64) {
        let silent_ms = silent_ms.to_string();
        for sentinel in &self.sentinels {
            sentinel.run::<()>(&["SENTINEL", "SET", NAME, "down-after-milliseconds", &silent_ms]);
        }
    }

    /// Starts one that was killed, as a replica of the primary, with nothing of what it had.
    pub fn rejoin(&mut self, former: usize) {
        let port = self.servers[self.primary()].port.to_string();
        self.servers[former].follow(&port);
        for server in &self.servers {
            server.run::<()>(&["CONFIG", "SET", "masterauth", ""]);
        }
        until("it follows", || {
            (self.servers[former].info("master_link_status") == "up").then_some(())
        });
    }

    fn know_of_all(&self) -> bool {
        let others = self.sentinels.len() - 1;
        let replicas = self.servers.len() - 1;
        self.sentinels.iter().all(|sentinel| {
            let known: Vec<String> = sentinel.run(&["SENTINEL", "MASTER", NAME]);
            let number = |name: &str| {
                let place = known.iter().position(|word| word == name);
                place.and_then(|place| known[place + 1].parse().ok())
            };
            number("num-slaves") == Some(replicas) && number("num-other-sentinels") == Some(others)
        })
    }
}

/// A sentinel, and the directory of its settings, into which it writes as long as it runs.
fn sentinel(port: &str) -> Option<(Redis, TempDir)> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let file = directory.path().join("sentinel.conf");
    let settings = format!(
        "sentinel monitor {NAME} 127.0.0.1 {port} 2\n\
         sentinel down-after-milliseconds {NAME} {PATIENCE_MS}\n\
         sentinel failover-timeout {NAME} 3000\n"
    );
    fs::write(&file, settings).expect("a file can be written");
    let arguments = vec![file.display().to_string(), "--sentinel".to_owned()];
    let sentinel = Redis::with(Options { arguments, ..Options::default() })?;
    Some((sentinel, directory))
}
