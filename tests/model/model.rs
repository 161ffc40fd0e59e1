//! What a namespace is: the definition of the semantics, as plainly as it can be said.
//!
//! State is a map of entries; what each revision held is a copy of that map; the log is a list. A call at
//! a time is a function of these. Expiry is told to the model as it happens, and must then be due.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_proto::v1::{
    compare::Operand, condition::Kind as If, get_ttl_response::Ttl,
    pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;

use crate::draft::{Draft, present, select};

/// Entries by key.
pub type Entries = BTreeMap<String, Entry>;

/// Why a call fails; with what stands there if its condition failed.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    Reason(ErrorReason),
    Condition(Box<ConditionNotMet>),
}

/// One namespace.
#[derive(Debug, Clone, Default)]
pub struct Model {
    pub settings: NamespaceSettings,
    pub revision: u64,
    /// The last revision whose events are forgotten.
    pub compacted: u64,
    /// The first revision that can be read at: a clear forgets states, but no events.
    pub oldest: u64,
    /// What there is, due entries included until they are removed.
    pub entries: Entries,
    /// What each held revision held.
    pub past: BTreeMap<u64, Entries>,
    /// All changes, those too that are forgotten.
    pub log: Vec<Event>,
    /// All leases, those too that have ended.
    pub leases: BTreeMap<u64, Lease>,
    /// The revisions in which the keys of leases expired.
    pub ended: BTreeMap<u64, u64>,
    /// The locks that are held, each with what it was asked for with. None is held so briefly that it expires.
    pub locks: BTreeMap<String, (Lock, Bytes)>,
}

impl Model {
    /// A namespace that was just made.
    pub fn new(revision: u64, compacted: u64) -> Self {
        Model {
            revision,
            compacted,
            oldest: revision,
            past: BTreeMap::from([(revision, Entries::new())]),
            ..Model::default()
        }
    }

    /// What a call answers at this time.
    pub fn call(&mut self, call: &Op, time_ms: i64) -> Result<Answer, Refusal> {
        match call {
            Op::Get(r) if r.touch.is_some() => self
                .write(time_ms, |draft| {
                    draft.set_ttl(&r.key, r.touch.as_ref())?;
                    Ok(draft.entries.get(&r.key).cloned())
                })
                .map(|(revision, entry)| Answer::Get(GetResponse { revision, time_ms, entry })),
            Op::Set(r) => self.set(r, time_ms),
            Op::Delete(r) => self.delete(r, time_ms),
            Op::SetTtl(r) => {
                let (revision, found) =
                    self.write(time_ms, |draft| draft.set_ttl(&r.key, r.expiry.as_ref()))?;
                Ok(Answer::SetTtl(SetTtlResponse { revision, time_ms, found }))
            }
            Op::Increment(r) => {
                let (revision, value) = self.write(time_ms, |draft| {
                    draft.increment(&r.key, r.delta, r.initial, r.expiry.as_ref())
                })?;
                Ok(Answer::Increment(IncrementResponse { revision, time_ms, value }))
            }
            Op::DeleteRange(r) => {
                let (revision, (deleted, more)) = self
                    .write(time_ms, |draft| Ok(draft.delete_range(r.selector.as_ref(), r.limit)))?;
                Ok(Answer::DeleteRange(DeleteRangeResponse { revision, time_ms, deleted, more }))
            }
            Op::BatchSet(r) => {
                let (revision, entries) = self.write(time_ms, |draft| {
                    let items = r.items.iter();
                    items
                        .map(|i| draft.set(&i.key, &i.value, &i.content_type, i.expiry.as_ref()))
                        .collect()
                })?;
                Ok(Answer::BatchSet(BatchSetResponse { revision, time_ms, entries }))
            }
            Op::BatchDelete(r) => {
                let (revision, deleted) = self.write(time_ms, |draft| {
                    Ok(r.keys.iter().map(|key| draft.entries.remove(key).is_some()).collect())
                })?;
                Ok(Answer::BatchDelete(BatchDeleteResponse { revision, time_ms, deleted }))
            }
            Op::Transact(r) => self.transact(r, time_ms),
            Op::Grant(_) | Op::KeepAlive(_) | Op::Revoke(_) | Op::GetLease(_) => {
                self.call_on_lease(call, time_ms)
            }
            Op::Acquire(_)
            | Op::Renew(_)
            | Op::Release(_)
            | Op::UpdateValue(_)
            | Op::BreakLock(_)
            | Op::GetLock(_) => self.call_on_lock(call, time_ms),
            _ => self.read(call, time_ms),
        }
    }

