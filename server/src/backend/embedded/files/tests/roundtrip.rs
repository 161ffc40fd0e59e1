//! Whatever was committed is the same after a restart, wherever snapshots were made.

use std::{io::Read as _, sync::Arc, time::Duration};

use super::{
    disk::{Disk, Fault, Kept, Layer},
    state::{DIRECTORY, Engine, START_MS, draft, key, name, newest_snapshot, open, open_with, set},
};
use crate::{
    backend::{
        Backend as _, Created, Draft, GroupIndex, Key, NewDeadline, Removal, Retain, Revision,
        StoredEntry, Write, WriteOp,
        embedded::files::{FileLayer as _, Options, verify},
    },
    clock::Clock as _,
};

/// A small generator of numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % bound
    }

    fn key(&mut self) -> Key {
        let number = self.below(6);
        match self.below(8) {
            0..4 => key(&format!("user{number}")),
            4 => Key::new(&[0xff, number as u8]),
            5 => Key::new(format!("\0\0note{number}").as_bytes()),
            _ => Key::new(format!("\0internal{number}").as_bytes()),
        }
    }

    fn deadline(&mut self) -> NewDeadline {
        match self.below(4) {
            0 => NewDeadline::After(self.below(1000)),
            1 => NewDeadline::At(START_MS + self.below(1000) as i64),
            2 => NewDeadline::Of(Key::new(b"\0lease")),
            _ => NewDeadline::Never,
        }
    }

    /// A write that the store could make of what is there.
    fn write(&mut self, key: Key, held: Option<&StoredEntry>, group: usize) -> Write {
        let fresh = Draft {
            content_type: ["", "application/json", "text/plain"][self.below(3) as usize].into(),
            created: Created::By(GroupIndex(group)),
            deadline: self.deadline(),
            ..draft(format!("{}", self.below(1000)).as_bytes())
        };
        let draft = match held {
            None => fresh,
            Some(held) => Draft {
                version: held.version + 1,
                created: Created::Before(held.create_revision, held.created_at_ms),
                ..fresh
            },
        };
        let same = |draft: Draft, held: &StoredEntry| Draft {
            value: held.value.clone(),
            content_type: held.content_type.clone(),
            ..draft
        };
        let removals = [Removal::Deleted, Removal::Ttl, Removal::Lease, Removal::Revoked];
        let op = match (self.below(6), held) {
            (0, Some(held)) => WriteOp::SetDeadline(same(draft, held)),
            (1, Some(_)) => WriteOp::Remove(removals[self.below(4) as usize]),
            (2, _) if key.is_internal() => WriteOp::RemoveUnlogged,
            (3 | 4, _) if key.is_internal() => WriteOp::SetUnlogged(draft),
            _ => WriteOp::Set(draft),
        };
        Write { key, op }
    }
}

async fn commit(engine: &Engine, random: &mut Random, namespace: &str) {
    let mut groups: Vec<Vec<Write>> = Vec::new();
    for group in 0..=random.below(3) as usize {
        let mut writes: Vec<Write> = Vec::new();
        for _ in 0..=random.below(3) {
            let key = random.key();
            let known = groups.iter().flatten().chain(&writes).any(|write| write.key == key);
            if !known {
                let read =
                    engine.backend.read(&name(namespace), std::slice::from_ref(&key), None).await;
                let held = read.unwrap().entries.remove(0);
                writes.push(random.write(key, held.as_ref(), group));
            }
        }
        if !writes.is_empty() {
            groups.push(writes);
        }
    }
    // Groups left out would shift the others.
    if groups.len() > 1 {
        groups.truncate(1);
    }
    engine.commit(namespace, groups).await.unwrap();
}

