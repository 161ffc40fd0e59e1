//! The image as a snapshot takes it: step by step, while commits go on.
//!
//! What is collected is the newest change of every key and the log. Keys that change after they were collected are
//! brought up to date in the last step: those with a revision from the log, the others from what is remembered of recent
//! commits. So all of it stands at one position, that of the last step, and each step is short.

use std::collections::HashMap;

use super::Image;
use crate::backend::{
    Change, ChangeKind, Key, NamespaceName, Position, Revision, SharedChange,
    embedded::{
        journal::{NamespaceState, Place, SnapshotWriter},
        snapshot::Pace,
    },
    entry_bytes,
};

/// How many changes one step collects.
const STEP: usize = 256;

/// About how much a version takes beside its key, content type and value.
const OTHER_BYTES: usize = 100;

/// What has been collected of a namespace.
#[derive(Debug)]
pub struct Capture {
    start: (Position, Revision, Revision),
    /// Which of the spaces is being collected.
    space: usize,
    newest: Vec<SharedChange>,
    log: Vec<SharedChange>,
}

/// What a step of collecting came to.
#[derive(Debug)]
pub enum Step {
    /// There is more to collect.
    More,
    /// All is there.
    Done(NamespaceState, Newest),
    /// Too much happened since the beginning to bring it up to date: begin anew.
    Lost,
}

/// Keys that were written again after they had been collected, with what they hold; none: they are gone.
type Newest = HashMap<Key, Option<SharedChange>>;

impl Capture {
    /// Begins to collect.
    pub fn new(image: &Image) -> Self {
        let start = (image.position, image.revision, image.cleared);
        Self { start, space: 0, newest: Vec::new(), log: Vec::new() }
    }

    /// Collects some more. `whole`: all that is left, however long it takes.
    pub fn step(&mut self, image: &Image, name: &NamespaceName, whole: bool) -> Step {
        let limit = if whole { usize::MAX } else { STEP };
        let spaces = [&image.user, &image.notes, &image.internal];
        while let Some(space) = spaces.get(self.space) {
            let after = self.newest.last().filter(|last| image.is_of_space(&last.key, self.space));
            let more = space.newest_after(after.map(|last| &last.key), limit);
            if more.is_empty() {
                self.space += 1;
            } else {
                self.newest.extend(more);
                if !whole {
                    return Step::More;
                }
            }
        }
        let after = self.log.last().map_or(image.compacted, |last| last.revision);
        let start = image.log.partition_point(|change| change.revision <= after);
        let left = image.log.len() - start;
        let steps = image.log.range(start..).take(limit.max(1));
        let taken = self.log.len();
        self.log.extend(steps.cloned());
        if self.log.len() - taken < left {
            self.complete_revision(image);
            return Step::More;
        }
        self.finish(image, name)
    }

    /// Hands all that was collected to a snapshot.
    pub fn write(
        self,
        state: &NamespaceState,
        later: Newest,
        (writer, pace): (&mut dyn SnapshotWriter, Pace<'_>),
        compacted: impl FnOnce() -> Revision,
    ) -> Result<(), String> {
        writer.begin(state)?;
        let mut telling = Telling { writer, pace, told: HashMap::new() };
        for change in &self.log {
            telling.logged(change)?;
        }
        let collected = self.newest.into_iter().filter(|change| !later.contains_key(&change.key));
        for change in collected.chain(later.values().flatten().cloned()) {
            telling.newest(&change)?;
        }
        telling.drop_others()?;
        // Only now: what was forgotten meanwhile may have lost its former versions before they were told. More may have
        // been forgotten than there is in the snapshot.
        writer.end(compacted().min(state.revision))
    }

    /// A step must not end within a revision: it goes on after it.
    fn complete_revision(&mut self, image: &Image) {
        let Some(last) = self.log.last().map(|last| last.revision) else {
            return;
        };
        let start = image.log.partition_point(|change| change.revision < last);
        let end = image.log.partition_point(|change| change.revision <= last);
        self.log.truncate(self.log.partition_point(|change| change.revision < last));
        self.log.extend(image.log.range(start..end).cloned());
    }

    /// Brings what was collected up to date.
    fn finish(&mut self, image: &Image, name: &NamespaceName) -> Step {
        let (position, revision, cleared) = self.start;
        let whole_log = image.compacted <= revision;
        let unlogged = image.written_unlogged_since(position);
        let (true, Some(unlogged)) = (whole_log && image.cleared == cleared, unlogged) else {
            return Step::Lost;
        };
        let mut later = Newest::new();
        let start = self.log.partition_point(|change| change.revision <= revision);
        let logged = self.log[start..].iter().map(|change| &change.key);
        for key in logged.chain(unlogged) {
            if !later.contains_key(key) {
                later.insert(key.clone(), image.newest(key));
            }
        }
        Step::Done(image.state(name), later)
    }
}

impl Image {
    /// Where it stands, as snapshots say it.
    fn state(&self, name: &NamespaceName) -> NamespaceState {
        NamespaceState {
            name: name.clone(),
            position: self.position,
            revision: self.revision,
            time_ms: self.time_ms(0),
            lineage: self.lineage,
            created_at_ms: self.created_at_ms,
            birth: self.birth,
            cleared: self.cleared,
        }
    }

