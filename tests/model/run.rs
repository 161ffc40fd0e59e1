//! Runs steps on a server and on the model, and compares after each.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};

use crate::{
    common::{
        build,
        clock::TestClock,
        coordination::{granted, guarded, kept, with_options},
        failure::Failure,
        namespace::Namespace,
        watcher::Watcher,
    },
    model::{Entries, Model, Refusal},
    steps::{LOCK, Step},
};

/// Runs a sequence on a fresh namespace; panics where server and model differ.
pub async fn run(ns: Namespace, clock: Arc<TestClock>, steps: Vec<Step>) {
    let mut run = Run::begin(ns, clock).await;
    for step in steps {
        run.step(step).await;
    }
    run.settle().await;
    run.compare_everything().await;
}

struct Run {
    ns: Namespace,
    clock: Arc<TestClock>,
    model: Model,
    /// The revision that the namespace began with.
    base: u64,
    /// Sees every event, from the first on.
    watcher: Watcher,
    /// What it has seen and the model has not done yet.
    seen: VecDeque<Event>,
}

impl Run {
    async fn begin(ns: Namespace, clock: Arc<TestClock>) -> Self {
        let (model, watcher) = found(&ns, 0).await;
        Run { ns, clock, base: model.revision, model, watcher, seen: VecDeque::new() }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Call(call) => self.call(call).await,
            Step::OnModRevision(call, now) => {
                let call = self.on_mod_revision(call, now);
                self.call(call).await;
            }
            Step::WithToken(call, current) => self.with_token(call, current).await,
            Step::ReadAt(call, back) => {
                let revision = (self.model.revision + 1).saturating_sub(back).max(self.base);
                self.call(read_at(call, revision)).await;
            }
            Step::Pipeline(calls) => self.pipeline(calls).await,
            Step::Advance { ms, settle } => {
                self.clock.advance(Duration::from_millis(ms));
                if settle {
                    self.settle().await;
                }
            }
            Step::Update(settings) => self.update(settings).await,
            Step::Clear => self.clear().await,
            Step::Compact(keep) => self.compact(keep).await,
            Step::DeleteNamespace => self.delete_namespace().await,
            Step::Resume(back) => self.resume(back).await,
            Step::Initial => self.initial().await,
        }
        let done = self.seen.front().is_none_or(|event| event.revision > self.model.revision);
        assert!(done, "an event that should not be: {:?}", self.seen.front());
    }

    async fn call(&mut self, call: Op) {
        // A quota counts what is due until it is gone.
        if self.model.settings.quota_max_keys.is_some() {
            self.settle().await;
        }
        let answer = send(&self.ns, call.clone()).await;
        self.compare(&call, answer).await;
    }

    async fn pipeline(&mut self, calls: Vec<Op>) {
        if self.model.settings.quota_max_keys.is_some() {
            for call in calls {
                self.call(call).await;
            }
            return;
        }
        let mut pipe = self.ns.pipe().await;
        let first = pipe.send(calls.clone());
        let mut answers = pipe.answers(calls.len()).await;
        for (id, call) in (first..).zip(calls) {
            let answer = match answers.remove(&id).expect("every call is answered") {
                Answer::Status(status) => Err(Failure::from(status)),
                answer => Ok(answer),
            };
            self.compare(&call, answer).await;
        }
    }

    /// A call on a lock with its token, or a write guarded by it; or with one that is not current.
    async fn with_token(&mut self, call: Op, current: bool) {
        let held = self.model.locks.get(LOCK).map_or(0, |(lock, _)| lock.token);
        let token = if current { held } else { held.saturating_sub(1) };
        let hold = Some(release_request::Hold::Token(token));
        match call {
            Op::Renew(r) => self.call(Op::Renew(RenewRequest { token, ..r })).await,
            Op::Release(r) => self.call(Op::Release(ReleaseRequest { hold, ..r })).await,
            Op::UpdateValue(r) => {
                self.call(Op::UpdateValue(UpdateValueRequest { token, ..r })).await;
            }
            Op::BreakLock(r) => self.call(Op::BreakLock(BreakLockRequest { token, ..r })).await,
            write => {
                self.settle().await;
                let guard = Lock { name: LOCK.into(), token, ..Lock::default() };
                let guarded = with_options(write.clone(), guarded([&guard]));
                if self.model.holds(LOCK, token) {
                    let answer = send(&self.ns, guarded).await;
                    self.compare(&write, answer).await;
                } else {
                    let failure = send(&self.ns, guarded).await.expect_err("guarded");
                    failure.expect(ErrorReason::LockLost);
                }
            }
        }
    }

    /// Does the call on the model as well; answer and events must be the same.
    async fn compare(&mut self, call: &Op, answer: Result<Answer, Failure>) {
        if let Some(revision) = revision_of(&answer) {
            let own = u64::from(is_change_of_lock(&answer));
            self.follow(revision - own).await;
        }
        let before = self.model.revision;
        // An answer is that of the state at its time, which may stand still for as long as a commit is being kept.
        let clock_ms = self.clock.now_ms();
        let now_ms = answer.as_ref().map_or(clock_ms, time_of);
        assert!(now_ms <= clock_ms, "from the future: {answer:?}");
        let expected = self.model.call(call, now_ms);
        match (&expected, answer) {
            (Ok(expected), Ok(answer)) => assert_eq!(answer, *expected, "{call:?}"),
            (Err(Refusal::Reason(reason)), Err(failure)) => drop(failure.expect(*reason)),
            (Err(Refusal::Condition(expected)), Err(failure)) => {
                let failure = failure.expect(ErrorReason::ConditionNotMet);
                assert_eq!(failure.condition.as_ref(), Some(&**expected), "{call:?}");
            }
            (expected, answer) => panic!("{call:?}\n answered {answer:?}\n expected {expected:?}"),
        }
        self.compare_events(before);
    }

    /// The events that the model made since a revision are the next that the server sent.
    fn compare_events(&mut self, since: u64) {
        let new = self.model.log.iter().filter(|event| event.revision > since);
        let mut expected: Vec<Event> = new.cloned().map(as_watched).collect();
        let mut sent: Vec<Event> = self.seen.drain(..expected.len().min(self.seen.len())).collect();
        // Within a revision keys come in any order.
        expected.sort_by(|a, b| a.key.cmp(&b.key));
        sent.sort_by(|a, b| a.key.cmp(&b.key));
        assert_eq!(sent, expected, "events");
    }

    /// Waits until all events up to a revision are seen, and tells the model of the expiries that came
    /// before anything else.
    async fn follow(&mut self, revision: u64) {
        if revision <= self.model.revision {
            return;
        }
        let events = self.watcher.events_through(revision).await;
        self.seen.extend(events.into_iter().map(as_watched));
        while let Some(event) = self.seen.pop_front() {
            if event.r#type() != EventType::Expire || event.revision > revision {
                self.seen.push_front(event);
                return;
            }
            self.expire(event);
        }
    }

    fn expire(&mut self, event: Event) {
        assert!(event.time_ms <= self.clock.now_ms(), "from the future: {event:?}");
        let expected = self.model.expire(&event.key, event.revision, event.time_ms);
        assert_eq!(Some(&event), expected.as_ref(), "an expiry that is not due");
    }

    /// Waits until everything that is due has gone.
    async fn settle(&mut self) {
        while self.model.due(self.clock.now_ms()) > 0 {
            if self.seen.is_empty() {
                self.seen.extend(self.watcher.events(1).await.into_iter().map(as_watched));
            }
            while let Some(event) = self.seen.pop_front() {
                self.expire(event);
            }
        }
    }

    fn on_mod_revision(&self, call: Op, now: bool) -> Op {
        let condition = |key: &str| {
            let entry = self.model.entries.get(key);
            let revision = entry.map_or(0, |entry| entry.mod_revision);
            build::at_mod(if now { revision } else { revision.saturating_sub(1) })
        };
        match call {
            Op::Set(r) => Op::Set(SetRequest { condition: condition(&r.key), ..r }),
            Op::Delete(r) => Op::Delete(DeleteRequest { condition: condition(&r.key), ..r }),
            other => other,
        }
    }

    async fn update(&mut self, settings: NamespaceSettings) {
        let mask = prost_types::FieldMask {
            paths: vec!["default_ttl_ms".into(), "quota_max_keys".into()],
        };
        let request = UpdateNamespaceRequest { update_mask: Some(mask), ..build::update(settings) };
        let answer = self.ns.ok(request).await;
        self.follow(answer.revision).await;
        self.model.settings = settings;
        let namespace = answer.namespace.expect("answered");
        assert_eq!(namespace.settings.unwrap_or_default(), settings);
        assert_eq!(answer.revision, self.model.revision);
    }

    async fn clear(&mut self) {
        let answer = self.ns.ok(ClearNamespaceRequest::default()).await;
        self.follow(answer.revision).await;
        assert_eq!(self.model.due(self.clock.now_ms()), 0, "due entries are removed first");
        let before = self.model.revision;
        let cleared = self.model.clear(self.clock.now_ms());
        assert_eq!((answer.cleared, answer.revision), (cleared, self.model.revision));
        self.compare_events(before);
    }

    async fn compact(&mut self, keep: u64) {
        self.settle().await;
        // A watch that has not heard of all yet would be told that it is compacted.
        if !self.ends_with_an_event().await {
            return;
        }
        let through = self.model.revision.saturating_sub(keep);
        if through <= self.model.compacted || through < self.base {
            return;
        }
        let answer = self.ns.ok(build::compact(through)).await;
        assert_eq!((answer.revision, answer.compacted_revision), (self.model.revision, through));
        self.model.compact(through);
    }

    async fn delete_namespace(&mut self) {
        self.settle().await;
        let answer = self.ns.ok(DeleteNamespaceRequest::default()).await;
        assert!(answer.deleted && answer.revision >= self.model.revision);
        self.watcher.end().await.expect(ErrorReason::LineageChanged);
        let (model, watcher) = found(&self.ns, answer.revision).await;
        self.base = model.revision;
        (self.model, self.watcher) = (model, watcher);
    }

    async fn resume(&mut self, back: u64) {
        if !self.ends_with_an_event().await {
            return;
        }
        let after = self.model.revision.saturating_sub(back).max(self.base);
        let request =
            WatchRequest { with_previous: true, ..build::watch_after(build::all(), after) };
        match self.ns.watch(request).await {
            Err(failure) => {
                let failure = failure.expect(ErrorReason::Compacted);
                assert!(after < self.model.compacted, "{failure:?}");
            }
            Ok(mut watcher) => {
                assert!(after >= self.model.compacted, "{after} is compacted");
                let mut events = watcher.events_through(self.model.revision).await;
                events.retain(|event| event.revision <= self.model.revision);
                self.compare_log(after, events);
            }
        }
    }

    async fn initial(&mut self) {
        let mut watcher = self.ns.watching(build::watch_initial(build::all())).await;
        let (entries, revision) = watcher.initial().await;
        self.follow(revision).await;
        assert_eq!(revision, self.model.revision);
        let expected: Vec<Entry> = self.model.live(self.clock.now_ms()).into_values().collect();
        assert_eq!(entries, expected, "the initial state");
    }

    async fn compare_everything(&mut self) {
        let has_log = self.ends_with_an_event().await;
        let listed = self.ns.list_all(build::list(build::all())).await;
        let expected: Vec<Entry> = self.model.entries.values().cloned().collect();
        assert_eq!((listed.revision, listed.entries), (self.model.revision, expected));
        let namespace = self.ns.state().await.namespace.expect("exists");
        assert_eq!(namespace.key_count, self.model.entries.len() as u64);
        assert_eq!(namespace.byte_count, bytes(&self.model.entries));
        assert_eq!(
            namespace.compacted_revision.max(self.base),
            self.model.compacted.max(self.base)
        );
        let from = self.model.compacted.max(self.base);
        if has_log {
            let events = self.ns.events_after(from).await;
            self.compare_log(from, events);
        }
    }

    /// Makes the newest revision one that watches of keys are told of, where it was the change of a lock: the clock by
    /// which they would say how far they have come stands still.
    async fn ends_with_an_event(&mut self) -> bool {
        let is_told = |model: &Model| {
            model.revision == model.compacted.max(model.log.last().map_or(0, |it| it.revision))
        };
        if !is_told(&self.model) && self.model.revision > self.base {
            self.call(Op::Set(build::set("told", ""))).await;
        }
        is_told(&self.model) || self.model.revision == self.base
    }

    fn compare_log(&self, after: u64, events: Vec<Event>) {
        let held = self.model.log.iter().filter(|event| event.revision > after);
        let mut expected: Vec<Event> = held.cloned().map(as_watched).collect();
        let mut events: Vec<Event> = events.into_iter().map(as_watched).collect();
        let place = |event: &Event| (event.revision, event.key.clone());
        expected.sort_by_key(place);
        events.sort_by_key(place);
        assert_eq!(events, expected, "the log after {after}");
    }
}