async fn step(engine: &Engine, random: &mut Random) {
    let namespace = ["a", "b"][random.below(2) as usize];
    match random.below(40) {
        0 => {
            let records =
                vec![Write { key: Key::new(b"\0record"), op: WriteOp::SetUnlogged(draft(b"r")) }];
            engine.clear(namespace, records).await.unwrap();
        }
        1 => drop(engine.delete(namespace).await),
        2 => engine.snapshot().await,
        3..10 => {
            let tip = engine.backend.read(&name(namespace), &[], None).await.unwrap().tip;
            let back = random.below(8);
            let retain = Retain::After(Revision(tip.revision.0.saturating_sub(back)));
            engine.backend.trim(&name(namespace), &retain, 1000).await.unwrap();
        }
        10..14 => engine.clock.advance(Duration::from_millis(random.below(100))),
        _ => commit(engine, random, namespace).await,
    }
}

#[tokio::test]
async fn all_is_as_it_was_after_any_steps() {
    for seed in 0..150 {
        let mut random = Random(seed);
        let mut disk = Arc::<Disk>::default();
        let mut engine = open(&disk).unwrap();
        for round in 0..4 {
            for _ in 0..random.below(30) {
                step(&engine, &mut random).await;
            }
            if random.below(3) == 0 {
                engine.snapshot().await;
            }
            // What was forgotten is known to the journal with the next commit.
            for namespace in ["a", "b"] {
                commit(&engine, &mut random, namespace).await;
            }
            let state = engine.dump().await;
            let now_ms = engine.clock.now_ms();
            // Killed while it runs, then without power, then once more as it had ended by itself.
            disk = disk.after_kill();
            let killed = open(&disk).unwrap().dump().await;
            assert_eq!(killed, state, "seed {seed} round {round}, killed");
            disk = disk.after_power_loss(Kept::Nothing);
            drop(engine);
            engine = open(&disk).unwrap();
            assert_eq!(engine.dump().await, state, "seed {seed} round {round}, power lost");
            let report = verify(&Layer(disk.clone()), DIRECTORY.as_ref()).unwrap();
            assert_eq!(report.findings, [], "seed {seed} round {round}");
            engine.clock.advance(Duration::from_millis((now_ms - START_MS) as u64));
        }
    }
}

#[tokio::test]
async fn time_goes_on_from_the_latest() {
    let disk = Arc::default();
    let engine = open(&disk).unwrap();
    engine.clock.advance(Duration::from_secs(60));
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    drop(engine);
    let engine = open(&disk).unwrap();
    assert_eq!(engine.clock.now_ms(), START_MS);
    assert_eq!(engine.backend.now_ms().await.unwrap(), START_MS + 60_000);
    let tip = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
    assert_eq!(tip.time_ms, START_MS + 60_000);
}

#[tokio::test]
async fn revisions_of_a_deleted_namespace_are_not_given_again() {
    let disk = Arc::default();
    let engine = open(&disk).unwrap();
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    let deleted = engine.delete("n").await;
    for snapshot in [false, true] {
        if snapshot {
            engine.snapshot().await;
        }
        let engine = open(&disk.after_kill()).unwrap();
        let made = engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
        assert_eq!(made.before, deleted.revision);
        let tip = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
        assert!(tip.lineage.is_some() && tip.lineage != deleted.lineage);
    }
}

#[tokio::test]
async fn commits_that_come_while_a_snapshot_is_written_are_kept() {
    let disk = Arc::default();
    // A snapshot after every group, one after the other.
    let engine = open_with(&disk, |options| options.snapshot_every_bytes = 1).unwrap();
    for number in 0..500 {
        let write = set(&format!("key{}", number % 50), &number.to_string());
        engine.commit("n", vec![vec![write]]).await.unwrap();
        let lease = Write { key: Key::new(b"\0lease"), op: WriteOp::SetUnlogged(draft(b"alive")) };
        engine.commit("n", vec![vec![lease]]).await.unwrap();
    }
    let state = engine.dump().await;
    assert_eq!(open(&disk.after_kill()).unwrap().dump().await, state);
    drop(engine);
    assert!(newest_snapshot(&disk).is_some());
    assert_eq!(open(&disk).unwrap().dump().await, state);
}

/// An engine that keeps so many copies of its snapshots.
fn with_backups(disk: &Arc<Disk>, count: u32) -> Engine {
    let set = |options: &mut Options| {
        (options.backups, options.backup_directory) = (count, Some("/backups".into()));
    };
    open_with(disk, set).unwrap()
}

