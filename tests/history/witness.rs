//! Who takes down the whole log of a namespace, of its keys or of its locks: one lineage after the other, from the first
//! revision of each on.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use holdfast_proto::v1::*;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use crate::{
    common::{build, failure::Failure, namespace::Namespace},
    history::{Epoch, Session},
    servers::{AWAY, PATIENCE},
    watching::{Observer, Told, Watched},
};

/// What those know who take down the log, for all others of a run.
#[derive(Debug)]
pub struct Witnessed {
    /// Where they are, those of keys and of locks.
    current: Mutex<[Beginning; 2]>,
    /// How far it is taken down, of keys and of locks.
    complete: [AtomicU64; 2],
    /// Nothing after it may be compacted.
    ceiling: AtomicU64,
}

/// Where a lineage begins.
#[derive(Debug, Clone, Default)]
pub struct Beginning {
    pub lineage: String,
    /// Its first revision; of one that goes on from another, that of the first that does not.
    pub base: u64,
    /// What there is then; nothing if that is not known.
    pub initial: Option<Vec<Entry>>,
    /// What it goes on from: a lineage, and up to where that was left.
    pub shared: Option<(String, u64)>,
}

/// What was taken down of one lineage.
pub struct Part<W, M> {
    pub beginning: Beginning,
    pub sessions: Vec<Session<W, M>>,
    /// Those that only told that there is another.
    pub aside: Vec<Session<W, M>>,
    /// Up to where.
    pub complete: u64,
}

/// Somebody who takes down all.
pub struct Witness {
    pub observer: Observer,
    pub namespace: String,
    pub shared: Arc<Witnessed>,
    /// Which of the two this is.
    pub index: usize,
}

/// More than any revision is.
const NEWEST: u64 = (1 << 53) - 1;

/// Why somebody no longer takes down a lineage.
enum Ended {
    /// The run is over.
    Run,
    /// There is another lineage.
    Lineage,
    /// It was not told of something for too long.
    Starved,
}

impl Witnessed {
    /// Begins at a lineage.
    pub fn new(beginning: &Beginning) -> Self {
        Witnessed {
            current: Mutex::new([beginning.clone(), beginning.clone()]),
            complete: [AtomicU64::new(0), AtomicU64::new(0)],
            ceiling: AtomicU64::new(u64::MAX),
        }
    }

    /// The lineage that was found last.
    pub fn lineage(&self) -> String {
        self.current.lock()[0].lineage.clone()
    }

    /// The revision that it began with.
    pub fn base(&self) -> u64 {
        self.current.lock()[0].base
    }

    /// The last revision that was left of the one before, if it goes on from that.
    pub fn shared(&self) -> Option<u64> {
        self.current.lock()[0].shared.as_ref().map(|(_, through)| *through)
    }

    /// Up to where both have taken down the log, and it may be compacted.
    pub fn complete(&self) -> u64 {
        let complete = self.complete.iter().map(|it| it.load(Ordering::SeqCst));
        let ceiling = self.ceiling.load(Ordering::SeqCst);
        complete.chain([ceiling]).min().unwrap_or_default()
    }

    /// From now on nothing is compacted that is not taken down yet, until this is called again with `false`: what the
    /// store comes back with may be less than what was taken down.
    pub fn hold(&self, holds: bool) {
        let ceiling = if holds { self.complete() } else { u64::MAX };
        self.ceiling.store(ceiling, Ordering::SeqCst);
    }

    /// Whether both take down this lineage, and have come to this revision of it.
    pub fn is_at(&self, lineage: &str, revision: u64) -> bool {
        let are_there = self.current.lock().iter().all(|it| it.lineage == lineage);
        let complete = self.complete.iter().map(|it| it.load(Ordering::SeqCst)).min();
        are_there && complete >= Some(revision)
    }

    fn begin(&self, index: usize, beginning: &Beginning) {
        self.current.lock()[index] = beginning.clone();
    }
}

impl Witness {
    /// Takes down one lineage after the other until the run is over.
    pub async fn run<W: Watched>(
        mut self,
        first: W,
        mut at: Beginning,
    ) -> Vec<Part<W, W::Message>> {
        let mut parts: Vec<Part<W, W::Message>> = Vec::new();
        loop {
            let (mut part, ended) = self.take_down(&first, at.clone(), parts.last()).await;
            if let Ended::Lineage = ended
                && let Some(next) = self.next(&first, &mut part).await
            {
                parts.push(part);
                at = next;
                self.shared.begin(self.index, &at);
                continue;
            }
            parts.push(part);
            return parts;
        }
    }