/// Makes a namespace, and a model and a watch of it.
async fn found(ns: &Namespace, at_least: u64) -> (Model, Watcher) {
    let made = ns.ok(build::update(NamespaceSettings::default())).await;
    assert!(made.revision >= at_least, "revisions never go back");
    let compacted = made.namespace.expect("answered").compacted_revision;
    let model = Model::new(made.revision, compacted);
    let watch = WatchRequest { with_previous: true, ..build::watch(build::all()) };
    (model, ns.watching(watch).await)
}

/// Watches carry no value with a changed TTL.
fn as_watched(event: Event) -> Event {
    if event.r#type() != EventType::TtlChanged {
        return event;
    }
    let bare = |entry: Option<Entry>| entry.map(|entry| Entry { value: None, ..entry });
    Event { entry: bare(event.entry), previous: bare(event.previous), ..event }
}

fn bytes(entries: &Entries) -> u64 {
    let sizes = entries.values().map(|entry| {
        let value = entry.value.as_ref().map_or(0, |value| value.len());
        entry.key.len() + entry.content_type.len() + value
    });
    sizes.sum::<usize>() as u64
}

fn read_at(call: Op, revision: u64) -> Op {
    let at_revision = Some(revision);
    match call {
        Op::Get(r) => Op::Get(GetRequest { at_revision, ..r }),
        Op::List(r) => Op::List(ListRequest { at_revision, ..r }),
        Op::BatchGet(r) => Op::BatchGet(BatchGetRequest { at_revision, ..r }),
        other => other,
    }
}

