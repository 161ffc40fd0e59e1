//! Calls that wait for a lock.
//!
//! A call that waits has a place in the queue of the lock, in the store, so that all servers serve it in its turn. The
//! place lasts as long as the server keeps saying that it lives, and goes with the call. Whoever frees the lock offers it
//! to the first of the queue; the offer stands in the log of the namespace, where this server sees it and wakes the
//! call, which takes it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    backend::{Key, LoggedChange, NamespaceName},
    store::{
        Answer, Store, Submission, Work,
        command::{AcquireReply, Command, HoldName, Presence, Release, Reply, Wait},
        error::StoreError,
        keys::{self, Kind},
        namespace::Namespace,
        record::{self, LockRecord},
        watch::Follower,
    },
};

/// How often a server with waiting calls says that it lives.
const PRESENCE_INTERVAL: Duration = Duration::from_millis(800);
/// How often a call that waits makes sure of its place.
const ASK_AGAIN: Duration = Duration::from_secs(2);
/// How long the connection of a call that waited is looked at once it has got the lock: it may have ended before the
/// answer came.
const LOOK_AFTER: Duration = Duration::from_secs(2);
/// How long to wait after a failure of the backend.
const AFTER_FAILURE: Duration = Duration::from_millis(100);
/// How often it is tried to give up a place: for about 3 s.
const GIVE_UP_TRIES: u32 = 30;

/// The calls of this server that wait for locks of a namespace.
#[derive(Default)]
pub(in crate::store) struct WaitingCalls {
    /// Each with how many had entered before it.
    calls: HashMap<u64, (u64, Arc<Notify>)>,
    entered: u64,
    /// Whether a task attends to them.
    is_attended: bool,
    /// The key that says that this server lives, once it does.
    presence: Option<Key>,
    /// Told when that is not there any more.
    is_missed: Arc<Notify>,
}

impl Store {
    /// Takes a lock, or waits for it up to a time. Dropping the future gives the place up, or what was granted at that
    /// moment. So does the end of the caller's connection, also for a short while afterwards.
    pub async fn acquire(
        self: &Arc<Self>,
        name: &NamespaceName,
        submission: Submission,
        wait: Duration,
        caller: CancellationToken,
    ) -> Result<Answer, StoreError> {
        let Work::Command(Command::Acquire(acquire)) = &submission.work else {
            return self.submit_one(name, submission).await;
        };
        let (lock, acquire_id) = (acquire.lock.clone(), acquire.acquire_id);
        let over = self.sleep(wait);
        tokio::pin!(over);
        let mut call = WaitingCall::new(self, name, lock, acquire_id);
        let tried = self.submit_one(name, call.ask(&submission, Wait::NotYet { call: call.id }));
        let answer = tried.await?;
        if !matches!(answer.reply, Reply::Acquired(AcquireReply::Held(_))) {
            call.is_finished = true;
            return Ok(answer);
        }
        call.enter();
        let (mut is_first, mut is_over) = (true, false);
        loop {
            let server = tokio::select! {
                biased;
                () = &mut over, if !is_over => None,
                server = call.server(), if !is_over => Some(server),
                else => None,
            };
            is_over |= server.is_none();
            let wait = match &server {
                Some(server) => Wait::Queue { server: server.clone(), call: call.id, is_first },
                None => Wait::NoLonger { call: call.id },
            };
            let answer = self.submit_one(name, call.ask(&submission, wait)).await?;
            if let (Reply::Acquired(AcquireReply::Unattended), Some(server)) =
                (&answer.reply, &server)
            {
                call.namespace.waiting.lock().miss(server);
                continue;
            }
            is_first = false;
            if is_over || !matches!(answer.reply, Reply::Acquired(AcquireReply::Queued)) {
                call.finish(caller);
                return Ok(answer);
            }
            tokio::select! {
                biased;
                () = call.woken.notified() => {}
                () = self.sleep(ASK_AGAIN) => {}
                () = &mut over => is_over = true,
            }
        }
    }

