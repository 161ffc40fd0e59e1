//! Saves what is sound before damage in a journal.
//!
//! Nothing of what is damaged is changed. What is saved is written into another directory as a copy for safe-keeping, so
//! that a server that starts on it begins other histories: no revision or token of what is given up is given again.

use std::{path::Path, sync::Arc};

use super::{
    layer::FileLayer,
    line::Header,
    load::{self, Surveyed},
    lock,
    snapshot::Snapshot,
    verify::verify,
};
use crate::backend::{
    Key, Repaired, Revision,
    embedded::{
        journal::{LoadError, NamespaceState, Record, Restore, Version},
        load::Loaded,
        snapshot::{Beside, write_snapshot},
    },
};

/// Why nothing was saved.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// It cannot be read; or the damage is not in a journal.
    #[error("{0}")]
    Load(#[from] LoadError),
    /// There is no damage.
    #[error("{0} is sound: there is nothing to repair")]
    Sound(String),
    /// There is something where it would be saved.
    #[error("{0} is not empty: name a directory that is, or is not there yet")]
    NotEmpty(String),
    /// It cannot be written.
    #[error("what is sound cannot be saved: {0}")]
    NotSaved(String),
}

/// Writes what a directory has before the damage in a journal into another, which is made if it is not there. No server
/// may have either.
///
/// # Errors
/// See [`RepairError`].
pub fn repair(
    layer: &Arc<dyn FileLayer>,
    directory: &Path,
    into: &Path,
) -> Result<Repaired, RepairError> {
    let _lock = lock(&**layer, directory)?;
    let mut saving = Saving::default();
    let (first, damage) = load::load_sound(&**layer, directory, &mut saving)?;
    let damage = damage.ok_or_else(|| RepairError::Sound(directory.display().to_string()))?;
    let Surveyed { commits, last_ms, unsound_lines } = load::survey(&**layer, directory, first)?;
    let (namespaces, keys) = saving.loaded.size();
    save(layer, into, saving.loaded)?;
    let lost_commits = commits.saturating_sub(saving.applied);
    Ok(Repaired {
        damage,
        namespaces,
        keys,
        unsound_lines,
        lost_commits,
        last_lost_ms: last_ms.filter(|_| lost_commits > 0),
    })
}

fn save(layer: &Arc<dyn FileLayer>, into: &Path, loaded: Loaded) -> Result<(), RepairError> {
    let io = |error| load::io_error(into, error);
    layer.make_directory(into).map_err(io)?;
    if !layer.list(into).map_err(io)?.is_empty() {
        return Err(RepairError::NotEmpty(into.display().to_string()));
    }
    let header = Header { number: 1, copy: true, ..Header::default() };
    let snapshot = Snapshot::create(layer.clone(), into, None, header).map_err(io)?;
    write_snapshot(&loaded.into_cells(), Box::new(snapshot), &Beside::default())
        .map_err(RepairError::NotSaved)?;
    let report = verify(&**layer, into)?;
    match report.findings.into_iter().find(|finding| !finding.harmless) {
        Some(finding) => Err(RepairError::NotSaved(finding.to_string())),
        None => Ok(()),
    }
}

/// Takes what is sound, and counts it.
#[derive(Default)]
struct Saving {
    loaded: Loaded,
    applied: u64,
}

impl Restore for Saving {
    fn is_copy(&mut self) {
        self.loaded.is_copy();
    }

    fn begin(&mut self, state: NamespaceState) -> Result<(), String> {
        self.loaded.begin(state)
    }

    fn put(&mut self, version: Version) -> Result<(), String> {
        self.loaded.put(version)
    }

    fn expect(&mut self, key: &Key, revision: Revision) -> Result<(), String> {
        self.loaded.expect(key, revision)
    }

    fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        self.loaded.drop_key(key)
    }

    fn end(&mut self, compacted: Revision) -> Result<(), String> {
        self.loaded.end(compacted)
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        self.loaded.apply(record)?;
        self.applied += 1;
        Ok(())
    }
}
