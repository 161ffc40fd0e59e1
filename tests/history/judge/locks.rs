//! Locks: what the log says of holds, and whether each call and guard fits.

use std::collections::BTreeMap;

use holdfast_proto::v1::{
    acquire_request::Duration, acquire_response::Outcome as Acquired,
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;

use super::{
    Case, Violation,
    log::{Log, Revision},
};
use crate::history::{Call, History, Outcome, Request, state_of};

/// All holds of a run.
pub struct Holds<'a> {
    by_lock: BTreeMap<String, Vec<Hold<'a>>>,
}

/// One hold, as the log tells it.
struct Hold<'a> {
    granted: &'a LockEvent,
    lock: &'a Lock,
    /// What it showed, by the revisions of the changes.
    values: Vec<(u64, &'a Bytes)>,
    end: Option<&'a LockEvent>,
    /// States in which somebody was shown when it ends: the revision, the time, and that; and by which call.
    shown: Vec<(u64, i64, i64, usize)>,
    /// Whether calls may have prolonged it that were not answered.
    perhaps_renewed: bool,
}

impl<'a> Holds<'a> {
    /// Reads the log of locks: one holder at a time, and each token the revision of its grant.
    pub fn read(history: &'a History, log: &Log<'a>) -> Result<Self, Violation> {
        let mut holds = Holds { by_lock: BTreeMap::new() };
        history.imported.granted.iter().try_for_each(|event| holds.step(event))?;
        for event in log.revisions().flat_map(|(_, it)| it.locks.iter().copied()) {
            holds.step(event)?;
        }
        for (index, call) in history.calls.iter().enumerate() {
            holds.note(index, call);
        }
        Ok(holds)
    }

    /// The locks that are held at a revision, as far as a compare asks.
    pub fn tokens_at(&self, revision: u64) -> BTreeMap<String, (Lock, Bytes)> {
        let held = self.by_lock.iter().filter_map(|(name, holds)| {
            let hold = holds.iter().find(|hold| hold.is_open_at(revision))?;
            Some((name.clone(), (hold.lock.clone(), Bytes::new())))
        });
        held.collect()
    }

    /// What a watch of locks may tell first at a revision: names with tokens.
    pub fn open_at(&self, revision: u64) -> impl Iterator<Item = (&str, u64)> {
        self.by_lock.iter().filter_map(move |(name, holds)| {
            let hold = holds.iter().find(|hold| hold.is_open_at(revision))?;
            Some((name.as_str(), hold.granted.token))
        })
    }

    /// Whether a hold was granted for longer than until a time.
    pub fn lasts(&self, name: &str, token: u64, time_ms: i64) -> bool {
        let hold = self.find(name, token).filter(|hold| hold.lock.lease_id.is_none());
        hold.is_some_and(|hold| hold.lock.expires_at_ms > time_ms)
    }

    fn step(&mut self, event: &'a LockEvent) -> Result<(), Violation> {
        let holds = self.by_lock.entry(event.name.clone()).or_default();
        let open = holds.last_mut().filter(|hold| hold.end.is_none());
        let fail = |promise, what: &str| Err(Violation::new(promise, what).told(event));
        match (event.r#type(), open, &event.lock) {
            (LockEventType::Granted, None, Some(lock)) => {
                if event.token != event.revision || lock.token != event.token {
                    return fail("a token is the revision of its grant", "it is not");
                }
                holds.push(Hold {
                    granted: event,
                    lock,
                    values: vec![(event.revision, &lock.value)],
                    end: None,
                    shown: vec![(event.revision, event.time_ms, lock.expires_at_ms, usize::MAX)],
                    perhaps_renewed: false,
                });
                Ok(())
            }
            (LockEventType::Granted, Some(open), _) => {
                let violation = Violation::new("a lock has one holder", "it is granted to two");
                Err(violation.told(open.granted).told(event))
            }
            (kind, Some(open), lock) if open.granted.token == event.token => match (kind, lock) {
                (LockEventType::ValueChanged, Some(lock)) => {
                    open.values.push((event.revision, &lock.value));
                    Ok(())
                }
                (LockEventType::Unspecified | LockEventType::ValueChanged, _) => {
                    fail("events of locks are whole", "it is not")
                }
                _ => {
                    open.end = Some(event);
                    Ok(())
                }
            },
            _ => fail("a hold ends once, and is changed only while it lasts", "there is none"),
        }
    }

