//! Until when leases lasted. Keeping one alive takes no revision: its place among the states is told by revision and time
//! together, and where these are equal, or the fate of a call is not known, there are several deadlines to choose from.

use std::collections::BTreeMap;

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};

use super::{Case, Violation, log::Log};
use crate::history::{Call, History, Moment, Outcome, Request};

/// Ended, or not granted yet.
pub const NEVER: i64 = i64::MIN;

/// All leases of a run.
pub struct Leases {
    by_id: BTreeMap<u64, Life>,
}

/// One lease.
#[derive(Debug, Default)]
struct Life {
    client: usize,
    ttl_ms: u64,
    granted_at_ms: i64,
    /// What is known to have become of it: the state that it was done in, and its deadline from then on.
    steps: Vec<(u64, i64, i64)>,
    /// When calls began that may have prolonged it.
    perhaps_kept: Vec<Moment>,
    /// When calls began that may have ended it.
    perhaps_ended: Vec<Moment>,
}

/// A choice of deadlines.
pub type Deadlines = BTreeMap<u64, i64>;

impl Leases {
    /// Reads what became of leases.
    pub fn read(history: &History, log: &Log) -> Self {
        let imported = history.imported.leases.iter().map(|lease| (lease.id, Life::of(lease)));
        let mut by_id: BTreeMap<u64, Life> = imported.collect();
        for call in &history.calls {
            let Request::Do(op) = &call.request else { continue };
            match (op, &call.outcome) {
                (Op::Grant(r), outcome) => {
                    let id = r.lease_id.expect("the workload chooses its leases");
                    let life = by_id.entry(id).or_default();
                    (life.client, life.ttl_ms) = (call.client, r.ttl_ms);
                    if let Outcome::Answered(Answer::Grant(a)) = outcome {
                        life.granted_at_ms = a.time_ms;
                        life.steps.push((a.revision, a.time_ms, a.time_ms + r.ttl_ms as i64));
                        let mut borders = history.borders.iter();
                        let is_at_border =
                            borders.any(|it| it.through == a.revision && !it.is_whole);
                        if a.revision == history.base || is_at_border {
                            // It may have been of the lineage before, and gone with that.
                            life.perhaps_ended.push(call.invoked);
                        }
                    }
                }
                (Op::KeepAlive(r), Outcome::Answered(Answer::KeepAlive(a))) => {
                    let life = by_id.entry(r.lease_id).or_default();
                    life.steps.push((a.revision, a.time_ms, a.time_ms + life.ttl_ms as i64));
                }
                (Op::Revoke(r), Outcome::Answered(Answer::Revoke(a))) if a.revoked => {
                    let life = by_id.entry(r.lease_id).or_default();
                    life.steps.push((a.revision, a.time_ms, NEVER));
                }
                (Op::KeepAlive(r), Outcome::Unknown { .. }) => {
                    by_id.entry(r.lease_id).or_default().perhaps_kept.push(call.invoked);
                }
                (Op::Revoke(r), _) if call.may_have_been_applied() => {
                    by_id.entry(r.lease_id).or_default().perhaps_ended.push(call.invoked);
                }
                _ => {}
            }
        }
        let mut leases = Leases { by_id };
        leases.read_ends(log);
        for life in leases.by_id.values_mut() {
            life.steps.sort_unstable();
        }
        leases
    }

    /// The deadlines that leases may have at a state, as far as they matter: to what is there, or to this client.
    pub fn choices(
        &self,
        state: &crate::model::Entries,
        (revision, time_ms): (u64, i64),
        call: &Call,
    ) -> Vec<Deadlines> {
        const MOST: usize = 64;
        let mut known = Deadlines::new();
        let mut open = Vec::new();
        for (&id, life) in &self.by_id {
            let is_there = || state.values().any(|entry| entry.lease_id == Some(id));
            if life.client != call.client && !is_named(call, id) && !is_there() {
                continue;
            }
            let mut possible = life.possible(revision, time_ms, call.returned);
            if let Some(shown) = shown(call, id).filter(|_| life.is_perhaps_kept(call.returned)) {
                possible.push(shown);
            }
            match possible[..] {
                [one] => drop(known.insert(id, one)),
                _ => open.push((id, possible)),
            }
        }
        let mut choices = vec![known];
        for (id, possible) in open {
            let with = |chosen: &Deadlines, at_ms| {
                let mut chosen = chosen.clone();
                chosen.insert(id, at_ms);
                chosen
            };
            let all =
                choices.iter().flat_map(|chosen| possible.iter().map(|&at_ms| with(chosen, at_ms)));
            choices = all.take(MOST).collect();
        }
        choices
    }

