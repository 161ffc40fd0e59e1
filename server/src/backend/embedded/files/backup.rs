//! Copies of snapshots. Where they go may be slow or hang: so they are made one at a time on a thread of their own, which
//! nothing waits for.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use parking_lot::Mutex;

use super::{
    layer::{FileLayer, Output},
    line::{self, Header},
    names::{Kind, LOCK, Name},
};

/// How much is copied and made durable at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Where copies of snapshots go.
pub struct Backups {
    layer: Arc<dyn FileLayer>,
    directory: PathBuf,
    /// How many are kept.
    keep: usize,
    queue: Mutex<Queue>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Queue {
    is_copying: bool,
    /// The snapshot that is copied next, with its number.
    next: Option<(Box<dyn Read + Send>, u64)>,
}

impl Backups {
    pub fn new(layer: Arc<dyn FileLayer>, directory: PathBuf, keep: usize) -> Self {
        Self { layer, directory, keep, queue: Mutex::default(), is_over: AtomicBool::new(false) }
    }

    /// Gives up what is being copied, as the server stops.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Has a snapshot copied, which may be replaced meanwhile. While another is being copied it waits, unless a later one comes.
    pub fn begin(self: &Arc<Self>, snapshot: Box<dyn Read + Send>, number: u64) {
        let mut queue = self.queue.lock();
        if queue.next.replace((snapshot, number)).is_some() {
            let directory = self.directory.display();
            tracing::warn!(%directory, "a snapshot is not copied, for it took longer to copy the one before it");
        }
        if queue.is_copying {
            return;
        }
        let backups = self.clone();
        let begun = thread::Builder::new().name("backup".into()).spawn(move || backups.run());
        match begun {
            Ok(_) => queue.is_copying = true,
            Err(error) => self.log_failure(&error),
        }
    }

    /// Copies what is waiting.
    fn run(&self) {
        loop {
            let next = {
                let mut queue = self.queue.lock();
                queue.is_copying = queue.next.is_some();
                queue.next.take()
            };
            let Some((snapshot, number)) = next else {
                return;
            };
            if let Err(error) = self.add(snapshot, number) {
                self.log_failure(&error);
            }
        }
    }

    /// Tells that no copy could be kept.
    pub fn log_failure(&self, error: &io::Error) {
        let directory = self.directory.display();
        tracing::error!(%error, %directory, "no copy of the snapshot could be kept");
    }

    /// Adds a copy, and removes those that are too many.
    fn add(&self, snapshot: Box<dyn Read + Send>, number: u64) -> io::Result<()> {
        self.layer.make_directory(&self.directory)?;
        let files = self.layer.list(&self.directory)?;
        if files.iter().any(|file| file == LOCK) {
            // With copies beside it, it would not be whole.
            let problem = "the state of a server is there: set `backup_dir` to another directory";
            return Err(io::Error::other(problem));
        }
        let mut names: Vec<_> = files.iter().filter_map(|file| Name::parse(file)).collect();
        names.sort();
        let (whole, torn): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.kind == Kind::Snapshot);
        for left in torn.into_iter().filter(|name| name.kind == Kind::Temporary) {
            self.layer.remove(&self.path(left))?;
        }
        // There may be copies of a former history. The newest is the one with the highest number also then.
        let number = whole.last().map_or(number, |newest| number.max(newest.number + 1));
        let temporary = self.path(Name { kind: Kind::Temporary, number });
        let copied =
            self.layer.create(&temporary).and_then(|copy| self.copy(copy, snapshot, number));
        if let Err(error) = copied {
            // What stays is removed before the next copy.
            let _ = self.layer.remove(&temporary);
            return Err(error);
        }
        self.layer.rename(&temporary, &self.path(Name { kind: Kind::Snapshot, number }))?;
        self.layer.sync_directory(&self.directory)?;
        let too_many = (whole.len() + 1).saturating_sub(self.keep);
        for old in whole.into_iter().take(too_many) {
            self.layer.remove(&self.path(old))?;
        }
        Ok(())
    }

    /// Copies a snapshot; the copy says in its first line that it is one.
    fn copy(
        &self,
        mut copy: Box<dyn Output>,
        snapshot: Box<dyn Read + Send>,
        number: u64,
    ) -> io::Result<()> {
        let mut snapshot = BufReader::with_capacity(CHUNK_BYTES, snapshot);
        snapshot.read_until(b'\n', &mut Vec::new())?;
        copy.write(&line::header("snapshot", Header { number, copy: true, ..Header::default() }))?;
        loop {
            let chunk = snapshot.fill_buf()?;
            let bytes = chunk.len();
            if bytes == 0 {
                return copy.sync();
            }
            if self.is_over.load(Ordering::Relaxed) {
                return Err(io::Error::other("the server stopped meanwhile"));
            }
            copy.write(chunk)?;
            copy.sync()?;
            snapshot.consume(bytes);
        }
    }

    fn path(&self, name: Name) -> PathBuf {
        self.directory.join(name.to_string())
    }
}