    /// Takes in what a call tells of when a hold ends.
    fn note(&mut self, index: usize, call: &Call) {
        let Request::Do(op) = &call.request else { return };
        if call.may_have_been_applied() {
            let (name, token) = match op {
                Op::Renew(r) => (&r.name, r.token),
                Op::Acquire(r) => (&r.name, self.token_of(r).unwrap_or(0)),
                _ => return,
            };
            if let Some(hold) = self.find_mut(name, token) {
                hold.perhaps_renewed = true;
            }
        }
        let Outcome::Answered(answer) = &call.outcome else { return };
        let (revision, time_ms) = state_of(answer);
        for lock in locks_in(answer) {
            let end_ms = lock.expires_at_ms;
            if let Some(hold) = self.find_mut(&lock.name, lock.token) {
                hold.shown.push((revision, time_ms, end_ms, index));
            }
        }
    }

    /// The first revision in which a call got the lock that it asked for. If it did not take what it was offered, it was
    /// offered it again later.
    pub fn first_granted_to(&self, r: &AcquireRequest) -> Option<u64> {
        let holds = self.by_lock.get(&r.name)?;
        let own = holds.iter().find(|hold| hold.lock.owner == r.owner);
        own.map(|hold| hold.granted.token)
    }

    fn token_of(&self, r: &AcquireRequest) -> Option<u64> {
        let holds = self.by_lock.get(&r.name)?;
        let own = |hold: &&Hold| hold.lock.owner == r.owner;
        holds.iter().rev().find(own).map(|hold| hold.granted.token)
    }

    fn find(&self, name: &str, token: u64) -> Option<&Hold<'a>> {
        self.by_lock.get(name)?.iter().find(|hold| hold.granted.token == token)
    }

    fn find_mut(&mut self, name: &str, token: u64) -> Option<&mut Hold<'a>> {
        self.by_lock.get_mut(name)?.iter_mut().find(|hold| hold.granted.token == token)
    }
}

impl Hold<'_> {
    fn is_open_at(&self, revision: u64) -> bool {
        self.granted.revision <= revision && self.end.is_none_or(|end| end.revision > revision)
    }

    fn value_at(&self, revision: u64) -> &Bytes {
        let after = self.values.partition_point(|(changed, _)| *changed <= revision);
        self.values[after.max(1) - 1].1
    }

    /// Until when it lasts at least, by what was shown in a state or before it.
    fn surely_until(&self, case: &Case, revision: u64, time_ms: i64, call: &Call) -> i64 {
        let shown = self.shown.iter().filter(|it| (it.0, it.1) <= (revision, time_ms));
        match self.lock.lease_id {
            None => shown.map(|it| it.2).max().unwrap_or(0),
            Some(lease) => {
                let lease = case.leases.deadlines(lease, revision, time_ms, call.returned);
                let lease = lease.into_iter().min().unwrap_or(0);
                shown.map(|it| it.2).min().unwrap_or(0).min(lease)
            }
        }
    }

    /// Until when it can last at the most, by what was shown to others than one call in a state or before it.
    fn perhaps_until(&self, case: &Case, (revision, time_ms): (u64, i64), index: usize) -> i64 {
        if self.perhaps_renewed {
            return i64::MAX;
        }
        let call = &case.history.calls[index];
        let before = self.shown.iter().filter(|it| (it.0, it.1) <= (revision, time_ms));
        let shown = before.filter(|it| it.3 != index).map(|it| it.2).max().unwrap_or(0);
        let lease = self.lock.lease_id.map(|id| {
            let deadlines = case.leases.deadlines(id, revision, time_ms, call.returned);
            deadlines.into_iter().max().unwrap_or(0)
        });
        shown.max(lease.unwrap_or(0))
    }
}

/// Whether a call is about locks, or about a lease that only locks are attached to.
pub fn is_about(op: &Op) -> bool {
    match op {
        Op::Acquire(_)
        | Op::Renew(_)
        | Op::Release(_)
        | Op::UpdateValue(_)
        | Op::BreakLock(_)
        | Op::GetLock(_) => true,
        Op::Revoke(RevokeRequest { lease_id, .. })
        | Op::GetLease(GetLeaseRequest { lease_id, .. }) => lease_id % 2 == 1,
        _ => false,
    }
}

