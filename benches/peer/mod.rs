//! Servers to compare with, each a process of its own. What is not on this machine is named and skipped.

pub mod echo;
pub mod etcd;
pub mod redis;

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::server;

/// A directory that is gone when dropped, on the disk that everything is measured on: that of the build, for `/tmp` is
/// in memory on many machines.
pub fn directory() -> TempDir {
    let target = std::env::current_exe().expect("this program has a file");
    let parent = target.parent().expect("a file is in a directory");
    tempfile::tempdir_in(parent).expect("a directory can be made")
}

/// Where a program is.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found = std::env::split_paths(&path).map(|directory| directory.join(program));
    found.into_iter().find(|file| file.is_file())
}

/// What a program says of its version, in its first line.
fn version(program: &str) -> Option<String> {
    let output = Command::new(find(program)?).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.lines().next()?.split(" sha=").next()?.to_owned())
}

/// A port that is free now.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port can be bound");
    listener.local_addr().expect("it has an address").port()
}

/// Somebody else's server, killed when dropped.
struct Peer(Child);

impl Peer {
    fn start(command: &mut Command) -> Self {
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(process.spawn().expect("a program on the path can be started"))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // If it has ended already, that is just as well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
