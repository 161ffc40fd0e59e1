//! Servers, in this program or in another process, and clients of them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, Command, Stdio},
};

use holdfast_client::Client;
use holdfast_server::{busy_poll, config::Config, memory, serve::Server};
use tonic::transport::{Channel, Endpoint};

/// The argument by which this program is a server and nothing else; the URL of the backend follows.
pub const SERVE: &str = "--serve";

/// Starts a server on a free port, which runs as long as the runtime; answers its address.
pub async fn start() -> String {
    let server = bind("memory:").await;
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(std::future::pending()));
    address
}

/// A client with a connection of its own.
pub async fn connect(address: &str) -> Client {
    Client::connect(address).await.expect("the server serves")
}

/// A bare connection, for calls as other languages make them.
pub async fn channel(address: &str) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("a good address");
    endpoint.tcp_nodelay(true).connect().await.expect("the server serves")
}

/// A server in a process of its own, killed when dropped.
pub struct Apart {
    process: Child,
    /// Where it listens.
    pub address: String,
}

impl Apart {
    /// Starts this program as a server, and waits until it has loaded its state.
    pub fn start(url: &str) -> Self {
        Self::start_with(&[SERVE, url])
    }

    /// Starts this program with arguments by which it becomes a server that prints its address.
    pub fn start_with(args: &[&str]) -> Self {
        let program = std::env::current_exe().expect("this program has a file");
        let mut process = Command::new(program)
            .args(args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program can be started");
        let output = process.stdout.take().expect("it was asked for");
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address).expect("its output can be read");
        assert!(!address.is_empty(), "a server with {args:?} starts");
        Self { process, address: address.trim().into() }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        // If it has ended already, that is just as well.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How many bytes of memory a process has, where the system says so.
pub fn resident_bytes(id: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

/// Is a server until it is killed. The first line printed is its address.
pub fn serve(url: &str) {
    // As `holdfastd` does.
    memory::use_small_pages();
    let runtime = busy_poll::runtime(Config::default().busy_poll).expect("a runtime can be built");
    runtime.block_on(async {
        let server = bind(url).await;
        println!("{}", server.local_addr());
        std::io::stdout().flush().expect("somebody listens");
        server.run(std::future::pending()).await.expect("it serves until it is killed");
    });
}

async fn bind(url: &str) -> Server {
    let config = Config { listen: "127.0.0.1:0".into(), backend: url.into(), ..Config::default() };
    Server::bind(config).await.expect("a free port can be bound, and the backend opened")
}