/// Whether a revision is nothing but locks that were passed on to who waited for them, or given up for those who were
/// gone when they got them.
pub fn is_passed_on(case: &Case, it: &Revision) -> bool {
    let fits = |event: &&LockEvent| match event.r#type() {
        LockEventType::Granted | LockEventType::Expired => true,
        LockEventType::Released => {
            let hold = case.holds.find(&event.name, event.token);
            hold.and_then(|hold| asked(case, hold))
                .is_some_and(|(call, r)| r.wait_ms > 0 || call.may_have_been_applied())
        }
        _ => false,
    };
    it.events.is_empty() && it.locks.iter().all(fits)
}

/// Checks each hold: somebody asked for it, and it did not end early.
pub fn check(case: &Case) -> Result<(), Violation> {
    for hold in case.holds.by_lock.values().flatten() {
        if hold.granted.revision <= case.history.base {
            // It was imported.
            check_end(case, hold)?;
            continue;
        }
        let Some((call, r)) = asked(case, hold) else {
            let what = "nobody asked for it";
            return Err(
                Violation::new("who holds a lock has asked for it", what).told(hold.granted)
            );
        };
        let (known, _) = case.windows.known_at(call.invoked);
        let late = match &call.outcome {
            Outcome::Answered(Answer::Acquire(a)) => {
                call.attempts == 1 && hold.granted.token > a.revision
            }
            _ => false,
        };
        let lasts = match r.duration {
            Some(Duration::LeaseId(id)) => hold.lock.lease_id == Some(id),
            Some(Duration::TtlMs(ttl_ms)) => hold.lock.ttl_ms == ttl_ms,
            None => false,
        };
        if hold.granted.token <= known || late || !lasts {
            let what = "it was granted before or after that, or otherwise";
            let violation = Violation::new("who holds a lock has asked for it", what);
            return Err(violation.told(hold.granted).call(call));
        }
        check_end(case, hold)?;
    }
    Ok(())
}

/// Whether guards held when a guarded write was applied.
pub fn check_guards(case: &Case, index: usize, call: &Call) -> Result<(), Violation> {
    let (Some((revision, time_ms)), Some(options)) = (call.state(), call.options()) else {
        return Ok(());
    };
    let ends_itself = matches!(call.request, Request::Do(Op::Revoke(_)));
    for guard in &options.guards {
        let hold = case.holds.find(&guard.lock, guard.token);
        let held = hold.is_some_and(|hold| {
            let was_open =
                hold.is_open_at(revision) || ends_itself && hold.is_open_at(revision - 1);
            was_open && hold.perhaps_until(case, (revision, time_ms), index) > time_ms
        });
        if !held {
            let end = hold.and_then(|hold| hold.end);
            let violation = Violation::new("a guarded write needs its hold", "it had ended");
            return Err(violation.call(call).told(("end", end)));
        }
    }
    Ok(())
}

