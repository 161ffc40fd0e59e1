//! A journal in files: JSON lines that can be read with `less` and `jq`.
//!
//! `journal-N.jsonl` has commits in their order; `snapshot-N.jsonl` has the state to which journal N and those after it are
//! to be applied. Beginning a snapshot begins the next journal; the snapshot replaces all with lower numbers once it
//! is whole. The format is described in `docs/backends.md`.
//!
//! Invariant: a journal is written to only at its end, and what is after the last write that succeeded is cut off, or the
//! file is abandoned, before anything else is written.

mod decode;
mod layer;
mod line;
mod load;
mod names;
mod options;
mod snapshot;
#[cfg(test)]
mod tests;
mod verify;

use std::{any::Any, io, path::PathBuf, process, sync::Arc};

pub use self::{
    layer::{Disk, FileLayer, Output},
    options::{Options, Sync},
    verify::{Report, verify},
};
use self::{
    line::Header,
    load::{Found, io_error},
    names::{Kind, LOCK, Name, PROBE},
    snapshot::{Backups, Snapshot},
};
use super::journal::{AppendError, Encoder, Journal, LoadError, Pending, Restore, SnapshotWriter};

/// At least so much room is asked for after a disk was full.
const PROBE_BYTES: usize = 64 << 10;

/// A directory with journals and snapshots, which this process owns.
pub struct Files {
    layer: Arc<dyn FileLayer>,
    options: Options,
    current: Option<Current>,
    /// How much was appended since the last snapshot was begun.
    grown_bytes: u64,
    /// All that is appended together.
    buffer: Vec<u8>,
    _lock: Box<dyn Any + Send>,
}

/// The journal that is written to.
struct Current {
    file: Box<dyn Output>,
    number: u64,
    /// How long it is, with all that was appended.
    length: u64,
    /// Whether something was appended that may not be durable.
    unsynced: bool,
    condition: Condition,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Condition {
    /// It can be appended to.
    Fit,
    /// It could not take so many bytes, but is as it was before.
    Full(usize),
    /// Nobody knows what is in it.
    Abandoned,
}

impl Files {
    /// Takes a directory, which is made if it is not there.
    ///
    /// # Errors
    /// Where another process has it, or the system refuses.
    pub fn open(layer: Arc<dyn FileLayer>, options: Options) -> Result<Self, LoadError> {
        let directory = &options.directory;
        layer.make_directory(directory).map_err(|error| io_error(directory, error))?;
        let path = directory.join(LOCK);
        let owner = format!("{}\n", process::id());
        let lock = match layer.lock(&path, &owner).map_err(|error| io_error(&path, error))? {
            Ok(lock) => lock,
            Err(owner) => {
                let place = directory.display().to_string();
                let owner = format!("the process {}", owner.trim());
                return Err(LoadError::InUse { place, owner });
            }
        };
        let (buffer, grown_bytes) = (Vec::new(), 0);
        Ok(Self { layer, options, current: None, grown_bytes, buffer, _lock: lock })
    }

    fn path(&self, kind: Kind, number: u64) -> PathBuf {
        self.options.directory.join(Name { kind, number }.to_string())
    }

    /// Makes an empty journal.
    fn create(&self, header: Header) -> io::Result<Current> {
        let mut file = self.layer.create(&self.path(Kind::Journal, header.number))?;
        let first = line::header("journal", header);
        file.write(&first)?;
        file.sync()?;
        self.layer.sync_directory(&self.options.directory)?;
        let (number, length) = (header.number, first.len() as u64);
        Ok(Current { file, number, length, unsynced: false, condition: Condition::Fit })
    }

    /// Does what is to be done before anything is written.
    fn prepare(&self, found: &Found) -> io::Result<Current> {
        for torn in &found.torn {
            let path = self.path(Kind::Journal, torn.number);
            tracing::warn!(
                file = %path.display(), line = torn.line, bytes = torn.bytes,
                "the last record was not written whole, and never acknowledged: it is cut off"
            );
            let mut file = self.layer.append(&path)?;
            file.truncate(torn.length)?;
            file.sync()?;
        }
        for stale in &found.stale {
            self.layer.remove(&self.options.directory.join(stale))?;
        }
        match found.current {
            None => self.create(Header { number: found.next, ..Header::default() }),
            Some((number, length)) => {
                let mut file = self.layer.append(&self.path(Kind::Journal, number))?;
                // A process that was killed may have left what is not durable yet.
                file.sync()?;
                self.layer.sync_directory(&self.options.directory)?;
                let condition = Condition::Fit;
                Ok(Current { file, number, length, unsynced: false, condition })
            }
        }
    }

    fn backups(&self) -> Option<Backups> {
        let directory = self.options.backup_directory.clone()?;
        Some(Backups { directory, keep: self.options.backups as usize })
    }

    fn snapshot(&self, number: u64) -> Result<Box<dyn SnapshotWriter>, String> {
        let directory = &self.options.directory;
        let snapshot = Snapshot::create(self.layer.clone(), directory, self.backups(), number);
        let failed = |error| format!("cannot begin snapshot {number}: {error}");
        Ok(Box::new(snapshot.map_err(failed)?))
    }

