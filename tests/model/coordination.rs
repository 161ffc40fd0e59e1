//! Leases and locks of the model.

use std::collections::BTreeSet;

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome, pipeline_answer::Result as Answer,
    pipeline_call::Operation as Op, *,
};

use crate::model::{Model, Refusal};

impl Model {
    /// What a call on a lease answers at this time.
    pub fn call_on_lease(&mut self, call: &Op, time_ms: i64) -> Result<Answer, Refusal> {
        let revision = self.revision;
        Ok(match call {
            Op::Grant(r) => {
                let lease_id = r.lease_id.expect("sequences choose their leases");
                if self.leases.contains_key(&lease_id) {
                    return Err(Refusal::Reason(ErrorReason::LeaseIdUsed));
                }
                let expires_at_ms = time_ms + r.ttl_ms as i64;
                let ttl_ms = r.ttl_ms;
                let (granted_at_ms, keys, locks) = (time_ms, 0, 0);
                let lease = Lease { lease_id, ttl_ms, granted_at_ms, expires_at_ms, keys, locks };
                self.leases.insert(lease_id, lease);
                Answer::Grant(GrantResponse { revision, time_ms, lease: Some(lease) })
            }
            Op::KeepAlive(r) => {
                if !self.live_leases(time_ms).contains(&r.lease_id) {
                    return Err(Refusal::Reason(ErrorReason::LeaseNotFound));
                }
                let lease = self.leases.get_mut(&r.lease_id).expect("it lives");
                lease.expires_at_ms = time_ms + lease.ttl_ms as i64;
                let (lease_id, lease) = (r.lease_id, self.lease(r.lease_id, time_ms));
                Answer::KeepAlive(KeepAliveResponse {
                    revision,
                    time_ms,
                    namespace: String::new(),
                    lease_id,
                    result: lease.map(keep_alive_response::Result::Lease),
                })
            }
            Op::Revoke(r) => self.revoke(r.lease_id, time_ms)?,
            Op::GetLease(r) => {
                let lease = self.lease(r.lease_id, time_ms);
                let keys = lease.map(|_| self.attached(r.lease_id)).unwrap_or_default();
                let (locks, more) = (Vec::new(), false);
                Answer::GetLease(GetLeaseResponse { revision, time_ms, lease, keys, locks, more })
            }
            other => unreachable!("not on a lease: {other:?}"),
        })
    }

    /// What a call on a lock answers at this time.
    pub fn call_on_lock(&mut self, call: &Op, time_ms: i64) -> Result<Answer, Refusal> {
        let lost = Refusal::Reason(ErrorReason::LockLost);
        Ok(match call {
            Op::Acquire(r) => self.acquire(r, time_ms),
            Op::Renew(r) => {
                let lock = self.held(&r.name, r.token).ok_or(lost)?;
                lock.expires_at_ms = time_ms + lock.ttl_ms as i64;
                let (lock, revision) = (Some(lock.clone()), self.revision);
                Answer::Renew(RenewResponse { revision, time_ms, lock })
            }
            Op::UpdateValue(r) => {
                let lock = self.held(&r.name, r.token).ok_or(lost)?;
                lock.value = r.value.clone();
                let (lock, revision) = (Some(lock.clone()), self.next_revision());
                Answer::UpdateValue(UpdateValueResponse { revision, time_ms, lock })
            }
            Op::Release(r) => {
                let Some(release_request::Hold::Token(token)) = r.hold else {
                    unreachable!("not generated");
                };
                let (revision, released) = self.end_hold(&r.name, token);
                Answer::Release(ReleaseResponse { revision, time_ms, released })
            }
            Op::BreakLock(r) => {
                let (revision, broken) = self.end_hold(&r.name, r.token);
                Answer::BreakLock(BreakLockResponse { revision, time_ms, broken })
            }
            Op::GetLock(r) => {
                let (revision, held) = (self.revision, self.locks.get(&r.name));
                let lock = held.map(|(lock, _)| lock.clone());
                Answer::GetLock(GetLockResponse { revision, time_ms, lock })
            }
            other => unreachable!("not on a lock: {other:?}"),
        })
    }

    /// The leases that live.
    pub fn live_leases(&self, time_ms: i64) -> BTreeSet<u64> {
        let live = self.leases.values().filter(|lease| lease.expires_at_ms > time_ms);
        live.map(|lease| lease.lease_id).collect()
    }

    /// Whether this token is that of the hold there is now.
    pub fn holds(&self, name: &str, token: u64) -> bool {
        self.locks.get(name).is_some_and(|(lock, _)| lock.token == token)
    }

    /// A lease that lives, as it is shown.
    fn lease(&self, id: u64, time_ms: i64) -> Option<Lease> {
        let lease = self.leases.get(&id).filter(|lease| lease.expires_at_ms > time_ms)?;
        Some(Lease { keys: self.attached(id).len() as u32, ..*lease })
    }

    fn attached(&self, id: u64) -> Vec<String> {
        let attached = self.entries.values().filter(|entry| entry.lease_id == Some(id));
        attached.map(|entry| entry.key.clone()).collect()
    }

    fn revoke(&mut self, id: u64, time_ms: i64) -> Result<Answer, Refusal> {
        let revoked = self.live_leases(time_ms).contains(&id);
        let attached = if revoked { self.attached(id) } else { Vec::new() };
        let before = self.log.len();
        let (revision, ()) = self.write(time_ms, |draft| {
            draft.entries.retain(|key, _| !attached.contains(key));
            Ok(())
        })?;
        for event in &mut self.log[before..] {
            event.reason = RemovalReason::Revoked.into();
        }
        if revoked {
            self.leases.entry(id).and_modify(|lease| lease.expires_at_ms = time_ms);
        }
        let (keys, locks) = (attached.len() as u32, 0);
        Ok(Answer::Revoke(RevokeResponse { revision, time_ms, revoked, keys, locks }))
    }

    fn acquire(&mut self, r: &AcquireRequest, time_ms: i64) -> Answer {
        let Some(Duration::TtlMs(ttl_ms)) = r.duration else {
            unreachable!("not generated");
        };
        if !self.locks.contains_key(&r.name) {
            let lock = Lock {
                name: r.name.clone(),
                token: self.next_revision(),
                owner: r.owner.clone(),
                value: r.value.clone(),
                acquired_at_ms: time_ms,
                ttl_ms,
                expires_at_ms: time_ms + ttl_ms as i64,
                lease_id: None,
                waiting: 0,
            };
            self.locks.insert(r.name.clone(), (lock, r.acquire_id.clone()));
        }
        let (lock, acquire_id) = self.locks[&r.name].clone();
        let own = acquire_id == r.acquire_id;
        let outcome = if own { Outcome::Lock(lock) } else { Outcome::Holder(lock) };
        let revision = self.revision;
        Answer::Acquire(AcquireResponse { revision, time_ms, outcome: Some(outcome) })
    }

    fn held(&mut self, name: &str, token: u64) -> Option<&mut Lock> {
        let (lock, _) = self.locks.get_mut(name)?;
        Some(lock).filter(|lock| lock.token == token)
    }

    fn end_hold(&mut self, name: &str, token: u64) -> (u64, bool) {
        if !self.holds(name, token) {
            return (self.revision, false);
        }
        self.locks.remove(name);
        (self.next_revision(), true)
    }

    /// Takes a revision that changes no key.
    fn next_revision(&mut self) -> u64 {
        self.revision += 1;
        self.past.insert(self.revision, self.entries.clone());
        self.revision
    }
}
