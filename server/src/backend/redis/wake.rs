//! Who waits for news of which namespace, and how news comes: by the answers to this process, by what other servers
//! publish with their commits, and by looking again from time to time.

use std::{
    collections::HashMap,
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, watch};
use uuid::Uuid;

use super::{Core, lane::Lane, link::Message, pause};
use crate::backend::{DueElsewhere, Lineage, NamespaceName, Revision};

/// How often it is looked behind the messages,
const POLL: Duration = Duration::from_secs(1);
/// and at how many namespaces at a time: where thousands are waited for, that costs no more.
const POLLED: usize = 8;
/// At how many at a time once messages may have been missed: then it is looked at all.
const LOOKED_AT: usize = 256;

/// Where news comes in.
#[derive(Default)]
pub(super) struct Wake {
    watched: Mutex<HashMap<NamespaceName, Arc<Watched>>>,
    /// Counts the times at which messages may have been missed.
    gaps: AtomicU64,
    has_gap: Notify,
    due: Mutex<Due>,
    has_due: Notify,
}

/// A namespace that somebody waits for news of, or did a moment ago.
struct Watched {
    seen: watch::Sender<Option<(Option<Lineage>, Revision)>>,
    waiting: AtomicUsize,
    /// After how many gaps it was last looked at; 0: never.
    looked_after: AtomicU64,
}

/// What others have left to be done.
#[derive(Default)]
struct Due {
    anywhere: bool,
    namespaces: HashMap<NamespaceName, i64>,
}

impl Wake {
    /// Notes where a namespace was seen to stand.
    pub(super) fn note(&self, name: &NamespaceName, lineage: Option<Lineage>, revision: Revision) {
        let Some(watched) = self.watched.lock().get(name).cloned() else {
            return;
        };
        watched.seen.send_if_modified(|seen| {
            // Answers and messages may overtake each other.
            let is_news = seen.is_none_or(|(known, last)| known != lineage || last < revision);
            if is_news {
                *seen = Some((lineage, revision));
            }
            is_news
        });
    }

    /// The next that others have left to be done.
    pub(super) async fn due_elsewhere(&self) -> DueElsewhere {
        loop {
            let notified = self.has_due.notified();
            {
                let mut due = self.due.lock();
                if mem::take(&mut due.anywhere) {
                    due.namespaces.clear();
                    return DueElsewhere::Anywhere;
                }
                let next = due.namespaces.keys().next().cloned();
                if let Some((namespace, deadline_ms)) =
                    next.and_then(|name| due.namespaces.remove_entry(&name))
                {
                    return DueElsewhere::At { namespace, deadline_ms };
                }
            }
            notified.await;
        }
    }

    fn watch(&self, name: &NamespaceName) -> Waiter {
        let mut watched = self.watched.lock();
        let watched = watched.entry(name.clone()).or_insert_with(|| {
            Arc::new(Watched {
                seen: watch::Sender::new(None),
                waiting: AtomicUsize::new(0),
                looked_after: AtomicU64::new(0),
            })
        });
        watched.waiting.fetch_add(1, Ordering::Relaxed);
        Waiter(watched.clone())
    }

    /// Names that are waited for, in order; forgets those that are not.
    fn names(&self) -> Vec<NamespaceName> {
        let mut watched = self.watched.lock();
        watched.retain(|_, watched| watched.waiting.load(Ordering::Relaxed) > 0);
        let mut names: Vec<_> = watched.keys().cloned().collect();
        drop(watched);
        names.sort_unstable();
        names
    }

    fn note_due(&self, name: NamespaceName, deadline_ms: i64) {
        let mut due = self.due.lock();
        let known_ms = due.namespaces.entry(name).or_insert(deadline_ms);
        *known_ms = deadline_ms.min(*known_ms);
        drop(due);
        self.has_due.notify_one();
    }

    fn note_gap(&self) {
        self.gaps.fetch_add(1, Ordering::Relaxed);
        self.has_gap.notify_one();
        self.due.lock().anywhere = true;
        self.has_due.notify_one();
    }
}

/// Somebody who waits for news of a namespace.
struct Waiter(Arc<Watched>);

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Core {
    /// Resolves when a namespace is past a revision, or its lineage is another.
    pub(super) async fn changed(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        lineage: Option<Lineage>,
        after: Revision,
    ) {
        let waiter = self.wake.watch(&lane.name);
        let mut seen = waiter.0.seen.subscribe();
        // What was published before anybody waited is not known yet.
        let gaps = self.wake.gaps.load(Ordering::Relaxed) + 1;
        if waiter.0.looked_after.load(Ordering::Relaxed) < gaps && self.tip(lane).await.is_ok() {
            waiter.0.looked_after.store(gaps, Ordering::Relaxed);
        }
        // The sender lives as long as `waiter`, so waiting cannot fail.
        let _ = seen
            .wait_for(|seen| seen.is_some_and(|(now, revision)| now != lineage || revision > after))
            .await;
    }

    /// Takes in messages, for ever.
    pub(super) async fn listen(self: Arc<Self>, mut messages: mpsc::Receiver<Message>) {
        while let Some(message) = messages.recv().await {
            match message {
                Message::Published(text) => {
                    if self.hear(&text).is_none() {
                        tracing::warn!(message = ?text, "a message is not understood");
                    }
                }
                Message::Subscribed => self.wake.note_gap(),
            }
        }
    }

    /// Looks behind the messages, for ever.
    pub(super) async fn look(self: Arc<Self>) {
        let mut after: Option<NamespaceName> = None;
        loop {
            tokio::select! {
                () = pause(POLL) => {}
                () = self.wake.has_gap.notified() => {
                    for names in self.wake.names().chunks(LOOKED_AT) {
                        self.poll(names).await;
                    }
                    continue;
                }
            }
            let mut names = self.wake.names();
            let start = names.partition_point(|name| Some(name) <= after.as_ref());
            names.rotate_left(start);
            names.truncate(POLLED);
            self.poll(&names).await;
            after = names.pop();
        }
    }

    /// Takes in where a namespace stands, and whose turn it is: `SERVER NAMESPACE REVISION LINEAGE DEADLINE TURN`.
    fn hear(&self, message: &Bytes) -> Option<()> {
        let mut words = std::str::from_utf8(message).ok()?.split(' ');
        let server = words.next()?;
        let name = NamespaceName::new(words.next()?);
        let revision = Revision(words.next()?.parse().ok()?);
        let lineage = Uuid::parse_str(words.next()?).ok()?;
        let lineage = (!lineage.is_nil()).then_some(Lineage(lineage));
        self.wake.note(&name, lineage, revision);
        let deadline_ms = words.next()?.parse().ok();
        if server != self.server
            && let Some(deadline_ms) = self.look_at(&self.lane(&name), deadline_ms)
        {
            self.wake.note_due(name.clone(), deadline_ms);
        }
        if words.next()? == self.server {
            self.lane(&name).turn.notify_one();
        }
        Some(())
    }

    async fn poll(&self, names: &[NamespaceName]) {
        let lanes: Vec<Arc<Lane>> = names.iter().map(|name| self.lane(name)).collect();
        let none = [Bytes::from_static(b"0")];
        // Answers note by themselves where a namespace stands; what has none is asked again.
        drop(self.ask_all(&lanes, &self.scripts.read, &none).await);
    }
}
