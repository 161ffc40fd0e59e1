//! An engine on a database of the tests: what is done with it, and all that can be seen of it.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tempfile::TempDir;

use super::super::{Doubt, Options, Sqlite, Sync, verify};
use crate::{
    backend::{
        Backend, BackendError, Change, Commit, CommitOutcome, Committed, Created, Draft,
        GroupIndex, Key, KeyRange, NamespaceName, NewDeadline, Position, ReadSet, Revision, Tip,
        Write, WriteOp,
        embedded::{
            Embedded, Intervals,
            journal::{AppendError, Encoder, Journal, LoadError, Pending, Restore, SnapshotWriter},
            kept_clock::ClockFile,
        },
    },
    clock::ManualClock,
};

pub const START_MS: i64 = 1_700_000_000_000;
const FILE: &str = "state.db";

pub struct Engine {
    pub backend: Embedded,
    pub clock: Arc<ManualClock>,
    /// Whether the next append is kept without that being known.
    pub lose_answer: Arc<AtomicBool>,
    pub directory: TempDir,
}

/// A journal that loses answers.
struct Forgetful {
    journal: Sqlite,
    lose_answer: Arc<AtomicBool>,
}

/// An engine in a directory, perhaps with a past there.
pub fn open(directory: TempDir) -> Result<Engine, LoadError> {
    // Whoever is killed loses nothing by that.
    let options = Options { sync: Sync::Never, ..Options::new(directory.path().join(FILE)) };
    let clock = ManualClock::new(START_MS);
    let lose_answer = Arc::<AtomicBool>::default();
    let journal = Forgetful { journal: Sqlite::open(options)?, lose_answer: lose_answer.clone() };
    let backend = Embedded::with_journal(clock.clone(), Box::new(journal), Intervals::default())?;
    Ok(Engine { backend, clock, lose_answer, directory })
}

pub fn fresh() -> Engine {
    open(TempDir::new().unwrap()).unwrap()
}

pub fn name(name: &str) -> NamespaceName {
    NamespaceName::new(name)
}

pub fn draft(value: &[u8]) -> Draft {
    Draft {
        value: value.to_vec().into(),
        content_type: "text/plain".into(),
        version: 1,
        created: Created::By(GroupIndex(0)),
        deadline: NewDeadline::Never,
    }
}

pub fn set(key: &str, value: &str) -> Write {
    Write { key: Key::new(key.as_bytes()), op: WriteOp::Set(draft(value.as_bytes())) }
}

pub fn sound(directory: &Path) {
    let report = verify(&directory.join(FILE)).unwrap();
    assert_eq!(report.findings, []);
}

/// The files as they are at this moment: what a kill would leave.
pub fn copy(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in fs::read_dir(directory).unwrap() {
        let file = file.unwrap();
        let is_kept = !file.file_name().to_string_lossy().ends_with("-shm");
        if is_kept {
            fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
        }
    }
    copy
}

/// Shows the lines that only one of two dumps has.
pub fn assert_same(found: &[String], expected: &[String], what: &str) {
    let only = |these: &[String], those: &[String]| {
        these.iter().filter(|line| !those.contains(line)).cloned().collect::<Vec<_>>()
    };
    let (lost, invented) = (only(expected, found), only(found, expected));
    assert!(found == expected, "{what}: lost {lost:#?}, invented {invented:#?}");
}

impl Engine {
    /// Ends it, and starts another on the same database.
    pub fn restart(self) -> Engine {
        let Self { backend, directory, .. } = self;
        drop(backend);
        open(directory).unwrap()
    }

    /// Commits whatever was there before.
    pub async fn commit(
        &self,
        namespace: &str,
        writes: Vec<Vec<Write>>,
    ) -> Result<Committed, BackendError> {
        let namespace = name(namespace);
        let at = self.backend.read(&namespace, &[], None).await?.tip.position;
        let reads = ReadSet::default();
        let commit = Commit::plain(at, &reads, writes.into());
        match self.backend.commit(&namespace, commit).await? {
            CommitOutcome::Committed(committed) => Ok(committed),
            CommitOutcome::Moved(moved) => panic!("nothing was read, but {moved:?}"),
        }
    }

    /// Deletes a namespace as it stands.
    pub async fn delete(&self, namespace: &str) -> Tip {
        let at = self.backend.read(&name(namespace), &[], None).await.unwrap().tip.position;
        let deleted = self.backend.delete(&name(namespace), at, None).await.unwrap();
        deleted.expect("nobody else commits")
    }