    /// Leases as the model wants them.
    pub fn with(&self, deadlines: &Deadlines) -> BTreeMap<u64, Lease> {
        let lease = |(&id, life): (&u64, &Life)| {
            let lease = Lease {
                lease_id: id,
                ttl_ms: life.ttl_ms,
                granted_at_ms: life.granted_at_ms,
                expires_at_ms: deadlines.get(&id).copied().unwrap_or(NEVER),
                keys: 0,
                locks: 0,
            };
            (id, lease)
        };
        self.by_id.iter().map(lease).collect()
    }

    /// The deadlines that one lease may have at a state.
    pub fn deadlines(&self, id: u64, revision: u64, time_ms: i64, by: Moment) -> Vec<i64> {
        self.by_id.get(&id).map_or(vec![NEVER], |life| life.possible(revision, time_ms, by))
    }

    /// Leases that expired with something attached: the log tells.
    fn read_ends(&mut self, log: &Log) {
        for (revision, it) in log.revisions() {
            for event in &it.events {
                let lease = event.previous.as_ref().and_then(|previous| previous.lease_id);
                let is_end =
                    [RemovalReason::Lease, RemovalReason::Revoked].contains(&event.reason());
                if let Some(life) = lease.filter(|_| is_end).and_then(|id| self.by_id.get_mut(&id))
                {
                    life.steps.push((revision, it.time_ms, NEVER));
                }
            }
        }
    }
}

impl Life {
    /// That of one which was there from the beginning on.
    fn of(lease: &TransferLease) -> Self {
        Life {
            client: usize::MAX,
            ttl_ms: lease.ttl_ms,
            granted_at_ms: lease.granted_at_ms,
            steps: vec![(0, lease.granted_at_ms, lease.expires_at_ms)],
            ..Life::default()
        }
    }

    /// The deadline of the last that became of it before a state; then others that it may have had.
    fn possible(&self, revision: u64, time_ms: i64, by: Moment) -> Vec<i64> {
        let before = self.steps.partition_point(|it| (it.0, it.1) < (revision, time_ms));
        let upto = self.steps.partition_point(|it| (it.0, it.1) <= (revision, time_ms));
        let mut possible = self.settled(before);
        let settled = possible.clone();
        possible.extend(self.steps[before..upto].iter().map(|it| it.2));
        // It was kept alive only while it lived: each call whose fate is not known can have added its TTL once.
        let kept = self.perhaps_kept.iter().filter(|began| **began < by).count() as i64;
        for settled in settled {
            let latest = settled.saturating_add(kept * self.ttl_ms as i64);
            if settled <= time_ms && latest > time_ms {
                possible.push(latest.min(time_ms + self.ttl_ms as i64));
            }
            if settled > time_ms && self.perhaps_ended.iter().any(|began| *began < by) {
                possible.push(NEVER);
            }
        }
        possible.dedup();
        possible
    }

    /// The deadlines that it may have after so many steps: which of those of one revision and time was the last is not known.
    fn settled(&self, steps: usize) -> Vec<i64> {
        let Some(last) = self.steps[..steps].last() else { return vec![NEVER] };
        let steps = self.steps[..steps].iter().rev();
        steps.take_while(|it| (it.0, it.1) == (last.0, last.1)).map(|it| it.2).collect()
    }

    fn is_perhaps_kept(&self, by: Moment) -> bool {
        self.perhaps_kept.iter().any(|began| *began < by)
    }
}

