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
#[derive(Default)]
pub struct Witnessed {
    current: Mutex<(String, u64)>,
    /// How far it is taken down, of keys and of locks.
    complete: [AtomicU64; 2],
}

/// Where a lineage begins.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub lineage: String,
    pub base: u64,
    /// What there is then; nothing if that is not known.
    pub initial: Option<Vec<Entry>>,
}

/// What was taken down of one lineage.
pub struct Part<W, M> {
    pub beginning: Beginning,
    pub sessions: Vec<Session<W, M>>,
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
        let witnessed = Self::default();
        witnessed.begin(beginning);
        witnessed
    }

    /// The lineage that was found last.
    pub fn lineage(&self) -> String {
        self.current.lock().0.clone()
    }

    /// The revision that it began with.
    pub fn base(&self) -> u64 {
        self.current.lock().1
    }

    /// Up to where both have taken down the log.
    pub fn complete(&self) -> u64 {
        let complete = self.complete.iter().map(|it| it.load(Ordering::SeqCst));
        complete.min().unwrap_or_default()
    }

    fn begin(&self, beginning: &Beginning) {
        *self.current.lock() = (beginning.lineage.clone(), beginning.base);
    }
}

impl Witness {
    /// Takes down one lineage after the other until the run is over.
    pub async fn run<W: Watched>(
        mut self,
        first: W,
        mut at: Beginning,
    ) -> Vec<Part<W, W::Message>> {
        let mut parts = Vec::new();
        loop {
            let (part, ended) = self.take_down(&first, at.clone()).await;
            parts.push(part);
            match ended {
                Ended::Lineage => {}
                Ended::Run | Ended::Starved => return parts,
            }
            match self.next(&at.lineage).await {
                Some(next) => at = next,
                None => return parts,
            }
            self.shared.begin(&at);
        }
    }

    async fn take_down<W: Watched>(
        &mut self,
        first: &W,
        beginning: Beginning,
    ) -> (Part<W, W::Message>, Ended) {
        let mut part = Part { complete: beginning.base, sessions: Vec::new(), beginning };
        let mut late_at = None;
        loop {
            let lineage = part.beginning.lineage.clone();
            let request = first.resumed(part.complete, &lineage, false);
            let shared = self.shared.clone();
            let complete = &shared.complete[self.index];
            let session = self.observer.session(request, Some(complete)).await;
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

    /// Finds the lineage after one; nothing if the run ends with that.
    async fn next(&mut self, lineage: &str) -> Option<Beginning> {
        loop {
            if self.observer.end.borrow().as_ref().is_some_and(|end| end.lineage == lineage) {
                return None;
            }
            let namespace = self.observer.namespace(&self.namespace);
            match beginning(&namespace).await {
                Ok(Some(found)) if found.lineage != lineage => return Some(found),
                // It is not there yet, or its server is not.
                _ => sleep(AWAY).await,
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
        Ok(list) => Ok(Some(Beginning { lineage, base, initial: Some(list.entries) })),
        // It was cleared meanwhile.
        Err(failure) if failure.reason == "COMPACTED" => {
            Ok(Some(Beginning { lineage, base, initial: None }))
        }
        Err(failure) => Err(failure),
    }
}

/// What both have taken down, by lineages.
pub fn epochs(
    keys: &[Part<WatchRequest, WatchResponse>],
    locks: &[Part<WatchLocksRequest, WatchLocksResponse>],
) -> Vec<Epoch> {
    let of_locks = |lineage: &str| locks.iter().find(|it| it.beginning.lineage == lineage);
    let epoch = |part: &Part<WatchRequest, WatchResponse>| {
        let Beginning { lineage, base, initial } = part.beginning.clone();
        let locks = of_locks(&lineage).filter(|it| it.beginning.base == base);
        // What is not known of one of them is not known.
        let last = match (locks, initial.is_some()) {
            (Some(locks), true) => part.complete.min(locks.complete),
            _ => base,
        };
        let log = log_of(&part.sessions, last);
        let lock_log = locks.map(|locks| log_of(&locks.sessions, last));
        let (initial, lock_log) = (initial.unwrap_or_default(), lock_log.unwrap_or_default());
        Epoch { lineage, base, last, initial, log, lock_log }
    };
    keys.iter().map(epoch).collect()
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
