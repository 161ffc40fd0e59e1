//! A journal in files: JSON lines that can be read with `less` and `jq`.
//!
//! `journal-N.jsonl` has commits in their order; `snapshot-N.jsonl` has the state to which journal N and those after it are
//! to be applied. Beginning a snapshot begins the next journal; the snapshot replaces all with lower numbers once it
//! is whole. The format is described in `docs/backends.md`.
//!
//! Where commits are made durable before they are acknowledged, journals are filled ahead with blank lines, see `ahead.rs`,
//! and commits are written over those. A journal that is used up is followed by the next, which then begins where a commit
//! does. Where none is ready, a journal just grows: nothing waits for what is prepared, and nothing fails for it.
//!
//! Invariant: a journal is written to only after what was appended, and what is there after the last write that succeeded is
//! cut off, or the file is abandoned, before anything else is written.
//!
//! Invariant: a journal is written to only once all that is in those before it is durable.

mod ahead;
mod backup;
mod current;
mod decode;
mod layer;
mod line;
mod lines;
mod load;
mod names;
mod options;
mod remains;
mod repair;
mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

use std::{
    any::Any,
    io, mem,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use self::{
    ahead::{Ahead, Plan},
    backup::Backups,
    current::{Condition, Current},
    line::Header,
    load::{Found, io_error},
    names::{CLOCK, Kind, LOCK, Name, PROBE},
    snapshot::Snapshot,
};
pub use self::{
    layer::{Disk, FileLayer, Output},
    options::Options,
    repair::{RepairError, repair},
    verify::{Report, verify},
};
use super::{
    journal::{AppendError, Encoder, Journal, LoadError, Pending, Restore, SnapshotWriter},
    kept_clock::ClockFile,
    options::Sync,
};

/// At least so much room is asked for after a disk was full.
const PROBE_BYTES: usize = 64 << 10;
/// What is longer is not worth to be filled ahead for: to write it takes longer than to make the file longer.
const MAX_FILLED_FOR_BYTES: usize = 256 << 10;
/// By how much a journal that is prepared is longer than what was appended to the one before.
const GROWTH: u64 = 8;
/// Nothing is prepared before so large a part was appended of what is at most.
const FIRST_PART: u64 = 256;

/// A directory with journals and snapshots, which this process owns.
pub struct Files {
    layer: Arc<dyn FileLayer>,
    options: Options,
    backups: Option<Arc<Backups>>,
    current: Option<Current>,
    /// The journal that is to follow it.
    ahead: Option<Ahead>,
    /// The next is prepared once the current journal is so long.
    prepare_from: u64,
    /// How much was appended since the last snapshot was begun.
    grown_bytes: u64,
    /// All that is appended together.
    buffer: Vec<u8>,
    _lock: Box<dyn Any + Send>,
}

impl Files {
    /// Takes a directory, which is made if it is not there.
    ///
    /// # Errors
    /// Where another process has it, or the system refuses.
    pub fn open(layer: Arc<dyn FileLayer>, options: Options) -> Result<Self, LoadError> {
        let directory = &options.directory;
        layer.make_directory(directory).map_err(|error| io_error(directory, error))?;
        let lock = lock(&*layer, directory)?;
        let backups = options.backup_directory.as_ref().map(|directory| {
            Backups::new(layer.clone(), directory.clone(), options.backups as usize).into()
        });
        Ok(Self {
            layer,
            options,
            backups,
            current: None,
            ahead: None,
            prepare_from: 0,
            grown_bytes: 0,
            buffer: Vec::new(),
            _lock: lock,
        })
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
        Ok(Current::new(file, header.number, first.len() as u64))
    }

    /// Goes on in another journal.
    fn go_on_in(&mut self, next: Current) {
        let first = self.options.fill_ahead_bytes / FIRST_PART;
        self.prepare_from = next.half().max(first);
        self.current = Some(next);
    }

    /// Prepares the next journal, if it is time for that.
    fn prepare_ahead(&mut self) {
        let most = self.options.fill_ahead_bytes;
        let Some(current) = &self.current else { return };
        if self.ahead.is_some() || most == 0 || current.length < self.prepare_from {
            return;
        }
        let header = Header { number: current.number + 1, ..Header::default() };
        let plan = Plan {
            directory: self.options.directory.clone(),
            path: self.path(Kind::Journal, header.number),
            number: header.number,
            first_line: line::header("journal", header),
            bytes: (GROWTH * current.length).min(most),
        };
        match Ahead::begin(self.layer.clone(), plan) {
            Ok(ahead) => self.ahead = Some(ahead),
            Err(error) => self.not_prepared(&error),
        }
    }

    /// Goes on in the journal that was prepared, if it was; one that is not ready is given up.
    fn go_on_ahead(&mut self) {
        match self.ahead.take().map(Ahead::end) {
            None => {}
            Some(Ok(prepared)) => self.go_on_in(Current::prepared(prepared)),
            Some(Err(error)) => self.not_prepared(&error),
        }
    }

    fn not_prepared(&mut self, error: &io::Error) {
        tracing::info!(%error, "no journal could be prepared ahead; writes go on without, and take longer");
        let length = self.current.as_ref().map_or(0, |current| current.length);
        self.prepare_from = length + self.options.fill_ahead_bytes;
    }

    /// The lines of what is written at once: each that becomes durable together with the one before begins with a space.
    fn lines<'a>(&self, records: &'a [Pending], buffer: &'a mut Vec<u8>) -> &'a [u8] {
        let mut goes_on = self.current.as_ref().is_some_and(Current::is_unsynced);
        match records {
            [Pending { encoded, .. }] if !goes_on => encoded,
            _ => {
                buffer.clear();
                for Pending { encoded, .. } in records {
                    if goes_on {
                        buffer.push(b' ');
                    }
                    buffer.extend_from_slice(encoded);
                    goes_on = true;
                }
                buffer
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), AppendError> {
        let has_room = self.fit()?.has_room(bytes.len());
        if !has_room && self.ahead.as_ref().is_some_and(Ahead::is_done) {
            self.go_on_ahead();
        }
        match self.fit()?.write(bytes) {
            // What is being prepared may have the room that this needs.
            Err(AppendError::NotKept(_)) if self.ahead.is_some() => {
                if let Some(current) = &mut self.current {
                    current.condition = Condition::Fit;
                }
                self.go_on_ahead();
                self.fit()?.write(bytes)
            }
            written => written,
        }
    }

    /// The journal, if it can be appended to.
    fn fit(&mut self) -> Result<&mut Current, AppendError> {
        let current = self.current.as_mut().filter(|it| it.condition == Condition::Fit);
        current
            .ok_or_else(|| AppendError::NotKept("the journal is abandoned after a failure".into()))
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
        // A process that was killed may have left what is not durable yet, also in a journal before the current one.
        let current = found.current.map(|(number, _)| number);
        for number in found.journals.iter().filter(|number| Some(**number) != current) {
            self.layer.append(&self.path(Kind::Journal, *number))?.sync()?;
        }
        self.layer.sync_directory(&self.options.directory)?;
        for stale in &found.stale {
            self.layer.remove(&self.options.directory.join(stale))?;
        }
        match found.current {
            None => self.create(Header { number: found.next, ..Header::default() }),
            Some((number, length)) => {
                let mut file = self.layer.append(&self.path(Kind::Journal, number))?;
                // It may have been filled ahead.
                file.truncate(length)?;
                file.sync()?;
                Ok(Current::new(file, number, length))
            }
        }
    }

    fn snapshot(&self, number: u64) -> Result<Box<dyn SnapshotWriter>, String> {
        let directory = &self.options.directory;
        let header = Header { number, ..Header::default() };
        let snapshot =
            Snapshot::create(self.layer.clone(), directory, self.backups.clone(), header);
        let failed = |error| format!("cannot begin snapshot {number}: {error}");
        Ok(Box::new(snapshot.map_err(failed)?))
    }

    fn probe(&self, bytes: usize) -> io::Result<()> {
        let path = self.options.directory.join(PROBE);
        let written = self.layer.create(&path).and_then(|mut file| {
            file.write(&vec![b'\n'; bytes.max(PROBE_BYTES)])?;
            file.sync()
        });
        let removed = self.layer.remove(&path);
        written.and(removed)
    }
}

/// Takes a directory, as long as the answer lives.
fn lock(layer: &dyn FileLayer, directory: &Path) -> Result<Box<dyn Any + Send>, LoadError> {
    let path = directory.join(LOCK);
    let locked = layer.lock(&path, &format!("{}\n", process::id()));
    locked.map_err(|error| io_error(&path, error))?.map_err(|owner| LoadError::InUse {
        place: directory.display().to_string(),
        owner: format!("the process {}", owner.trim()),
    })
}

impl Journal for Files {
    fn scheme(&self) -> &'static str {
        "files"
    }

    fn durability(&self) -> &'static str {
        self.options.sync.durability()
    }

    fn clock_file(&self) -> ClockFile {
        ClockFile { layer: self.layer.clone(), path: self.options.directory.join(CLOCK) }
    }

    fn encoder(&self) -> Encoder {
        line::record
    }

    fn load(&mut self, restore: &mut dyn Restore) -> Result<(), LoadError> {
        let directory = &self.options.directory;
        let found = load::load(&*self.layer, directory, restore)?;
        let current = self.prepare(&found).map_err(|error| io_error(directory, error))?;
        self.grown_bytes = found.journal_bytes;
        self.go_on_in(current);
        Ok(())
    }

    fn append(&mut self, records: &[Pending]) -> Result<(), AppendError> {
        let mut buffer = mem::take(&mut self.buffer);
        let bytes = self.lines(records, &mut buffer);
        self.write(bytes)?;
        self.grown_bytes += bytes.len() as u64;
        if self.options.sync == Sync::Always {
            let current = self.fit()?;
            if let Err(error) = current.sync() {
                // Nobody was told that it is kept. A server that starts before this is mended must not find it where it
                // can be read but is not on the disk.
                current.cut_unsynced();
                return Err(error);
            }
            if bytes.len() <= MAX_FILLED_FOR_BYTES {
                self.prepare_ahead();
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        match &mut self.current {
            Some(current) if current.is_unsynced() => current.sync(),
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
        let next = match self.ahead.take().map(Ahead::end) {
            Some(Ok(prepared)) => Ok(Current::prepared(prepared)),
            _ => self.create(Header { number, ..Header::default() }),
        };
        let next = next.map_err(|error| format!("cannot begin journal {number}: {error}"))?;
        if let Some(current) = &mut self.current {
            current.trim();
        }
        self.go_on_in(next);
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
                // What was prepared is made anew: it does not say so.
                drop(self.ahead.take().map(Ahead::end));
                let next = self.create(header).map_err(|error| error.to_string())?;
                self.go_on_in(next);
                self.grown_bytes = 0;
                self.snapshot(number).map(Some)
            }
            None => Err("the journal was not loaded".into()),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        if let Some(backups) = &self.backups {
            backups.stop();
        }
        if let Some(Ok(prepared)) = self.ahead.take().map(Ahead::end) {
            // What stays is of no harm.
            let _ = self.layer.remove(&self.path(Kind::Journal, prepared.number));
        }
        if let Some(current) = &mut self.current {
            current.trim();
        }
    }
}
