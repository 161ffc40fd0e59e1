//! Equal watches of one client share a stream: who may, and from where on.
//!
//! A watch from now on, or one that has lost its connection, joins the stream that is there, if that has all it
//! needs. Otherwise it opens one itself, and if there was none, puts what comes into a ring for all.
//!
//! Invariant: a watch that joins sees what it would see on a stream of its own. What it is told of the namespace when
//! it begins, it asks the server for: the stream that it joins may lag behind.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use futures::{StreamExt as _, future::BoxFuture};
use holdfast_proto::v1;
use tokio::{task::coop, time::Instant};

use super::{
    broadcast::{Began, Broadcast, Gone, Subscriber},
    resume::{Body, Located, Message},
    session::{Connection, lost},
};
use crate::{
    Error,
    error::{Cause, Failure},
    transport::{Endpoint, Transport},
};

/// How many messages are put into the ring before those who wait for them are woken.
const AT_ONCE: usize = 32;
/// How often a watch that begins may meet a stream of a history that is over, before it goes alone.
const MOST_OUTDATED: usize = 3;

/// What the watches of a client are about, by what they ask for.
pub(crate) struct Topics<I, E>(Mutex<ByKey<I, E>>);

type ByKey<I, E> = HashMap<Vec<u8>, Weak<Topic<I, E>>>;

/// Equal watches. It lasts as long as any of them.
pub(crate) struct Topic<I, E> {
    topics: Weak<Topics<I, E>>,
    key: Vec<u8>,
    /// Asks where the namespace stands.
    probe: v1::ListRequest,
    settle: Settle<I, E>,
    current: Mutex<Option<Current<I, E>>>,
}

/// The stream for all.
struct Current<I, E> {
    broadcast: Weak<Broadcast<I, E>>,
    /// The server that it comes from: where that is no longer used, the stream may be of no use either.
    endpoint: Endpoint,
}

/// Makes a message fit to be kept, and says how many bytes it takes.
pub(crate) type Settle<I, E> = fn(Message<I, E>) -> (Message<I, E>, usize);

/// A place on the stream for all, and where the watch begins on it.
pub(crate) struct Joined<I, E> {
    pub(crate) subscriber: Subscriber<I, E>,
    pub(crate) began: Began,
    /// Whether it was there before.
    pub(crate) is_older: bool,
}

/// How a stream for all is opened.
pub(crate) struct Opening<I, E> {
    pub(crate) transport: Arc<Transport>,
    /// Opens it and waits for its first message.
    pub(crate) connecting: BoxFuture<'static, Result<Connected<I, E>, Failure>>,
    pub(crate) longest_silence: Duration,
}

/// A connection and the first message that came over it.
pub(crate) type Connected<I, E> = (Connection<I, E>, Message<I, E>);

impl<I, E> Default for Topics<I, E> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<I, E> fmt::Debug for Topics<I, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Topics").finish_non_exhaustive()
    }
}

impl<I, E> Topics<I, E> {
    /// What all watches with this key are about.
    pub(crate) fn topic(
        self: &Arc<Self>,
        key: Vec<u8>,
        probe: v1::ListRequest,
        settle: Settle<I, E>,
    ) -> Arc<Topic<I, E>> {
        let mut topics = locked(&self.0);
        if let Some(topic) = topics.get(&key).and_then(Weak::upgrade) {
            return topic;
        }
        let topic = Arc::new(Topic {
            topics: Arc::downgrade(self),
            key: key.clone(),
            probe,
            settle,
            current: Mutex::default(),
        });
        topics.insert(key, Arc::downgrade(&topic));
        topic
    }
}

impl<I, E> Drop for Topic<I, E> {
    fn drop(&mut self) {
        let Some(topics) = self.topics.upgrade() else { return };
        let mut topics = locked(&topics.0);
        // Another may have taken its place already.
        if topics.get(&self.key).is_some_and(|topic| topic.strong_count() == 0) {
            topics.remove(&self.key);
        }
    }
}

