//! Removes what is due.
//!
//! Reads never wait for this: they hide what is past its deadline by the time that came with it. Here the
//! removal is committed and its event made, by ordinary commands.

use std::{
    collections::{BTreeSet, HashMap},
    pin::pin,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Store, Submission, command::Command, error::StoreError, keys, namespace::Namespace};
use crate::backend::{DueElsewhere, Listed, NamespaceName, Unreadable};

/// How many entries are removed in one revision.
const BATCH: usize = 1000;
/// How many namespaces are looked at in one step.
const NAMESPACES_STEP: usize = 1000;
/// How many namespaces are worked on at once: more than are likely to have something due in a store that does not answer.
const CONCURRENCY: usize = 256;
/// The longest sleep: a clock that was set must not be noticed much later.
const LONGEST_SLEEP: Duration = Duration::from_secs(1);
/// How long a namespace is left alone after a failure, and the longest, after several in a row.
const AFTER_FAILURE_MS: (i64, i64) = (100, 1000);

/// When to look at which namespace.
#[derive(Default)]
pub(super) struct Deadlines {
    moments: Mutex<Moments>,
    earlier: Notify,
    /// Told when some may not have been noted.
    missed: Notify,
}

#[derive(Default)]
struct Moments {
    by_time: BTreeSet<(i64, NamespaceName)>,
    /// Those that are being worked on, and when to come back.
    taken: HashMap<NamespaceName, i64>,
    /// How long those are left alone of which the last work has failed.
    failing: HashMap<NamespaceName, i64>,
}

impl Deadlines {
    /// Tells of the earliest deadline of a namespace.
    pub fn note(&self, namespace: &Namespace, deadline_ms: i64) {
        let known_ms = namespace.deadline_ms.fetch_min(deadline_ms, Ordering::Relaxed);
        if known_ms > deadline_ms {
            let mut moments = self.moments.lock();
            if let Some(again_ms) = moments.taken.get_mut(&namespace.name) {
                *again_ms = deadline_ms.min(*again_ms);
                return;
            }
            moments.by_time.remove(&(known_ms, namespace.name.clone()));
            moments.by_time.insert((deadline_ms, namespace.name.clone()));
            self.earlier.notify_one();
        }
    }

    /// A namespace whose moment has come, for work on it to begin.
    fn take_due(&self, now_ms: i64) -> Option<NamespaceName> {
        let mut moments = self.moments.lock();
        let is_due = moments.by_time.first().is_some_and(|(at_ms, _)| *at_ms <= now_ms);
        let (_, name) = is_due.then(|| moments.by_time.pop_first())??;
        moments.taken.insert(name.clone(), i64::MAX);
        Some(name)
    }

    /// When to begin with the next one.
    fn next_ms(&self) -> Option<i64> {
        self.moments.lock().by_time.first().map(|(at_ms, _)| *at_ms)
    }

    /// Tells that work on a namespace has ended: when to come back, if it was done.
    fn finish(&self, namespace: &Namespace, now_ms: i64, done: Option<i64>) {
        let mut moments = self.moments.lock();
        let meanwhile_ms = moments.taken.remove(&namespace.name).unwrap_or(i64::MAX);
        let again_ms = if let Some(next_ms) = done {
            moments.failing.remove(&namespace.name);
            next_ms.min(meanwhile_ms)
        } else {
            let (shortest_ms, longest_ms) = AFTER_FAILURE_MS;
            let left_alone_ms = moments.failing.entry(namespace.name.clone()).or_insert(0);
            *left_alone_ms = (*left_alone_ms * 2).clamp(shortest_ms, longest_ms);
            now_ms + *left_alone_ms
        };
        namespace.deadline_ms.store(again_ms, Ordering::Relaxed);
        if again_ms < i64::MAX {
            moments.by_time.insert((again_ms, namespace.name.clone()));
        }
    }
}

/// What is under way. Namespaces whose store does not answer hold up none of the others, unless they are too many.
type Work = FuturesUnordered<BoxFuture<'static, ()>>;

/// Removes what is due for ever.
pub(super) async fn run(store: Arc<Store>) {
    let mut work = Work::new();
    loop {
        let asked_at_ms = store.clock.now_ms();
        match beside(&mut work, store.backend.now_ms()).await {
            Ok(now_ms) => store.remove_due_by(now_ms, now_ms - asked_at_ms, &mut work).await,
            Err(error) => {
                tracing::warn!(%error, "expiry waits for the backend");
                beside(&mut work, store.sleep(LONGEST_SLEEP)).await;
            }
        }
    }
}