    /// The last revision whose events are no longer held.
    pub fn compacted(&self) -> Revision {
        self.compacted
    }

    fn is_of_space(&self, key: &Key, space: usize) -> bool {
        let own = match () {
            () if key.is_note() => 1,
            () if key.is_internal() => 2,
            () => 0,
        };
        own == space
    }

    /// The keys written without a revision since a position; `None`: that is too long ago to know.
    fn written_unlogged_since(&self, position: Position) -> Option<impl Iterator<Item = &Key>> {
        let later = self.commits.partition_point(|(of, ..)| *of <= position);
        let is_known = later > 0 && self.commits.get(later - 1).is_some();
        is_known.then(|| self.commits.range(later..).flat_map(|(.., keys)| keys))
    }
}

/// Tells versions in an order in which they can be put again.
struct Telling<'a> {
    writer: &'a mut dyn SnapshotWriter,
    pace: Pace<'a>,
    /// The newest version of each key as who puts them would have it.
    told: HashMap<Key, SharedChange>,
}

impl Telling<'_> {
    fn logged(&mut self, change: &SharedChange) -> Result<(), String> {
        if change.kind == ChangeKind::Clear {
            self.told.retain(|key, _| key.is_internal() && !key.is_note());
            return self.put(change, Place::Logged, false);
        }
        let previous = change.previous();
        let told = self.told.remove(&change.key);
        match &previous {
            Some(previous) if !is_same(told.as_ref(), previous) => self.unlogged(previous, told)?,
            None if told.is_some() => self.writer.drop_key(&change.key)?,
            _ => {}
        }
        let same_value = previous.as_ref().is_some_and(|previous| shares_value(change, previous));
        self.put(change, Place::Logged, same_value)?;
        self.told.insert(change.key.clone(), change.clone());
        Ok(())
    }

    /// A version that is not in the log. If it is not linked to what was told of its key, the key was taken away in between
    /// without a trace.
    fn unlogged(
        &mut self,
        change: &SharedChange,
        told: Option<SharedChange>,
    ) -> Result<(), String> {
        let previous = change.previous();
        let told = match told {
            Some(told) if !is_same(previous.as_ref(), &told) => {
                self.writer.drop_key(&change.key)?;
                None
            }
            told => told,
        };
        let same_value = told.is_some_and(|told| shares_value(change, &told));
        self.put(change, Place::Unlogged, same_value)
    }

    /// What a key holds in the end. Its slot is no longer needed.
    fn newest(&mut self, change: &SharedChange) -> Result<(), String> {
        let told = self.told.remove(&change.key);
        match told {
            told if is_same(told.as_ref(), change) => Ok(()),
            // The removal has been forgotten since: nothing is known of the key any more.
            None if change.entry.is_none() => Ok(()),
            told => self.unlogged(change, told),
        }
    }

    fn put(&mut self, change: &Change, place: Place, same_value: bool) -> Result<(), String> {
        let bytes = change
            .entry
            .as_ref()
            .map_or(0, |entry| entry_bytes(&change.key, &entry.content_type, &entry.value));
        self.pace.after(bytes as usize + OTHER_BYTES)?;
        self.writer.put(change, place, same_value)
    }

    /// What is left was taken away without a trace.
    fn drop_others(&mut self) -> Result<(), String> {
        self.told.keys().try_for_each(|key| self.writer.drop_key(key))
    }
}

fn is_same(one: Option<&SharedChange>, other: &SharedChange) -> bool {
    one.is_some_and(|one| SharedChange::ptr_eq(one, other))
}

fn shares_value(change: &Change, other: &Change) -> bool {
    let both = change.entry.as_ref().zip(other.entry.as_ref());
    both.is_some_and(|(one, other)| {
        one.value.as_ptr() == other.value.as_ptr()
            && one.value.len() == other.value.len()
            && one.content_type == other.content_type
    })
}