    fn probe(&self, bytes: usize) -> io::Result<()> {
        let path = self.options.directory.join(PROBE);
        let written = self.layer.create(&path).and_then(|mut file| {
            file.write(&vec![b'\n'; bytes.max(PROBE_BYTES)])?;
            file.sync()
        });
        self.layer.remove(&path)?;
        written
    }
}

impl Journal for Files {
    fn scheme(&self) -> &'static str {
        "files"
    }

    fn durability(&self) -> &'static str {
        match self.options.sync {
            Sync::Always => "the end of the process and power failure",
            Sync::Interval(_) => {
                "the end of the process; what was written shortly before a power failure may be lost"
            }
            Sync::Never => "the end of the process, but perhaps no power failure",
        }
    }

    fn encoder(&self) -> Encoder {
        line::record
    }

    fn load(&mut self, restore: &mut dyn Restore) -> Result<(), LoadError> {
        let directory = &self.options.directory;
        let found = load::load(&*self.layer, directory, restore)?;
        let current = self.prepare(&found).map_err(|error| io_error(directory, error))?;
        self.grown_bytes = found.journal_bytes;
        self.current = Some(current);
        Ok(())
    }

    fn append(&mut self, records: &[Pending]) -> Result<(), AppendError> {
        let always = self.options.sync == Sync::Always;
        let current = self.current.as_mut().filter(|it| it.condition == Condition::Fit);
        let current = current.ok_or_else(|| {
            AppendError::NotKept("the journal is abandoned after a failure".into())
        })?;
        let bytes = match records {
            [Pending { encoded, .. }] if always => encoded,
            _ => {
                self.buffer.clear();
                if always {
                    let bytes = records.iter().map(|record| record.encoded.len()).sum();
                    line::group(&mut self.buffer, bytes);
                } else if !current.unsynced {
                    line::group(&mut self.buffer, 0);
                }
                for Pending { encoded, .. } in records {
                    self.buffer.extend_from_slice(encoded);
                }
                &self.buffer
            }
        };
        current.write(bytes)?;
        if always {
            current.sync()?;
        }
        self.grown_bytes += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        match &mut self.current {
            Some(current) if current.unsynced => current.sync(),
            _ => Ok(()),
        }
    }

    fn wants_snapshot(&self) -> bool {
        self.grown_bytes >= self.options.snapshot_every_bytes
    }

    fn has_grown(&self) -> bool {
        self.grown_bytes > 0
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotWriter>, String> {
        // Whatever comes of it: not again at once.
        self.grown_bytes = 0;
        self.sync().map_err(|error| error.to_string())?;
        let number = self.current.as_ref().map_or(1, |current| current.number + 1);
        let failed = |error| format!("cannot begin journal {number}: {error}");
        let next = self.create(Header { number, ..Header::default() }).map_err(failed)?;
        self.current = Some(next);
        self.snapshot(number)
    }

    fn mend(&mut self) -> Result<Option<Box<dyn SnapshotWriter>>, String> {
        let condition = self.current.as_ref().map(|current| (current.condition, current.number));
        match condition {
            Some((Condition::Full(bytes), _)) => {
                self.probe(bytes).map_err(|error| error.to_string())?;
                if let Some(current) = &mut self.current {
                    current.condition = Condition::Fit;
                }
                Ok(None)
            }
            // Also where an earlier attempt came so far, but its snapshot was not finished.
            Some((Condition::Fit | Condition::Abandoned, number)) => {
                let number = number + 1;
                let header = Header { number, needs_snapshot: true, ..Header::default() };
                let next = self.create(header).map_err(|error| error.to_string())?;
                self.current = Some(next);
                self.grown_bytes = 0;
                self.snapshot(number).map(Some)
            }
            None => Err("the journal was not loaded".into()),
        }
    }
}

impl Current {
    /// Writes at the end. What is written in part is cut off again.
    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let Err(error) = self.file.write(bytes) else {
            self.length += bytes.len() as u64;
            self.unsynced = true;
            return Ok(());
        };
        match self.cut() {
            Ok(()) => {
                self.condition = Condition::Full(bytes.len());
                Err(AppendError::NotKept(format!("the journal cannot be written: {error}")))
            }
            Err(also) => {
                self.condition = Condition::Abandoned;
                Err(AppendError::Unknown(format!(
                    "the journal cannot be written: {error}; nor what was written be cut off: {also}"
                )))
            }
        }
    }

    /// Cuts off what is after the last write that succeeded.
    fn cut(&mut self) -> io::Result<()> {
        self.file.truncate(self.length)?;
        self.file.sync()?;
        self.unsynced = false;
        Ok(())
    }

    /// Makes it durable. After a failure nobody knows what of it is: the system may say the next time that all is well,
    /// though what it could not write is lost. So the file is abandoned.
    fn sync(&mut self) -> Result<(), AppendError> {
        self.file.sync().map_err(|error| {
            self.condition = Condition::Abandoned;
            AppendError::Unknown(format!("the journal cannot be made durable: {error}"))
        })?;
        self.unsynced = false;
        Ok(())
    }
}
