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
