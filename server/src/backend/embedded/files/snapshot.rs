//! Writes a snapshot beside what it is to replace.

use std::{
    io::{self, BufRead as _, BufReader},
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    layer::{FileLayer, Output},
    line::{self, Header},
    names::{Kind, Name},
};
use crate::backend::{
    Change, Key, Revision,
    embedded::journal::{NamespaceState, Place, SnapshotWriter},
};

/// About how much is written and made durable at once: the journal's own syncs wait for what the disk is busy with.
const CHUNK_BYTES: usize = 256 << 10;

/// Where copies of snapshots go, and how many are kept.
#[derive(Clone, Debug)]
pub struct Backups {
    pub directory: PathBuf,
    pub keep: usize,
}

/// A snapshot that is being written. Its file has another name until it is whole.
pub struct Snapshot {
    layer: Arc<dyn FileLayer>,
    directory: PathBuf,
    backups: Option<Backups>,
    number: u64,
    file: Box<dyn Output>,
    buffer: Vec<u8>,
    lines: u64,
    finished: bool,
}

impl Snapshot {
    /// Begins the snapshot with this first line.
    pub fn create(
        layer: Arc<dyn FileLayer>,
        directory: &Path,
        backups: Option<Backups>,
        header: Header,
    ) -> io::Result<Self> {
        let number = header.number;
        let file = layer.create(&directory.join(temporary(number)))?;
        let buffer = line::header("snapshot", header);
        let directory = directory.to_owned();
        Ok(Self { layer, directory, backups, number, file, buffer, lines: 1, finished: false })
    }

    fn count(&mut self) -> Result<(), String> {
        self.lines += 1;
        if self.buffer.len() >= CHUNK_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), String> {
        self.file.write(&self.buffer).map_err(|error| self.failed("write", &error))?;
        self.buffer.clear();
        self.file.sync().map_err(|error| self.failed("sync", &error))
    }

    fn failed(&self, what: &str, error: &io::Error) -> String {
        format!("cannot {what} {}: {error}", self.directory.join(temporary(self.number)).display())
    }

    /// What the snapshot replaces is not needed any more. What cannot be removed now is the next time.
    fn remove_older(&self) -> io::Result<()> {
        for file in self.layer.list(&self.directory)? {
            let old = Name::parse(&file).is_some_and(|name| {
                name.number < self.number && matches!(name.kind, Kind::Journal | Kind::Snapshot)
            });
            if old {
                self.layer.remove(&self.directory.join(file))?;
            }
        }
        Ok(())
    }

    fn back_up(&self, backups: &Backups) -> io::Result<()> {
        let Backups { directory, keep } = backups;
        self.layer.make_directory(directory)?;
        let name = Name { kind: Kind::Snapshot, number: self.number }.to_string();
        let temporary = directory.join(temporary(self.number));
        let mut copy = self.layer.create(&temporary)?;
        let written = self.copy_to(&mut *copy, &self.directory.join(&name));
        if let Err(error) = written {
            self.layer.remove(&temporary)?;
            return Err(error);
        }
        self.layer.rename(&temporary, &directory.join(&name))?;
        self.layer.sync_directory(directory)?;
        let names = self.layer.list(directory)?;
        let names = names.iter().filter_map(|name| Name::parse(name));
        let mut kept: Vec<_> = names.filter(|name| name.kind == Kind::Snapshot).collect();
        kept.sort_by_key(|name| std::cmp::Reverse(name.number));
        for old in kept.iter().skip(*keep) {
            self.layer.remove(&directory.join(old.to_string()))?;
        }
        Ok(())
    }

    /// Copies a snapshot; the copy says in its first line that it is one.
    fn copy_to(&self, copy: &mut dyn Output, from: &Path) -> io::Result<()> {
        let mut file = BufReader::with_capacity(CHUNK_BYTES, self.layer.read(from)?);
        file.read_until(b'\n', &mut Vec::new())?;
        let header = Header { number: self.number, copy: true, ..Header::default() };
        copy.write(&line::header("snapshot", header))?;
        let mut copy = io::BufWriter::with_capacity(CHUNK_BYTES, Writing(copy));
        io::copy(&mut file, &mut copy)?;
        io::Write::flush(&mut copy)
    }
}

impl SnapshotWriter for Snapshot {
    fn begin(&mut self, state: &NamespaceState) -> Result<(), String> {
        line::namespace(&mut self.buffer, state);
        self.count()
    }

    fn put(&mut self, change: &Change, place: Place, same_value: bool) -> Result<(), String> {
        line::version(&mut self.buffer, change, place, same_value);
        self.count()
    }

    fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        line::dropped(&mut self.buffer, key);
        self.count()
    }

    fn end(&mut self, compacted: Revision) -> Result<(), String> {
        line::namespace_end(&mut self.buffer, compacted);
        self.count()
    }

    fn finish(mut self: Box<Self>) -> Result<(), String> {
        line::snapshot_end(&mut self.buffer, self.lines);
        self.flush()?;
        let name = Name { kind: Kind::Snapshot, number: self.number }.to_string();
        let (from, to) = (self.directory.join(temporary(self.number)), self.directory.join(name));
        self.layer.rename(&from, &to).map_err(|error| self.failed("rename", &error))?;
        self.finished = true;
        // Before this what is older is still needed.
        let synced = self.layer.sync_directory(&self.directory);
        synced.map_err(|error| self.failed("sync the directory of", &error))?;
        if let Err(error) = self.remove_older() {
            tracing::warn!(%error, "what a snapshot has replaced is not all removed");
        }
        if let Some(backups) = &self.backups
            && let Err(error) = self.back_up(backups)
        {
            let directory = backups.directory.display();
            tracing::error!(%error, %directory, "no copy of the snapshot could be kept");
        }
        Ok(())
    }
}

impl Drop for Snapshot {
    fn drop(&mut self) {
        if !self.finished {
            // What stays is removed at the next start.
            let _ = self.layer.remove(&self.directory.join(temporary(self.number)));
        }
    }
}

fn temporary(number: u64) -> String {
    Name { kind: Kind::Temporary, number }.to_string()
}

/// An output as the standard library writes to it; what is written is durable.
struct Writing<'a>(&'a mut dyn Output);

impl io::Write for Writing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)?;
        self.0.sync()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