    /// Does one piece of work.
    pub async fn submit_one(
        self: &Arc<Self>,
        name: &NamespaceName,
        submission: Submission,
    ) -> Result<Answer, StoreError> {
        let outcome = self.submit(name, vec![submission]).await.pop();
        outcome.expect("one outcome for each submission")
    }

    /// Says that this server lives, and wakes calls that are offered their locks, until none waits.
    async fn attend(self: Arc<Self>, namespace: Arc<Namespace>) {
        let mut follower = None;
        let is_missed = namespace.waiting.lock().is_missed.clone();
        loop {
            let said = self.say_present(&namespace).await;
            if let Err(error) = said {
                tracing::warn!(
                    namespace = namespace.name.as_str(),
                    ?error,
                    "waiting calls wait on"
                );
                if namespace.waiting.lock().end_if_idle() {
                    return;
                }
                self.sleep(AFTER_FAILURE).await;
                continue;
            }
            let next = self.sleep(PRESENCE_INTERVAL);
            tokio::pin!(next);
            loop {
                if namespace.waiting.lock().end_if_idle() {
                    return;
                }
                if follower.is_none() {
                    follower = self.follow_from_now(&namespace).await;
                    // What came before is not seen there.
                    namespace.waiting.lock().wake_all();
                }
                let seen = async {
                    match &mut follower {
                        Some(follower) => follower.next(&self).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    () = &mut next => break,
                    () = is_missed.notified() => break,
                    batch = seen => match (batch, &mut follower) {
                        (Ok(batch), Some(follower)) => {
                            follower.take(&batch);
                            namespace.waiting.lock().wake_offered(&batch.changes);
                        }
                        _ => {
                            follower = None;
                            self.sleep(AFTER_FAILURE).await;
                        }
                    },
                }
            }
        }
    }

    /// Says that this server lives. Where it was too late in doing so it goes on under another name, and its calls
    /// have to queue up again.
    async fn say_present(self: &Arc<Self>, namespace: &Namespace) -> Result<(), StoreError> {
        let known = namespace.waiting.lock().presence.clone();
        let is_new = known.is_none();
        let server = known.unwrap_or_else(|| keys::server(Uuid::new_v4().as_u128()));
        let command = Command::Presence(Presence { server: server.clone(), is_new });
        let answer = self.submit_one(&namespace.name, Submission::command_only(command)).await?;
        match answer.reply {
            Reply::Present(true) if is_new => namespace.waiting.lock().enter_all(server),
            Reply::Present(true) => {}
            _ => {
                namespace.waiting.lock().presence = None;
                Box::pin(self.say_present(namespace)).await?;
            }
        }
        Ok(())
    }

    async fn follow_from_now(self: &Arc<Self>, namespace: &Arc<Namespace>) -> Option<Follower> {
        let tip = self.tip(&namespace.name).await;
        let tip = tip.inspect_err(|error| {
            tracing::warn!(namespace = namespace.name.as_str(), %error, "waiting calls wait on");
        });
        Some(Follower::from_tip(self, namespace, &tip.ok()?))
    }
}

impl WaitingCalls {
    /// Ends the attendance if there is nobody to attend to.
    fn end_if_idle(&mut self) -> bool {
        let is_idle = self.calls.is_empty();
        if is_idle {
            (self.is_attended, self.presence) = (false, None);
        }
        is_idle
    }

    /// Has all calls queue up, at a server that lives from now on.
    fn enter_all(&mut self, server: Key) {
        self.presence = Some(server);
        self.wake_all();
    }

    /// What said that this server lives is not there any more: it is to be said anew.
    fn miss(&mut self, server: &Key) {
        if self.presence.as_ref() == Some(server) {
            self.presence = None;
            self.is_missed.notify_one();
        }
    }

    /// In the order in which they came, for in that order they queue up.
    fn wake_all(&self) {
        let mut calls: Vec<_> = self.calls.values().collect();
        calls.sort_unstable_by_key(|(entered, _)| *entered);
        calls.into_iter().for_each(|(_, woken)| woken.notify_one());
    }

