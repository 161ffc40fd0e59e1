//! A backend that several servers share, and that fails them by the seed, in every way that its contract allows.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hasher as _},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
};

use async_trait::async_trait;
use futures::FutureExt as _;
use holdfast_server::{
    backend::{
        Ancestor, Backend, BackendError, Changes, Commit, CommitOutcome, DueElsewhere, Entry,
        History, Key, KeyRange, Lineage, Listed, Moved, NamespaceInfo, NamespaceName, Position,
        ReadAnswer, Retain, Revision, ScanAnswer, Staging, Tip, Trimmed, Write,
    },
    clock::Clock,
};
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{clock::SimClock, random::Random, truth::Truth};

/// How often what happens, in times out of a hundred.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plan {
    /// A call takes a while, before or after it is done.
    pub delay: u64,
    /// The longest that it takes, in milliseconds.
    pub longest_ms: u64,
    /// A call is not done, and says so.
    pub fail: u64,
    /// The answer to a commit is lost, whether it was applied or not.
    pub lose: u64,
    /// A commit is told that something has moved.
    pub moved: u64,
    /// What moved is not told.
    pub silent: u64,
    /// How a backend breaks its contract, to see that this is found.
    pub breach: Option<Breach>,
}

/// What no backend may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breach {
    /// Says of a commit that it surely was not applied, and applies it.
    AppliesWhatFailed,
    /// Says of a commit that it was applied, and forgets it.
    LosesWrites,
    /// Applies a commit though what it relied on has changed.
    IgnoresReads,
    /// Leaves a change out of the log that it hands on.
    SkipsEvents,
    /// Answers with what was there some revisions ago.
    ReadsThePast,
    /// Answers reads with a time that is to come.
    IsFromTheFuture,
}

/// What all servers of a schedule share.
pub struct World {
    pub clock: Arc<SimClock>,
    pub namespace: NamespaceName,
    pub plan: Plan,
    pub random: Mutex<Random>,
    pub truth: Mutex<Truth>,
    inner: Arc<dyn Backend>,
    trace: Mutex<Trace>,
    changed: Notify,
    servers: Mutex<Vec<Arc<Faulty>>>,
    is_calm: AtomicBool,
}

/// What happened, in order.
#[derive(Default)]
pub struct Trace {
    pub lines: Vec<String>,
    hasher: DefaultHasher,
}

impl Trace {
    /// What all of it comes to.
    pub fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}

impl World {
    /// A world without servers, over a backend in memory.
    pub fn new(
        inner: Arc<dyn Backend>,
        clock: Arc<SimClock>,
        plan: Plan,
        random: Random,
    ) -> Arc<Self> {
        Arc::new(Self {
            clock,
            namespace: NamespaceName::new("simulated"),
            plan,
            random: Mutex::new(random),
            truth: Mutex::default(),
            inner,
            trace: Mutex::default(),
            changed: Notify::new(),
            servers: Mutex::default(),
            is_calm: AtomicBool::new(true),
        })
    }

    /// A server's way to the backend.
    pub fn connect(self: &Arc<Self>) -> Arc<Faulty> {
        let mut servers = self.servers.lock();
        let faulty = Arc::new(Faulty {
            world: self.clone(),
            id: servers.len(),
            frozen_until_ms: AtomicI64::new(0),
            news: Mutex::default(),
            told: Notify::new(),
            thawed: Notify::new(),
            writable: watch::Sender::new(true),
        });
        servers.push(faulty.clone());
        faulty
    }

    /// Whether nothing fails.
    pub fn set_calm(&self, is_calm: bool) {
        self.is_calm.store(is_calm, Ordering::Relaxed);
        if is_calm {
            self.servers.lock().iter().for_each(|server| server.freeze_until(0));
        }
    }

    /// Notes what happened. Nothing that is drawn at random beside the seed may be in it.
    pub fn note(&self, who: impl fmt::Display, what: fmt::Arguments<'_>) {
        let line = format!("{:>6} {who} {what}", self.clock.now_ms() - crate::clock::START_MS);
        let mut trace = self.trace.lock();
        trace.hasher.write(line.as_bytes());
        trace.lines.push(line);
    }

