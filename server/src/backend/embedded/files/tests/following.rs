//! Commits that follow others before these are kept.

use std::sync::Arc;

use super::{
    disk::Fault,
    state::{Committing, Engine, held, key, name, open, set},
};
use crate::backend::{Backend as _, BackendError};

async fn begin(engine: &Engine, key: &str) -> Committing {
    engine.begin("n", vec![vec![set(key, key)]]).await
}

/// Whether a key can be read, and whether whoever commits next finds it.
async fn seen(engine: &Engine, of: &str) -> (bool, Option<bool>) {
    let keys = [key(of)];
    let read = engine.backend.read(&name("n"), &keys, None).await.unwrap();
    let under_way = engine.backend.read_under_way(&name("n"), &keys);
    (read.entries[0].is_some(), under_way.map(|(answer, _)| answer.entries[0].is_some()))
}

#[tokio::test]
async fn who_commits_next_goes_by_what_is_on_its_way_and_who_reads_does_not() {
    let engine = held().await;
    let a = begin(&engine, "a").await;
    let b = begin(&engine, "b").await;
    for key in ["a", "b"] {
        assert_eq!(seen(&engine, key).await, (false, Some(true)), "{key}");
    }
    assert_eq!(seen(&engine, "first").await, (true, Some(true)));
    engine.disk.set_held(false);
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert_eq!(b.stamps[0].revision, a.stamps[0].revision.next());
    assert_eq!((b.before, b.tip.position.0), (a.stamps[0].revision, a.tip.position.0 + 1));
    for key in ["a", "b"] {
        assert_eq!(seen(&engine, key).await, (true, None), "{key}");
    }
    let state = engine.dump().await;
    assert_eq!(open(&engine.disk.after_kill()).unwrap().dump().await, state);
}

#[tokio::test]
async fn what_follows_a_commit_that_is_not_kept_is_not_kept_either() {
    let engine = held().await;
    let before = engine.dump().await;
    let (a, b) = (begin(&engine, "a").await, begin(&engine, "b").await);
    engine.disk.fail_at(0, Fault::Error);
    engine.disk.set_held(false);
    for (key, committing) in [("a", a), ("b", b)] {
        let error = committing.await.unwrap_err();
        assert!(matches!(error, BackendError::Unavailable(_)), "{key}: {error}");
        assert_eq!(seen(&engine, key).await, (false, None), "{key}");
    }
    assert_eq!(engine.dump().await, before);
    engine.mended().await;
    let last = engine.commit("n", vec![vec![set("c", "3")]]).await.unwrap();
    assert_eq!(last.stamps[0].revision, last.before.next());
    let state = engine.dump().await;
    assert_eq!(open(&engine.disk.after_kill()).unwrap().dump().await, state);
}

#[tokio::test]
async fn once_the_journals_thread_has_ended_nothing_waits_for_it() {
    let engine = held().await;
    let (a, b) = (begin(&engine, "a").await, begin(&engine, "b").await);
    engine.disk.fail_at(0, Fault::Panic);
    engine.disk.set_held(false);
    for committing in [a, b] {
        assert!(matches!(committing.await, Err(BackendError::OutcomeUnknown(_))));
    }
    for number in 0..20 {
        let committing = engine.begin("n", vec![vec![set("c", &number.to_string())]]).await;
        assert!(matches!(committing.await, Err(BackendError::OutcomeUnknown(_))), "{number}");
    }
}

#[tokio::test]
async fn what_changes_the_whole_waits_and_is_not_followed() {
    let engine = Arc::new(held().await);
    let a = begin(&engine, "a").await;
    let clearing = tokio::spawn({
        let engine = engine.clone();
        async move { engine.clear("n", Vec::new()).await }
    });
    tokio::task::yield_now().await;
    // It waits already: what comes now does not get ahead of it for ever.
    let following = tokio::spawn({
        let engine = engine.clone();
        async move { engine.commit("n", vec![vec![set("b", "2")]]).await }
    });
    tokio::task::yield_now().await;
    engine.disk.set_held(false);
    assert!(a.await.is_ok());
    clearing.await.unwrap().unwrap();
    assert!(following.await.unwrap().is_ok());
    let state = engine.dump().await;
    assert_eq!(open(&engine.disk.after_kill()).unwrap().dump().await, state);
}
