//! A hold that keeps itself, and knows when it is lost.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use holdfast_proto::v1::{self, release_request};
use tokio::{
    runtime::Handle,
    task::AbortHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{LockInfo, LockLoss};
use crate::{Client, Error, LeaseLoss, Token, life::Life, retry::Backoff};

/// A hold of a lock; made by [`AcquireLock`](crate::AcquireLock).
///
/// It is renewed in the background after each third of its TTL, and given up when it is dropped, also in the
/// background: [`release`](Self::release) waits for that. It must be dropped within a Tokio runtime for that;
/// otherwise the lock is free when its TTL has passed. A hold by a lease lasts as long as that is kept alive,
/// and is looked after at the same pace.
///
/// The hold knows of its loss without the network. It counts its TTL by this machine's monotonic clock from when
/// the last renewal that was acknowledged was *sent*, so that it is lost here before anybody else can get the
/// lock. That clock may stand still while a machine sleeps, and a program can be held up between a look at
/// [`is_held`](Self::is_held) and what it does next. What must never happen without the lock is a write with a
/// [guard](crate::Set::guard).
#[must_use = "the lock is released when this is dropped"]
pub struct LockGuard {
    hold: Arc<Hold>,
    renewing: AbortHandle,
    given_up: bool,
}

impl LockGuard {
    /// A hold that the answer to a request sent at `sent` has acknowledged.
    pub(super) fn new(
        client: Client,
        namespace: String,
        info: LockInfo,
        sent: Instant,
        lease: Option<(Arc<Life<LeaseLoss>>, Duration)>,
    ) -> Self {
        let (lease, lease_ttl) = lease.unzip();
        let hold = Arc::new(Hold {
            life: Arc::new(Life::new(sent, info.ttl, LockLoss::NotRenewed)),
            pace: info.ttl.or(lease_ttl).unwrap_or_default() / 3,
            lease,
            client,
            namespace,
            name: info.name.clone(),
            token: info.token,
            info: Mutex::new(info),
        });
        let renewing = tokio::spawn(renew_for_good(Arc::clone(&hold), sent)).abort_handle();
        Self { hold, renewing, given_up: false }
    }

    /// The name of the lock.
    pub fn name(&self) -> &str {
        &self.hold.name
    }

    /// The fencing token: name it in [guards](crate::Set::guard), or hand it to whoever else can compare it.
    pub fn token(&self) -> Token {
        self.hold.token
    }

    /// The lock as the server has last described it.
    pub fn info(&self) -> LockInfo {
        self.hold.info().clone()
    }

    /// Whether the lock is still held, as far as can be told without asking.
    pub fn is_held(&self) -> bool {
        self.loss().is_none()
    }

    /// How long the hold lasts unless it is renewed, as far as can be told without asking; zero once it is
    /// lost. What takes a while to stop has to begin while that much is left.
    pub fn remaining(&self) -> Duration {
        self.hold.remaining()
    }

    /// How the hold was lost, if it was.
    pub fn loss(&self) -> Option<LockLoss> {
        self.hold.loss()
    }

    /// Resolves when the hold is lost, however that is found out: by the clock, or because the server says so.
    /// It may outlive this guard; releasing is a loss, too.
    pub fn lost(&self) -> impl Future<Output = LockLoss> + Send + use<> {
        self.hold.lost()
    }

    /// Renews the hold now.
    ///
    /// # Errors
    /// [`Error::LockLost`] if it is lost; the failures of any write.
    pub async fn renew(&self) -> Result<LockInfo, Error> {
        self.hold.check()?;
        self.hold.renew().await
    }

    /// Changes the value that the lock shows, at most 4,096 bytes.
    ///
    /// # Errors
    /// [`Error::LockLost`] if the hold is lost; the failures of any write.
    pub async fn update_value(&self, value: impl Into<Bytes>) -> Result<LockInfo, Error> {
        self.hold.check()?;
        self.hold.update_value(value.into()).await
    }

    /// Gives the lock up. For this program it is [lost](Self::lost) at once. Answers whether it was held until now.
    ///
    /// # Errors
    /// The failures of any write; the release is then tried once more in the background.
    pub async fn release(mut self) -> Result<bool, Error> {
        self.renewing.abort();
        // Another may have the lock before the answer is here.
        self.hold.life.lose(LockLoss::Released);
        let released = self.hold.release().await?;
        self.given_up = true;
        Ok(released)
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        self.renewing.abort();
        let loss = self.hold.loss();
        self.hold.life.lose(LockLoss::Released);
        // What was lost by the clock alone, or could not be released, may still stand in the way of others.
        let may_stand = |loss| matches!(loss, LockLoss::NotRenewed | LockLoss::Released);
        if self.given_up || !loss.is_none_or(may_stand) {
            return;
        }
        if let Ok(runtime) = Handle::try_current() {
            let hold = Arc::clone(&self.hold);
            runtime.spawn(async move {
                // Where this fails, the TTL ends the hold.
                let _ = hold.release().await;
            });
        }
    }
}

impl fmt::Debug for LockGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LockGuard")
            .field("name", &self.name())
            .field("token", &self.token())
            .field("loss", &self.loss())
            .finish_non_exhaustive()
    }
}

