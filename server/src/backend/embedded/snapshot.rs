//! A snapshot: the whole image, told namespace by namespace while commits go on.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    cells::{Cell, Cells},
    image::{Capture, Step},
    journal::SnapshotWriter,
};
use crate::backend::NamespaceName;

/// How often a namespace is collected in short steps while too much is happening in it. After that it is collected in
/// one, which holds up its commits.
const MAX_ATTEMPTS: u32 = 4;

/// After so many bytes commits get their turn, at the processors and at the disk. The syncs of those that come meanwhile wait for
/// what is being made durable: little at a time, so that none waits for long.
const PACE_BYTES: usize = 32 << 10;
/// For how long.
const PAUSE: Duration = Duration::from_micros(250);

/// As how much work a step of collecting counts.
const STEP_BYTES: usize = 16 << 10;

/// What a snapshot and those who commit know of each other.
#[derive(Debug, Default)]
pub(super) struct Beside {
    /// Give up.
    stop: AtomicBool,
    /// Something was committed since the snapshot looked last.
    committed: AtomicBool,
}

impl Beside {
    /// Tells the snapshot to give up.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Tells the snapshot that there are commits to make way for.
    pub fn note_commit(&self) {
        self.committed.store(true, Ordering::Relaxed);
    }
}

/// Makes pauses as long as others commit, so that they do not wait for a thread and a disk that are busy with a snapshot
/// alone. Nobody to make way for: no pauses.
#[derive(Debug)]
pub(super) struct Pace<'a> {
    beside: &'a Beside,
    done_bytes: usize,
}

impl<'a> Pace<'a> {
    /// The pace of a snapshot that is beginning.
    pub fn new(beside: &'a Beside) -> Self {
        Self { beside, done_bytes: 0 }
    }

    /// Goes on after about so many bytes of work, perhaps later. An error: it is told to give up.
    pub fn after(&mut self, bytes: usize) -> Result<(), String> {
        self.done_bytes += bytes;
        if self.done_bytes < PACE_BYTES {
            return Ok(());
        }
        self.done_bytes = 0;
        if self.beside.stop.load(Ordering::Relaxed) {
            return Err("the server stopped, or the journal failed meanwhile".into());
        }
        if self.beside.committed.swap(false, Ordering::Relaxed) {
            thread::park_timeout(PAUSE);
        }
        Ok(())
    }
}

/// Writes a snapshot to its end, on the caller's thread, unless it is told to stop.
pub(super) fn write_snapshot(
    cells: &Cells,
    mut writer: Box<dyn SnapshotWriter>,
    beside: &Beside,
) -> Result<(), String> {
    let mut last: Option<NamespaceName> = None;
    while let Some((name, cell)) = cells.next(last.as_ref()) {
        write_namespace(&name, &cell, &mut *writer, beside)?;
        last = Some(name);
    }
    writer.finish()
}

fn write_namespace(
    name: &NamespaceName,
    cell: &Arc<Cell>,
    writer: &mut dyn SnapshotWriter,
    beside: &Beside,
) -> Result<(), String> {
    let mut pace = Pace::new(beside);
    let mut attempts = 1;
    let mut capture = Capture::new(&cell.image.read());
    loop {
        // The lock is let go of between two steps, so that commits come in.
        let step = capture.step(&cell.image.read(), name, attempts > MAX_ATTEMPTS);
        match step {
            Step::More => pace.after(STEP_BYTES)?,
            Step::Lost => {
                attempts += 1;
                capture = Capture::new(&cell.image.read());
            }
            Step::Done(state, later) => {
                let compacted = || cell.image.read().compacted();
                return capture.write(&state, later, (writer, pace), compacted);
            }
        }
    }
}
