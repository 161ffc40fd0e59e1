//! Starts the program on a free port, and ends it with the test.

use std::{
    fs,
    path::PathBuf,
    process::{Output, Stdio},
    time::Duration,
};

use holdfast_proto::v1::{
    kv_service_client::KvServiceClient, watch_service_client::WatchServiceClient,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};
use tonic_health::pb::health_client::HealthClient;

/// Only ends a test that would hang.
const PATIENCE: Duration = Duration::from_secs(60);

/// A call of the program, not yet made.
pub struct Call {
    command: Command,
    directory: TempDir,
}

/// A program that serves.
pub struct Program {
    child: Child,
    log: JoinHandle<String>,
    address: String,
    /// Removes its files with it.
    _directory: TempDir,
}

/// The program with these arguments and nothing in its environment.
pub fn holdfastd(arguments: &[&str]) -> Call {
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfastd"));
    command
        .args(arguments)
        .env_clear()
        .current_dir(directory.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    Call { command, directory }
}

/// A program that listens on a free port, with its state in memory unless the arguments say otherwise.
pub async fn start(arguments: &[&str]) -> Program {
    let call = holdfastd(&[&["--listen", "127.0.0.1:0"], arguments].concat());
    call.variable("HOLDFASTD_BACKEND", "memory:").start().await
}

impl Call {
    /// Sets a variable.
    pub fn variable(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Has a shell do this first, which the program then takes the place of.
    #[allow(dead_code, reason = "not every suite that has this file needs it")]
    pub fn after(mut self, script: &str) -> Self {
        let program = self.command.as_std();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{script}; exec \"$0\" \"$@\"")]);
        command.arg(program.get_program()).args(program.get_args());
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        self.command = command;
        self
    }

    /// Puts a file where the program runs.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.path(name), text).unwrap();
        self
    }

    /// Where such a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Waits until the program has ended.
    pub async fn output(mut self) -> Output {
        timeout(PATIENCE, self.command.output()).await.expect("it ends").unwrap()
    }

    /// Standard output of a program that ends well.
    pub async fn prints(self) -> String {
        let output = self.output().await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a program that ends with `status` before it serves.
    pub async fn refused(self, status: i32) -> String {
        let output = self.output().await;
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{error}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "nothing is served");
        error
    }

    /// Waits until the program serves.
    pub async fn start(mut self) -> Program {
        let mut child = self.command.spawn().unwrap();
        let mut errors = child.stderr.take().unwrap();
        let log = tokio::spawn(async move {
            let mut log = String::new();
            errors.read_to_string(&mut log).await.unwrap();
            log
        });
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        timeout(PATIENCE, out.read_line(&mut line)).await.expect("it starts").unwrap();
        let Some(address) = line.strip_prefix("holdfastd listening on ") else {
            panic!("first line {line:?}, then {}", log.await.unwrap());
        };
        let address = address.trim_end().to_owned();
        Program { child, log, address, _directory: self.directory }
    }
}

impl Program {
    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where to connect. Small windows: what a client does not read stays with the server.
    pub fn endpoint(&self, scheme: &str) -> Endpoint {
        Endpoint::from_shared(format!("{scheme}://{}", self.address))
            .unwrap()
            .initial_stream_window_size(65_535)
            .timeout(PATIENCE)
    }

    pub async fn channel(&self) -> Channel {
        self.endpoint("http").connect().await.unwrap()
    }

    pub async fn kv(&self) -> KvServiceClient<Channel> {
        KvServiceClient::new(self.channel().await)
    }

    pub async fn watches(&self) -> WatchServiceClient<Channel> {
        WatchServiceClient::new(self.channel().await)
    }

    pub async fn health(&self) -> HealthClient<Channel> {
        HealthClient::new(self.channel().await)
    }

    /// The id of its process.
    pub fn process(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// Sends a signal, such as `TERM`.
    pub async fn signal(&self, name: &str) {
        let process = self.process();
        let script = format!("kill -{name} {process}");
        let sent = Command::new("sh").args(["-c", &script]).status().await.unwrap();
        assert!(sent.success(), "{script}");
    }

    /// Waits until it has ended; its exit status and its log.
    pub async fn ended(mut self) -> (Option<i32>, String) {
        let status = timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap();
        (status.code(), self.log.await.unwrap())
    }
}
