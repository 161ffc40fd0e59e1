//! What needs a clock or a moment that cannot be had from outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _};
use tokio::sync::watch as value;

use super::{
    Answer, Kinds, Progress, Store, StoreOptions, Submission, WatchItem, WatchQuery, WatchStart,
    Work,
    command::{Acquire, Command, Condition, DeleteRange, Expiry, Grant, Reply, Set, Wait},
    error::StoreError,
    keys,
    record::{HoldDuration, Owner},
    selector::Selector,
};
use crate::{
    backend::{ChangeKind, ContentType, Key, NamespaceName, Removal, Revision, registry::Registry},
    clock::{Clock, ManualClock},
};

/// A clock that moves on by a millisecond whenever it is looked at.
struct Ticking(AtomicI64);

#[async_trait]
impl Clock for Ticking {
    fn now_ms(&self) -> i64 {
        self.0.fetch_add(1, Ordering::Relaxed)
    }

    async fn sleep(&self, _: Duration) {
        std::future::pending().await
    }
}

/// A clock that cannot sleep.
struct Broken;

#[async_trait]
impl Clock for Broken {
    fn now_ms(&self) -> i64 {
        0
    }

    async fn sleep(&self, _: Duration) {
        panic!("the clock is broken");
    }
}

/// A clock on which all sleep is over at once.
struct Sleepless;

#[async_trait]
impl Clock for Sleepless {
    fn now_ms(&self) -> i64 {
        1
    }

    async fn sleep(&self, _: Duration) {}
}

fn store(clock: Arc<dyn Clock>) -> Arc<Store> {
    let opened = Registry::default().open("memory:", clock.clone()).now_or_never();
    let backend = opened.expect("it waits for nothing").unwrap();
    Store::new(backend, clock, StoreOptions::default())
}

async fn submit(store: &Arc<Store>, name: &NamespaceName, work: Work) -> Answer {
    let submission = Submission { expected_lineage: None, guards: Vec::new(), request: None, work };
    store.submit(name, vec![submission]).await.remove(0).unwrap()
}

fn set(key: &str, expiry: Expiry) -> Work {
    Work::Command(Command::Set(Set {
        key: Key::new(key.as_bytes()),
        value: Bytes::new(),
        content_type: ContentType::UNKNOWN,
        expiry,
        condition: Condition::None,
        return_previous: false,
    }))
}

/// A namespace with a key `a` that stays and a key `b` that ends, at the moment answered, by a clock that moves on
/// whenever it is looked at; and the revision of the latter.
async fn one_lasting_one_ending(ttl_ms: u64) -> (Arc<Store>, NamespaceName, i64, Revision) {
    let store = store(Arc::new(Ticking(AtomicI64::new(0))));
    let name = NamespaceName::new("n");
    submit(&store, &name, set("a", Expiry::Never)).await;
    let written = submit(&store, &name, set("b", Expiry::Ttl(ttl_ms))).await;
    (store, name, written.time_ms + ttl_ms as i64, written.revision)
}

#[tokio::test]
async fn a_clear_takes_no_entry_whose_deadline_has_passed() {
    for ttl_ms in 1..30 {
        let (store, name, deadline_ms, written) = one_lasting_one_ending(ttl_ms).await;
        let cleared = submit(&store, &name, Work::Clear).await;
        let Reply::Cleared(count) = cleared.reply else { panic!("{:?}", cleared.reply) };
        let log = store.backend().changes(&name, written, 10, 1000).await.unwrap();
        let kinds: Vec<_> = log.changes.iter().map(|logged| logged.change.kind).collect();
        if cleared.time_ms < deadline_ms {
            assert_eq!((count, kinds), (2, vec![ChangeKind::Clear]), "{ttl_ms}");
        } else {
            let expired = ChangeKind::Removed(Removal::Ttl);
            assert_eq!((count, kinds), (1, vec![expired, ChangeKind::Clear]), "{ttl_ms}");
        }
    }
}

#[tokio::test]
async fn a_clear_removes_before_it_however_much_is_due() {
    let clock = ManualClock::new(1);
    let store = store(clock.clone());
    let name = NamespaceName::new("n");
    submit(&store, &name, set("lasting", Expiry::Never)).await;
    let names: Vec<_> = (0..70_000).map(|number| number.to_string()).collect();
    for names in names.chunks(1000) {
        let ending = |name: &String| match set(name, Expiry::Ttl(5)) {
            Work::Command(Command::Set(set)) => set,
            other => panic!("{other:?}"),
        };
        let batch = Command::BatchSet(names.iter().map(ending).collect());
        submit(&store, &name, Work::Command(batch)).await;
    }
    clock.advance(Duration::from_millis(5));
    let cleared = submit(&store, &name, Work::Clear).await;
    assert!(matches!(cleared.reply, Reply::Cleared(1)), "{:?}", cleared.reply);
}

