//! Who may open what.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use rusqlite::Connection;
use tempfile::TempDir;

use super::{
    super::{Options, Sqlite, Sync},
    state::{copy, fresh, name, open, set, sound},
};
use crate::backend::{Backend as _, Key, embedded::journal::LoadError};

#[test]
fn a_second_owner_is_refused_with_the_first_ones_process() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("state.db");
    let first = Sqlite::open(Options::new(&file)).unwrap();
    let link = directory.path().join("link.db");
    std::os::unix::fs::symlink(&file, &link).unwrap();
    for path in [&file, &link] {
        let refused = Sqlite::open(Options::new(path)).map(drop).unwrap_err();
        assert!(matches!(refused, LoadError::InUse { .. }), "{refused}");
        assert!(refused.to_string().contains(&std::process::id().to_string()), "{refused}");
    }
    drop(first);
    Sqlite::open(Options::new(&file)).map(drop).unwrap();
}

#[test]
fn an_unknown_version_is_refused() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("state.db");
    drop(Sqlite::open(Options::new(&file)).unwrap());
    Connection::open(&file).unwrap().pragma_update(None, "user_version", 2).unwrap();
    let refused = Sqlite::open(Options::new(&file)).map(drop).unwrap_err();
    assert!(matches!(refused, LoadError::Format { found: 2, known: 1, .. }), "{refused}");
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let directory = TempDir::new().unwrap();
    let database = directory.path().join("other.db");
    Connection::open(&database).unwrap().execute_batch("CREATE TABLE t (c)").unwrap();
    let text = directory.path().join("text");
    fs::write(
        &text,
        "this is no database, though it is long enough to be the head of one".repeat(99),
    )
    .unwrap();
    for file in [database, text] {
        let before = fs::read(&file).unwrap();
        let refused = Sqlite::open(Options::new(&file)).map(drop).unwrap_err();
        assert!(matches!(refused, LoadError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read(&file).unwrap(), before);
    }
}

#[tokio::test]
async fn files_have_the_mode_asked_for() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    for file in ["state.db", "state.db-wal", "state.db-shm", "state.db.lock"] {
        let metadata = fs::metadata(engine.directory.path().join(file)).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn people_can_read_it_while_it_is_used() {
    let engine = fresh();
    let json = r#"{"items": 3}"#;
    engine
        .commit("carts", vec![vec![set("cart:1", json)], vec![set("cart:2", "x")]])
        .await
        .unwrap();
    let database = Connection::open(engine.directory.path().join("state.db")).unwrap();
    let items: i64 = database
        .query_row(
            "SELECT value ->> 'items' FROM user_entries WHERE namespace = 'carts' AND key = 'cart:1'",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(items, 3);
    let mut statement = database.prepare("SELECT key, kind FROM events ORDER BY revision").unwrap();
    let events = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    let events: Vec<(String, String)> = events.map(Result::unwrap).collect();
    assert_eq!(events, [("cart:1".into(), "set".into()), ("cart:2".into(), "set".into())]);
}

#[tokio::test]
async fn a_copy_that_is_put_back_begins_another_history() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
    let before = engine.backend.read(&name("n"), &[], None).await.unwrap().tip;
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("state.db");
    let database = Connection::open(engine.directory.path().join("state.db")).unwrap();
    database.execute("VACUUM INTO ?1", [file.to_str().unwrap()]).unwrap();
    Connection::open(&file).unwrap().execute("UPDATE holdfast SET is_copy = 1", []).unwrap();
    let copied = open(directory).unwrap();
    let key = Key::new(b"key");
    let read = copied.backend.read(&name("n"), &[key], None).await.unwrap();
    assert_eq!(read.entries[0].as_ref().unwrap().value, "value");
    assert_ne!(read.tip.lineage, before.lineage);
    assert!(read.tip.revision >= before.revision && read.tip.compacted == read.tip.revision);
    copied.commit("n", vec![vec![set("key", "other")]]).await.unwrap();
    sound(copied.directory.path());
    // Once it has begun, it goes on.
    let state = copied.dump().await;
    assert_eq!(open(copy(copied.directory.path())).unwrap().dump().await, state);
    assert_eq!(copied.restart().dump().await, state);
}

#[tokio::test]
async fn damage_is_refused_and_named() {
    let damages = [
        ("entries", "UPDATE entries SET logged = 0, mod_revision = 1 << 60"),
        ("changes", "UPDATE changes SET kind = 'eaten'"),
        ("changes", "UPDATE changes SET version = NULL"),
        ("changes", "UPDATE changes SET value = 'walue'"),
        ("changes", "UPDATE changes SET value = CAST('value' AS BLOB), time_ms = time_ms + 1"),
        ("changes", "UPDATE changes SET key = 'kez'"),
        ("changes", "UPDATE changes SET expires_at_ms = 1"),
        ("changes", "UPDATE changes SET checksum = checksum + 1"),
        ("entries", "UPDATE entries SET logged = 0, value = 'walue'"),
        ("entries", "UPDATE entries SET mod_revision = mod_revision + 1"),
        ("changes", "DELETE FROM changes"),
        ("changes", "UPDATE changes SET logged = 0"),
        ("namespaces", "UPDATE namespaces SET compacted = revision + 1"),
    ];
    for (table, damage) in damages {
        let engine = fresh();
        engine.commit("n", vec![vec![set("key", "value")]]).await.unwrap();
        let directory = copy(engine.directory.path());
        let file = directory.path().join("state.db");
        Connection::open(&file).unwrap().execute_batch(damage).unwrap();
        let report = super::super::verify(&file).unwrap();
        assert_ne!(report.findings, [], "{damage}");
        let refused = open(directory).map(drop).unwrap_err().to_string();
        assert!(refused.contains(&format!("table {table}")), "{damage}: {refused}");
    }
}

#[test]
fn options_are_read_and_wrong_ones_named() {
    let options = Options::parse("state.db?sync=interval:100ms&permissions=0640").unwrap();
    assert_eq!(options.sync, Sync::Interval(Duration::from_millis(100)));
    assert_eq!((options.file.to_str(), options.permissions), (Some("state.db"), 0o640));
    for (wrong, told) in [
        ("", "needs a file"),
        ("directory/", "needs a file"),
        ("state.db?sync=later", "`sync`"),
        ("state.db?sync=interval:1us", "`sync`"),
        ("state.db?permissions=0444", "`permissions`"),
        ("state.db?snapshot_every=1MiB", "no option `snapshot_every`"),
    ] {
        let problem = Options::parse(wrong).unwrap_err();
        assert!(problem.contains(told), "{wrong}: {problem}");
    }
}
