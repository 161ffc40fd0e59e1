//! What is sound before damage is saved elsewhere, and what is damaged stays as it is.

use std::{path::Path, sync::Arc};

use super::{
    super::{FileLayer, RepairError, repair},
    disk::{Disk, Layer},
    state::{DIRECTORY, Engine, START_MS, key, name, open, open_at, set},
};
use crate::backend::{Backend as _, Repaired, Revision, embedded::journal::LoadError};

const INTO: &str = "/saved";

async fn held(engine: &Engine, namespace: &str, at: &str) -> Option<String> {
    let read = engine.backend.read(&name(namespace), &[key(at)], None).await.unwrap();
    read.entries[0].as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
}

fn repaired(disk: &Arc<Disk>) -> Result<Repaired, RepairError> {
    let layer: Arc<dyn FileLayer> = Arc::new(Layer(disk.clone()));
    repair(&layer, Path::new(DIRECTORY), Path::new(INTO))
}

/// Changes a byte in the middle of a line of a file, counted from 0.
fn damage(disk: &Disk, file: &str, line: usize) {
    let mut bytes = disk.files()[file].clone();
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let end = ends.into_iter().nth(line).unwrap();
    bytes[end - 30] ^= 1;
    disk.put(&format!("{DIRECTORY}/{file}"), bytes);
}

/// Commits of two namespaces in turns, with a snapshot in between; answers the last revisions.
async fn filled(disk: &Arc<Disk>) -> [Revision; 2] {
    let engine = open(disk).unwrap();
    let mut last = [Revision(0); 2];
    for number in 0..8 {
        if number == 3 {
            engine.snapshot().await;
        }
        let namespace = number % 2;
        let write = set(&format!("key{number}"), &number.to_string());
        let committed = engine.commit(["m", "n"][namespace], vec![vec![write]]).await.unwrap();
        last[namespace] = committed.stamps[0].revision;
    }
    last
}

#[tokio::test]
async fn what_is_before_damage_is_saved_and_begins_another_history() {
    // The journal since the snapshot has a first line, the commit 3, and those after it.
    for (line, first_lost) in [(1, 3), (2, 4), (4, 6), (5, 7)] {
        let disk = Arc::<Disk>::default();
        let last = filled(&disk).await;
        let before = open(&disk).unwrap().backend.read(&name("m"), &[], None).await.unwrap().tip;
        damage(&disk, "journal-00000002.jsonl", line);
        let files = disk.files();
        assert!(matches!(open(&disk).map(drop), Err(LoadError::Damaged { .. })));

        let repaired = repaired(&disk).unwrap();
        let place = format!("/data/journal-00000002.jsonl, line {}", line + 1);
        assert!(repaired.damage.starts_with(&place), "{repaired:?}");
        let lost = (repaired.unsound_lines, repaired.lost_commits);
        assert_eq!(lost, (1, 8 - first_lost - 1), "{repaired:?}");
        assert_eq!(repaired.keys, first_lost + 1, "that of `snapshots` is there: {repaired:?}");
        let now = disk.files();
        assert!(files.iter().all(|(file, bytes)| now[file] == *bytes), "nothing was changed there");

        // Time has gone on since.
        let later_ms = START_MS + 1_000_000_000;
        let engine = open_at(later_ms, &disk, |options| options.directory = INTO.into()).unwrap();
        for number in 0..8 {
            let expected = (number < first_lost).then(|| number.to_string());
            let namespace = ["m", "n"][number as usize % 2];
            assert_eq!(held(&engine, namespace, &format!("key{number}")).await, expected);
        }
        let tip = engine.backend.read(&name("m"), &[], None).await.unwrap().tip;
        assert_ne!(tip.lineage, before.lineage);
        let committed = engine.commit("m", vec![vec![set("new", "new")]]).await.unwrap();
        assert!(committed.stamps[0].revision > last[0], "no revision is given twice");
    }
}

#[tokio::test]
async fn what_cannot_be_repaired_is_left_alone() {
    let disk = Arc::<Disk>::default();
    filled(&disk).await;
    assert!(matches!(repaired(&disk), Err(RepairError::Sound(_))));
    let engine = open(&disk).unwrap();
    assert!(matches!(repaired(&disk), Err(RepairError::Load(LoadError::InUse { .. }))));
    drop(engine);
    damage(&disk, "journal-00000002.jsonl", 2);
    disk.put(&format!("{INTO}/other"), Vec::new());
    assert!(matches!(repaired(&disk), Err(RepairError::NotEmpty(_))));
    damage(&disk, "snapshot-00000002.jsonl", 2);
    assert!(matches!(repaired(&disk), Err(RepairError::Load(LoadError::Damaged { .. }))));
}
