//! Every step of commits and snapshots fails once in every way.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use super::{
    super::{Options, Sync},
    disk::{Disk, Fault, Kept},
    state::{Engine, key, name, open_with, set},
};
use crate::backend::{Backend as _, BackendError, Committed, Revision, Write};

/// What became of commits, each of which writes one key of the same name in two namespaces' worth of groups.
#[derive(Default, Debug)]
struct Fates {
    kept: BTreeMap<String, Revision>,
    not_kept: Vec<String>,
    unknown: Vec<String>,
}

impl Fates {
    async fn commit(&mut self, engine: &Engine, number: usize) {
        let (namespace, id, writes) = commit(number);
        self.note(id, engine.commit(namespace, writes).await);
    }

    /// Two commits to each namespace, each upon the one before.
    async fn commit_some(&mut self, engine: &Engine, numbers: Range<usize>) {
        let mut begun = Vec::new();
        for (namespace, id, writes) in numbers.map(commit) {
            begun.push((id, engine.begin(namespace, writes).await));
        }
        for (id, committed) in begun {
            self.note(id, committed.await);
        }
    }

    fn note(&mut self, id: String, committed: Result<Committed, BackendError>) {
        match committed {
            Ok(committed) => {
                self.kept.insert(id, committed.stamps[0].revision);
            }
            Err(BackendError::Unavailable(_)) => self.not_kept.push(id),
            Err(BackendError::OutcomeUnknown(_)) => self.unknown.push(id),
            Err(other) => panic!("{other}"),
        }
    }

    /// Whether an engine has what it must have, and nothing that it must not.
    async fn check(&self, engine: &Engine, running: bool, what: &str) {
        for (id, revision) in &self.kept {
            assert_eq!(held(engine, id).await, Some(*revision), "{id} is kept, {what}: {self:?}");
        }
        for id in &self.not_kept {
            assert_eq!(held(engine, id).await, None, "{id} is not kept, {what}: {self:?}");
        }
        for id in &self.unknown {
            let held = held(engine, id).await;
            assert!(!running || held.is_none(), "{id} was not acknowledged, {what}");
            let taken = self
                .kept
                .iter()
                .any(|(other, revision)| other[..1] == id[..1] && Some(*revision) == held);
            assert!(!taken, "{id} came back with a revision given to another, {what}: {self:?}");
        }
    }
}

/// A commit by its number: to where, by what name, and what it writes.
fn commit(number: usize) -> (&'static str, String, Vec<Vec<Write>>) {
    let namespace = ["m", "n"][number % 2];
    let id = format!("{namespace}{number}");
    // Long enough to be written in part.
    let value = format!("{number} {}", "x".repeat(100));
    let writes = vec![vec![set(&id, &value), set(&format!("{id}'"), &value)]];
    (namespace, id, writes)
}

/// The revision of both keys of a commit.
async fn held(engine: &Engine, id: &str) -> Option<Revision> {
    let keys = [key(id), key(&format!("{id}'"))];
    let read = engine.backend.read(&name(&id[..1]), &keys, None).await.unwrap();
    let [first, second] = &read.entries[..] else { panic!("two were asked for") };
    let revision = first.as_ref().map(|entry| entry.mod_revision);
    assert_eq!(revision, second.as_ref().map(|entry| entry.mod_revision), "half of {id} is there");
    revision
}

fn open(disk: &Arc<Disk>) -> Option<Engine> {
    // Snapshots come often, and at other moments than commits; so do journals that are prepared ahead.
    let set = |options: &mut Options| {
        (options.snapshot_every_bytes, options.fill_ahead_bytes) = (4000, 2048);
    };
    open_with(disk, set).ok()
}

async fn run(operation: usize, fault: Fault) -> bool {
    let disk = Arc::<Disk>::default();
    let mut fates = Fates::default();
    let what = format!("{fault:?} at {operation}");
    disk.fail_at(operation, fault);
    let Some(engine) = open(&disk) else {
        // Nothing was promised yet: the next start is as the first.
        for kept in Kept::EVERY {
            let engine = open(&disk.after_power_loss(kept)).expect(&what);
            fates.commit(&engine, 0).await;
            fates.check(&engine, true, &what).await;
        }
        go_on_killed(&disk, &what).await;
        return true;
    };
    for number in 0..12 {
        fates.commit(&engine, number).await;
    }
    for number in (12..24).step_by(4) {
        fates.commit_some(&engine, number..number + 4).await;
    }
    fates.check(&engine, true, &what).await;
    reopen(&disk, &fates, &what).await;
    go_on_killed(&disk, &what).await;
    if fault != Fault::Power {
        engine.mended().await;
        for number in 24..32 {
            fates.commit(&engine, number).await;
        }
        fates.check(&engine, true, &what).await;
        reopen(&disk, &fates, &format!("{what}, mended")).await;
    }
    let done = disk.has_failed();
    drop(engine);
    done
}

