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

use super::{
    layer::{FileLayer, Output},
    line::{self, Header},
    names::{Kind, Name},
};

/// How much is copied and made durable at once.
const CHUNK_BYTES: usize = 256 << 10;

/// Where copies of snapshots go.
pub struct Backups {
    layer: Arc<dyn FileLayer>,
    directory: PathBuf,
    /// How many are kept.
    keep: usize,
    is_copying: AtomicBool,
    is_over: AtomicBool,
}

impl Backups {
    pub fn new(layer: Arc<dyn FileLayer>, directory: PathBuf, keep: usize) -> Self {
        let (is_copying, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { layer, directory, keep, is_copying, is_over }
    }

    /// Gives up what is being copied, as the server stops.
    pub fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// Begins to copy a snapshot, which may be replaced meanwhile.
    pub fn begin(self: &Arc<Self>, snapshot: Box<dyn Read + Send>, number: u64) {
        if self.is_copying.swap(true, Ordering::Relaxed) {
            let directory = self.directory.display();
            tracing::error!(%directory, "no copy is kept of this snapshot: the last is still being copied");
            return;
        }
        let backups = self.clone();
        let begun = thread::Builder::new().name("backup".into()).spawn(move || {
            let kept = backups.keep(snapshot, number);
            backups.is_copying.store(false, Ordering::Relaxed);
            if let Err(error) = kept {
                backups.failed(&error);
            }
        });
        if let Err(error) = begun {
            self.is_copying.store(false, Ordering::Relaxed);
            self.failed(&error);
        }
    }

    /// Tells that no copy could be kept.
    pub fn failed(&self, error: &io::Error) {
        let directory = self.directory.display();
        tracing::error!(%error, %directory, "no copy of the snapshot could be kept");
    }

    /// Keeps a copy, and removes what is too many.
    fn keep(&self, snapshot: Box<dyn Read + Send>, number: u64) -> io::Result<()> {
        self.layer.make_directory(&self.directory)?;
        let (whole, torn): (Vec<_>, _) =
            self.names()?.into_iter().partition(|name| name.kind == Kind::Snapshot);
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

    /// The files that are there, in the order of their numbers.
    fn names(&self) -> io::Result<Vec<Name>> {
        let files = self.layer.list(&self.directory)?;
        let mut names: Vec<_> = files.iter().filter_map(|file| Name::parse(file)).collect();
        names.sort();
        Ok(names)
    }

    fn path(&self, name: Name) -> PathBuf {
        self.directory.join(name.to_string())
    }
}