/// What the guard and the task that renews share.
struct Hold {
    client: Client,
    namespace: String,
    name: String,
    token: Token,
    info: Mutex<LockInfo>,
    life: Arc<Life<LockLoss>>,
    /// The life of the lease, for a hold that lasts as long as one.
    lease: Option<Arc<Life<LeaseLoss>>>,
    /// How long after a renewal the next is due.
    pace: Duration,
}

impl Hold {
    fn info(&self) -> MutexGuard<'_, LockInfo> {
        // Whoever holds this only copies.
        self.info.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn loss(&self) -> Option<LockLoss> {
        let by_lease = || self.lease.as_ref()?.loss().map(LockLoss::from);
        self.life.loss().or_else(by_lease)
    }

    fn lost(&self) -> impl Future<Output = LockLoss> + Send + use<> {
        let life = Arc::clone(&self.life);
        let lease = self.lease.clone();
        async move {
            let Some(lease) = lease else {
                return life.lost().await;
            };
            tokio::select! {
                biased;
                loss = life.lost() => loss,
                loss = lease.lost() => loss.into(),
            }
        }
    }

    fn check(&self) -> Result<(), Error> {
        match self.loss() {
            None => Ok(()),
            Some(cause) => {
                Err(Error::LockLost { lock: self.name.clone(), token: self.token, cause })
            }
        }
    }

    /// When the hold is lost unless something is done.
    fn deadline(&self) -> Instant {
        let own = self.life.deadline();
        self.lease.as_ref().map_or(own, |lease| lease.deadline().min(own))
    }

    fn remaining(&self) -> Duration {
        match self.loss() {
            None => self.deadline().saturating_duration_since(Instant::now()),
            Some(_) => Duration::ZERO,
        }
    }

    async fn renew(&self) -> Result<LockInfo, Error> {
        let request = v1::RenewRequest {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            token: self.token.get(),
            ttl_ms: None,
            options: None,
        };
        // An answer that comes after the deadline is of no use. One that does not come in a while will
        // perhaps come from another server.
        let transport = &self.client.transport;
        let timeout = transport.timeout().min(self.pace).min(self.remaining());
        let sent = Instant::now();
        let renewed = self.noting(transport.call(request, Some(timeout)).await)?;
        let info = LockInfo::answered(renewed.lock)?;
        self.life.renewed(sent, info.ttl);
        *self.info() = info.clone();
        self.check()?;
        Ok(info)
    }

    async fn update_value(&self, value: Bytes) -> Result<LockInfo, Error> {
        let request = v1::UpdateValueRequest {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            token: self.token.get(),
            value,
            options: None,
        };
        let updated = self.noting(self.client.transport.call(request, None).await)?;
        let info = LockInfo::answered(updated.lock)?;
        *self.info() = info.clone();
        Ok(info)
    }

    async fn release(&self) -> Result<bool, Error> {
        let request = v1::ReleaseRequest {
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            hold: Some(release_request::Hold::Token(self.token.get())),
            options: None,
        };
        Ok(self.client.transport.call(request, None).await?.released)
    }

    /// Takes note of an answer that says that the hold is lost.
    fn noting<R>(&self, answer: Result<R, Error>) -> Result<R, Error> {
        if let Err(Error::LockLost { cause, .. }) = &answer {
            self.life.lose(cause.clone());
        }
        answer
    }
}

/// Renews a hold, which counts from `sent`, time and again until it is lost.
async fn renew_for_good(hold: Arc<Hold>, sent: Instant) {
    let mut due = sent + jittered(hold.pace);
    loop {
        sleep_until(due).await;
        let mut backoff = Backoff::for_calls();
        loop {
            if hold.loss().is_some() {
                return;
            }
            let started = Instant::now();
            match hold.renew().await {
                Ok(_) => {
                    due = started + jittered(hold.pace);
                    break;
                }
                Err(_) => sleep(backoff.wait(None)).await,
            }
        }
    }
}

/// A little less, so that many holds taken together are not renewed together.
fn jittered(pace: Duration) -> Duration {
    pace.mul_f64(rand::random_range(0.8..=1.0))
}
