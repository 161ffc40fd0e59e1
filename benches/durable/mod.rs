//! What durability costs: sets on every journal beside `memory:` and etcd, the start beside Redis, and snapshots while
//! sets go on. Every server is a process of its own, with its data in one temporary directory. What is not on this
//! machine is named and skipped.

mod disk;
mod etcd;
mod pipeline;
mod puts;
mod redis;
mod snapshot;
mod start;
mod value;

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{measure, server};

/// Prints what durability costs.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        puts::run().await;
        start::run().await;
        snapshot::run().await;
    });
}

/// A directory that is gone when dropped, on the disk that everything is measured on: that of the build, for `/tmp` is
/// in memory on many machines.
fn directory() -> TempDir {
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
