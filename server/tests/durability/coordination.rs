//! Killed while locks, leases, counters and expiring keys are worked with: who held goes on holding, tokens do not come
//! again, a request that is sent again is applied once, and each expiry is told once.

use std::collections::BTreeMap;

use futures::stream;
use holdfast_proto::v1::{
    AcquireRequest, AcquireResponse, Expiry, GetLeaseRequest, GetLockRequest, GrantRequest, Guard,
    IncrementRequest, IncrementResponse, KeepAliveRequest, Lease, Lock, ReleaseRequest,
    RenewRequest, RequestId, SetRequest, WriteOptions, acquire_request::Duration,
    acquire_response::Outcome, expiry, keep_alive_response, kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient, lock_service_client::LockServiceClient,
    release_request,
};
use tokio::sync::watch;
use tonic::{Code, Status, transport::Channel};
use tonic_types::StatusExt as _;

use super::{
    events::{Cursor, NAMESPACE, check_expiries},
    harness::{Program, start},
};

const ROUNDS: u64 = 5;
const WORKERS: u64 = 4;
const HOUR_MS: u64 = 3_600_000;

#[tokio::test(flavor = "multi_thread")]
async fn locks_requests_and_expiries_survive_kills() {
    let directory = tempfile::tempdir().unwrap();
    // Small enough that snapshots are made, and killed in the middle, all the time.
    let data = directory.path().join("data");
    survive_kills(&format!("files:{}?snapshot_every=64KiB&fill_ahead=64KiB", data.display())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_requests_and_expiries_in_a_database_survive_kills() {
    let directory = tempfile::tempdir().unwrap();
    survive_kills(&format!("sqlite:{}", directory.path().join("data").display())).await;
}

async fn survive_kills(url: &str) {
    let mut workers: Vec<_> = (0..WORKERS).map(Worker::new).collect();
    let mut cursor = Cursor::default();
    let mut kept = None;
    for round in 0..ROUNDS {
        let program = start(&["--backend", url]).await;
        let mut calls = Calls::to(&program).await;
        let mut held = match kept.take() {
            Some(held) => held,
            None => Kept::make(&mut calls).await,
        };
        held.check(&mut calls).await;
        kept = Some(held);
        let watch = cursor.resume(&program).await;
        let following = tokio::spawn(cursor.follow(watch));
        workers = work_until_killed(program, workers, round).await;
        cursor = following.await.unwrap();
    }
    let program = start(&["--backend", url]).await;
    let mut calls = Calls::to(&program).await;
    kept.expect("there was a round").check(&mut calls).await;
    let mut set = Vec::new();
    for mut worker in workers {
        worker.resume(&mut calls).await;
        set.extend(worker.set);
    }
    let events = cursor.follow_to_the_end(&program).await;
    check_expiries(&events, &set);
}

async fn work_until_killed(program: Program, workers: Vec<Worker>, round: u64) -> Vec<Worker> {
    let (count, mut counted) = watch::channel(0);
    let mut working = Vec::new();
    for mut worker in workers {
        let (mut calls, count) = (Calls::to(&program).await, count.clone());
        worker.resume(&mut calls).await;
        working.push(tokio::spawn(async move {
            while worker.work(&mut calls).await.is_ok() {
                count.send_modify(|count| *count += 1);
            }
            worker
        }));
    }
    // Another moment in each round, by a number that is the same in each run.
    let enough = 10 + round * 7919 % 60;
    counted.wait_for(|count| *count >= enough).await.unwrap();
    program.signal("KILL").await;
    program.ended().await;
    let mut workers = Vec::new();
    for worker in working {
        workers.push(worker.await.unwrap());
    }
    workers
}

#[tokio::test]
async fn what_hangs_on_a_lease_that_ran_out_while_nobody_served_ends_at_the_start() {
    for scheme in ["files", "sqlite"] {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        let program = start(&["--backend", &url]).await;
        let mut calls = Calls::to(&program).await;
        let lease = calls.grant(1_000).await;
        for key in ["leased:a", "leased:b"] {
            calls.set(key, Some(expiry::Kind::LeaseId(lease.lease_id)), None).await.unwrap();
        }
        let on_lease = Duration::LeaseId(lease.lease_id);
        let token = calls.acquire("leased", 1, on_lease).await.token;
        program.signal("KILL").await;
        program.ended().await;
        pass(lease.expires_at_ms).await;

        let program = start(&["--backend", &url]).await;
        let mut calls = Calls::to(&program).await;
        assert_eq!(calls.lease(lease.lease_id).await, None);
        let late = calls.set("late", None, Some(("leased", token))).await;
        assert_lock_lost(&late.unwrap_err());
        let next = calls.acquire("leased", 2, Duration::TtlMs(HOUR_MS)).await;
        assert!(next.token > token, "{next:?} after {token}");
        let events = Cursor::default().follow_to_the_end(&program).await;
        check_expiries(&events, &["leased:a".into(), "leased:b".into()]);
        let ends: BTreeMap<_, _> = events
            .iter()
            .filter(|event| event.key.starts_with("leased") && event.entry.is_none())
            .map(|event| (event.key.as_str(), event.revision))
            .collect();
        assert_eq!(ends["leased:a"], ends["leased:b"], "they end in one revision");
    }
}

/// Waits until the machine's clock has passed this time, by asking a server that has nothing to do with it.
async fn pass(time_ms: i64) {
    let clock = start(&[]).await;
    let mut calls = Calls::to(&clock).await;
    // Each question is answered, so that this does not spin.
    while calls.time_ms().await <= time_ms {}
}

/// Holds that last, made once.
struct Kept {
    lease: Lease,
    /// On its own time, and on that of the lease.
    locks: [Lock; 2],
}

impl Kept {
    async fn make(calls: &mut Calls) -> Self {
        let lease = calls.grant(HOUR_MS).await;
        let by_ttl = calls.acquire("kept", 1, Duration::TtlMs(HOUR_MS)).await;
        let by_lease = Duration::LeaseId(lease.lease_id);
        let by_lease = calls.acquire("kept by a lease", 2, by_lease).await;
        calls.set("kept", Some(expiry::Kind::LeaseId(lease.lease_id)), None).await.unwrap();
        Self { lease, locks: [by_ttl, by_lease] }
    }

    /// They are as they were left, nobody else has them, and they can be renewed.
    async fn check(&mut self, calls: &mut Calls) {
        let lease = calls.lease(self.lease.lease_id).await.unwrap();
        assert_eq!(lease, Lease { keys: 1, locks: 1, ..self.lease });
        for lock in &self.locks {
            assert_eq!(calls.lock(&lock.name).await.as_ref(), Some(lock));
            calls.set("guarded", None, Some((&lock.name, lock.token))).await.unwrap();
            let wrong = calls.set("guarded", None, Some((&lock.name, lock.token - 1))).await;
            assert_lock_lost(&wrong.unwrap_err());
        }
        let other = calls.try_acquire("kept", 3, Duration::TtlMs(1)).await.unwrap();
        assert!(matches!(other.outcome, Some(Outcome::Holder(_))), "{other:?}");
        let [by_ttl, by_lease] = &mut self.locks;
        *by_ttl = calls.renew(by_ttl).await;
        self.lease = calls.keep_alive(self.lease.lease_id).await;
        by_lease.expires_at_ms = self.lease.expires_at_ms;
    }
}

/// Somebody who counts, locks and writes, and who has lost no more than an answer when the program is killed.
struct Worker {
    number: u64,
    /// How many requests were counted.
    total: i64,
    /// The last that was counted, and its answer.
    counted: Option<(IncrementRequest, IncrementResponse)>,
    /// The one whose answer was lost.
    counting: Option<IncrementRequest>,
    /// The hold that is wanted or had; without a token the answer was lost.
    hold: Option<(u64, Option<u64>)>,
    /// The token of the last hold.
    token: u64,
    /// The number of the last hold.
    holds: u64,
    /// The keys that were set to expire, acknowledged.
    set: Vec<String>,
}

impl Worker {
    fn new(number: u64) -> Self {
        Self {
            number,
            total: 0,
            counted: None,
            counting: None,
            hold: None,
            token: 0,
            holds: 0,
            set: Vec::new(),
        }
    }

    /// Goes on after a kill: asks again for what was answered last, and for what was not.
    async fn resume(&mut self, calls: &mut Calls) {
        if let Some((request, first)) = &self.counted {
            let again = calls.increment(request).await.unwrap();
            assert_eq!(again, *first, "the first answer comes again");
        }
        if self.counting.is_some() {
            self.count(calls).await.unwrap();
        }
        let Some((hold, known)) = self.hold else { return };
        let former = self.token;
        self.ask(calls, hold).await.unwrap();
        match known {
            Some(token) => assert_eq!(self.hold, Some((hold, Some(token))), "what was held is"),
            None if former != 0 && self.token != former => {
                let stale = calls.set("guarded", None, Some((&self.lock(), former))).await;
                assert_lock_lost(&stale.unwrap_err());
            }
            None => {}
        }
    }

    /// Does one of each; an error once the program is killed.
    async fn work(&mut self, calls: &mut Calls) -> Result<(), Status> {
        let seq = self.total as u64 + 1;
        let id = RequestId {
            client_id: vec![self.number as u8; 8].into(),
            seq,
            // The one before is to be asked for once more.
            done_below: seq - 1,
        };
        let options = WriteOptions { request_id: Some(id), ..WriteOptions::default() };
        self.counting = Some(IncrementRequest {
            namespace: NAMESPACE.into(),
            key: format!("counter{}", self.number),
            delta: 1,
            options: Some(options),
            ..IncrementRequest::default()
        });
        self.count(calls).await?;
        let key = format!("expiring:{}:{seq}", self.number);
        calls.set(&key, Some(expiry::Kind::TtlMs(seq % 20 + 1)), None).await?;
        self.set.push(key);
        match self.hold {
            Some((_, Some(token))) => {
                calls.set("guarded", None, Some((&self.lock(), token))).await?;
                // From here on it may be over or not.
                self.hold = None;
                calls.release(&self.lock(), token).await?;
            }
            _ => {
                self.holds += 1;
                self.ask(calls, self.holds).await?;
            }
        }
        Ok(())
    }

    async fn count(&mut self, calls: &mut Calls) -> Result<(), Status> {
        let request = self.counting.clone().expect("there is something to count");
        let answer = calls.increment(&request).await?;
        self.total += 1;
        assert_eq!(answer.value, self.total, "each is counted once");
        self.counted = Some((request, answer));
        self.counting = None;
        Ok(())
    }

    /// Asks for a hold, perhaps not for the first time.
    async fn ask(&mut self, calls: &mut Calls, hold: u64) -> Result<(), Status> {
        let known = self.hold.and_then(|(_, token)| token);
        self.hold = Some((hold, known));
        let answer = calls.try_acquire(&self.lock(), hold, Duration::TtlMs(HOUR_MS)).await?;
        match answer.outcome.expect("an answer says who holds it") {
            Outcome::Lock(lock) => {
                assert!(lock.token > self.token || known.is_some(), "{lock:?}, {}", self.token);
                self.token = lock.token;
                self.hold = Some((hold, Some(lock.token)));
            }
            // The answer to a release was lost, and the release, too.
            Outcome::Holder(holder) => {
                assert_eq!(holder.token, self.token, "nobody else wants it");
                self.hold = None;
                calls.release(&self.lock(), self.token).await?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> String {
        format!("lock{}", self.number)
    }
}

/// The calls that are made here, in the namespace of the test.
struct Calls {
    kv: KvServiceClient<Channel>,
    locks: LockServiceClient<Channel>,
    leases: LeaseServiceClient<Channel>,
}

impl Calls {
    async fn to(program: &Program) -> Self {
        let channel = program.channel().await;
        Self {
            kv: KvServiceClient::new(channel.clone()),
            locks: LockServiceClient::new(channel.clone()),
            leases: LeaseServiceClient::new(channel),
        }
    }

    async fn set(
        &mut self,
        key: &str,
        expiry: Option<expiry::Kind>,
        guard: Option<(&str, u64)>,
    ) -> Result<u64, Status> {
        let guards = guard.map(|(lock, token)| Guard { lock: lock.into(), token });
        let options =
            WriteOptions { guards: guards.into_iter().collect(), ..WriteOptions::default() };
        let request = SetRequest {
            namespace: NAMESPACE.into(),
            key: key.into(),
            expiry: expiry.map(|kind| Expiry { kind: Some(kind) }),
            options: Some(options),
            ..SetRequest::default()
        };
        Ok(self.kv.set(request).await?.into_inner().revision)
    }

    async fn increment(&mut self, request: &IncrementRequest) -> Result<IncrementResponse, Status> {
        Ok(self.kv.increment(request.clone()).await?.into_inner())
    }

    async fn try_acquire(
        &mut self,
        name: &str,
        hold: u64,
        duration: Duration,
    ) -> Result<AcquireResponse, Status> {
        let request = AcquireRequest {
            namespace: NAMESPACE.into(),
            name: name.into(),
            acquire_id: [[0; 8], hold.to_be_bytes()].concat().into(),
            duration: Some(duration),
            ..AcquireRequest::default()
        };
        Ok(self.locks.acquire(request).await?.into_inner())
    }

    /// The hold of a lock that is free.
    async fn acquire(&mut self, name: &str, hold: u64, duration: Duration) -> Lock {
        match self.try_acquire(name, hold, duration).await.unwrap().outcome {
            Some(Outcome::Lock(lock)) => lock,
            other => panic!("{name} is not free: {other:?}"),
        }
    }

    async fn renew(&mut self, lock: &Lock) -> Lock {
        let request = RenewRequest {
            namespace: NAMESPACE.into(),
            name: lock.name.clone(),
            token: lock.token,
            ..RenewRequest::default()
        };
        self.locks.renew(request).await.unwrap().into_inner().lock.unwrap()
    }

    async fn release(&mut self, name: &str, token: u64) -> Result<(), Status> {
        let request = ReleaseRequest {
            namespace: NAMESPACE.into(),
            name: name.into(),
            hold: Some(release_request::Hold::Token(token)),
            ..ReleaseRequest::default()
        };
        self.locks.release(request).await.map(drop)
    }

    async fn lock(&mut self, name: &str) -> Option<Lock> {
        let request = GetLockRequest { namespace: NAMESPACE.into(), name: name.into() };
        self.locks.get_lock(request).await.unwrap().into_inner().lock
    }

    async fn grant(&mut self, ttl_ms: u64) -> Lease {
        let request =
            GrantRequest { namespace: NAMESPACE.into(), ttl_ms, ..GrantRequest::default() };
        self.leases.grant(request).await.unwrap().into_inner().lease.unwrap()
    }

    async fn keep_alive(&mut self, lease_id: u64) -> Lease {
        let request = KeepAliveRequest { namespace: NAMESPACE.into(), lease_id };
        let answers = self.leases.keep_alive(stream::iter([request])).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        match answer.result {
            Some(keep_alive_response::Result::Lease(lease)) => lease,
            other => panic!("{other:?}"),
        }
    }

    async fn lease(&mut self, lease_id: u64) -> Option<Lease> {
        let request =
            GetLeaseRequest { namespace: NAMESPACE.into(), lease_id, ..GetLeaseRequest::default() };
        self.leases.get_lease(request).await.unwrap().into_inner().lease
    }

    async fn time_ms(&mut self) -> i64 {
        let request = GetLockRequest { namespace: NAMESPACE.into(), name: "none".into() };
        self.locks.get_lock(request).await.unwrap().into_inner().time_ms
    }
}

fn assert_lock_lost(status: &Status) {
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "LOCK_LOST", "{status:?}");
}
