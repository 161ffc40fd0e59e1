//! Journals that are prepared ahead.
//!
//! What makes a file longer is durable only with the file's new length, and for that a file system writes to a journal of
//! its own. What is written over something is durable by itself, in half the time. So the next journal is made ahead, on
//! a thread beside the one that appends: its first line, and ends of lines up to the length it is to have, which whoever
//! reads it takes for blank lines. Commits are written over those.

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::layer::{FileLayer, Output};

/// About how much is written and made durable at once: the commits' own syncs wait for what the disk is busy with.
const CHUNK_BYTES: usize = 1 << 20;
/// Lengths are whole multiples of this.
const BLOCK_BYTES: u64 = 4096;

/// A journal without a commit.
pub struct Prepared {
    /// What is written next to it comes after its first line.
    pub file: Box<dyn Output>,
    pub number: u64,
    /// How long its first line is.
    pub length: u64,
    /// How long it is.
    pub filled: u64,
}

/// The journal that is being prepared.
pub struct Ahead {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Prepared>>,
}

/// What is to be prepared.
pub struct Plan {
    pub directory: PathBuf,
    pub path: PathBuf,
    pub number: u64,
    pub first_line: Vec<u8>,
    /// About how much is to fit in.
    pub bytes: u64,
}

impl Ahead {
    /// Begins to prepare a journal.
    pub fn begin(layer: Arc<dyn FileLayer>, plan: Plan) -> io::Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let prepare = move || {
            let prepared = prepare(&*layer, &plan, &stopped);
            if prepared.is_err() {
                // It may be the room that others need. What stays is removed at the next start.
                let _ = layer.remove(&plan.path);
            }
            prepared
        };
        let thread = thread::Builder::new().name("journal-ahead".into()).spawn(prepare)?;
        Ok(Self { stop, thread })
    }

    /// Whether there is nothing to wait for.
    pub fn is_done(&self) -> bool {
        self.thread.is_finished()
    }

    /// What came of it, at once: what is not done yet is given up.
    pub fn end(self) -> io::Result<Prepared> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked")))
    }
}

fn prepare(layer: &dyn FileLayer, plan: &Plan, stop: &AtomicBool) -> io::Result<Prepared> {
    let mut file = layer.create(&plan.path)?;
    file.write(&plan.first_line)?;
    let length = plan.first_line.len() as u64;
    let filled = (length + plan.bytes).next_multiple_of(BLOCK_BYTES);
    let blank = vec![b'\n'; CHUNK_BYTES];
    let mut at = length;
    while at < filled {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let chunk = blank.len().min((filled - at) as usize);
        file.write(&blank[..chunk])?;
        file.sync()?;
        at += chunk as u64;
    }
    layer.sync_directory(&plan.directory)?;
    file.go_to(length)?;
    Ok(Prepared { file, number: plan.number, length, filled })
}