/// Starts on what is left after the power went.
async fn reopen(disk: &Arc<Disk>, fates: &Fates, what: &str) {
    for kept in Kept::EVERY {
        let what = format!("{what}, {kept:?}");
        let lost = disk.after_power_loss(kept);
        let files = lost.files();
        let Some(engine) = open(&lost) else {
            let error = open_with(&lost.after_kill(), |_| {}).map(drop).unwrap_err();
            panic!("{what}: {error}\n{:?}\n{:#?}", files.keys(), disk.log());
        };
        fates.check(&engine, false, &what).await;
        let state = engine.dump().await;
        drop(engine);
        let engine = open(&lost).expect("what was started once can be started again");
        assert_eq!(engine.dump().await, state, "{what}");
    }
}

/// Starts on what is there after the process was killed, and goes on: all that could be read stays, whenever the power goes.
async fn go_on_killed(disk: &Arc<Disk>, what: &str) {
    let disk = disk.after_kill();
    let engine = open(&disk).expect(what);
    Fates::default().commit(&engine, 100).await;
    let state = engine.dump().await;
    for kept in Kept::EVERY {
        let lost = disk.after_power_loss(kept);
        let files = lost.files();
        let Some(engine) = open(&lost) else {
            let error = open_with(&lost.after_kill(), |_| {}).map(drop).unwrap_err();
            panic!("{what}, killed, {kept:?}: {error}\n{:?}\n{:#?}", files.keys(), disk.log());
        };
        assert_eq!(engine.dump().await, state, "{what}, killed, {kept:?}");
    }
}

#[tokio::test]
async fn every_step_fails_once_in_every_way() {
    for fault in [Fault::Error, Fault::Short, Fault::Lost, Fault::Power] {
        let mut operation = 0;
        while run(operation, fault).await {
            operation += 1;
        }
        assert!(operation > 30, "the faults reach into snapshots, not only to {operation}");
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_is_written_again_when_there_is_room() {
    let disk = Arc::<Disk>::default();
    let engine = open(&disk).unwrap();
    let mut fates = Fates::default();
    fates.commit(&engine, 0).await;
    disk.set_failing(true);
    for number in 1..5 {
        fates.commit(&engine, number).await;
    }
    assert!(!*engine.backend.writable().borrow());
    assert_eq!(fates.kept.len(), 1);
    fates.check(&engine, true, "full").await;
    disk.set_failing(false);
    engine.mended().await;
    fates.commit(&engine, 5).await;
    assert_eq!(fates.kept.len(), 2);
    fates.check(&engine, true, "room again").await;
    reopen(&disk, &fates, "room again").await;
}

#[tokio::test]
async fn what_is_not_synced_may_be_lost_but_never_in_part() {
    for sync in [Sync::Never, Sync::Interval(Duration::from_millis(100))] {
        let disk = Arc::<Disk>::default();
        let engine = open_with(&disk, |options| options.sync = sync).unwrap();
        let mut fates = Fates::default();
        let mut states = vec![engine.dump().await];
        for number in 0..30 {
            fates.commit(&engine, number).await;
            states.push(engine.dump().await);
        }
        for kept in Kept::EVERY {
            let state = open(&disk.after_power_loss(kept)).unwrap().dump().await;
            assert!(states.contains(&state), "{sync:?}, {kept:?}: {state:?}");
        }
        let killed = open(&disk.after_kill()).unwrap();
        assert_eq!(Some(&killed.dump().await), states.last(), "{sync:?}");
    }
}

#[tokio::test]
async fn what_is_prepared_ahead_takes_no_room_from_a_write() {
    for capacity in (2000..20_000).step_by(700) {
        let disk = Arc::<Disk>::default();
        disk.set_capacity(capacity);
        let set = |options: &mut Options| options.fill_ahead_bytes = 4096;
        let engine = open_with(&disk, set).unwrap();
        let mut fates = Fates::default();
        while fates.not_kept.is_empty() {
            fates.commit(&engine, fates.kept.len()).await;
        }
        let files = disk.files();
        let used: usize = files.values().map(Vec::len).sum();
        let blank =
            |content: &Vec<u8>| content.iter().rev().take_while(|byte| **byte == b'\n').count();
        let blank: usize = files.values().map(blank).sum();
        // At the end of each journal there may be less than a commit needs.
        let commit_bytes = 600;
        let most = commit_bytes * (files.len() + 1);
        assert!(capacity - used + blank < most, "{used} and {blank} of {capacity}: {fates:?}");
        fates.check(&engine, true, "full").await;
        reopen(&disk, &fates, "full").await;
    }
}