    pub async fn clear(&self, namespace: &str, records: Vec<Write>) -> Result<(), BackendError> {
        let namespace = name(namespace);
        let at = self.backend.read(&namespace, &[], None).await?.tip.position;
        self.backend.clear(&namespace, at, None, records).await?;
        Ok(())
    }

    /// Waits until commits are accepted again after one has failed.
    pub async fn mended(&self) {
        let mut writable = self.backend.writable();
        // Who committed may hear of the failure first; it stays until the clock is moved.
        writable.wait_for(|writable| !writable).await.unwrap();
        while !*writable.borrow() {
            self.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    }

    /// All that users and the store can see of all namespaces, in words.
    pub async fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for info in self.backend.namespaces("", None, 1_000_000).await.unwrap() {
            let info = info.expect("a namespace in memory can be read");
            let tip = info.tip;
            lines.push(format!(
                "{} at {:?} {} {:?} made {} compacted {} cleared {} holds {:?}, log {}",
                info.name.as_str(),
                tip.position,
                tip.revision,
                tip.lineage,
                info.created_at_ms,
                tip.compacted,
                tip.cleared,
                tip.usage,
                // Not its bytes: a removal that was forgotten counts as long as what followed it, but is swept.
                info.log.events,
            ));
            self.dump_log(&info.name, tip.compacted, &mut lines).await;
            for range in [
                (&b"\x01"[..], None),
                (&b"\0\x01"[..], Some(&b"\x01"[..])),
                (b"\0\0", Some(b"\0\x01")),
            ] {
                self.dump_keys(&info.name, range, &mut lines).await;
            }
        }
        lines
    }

    async fn dump_log(&self, name: &NamespaceName, after: Revision, lines: &mut Vec<String>) {
        let log = self.backend.changes(name, after, 1_000_000, u64::MAX).await.unwrap();
        for logged in log.changes {
            let previous = logged.previous.as_deref();
            lines.push(format!("log {} before {previous:?}", show(&logged.change)));
        }
    }

    async fn dump_keys(
        &self,
        name: &NamespaceName,
        (start, end): (&[u8], Option<&[u8]>),
        lines: &mut Vec<String>,
    ) {
        let range = KeyRange { start: Key::new(start), end: end.map(Key::new) };
        let all = self.backend.scan(name, &range, None, false, 1_000_000).await.unwrap();
        for entry in all.entries {
            lines.push(format!("{:?} holds {:?}", entry.key(), *entry));
            let past = Revision(u64::MAX);
            let history = self.backend.history(name, entry.key(), past, 1_000_000).await.unwrap();
            let compacted = all.tip.compacted;
            let held = history.changes.iter().filter(|change| change.revision > compacted);
            lines.extend(held.map(|change| format!("was {}", show(change))));
        }
    }
}

fn show(change: &Change) -> String {
    let Change { key, revision, time_ms, kind, entry, .. } = change;
    format!("{key:?} {revision} {time_ms} {kind:?} {entry:?}")
}

impl Journal for Forgetful {
    fn scheme(&self) -> &'static str {
        self.journal.scheme()
    }

    fn durability(&self) -> &'static str {
        self.journal.durability()
    }

    fn clock_file(&self) -> ClockFile {
        self.journal.clock_file()
    }

    fn encoder(&self) -> Encoder {
        self.journal.encoder()
    }

    fn load(&mut self, restore: &mut dyn Restore) -> Result<(), LoadError> {
        self.journal.load(restore)
    }

    fn append(&mut self, records: &[Pending]) -> Result<(), AppendError> {
        self.journal.append(records)?;
        if !self.lose_answer.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let stood = records.iter().map(|Pending { record, .. }| {
            let before = Position(record.position.0 - 1);
            (record.namespace.clone(), before, record.position)
        });
        self.journal.doubt = Some(Doubt(stood.collect()));
        Err(AppendError::Unknown("the answer is lost".into()))
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        self.journal.sync()
    }

    fn wants_snapshot(&self) -> bool {
        self.journal.wants_snapshot()
    }

    fn has_grown(&self) -> bool {
        self.journal.has_grown()
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotWriter>, String> {
        self.journal.begin_snapshot()
    }

    fn mend(&mut self) -> Result<Option<Box<dyn SnapshotWriter>>, String> {
        self.journal.mend()
    }
}
