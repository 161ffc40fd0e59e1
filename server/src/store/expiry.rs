//! Removes what is due.
//!
//! Reads never wait for this: they hide what is past its deadline by the time that came with it. Here the
//! removal is committed and its event made, by ordinary commands.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Store, Submission, command::Command, error::StoreError, keys, namespace::Namespace};
use crate::backend::{DueElsewhere, NamespaceName};

/// How many entries are removed in one revision.
const BATCH: usize = 1000;
/// How many namespaces are looked at in one step.
const NAMESPACES_STEP: usize = 1000;
/// How many namespaces are worked on at once.
const CONCURRENCY: usize = 16;
/// The longest sleep: a clock that was set must not be noticed much later.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a namespace is left alone after a failure.
const AFTER_FAILURE_MS: i64 = 100;

/// When to look at which namespace.
#[derive(Default)]
pub(super) struct Deadlines {
    by_time: Mutex<BTreeSet<(i64, NamespaceName)>>,
    earlier: Notify,
}

impl Deadlines {
    /// Tells of the earliest deadline of a namespace.
    pub fn note(&self, namespace: &Namespace, deadline_ms: i64) {
        let known_ms = namespace.deadline_ms.fetch_min(deadline_ms, Ordering::Relaxed);
        if known_ms > deadline_ms {
            let mut by_time = self.by_time.lock();
            by_time.remove(&(known_ms, namespace.name.clone()));
            by_time.insert((deadline_ms, namespace.name.clone()));
            self.earlier.notify_one();
        }
    }

    /// The namespaces whose moment has come, which are thereby forgotten, and the next moment.
    fn take_due(&self, now_ms: i64) -> (Vec<NamespaceName>, Option<i64>) {
        let mut by_time = self.by_time.lock();
        let mut due = Vec::new();
        while by_time.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            due.extend(by_time.pop_first().map(|(_, name)| name));
        }
        (due, by_time.first().map(|(at_ms, _)| *at_ms))
    }
}

/// Removes what is due for ever.
pub(super) async fn run(store: Arc<Store>) {
    store.look_anywhere().await;
    loop {
        let asked_at_ms = store.clock.now_ms();
        let now_ms = match store.backend.now_ms().await {
            Ok(now_ms) => now_ms,
            Err(error) => {
                tracing::warn!(%error, "expiry waits for the backend");
                store.sleep(LONGEST_SLEEP).await;
                continue;
            }
        };
        let (due, next_ms) = store.deadlines.take_due(now_ms);
        if due.is_empty() {
            let left_ms = next_ms.map_or(i64::MAX, |next_ms| next_ms.saturating_sub(now_ms));
            // Counted from before the backend was asked: what has passed since is not waited for once more.
            let look_at_ms = asked_at_ms + left_ms.clamp(0, LONGEST_SLEEP.as_millis() as i64);
            tokio::select! {
                biased;
                () = store.clock.sleep_until(look_at_ms) => {}
                () = store.deadlines.earlier.notified() => {}
                news = store.backend.due_elsewhere() => store.hear(news).await,
            }
        } else {
            let work = due.into_iter().map(|name| store.remove_due(name, now_ms));
            futures::stream::iter(work).buffer_unordered(CONCURRENCY).for_each(|()| async {}).await;
        }
    }
}

impl Store {
    /// Notes what others have left to be done.
    async fn hear(&self, news: DueElsewhere) {
        match news {
            DueElsewhere::At { namespace, deadline_ms } => {
                self.deadlines.note(&self.namespace(&namespace), deadline_ms);
            }
            DueElsewhere::Anywhere => self.look_anywhere().await,
        }
    }

    /// Looks through all namespaces, as soon as the backend lets it.
    async fn look_anywhere(&self) {
        while let Err(error) = self.look_through_namespaces().await {
            tracing::warn!(?error, "expiry waits for the backend");
            self.sleep(LONGEST_SLEEP).await;
        }
    }

    /// Notes of all namespaces that there are what has to be done in them.
    async fn look_through_namespaces(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let infos = self.backend.namespaces("", after.as_ref(), NAMESPACES_STEP).await?;
            let Some(last) = infos.last() else {
                return Ok(());
            };
            after = Some(last.name.clone());
            for info in infos {
                let namespace = self.namespace(&info.name);
                if let Some(deadline_ms) = info.next_deadline_ms {
                    self.deadlines.note(&namespace, deadline_ms);
                }
                let mut log = namespace.log.lock();
                if log.0 == 0 {
                    log.1 = info.log;
                }
            }
        }
    }

    /// Removes one batch of what is due in a namespace, so that one with much to remove does not hold up the
    /// others, and notes when to come back.
    async fn remove_due(self: &Arc<Self>, name: NamespaceName, now_ms: i64) {
        let namespace = self.namespace(&name);
        namespace.deadline_ms.store(i64::MAX, Ordering::Relaxed);
        match self.try_remove_due(&namespace).await {
            Ok(Some(next_ms)) => self.deadlines.note(&namespace, next_ms),
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(namespace = name.as_str(), ?error, "expiry failed; trying again");
                self.deadlines.note(&namespace, now_ms + AFTER_FAILURE_MS);
            }
        }
    }

    async fn try_remove_due(
        self: &Arc<Self>,
        namespace: &Namespace,
    ) -> Result<Option<i64>, StoreError> {
        let (due, next_ms) = self.backend.expired(&namespace.name, BATCH).await?;
        if due.is_empty() {
            return Ok(next_ms);
        }
        let has_servers = due.iter().any(keys::is_server);
        let expire = Submission::command_only(Command::Expire(due));
        self.submit_one(&namespace.name, expire).await?;
        if has_servers {
            self.sweep_places(namespace).await?;
        }
        // What is left is due at once, or later: that is for the next look.
        let (_, next_ms) = self.backend.expired(&namespace.name, 0).await?;
        Ok(next_ms)
    }
}
