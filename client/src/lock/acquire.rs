//! How a lock is asked for, once or until it is there.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_proto::v1::{self, acquire_request, acquire_response::Outcome, release_request};
use tokio::{runtime::Handle, time::Instant};

use super::{LockGuard, LockInfo, LockOwner};
use crate::{
    Client, Error, Lease, LeaseLoss,
    call::{Pending, call_options, write_options},
    error::{Cause, Failure},
    life::Life,
    retry::{Backoff, Effect, verdict},
    transport::deadline_after,
    types::millis_rounded_up,
};

/// How long a hold lasts unless it is said.
const DEFAULT_TTL_MS: u64 = 30_000;

/// The longest that a server lets anybody wait in one call.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// A connection that stood so long is no sign of trouble when it breaks.
const LONG_CONNECTION: Duration = Duration::from_secs(10);

/// After how long a request that nobody waits for any more surely has reached the server, if it ever does.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// Asks for a lock; made by [`Namespace::lock`](crate::Namespace::lock). End it with
/// [`acquire`](Self::acquire) or [`try_acquire`](Self::try_acquire).
///
/// If the future of either is dropped before it ends, or fails with the lock perhaps granted, the hold and the
/// place in the queue are given up in the background.
#[must_use = "a lock is not asked for until `acquire` or `try_acquire` is awaited"]
pub struct AcquireLock {
    call: Pending<v1::AcquireRequest>,
    owner: LockOwner,
    lease: Option<(Arc<Life<LeaseLoss>>, Duration)>,
    wait: Option<Duration>,
}

impl AcquireLock {
    pub(super) fn new(mut call: Pending<v1::AcquireRequest>) -> Self {
        call.request.duration = Some(acquire_request::Duration::TtlMs(DEFAULT_TTL_MS));
        Self { call, owner: LockOwner::default(), lease: None, wait: None }
    }

    /// How long the hold lasts from each renewal: 1 ms to 100 years, 30 s unless set. It is renewed in the
    /// background after a third of this.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        let ttl_ms = millis_rounded_up(ttl);
        self.call.request.duration = Some(acquire_request::Duration::TtlMs(ttl_ms));
        self.lease = None;
        self
    }

    /// Lets the hold last as long as a lease of the same namespace.
    pub fn lease(mut self, lease: &Lease) -> Self {
        let id = lease.id().get();
        self.call.request.duration = Some(acquire_request::Duration::LeaseId(id));
        self.lease = Some((lease.life(), lease.ttl()));
        self
    }

    /// Who asks, to be shown to whoever finds the lock taken; this process unless set.
    pub fn owner(mut self, owner: LockOwner) -> Self {
        self.owner = owner;
        self
    }

    /// The person or the service that asks.
    pub fn who(mut self, who: impl Into<String>) -> Self {
        self.owner = self.owner.who(who);
        self
    }

    /// What the lock is for.
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.owner = self.owner.reason(reason);
        self
    }

    /// What is done while holding it.
    pub fn operation(mut self, operation: impl Into<String>) -> Self {
        self.owner = self.owner.operation(operation);
        self
    }

    /// What to show while holding it, at most 4,096 bytes.
    pub fn value(mut self, value: impl Into<Bytes>) -> Self {
        self.call.request.value = value.into();
        self
    }

    /// How long [`acquire`](Self::acquire) waits for the lock at the most; unless set, as long as it takes.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = Some(wait);
        self
    }

    call_options!();
    write_options!();

    /// Takes the lock if it is free.
    ///
    /// # Errors
    /// [`Error::LeaseNotFound`], [`Error::LockLost`] for a guard that does not hold, or for this lock if it was granted
    /// and the answer took longer than its TTL, and the failures of any write.
    pub async fn try_acquire(self) -> Result<Acquired, Error> {
        let mut attempt = Attempt::new(self)?;
        Ok(match attempt.at_once().await? {
            (Outcome::Lock(lock), sent) => Acquired::Held(attempt.take(lock, Some(sent)).await?),
            (Outcome::Holder(holder), _) => Acquired::Taken(LockInfo::from_wire(holder)),
        })
    }

    /// Waits for the lock, first come, first served, and takes it.
    ///
    /// # Errors
    /// [`Error::LockTaken`] if the [time limit](Self::wait) ran out; else those of
    /// [`try_acquire`](Self::try_acquire). While waiting, a broken connection is no error: the client comes back,
    /// and has its place again if it does so within seconds.
    pub async fn acquire(self) -> Result<LockGuard, Error> {
        let until = deadline_after(self.wait.unwrap_or(Duration::MAX));
        let mut attempt = Attempt::new(self)?;
        let (mut outcome, sent) = attempt.at_once().await?;
        let mut sent = Some(sent);
        loop {
            let is_over = Instant::now() >= until;
            match outcome {
                Outcome::Holder(holder) if is_over => {
                    let holder = Box::new(LockInfo::from_wire(holder));
                    return Err(Error::LockTaken { holder });
                }
                Outcome::Holder(_) => {}
                Outcome::Lock(lock) => match attempt.take(lock, sent).await {
                    // It was granted too late to be of use.
                    Err(Error::LockLost { .. }) if !is_over => attempt.rename(),
                    taken => return taken,
                },
            }
            outcome = attempt.in_turn(until).await?;
            sent = None;
        }
    }
}

