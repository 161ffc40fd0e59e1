//! A snapshot: the whole image, told namespace by namespace while commits go on.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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

/// Writes a snapshot to its end, on the caller's thread, unless `stop` becomes true.
pub(super) fn write_snapshot(
    cells: &Cells,
    mut writer: Box<dyn SnapshotWriter>,
    stop: &AtomicBool,
) -> Result<(), String> {
    let mut last: Option<NamespaceName> = None;
    while let Some((name, cell)) = cells.next(last.as_ref()) {
        write_namespace(&name, &cell, &mut *writer, stop)?;
        last = Some(name);
    }
    writer.finish()
}

fn write_namespace(
    name: &NamespaceName,
    cell: &Arc<Cell>,
    writer: &mut dyn SnapshotWriter,
    stop: &AtomicBool,
) -> Result<(), String> {
    let mut attempts = 1;
    let mut capture = Capture::new(&cell.image.read());
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err("the server stopped, or the journal failed meanwhile".into());
        }
        // The lock is let go of between two steps, so that commits come in.
        let step = capture.step(&cell.image.read(), name, attempts > MAX_ATTEMPTS);
        match step {
            Step::More => {}
            Step::Lost => {
                attempts += 1;
                capture = Capture::new(&cell.image.read());
            }
            Step::Done(state, later) => {
                let compacted = || cell.image.read().compacted();
                return capture.write(&state, later, writer, compacted);
            }
        }
    }
}