#[tokio::test]
async fn a_delete_of_a_range_says_that_more_is_left_only_where_it_is() {
    for ttl_ms in 1..30 {
        let (store, name, deadline_ms, _) = one_lasting_one_ending(ttl_ms).await;
        let delete = DeleteRange { selector: Selector::all(), limit: 1 };
        let work = Work::Command(Command::DeleteRange(delete));
        let Answer { reply, time_ms, .. } = submit(&store, &name, work).await;
        let Reply::DeleteRange(deleted) = reply else { panic!("{reply:?}") };
        assert_eq!((deleted.deleted, deleted.more), (1, time_ms < deadline_ms), "{ttl_ms}");
    }
}

#[tokio::test]
async fn what_hangs_on_a_lease_goes_with_it_also_where_it_was_found_due_before() {
    let clock = ManualClock::new(1);
    let store = store(clock.clone());
    let name = NamespaceName::new("n");
    let grant = Grant { lease: 1, ttl_ms: 10, is_chosen: true };
    submit(&store, &name, Work::Command(Command::Grant(grant))).await;
    let lock = keys::lock("l");
    let acquire = Acquire {
        lock: lock.clone(),
        acquire_id: [1; 16],
        owner: Owner::default(),
        value: Bytes::new(),
        duration: HoldDuration::Lease(1),
        wait: Wait::No,
        renew_to_keep: false,
    };
    submit(&store, &name, Work::Command(Command::Acquire(Box::new(acquire)))).await;
    let written = submit(&store, &name, set("k", Expiry::Lease(1))).await;
    clock.advance(Duration::from_millis(10));
    for due in [Key::new(b"k"), lock.clone(), keys::lease(1)] {
        submit(&store, &name, Work::Command(Command::Expire(vec![due]))).await;
    }
    let log = store.backend().changes(&name, written.revision, 10, 1000).await.unwrap();
    let of = |key: &Key| log.changes.iter().find(|logged| logged.change.key == *key).unwrap();
    let (removed, freed) = (of(&Key::new(b"k")), of(&lock));
    assert_eq!(removed.change.kind, ChangeKind::Removed(Removal::Lease));
    assert_eq!(freed.change.revision, removed.change.revision);
}

// On one thread nothing that the watch has running comes between the two writes.
#[tokio::test(flavor = "current_thread")]
async fn a_watch_tells_of_a_history_that_came_and_went() {
    let store = store(ManualClock::new(1));
    let name = NamespaceName::new("n");
    let query = WatchQuery {
        selectors: vec![Selector::all()],
        start: WatchStart::Now,
        lineage: None,
        kinds: Kinds::ALL,
        progress_interval: Duration::from_secs(10),
    };
    let mut watch = Box::pin(store.watch(&name, query));
    assert!(matches!(watch.next().await, Some(Ok(WatchItem::Created { lineage: None, .. }))));
    submit(&store, &name, set("k", Expiry::Never)).await;
    submit(&store, &name, Work::DeleteNamespace).await;
    let end = watch.next().await.unwrap();
    assert!(matches!(end, Err(StoreError::LineageChanged { lineage: None, .. })), "{end:?}");
}

#[tokio::test]
async fn a_watch_that_is_catching_up_does_not_seem_to_have_caught_up() {
    let store = store(Arc::new(Sleepless));
    let name = NamespaceName::new("n");
    let first = submit(&store, &name, set("a", Expiry::Never)).await.revision;
    let mut last = first;
    // More than is pulled at once, and nothing of it matches.
    for _ in 0..1000 {
        last = submit(&store, &name, set("a", Expiry::Never)).await.revision;
    }
    let query = WatchQuery {
        selectors: vec![Selector::prefix("b")],
        start: WatchStart::After { revision: first, or_initial: false },
        lineage: None,
        kinds: Kinds::ALL,
        progress_interval: Duration::from_millis(100),
    };
    let mut watch = Box::pin(store.watch(&name, query));
    let mut told = Vec::new();
    while told.last().is_none_or(|progress: &Progress| progress.through < last) {
        match watch.next().await.unwrap().unwrap() {
            WatchItem::Created { .. } => {}
            WatchItem::Progress(progress) => told.push(progress),
            other => panic!("{other:?}"),
        }
    }
    assert!(told.len() > 1 && told.iter().all(|progress| progress.newest == last), "{told:?}");
}

#[tokio::test]
async fn maintenance_does_not_outlive_a_panic_of_one_of_its_tasks() {
    let (_running, stop) = value::channel(false);
    let ended = tokio::spawn(store(Arc::new(Broken)).maintain(stop)).await;
    assert!(ended.unwrap_err().is_panic());
}
