//! Requests about locks, leases and retries, tersely, and what cases often ask of them.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome, pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;
use tokio::task::JoinHandle;

use super::{call::Call, failure::Failure, namespace::Namespace};

/// Bytes that no other call got: an `acquire_id` of 16, a `client_id` of 8.
pub fn unique(length: usize) -> Bytes {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let mut bytes = number.to_be_bytes().to_vec();
    bytes.resize(length, 0);
    bytes.into()
}

/// One try, with an `acquire_id` of its own.
pub fn acquire(name: &str) -> AcquireRequest {
    AcquireRequest { name: name.to_owned(), acquire_id: unique(16), ..Default::default() }
}

/// One try for so long.
pub fn acquire_for(name: &str, ttl_ms: u64) -> AcquireRequest {
    AcquireRequest { duration: Some(Duration::TtlMs(ttl_ms)), ..acquire(name) }
}

/// One try for as long as a lease.
pub fn acquire_by(name: &str, lease_id: u64) -> AcquireRequest {
    AcquireRequest { duration: Some(Duration::LeaseId(lease_id)), ..acquire(name) }
}

/// The same, waiting for a minute.
pub fn patient(request: AcquireRequest) -> AcquireRequest {
    AcquireRequest { wait_ms: 60_000, ..request }
}

pub fn renew(lock: &Lock) -> RenewRequest {
    RenewRequest { name: lock.name.clone(), token: lock.token, ..Default::default() }
}

pub fn release(lock: &Lock) -> ReleaseRequest {
    let hold = Some(release_request::Hold::Token(lock.token));
    ReleaseRequest { name: lock.name.clone(), hold, ..Default::default() }
}

/// Gives up the hold or place of an attempt.
pub fn give_up(attempt: &AcquireRequest) -> ReleaseRequest {
    let hold = Some(release_request::Hold::AcquireId(attempt.acquire_id.clone()));
    ReleaseRequest { name: attempt.name.clone(), hold, ..Default::default() }
}

pub fn update_value(lock: &Lock, value: &str) -> UpdateValueRequest {
    UpdateValueRequest {
        name: lock.name.clone(),
        token: lock.token,
        value: value.to_owned().into(),
        ..Default::default()
    }
}

pub fn get_lock(name: &str) -> GetLockRequest {
    GetLockRequest { name: name.to_owned(), ..Default::default() }
}

pub fn list_locks(prefix: &str) -> ListLocksRequest {
    ListLocksRequest { prefix: prefix.to_owned(), ..Default::default() }
}

pub fn break_lock(lock: &Lock, reason: &str) -> BreakLockRequest {
    BreakLockRequest {
        name: lock.name.clone(),
        token: lock.token,
        reason: reason.to_owned(),
        ..Default::default()
    }
}

/// A watch that says how far it has come ten times a second, with the present state first.
pub fn watch_locks(prefix: &str) -> WatchLocksRequest {
    WatchLocksRequest {
        locks: Some(watch_locks_request::Locks::Prefix(prefix.to_owned())),
        progress_interval_ms: Some(100),
        ..Default::default()
    }
}

pub fn watch_locks_after(prefix: &str, revision: u64) -> WatchLocksRequest {
    let after_revision = Some(watch_locks_request::AfterRevision { revision, or_initial: false });
    WatchLocksRequest { after_revision, ..watch_locks(prefix) }
}

pub fn grant(ttl_ms: u64) -> GrantRequest {
    GrantRequest { ttl_ms, ..Default::default() }
}

pub fn keep_alive(lease_id: u64) -> KeepAliveRequest {
    KeepAliveRequest { lease_id, ..Default::default() }
}

pub fn revoke(lease_id: u64) -> RevokeRequest {
    RevokeRequest { lease_id, ..Default::default() }
}

/// What is known of a lease, with what is attached to it.
pub fn get_lease(lease_id: u64) -> GetLeaseRequest {
    GetLeaseRequest { lease_id, attached: true, ..Default::default() }
}

/// An expiry: with this lease.
pub fn with_lease(lease_id: u64) -> Option<Expiry> {
    Some(Expiry { kind: Some(expiry::Kind::LeaseId(lease_id)) })
}

/// Only while these holds are current.
pub fn guarded<'a>(locks: impl IntoIterator<Item = &'a Lock>) -> Option<WriteOptions> {
    let guard = |lock: &Lock| Guard { lock: lock.name.clone(), token: lock.token };
    Some(WriteOptions { guards: locks.into_iter().map(guard).collect(), ..Default::default() })
}

/// A request that can be sent again.
pub fn numbered(client_id: &Bytes, seq: u64) -> Option<WriteOptions> {
    numbered_done(client_id, seq, 0)
}