    async fn take_down<W: Watched>(
        &mut self,
        first: &W,
        beginning: Beginning,
        former: Option<&Part<W, W::Message>>,
    ) -> (Part<W, W::Message>, Ended) {
        // Where it goes on from another, so does who takes it down.
        let shared = beginning.shared.clone();
        let complete = match (&shared, former) {
            (Some((_, through)), Some(former)) => former.complete.min(*through),
            _ => beginning.base,
        };
        let (sessions, aside) = (Vec::new(), Vec::new());
        let mut part = Part { complete, sessions, aside, beginning };
        let mut late_at = None;
        loop {
            let lineage = part.beginning.lineage.clone();
            let is_begun = part.sessions.iter().any(|session| !session.messages.is_empty());
            let asked = match &shared {
                Some((former, _)) if !is_begun => former,
                _ => &lineage,
            };
            let request = first.resumed(part.complete, asked, false);
            let witnessed = self.shared.clone();
            let complete = &witnessed.complete[self.index];
            let session = self.observer.session(request, Some((complete, &lineage))).await;
            if session.messages.iter().any(|(_, it)| it.lineage().is_some_and(|it| it != lineage)) {
                part.aside.push(session);
                return (part, Ended::Lineage);
            }
            let told = session.messages.last().map_or(0, |(_, it)| it.complete_through());
            part.complete = part.complete.max(told);

            let reason = session.end.as_ref().map(|end| end.reason.clone()).unwrap_or_default();
            let is_empty = session.messages.is_empty();
            part.sessions.push(session);
            // What it no longer finds was trimmed before it came there, or is of another lineage.
            if ["LINEAGE_CHANGED", "COMPACTED", "FUTURE_REVISION"].contains(&reason.as_str()) {
                return (part, Ended::Lineage);
            }
            let end = self.observer.end.borrow().clone();
            if let Some(end) = end {
                if end.lineage == lineage && part.complete >= end.revision {
                    return (part, Ended::Run);
                }
                let late_at = late_at.get_or_insert_with(|| Instant::now() + PATIENCE / 3);
                if Instant::now() > *late_at {
                    part.sessions.last_mut().expect("one was pushed").starved = true;
                    return (part, Ended::Starved);
                }
            }
            if is_empty {
                // The server may be away for a while.
                sleep(AWAY).await;
            }
        }
    }

    /// Whether a namespace has another lineage now.
    async fn is_another(&mut self, lineage: &str) -> bool {
        let namespace = self.observer.namespace(&self.namespace);
        let found = namespace.call(GetNamespaceRequest::default()).await;
        let found = found.ok().and_then(|found| found.namespace);
        found.is_some_and(|found| found.lineage != lineage)
    }

    /// Finds the lineage after that of a part; nothing if the run ends with that.
    async fn next<W: Watched>(
        &mut self,
        first: &W,
        part: &mut Part<W, W::Message>,
    ) -> Option<Beginning> {
        let lineage = part.beginning.lineage.clone();
        loop {
            if self.observer.end.borrow().as_ref().is_some_and(|end| end.lineage == lineage) {
                return None;
            }
            if !self.is_another(&lineage).await {
                // It is not there yet, or its server is not.
                sleep(AWAY).await;
                continue;
            }
            // Who would go on after all that there can be is told what was left.
            let request = first.resumed(NEWEST, &lineage, false);
            let session = self.observer.session(request, None).await;
            let end = session.end.clone().filter(|end| end.reason == "LINEAGE_CHANGED");

            part.aside.push(session);
            let told = |name: &str| end.as_ref().and_then(|end| end.metadata.get(name).cloned());
            let through = told("valid_through").and_then(|through| through.parse().ok());
            let (Some(through), Some(next)) = (through, told("lineage")) else { continue };
            if through > 0 {
                let base = part.beginning.base;
                let shared = Some((lineage, through));
                return Some(Beginning { lineage: next, base, initial: None, shared });
            }
            let namespace = self.observer.namespace(&self.namespace);
            if let Ok(Some(found)) = beginning(&namespace).await
                && found.lineage == next
            {
                return Some(found);
            }
        }
    }
}