/// What came of trying to take a lock.
#[derive(Debug)]
#[must_use = "the lock is released when this is dropped"]
#[expect(clippy::large_enum_variant, reason = "it is taken apart where it is made")]
pub enum Acquired {
    /// It is held now.
    Held(LockGuard),
    /// Another holds it.
    Taken(LockInfo),
}

impl Acquired {
    /// The hold, if there is one.
    pub fn into_guard(self) -> Option<LockGuard> {
        match self {
            Acquired::Held(hold) => Some(hold),
            Acquired::Taken(_) => None,
        }
    }
}

/// An attempt to get a lock, under one `acquire_id`. What it may have got is given up when it is dropped.
struct Attempt {
    client: Client,
    request: v1::AcquireRequest,
    timeout: Duration,
    lease: Option<(Arc<Life<LeaseLoss>>, Duration)>,
    /// A request was sent that may have got the lock, or a place in the queue.
    armed: bool,
}

impl Attempt {
    fn new(builder: AcquireLock) -> Result<Self, Error> {
        let AcquireLock { call, owner, lease, .. } = builder;
        if let Some(error) = call.failed {
            return Err(error);
        }
        let mut attempt = Self {
            timeout: call.timeout.unwrap_or(call.client.transport.timeout()),
            client: call.client,
            request: call.request,
            lease,
            armed: false,
        };
        attempt.request.owner = Some(owner.into_wire());
        attempt.rename();
        Ok(attempt)
    }

    /// Goes on under another id: what the former one stood for is over.
    fn rename(&mut self) {
        let id: [u8; 16] = rand::random();
        self.request.acquire_id = Bytes::copy_from_slice(&id);
        self.armed = false;
    }

    /// Without waiting for anybody. Also tells since when a hold counts.
    async fn at_once(&mut self) -> Result<(Outcome, Instant), Error> {
        self.request.wait_ms = 0;
        // Whichever of its attempts gets the lock, it is granted after this.
        let sent = Instant::now();
        self.armed = true;
        let call = self.client.transport.call(self.request.clone(), Some(self.timeout));
        // One that is refused may come after another whose answer was lost, and which has got the lock.
        let answered = call.await.inspect_err(|error| self.armed = !error.is_transient())?;
        let outcome = outcome(answered)?;
        self.armed = matches!(outcome, Outcome::Lock(_));
        Ok((outcome, sent))
    }