/// Whether a call names a lease.
fn is_named(call: &Call, id: u64) -> bool {
    let Request::Do(op) = &call.request else { return false };
    let is_it = |expiry: &Option<Expiry>| {
        expiry.as_ref().and_then(|it| it.kind) == Some(expiry::Kind::LeaseId(id))
    };
    match op {
        Op::GetLease(GetLeaseRequest { lease_id, .. })
        | Op::Revoke(RevokeRequest { lease_id, .. })
        | Op::KeepAlive(KeepAliveRequest { lease_id, .. }) => *lease_id == id,
        Op::Set(SetRequest { expiry, .. })
        | Op::SetTtl(SetTtlRequest { expiry, .. })
        | Op::Increment(IncrementRequest { expiry, .. })
        | Op::Get(GetRequest { touch: expiry, .. }) => is_it(expiry),
        Op::BatchSet(r) => r.items.iter().any(|item| is_it(&item.expiry)),
        Op::Transact(r) => r.then.iter().chain(&r.otherwise).any(|it| match &it.kind {
            Some(operation::Kind::Set(r)) => is_it(&r.expiry),
            Some(operation::Kind::SetTtl(r)) => is_it(&r.expiry),
            Some(operation::Kind::Increment(r)) => is_it(&r.expiry),
            _ => false,
        }),
        _ => false,
    }
}

/// The deadline that an answer shows of a lease.
fn shown(call: &Call, id: u64) -> Option<i64> {
    let Outcome::Answered(answer) = &call.outcome else { return None };
    match answer {
        Answer::GetLease(a) => a.lease.filter(|it| it.lease_id == id).map(|it| it.expires_at_ms),
        Answer::GetTtl(a) => match a.ttl {
            Some(get_ttl_response::Ttl::RemainingMs(rest)) => Some(a.time_ms + rest as i64),
            _ => None,
        },
        _ => None,
    }
}

/// Checks what was answered to grants and keep-alives, and that no lease ended early or by halves.
pub(super) fn check(case: &Case) -> Result<(), Violation> {
    for call in &case.history.calls {
        let (Request::Do(op), Outcome::Answered(answer)) = (&call.request, &call.outcome) else {
            continue;
        };
        let fits = match (op, answer) {
            (Op::Grant(r), Answer::Grant(a)) => a.lease.is_some_and(|lease| {
                (Some(lease.lease_id), lease.ttl_ms, lease.keys, lease.locks)
                    == (r.lease_id, r.ttl_ms, 0, 0)
                    && lease.expires_at_ms == a.time_ms + r.ttl_ms as i64
            }),
            (Op::KeepAlive(r), Answer::KeepAlive(a)) => was_kept(case, r, a, call),
            _ => continue,
        };
        if !fits {
            return Err(Violation::new("a lease lasts its TTL from each call", "not so").call(call));
        }
    }
    case.log.revisions().try_for_each(|(revision, it)| check_end(case, revision, it.time_ms))
}

fn was_kept(case: &Case, r: &KeepAliveRequest, a: &KeepAliveResponse, call: &Call) -> bool {
    let Some(keep_alive_response::Result::Lease(lease)) = a.result else { return false };
    let former = case.leases.deadlines(r.lease_id, a.revision, a.time_ms, call.returned);
    let lived = former.iter().any(|deadline| *deadline > a.time_ms);
    let state = case.log.state_at(a.revision);
    let attached = state.values().filter(|it| it.lease_id == Some(r.lease_id)).count();
    lived
        && lease.expires_at_ms == a.time_ms + lease.ttl_ms as i64
        && (r.lease_id % 2 == 1 || lease.keys as usize == attached)
}

/// Whether leases that end at a revision end with all their keys, and not early.
fn check_end(case: &Case, revision: u64, time_ms: i64) -> Result<(), Violation> {
    for event in case.log.events(revision, revision) {
        let lease = event.previous.as_ref().and_then(|previous| previous.lease_id);
        let (Some(id), true) =
            (lease, [RemovalReason::Lease, RemovalReason::Revoked].contains(&event.reason()))
        else {
            continue;
        };
        let left = case.log.state_at(revision);
        if let Some(left) = left.values().find(|entry| entry.lease_id == Some(id)) {
            let what = format!("{} is left", left.key);
            return Err(Violation::new("a lease ends with all its keys", what).event(event));
        }
        let Some(life) = case.leases.by_id.get(&id) else { continue };
        let known = life.steps.iter().filter(|it| it.0 < revision).map(|it| it.2).max();
        if event.reason() == RemovalReason::Lease
            && known.is_some_and(|deadline| deadline > time_ms)
        {
            let what = format!("the lease {id} lasts until {known:?}");
            return Err(Violation::new("nothing ends early", what).event(event));
        }
    }
    Ok(())
}