    /// Removes all keys; how many.
    pub fn clear(&mut self, time_ms: i64) -> u64 {
        let cleared = self.entries.len() as u64;
        if cleared > 0 {
            self.entries.clear();
            self.revision += 1;
            self.oldest = self.revision;
            self.past = BTreeMap::from([(self.revision, Entries::new())]);
            self.log.push(Event {
                r#type: EventType::Clear.into(),
                revision: self.revision,
                time_ms,
                reason: RemovalReason::Deleted.into(),
                ..Event::default()
            });
        }
        cleared
    }

    /// Forgets the past up to a revision.
    pub fn compact(&mut self, through: u64) {
        self.compacted = through;
        self.oldest = self.oldest.max(through);
        self.past.retain(|revision, _| *revision >= through);
    }

    /// The removal of a key whose time has come; `None` if it is not there or not due, or not removed with the
    /// other keys of its lease.
    pub fn expire(&mut self, key: &str, revision: u64, time_ms: i64) -> Option<Event> {
        let entry = self.entries.get(key).filter(|entry| self.is_due(entry, time_ms))?;
        let reason = match entry.lease_id {
            None => RemovalReason::Ttl,
            Some(_) => RemovalReason::Lease,
        };
        let together = match entry.lease_id {
            None => revision,
            Some(lease) => *self.ended.entry(lease).or_insert(revision),
        };
        let follows = [self.revision, self.revision + 1].contains(&revision);
        if together != revision || !follows {
            return None;
        }
        let event = Event {
            r#type: EventType::Expire.into(),
            revision,
            time_ms,
            key: key.to_owned(),
            entry: None,
            previous: self.entries.remove(key),
            reason: reason.into(),
        };
        self.revision = revision;
        self.past.insert(revision, self.entries.clone());
        self.log.push(event.clone());
        Some(event)
    }

    /// The keys that wait for their removal.
    pub fn due(&self, time_ms: i64) -> usize {
        self.entries.values().filter(|entry| self.is_due(entry, time_ms)).count()
    }

    /// What reads see.
    pub fn live(&self, time_ms: i64) -> Entries {
        let live = self.entries.iter().filter(|(_, entry)| !self.is_due(entry, time_ms));
        live.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }

    /// When an entry ends, by itself or with its lease.
    pub fn deadline(&self, entry: &Entry) -> Option<i64> {
        match entry.lease_id {
            None => entry.expires_at_ms,
            Some(lease) => Some(self.leases[&lease].expires_at_ms),
        }
    }

    fn is_due(&self, entry: &Entry, time_ms: i64) -> bool {
        self.deadline(entry).is_some_and(|deadline| deadline <= time_ms)
    }

