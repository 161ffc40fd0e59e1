//! An engine on the disk of the tests: what is done with it, and all that can be seen of it.

use std::{sync::Arc, time::Duration};

use futures::{
    FutureExt as _,
    future::{BoxFuture, ready},
};

use super::{
    super::{Files, Options},
    disk::{Disk, Layer},
};
use crate::{
    backend::{
        Backend, BackendError, Begun, Change, Commit, CommitOutcome, Committed, Created, Draft,
        GroupIndex, Key, KeyRange, NamespaceName, NewDeadline, ReadSet, Revision, Tip, Write,
        WriteOp,
        embedded::{Embedded, Intervals, journal::LoadError},
    },
    clock::ManualClock,
};

pub const START_MS: i64 = 1_700_000_000_000;
pub const DIRECTORY: &str = "/data";

/// A commit that was begun.
pub type Committing = BoxFuture<'static, Result<Committed, BackendError>>;

pub struct Engine {
    pub backend: Embedded,
    pub clock: Arc<ManualClock>,
    pub disk: Arc<Disk>,
}

/// An engine on a disk, perhaps with a past there.
pub fn open(disk: &Arc<Disk>) -> Result<Engine, LoadError> {
    open_with(disk, |_| {})
}

pub fn open_with(disk: &Arc<Disk>, set: impl Fn(&mut Options)) -> Result<Engine, LoadError> {
    open_at(START_MS, disk, set)
}

pub fn open_at(
    now_ms: i64,
    disk: &Arc<Disk>,
    set: impl Fn(&mut Options),
) -> Result<Engine, LoadError> {
    let clock = ManualClock::new(now_ms);
    let mut options = Options::new(DIRECTORY);
    set(&mut options);
    let intervals = Intervals { snapshot: options.snapshot_interval, sync: None };
    let files = Files::open(Arc::new(Layer(disk.clone())), options)?;
    let backend = Embedded::with_journal(clock.clone(), Box::new(files), intervals)?;
    Ok(Engine { backend, clock, disk: disk.clone() })
}

/// An engine with a namespace `n`, whose disk takes its time.
pub async fn held() -> Engine {
    let engine = open(&Arc::<Disk>::default()).unwrap();
    engine.commit("n", vec![vec![set("first", "1")]]).await.unwrap();
    engine.disk.set_held(true);
    engine
}

pub fn name(name: &str) -> NamespaceName {
    NamespaceName::new(name)
}

pub fn key(key: &str) -> Key {
    Key::new(key.as_bytes())
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

impl Engine {
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

    /// Begins a commit upon those on their way, whatever these are.
    pub async fn begin(&self, namespace: &str, writes: Vec<Vec<Write>>) -> Committing {
        let namespace = name(namespace);
        let reads = ReadSet::default();
        loop {
            let (answer, upon) = match self.backend.read_under_way(&namespace, &[]) {
                Some((answer, generation)) => (answer, Some(generation)),
                None => (self.backend.read(&namespace, &[], None).await.unwrap(), None),
            };
            let commit = Commit::plain(answer.tip.position, &reads, writes.clone().into());
            let commit = Commit { upon, ..commit };
            match self.backend.begin(&namespace, commit).await {
                Ok(Begun::UnderWay(committing)) => return committing,
                Ok(Begun::Ended(CommitOutcome::Committed(committed))) => {
                    return ready(Ok(committed)).boxed();
                }
                // Those on their way were not kept.
                Ok(Begun::Ended(CommitOutcome::Moved(_))) => {}
                Err(error) => return ready(Err(error)).boxed(),
            }
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

    /// Begins a snapshot and waits until it is there.
    pub async fn snapshot(&self) {
        // Where nothing was committed, none is made.
        self.commit("snapshots", vec![vec![set("key", "value")]]).await.unwrap();
        let before = newest_snapshot(&self.disk);
        // The interval's timer may not be asleep yet when the clock is moved.
        while newest_snapshot(&self.disk) == before {
            self.clock.advance(Duration::from_secs(3600));
            tokio::task::yield_now().await;
        }
    }

    /// Waits until commits are accepted.
    pub async fn mended(&self) {
        let writable = self.backend.writable();
        while !*writable.borrow() {
            self.clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    }

    /// All that can be seen of all namespaces, in words.
    pub async fn dump(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for info in self.backend.namespaces("", None, 1_000_000).await.unwrap() {
            let info = info.expect("a namespace in memory can be read");
            let tip = info.tip;
            lines.push(format!(
                "{} at {:?} {} {:?} made {} compacted {} cleared {} holds {:?}, log {} {}",
                info.name.as_str(),
                tip.position,
                tip.revision,
                tip.lineage,
                info.created_at_ms,
                tip.compacted,
                tip.cleared,
                tip.usage,
                info.log.events,
                info.log.bytes
            ));
            self.dump_log(&info.name, tip.compacted, &mut lines).await;
            for start in [&b"\x01"[..], b"\0\x01", b"\0\0"] {
                self.dump_keys(&info.name, start, &mut lines).await;
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

    async fn dump_keys(&self, name: &NamespaceName, start: &[u8], lines: &mut Vec<String>) {
        let end = if start[0] == 0 { Some(Key::new(&[0, start[1] + 1])) } else { None };
        let end = if start == b"\0\x01" { Some(Key::new(b"\x01")) } else { end };
        let range = KeyRange { start: Key::new(start), end };
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

pub fn newest_snapshot(disk: &Disk) -> Option<String> {
    disk.files().into_keys().rfind(|name| name.starts_with("snapshot-") && name.ends_with("jsonl"))
}

fn show(change: &Change) -> String {
    let Change { key, revision, time_ms, kind, entry, .. } = change;
    format!("{key:?} {revision} {time_ms} {kind:?} {entry:?}")
}
