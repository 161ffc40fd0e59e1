//! Starts the program, and waits until it is ready.

use std::{
    io::{self, BufRead as _, BufReader},
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
};

use parking_lot::Mutex;

use super::{Options, PATIENCE, socket};

/// A program that runs. Killed when dropped.
pub struct Running {
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Running {
    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        self.log.lock().clone()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a program on this port, or else on a free one; which one.
pub fn launch(options: &Options, directory: &Path, port: Option<u16>) -> (Running, u16) {
    const ATTEMPTS: usize = 20;
    let mut log = String::new();
    for _ in 0..ATTEMPTS {
        // Somebody else may take it before the program does.
        let port = port.unwrap_or_else(free_port);
        match attempt(options, directory, port) {
            Ok(running) => return (running, port),
            Err(said) => log = said,
        }
        assert!(log.contains("Address already in use"), "it does not start: {log}");
    }
    panic!("no port for it: {log}");
}

/// A port that nobody listens on now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    listener.local_addr().expect("it has an address").port()
}

/// Starts a program; or what it said, where it ends before it is ready.
fn attempt(options: &Options, directory: &Path, port: u16) -> Result<Running, String> {
    let (output, input) = io::pipe().expect("a pipe can be made");
    let also_input = input.try_clone().expect("a pipe can be shared");
    let mut command = Command::new("redis-server");
    // A file of settings comes first.
    let (files, others): (Vec<_>, Vec<_>) =
        options.arguments.iter().partition(|argument| argument.ends_with(".conf"));
    command
        .args(files)
        .args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", ""])
        .arg("--unixsocket")
        .arg(socket(directory))
        .arg("--dir")
        .arg(directory)
        .args(others.iter().map(|argument| argument.replace("{free}", &free_port().to_string())))
        .stdin(Stdio::null())
        .stdout(input)
        .stderr(also_input);
    if let Some(clock) = &options.clock {
        command.envs(clock.environment());
    }
    let child = command.spawn().expect("redis-server runs");
    // What is left of the command holds the pipe open.
    drop(command);
    let log = Arc::new(Mutex::new(String::new()));
    let running = Running { child, log: log.clone() };
    let (sender, ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            let is_ready = ["Ready to accept connections", "Sentinel ID is"];
            let is_ready = is_ready.iter().any(|words| line.contains(words));
            *log.lock() += &format!("{line}\n");
            if is_ready {
                // Only the first is waited for.
                let _ = sender.send(());
            }
        }
    });
    match ready.recv_timeout(PATIENCE) {
        Ok(()) => Ok(running),
        Err(_) => Err(running.log()),
    }
}
