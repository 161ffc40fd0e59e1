//! The log of a run: revisions without gaps, each a step from the state before to the one after.

use std::collections::BTreeMap;

use holdfast_proto::v1::*;

use super::Violation;
use crate::{
    history::{Border, History, Request},
    model::Entries,
};

/// What the log says of all revisions and states.
pub struct Log<'a> {
    base: u64,
    pub last: u64,
    /// What there is between revisions that follow each other although they are not neighbours.
    borders: &'a [Border],
    revisions: BTreeMap<u64, Revision<'a>>,
    /// What each key was, by the revisions that changed it.
    versions: BTreeMap<String, Vec<(u64, Option<Entry>)>>,
    /// The revisions of clears.
    pub clears: Vec<u64>,
    /// Up to where retention may have had it forgotten, by what was set.
    pub trimmed: u64,
}

/// Younger events are kept, unless there are too many bytes of them.
const KEPT_MS: i64 = 30_000;

/// Twice the smallest bound that is set.
const KEPT_BYTES: usize = 2 << 20;

/// One revision.
#[derive(Default)]
pub struct Revision<'a> {
    pub time_ms: i64,
    pub events: Vec<&'a Event>,
    pub locks: Vec<&'a LockEvent>,
}

impl<'a> Log<'a> {
    /// Reads the log, and checks that each event follows from the state before.
    pub fn read(history: &'a History) -> Result<Self, Violation> {
        let mut log = Log {
            base: history.base,
            last: history.last,
            borders: &history.borders,
            revisions: BTreeMap::new(),
            versions: BTreeMap::new(),
            clears: Vec::new(),
            trimmed: trimmed(history),
        };
        log.collect(history)?;
        log.check_revisions()?;
        let mut state = Entries::new();
        for entry in &history.initial {
            let versions = log.versions.entry(entry.key.clone()).or_default();
            versions.push((history.base, Some(entry.clone())));
            state.insert(entry.key.clone(), entry.clone());
        }
        let changes: Vec<&Event> =
            log.revisions.values().flat_map(|it| it.events.clone()).collect();
        for event in changes {
            log.step(&mut state, event)?;
        }
        Ok(log)
    }

    /// One revision; none for that which the run began with.
    pub fn revision(&self, revision: u64) -> Option<&Revision<'a>> {
        self.revisions.get(&revision)
    }

    pub fn revisions(&self) -> impl Iterator<Item = (u64, &Revision<'a>)> {
        self.revisions.iter().map(|(&revision, it)| (revision, it))
    }

    /// The events of a range of revisions, both ends inside.
    pub fn events(&self, from: u64, to: u64) -> impl Iterator<Item = &'a Event> {
        let revisions =
            self.revisions.range(from..).take_while(move |(revision, _)| **revision <= to);
        revisions.flat_map(|(_, it)| it.events.iter().copied())
    }

    /// When the state of a revision began; that of the beginning is long ago.
    pub fn time_of(&self, revision: u64) -> i64 {
        self.revisions.range(..=revision).next_back().map_or(0, |(_, it)| it.time_ms)
    }

    /// When the state of a revision ended, if it did.
    pub fn end_of(&self, revision: u64) -> Option<i64> {
        self.revisions.range(revision + 1..).next().map(|(_, it)| it.time_ms)
    }

    /// The revisions from one to another, both ends inside, as far as there are any.
    pub fn revisions_from(&self, from: u64, to: u64) -> impl Iterator<Item = u64> {
        let later = self.revisions.range(from + 1..).map(|(&revision, _)| revision);
        std::iter::once(from).chain(later).take_while(move |revision| *revision <= to)
    }

    /// What there was at a revision, due entries included.
    pub fn state_at(&self, revision: u64) -> Entries {
        let at = |versions: &Vec<(u64, Option<Entry>)>| {
            let after = versions.partition_point(|(changed, _)| *changed <= revision);
            versions[..after].last().and_then(|(_, entry)| entry.clone())
        };
        let entries = self.versions.iter().filter_map(|(key, it)| Some((key.clone(), at(it)?)));
        entries.collect()
    }

    fn collect(&mut self, history: &'a History) -> Result<(), Violation> {
        let promise = "the log is in order, each key once in a revision";
        let mut former = 0;
        for event in &history.log {
            let revision = self.at(event.revision, event.time_ms).map_err(|it| it.event(event))?;
            if event.revision < former || revision.events.iter().any(|it| it.key == event.key) {
                return Err(
                    Violation::new(promise, "an event comes twice, or too late").event(event)
                );
            }
            former = event.revision;
            revision.events.push(event);
        }
        let mut former = 0;
        for event in &history.lock_log {
            let revision = self.at(event.revision, event.time_ms).map_err(|it| it.told(event))?;
            if event.revision < former || revision.locks.iter().any(|it| it.name == event.name) {
                return Err(
                    Violation::new(promise, "an event comes twice, or too late").told(event)
                );
            }
            former = event.revision;
            revision.locks.push(event);
        }
        Ok(())
    }

    fn at(&mut self, revision: u64, time_ms: i64) -> Result<&mut Revision<'a>, Violation> {
        let entry = self.revisions.entry(revision);
        let found = entry.or_insert_with(|| Revision { time_ms, ..Revision::default() });
        match found.time_ms == time_ms {
            true => Ok(found),
            false => Err(Violation::new("a revision has one time", format!("not so {revision}"))),
        }
    }

    fn check_revisions(&self) -> Result<(), Violation> {
        let mut former = (self.resumed_from(self.base), 0);
        for (&revision, it) in &self.revisions {
            if revision != former.0 + 1 {
                let what =
                    format!("after {} comes {revision}: one was lost, or never was", former.0);
                let violation = Violation::new("revisions rise by one, without gaps", what);
                return Err(violation.with_log(self, &[], former.0, revision));
            }
            if it.time_ms < former.1 {
                let what =
                    format!("{revision} is of {}, the one before of {}", it.time_ms, former.1);
                return Err(Violation::new("time never goes back", what));
            }
            former = (self.resumed_from(revision), it.time_ms);
        }
        if former.0 != self.last {
            let what = format!("the last that was told of is {}, not {}", former.0, self.last);
            return Err(Violation::new("every revision is told", what));
        }
        Ok(())
    }

    /// Where it goes on after a revision: there, or beyond what may have been lost after it.
    fn resumed_from(&self, revision: u64) -> u64 {
        let borders = self.borders.iter();
        borders.fold(revision, |at, border| if at == border.through { border.resumed } else { at })
    }

    /// From the state before an event to the one after.
    fn step(&mut self, state: &mut Entries, event: &Event) -> Result<(), Violation> {
        if event.r#type() == EventType::Clear {
            self.clears.push(event.revision);
            for key in std::mem::take(state).into_keys() {
                self.versions.entry(key).or_default().push((event.revision, None));
            }
            return Ok(());
        }
        let before = state.get(&event.key).cloned();
        let fail = |promise, what: &str| {
            let story = Violation::new(promise, what).told(("before", &before)).event(event);
            Err(story.with_log(
                self,
                &[&event.key],
                event.revision.saturating_sub(50),
                event.revision - 1,
            ))
        };
        let is_bare = event.r#type() == EventType::TtlChanged;
        let shown = |entry: &Option<Entry>| {
            entry.clone().map(|entry| Entry { value: entry.value.filter(|_| !is_bare), ..entry })
        };
        if event.previous != shown(&before) {
            return fail("the previous value is the one before", "it is another one");
        }
        if let Err(what) = fits(before.as_ref(), event) {
            return fail("an event is a step from the state before", what);
        }
        let mut after = event.entry.clone();
        if is_bare && let Some(entry) = &mut after {
            entry.value = before.and_then(|before| before.value);
        }
        self.versions.entry(event.key.clone()).or_default().push((event.revision, after.clone()));
        match after {
            Some(entry) => state.insert(event.key.clone(), entry),
            None => state.remove(&event.key),
        };
        Ok(())
    }
}