    fn wake_offered(&self, changes: &[LoggedChange]) {
        for LoggedChange { change, .. } in changes {
            if keys::kind(&change.key) != Some(Kind::Lock) {
                continue;
            }
            let record = change.entry.as_ref().and_then(|entry| record::decode(&entry.value));
            if let Some(LockRecord::Held(hold)) = record
                && let Some((_, woken)) = hold.call.and_then(|call| self.calls.get(&call))
            {
                woken.notify_one();
            }
        }
    }
}

/// A call that waits. When it is dropped before it has finished it leaves the queue, and gives up what it may have
/// been granted.
struct WaitingCall {
    id: u64,
    store: Arc<Store>,
    namespace: Arc<Namespace>,
    lock: Key,
    acquire_id: [u8; 16],
    woken: Arc<Notify>,
    is_finished: bool,
}

impl WaitingCall {
    fn new(store: &Arc<Store>, name: &NamespaceName, lock: Key, acquire_id: [u8; 16]) -> Self {
        // No other call of any server has it.
        let (id, _) = Uuid::new_v4().as_u64_pair();
        let (store, namespace) = (store.clone(), store.namespace(name));
        let (woken, is_finished) = (Arc::new(Notify::new()), false);
        Self { id, store, namespace, lock, acquire_id, woken, is_finished }
    }

    /// From now on the server says that it lives, and wakes the call when it is offered the lock.
    fn enter(&self) {
        let Self { store, namespace, .. } = self;
        let mut waiting = namespace.waiting.lock();
        waiting.entered += 1;
        let entered = waiting.entered;
        waiting.calls.insert(self.id, (entered, self.woken.clone()));
        if !waiting.is_attended {
            waiting.is_attended = true;
            tokio::spawn(store.clone().attend(namespace.clone()));
        }
    }

    /// The same request, waiting in another way.
    fn ask(&self, submission: &Submission, wait: Wait) -> Submission {
        let mut submission = submission.clone();
        if let Work::Command(Command::Acquire(acquire)) = &mut submission.work {
            acquire.wait = wait;
        }
        submission
    }

    /// The key that says that this server lives.
    async fn server(&self) -> Key {
        loop {
            if let Some(server) = self.namespace.waiting.lock().presence.clone() {
                return server;
            }
            // Whoever attends to the calls does so as long as there is one.
            self.woken.notified().await;
        }
    }

    /// The call has its answer. Should its connection end before that can have arrived, what it got is given up.
    fn finish(mut self, caller: CancellationToken) {
        self.is_finished = true;
        // For one that does not wait any more nobody has to say that this server lives.
        self.namespace.waiting.lock().calls.remove(&self.id);
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = caller.cancelled() => self.give_up().await,
                () = self.store.sleep(LOOK_AFTER) => {}
            }
        });
    }

    /// Gives up the place, or what was granted; tries for as long as a place may outlive its call.
    async fn give_up(&self) {
        let hold = HoldName::Call(self.acquire_id, self.id);
        let release = Command::Release(Release::new(self.lock.clone(), hold));
        for _ in 0..GIVE_UP_TRIES {
            let submission = Submission::command_only(release.clone());
            match self.store.submit_one(&self.namespace.name, submission).await {
                Ok(_) => return,
                Err(error) => {
                    let namespace = self.namespace.name.as_str();
                    tracing::warn!(namespace, ?error, "a place could not be given up");
                    self.store.sleep(AFTER_FAILURE).await;
                }
            }
        }
    }
}

impl Drop for WaitingCall {
    fn drop(&mut self) {
        self.namespace.waiting.lock().calls.remove(&self.id);
        if self.is_finished {
            return;
        }
        let left = Self {
            is_finished: true,
            lock: self.lock.clone(),
            store: self.store.clone(),
            namespace: self.namespace.clone(),
            woken: self.woken.clone(),
            ..*self
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { left.give_up().await });
        }
    }
}
