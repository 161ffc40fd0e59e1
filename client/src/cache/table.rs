//! What a near cache holds, and how it answers: read by all, written by its keeper alone.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use papaya::HashMap;
use tokio::sync::watch;

use super::{
    Cached, Freshness, SharedEntry,
    clock::{self, StoreClock},
};
use crate::{Cursor, Entry, Metadata, Revision, Timestamp};

/// Longer ago than any bound on ages.
const NEVER: i64 = i64::MIN / 2;

/// How a near cache is to behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) max_staleness: Duration,
    pub(super) max_entries: usize,
    pub(super) max_bytes: u64,
    pub(super) leased: bool,
}

/// The entries under a prefix, and as of when they are complete.
#[derive(Debug)]
pub(super) struct Table<T> {
    pub(super) clock: StoreClock,
    prefix: String,
    bounds: Bounds,
    /// `bounds.max_staleness` in microseconds.
    max_staleness: i64,
    entries: HashMap<Box<str>, Slot<T>, foldhash::fast::RandomState>,
    /// The time of the state that is held, by the clock of the store in microseconds; [`NEVER`] while there is none.
    as_of: AtomicI64,
    /// Rises whenever entries are forgotten though they may still be there.
    generation: AtomicU64,
    /// Whether some that are there may not be held.
    is_partial: AtomicBool,
    /// All changes up to this revision are held; none while no state is.
    through: watch::Sender<Option<Revision>>,
    standing: Mutex<Standing>,
}

/// A key that is there.
#[derive(Debug)]
struct Slot<T> {
    /// None: the codec cannot read the value, and the server's answer says why.
    entry: Option<SharedEntry<T>>,
    /// The deadline by the clock of the store, in microseconds.
    ends_at: i64,
    leased: bool,
    bytes: u64,
}

/// What is only asked for now and then.
#[derive(Debug, Default)]
struct Standing {
    cursor: Option<Cursor>,
    bytes: u64,
    disconnected: Option<Instant>,
    problem: Option<String>,
}

impl<T> Table<T> {
    pub(super) fn new(prefix: String, bounds: Bounds) -> Self {
        Self {
            clock: StoreClock::new(),
            prefix,
            bounds,
            max_staleness: clock::span(bounds.max_staleness),
            entries: HashMap::default(),
            as_of: AtomicI64::new(NEVER),
            generation: AtomicU64::new(0),
            is_partial: AtomicBool::new(false),
            through: watch::Sender::new(None),
            standing: Mutex::default(),
        }
    }

    /// What is known of a key from a state that is not older than the bound.
    pub(super) fn fresh(&self, key: &str) -> Cached<T> {
        self.look_up(key, self.max_staleness)
    }

    /// What is known of a key, however old.
    pub(super) fn any(&self, key: &str) -> Cached<T> {
        self.look_up(key, i64::MAX)
    }

    fn look_up(&self, key: &str, max_staleness: i64) -> Cached<T> {
        let generation = self.generation.load(Ordering::Acquire);
        let as_of = self.as_of.load(Ordering::Acquire);
        let now = self.clock.latest(Instant::now());
        let age = now.saturating_sub(as_of);
        if as_of == NEVER || age > max_staleness {
            return Cached::Unknown;
        }
        let entries = self.entries.pin();
        let Some(slot) = entries.get(key) else {
            return self.absent(key, generation);
        };
        let may_have_ended = now >= slot.ends_at
            || (slot.leased && !(self.bounds.leased && age <= self.max_staleness));
        match &slot.entry {
            Some(entry) if !may_have_ended => Cached::Held(Arc::clone(entry)),
            _ => Cached::Unknown,
        }
    }

    /// What it means that a key is not held.
    fn absent(&self, key: &str, generation: u64) -> Cached<T> {
        // Read after the entries: they are forgotten only after both have changed.
        let is_whole = !self.is_partial.load(Ordering::Acquire)
            && self.generation.load(Ordering::Acquire) == generation;
        if is_whole && key.starts_with(&*self.prefix) { Cached::Missing } else { Cached::Unknown }
    }

