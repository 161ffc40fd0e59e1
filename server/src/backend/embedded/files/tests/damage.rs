//! Journals and snapshots that were cut or changed.

use std::sync::Arc;

use super::{
    super::verify,
    disk::{Disk, Layer},
    state::{DIRECTORY, open, set},
};
use crate::backend::embedded::journal::LoadError;

const JOURNAL: &str = "/data/journal-00000001.jsonl";

/// The journal of three commits, and the states before and after each of the last two.
async fn journal() -> (Vec<u8>, Vec<Vec<String>>) {
    let disk = Arc::default();
    let engine = open(&disk).unwrap();
    let mut states = Vec::new();
    for value in ["one", "two", "three"] {
        engine.commit("n", vec![vec![set("key", value), set(value, value)]]).await.unwrap();
        states.push(engine.dump().await);
    }
    drop(engine);
    (disk.files()["journal-00000001.jsonl"].clone(), states)
}

fn disk_with(bytes: &[u8]) -> Arc<Disk> {
    let disk: Arc<Disk> = Arc::default();
    disk.put(JOURNAL, bytes.to_vec());
    disk
}

#[tokio::test]
async fn a_journal_cut_anywhere_in_its_last_records_begins_with_what_is_whole() {
    let (bytes, states) = journal().await;
    let ends: Vec<_> = (0..bytes.len()).filter(|at| bytes[*at] == b'\n').map(|at| at + 1).collect();
    for length in ends[1]..=bytes.len() {
        let disk = disk_with(&bytes[..length]);
        let engine = open(&disk).unwrap();
        let whole = ends.iter().filter(|end| **end <= length).count() - 2;
        assert_eq!(engine.dump().await, states[whole], "cut to {length}");
        // What is written next follows the last that is whole.
        engine.commit("n", vec![vec![set("next", "next")]]).await.unwrap();
        let state = engine.dump().await;
        drop(engine);
        assert_eq!(open(&disk).unwrap().dump().await, state, "cut to {length}");
    }
}

#[tokio::test]
async fn a_journal_cut_in_its_first_line_is_begun_again() {
    let (bytes, _) = journal().await;
    let first = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for length in 0..=first {
        let disk = disk_with(&bytes[..length]);
        let engine = open(&disk).unwrap();
        assert_eq!(engine.dump().await, Vec::<String>::new());
        engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
        let state = engine.dump().await;
        drop(engine);
        assert_eq!(open(&disk).unwrap().dump().await, state);
    }
}

#[tokio::test]
async fn a_changed_bit_anywhere_is_refused() {
    let (bytes, _) = journal().await;
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut changed = bytes.clone();
            changed[at] ^= 1 << bit;
            let disk = disk_with(&changed);
            let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
            match open(&disk).map(drop) {
                Err(LoadError::Damaged { place, .. }) => {
                    assert_eq!(place, format!("{JOURNAL}, line {line}"), "byte {at} bit {bit}");
                }
                other => panic!("byte {at} bit {bit}: {other:?}"),
            }
            assert_eq!(disk.files()["journal-00000001.jsonl"], changed, "nothing was changed");
        }
    }
}

#[tokio::test]
async fn sectors_that_were_never_written_are_cut_off() {
    let disk = Arc::default();
    let engine = open(&disk).unwrap();
    engine.commit("n", vec![vec![set("key", "one")]]).await.unwrap();
    let state = engine.dump().await;
    let before = disk.files()["journal-00000001.jsonl"].len();
    engine.commit("n", vec![vec![set("key", &"long".repeat(1000))]]).await.unwrap();
    drop(engine);
    let mut bytes = disk.files()["journal-00000001.jsonl"].clone();
    let sector = before.next_multiple_of(512) + 512;
    bytes[sector..sector + 512].fill(0);
    assert_eq!(open(&disk_with(&bytes)).unwrap().dump().await, state);
    bytes[sector..sector + 511].fill(b'x');
    assert!(open(&disk_with(&bytes)).is_err());
}

#[tokio::test]
async fn lines_that_are_missing_or_doubled_are_refused() {
    let (bytes, _) = journal().await;
    let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    for order in [&[0, 1, 3][..], &[0, 2, 3], &[0, 2, 1, 3], &[1, 2, 3], &[0, 0, 1]] {
        let changed: Vec<u8> = order.iter().flat_map(|line| lines[*line].to_vec()).collect();
        assert!(open(&disk_with(&changed)).is_err(), "{order:?}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_is_refused_and_verify_tells_where() {
    let disk = Arc::default();
    let engine = open(&disk).unwrap();
    for value in ["one", "two", "three"] {
        engine.commit("n", vec![vec![set("key", value), set(value, value)]]).await.unwrap();
    }
    engine.snapshot().await;
    drop(engine);
    let path = "/data/snapshot-00000002.jsonl";
    let bytes = disk.files()["snapshot-00000002.jsonl"].clone();
    let report = verify(&Layer(disk.clone()), DIRECTORY.as_ref()).unwrap();
    assert_eq!((report.findings.len(), report.namespaces, report.keys), (0, 2, 5));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        disk.put(path, changed);
        assert!(matches!(open(&disk), Err(LoadError::Damaged { .. })), "byte {at}");
        let report = verify(&Layer(disk.clone()), DIRECTORY.as_ref()).unwrap();
        assert!(report.findings.iter().any(|finding| !finding.harmless), "byte {at}");
        disk.put(path, bytes[..at].to_vec());
        assert!(matches!(open(&disk), Err(LoadError::Damaged { .. })), "cut at {at}");
    }
    disk.put(path, bytes);
    disk.delete("/data/journal-00000002.jsonl");
    assert!(matches!(open(&disk), Err(LoadError::Damaged { .. })));
}

#[tokio::test]
async fn an_unknown_format_is_refused() {
    let (bytes, _) = journal().await;
    let text = String::from_utf8(bytes).unwrap();
    let (header, rest) = text.split_once('\n').unwrap();
    let content = header.split_once(",\"crc\"").unwrap().0.replace("\"format\":1", "\"format\":2");
    let checksum = crc32fast::hash(content.as_bytes());
    let text = format!("{content},\"crc\":\"{checksum:08x}\"}}\n{rest}");
    let error = open(&disk_with(text.as_bytes())).map(drop).unwrap_err();
    assert!(matches!(error, LoadError::Format { found: 2, known: 1, .. }), "{error}");
}

#[tokio::test]
async fn a_second_owner_is_refused() {
    let disk = Arc::default();
    let _engine = open(&disk).unwrap();
    let error = open(&disk).map(drop).unwrap_err();
    assert!(error.to_string().contains("is in use by the process 1"), "{error}");
}