    /// Takes what was noted.
    pub fn take_trace(&self) -> Trace {
        std::mem::take(&mut *self.trace.lock())
    }

    /// The backend as it is, without faults.
    pub fn inner(&self) -> &dyn Backend {
        &*self.inner
    }

    /// Whether something that happens so often happens now.
    pub fn dice(&self, percent: u64) -> bool {
        !self.is_calm.load(Ordering::Relaxed) && self.random.lock().percent(percent)
    }

    fn breaks(&self, breach: Breach, percent: u64) -> bool {
        self.plan.breach == Some(breach) && self.dice(percent)
    }

    /// Takes in what one of the servers has committed, and lets all know.
    async fn applied(&self, by: usize, written: &[Key], next_ms: Option<i64>, is_lost: bool) {
        let mut truth = self.truth.lock();
        // Memory waits for nothing.
        let learnt = truth.learn(&*self.inner, &self.namespace, written).now_or_never();
        learnt.expect("memory waits for nothing");
        drop(truth);
        for server in self.servers.lock().iter() {
            if let Some(deadline_ms) = next_ms
                && (server.id != by || is_lost)
            {
                let namespace = self.namespace.clone();
                server.tell(DueElsewhere::At { namespace, deadline_ms });
            }
        }
        self.changed.notify_waiters();
    }
}

/// One server's way to the backend.
pub struct Faulty {
    world: Arc<World>,
    id: usize,
    /// Until when nothing comes through, in either direction.
    frozen_until_ms: AtomicI64,
    news: Mutex<VecDeque<DueElsewhere>>,
    told: Notify,
    thawed: Notify,
    writable: watch::Sender<bool>,
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s{}", self.id)
    }
}

impl Faulty {
    /// Lets nothing through until a moment; `i64::MAX`: never again.
    pub fn freeze_until(&self, until_ms: i64) {
        if self.frozen_until_ms.load(Ordering::Relaxed) != i64::MAX {
            self.frozen_until_ms.store(until_ms, Ordering::Relaxed);
            self.thawed.notify_waiters();
        }
    }

    fn tell(&self, news: DueElsewhere) {
        self.news.lock().push_back(news);
        self.told.notify_one();
    }

    /// What comes before every call.
    async fn arrive(&self, what: &str) -> Result<(), BackendError> {
        self.delay().await;
        if self.world.dice(self.world.plan.fail) {
            self.world.note(self, format_args!("{what} fails"));
            return Err(BackendError::Unavailable("simulated".into()));
        }
        Ok(())
    }

    /// What lies on the way.
    async fn delay(&self) {
        let World { clock, plan, .. } = &*self.world;
        if self.world.dice(plan.delay) {
            let ms = self.world.random.lock().below(plan.longest_ms + 1);
            clock.sleep_ms(ms).await;
        }
        self.thaw().await;
    }

    /// Waits until something comes through again.
    async fn thaw(&self) {
        let clock = &self.world.clock;
        loop {
            let left_ms = self.frozen_until_ms.load(Ordering::Relaxed) - clock.now_ms();
            if left_ms <= 0 {
                return;
            }
            tokio::select! {
                biased;
                () = self.thawed.notified() => {}
                () = clock.sleep_ms(left_ms.unsigned_abs()) => {}
            }
        }
    }

