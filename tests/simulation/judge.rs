//! Whether what was said agrees with what happened.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_server::{
    backend::{ChangeKind, Deadline, Entry, Key, LoggedChange, Removal},
    store::keys,
};

use crate::{
    call::{Call, Effect, Expected, Op, Outcome, Said},
    holder::Granted,
    truth::{State, Step, Truth},
    watcher::Told,
};

/// Judges one schedule.
pub struct Judge<'a> {
    pub truth: &'a Truth,
    /// Whether no call had a reason to fail.
    pub is_calm: bool,
}

type Verdict = Result<(), String>;

impl Judge<'_> {
    /// Whether every call was answered rightly, and everything that was done was asked for.
    pub fn calls(&self, calls: &[Call]) -> Verdict {
        let mut made = BTreeMap::new();
        for call in calls {
            let revision = self
                .call(call)
                .map_err(|problem| format!("c{}: {problem}\n  {call:?}", call.client))?;
            if let Some(revision) = revision
                && let Some(other) = made.insert(revision, call)
            {
                return Err(format!("revision {revision} was made twice\n  {call:?}\n  {other:?}"));
            }
        }
        let mut open: Vec<_> =
            calls.iter().filter(|call| matches!(call.outcome, Outcome::Unknown)).collect();
        for (revision, step) in self.truth.steps() {
            self.step(revision, step)?;
            let asked = |kind| {
                matches!(
                    kind,
                    ChangeKind::Set
                        | ChangeKind::TtlChanged
                        | ChangeKind::Removed(Removal::Deleted)
                        | ChangeKind::Clear
                )
            };
            let is_asked = of_users(step).any(|logged| asked(logged.change.kind));
            if !is_asked || made.contains_key(&revision) {
                continue;
            }
            let maker = open.iter().position(|call| {
                call.sent.0 < revision && self.made(call, revision, step).is_some()
            });
            let Some(maker) = maker else {
                return Err(format!("nobody asked for revision {revision}: {:?}", shown(step)));
            };
            open.remove(maker);
        }
        Ok(())
    }

    /// Whether one call was answered rightly; the revision it made, if it made one.
    fn call(&self, call: &Call) -> Result<Option<u64>, String> {
        match &call.outcome {
            Outcome::Unknown if self.is_calm => Err("no answer, though nothing failed".into()),
            Outcome::Unknown => Ok(None),
            Outcome::Failed(error) => match self.may_fail(call, error) {
                true => Ok(None),
                false => Err("failed, though nothing else did".into()),
            },
            Outcome::Refused { revision, said } => {
                self.in_order(call, *revision, None)?;
                self.refused(call, *revision, said).map(|()| None)
            }
            Outcome::Done { revision, time_ms, said } => {
                let is_past = matches!(call.op, Op::Get { at: Some(_), .. });
                self.in_order(call, if is_past { call.sent.0 } else { *revision }, Some(*time_ms))?;
                if call.op.work().is_none() {
                    return self.read(call, *revision, *time_ms, said).map(|()| None);
                }
                self.written(call, *revision, *time_ms, said)
            }
        }
    }

    fn may_fail(&self, call: &Call, error: &str) -> bool {
        let is_read = call.op.work().is_none();
        !self.is_calm || (is_read && error.contains("Compacted"))
    }

    /// Real time: an answer is of a moment between question and answer.
    fn in_order(&self, call: &Call, revision: u64, time_ms: Option<i64>) -> Verdict {
        let end = call.ended.0.unwrap_or(u64::MAX);
        if revision < call.sent.0 || revision > end {
            return Err(format!("{revision} is not within {} and {end}", call.sent.0));
        }
        match time_ms {
            Some(at_ms) if at_ms < call.sent.1 || at_ms > call.ended.1 => {
                Err(format!("{at_ms} is not within {} and {}", call.sent.1, call.ended.1))
            }
            _ => Ok(()),
        }
    }

    fn read(&self, call: &Call, revision: u64, time_ms: i64, said: &Said) -> Verdict {
        let state = self.truth.state(revision);
        let live = match call.op {
            Op::Get { at: Some(_), .. } => state,
            _ => self.truth.live(&state, time_ms),
        };
        let with = |prefix: &str| {
            let prefix = prefix.as_bytes().to_vec();
            live.iter().filter(move |(key, _)| key.as_bytes().starts_with(&prefix))
        };
        let expected = match &call.op {
            Op::Get { keys, .. } => {
                Said::entries(keys.iter().filter_map(|key| live.get_key_value(key)))
            }
            Op::List { prefix } => Said::entries(with(prefix)),
            Op::Count { prefix } => Said::Count(with(prefix).count() as u64),
            other => unreachable!("a write: {other:?}"),
        };
        match expected == *said {
            true => Ok(()),
            false => Err(format!("a read should say {expected:?}")),
        }
    }

    fn written(
        &self,
        call: &Call,
        revision: u64,
        time_ms: i64,
        said: &Said,
    ) -> Result<Option<u64>, String> {
        for guard in &call.guards {
            self.is_held(&guard.lock, guard.token.0, revision, time_ms)?;
        }
        if matches!(call.op, Op::Revoke { .. }) {
            return Ok(None);
        }
        if let Some(step) = self.truth.step(revision)
            && step.time_ms == time_ms
            && revision > call.sent.0
            && let Some(made) = self.made(call, revision, step)
            && made == *said
        {
            return Ok(Some(revision));
        }
        let state = self.truth.state(revision);
        let mut should = Vec::new();
        for if_unsure in [true, false] {
            let (expected, changes) = self.expected(call, (&state, revision), time_ms, if_unsure);
            if !changes && expected == *said {
                return Ok(None);
            }
            should.push((expected, changes));
        }
        let did = self.truth.step(revision).map(shown);
        Err(format!("a write should say, and whether it changes anything: {should:?}; did {did:?}"))
    }

    /// What a call should say if it made this revision; nothing if it did not.
    fn made(&self, call: &Call, revision: u64, step: &Step) -> Option<Said> {
        let before = self.truth.state(revision - 1);
        if matches!(call.op, Op::Clear) {
            let is_clear = of_users(step).all(|logged| logged.change.kind == ChangeKind::Clear);
            return is_clear.then_some(Said::Cleared(before.len() as u64));
        }
        if matches!(call.op, Op::Revoke { .. }) || call.op.work().is_none() {
            return None;
        }
        [true, false].into_iter().find_map(|if_unsure| {
            let over = (&before, revision);
            let (said, effects) = Expected::of(self.truth, &call.op, over, step.time_ms, if_unsure);
            (!effects.is_empty() && is_same(&effects, step)).then_some(said)
        })
    }

    fn expected(
        &self,
        call: &Call,
        over: (&State, u64),
        time_ms: i64,
        if_unsure: bool,
    ) -> (Said, bool) {
        if matches!(call.op, Op::Clear) {
            let live = self.truth.live(over.0, time_ms);
            return (Said::Cleared(live.len() as u64), !over.0.is_empty());
        }
        let (said, effects) = Expected::of(self.truth, &call.op, over, time_ms, if_unsure);
        (said, !effects.is_empty())
    }

    /// Of a refusal the time is not told: it was right at some moment of the call.
    fn refused(&self, call: &Call, revision: u64, said: &Said) -> Verdict {
        if *said == Said::Other("lock lost") {
            return Ok(());
        }
        let state = self.truth.state(revision);
        let window = call.sent.1..=call.ended.1;
        let ends = state.values().filter_map(|entry| match &entry.deadline {
            Deadline::Of(lease) => {
                self.truth.kept(lease).iter().filter_map(|kept| own_end(kept.entry.as_ref())).max()
            }
            own => self.truth.ends_ms(own, call.ended.1),
        });
        let leases = self.truth.kept_keys().flat_map(|key| self.truth.kept(key));
        let moments = leases.flat_map(|kept| {
            [Some(kept.time_ms), own_end(kept.entry.as_ref())].into_iter().flatten()
        });
        let mut times: BTreeSet<_> = ends.chain(moments).filter(|at| window.contains(at)).collect();
        times.extend([call.sent.1, call.ended.1]);
        for time_ms in times {
            for if_unsure in [true, false] {
                let over = (&state, revision);
                if self.expected(call, over, time_ms, if_unsure).0 == *said {
                    return Ok(());
                }
            }
        }
        Err(format!("refused wrongly over {:?}", state.keys()))
    }

    /// Whether what a revision did is right in itself.
    fn step(&self, revision: u64, step: &Step) -> Verdict {
        let before = self.truth.state(revision - 1);
        let mut seen = BTreeSet::new();
        for logged in of_users(step) {
            let LoggedChange { change, previous } = logged;
            let fail = |what: &str| {
                let change = (&change.key, change.kind, step.time_ms);
                Err(format!("revision {revision}: {what}: {change:?}"))
            };
            if !seen.insert(change.key.clone()) {
                return fail("two events of one key");
            }
            if change.kind == ChangeKind::Clear {
                continue;
            }
            let was = before.get(&change.key);
            if !same(was, previous.as_ref().map(|previous| &**previous)) {
                return fail("another previous entry than there was");
            }
            let ends_ms = was.and_then(|was| self.truth.ends_ms(&was.deadline, step.time_ms));
            match change.kind {
                ChangeKind::Removed(Removal::Ttl | Removal::Lease)
                    if ends_ms.is_none_or(|ends_ms| ends_ms > step.time_ms) =>
                {
                    return fail("expired, but was not due");
                }
                ChangeKind::Removed(Removal::Ttl | Removal::Lease) => {}
                _ if ends_ms.is_some_and(|ends_ms| ends_ms <= step.time_ms) => {
                    return fail("changed after its deadline");
                }
                ChangeKind::Removed(_) if was.is_none() => {
                    return fail("removed, but was not there");
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Whether every watch was told everything once, in order.
    pub fn told(&self, told: &Told) -> Verdict {
        let fail = |what: String| {
            let Told { watcher, from, through, .. } = told;
            Err(format!("watch {watcher} after {from} through {through}: {what}"))
        };
        if told.is_now && !(told.asked.0..=told.asked.1).contains(&told.from) {
            return fail(format!("begins outside of {:?}", told.asked));
        }
        let selects = |key: &Key| key.as_bytes().starts_with(told.prefix.as_bytes());
        if let Some((time_ms, entries, true)) = &told.initial {
            let live = self.truth.live(&self.truth.state(told.from), *time_ms);
            let expected = Said::entries(live.iter().filter(|(key, _)| selects(key)));
            let said = Said::entries(entries.iter().map(|entry| (entry.key(), &**entry)));
            if expected != said {
                return fail(format!("begins with {said:?} instead of {expected:?}"));
            }
        }
        let steps =
            self.truth.steps().filter(|(at, _)| (told.from + 1..=told.through).contains(at));
        let mut expected = steps.flat_map(|(_, step)| of_users(step)).filter(|logged| {
            logged.change.kind == ChangeKind::Clear || selects(&logged.change.key)
        });
        for logged in &told.changes {
            let Some(right) = expected.next() else {
                return fail(format!("is told too much: {:?}", one(logged)));
            };
            let (was, is) = (&right.previous, &logged.previous);
            let is_same = one(right) == one(logged)
                && same(right.change.entry.as_ref(), logged.change.entry.as_ref())
                && same(was.as_ref().map(|it| &**it), is.as_ref().map(|it| &**it));
            if !is_same {
                return fail(format!("is told {:?} instead of {:?}", one(logged), one(right)));
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(right) => fail(format!("is not told {:?}", one(right))),
        }
    }

    /// Whether holds follow one another, and every grant was one.
    pub fn locks(&self, granted: &[Granted]) -> Verdict {
        for Granted { lock, token, acquire_id, time_ms } in granted {
            let id = u128::from_be_bytes(*acquire_id);
            let step = self.truth.step(*token).ok_or("a token that is no revision")?;
            let change = step.changes.iter().find(|logged| logged.change.key == *lock);
            let entry = change.and_then(|logged| logged.change.entry.as_ref());
            let record = entry.map(text).unwrap_or_default();
            let low = format!("{:012x}", id & 0xffff_ffff_ffff);
            if !record.starts_with("{\"held\"") || !record.contains(&low) || step.time_ms > *time_ms
            {
                return Err(format!("{lock:?} was not granted to {low} by {token}: {record}"));
            }
        }
        let mut last: BTreeMap<&Key, (u64, bool)> = BTreeMap::new();
        for (revision, step) in self.truth.steps() {
            for LoggedChange { change, .. } in &step.changes {
                let Some(entry) = change.entry.as_ref().filter(|_| is_lock(&change.key)) else {
                    continue;
                };
                let (record, token) = (text(entry), entry.create_revision.0);
                let is_held = record.starts_with("{\"held\"");
                let before = last.insert(&change.key, (token, is_held));
                if let Some((other, true)) = before {
                    if is_held && other != token {
                        return Err(format!("{revision}: {token} begins before {other} has ended"));
                    }
                    if !is_held {
                        self.ended(&change.key, other, revision, step.time_ms, &record)?;
                    }
                }
                if before.is_some_and(|(other, _)| token < other) {
                    return Err(format!("{revision}: the token {token} is not the greatest"));
                }
            }
        }
        Ok(())
    }

    /// A hold that has expired must have been due.
    fn ended(&self, lock: &Key, token: u64, revision: u64, time_ms: i64, record: &str) -> Verdict {
        let is_expired = ["expired", "lease_expired"].iter().any(|cause| {
            record.starts_with(&format!("{{\"free\":[{{\"token\":{token},\"cause\":\"{cause}\"}}"))
        });
        let known = self.truth.kept(lock).iter().take_while(|kept| kept.revision < revision);
        let deadline = known.last().and_then(|kept| kept.entry.as_ref()).map(|it| &it.deadline);
        let ends_ms = deadline.and_then(|deadline| self.truth.ends_ms(deadline, time_ms));
        if is_expired && ends_ms.is_none_or(|ends_ms| ends_ms > time_ms) {
            return Err(format!("{revision}: the hold {token} expired before {ends_ms:?}"));
        }
        Ok(())
    }

    /// Whether a hold was current when a revision was made.
    fn is_held(&self, lock: &Key, token: u64, revision: u64, time_ms: i64) -> Verdict {
        let until = self.truth.steps().take_while(|(at, _)| *at <= revision);
        let changes = until.flat_map(|(_, step)| &step.changes);
        let last = changes.filter(|logged| logged.change.key == *lock).last();
        let entry = last.and_then(|logged| logged.change.entry.as_ref());
        let is_current = entry
            .is_some_and(|it| it.create_revision.0 == token && text(it).starts_with("{\"held\""));
        let known = self.truth.kept(lock).iter();
        let known = known.filter(|kept| kept.time_ms <= time_ms && kept.revision <= revision);
        let ends = known.filter_map(|kept| kept.entry.as_ref());
        let ends = ends.filter(|entry| entry.create_revision.0 == token);
        let ends = ends.filter_map(|entry| self.truth.ends_ms(&entry.deadline, time_ms));
        match is_current && ends.max().is_some_and(|ends_ms| ends_ms > time_ms) {
            true => Ok(()),
            false => Err(format!("{revision}: written under {token}, which was not current")),
        }
    }
}

/// Changes of keys of users.
fn of_users(step: &Step) -> impl Iterator<Item = &LoggedChange> {
    let is_users = |logged: &&LoggedChange| {
        logged.change.kind == ChangeKind::Clear || !logged.change.key.is_internal()
    };
    step.changes.iter().filter(is_users)
}

fn is_same(effects: &BTreeMap<Key, Effect>, step: &Step) -> bool {
    of_users(step).count() == effects.len()
        && of_users(step).all(|LoggedChange { change, .. }| {
            effects.get(&change.key).is_some_and(|(kind, entry)| {
                *kind == change.kind && same(entry.as_ref(), change.entry.as_ref())
            })
        })
}

fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    let all = |entry: &Entry| {
        let Entry { value, version, create_revision, mod_revision, .. } = entry.clone();
        let times = (entry.created_at_ms, entry.updated_at_ms, entry.deadline.clone());
        (value, version, create_revision, mod_revision, times)
    };
    a.map(all) == b.map(all)
}

fn one(logged: &LoggedChange) -> (u64, Key, ChangeKind) {
    (logged.change.revision.0, logged.change.key.clone(), logged.change.kind)
}

fn shown(step: &Step) -> Vec<(u64, Key, ChangeKind, String)> {
    let shown = |logged: &LoggedChange| {
        let (revision, key, kind) = one(logged);
        let entry = logged.change.entry.as_ref();
        (revision, key, kind, entry.map(text).unwrap_or_default())
    };
    step.changes.iter().map(shown).collect()
}

fn text(entry: &Entry) -> String {
    String::from_utf8_lossy(&entry.value).into_owned()
}

fn own_end(entry: Option<&Entry>) -> Option<i64> {
    match entry?.deadline {
        Deadline::At(at_ms) => Some(at_ms),
        Deadline::Never | Deadline::Of(_) => None,
    }
}

fn is_lock(key: &Key) -> bool {
    keys::kind(key) == Some(keys::Kind::Lock)
}
