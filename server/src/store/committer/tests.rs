//! What is told of commits that follow others before these are kept.

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::task::JoinHandle;

use crate::{
    backend::{
        BackendError, ContentType, Revision,
        registry::{
            disk::{Disk, Fault},
            state::{Engine, held, key, name},
        },
    },
    store::{
        Store, StoreOptions, Submission, Work,
        command::{Command, Condition, Expiry, Set},
        error::{Refusal, StoreError},
    },
};

/// A store on such an engine.
fn store(engine: Engine) -> (Arc<Store>, Arc<Disk>) {
    let Engine { backend, clock, disk } = engine;
    (Store::new(Arc::new(backend), clock, StoreOptions::default()), disk)
}

/// Sets a key on a task of its own.
fn submit(
    store: &Arc<Store>,
    of: &str,
    condition: Condition,
) -> JoinHandle<Result<Revision, StoreError>> {
    submit_to(store, "n", None, of, condition)
}

fn submit_to(
    store: &Arc<Store>,
    namespace: &'static str,
    expected_lineage: Option<String>,
    of: &str,
    condition: Condition,
) -> JoinHandle<Result<Revision, StoreError>> {
    let set = Set {
        key: key(of),
        value: "v".into(),
        content_type: ContentType::UNKNOWN,
        expiry: Expiry::Never,
        condition,
        return_previous: false,
    };
    let work = Work::Command(Command::Set(set));
    let submission = Submission { expected_lineage, guards: Vec::new(), request: None, work };
    let store = store.clone();
    tokio::spawn(async move {
        let outcome = store.submit(&name(namespace), vec![submission]).await.remove(0);
        outcome.map(|answer| answer.revision)
    })
}

#[tokio::test]
async fn nothing_is_told_before_all_that_it_goes_by_is_kept() {
    for is_kept in [true, false] {
        let (store, disk) = store(held().await);
        let mut submitted = Vec::new();
        for (key, condition) in [
            ("a", Condition::Absent),
            ("a", Condition::Absent),
            ("b", Condition::None),
            ("a", Condition::Present),
            ("b", Condition::Absent),
        ] {
            submitted.push(submit(&store, key, condition));
            // In this order.
            tokio::task::yield_now().await;
        }
        for submitted in &mut submitted {
            assert!(submitted.now_or_never().is_none());
        }
        if !is_kept {
            disk.fail_at(0, Fault::Error);
        }
        disk.set_held(false);
        let mut outcomes = Vec::new();
        for submitted in submitted {
            outcomes.push(submitted.await.unwrap());
        }
        if is_kept {
            let is_met = outcomes.iter().map(|outcome| match outcome {
                Ok(_) => true,
                Err(StoreError::Refused { refusal: Refusal::ConditionNotMet { .. }, .. }) => false,
                Err(other) => panic!("{other:?}"),
            });
            assert!(is_met.eq([true, false, true, true, false]), "{outcomes:?}");
        } else {
            let is_unavailable = |outcome: &Result<_, _>| {
                matches!(outcome, Err(StoreError::Backend(BackendError::Unavailable(_))))
            };
            assert!(outcomes.iter().all(is_unavailable), "{outcomes:?}");
        }
    }
}

#[tokio::test]
async fn one_of_many_begins_a_namespace() {
    let (store, disk) = store(held().await);
    let begin = |key| submit_to(&store, "new", Some(String::new()), key, Condition::None);
    let begun: Vec<_> = ["a", "b", "c"].map(begin).into();
    tokio::task::yield_now().await;
    disk.set_held(false);
    let mut outcomes = Vec::new();
    for begun in begun {
        outcomes.push(begun.await.unwrap());
    }
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
}