/// Looks through all namespaces, as soon as the backend lets it: at the start, and whenever news may have been missed.
pub(super) async fn look(store: Arc<Store>) {
    loop {
        while let Err(error) = store.look_through_namespaces().await {
            tracing::warn!(?error, "not all namespaces could be looked at for what is due");
            store.sleep(LONGEST_SLEEP).await;
        }
        store.deadlines.missed.notified().await;
    }
}

/// Waits for something while work goes on.
async fn beside<T>(work: &mut Work, awaited: impl Future<Output = T>) -> T {
    let mut awaited = pin!(awaited);
    loop {
        tokio::select! {
            biased;
            output = &mut awaited => return output,
            Some(()) = work.next() => {}
        }
    }
}

impl Store {
    /// Removes what is due at a time that the backend has told, until it has to be asked again. Its clock is ahead
    /// of ours by `ahead_ms`, or by less: what passed while it was asked is not waited for once more.
    async fn remove_due_by(self: &Arc<Self>, now_ms: i64, ahead_ms: i64, work: &mut Work) {
        loop {
            while work.len() < CONCURRENCY
                && let Some(name) = self.deadlines.take_due(now_ms)
            {
                work.push(Box::pin(self.clone().remove_due(name, ahead_ms)));
            }
            let next_ms = self.deadlines.next_ms().filter(|_| work.len() < CONCURRENCY);
            let left_ms = next_ms.map_or(i64::MAX, |next_ms| next_ms.saturating_sub(now_ms));
            let ask_at_ms = now_ms - ahead_ms + left_ms.clamp(0, LONGEST_SLEEP.as_millis() as i64);
            tokio::select! {
                biased;
                () = self.clock.sleep_until(ask_at_ms) => return,
                Some(()) = work.next() => {}
                () = self.deadlines.earlier.notified() => {}
                news = self.backend.due_elsewhere() => self.hear(news),
            }
        }
    }

    /// Notes what others have left to be done.
    fn hear(&self, news: DueElsewhere) {
        match news {
            DueElsewhere::At { namespace, deadline_ms } => {
                self.deadlines.note(&self.namespace(&namespace), deadline_ms);
            }
            DueElsewhere::Anywhere => self.deadlines.missed.notify_one(),
        }
    }

    /// Notes of all namespaces that there are what has to be done in them.
    async fn look_through_namespaces(&self) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let listed = self.backend.namespaces("", after.as_ref(), NAMESPACES_STEP).await?;
            if listed.is_empty() {
                return Ok(());
            }
            for listed in listed {
                after = Some(self.note_listed(listed));
            }
        }
    }

    /// Notes of a namespace what has to be done in it; answers its name.
    fn note_listed(&self, listed: Listed) -> NamespaceName {
        let info = match listed {
            Ok(info) => info,
            Err(Unreadable { name, error }) => {
                tracing::warn!(namespace = name.as_str(), %error, "it is not known what is due here");
                // It is tried until it is.
                self.deadlines.note(&self.namespace(&name), i64::MIN);
                return name;
            }
        };
        let namespace = self.namespace(&info.name);
        if let Some(deadline_ms) = info.next_deadline_ms {
            self.deadlines.note(&namespace, deadline_ms);
        }
        let mut log = namespace.log.lock();
        if log.commits == 0 {
            log.shape = info.log;
        }
        info.name
    }

    /// Removes one batch of what is due in a namespace, so that one with much to remove does not hold up the
    /// others, and notes when to come back by the clock of the backend.
    async fn remove_due(self: Arc<Self>, name: NamespaceName, ahead_ms: i64) {
        let namespace = self.namespace(&name);
        // What is told from here on is new.
        namespace.deadline_ms.store(i64::MAX, Ordering::Relaxed);
        let done = match self.try_remove_due(&namespace).await {
            Ok(next_ms) => Some(next_ms.unwrap_or(i64::MAX)),
            Err(error) => {
                tracing::warn!(namespace = name.as_str(), ?error, "expiry failed; trying again");
                None
            }
        };
        self.deadlines.finish(&namespace, self.clock.now_ms() + ahead_ms, done);
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