impl<I: Send + Sync + 'static, E: Located + Send + Sync + 'static> Topic<I, E> {
    /// Joins the stream for all for what is committed from now on, or opens it. Nothing if neither is possible.
    pub(crate) async fn join_now(
        &self,
        transport: &Transport,
        opening: impl Fn() -> Opening<I, E>,
        deadline: Instant,
    ) -> Result<Option<Joined<I, E>>, Arc<Failure>> {
        let mut outdated = None;
        for _ in 0..MOST_OUTDATED {
            let endpoint = transport.endpoint();
            let (mut subscriber, is_first) = self.subscribe(endpoint, outdated.as_ref(), &opening);
            let began = match poll_fn(|context| subscriber.poll_began(context)).await {
                Ok(began) => began,
                // It was asked for the place of another.
                Err(failure) if !is_first && !failure.is_passing() => continue,
                Err(failure) => return Err(failure),
            };
            if is_first {
                return Ok(Some(Joined { subscriber, began, is_older: false }));
            }
            let broadcast = Arc::clone(subscriber.broadcast());
            // What is committed after the answer to what is asked now comes after the place that was taken.
            let newest = broadcast.newest();
            let asked = transport.attempt(self.probe.clone(), deadline).await;
            let Ok(now) = asked else { break };
            if broadcast.lineage() == now.lineage {
                let began = Began { lineage: now.lineage, after: now.revision.max(newest) };
                return Ok(Some(Joined { subscriber, began, is_older: true }));
            }
            // It has yet to notice that the namespace was made anew.
            outdated = Some(broadcast);
        }
        Ok(None)
    }

    /// Joins the stream for all after this revision of this lineage, if it holds all that came after it; if there is
    /// none, opens it in this way. Nothing if neither is possible.
    pub(crate) async fn join_after(
        &self,
        revision: u64,
        lineage: &str,
        endpoint: Endpoint,
        opening: Option<impl Fn() -> Opening<I, E>>,
    ) -> Result<Option<Joined<I, E>>, Arc<Failure>> {
        let standing = self.current(endpoint).filter(|it| it.has_begun());
        let broadcast = match (standing, opening) {
            (Some(broadcast), _) => broadcast,
            (None, Some(opening)) => {
                let (mut subscriber, is_first) = self.subscribe(endpoint, None, &opening);
                let began = poll_fn(|context| subscriber.poll_began(context)).await?;
                if is_first {
                    return Ok(Some(Joined { subscriber, began, is_older: false }));
                }
                Arc::clone(subscriber.broadcast())
            }
            (None, None) => return Ok(None),
        };
        let joined = broadcast.subscribe_after(revision, lineage);
        Ok(joined.map(|(subscriber, lineage)| {
            let began = Began { lineage, after: revision };
            Joined { subscriber, began, is_older: true }
        }))
    }

    /// Joins the stream for all if that has not come any further, and is of this lineage.
    pub(crate) fn join_ahead(
        &self,
        revision: u64,
        lineage: &str,
        endpoint: Endpoint,
    ) -> Option<Subscriber<I, E>> {
        self.current(endpoint)?.subscribe_ahead(revision, lineage)
    }

    /// A place at the end of the stream for all, unless that is this one; if there is none, it is opened.
    /// Whether it was.
    fn subscribe(
        &self,
        endpoint: Endpoint,
        outdated: Option<&Arc<Broadcast<I, E>>>,
        opening: &impl Fn() -> Opening<I, E>,
    ) -> (Subscriber<I, E>, bool) {
        let mut current = locked(&self.current);
        let present = current
            .as_ref()
            .and_then(|current| current.of(endpoint))
            .filter(|it| outdated.is_none_or(|outdated| !Arc::ptr_eq(it, outdated)));
        if let Some(subscriber) = present.and_then(|broadcast| broadcast.subscribe()) {
            return (subscriber, false);
        }
        let (broadcast, subscriber) = Broadcast::with_subscriber();
        *current = Some(Current { broadcast: Arc::downgrade(&broadcast), endpoint });
        drop(current);
        let opening = opening();
        let publisher = Publisher {
            broadcast,
            settle: self.settle,
            longest_silence: opening.longest_silence,
            transport: opening.transport,
        };
        publisher.spawn(opening.connecting);
        (subscriber, true)
    }

