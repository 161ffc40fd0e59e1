//! What could not be written is not there, and what was acknowledged is.

use rusqlite::Connection;

use super::state::{Engine, fresh, name, set, sound};
use crate::backend::{Backend as _, BackendError, Key};

async fn held(engine: &Engine, key: &str) -> Option<String> {
    let key = Key::new(key.as_bytes());
    let read = engine.backend.read(&name("n"), &[key], None).await.unwrap();
    read.entries[0].as_ref().map(|entry| String::from_utf8_lossy(&entry.value).into_owned())
}

fn database(engine: &Engine) -> Connection {
    Connection::open(engine.directory.path().join("state.db")).unwrap()
}

#[tokio::test]
async fn what_finds_the_database_locked_is_not_kept() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "one")]]).await.unwrap();
    let other = database(&engine);
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let refused = engine.commit("n", vec![vec![set("key", "two")]]).await.unwrap_err();
    assert!(matches!(refused, BackendError::Unavailable(_)), "{refused}");
    assert_eq!(held(&engine, "key").await.as_deref(), Some("one"));
    other.execute_batch("ROLLBACK").unwrap();
    engine.mended().await;
    engine.commit("n", vec![vec![set("key", "three")]]).await.unwrap();
    let engine = engine.restart();
    assert_eq!(held(&engine, "key").await.as_deref(), Some("three"));
    sound(engine.directory.path());
}

#[tokio::test]
async fn what_somebody_else_wrote_is_set_right() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "one")]]).await.unwrap();
    database(&engine)
        .execute_batch("UPDATE namespaces SET position = position + 7; DELETE FROM entries")
        .unwrap();
    let refused = engine.commit("n", vec![vec![set("key", "two")]]).await.unwrap_err();
    assert!(matches!(refused, BackendError::Unavailable(_)), "{refused}");
    engine.mended().await;
    let state = engine.dump().await;
    let engine = engine.restart();
    assert_eq!(engine.dump().await, state);
    assert_eq!(held(&engine, "key").await.as_deref(), Some("one"));
    sound(engine.directory.path());
}

#[tokio::test]
async fn a_commit_that_fails_at_its_end_is_not_kept() {
    let engine = fresh();
    engine.commit("n", vec![vec![set("key", "one")]]).await.unwrap();
    // What refers to nothing is found out by COMMIT alone.
    let hindrance = "CREATE TABLE parents (id INTEGER PRIMARY KEY);
        CREATE TABLE children (parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED);
        CREATE TRIGGER hindrance AFTER INSERT ON changes BEGIN INSERT INTO children VALUES (1); END";
    database(&engine).execute_batch(hindrance).unwrap();
    for value in ["two", "three"] {
        let refused = engine.commit("n", vec![vec![set("key", value)]]).await.unwrap_err();
        let BackendError::Unavailable(why) = refused else { panic!("{refused}") };
        assert!(why.contains("cannot commit: FOREIGN KEY constraint failed"), "{why}");
        assert_eq!(held(&engine, "key").await.as_deref(), Some("one"));
        engine.mended().await;
    }
    let removal = "DROP TRIGGER hindrance; DROP TABLE children; DROP TABLE parents";
    database(&engine).execute_batch(removal).unwrap();
    let committed = engine.commit("n", vec![vec![set("key", "four")]]).await.unwrap();
    assert_eq!(committed.stamps[0].revision, committed.before.next());
    let engine = engine.restart();
    assert_eq!(held(&engine, "key").await.as_deref(), Some("four"));
    sound(engine.directory.path());
}