/// Where the present lineage of a namespace begins, and with what; nothing if there is none.
pub async fn beginning(ns: &Namespace) -> Result<Option<Beginning>, Failure> {
    let Some(found) = ns.call(GetNamespaceRequest::default()).await?.namespace else {
        return Ok(None);
    };
    let (lineage, base) = (found.lineage, found.compacted_revision);
    let at = ListRequest { at_revision: Some(base), ..build::list(build::all()) };
    match ns.call(at).await {
        Ok(list) if list.lineage != lineage => Ok(None),
        Ok(list) => {
            Ok(Some(Beginning { lineage, base, initial: Some(list.entries), shared: None }))
        }
        // It was cleared meanwhile.
        Err(failure) if failure.reason == "COMPACTED" => {
            Ok(Some(Beginning { lineage, base, initial: None, shared: None }))
        }
        Err(failure) => Err(failure),
    }
}

/// What both have taken down, by lineages.
pub fn epochs(
    keys: &[Part<WatchRequest, WatchResponse>],
    locks: &[Part<WatchLocksRequest, WatchLocksResponse>],
) -> Vec<Epoch> {
    let mut epochs: Vec<Epoch> = Vec::new();
    for (number, part) in keys.iter().enumerate() {
        // What was left of it belongs to it, whoever told of that.
        let next = keys.get(number + 1).and_then(|next| next.beginning.shared.as_ref());
        let left = next.map_or(0, |(_, through)| *through);
        let Beginning { lineage, base, initial, shared } = part.beginning.clone();
        let locks = locks.iter().find(|it| it.beginning.lineage == lineage);
        if let Some((_, through)) = shared {
            let next = goes_on(epochs.last_mut(), (part, locks), (lineage, through), left);
            epochs.extend(next);
            continue;
        }
        let shared = None;
        let locks = locks.filter(|it| it.beginning.base == base);
        // What is not known of one of them is not known.
        let is_known = locks.is_some() && initial.is_some();
        let last = match locks.filter(|_| is_known) {
            Some(locks) => part.complete.min(locks.complete),
            _ => base,
        };
        let upto = last.max(left);
        let log = log_of(&part.sessions, upto);
        let lock_log = locks.map(|locks| log_of(&locks.sessions, upto)).unwrap_or_default();
        let initial = initial.unwrap_or_default();
        epochs.push(Epoch { lineage, base, shared, is_known, last, initial, log, lock_log });
    }
    epochs
}

/// A lineage that goes on from the one before; nothing if nothing of its own was taken down.
fn goes_on(
    former: Option<&mut Epoch>,
    (keys, locks): (
        &Part<WatchRequest, WatchResponse>,
        Option<&Part<WatchLocksRequest, WatchLocksResponse>>,
    ),
    (lineage, through): (String, u64),
    left: u64,
) -> Option<Epoch> {
    let (former, locks) = (former?, locks?);
    let last = keys.complete.min(locks.complete);
    let upto = last.max(left);
    let (mut log, mut lock_log) = (log_of(&keys.sessions, upto), log_of(&locks.sessions, upto));
    // What nobody had been told of the one before is told by this one.
    former.log.extend(log.extract_if(.., |event| event.revision <= through));
    former.lock_log.extend(lock_log.extract_if(.., |event| event.revision <= through));
    former.last = former.last.max(through);
    let first = log.iter().map(|event| event.revision - 1).min();
    let first_of_locks = lock_log.iter().map(|event| event.revision - 1).min();
    let said = progress(&keys.sessions).chain(progress(&locks.sessions));
    let base = said.filter(|it| *it > through).chain(first).chain(first_of_locks).min()?;
    let (shared, initial) = (Some(through), Vec::new());
    Some(Epoch { lineage, base, shared, is_known: true, last, initial, log, lock_log })
}

/// Up to where sessions said that they had told all.
fn progress<W, M: Told>(sessions: &[Session<W, M>]) -> impl Iterator<Item = u64> {
    let messages = sessions.iter().flat_map(|session| session.messages.iter());
    messages.map(|(_, message)| message.complete_through())
}

/// The log as sessions told it.
fn log_of<W, M: Told>(sessions: &[Session<W, M>], last: u64) -> Vec<M::Event> {
    let mut whole = Vec::new();
    for session in sessions {
        // What was not complete comes again.
        let mut partial = Vec::new();
        for (_, message) in &session.messages {
            partial.extend_from_slice(message.events());
            let through = message.complete_through();
            whole.extend(partial.extract_if(.., |event| M::revision_of(event) <= through));
        }
    }
    whole.retain(|event| M::revision_of(event) <= last);
    whole
}