    fn current(&self, endpoint: Endpoint) -> Option<Arc<Broadcast<I, E>>> {
        locked(&self.current).as_ref()?.of(endpoint)
    }
}

impl<I, E> Current<I, E> {
    /// The stream, if it comes from this server and goes on.
    fn of(&self, endpoint: Endpoint) -> Option<Arc<Broadcast<I, E>>> {
        let broadcast = self.broadcast.upgrade().filter(|_| self.endpoint == endpoint);
        broadcast.filter(|broadcast| broadcast.goes_on())
    }
}

/// What puts the messages of a stream into its ring, as long as anybody reads them.
struct Publisher<I, E> {
    broadcast: Arc<Broadcast<I, E>>,
    settle: Settle<I, E>,
    longest_silence: Duration,
    transport: Arc<Transport>,
}

impl<I: Send + Sync + 'static, E: Located + Send + Sync + 'static> Publisher<I, E> {
    /// Runs in the background, and within the task of the connection, so that nobody has to be woken to hand a
    /// message on: a watch may not be polled just when others wait for what it has begun.
    fn spawn(self, connecting: BoxFuture<'static, Result<Connected<I, E>, Failure>>) {
        let background = self.transport.background().clone();
        background.spawn(async move {
            let failure = tokio::select! {
                biased;
                () = poll_fn(|context| self.broadcast.poll_unused(context, unused)) => return,
                failure = self.run(connecting) => failure,
            };
            self.broadcast.end(failure);
        });
    }

    async fn run(
        &self,
        connecting: BoxFuture<'static, Result<Connected<I, E>, Failure>>,
    ) -> Failure {
        let (connection, first) = match connecting.await {
            Ok(connected) => connected,
            Err(failure) => return failure,
        };
        let Body::Created { lineage, revision, reset: false } = first.body else {
            let error = Error::protocol("a watch did not begin where it was to begin");
            return Failure { error, cause: Cause::Answered };
        };
        self.broadcast.begin(Began { lineage, after: revision });
        self.pass_on(connection).await
    }

    /// Puts messages into the ring until there are no more. Those that have come together are told together.
    async fn pass_on(&self, connection: Connection<I, E>) -> Failure {
        let Connection { messages, endpoint } = connection;
        let mut messages = messages.ready_chunks(AT_ONCE);
        loop {
            let received = match tokio::time::timeout(self.longest_silence, messages.next()).await {
                Ok(Some(received)) => received,
                Ok(None) => vec![Err(lost("the server has ended the watch"))],
                Err(_) => vec![Err(lost("the server has fallen silent"))],
            };
            for message in received {
                match message {
                    Ok(message) => self.put((self.settle)(message)).await,
                    Err(failure) => {
                        self.transport.note(endpoint, &failure);
                        return failure;
                    }
                }
            }
            self.broadcast.wake();
        }
    }

    async fn put(&self, message: (Message<I, E>, usize)) {
        let mut message = Some(message);
        poll_fn(|context| {
            let put = self.broadcast.poll_push(context, &mut message);
            if put.is_pending() {
                // There will be room when those who wait have read on.
                self.broadcast.wake();
            }
            put
        })
        .await;
    }
}

impl<I, E> Drop for Publisher<I, E> {
    fn drop(&mut self) {
        // Where the runtime has ended, others may go on in theirs.
        self.broadcast.end(lost("the connection is gone"));
    }
}

fn unused() -> Failure {
    lost("nobody watches any more")
}

/// The next message of a stream for all. Who always finds one gives other tasks their turn.
pub(crate) async fn next<I, E>(
    subscriber: &mut Subscriber<I, E>,
) -> Result<Arc<Message<I, E>>, Gone> {
    coop::consume_budget().await;
    poll_fn(|context| subscriber.poll_next(context)).await
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No method panics halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