    fn read(&self, call: &Op, time_ms: i64) -> Result<Answer, Refusal> {
        let revision = self.revision;
        let live = self.live(time_ms);
        Ok(match call {
            Op::Get(r) => {
                let (revision, entries) = self.at(r.at_revision, time_ms)?;
                let entry = entries.get(&r.key).cloned();
                Answer::Get(GetResponse { revision, time_ms, entry })
            }
            Op::Exists(r) => {
                let exists = live.contains_key(&r.key);
                Answer::Exists(ExistsResponse { revision, time_ms, exists })
            }
            Op::GetTtl(r) => {
                let ttl = Some(match live.get(&r.key).map(|entry| self.deadline(entry)) {
                    None => Ttl::Missing(get_ttl_response::Missing {}),
                    Some(None) => Ttl::Never(get_ttl_response::Never {}),
                    Some(Some(end)) => Ttl::RemainingMs((end - time_ms).unsigned_abs()),
                });
                Answer::GetTtl(GetTtlResponse { revision, time_ms, ttl })
            }
            Op::List(r) => {
                let (revision, entries) = self.at(r.at_revision, time_ms)?;
                let mut entries = select(&entries, r.selector.as_ref());
                entries.retain(|entry| entry.mod_revision >= r.min_mod_revision);
                present(&mut entries, r.reverse, r.keys_only);
                Answer::List(ListResponse { revision, time_ms, entries, ..Default::default() })
            }
            Op::Count(r) => {
                let count = select(&live, r.selector.as_ref()).len() as u64;
                Answer::Count(CountResponse { revision, time_ms, count })
            }
            Op::History(r) => {
                let events = self.history(&r.key);
                Answer::History(HistoryResponse { revision, time_ms, events, more: false })
            }
            Op::BatchGet(r) => {
                let (revision, entries) = self.at(r.at_revision, time_ms)?;
                let mut slots = Vec::new();
                for key in &r.keys {
                    let mut entry = entries.get(key).cloned();
                    if let Some(entry) = entry.as_mut().filter(|_| r.keys_only) {
                        entry.value = None;
                    }
                    slots.push(batch_get_response::Slot { entry });
                }
                Answer::BatchGet(BatchGetResponse {
                    revision,
                    time_ms,
                    slots,
                    ..Default::default()
                })
            }
            other => unreachable!("a write: {other:?}"),
        })
    }

    /// The changes of a key that are held, newest first: those that the log holds, and the one before them that
    /// made what the oldest revision held.
    fn history(&self, key: &str) -> Vec<Event> {
        let mut held = Vec::new();
        for event in self.log.iter().rev() {
            if event.r#type() == EventType::Clear {
                break;
            }
            if event.key != key {
                continue;
            }
            let forgotten = event.revision <= self.compacted;
            if !forgotten || event.entry.is_some() {
                let previous = None;
                held.push(Event { previous, ..event.clone() });
            }
            if forgotten {
                break;
            }
        }
        held
    }

    /// What there is now, or what a revision held: that without regard to the clock.
    fn at(&self, revision: Option<u64>, time_ms: i64) -> Result<(u64, Entries), Refusal> {
        match revision {
            None => Ok((self.revision, self.live(time_ms))),
            Some(at) if at > self.revision => Err(Refusal::Reason(ErrorReason::FutureRevision)),
            Some(at) if at < self.oldest => Err(Refusal::Reason(ErrorReason::Compacted)),
            Some(at) => Ok((at, self.past[&at].clone())),
        }
    }

    /// A write: all or nothing, one revision if anything changed; the revision and the result.
    pub fn write<T>(
        &mut self,
        time_ms: i64,
        work: impl Fn(&mut Draft) -> Result<T, Refusal>,
    ) -> Result<(u64, T), Refusal> {
        let before = self.live(time_ms);
        let leases = self.live_leases(time_ms);
        let draft_at = |revision| Draft {
            revision,
            time_ms,
            default_ttl_ms: self.settings.default_ttl_ms,
            leases: leases.clone(),
            entries: before.clone(),
            written: BTreeSet::new(),
        };
        let mut draft = draft_at(self.revision + 1);
        let result = work(&mut draft)?;
        let events = draft.events(&before);
        if events.is_empty() {
            // What was written and taken back is shown at the revision that there is.
            let result = work(&mut draft_at(self.revision))?;
            return Ok((self.revision, result));
        }
        let (keys, was) = (draft.entries.len() as u64, before.len() as u64);
        if keys > was && self.settings.quota_max_keys.is_some_and(|quota| keys > quota) {
            return Err(Refusal::Reason(ErrorReason::QuotaExceeded));
        }
        self.revision = draft.revision;
        for event in events {
            match &event.entry {
                Some(entry) => self.entries.insert(event.key.clone(), entry.clone()),
                None => self.entries.remove(&event.key),
            };
            self.log.push(event);
        }
        self.past.insert(self.revision, self.entries.clone());
        Ok((self.revision, result))
    }

    /// Whether a condition on a key holds.
    fn check(&self, key: &str, condition: Option<&Condition>, time_ms: i64) -> Result<(), Refusal> {
        let current = self.live(time_ms).remove(key);
        let holds = match condition.and_then(|condition| condition.kind) {
            None => true,
            Some(If::Absent(_)) => current.is_none(),
            Some(If::Present(_)) => current.is_some(),
            Some(If::ModRevision(wanted)) => {
                current.as_ref().is_some_and(|entry| entry.mod_revision == wanted)
            }
        };
        if holds {
            return Ok(());
        }
        let current = current.map(|entry| Entry { value: None, ..entry });
        let revision = self.revision;
        Err(Refusal::Condition(Box::new(ConditionNotMet { current, revision })))
    }

    fn set(&mut self, r: &SetRequest, time_ms: i64) -> Result<Answer, Refusal> {
        self.check(&r.key, r.condition.as_ref(), time_ms)?;
        let previous = self.live(time_ms).remove(&r.key);
        let (revision, entry) = self.write(time_ms, |draft| {
            draft.set(&r.key, &r.value, &r.content_type, r.expiry.as_ref())
        })?;
        Ok(Answer::Set(SetResponse {
            revision,
            time_ms,
            created: previous.is_none(),
            entry: Some(entry),
            previous: previous.filter(|_| r.return_previous),
        }))
    }

    fn delete(&mut self, r: &DeleteRequest, time_ms: i64) -> Result<Answer, Refusal> {
        self.check(&r.key, r.condition.as_ref(), time_ms)?;
        let (revision, removed) = self.write(time_ms, |draft| Ok(draft.entries.remove(&r.key)))?;
        Ok(Answer::Delete(DeleteResponse {
            revision,
            time_ms,
            deleted: removed.is_some(),
            previous: removed.filter(|_| r.return_previous),
        }))
    }

    fn transact(&mut self, r: &TransactRequest, time_ms: i64) -> Result<Answer, Refusal> {
        let live = self.live(time_ms);
        let mut failed_compares = Vec::new();
        for (index, compare) in (0..).zip(&r.compares) {
            let token = self.locks.get(&compare.key).map(|(lock, _)| lock.token);
            if !holds(compare, live.get(&compare.key), token) {
                failed_compares.push(index);
            }
        }
        let succeeded = failed_compares.is_empty();
        let branch = if succeeded { &r.then } else { &r.otherwise };
        let (revision, results) = self.write(time_ms, |draft| {
            let results = branch.iter().map(|operation| draft.run(operation));
            results.collect::<Result<Vec<_>, _>>()
        })?;
        Ok(Answer::Transact(TransactResponse {
            revision,
            time_ms,
            succeeded,
            failed_compares,
            results,
        }))
    }
}