/// The newest revision that may have been trimmed by the end, if any bound was set.
fn trimmed(history: &History) -> u64 {
    let is_bounded = history.calls.iter().any(|call| match &call.request {
        Request::Update(it) => {
            it.log_max_events.is_some() || it.log_max_age_ms.is_some() || it.log_max_bytes.is_some()
        }
        _ => false,
    });
    let mut bytes = 0;
    let mut newest_first = history.log.iter().rev();
    let trimmed = newest_first.find(|event| {
        // At least what it counts.
        let entries = [&event.entry, &event.previous].into_iter().flatten();
        let values =
            entries.map(|entry| entry.key.len() + entry.value.as_ref().map_or(0, |it| it.len()));
        bytes += 128 + event.key.len() + values.sum::<usize>();
        event.time_ms + KEPT_MS <= history.end_ms || bytes > KEPT_BYTES
    });
    trimmed.filter(|_| is_bounded).map_or(0, |event| event.revision)
}

/// Whether an event can come after what there was; why not.
fn fits(before: Option<&Entry>, event: &Event) -> Result<(), &'static str> {
    match (event.r#type(), &event.entry) {
        (EventType::Set | EventType::TtlChanged, Some(entry)) => {
            if entry.mod_revision != event.revision || entry.updated_at_ms != event.time_ms {
                return Err("its entry is of another revision or time");
            }
            fits_entry(before, event, entry)
        }
        (EventType::Delete, None) => {
            let before = before.ok_or("what was not there is deleted")?;
            match event.reason() {
                RemovalReason::Deleted => Ok(()),
                RemovalReason::Revoked if before.lease_id.is_some() => Ok(()),
                _ => Err("the reason is not one of a deletion, or that of a lease it did not have"),
            }
        }
        (EventType::Expire, None) => {
            let before = before.ok_or("what was not there expires")?;
            match (event.reason(), before.expires_at_ms, before.lease_id) {
                (RemovalReason::Ttl, Some(deadline), None) if deadline <= event.time_ms => Ok(()),
                (RemovalReason::Ttl, Some(_), None) => Err("it expires early"),
                (RemovalReason::Lease, None, Some(_)) => Ok(()),
                _ => Err("it has another end, or none"),
            }
        }
        _ => Err("it has an entry after its removal, or none after a change"),
    }
}

fn fits_entry(before: Option<&Entry>, event: &Event, entry: &Entry) -> Result<(), &'static str> {
    let is_anew = entry.version == 1
        && (entry.create_revision, entry.created_at_ms) == (event.revision, event.time_ms);
    let goes_on = before.is_some_and(|before| {
        (entry.version, entry.create_revision, entry.created_at_ms)
            == (before.version + 1, before.create_revision, before.created_at_ms)
    });
    match (event.r#type(), before) {
        (EventType::Set, _) if is_anew || goes_on => Ok(()),
        (EventType::TtlChanged, Some(before))
            if goes_on && entry.content_type == before.content_type =>
        {
            Ok(())
        }
        _ => Err("it is neither created by it nor one version more"),
    }
}