/// Which revision an answered call took, if it took one of its own.
pub fn explain(
    case: &Case,
    call: &Call,
    op: &Op,
    answer: &Answer,
) -> Result<Option<u64>, Violation> {
    let (revision, time_ms) = state_of(answer);
    let index = case.history.calls.iter().position(|it| std::ptr::eq(it, call)).unwrap_or(0);
    let fail = |what: &str| {
        let log = case.history.lock_log.iter().filter(|it| it.revision <= revision + 2);
        let log: Vec<_> = log.rev().take(8).map(|it| format!("{it:?}")).collect();
        let mut violation = Violation::new("an answer about a lock is true", what).call(call);
        violation.story.extend(log.into_iter().rev());
        Err(violation)
    };
    for lock in locks_in(answer) {
        let hold = case.holds.find(&lock.name, lock.token);
        let Some(hold) = hold.filter(|hold| hold.is_open_at(revision)) else {
            return fail("the hold that it shows is not current");
        };
        if lock.expires_at_ms <= time_ms || lock.value != hold.value_at(revision) {
            return fail("the hold that it shows has ended, or shows another value");
        }
    }
    let ended_by = |name: &str, token: u64, kind: LockEventType| {
        let end = case.holds.find(name, token).and_then(|hold| hold.end);
        end.is_some_and(|end| end.revision == revision && end.r#type() == kind)
    };
    let surely_held = |name: &str, token: u64| {
        let hold = case.holds.find(name, token).filter(|hold| hold.is_open_at(revision));
        hold.is_some_and(|hold| hold.surely_until(case, revision, time_ms, call) > time_ms)
    };
    match (op, answer) {
        (Op::Acquire(r), Answer::Acquire(a)) => match &a.outcome {
            Some(Acquired::Lock(lock)) if lock.owner == r.owner => Ok(None),
            Some(Acquired::Holder(lock)) if lock.owner != r.owner => Ok(None),
            _ => fail("it is told of another's hold as its own, or of its own as another's"),
        },
        (Op::Renew(r), Answer::Renew(_)) => {
            let hold = case.holds.find(&r.name, r.token);
            let until = hold.map(|hold| hold.perhaps_until(case, (revision, time_ms), index));
            match until.is_some_and(|until| until > time_ms) {
                true => Ok(None),
                false => fail("a hold was renewed that had ended"),
            }
        }
        (Op::Release(r), Answer::Release(a)) => {
            let Some(release_request::Hold::Token(token)) = r.hold else { return Ok(None) };
            match a.released {
                true if ended_by(&r.name, token, LockEventType::Released) => Ok(Some(revision)),
                false if !surely_held(&r.name, token) => Ok(None),
                _ => fail("it was released or not, otherwise than is said"),
            }
        }
        (Op::BreakLock(r), Answer::BreakLock(a)) => match a.broken {
            true if ended_by(&r.name, r.token, LockEventType::Broken) => Ok(Some(revision)),
            false if !surely_held(&r.name, r.token) => Ok(None),
            _ => fail("it was broken or not, otherwise than is said"),
        },
        (Op::UpdateValue(r), Answer::UpdateValue(_)) => {
            let hold = case.holds.find(&r.name, r.token);
            let is_told = |hold: &Hold| hold.values.contains(&(revision, &r.value));
            match hold.is_some_and(is_told) {
                true => Ok(Some(revision)),
                false => fail("its value is not in the log"),
            }
        }
        (Op::GetLock(r), Answer::GetLock(a)) => {
            let holds = case.holds.by_lock.get(&r.name);
            let open = holds.and_then(|all| all.iter().find(|hold| hold.is_open_at(revision)));
            match open {
                Some(hold) if a.lock.is_none() && surely_held(&r.name, hold.granted.token) => {
                    fail("it is held")
                }
                _ => Ok(None),
            }
        }
        (Op::Revoke(r), Answer::Revoke(a)) => {
            let freed = freed_with(case, r.lease_id, revision);
            match (a.locks as usize, freed) {
                (0, _) => Ok(None),
                (told, freed) if told == freed => Ok(Some(revision)),
                _ => fail("other locks were freed"),
            }
        }
        _ => Ok(None),
    }
}

/// Whether it can have been told that a hold is lost.
pub fn explain_loss(case: &Case, index: usize, call: &Call) -> Result<(), Violation> {
    let window = case.windows.of(index);
    let mut named: Vec<(&str, u64)> = Vec::new();
    if let Some(options) = call.options() {
        named.extend(options.guards.iter().map(|guard| (guard.lock.as_str(), guard.token)));
    }
    match &call.request {
        Request::Do(Op::Renew(r)) => named.push((&r.name, r.token)),
        Request::Do(Op::UpdateValue(r)) => named.push((&r.name, r.token)),
        _ => {}
    }
    let to_ms = window.to_ms.min(case.history.end_ms);
    let surely_held = |(name, token): &(&str, u64)| {
        let hold = case.holds.find(name, *token);
        hold.is_some_and(|hold| {
            let lasts = hold.surely_until(case, window.from, window.from_ms, call) > to_ms;
            hold.is_open_at(window.from) && hold.is_open_at(window.to) && lasts
        })
    };
    match named.iter().all(surely_held) {
        true => Err(Violation::new("a hold that lasts is not lost", "it was current").call(call)),
        false => Ok(()),
    }
}

/// Whether another refusal can have been right.
pub fn explain_refusal(case: &Case, index: usize, call: &Call, op: &Op) -> Result<(), Violation> {
    let Outcome::Refused(failure) = &call.outcome else { return Ok(()) };
    let window = case.windows.of(index);
    let to_ms = window.to_ms.min(case.history.end_ms);
    let has_ended = |id: u64| {
        let deadlines = case.leases.deadlines(id, window.to, to_ms, call.returned);
        deadlines.into_iter().any(|deadline| deadline <= to_ms)
    };
    let is_right = match (failure.reason.as_str(), op) {
        ("OVERLOADED" | "BACKEND_UNAVAILABLE" | "LINEAGE_CHANGED", _) => true,
        ("LEASE_NOT_FOUND", Op::Acquire(r)) => match r.duration {
            Some(Duration::LeaseId(id)) => has_ended(id),
            _ => false,
        },
        _ => false,
    };
    match is_right {
        true => Ok(()),
        false => Err(Violation::new("a refusal has its reason", "it has not").call(call)),
    }
}

/// Whether a call whose fate is not known can have made a revision.
pub fn can_make(case: &Case, op: &Op, revision: u64) -> bool {
    let Some(it) = case.log.revision(revision) else { return false };
    let tells = |name: &str, token: u64, kind: LockEventType| {
        let mut events = it.locks.iter();
        events.any(|it| it.name == name && it.token == token && it.r#type() == kind)
    };
    match op {
        Op::Release(r) => match r.hold {
            Some(release_request::Hold::Token(token)) => {
                tells(&r.name, token, LockEventType::Released)
            }
            _ => false,
        },
        Op::BreakLock(r) => tells(&r.name, r.token, LockEventType::Broken),
        Op::UpdateValue(r) => tells(&r.name, r.token, LockEventType::ValueChanged),
        Op::Revoke(r) => freed_with(case, r.lease_id, revision) > 0,
        _ => false,
    }
}

/// How many locks were freed with a lease at a revision.
fn freed_with(case: &Case, lease_id: u64, revision: u64) -> usize {
    let Some(it) = case.log.revision(revision) else { return 0 };
    let by_lease = it.locks.iter().filter(|event| {
        let hold = case.holds.find(&event.name, event.token);
        event.r#type() == LockEventType::Released
            && hold.is_some_and(|hold| hold.lock.lease_id == Some(lease_id))
    });
    by_lease.count()
}

fn check_end(case: &Case, hold: &Hold) -> Result<(), Violation> {
    let Some(end) = hold.end.filter(|end| end.r#type() == LockEventType::Expired) else {
        return Ok(());
    };
    // A hold that lasts as long as a lease is first offered for a fixed time.
    let shown = hold.shown.iter().filter(|it| it.0 < end.revision && it.1 <= end.time_ms);
    let until = match hold.lock.lease_id {
        None => shown.map(|it| it.2).max(),
        Some(id) => {
            // Whether the offer was taken is not known where the answer to that was lost.
            let by_lease = || case.leases.deadlines(id, end.revision, end.time_ms, u64::MAX);
            let taken = hold.perhaps_renewed.then(by_lease).into_iter().flatten();
            shown.map(|it| it.2).chain(taken).min()
        }
    };
    match until.is_some_and(|until| until > end.time_ms) {
        true => {
            let what = format!("it lasts until {until:?}");
            let violation = Violation::new("nothing ends early", what);
            let calls = hold.shown.iter().filter_map(|it| case.history.calls.get(it.3));
            let violation = calls.fold(violation.told(hold.granted), Violation::call);
            Err(violation.told(end))
        }
        false => Ok(()),
    }
}

/// The call by which a hold was asked for.
fn asked<'c>(case: &'c Case, hold: &Hold) -> Option<(&'c Call, &'c AcquireRequest)> {
    case.history.calls.iter().find_map(|call| match &call.request {
        Request::Do(Op::Acquire(r)) if r.owner == hold.lock.owner && r.name == hold.lock.name => {
            Some((call, r))
        }
        _ => None,
    })
}

/// The locks that an answer shows.
fn locks_in(answer: &Answer) -> Vec<&Lock> {
    let lock = match answer {
        Answer::Acquire(a) => match &a.outcome {
            Some(Acquired::Lock(lock) | Acquired::Holder(lock)) => Some(lock),
            None => None,
        },
        Answer::Renew(a) => a.lock.as_ref(),
        Answer::UpdateValue(a) => a.lock.as_ref(),
        Answer::GetLock(a) => a.lock.as_ref(),
        _ => None,
    };
    lock.into_iter().collect()
}