/// Whether a compare holds of the entry, or of the token of the lock, that has its key.
fn holds(compare: &Compare, entry: Option<&Entry>, token: Option<u64>) -> bool {
    use std::cmp::Ordering::{Equal, Greater, Less};
    let comparison = compare.comparison();
    let order = match (compare.operand.as_ref().expect("a compare has an operand"), entry) {
        (Operand::Exists(wanted), entry) => {
            return (entry.is_some() == *wanted) == (comparison == Comparison::Equal);
        }
        (Operand::LockToken(wanted), _) => match token {
            None => return comparison == Comparison::NotEqual,
            Some(token) => token.cmp(wanted),
        },
        (_, None) => return comparison == Comparison::NotEqual,
        (Operand::LeaseId(wanted), Some(entry)) => entry.lease_id.unwrap_or(0).cmp(wanted),
        (Operand::Version(wanted), Some(entry)) => entry.version.cmp(wanted),
        (Operand::CreateRevision(wanted), Some(entry)) => entry.create_revision.cmp(wanted),
        (Operand::ModRevision(wanted), Some(entry)) => entry.mod_revision.cmp(wanted),
        (Operand::Value(wanted), Some(entry)) => entry.value.as_ref().cmp(&Some(wanted)),
    };
    match comparison {
        Comparison::Equal => order == Equal,
        Comparison::NotEqual => order != Equal,
        Comparison::Less => order == Less,
        Comparison::Greater => order == Greater,
        Comparison::Unspecified => unreachable!("not generated"),
    }
}