/// A copy of a snapshot, once it is there.
async fn copied(disk: &Arc<Disk>, number: u64) -> Vec<u8> {
    let path = format!("/backups/snapshot-{number:08}.jsonl");
    let mut copy = Vec::new();
    loop {
        if let Ok(mut file) = Layer(disk.clone()).read(path.as_ref()) {
            file.read_to_end(&mut copy).unwrap();
            return copy;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_backup_put_back_begins_another_history() {
    let disk = Arc::default();
    let engine = with_backups(&disk, 2);
    let mut last = Revision(0);
    for (value, number) in ["one", "two", "three", "four"].into_iter().zip(2..) {
        let committed = engine.commit("n", vec![vec![set("key", value)]]).await.unwrap();
        last = committed.stamps[0].revision;
        engine.snapshot().await;
        copied(&disk, number).await;
    }
    let count = || Layer(disk.clone()).list("/backups".as_ref()).unwrap().len();
    while count() > 2 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(), 2);
    let before = engine.backend.read(&name("n"), &[key("key")], None).await.unwrap();
    drop(engine);

    let restored = Arc::<Disk>::default();
    restored.put("/data/snapshot-00000005.jsonl", copied(&disk, 5).await);
    let engine = open(&restored).unwrap();
    let after = engine.backend.read(&name("n"), &[key("key")], None).await.unwrap();
    let (held, kept) = (before.entries[0].as_deref(), after.entries[0].as_deref());
    assert_eq!(format!("{held:?}"), format!("{kept:?}"));
    assert_ne!(after.tip.lineage, before.tip.lineage);
    // By this it is known what leases count.
    assert_eq!(after.tip.cleared, before.tip.cleared);
    assert!(after.tip.revision >= last && after.tip.compacted == after.tip.revision);
    engine.commit("n", vec![vec![set("key", "five")]]).await.unwrap();
    let state = engine.dump().await;
    drop(engine);
    // Once it has begun, it goes on.
    assert_eq!(open(&restored).unwrap().dump().await, state);
}

#[tokio::test]
async fn a_start_on_a_copy_that_was_interrupted_is_begun_anew() {
    let disk = Arc::default();
    let engine = with_backups(&disk, 1);
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    engine.snapshot().await;
    let copy = copied(&disk, 2).await;
    for operation in 0.. {
        let restored = Arc::<Disk>::default();
        restored.put("/data/snapshot-00000002.jsonl", copy.clone());
        restored.fail_at(operation, Fault::Power);
        drop(open(&restored));
        if !restored.has_failed() {
            assert!(operation > 10, "the new history has been begun after {operation} steps");
            break;
        }
        let killed = restored.after_kill();
        for disk in Kept::EVERY.map(|kept| restored.after_power_loss(kept)).iter().chain([&killed])
        {
            let engine = open(disk).unwrap_or_else(|error| panic!("{operation}: {error}"));
            let read = engine.backend.read(&name("n"), &[key("key")], None).await.unwrap();
            assert!(read.entries[0].is_some(), "{operation}");
        }
    }
}

#[tokio::test]
async fn the_newest_copy_has_the_highest_number_also_after_another_history() {
    let disk = Arc::<Disk>::default();
    disk.put("/backups/snapshot-00000046.jsonl", Vec::new());
    disk.put("/backups/snapshot-00000040.tmp", Vec::new());
    let engine = with_backups(&disk, 2);
    for expected in [["46", "47"], ["47", "48"], ["48", "49"]] {
        engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
        engine.snapshot().await;
        let expected = expected.map(|number| format!("snapshot-000000{number}.jsonl"));
        while Layer(disk.clone()).list("/backups".as_ref()).unwrap() != expected {
            tokio::task::yield_now().await;
        }
    }
    // Where the state of a server is, nothing is put.
    let other = Arc::<Disk>::default();
    other.put("/backups/LOCK", Vec::new());
    let engine = with_backups(&other, 2);
    for _ in 0..3 {
        engine.snapshot().await;
    }
    drop(engine);
    assert_eq!(Layer(other).list("/backups".as_ref()).unwrap(), ["LOCK"]);
}