/// Sends a call by itself; all pages of a list. As the model gives it: without the name of the namespace.
async fn send(ns: &Namespace, call: Op) -> Result<Answer, Failure> {
    match call {
        Op::List(r) => {
            ns.call(r.clone()).await?;
            let whole = ns.list_all(r).await;
            Ok(Answer::List(ListResponse { lineage: String::new(), ..whole }))
        }
        Op::KeepAlive(r) => {
            let answer = ns.call(r).await?;
            let lease = kept(answer.clone()).map_err(|failure| *failure)?;
            let (namespace, result) = (String::new(), keep_alive_response::Result::Lease(lease));
            let result = Some(result);
            Ok(Answer::KeepAlive(KeepAliveResponse { namespace, result, ..answer }))
        }
        other => ns.send(other).await,
    }
}

/// Whether the revision of an answer is a change of a lock, of which a watch of keys tells nothing.
fn is_change_of_lock(answer: &Result<Answer, Failure>) -> bool {
    match answer {
        Ok(Answer::Acquire(a)) => granted(a.clone()).is_some_and(|lock| lock.token == a.revision),
        Ok(Answer::Release(a)) => a.released,
        Ok(Answer::BreakLock(a)) => a.broken,
        Ok(Answer::UpdateValue(_)) => true,
        _ => false,
    }
}

/// The revision of the state that an answer is about; none for reads of the past.
fn revision_of(answer: &Result<Answer, Failure>) -> Option<u64> {
    match answer {
        Err(failure) => failure.condition.as_ref().map(|condition| condition.revision),
        Ok(answer) => Some(state_of(answer).0),
    }
}

/// The time of the state that an answer is of.
fn time_of(answer: &Answer) -> i64 {
    state_of(answer).1
}

/// The revision and the time of the state that an answer is of.
fn state_of(answer: &Answer) -> (u64, i64) {
    macro_rules! states {
        ($($kind:ident)*) => {
            match answer {
                $(Answer::$kind(answer) => (answer.revision, answer.time_ms),)*
                Answer::Status(status) => panic!("an error has no state: {status:?}"),
            }
        };
    }
    states! {
        Get Set Delete Exists GetTtl SetTtl Increment List Count History DeleteRange
        BatchGet BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue GetLock ListLocks BreakLock
        Grant KeepAlive Revoke GetLease ListLeases
    }
}
