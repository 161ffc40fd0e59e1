//! Whatever was committed is the same after a restart.

use std::{sync::atomic::Ordering, time::Duration};

use uuid::Uuid;

use super::state::{Engine, START_MS, assert_same, copy, draft, fresh, name, open, set, sound};
use crate::{
    backend::{
        Backend as _, Created, Deadline, Draft, Entry, GroupIndex, Key, NewDeadline, Removal,
        Retain, Revision, Staging, StoredEntry, Write, WriteOp,
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
            0..4 => Key::new(format!("user{number}").as_bytes()),
            4 => Key::new(&[0xff, number as u8]),
            5 => Key::new(format!("\0\0note{number}").as_bytes()),
            _ => Key::new(format!("\0internal{number}").as_bytes()),
        }
    }

    fn value(&mut self) -> Vec<u8> {
        match self.below(4) {
            0 => Vec::new(),
            1 => vec![0, 0xff, self.below(10) as u8],
            _ => self.below(1000).to_string().into_bytes(),
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
    fn write(&mut self, key: Key, held: Option<&StoredEntry>) -> Write {
        let fresh = Draft {
            content_type: ["", "application/json", "text/plain"][self.below(3) as usize].into(),
            deadline: self.deadline(),
            ..draft(&self.value())
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

/// Writes some keys, in one or two groups.
async fn commit(engine: &Engine, random: &mut Random, namespace: &str) {
    let mut keys: Vec<Key> = (0..=random.below(4)).map(|_| random.key()).collect();
    keys.sort();
    keys.dedup();
    let mut writes = Vec::new();
    for key in keys {
        let read = engine.backend.read(&name(namespace), std::slice::from_ref(&key), None).await;
        let held = read.unwrap().entries.remove(0);
        writes.push(random.write(key, held.as_ref()));
    }
    let second = writes.split_off(random.below(writes.len() as u64) as usize);
    let groups: Vec<_> = [writes, second].into_iter().filter(|group| !group.is_empty()).collect();
    let lose = random.below(20) == 0;
    let before = if lose { engine.dump().await } else { Vec::new() };
    engine.lose_answer.store(lose, Ordering::Relaxed);
    let committed = engine.commit(namespace, by_own_group(groups)).await;
    assert_eq!(committed.is_err(), lose, "{committed:?}");
    if lose {
        engine.mended().await;
        assert_same(&engine.dump().await, &before, "mended");
    }
}

/// What a group creates is created by that group.
fn by_own_group(mut groups: Vec<Vec<Write>>) -> Vec<Vec<Write>> {
    for (index, group) in groups.iter_mut().enumerate() {
        for write in group {
            if let WriteOp::Set(draft) | WriteOp::SetUnlogged(draft) = &mut write.op
                && let Created::By(group) = &mut draft.created
            {
                *group = GroupIndex(index);
            }
        }
    }
    groups
}

async fn replace(engine: &Engine, random: &mut Random, namespace: &str) {
    let staging = Staging {
        namespace: name(namespace),
        id: Uuid::from_u128(random.below(1 << 30).into()),
        revision: Revision(5),
        entries: 0,
    };
    let entry = |value: Vec<u8>| Entry {
        value: value.into(),
        content_type: "".into(),
        version: 3,
        create_revision: Revision(2),
        mod_revision: Revision(4),
        created_at_ms: 20,
        updated_at_ms: 40,
        deadline: Deadline::Never,
    };
    for _ in 0..random.below(3) {
        let entries = vec![(random.key(), entry(random.value()))];
        engine.backend.stage(&staging, entries).await.unwrap();
    }
    if random.below(3) > 0 {
        let at = engine.backend.read(&name(namespace), &[], None).await.unwrap().tip.position;
        engine.backend.replace(&staging, at).await.unwrap();
    }
}

async fn step(engine: &Engine, random: &mut Random) {
    let namespace = ["a", "b"][random.below(2) as usize];
    match random.below(40) {
        0 => {
            let op = WriteOp::SetUnlogged(draft(b"r"));
            let records = vec![Write { key: Key::new(b"\0record"), op }];
            engine.clear(namespace, records).await.unwrap();
        }
        1 => drop(engine.delete(namespace).await),
        2 => replace(engine, random, namespace).await,
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
    for seed in 0..25 {
        let mut random = Random(seed);
        let mut engine = fresh();
        for round in 0..4 {
            for _ in 0..random.below(60) {
                step(&engine, &mut random).await;
            }
            // What was forgotten is known to the journal with the next commit.
            for namespace in ["a", "b"] {
                commit(&engine, &mut random, namespace).await;
            }
            let state = engine.dump().await;
            let now_ms = engine.clock.now_ms();
            let killed = open(copy(engine.directory.path())).unwrap();
            assert_same(
                &killed.dump().await,
                &state,
                &format!("seed {seed} round {round}, killed"),
            );
            engine = engine.restart();
            assert_same(&engine.dump().await, &state, &format!("seed {seed} round {round}"));
            sound(engine.directory.path());
            engine.clock.advance(Duration::from_millis((now_ms - START_MS) as u64));
        }
    }
}

#[tokio::test]
async fn forgotten_rows_are_swept() {
    let engine = fresh();
    for number in 0..3000 {
        let write = set(&format!("key{}", number % 10), &number.to_string());
        engine.commit("n", vec![vec![write]]).await.unwrap();
        let tip = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
        let retain = Retain::After(Revision(tip.revision.0 - 5));
        engine.backend.trim(&name("n"), &retain, 1000).await.unwrap();
    }
    let database = rusqlite::Connection::open(engine.directory.path().join("state.db")).unwrap();
    let count = |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        database.query_row(&sql, [], |row| row.get(0)).unwrap()
    };
    assert_eq!(count("entries"), 10);
    // The events that are held and the one forgotten since, and what each was made from.
    assert!(count("changes") <= 12, "{} rows", count("changes"));
    sound(engine.directory.path());
}

#[tokio::test]
async fn revisions_of_a_deleted_namespace_are_not_given_again() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    let deleted = engine.delete("n").await;
    let engine = engine.restart();
    let made = engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    assert_eq!(made.before, deleted.revision);
    let tip = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
    assert!(tip.lineage.is_some() && tip.lineage != deleted.lineage);
}

#[tokio::test]
async fn time_goes_on_from_the_latest() {
    let engine = fresh();
    engine.clock.advance(Duration::from_secs(60));
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    let engine = engine.restart();
    assert_eq!(engine.clock.now_ms(), START_MS);
    assert_eq!(engine.backend.now_ms().await.unwrap(), START_MS + 60_000);
}
