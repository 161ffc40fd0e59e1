//! What is staged to replace a namespace: put in place whole or not at all, wherever snapshots are made.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    disk::{Disk, Layer},
    state::{DIRECTORY, Engine, START_MS, key, name, open, set},
};
use crate::backend::{
    Backend as _, CommitOutcome, Deadline, Entry, Key, Position, Revision, Staging,
    embedded::files::verify,
};

/// Revisions as another server gave them, later than those here.
const LATER: Revision = Revision(START_MS as u64 * 1024 + 1_000_000);

fn entry(value: &str, revision: u64) -> Entry {
    Entry {
        value: value.to_owned().into(),
        content_type: "text/plain".into(),
        version: 3,
        create_revision: Revision(revision - 1),
        mod_revision: Revision(revision),
        created_at_ms: 5,
        updated_at_ms: 7,
        deadline: Deadline::Of(Box::new(Key::new(b"\0lease\0a"))),
    }
}

fn staging() -> Staging {
    Staging { namespace: name("n"), id: Uuid::new_v4(), revision: LATER, entries: 0 }
}

async fn stage(engine: &Engine, staging: &Staging, round: u64) {
    let lease = Entry { deadline: Deadline::At(START_MS + 1000), ..entry("{}", LATER.0) };
    let entries = vec![
        (key(&format!("staged{round}")), entry("value", LATER.0 - round)),
        (Key::new(&[0xff, 0xfe]), entry(&format!("of round {round}"), LATER.0)),
        (Key::new(b"\0lease\0a"), lease),
    ];
    engine.backend.stage(staging, entries).await.unwrap();
}

async fn position(engine: &Engine, namespace: &str) -> Position {
    engine.backend.read(&name(namespace), &[], None).await.unwrap().tip.position
}

async fn replace(engine: &Engine, staging: &Staging) -> Revision {
    let at = position(engine, staging.namespace.as_str()).await;
    match engine.backend.replace(staging, at).await.unwrap() {
        CommitOutcome::Committed(committed) => committed.stamps[0].revision,
        CommitOutcome::Moved(moved) => panic!("nobody else is there, but {moved:?}"),
    }
}

/// Opens what another process has left; checks that it is sound and as it was.
async fn reopened(engine: Engine) -> Engine {
    let (state, disk) = (engine.dump().await, engine.disk.clone());
    drop(engine);
    let engine = open(&disk).unwrap();
    assert_eq!(engine.dump().await, state);
    let report = verify(&Layer(disk), DIRECTORY.as_ref()).unwrap();
    assert_eq!(report.findings, []);
    engine
}

#[tokio::test]
async fn what_is_put_in_place_comes_back_wherever_snapshots_are_made() {
    // One after each of the steps below, or not.
    for snapshots in 0..16_u32 {
        let mut engine = open(&Arc::<Disk>::default()).unwrap();
        engine.commit("n", vec![vec![set("key", "before")]]).await.unwrap();
        let before = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
        let staging = staging();
        for step in 0..4 {
            match step {
                0 | 1 => stage(&engine, &staging, step).await,
                2 => assert_eq!(replace(&engine, &staging).await, LATER.next()),
                _ => drop(engine.commit("n", vec![vec![set("key", "after")]]).await.unwrap()),
            }
            if snapshots & (1 << step) != 0 {
                engine.snapshot().await;
            }
        }
        engine = reopened(engine).await;
        let keys = [key("staged0"), key("staged1"), key("key"), Key::new(&[0xff, 0xfe])];
        let found = engine.backend.read(&name("n"), &keys, None).await.unwrap();
        let [first, second, after, last] = &found.entries[..] else { panic!("one slot a key") };
        assert_eq!(first.as_ref().unwrap().mod_revision, LATER);
        assert_eq!(second.as_ref().unwrap().version, 3);
        assert_eq!(after.as_ref().unwrap().mod_revision, LATER.next().next());
        assert_eq!(last.as_ref().unwrap().value, "of round 1");
        assert_ne!(found.tip.lineage, before.lineage);
        assert_eq!(found.tip.compacted, LATER.next());
        engine.commit("n", vec![vec![set("key", "goes on")]]).await.unwrap();
        reopened(engine).await;
    }
}

#[tokio::test]
async fn what_is_not_put_in_place_is_gone() {
    for snapshots in 0..8_u32 {
        for is_discarded in [false, true] {
            let engine = open(&Arc::<Disk>::default()).unwrap();
            engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
            let staging = staging();
            for step in 0..3 {
                if step < 2 {
                    stage(&engine, &staging, step).await;
                } else if is_discarded {
                    engine.backend.discard(&staging).await;
                }
                if snapshots & (1 << step) != 0 {
                    engine.snapshot().await;
                }
            }
            let engine = reopened(engine).await;
            // It is used up, so that what it replaces is empty.
            replace(&engine, &staging).await;
            let tip = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
            assert_eq!((tip.usage.keys, tip.revision), (0, LATER.next()));
            reopened(engine).await;
        }
    }
}

#[tokio::test]
async fn a_namespace_that_has_moved_on_is_not_replaced() {
    let engine = open(&Arc::<Disk>::default()).unwrap();
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    let at = position(&engine, "n").await;
    let staging = staging();
    stage(&engine, &staging, 0).await;
    engine.commit("n", vec![vec![set("key", "other")]]).await.unwrap();
    let outcome = engine.backend.replace(&staging, at).await.unwrap();
    assert!(matches!(outcome, CommitOutcome::Moved(_)), "{outcome:?}");
    replace(&engine, &staging).await;
    let found = engine.backend.read(&name("n"), &[key("key")], None).await.unwrap();
    assert!(found.entries[0].is_none());
    reopened(engine).await;
}

#[tokio::test]
async fn what_is_staged_is_seen_nowhere() {
    let engine = open(&Arc::<Disk>::default()).unwrap();
    stage(&engine, &staging(), 0).await;
    assert_eq!(engine.backend.namespaces("", None, 10).await.unwrap().len(), 0);
}