    /// Takes a place in the queue and waits. The place would be lost by asking anew, so one call has all the
    /// time there is, and only a broken one is asked again.
    async fn in_turn(&mut self, until: Instant) -> Result<Outcome, Error> {
        let mut backoff = Backoff::for_watches();
        let mut may_be_granted = false;
        // `confirm` does so: what is granted to a caller that has gone is not kept from others.
        self.request.renew_to_keep = true;
        loop {
            let sent = Instant::now();
            let wait = until.saturating_duration_since(sent).min(LONGEST_WAIT);
            self.request.wait_ms = millis_rounded_up(wait);
            self.armed = true;
            let deadline = deadline_after(wait.saturating_add(self.timeout));
            let failure = match self.client.transport.attempt(self.request.clone(), deadline).await
            {
                Ok(answered) => {
                    let outcome = outcome(answered)?;
                    self.armed = matches!(outcome, Outcome::Lock(_));
                    return Ok(outcome);
                }
                Err(failure) => failure,
            };
            if sent.elapsed() > LONG_CONNECTION {
                backoff = Backoff::for_watches();
            }
            // Who is late, here or on the way, does not know either.
            let is_late = matches!(failure.error, Error::DeadlineExceeded);
            may_be_granted |= is_late || failure.may_be_applied();
            let pause = backoff.wait(failure.error.retry_after());
            if !may_ask_again(&failure) || Instant::now() + pause >= until {
                return Err(verdict(Effect::Writes, may_be_granted, failure.error));
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Takes a lock that was granted to a request sent at `sent`, which is not known of one that was waited for.
    async fn take(&mut self, lock: v1::Lock, sent: Option<Instant>) -> Result<LockGuard, Error> {
        // What is left when the first renewal is due already may not be enough for it.
        let first_due = Duration::from_millis(lock.ttl_ms) / 3;
        let is_fresh = |sent: &Instant| lock.ttl_ms == 0 || sent.elapsed() < first_due;
        match sent.filter(is_fresh) {
            Some(sent) => self.hold(lock, sent),
            None => self.confirm(lock).await,
        }
    }

    /// Makes sure of a lock that was told late: its time counts from here.
    async fn confirm(&mut self, lock: v1::Lock) -> Result<LockGuard, Error> {
        let sent = Instant::now();
        let renew = v1::RenewRequest {
            namespace: self.request.namespace.clone(),
            name: lock.name,
            token: lock.token,
            ttl_ms: None,
            options: None,
        };
        let renewed = self.client.transport.call(renew, Some(self.timeout)).await?;
        let lock =
            renewed.lock.ok_or_else(|| Error::protocol("the answer to a renewal has no lock"))?;
        self.hold(lock, sent)
    }

    fn hold(&mut self, lock: v1::Lock, sent: Instant) -> Result<LockGuard, Error> {
        let (client, namespace) = (self.client.clone(), self.request.namespace.clone());
        let info = LockInfo::from_wire(lock);
        if info.ttl.is_none() && self.lease.is_none() {
            return Err(Error::protocol("a hold has neither a TTL nor the lease asked for"));
        }
        // From here on the hold gives itself up.
        self.armed = false;
        Ok(LockGuard::new(client, namespace, info, sent, self.lease.take()))
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let Ok(runtime) = Handle::try_current() else {
            return;
        };
        let client = self.client.clone();
        let request = v1::ReleaseRequest {
            namespace: self.request.namespace.clone(),
            name: self.request.name.clone(),
            hold: Some(release_request::Hold::AcquireId(self.request.acquire_id.clone())),
            options: None,
        };
        runtime.spawn(async move {
            let released = client.transport.call(request.clone(), None).await;
            if !released.is_ok_and(|answer| answer.released) {
                // What was asked for may still have been on its way, and have come after this.
                tokio::time::sleep(STRAGGLERS).await;
                // The server finds out by itself if nobody can tell it.
                let _ = client.transport.call(request, None).await;
            }
        });
    }
}

/// Whether a wait goes on, over a new connection, after this failure.
fn may_ask_again(failure: &Failure) -> bool {
    failure.cause != Cause::Answered
        || matches!(
            failure.error,
            Error::Unavailable { .. }
                | Error::Overloaded { .. }
                | Error::OutcomeUnknown { .. }
                // Not ours, which comes later: somebody on the way has set one.
                | Error::DeadlineExceeded
        )
}

fn outcome(response: v1::AcquireResponse) -> Result<Outcome, Error> {
    response.outcome.ok_or_else(|| Error::protocol("the answer names neither lock nor holder"))
}