    /// Whether a state is held, however old.
    pub(super) fn is_filled(&self) -> bool {
        self.as_of.load(Ordering::Acquire) != NEVER
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn freshness(&self) -> Freshness {
        let now = Instant::now();
        let as_of = self.as_of.load(Ordering::Acquire);
        let age = self.clock.latest(now).saturating_sub(as_of);
        let is_filled = as_of != NEVER;
        let standing = self.standing();
        Freshness {
            is_fresh: is_filled && age <= self.max_staleness,
            as_of: is_filled.then(|| Timestamp::from_millis(as_of / 1_000)),
            age: (is_filled && age < clock::UNKNOWN / 2)
                .then(|| Duration::from_micros(age.unsigned_abs())),
            complete_through: standing.cursor.clone(),
            disconnected_for: standing.disconnected.map(|since| now.duration_since(since)),
            holds_all: !self.is_partial.load(Ordering::Acquire),
            problem: standing.problem.clone(),
        }
    }

    /// Resolves when all changes up to this revision are held.
    pub(super) async fn wait_for(&self, revision: Revision) {
        let mut through = self.through.subscribe();
        let reached = |through: &Option<Revision>| through.is_some_and(|at| at >= revision);
        // The sender is in this table, so it does not go away.
        let _ = through.wait_for(reached).await;
    }

    /// Whether all changes up to this revision are held.
    pub(super) fn has_reached(&self, revision: Revision) -> bool {
        self.through.borrow().is_some_and(|through| through >= revision)
    }

    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For the keeper, which is alone in calling these.
impl<T> Table<T> {
    /// Holds the present entry of a key, if there is room for so many bytes. No value: the codec cannot read it.
    pub(super) fn put(&self, metadata: Metadata, value: Option<T>, bytes: u64) {
        let entries = self.entries.pin();
        let former = entries.get(metadata.key.as_str()).map(|slot| slot.bytes);
        let is_full = former.is_none() && entries.len() >= self.bounds.max_entries;
        let others = self.standing().bytes - former.unwrap_or(0);
        if is_full || others + bytes > self.bounds.max_bytes {
            self.lose(&metadata.key);
            return;
        }
        self.standing().bytes = others + bytes;
        entries
            .insert(metadata.key.as_str().into(), Slot::new(metadata, value.map(Arc::new), bytes));
    }

    /// Changes when an entry ends, and leaves its value.
    pub(super) fn retime(&self, metadata: Metadata) {
        let entries = self.entries.pin();
        // One that is not held had no room.
        let Some(slot) = entries.get(metadata.key.as_str()) else { return };
        let value = slot.entry.as_ref().map(|entry| Arc::clone(&entry.value));
        entries.insert(metadata.key.as_str().into(), Slot::new(metadata, value, slot.bytes));
    }

    /// Holds a key no longer, although it may be there.
    pub(super) fn lose(&self, key: &str) {
        self.is_partial.store(true, Ordering::Release);
        self.remove(key);
    }

    pub(super) fn remove(&self, key: &str) {
        if let Some(slot) = self.entries.pin().remove(key) {
            self.standing().bytes -= slot.bytes;
        }
    }

    /// There is nothing any more.
    pub(super) fn clear(&self) {
        self.entries.pin().clear();
        self.standing().bytes = 0;
        self.is_partial.store(false, Ordering::Release);
    }

    /// Nothing is known any more.
    pub(super) fn forget(&self) {
        self.as_of.store(NEVER, Ordering::Release);
        self.through.send_replace(None);
        self.standing().cursor = None;
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.clear();
    }

    /// All changes up to here are held.
    pub(super) fn complete(&self, cursor: Cursor) {
        self.standing().cursor = Some(cursor);
        if self.is_filled() {
            self.tell_through();
        }
    }

    /// What is held was the whole state at this time.
    pub(super) fn complete_as_of(&self, time_ms: i64) {
        let was_filled = self.is_filled();
        self.as_of.store(clock::micros(time_ms), Ordering::Release);
        if !was_filled {
            self.tell_through();
        }
    }

    /// Wakes up who waits for a revision: who reads after that is answered from memory.
    fn tell_through(&self) {
        let revision = self.standing().cursor.as_ref().map(|cursor| cursor.revision);
        self.through.send_replace(revision);
    }

    pub(super) fn disconnected(&self) {
        self.standing().disconnected.get_or_insert_with(Instant::now);
    }

    pub(super) fn connected(&self) {
        let mut standing = self.standing();
        standing.disconnected = None;
        standing.problem = None;
    }

    pub(super) fn failed(&self, problem: String) {
        self.disconnected();
        self.standing().problem = Some(problem);
    }
}

impl<T> Slot<T> {
    fn new(metadata: Metadata, value: Option<Arc<T>>, bytes: u64) -> Self {
        Self {
            ends_at: metadata.expires_at.map_or(i64::MAX, |at| clock::micros(at.as_millis())),
            leased: metadata.lease_id.is_some(),
            bytes,
            entry: value.map(|value| Arc::new(Entry { value, metadata })),
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