    /// A commit, or a clear: what `apply` does, or not, and what is said of it.
    async fn change(
        &self,
        what: &str,
        written: Vec<Key>,
        apply: impl Future<Output = Result<CommitOutcome, BackendError>> + Send,
    ) -> Result<CommitOutcome, BackendError> {
        let World { inner, namespace, plan, .. } = &*self.world;
        self.delay().await;
        if self.world.breaks(Breach::AppliesWhatFailed, 5) {
            if let CommitOutcome::Committed(_) = apply.await? {
                self.world.applied(self.id, &written, None, true).await;
            }
            return Err(BackendError::Unavailable("simulated".into()));
        }
        if self.world.dice(plan.fail) {
            self.world.note(self, format_args!("{what} is refused"));
            return Err(BackendError::Unavailable("simulated".into()));
        }
        if self.world.dice(plan.lose) {
            self.world.note(self, format_args!("{what} is lost on the way"));
            return Err(BackendError::OutcomeUnknown("simulated".into()));
        }
        if self.world.dice(plan.moved) {
            self.world.note(self, format_args!("{what} is to be tried again"));
            let tip = inner.read(namespace, &[], None).await?.tip;
            return Ok(CommitOutcome::Moved(Moved { tip, changed: None }));
        }
        let mut outcome = apply.await?;
        match &mut outcome {
            CommitOutcome::Committed(committed) => {
                let is_lost = self.world.dice(plan.lose);
                let next_ms = committed.next_deadline_ms;
                self.world.applied(self.id, &written, next_ms, is_lost).await;
                let last = committed.stamps.last().map_or(committed.before, |it| it.revision);
                let (groups, lost) = (committed.stamps.len(), if is_lost { ", lost" } else { "" });
                let last = last.0 - self.world.truth.lock().first();
                self.world.note(self, format_args!("{what} of {groups}, through +{last}{lost}"));
                if is_lost {
                    self.delay().await;
                    return Err(BackendError::OutcomeUnknown("simulated".into()));
                }
            }
            CommitOutcome::Moved(moved) => {
                self.world.note(self, format_args!("{what} finds that it moved"));
                if self.world.dice(plan.silent) {
                    moved.changed = None;
                }
            }
        }
        self.delay().await;
        Ok(outcome)
    }
}

