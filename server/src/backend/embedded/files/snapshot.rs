//! Writes a snapshot beside what it is to replace.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    backup::Backups,
    layer::{FileLayer, Output},
    line::{self, Header},
    names::{Kind, Name},
};
use crate::backend::{
    Change, Key, Revision,
    embedded::journal::{NamespaceState, Place, SnapshotWriter},
};

/// About how much is written and made durable at once: the journal's own syncs wait for what the disk is busy with.
const CHUNK_BYTES: usize = 32 << 10;

/// A snapshot that is being written. Its file has another name until it is whole.
pub struct Snapshot {
    layer: Arc<dyn FileLayer>,
    directory: PathBuf,
    backups: Option<Arc<Backups>>,
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
        backups: Option<Arc<Backups>>,
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
        if let Some(backups) = &self.backups {
            match self.layer.read(&to) {
                Ok(snapshot) => backups.begin(snapshot, self.number),
                Err(error) => backups.log_failure(&error),
            }
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
