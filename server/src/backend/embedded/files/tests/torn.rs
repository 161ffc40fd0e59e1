//! What was written last, in part, is told from damage: to the sector and to the bit.

use std::{path::Path, sync::Arc};

use super::{
    super::{
        line::{self, Header},
        load,
    },
    disk::{Disk, Layer},
    state::{DIRECTORY, name, set},
};
use crate::backend::{
    Key, Lineage, Position, Revision,
    embedded::journal::{Action, LoadError, NamespaceState, Record, Restore, Version},
};

const JOURNAL: &str = "/data/journal-00000001.jsonl";
const SECTOR_BYTES: usize = 512;

/// The positions of the records that were read.
#[derive(Default)]
struct Applied(Vec<u64>);

impl Restore for Applied {
    fn is_copy(&mut self) {}

    fn begin(&mut self, _: NamespaceState) -> Result<(), String> {
        Ok(())
    }

    fn put(&mut self, _: Version) -> Result<(), String> {
        Ok(())
    }

    fn expect(&mut self, _: &Key, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn drop_key(&mut self, _: &Key) -> Result<(), String> {
        Ok(())
    }

    fn end(&mut self, _: Revision) -> Result<(), String> {
        Ok(())
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        self.0.push(record.position.0);
        Ok(())
    }
}

/// A journal in the making.
#[derive(Clone)]
struct Written {
    bytes: Vec<u8>,
    /// Where the content of each record ends.
    ends: Vec<usize>,
}

impl Written {
    fn new() -> Self {
        let header = Header { number: 1, ..Header::default() };
        Self { bytes: line::header("journal", header), ends: Vec::new() }
    }

    /// Writes records with values of these lengths together.
    fn write(mut self, lengths: &[usize]) -> Self {
        for (index, length) in lengths.iter().enumerate() {
            let position = self.ends.len() as u64 + 1;
            let record = Record {
                namespace: name("n"),
                position: Position(position),
                before: Revision(position),
                time_ms: 1000,
                lineage: (position == 1).then_some(Lineage(uuid::Uuid::from_u128(5))),
                compacted: None,
                action: Action::Write(vec![vec![set("key", &"x".repeat(*length))]].into()),
            };
            if index > 0 {
                self.bytes.push(b' ');
            }
            self.bytes.extend(line::record(&record));
            self.ends.push(self.bytes.len() - 1);
        }
        self
    }

    /// Writes a record so long that the last line ends, without its end, at an offset in a sector.
    fn write_to(self, offset: usize) -> Self {
        let shortest = self.clone().write(&[0]).ends.last().copied().unwrap();
        let length = (offset + SECTOR_BYTES - shortest % SECTOR_BYTES) % SECTOR_BYTES;
        self.write(&[length])
    }
}

/// Fills a file with what was there before it was written to.
fn filled(bytes: &[u8], length: usize, with: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes.resize(length, with);
    bytes
}

fn load(bytes: Vec<u8>) -> Result<Vec<u64>, LoadError> {
    let disk: Arc<Disk> = Arc::default();
    disk.put(JOURNAL, bytes);
    let mut applied = Applied::default();
    load::load(&Layer(disk), Path::new(DIRECTORY), &mut applied)?;
    Ok(applied.0)
}

#[test]
fn any_part_of_the_last_write_is_cut_off() {
    let last = [700, 10, 530, 3, 40];
    for offset in [0, 1, 2, 100, 250, 400, 510, 511] {
        let before = Written::new().write(&[30]).write(&[20, 20]).write_to(offset);
        let after = before.clone().write(&last);
        let first = before.bytes.len() / SECTOR_BYTES;
        let sectors = after.bytes.len().div_ceil(SECTOR_BYTES) - first;
        let length = (first + sectors + 3) * SECTOR_BYTES;
        let cases: Vec<u32> = (0..1 << sectors).collect();
        for (with, length) in [(b'\n', length), (0, after.bytes.len()), (0, length)] {
            for written in &cases {
                let mut bytes = filled(&before.bytes, length, with);
                let new = filled(&after.bytes, length, with);
                let start = |sector: usize| (first + sector) * SECTOR_BYTES;
                let is_written = |sector: &usize| written & (1 << sector) != 0;
                for sector in (0..sectors).filter(is_written) {
                    let end = start(sector + 1).min(length);
                    bytes[start(sector)..end].copy_from_slice(&new[start(sector)..end]);
                }
                // A whole record may lack the end of its line, which is what the file was filled with.
                let missing = (0..sectors).find(|sector| !is_written(sector));
                let until = missing.map_or(usize::MAX, start).max(before.bytes.len());
                let lacks_end = usize::from(with == 0);
                let whole = after.ends.iter().filter(|end| **end + lacks_end <= until).count();
                let expected: Vec<u64> = (1..=whole as u64).collect();
                let what = format!("{written:b} of {sectors} at {offset}, else {with}");
                assert_eq!(load(bytes).expect(&what), expected, "{what}");
            }
        }
    }
}

#[test]
fn what_is_missing_before_later_writes_is_damage() {
    for offset in [0, 1, 2, 250, 511] {
        let before = Written::new().write(&[30]).write_to(offset);
        let after =
            before.clone().write(&[700, 10, 530]).write(&[600, 5]).write(&[600]).write(&[1]);
        let length = (after.bytes.len() / SECTOR_BYTES + 3) * SECTOR_BYTES;
        let (first, last) = (before.bytes.len(), after.ends[after.ends.len() - 4]);
        for start in (first..last).filter(|at| at % SECTOR_BYTES == 0 || *at == first) {
            let end = (start / SECTOR_BYTES + 1) * SECTOR_BYTES;
            for with in [b'\n', 0] {
                let mut bytes = filled(&after.bytes, length, b'\n');
                bytes[start..end].fill(with);
                let result = load(bytes);
                let what = format!("{start} to {end} are {with} at {offset}: {result:?}");
                assert!(matches!(result, Err(LoadError::Damaged { .. })), "{what}");
            }
        }
    }
}

#[test]
fn a_changed_bit_anywhere_in_what_was_filled_ahead_is_refused() {
    for offset in [0, 1, 2, 17, 509, 510, 511] {
        let written = Written::new().write(&[30]).write(&[20, 20]).write_to(offset);
        let length = (written.bytes.len() / SECTOR_BYTES + 2) * SECTOR_BYTES;
        let bytes = filled(&written.bytes, length, b'\n');
        assert_eq!(load(bytes.clone()).unwrap(), [1, 2, 3, 4]);
        let mut line = 1;
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << bit;
                let what = format!("byte {at} bit {bit} at {offset}");
                match load(changed) {
                    Err(LoadError::Damaged { place, .. }) => {
                        assert_eq!(place, format!("{JOURNAL}, line {line}"), "{what}");
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
            line += usize::from(bytes[at] == b'\n');
        }
    }
}

#[test]
fn lines_as_they_were_in_between_two_writes_are_cut_off() {
    let before = Written::new().write(&[30]).write_to(100);
    // Without a sync in between: what comes later goes on with what came before.
    let between = before.clone().write(&[50]);
    let mut after = before.clone().write(&[50, 700, 700]);
    let length = after.bytes.len();
    let first = before.bytes.len() / SECTOR_BYTES * SECTOR_BYTES;
    after.bytes[first..first + SECTOR_BYTES]
        .copy_from_slice(&filled(&between.bytes, length, 0)[first..first + SECTOR_BYTES]);
    assert_eq!(load(after.bytes).unwrap(), [1, 2, 3]);
}