/// Of what is written, that which the truth keeps.
fn coordinating<'a>(writes: impl Iterator<Item = &'a Write>) -> Vec<Key> {
    let kept = |key: &&Key| {
        [&b"\0lease\0"[..], b"\0lock\0"].iter().any(|prefix| key.as_bytes().starts_with(prefix))
    };
    let mut keys: Vec<_> = writes.map(|write| &write.key).filter(kept).cloned().collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

#[async_trait]
impl Backend for Faulty {
    fn scheme(&self) -> &'static str {
        "simulated"
    }

    fn durability(&self) -> &'static str {
        "a schedule"
    }

    fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn now_ms(&self) -> Result<i64, BackendError> {
        self.arrive("now").await?;
        self.world.inner.now_ms().await
    }

    async fn read(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        at: Option<Revision>,
    ) -> Result<ReadAnswer, BackendError> {
        self.arrive("read").await?;
        let answer = if self.world.breaks(Breach::ReadsThePast, 30) && at.is_none() {
            let tip = self.world.inner.read(namespace, &[], None).await?.tip;
            let past = Revision(tip.revision.0.saturating_sub(3)).max(tip.compacted);
            let answer = self.world.inner.read(namespace, keys, Some(past)).await;
            answer.or(Ok(ReadAnswer { tip, entries: vec![None; keys.len()] }))
        } else {
            self.world.inner.read(namespace, keys, at).await
        };
        let answer = answer.map(|mut answer| {
            if self.world.breaks(Breach::IsFromTheFuture, 30) {
                answer.tip.time_ms += 2000;
            }
            answer
        });
        self.delay().await;
        answer
    }

    async fn scan(
        &self,
        namespace: &NamespaceName,
        range: &KeyRange,
        at: Option<Revision>,
        reverse: bool,
        limit: usize,
    ) -> Result<ScanAnswer, BackendError> {
        self.arrive("scan").await?;
        // In small steps, between which others write.
        let limit = if self.world.dice(50) { limit.min(2) } else { limit };
        let answer = self.world.inner.scan(namespace, range, at, reverse, limit).await;
        self.delay().await;
        answer
    }

    async fn history(
        &self,
        namespace: &NamespaceName,
        key: &Key,
        before: Revision,
        limit: usize,
    ) -> Result<History, BackendError> {
        self.arrive("history").await?;
        self.world.inner.history(namespace, key, before, limit).await
    }

    async fn commit(
        &self,
        namespace: &NamespaceName,
        mut commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        let written = coordinating(commit.groups.writes.iter());
        if self.world.breaks(Breach::IgnoresReads, 100) {
            commit.at = Position(u64::MAX);
        }
        if self.world.breaks(Breach::LosesWrites, 3) {
            commit.groups.writes.retain(|write| write.key.is_internal());
            let ends =
                vec![commit.groups.writes.len(); usize::from(!commit.groups.writes.is_empty())];
            commit.groups.ends = ends;
        }
        let is_check = commit.groups.is_empty();
        let what = if is_check { "check" } else { "commit" };
        self.change(what, written, self.world.inner.commit(namespace, commit)).await
    }

    async fn changes(
        &self,
        namespace: &NamespaceName,
        after: Revision,
        limit: usize,
        limit_bytes: u64,
    ) -> Result<Changes, BackendError> {
        self.arrive("changes").await?;
        let limit = if self.world.dice(30) { limit.min(2) } else { limit };
        let mut answer = self.world.inner.changes(namespace, after, limit, limit_bytes).await;
        if let Ok(changes) = &mut answer
            && self.world.breaks(Breach::SkipsEvents, 10)
        {
            changes.changes.pop();
        }
        self.delay().await;
        answer
    }

    async fn changed(
        &self,
        namespace: &NamespaceName,
        lineage: Option<Lineage>,
        after: Revision,
    ) -> Result<(), BackendError> {
        loop {
            let changed = self.world.changed.notified();
            let mut changed = std::pin::pin!(changed);
            changed.as_mut().enable();
            if self.world.inner.changed(namespace, lineage, after).now_or_never().is_some() {
                // News may take long, or get lost.
                self.delay().await;
                return self.arrive("changed").await;
            }
            changed.await;
        }
    }

    async fn expired(
        &self,
        namespace: &NamespaceName,
        limit: usize,
    ) -> Result<(Vec<Key>, Option<i64>), BackendError> {
        self.arrive("expired").await?;
        let answer = self.world.inner.expired(namespace, limit).await;
        self.delay().await;
        answer
    }

    async fn due_elsewhere(&self) -> DueElsewhere {
        loop {
            self.thaw().await;
            // Taken in the same step as it is answered: what is dropped before is kept.
            let news = self.news.lock().pop_front();
            match news {
                Some(_) if self.world.dice(10) => return DueElsewhere::Anywhere,
                Some(news) => return news,
                None => self.told.notified().await,
            }
        }
    }

    async fn ancestors(&self, namespace: &NamespaceName) -> Result<Vec<Ancestor>, BackendError> {
        self.arrive("ancestors").await?;
        self.world.inner.ancestors(namespace).await
    }

    async fn trim(
        &self,
        namespace: &NamespaceName,
        retain: &Retain,
        limit: usize,
    ) -> Result<Trimmed, BackendError> {
        self.arrive("trim").await?;
        let answer = self.world.inner.trim(namespace, retain, limit).await;
        if let Ok(info) = self.world.inner.read(namespace, &[], None).await {
            self.world.truth.lock().forgotten = info.tip.compacted.0;
        }
        self.delay().await;
        answer
    }

    async fn clear(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        let clear = self.world.inner.clear(namespace, at, valid_until_ms, records);
        self.change("clear", Vec::new(), clear).await
    }

    async fn delete(
        &self,
        _: &NamespaceName,
        _: Position,
        _: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        unreachable!("namespaces are not deleted here")
    }

    async fn stage(&self, _: &Staging, _: Vec<(Key, Entry)>) -> Result<(), BackendError> {
        unreachable!("nothing is imported here")
    }

    async fn replace(&self, _: &Staging, _: Position) -> Result<CommitOutcome, BackendError> {
        unreachable!("nothing is imported here")
    }

    async fn rewrite(&self) -> Result<(), BackendError> {
        self.world.inner.rewrite().await
    }

    async fn discard(&self, _: &Staging) {}

    async fn namespace(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Option<NamespaceInfo>, BackendError> {
        self.arrive("namespace").await?;
        self.world.inner.namespace(namespace).await
    }

    async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError> {
        self.arrive("namespaces").await?;
        self.world.inner.namespaces(prefix, after, limit).await
    }
}
