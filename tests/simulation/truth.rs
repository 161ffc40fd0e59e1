//! What really happened to the namespace, noted where it is stored.

use std::collections::BTreeMap;

use holdfast_server::backend::{
    Backend, ChangeKind, Deadline, Entry, Key, LoggedChange, NamespaceName, Revision,
};

/// Keys of users with their entries, those that are due but not removed yet included.
pub type State = BTreeMap<Key, Entry>;

/// Every revision there was.
#[derive(Default)]
pub struct Truth {
    /// The last revision before the first.
    base: Option<u64>,
    /// One after the other, from `base` + 1 on.
    revisions: Vec<Step>,
    /// What was written of leases and locks, revisions or not.
    kept: BTreeMap<Key, Vec<Kept>>,
    /// Up to which revision the log was forgotten, and before which one no state can be read.
    pub forgotten: u64,
    pub cleared: u64,
}

/// One revision.
pub struct Step {
    pub time_ms: i64,
    pub changes: Vec<LoggedChange>,
    /// What there was after it.
    pub state: State,
}

/// What stood under an internal key after a commit.
#[derive(Debug, Clone)]
pub struct Kept {
    pub time_ms: i64,
    pub revision: u64,
    pub entry: Option<Entry>,
}

impl Truth {
    /// Takes in what was committed just now, with the internal keys that it wrote.
    pub async fn learn(
        &mut self,
        backend: &dyn Backend,
        namespace: &NamespaceName,
        written: &[Key],
    ) {
        let after = self.last();
        let log = backend.changes(namespace, Revision(after), usize::MAX, u64::MAX).await;
        let log = log.expect("nothing of this can be forgotten yet");
        for change in log.changes {
            let revision = change.change.revision.0;
            let base = *self.base.get_or_insert(revision - 1);
            if base + self.revisions.len() as u64 != revision {
                let state = self.revisions.last().map(|last| last.state.clone());
                let (time_ms, state) = (change.change.time_ms, state.unwrap_or_default());
                self.revisions.push(Step { time_ms, changes: Vec::new(), state });
            }
            assert_eq!(base + self.revisions.len() as u64, revision, "revisions have gaps");
            let step = self.revisions.last_mut().expect("one was pushed");
            apply(&mut step.state, &change);
            if change.change.kind == ChangeKind::Clear {
                self.cleared = revision;
            }
            step.changes.push(change);
        }
        let read = backend.read(namespace, written, None).await.expect("memory can be read");
        for (key, entry) in written.iter().zip(read.entries) {
            let kept = Kept {
                time_ms: read.tip.time_ms,
                revision: self.last(),
                entry: entry.map(|entry| (*entry).clone()),
            };
            self.kept.entry(key.clone()).or_default().push(kept);
        }
    }

    /// The last revision.
    pub fn last(&self) -> u64 {
        self.base.unwrap_or_default() + self.revisions.len() as u64
    }

    /// The first revision.
    pub fn first(&self) -> u64 {
        self.base.unwrap_or_default() + 1
    }

    /// A revision, if there was one.
    pub fn step(&self, revision: u64) -> Option<&Step> {
        let index = revision.checked_sub(self.first())?;
        self.revisions.get(usize::try_from(index).ok()?)
    }

    /// What a revision held.
    pub fn state(&self, revision: u64) -> State {
        self.step(revision).map(|step| step.state.clone()).unwrap_or_default()
    }

    /// All revisions with their numbers.
    pub fn steps(&self) -> impl Iterator<Item = (u64, &Step)> {
        (self.first()..).zip(&self.revisions)
    }

    /// What was written under an internal key, in order.
    pub fn kept(&self, key: &Key) -> &[Kept] {
        self.kept.get(key).map_or(&[], Vec::as_slice)
    }

    /// The internal keys that were written.
    pub fn kept_keys(&self) -> impl Iterator<Item = &Key> {
        self.kept.keys()
    }

    /// When what has this deadline ends, as was known at a time.
    pub fn ends_ms(&self, deadline: &Deadline, time_ms: i64) -> Option<i64> {
        match deadline {
            Deadline::Never => None,
            Deadline::At(at_ms) => Some(*at_ms),
            Deadline::Of(lease) => {
                let known = self.kept(lease).iter().filter(|kept| kept.time_ms <= time_ms);
                let ends = known.filter_map(|kept| match kept.entry.as_ref()?.deadline {
                    Deadline::At(at_ms) => Some(at_ms),
                    Deadline::Never | Deadline::Of(_) => None,
                });
                Some(ends.max().unwrap_or(i64::MIN))
            }
        }
    }

    /// Whether a lease lived for what was done over a revision at a time. What was written of it in that very
    /// millisecond with no revision between may have come before or after: `if_unsure` is the answer where that decides.
    pub fn lease_lives(
        &self,
        lease: &Key,
        (revision, time_ms): (u64, i64),
        if_unsure: bool,
    ) -> bool {
        let kept = self.kept(lease);
        let is_known = |kept: &Kept| {
            kept.time_ms < time_ms || kept.time_ms == time_ms && kept.revision < revision
        };
        let known = kept.partition_point(is_known);
        let unsure = kept[known..].iter();
        let unsure = unsure.take_while(|kept| (kept.revision, kept.time_ms) == (revision, time_ms));
        let lives =
            |kept: &Kept| kept.entry.as_ref().is_some_and(|lease| !lease.deadline.is_due(time_ms));
        let mut lived = unsure.map(lives).chain([kept[..known].last().is_some_and(lives)]);
        if if_unsure { lived.any(|lives| lives) } else { lived.all(|lives| lives) }
    }

    /// Of what a revision held, what was to be seen at a time.
    pub fn live(&self, state: &State, time_ms: i64) -> State {
        let lives = |entry: &Entry| {
            self.ends_ms(&entry.deadline, time_ms).is_none_or(|ends_ms| ends_ms > time_ms)
        };
        let live = state.iter().filter(|(_, entry)| lives(entry));
        live.map(|(key, entry)| (key.clone(), entry.clone())).collect()
    }
}

fn apply(state: &mut State, LoggedChange { change, .. }: &LoggedChange) {
    if change.kind == ChangeKind::Clear {
        state.clear();
    } else if !change.key.is_internal() {
        match &change.entry {
            Some(entry) => state.insert(change.key.clone(), entry.clone()),
            None => state.remove(&change.key),
        };
    }
}