/// The same, by a client that has its answers below `done_below`.
pub fn numbered_done(client_id: &Bytes, seq: u64, done_below: u64) -> Option<WriteOptions> {
    let request_id = Some(RequestId { client_id: client_id.clone(), seq, done_below });
    Some(WriteOptions { request_id, ..Default::default() })
}

/// A write with these options.
pub fn with_options(operation: Op, options: Option<WriteOptions>) -> Op {
    macro_rules! by_kind {
        ($($kind:ident)*) => {
            match operation {
                $(Op::$kind(mut request) => {
                    request.options = options;
                    Op::$kind(request)
                })*
                other => panic!("not a write: {other:?}"),
            }
        };
    }
    by_kind! {
        Get Set Delete SetTtl Increment DeleteRange BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue BreakLock Grant Revoke
    }
}

/// What an acquire got, if it got the lock.
pub fn granted(answer: AcquireResponse) -> Option<Lock> {
    match answer.outcome.expect("an acquire has an outcome") {
        Outcome::Lock(lock) => Some(lock),
        Outcome::Holder(_) => None,
    }
}

/// What becomes of a lease that is kept alive.
pub fn kept(answer: KeepAliveResponse) -> Result<Lease, Box<Failure>> {
    match answer.result.expect("a keep-alive has a result") {
        keep_alive_response::Result::Lease(lease) => Ok(lease),
        keep_alive_response::Result::Status(status) => Err(Box::new(status.into())),
    }
}

fn had(answer: &AcquireResponse) -> Lock {
    granted(answer.clone()).unwrap_or_else(|| panic!("it is taken: {answer:?}"))
}

/// A call that waits for a lock. It waits on if this is dropped, and may fail then.
pub struct Waiter(JoinHandle<Result<AcquireResponse, Failure>>);

impl Waiter {
    /// The lock, when it is granted.
    pub async fn granted(self) -> Lock {
        let answer = self.0.await.expect("the call ends");
        had(&answer.unwrap_or_else(|failure| panic!("{failure:?}")))
    }

    /// Waits no longer.
    pub fn abort(&self) {
        self.0.abort();
    }

    /// Whether there is an answer.
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl Namespace {
    /// Takes a lock that is to be had.
    pub async fn hold(&self, request: AcquireRequest) -> Lock {
        had(&self.ok(request).await)
    }

    /// Tries for a lock that is taken; who has it.
    pub async fn taken(&self, request: AcquireRequest) -> Lock {
        match self.ok(request).await.outcome {
            Some(Outcome::Holder(holder)) => holder,
            other => panic!("it is not taken: {other:?}"),
        }
    }

    /// Who holds a lock.
    pub async fn lock(&self, name: &str) -> Option<Lock> {
        self.ok(get_lock(name)).await.lock
    }

    /// Starts waiting for a lock that is taken, and returns when the place in the queue, counted from 1,
    /// is had.
    pub async fn queue(&self, request: AcquireRequest, place: u32) -> Waiter {
        let (ns, name) = (self.clone(), request.name.clone());
        let waiter = Waiter(tokio::spawn(async move { ns.call(request).await }));
        self.until_waiting(&name, place).await;
        waiter
    }

    /// Waits until so many wait for a lock that is held; the time then.
    pub async fn until_waiting(&self, name: &str, count: u32) -> i64 {
        loop {
            let answer = self.ok(get_lock(name)).await;
            if answer.lock.is_some_and(|lock| lock.waiting == count) {
                return answer.time_ms;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until the store's clock has reached this time.
    pub async fn until(&self, time_ms: i64) {
        while self.ok(get_lock("no-such-lock")).await.time_ms < time_ms {
            tokio::task::yield_now().await;
        }
    }

    /// Sends a request that is to fail because a hold is lost, for this cause.
    pub async fn lost<C: Call>(&self, request: C, lock: &Lock, cause: &str) -> Failure {
        let failure = self.fails(request, ErrorReason::LockLost).await;
        assert_eq!(failure.metadata["lock"], lock.name, "{failure:?}");
        assert_eq!(failure.number("token"), lock.token, "{failure:?}");
        assert_eq!(failure.metadata["cause"], cause, "{failure:?}");
        failure
    }

    /// A lease of the server's choice.
    pub async fn lease(&self, ttl_ms: u64) -> u64 {
        self.ok(grant(ttl_ms)).await.lease.expect("answered").lease_id
    }

    /// Keeps a lease alive once.
    pub async fn keep(&self, lease_id: u64) -> Result<Lease, Failure> {
        kept(self.ok(keep_alive(lease_id)).await).map_err(|failure| *failure)
    }

    /// Sets a key with a lease.
    pub async fn attach(&self, key: &str, lease_id: u64) -> Entry {
        let request =
            SetRequest { expiry: with_lease(lease_id), ..super::build::set(key, "leased") };
        self.ok(request).await.entry.expect("Set answers with the entry")
    }
}
