//! One namespace in memory: entries with their retained versions, deadlines, and the log.
//!
//! A [`Change`] is at once a record of the log and a version of its entry, linked to the version before.
//! Invariant: forgetting a record of the log cuts the link to the versions that only older revisions see.

mod capture;
mod restore;
mod staging;
#[cfg(test)]
mod tests;
mod under_way;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::atomic::{AtomicI64, Ordering},
};

use bytes::Bytes;

pub(super) use self::{
    capture::{Capture, Step},
    under_way::UnderWay,
};
use super::space::Space;
use crate::backend::{
    Change, ChangeKind, Deadline, Draft, Entry, GroupStamp, Groups, Key, KeyRange, Lineage,
    LogShape, LoggedChange, Position, ReadSet, Retain, Revision, SharedChange, StoredEntry, Tip,
    Usage, Write, WriteOp, entry_bytes, is_logged,
};

/// How many commits can be told apart when a commit relies on an older position.
const REMEMBERED_COMMITS: usize = 32_768;
/// How many keys that these wrote without a revision are known with them.
const REMEMBERED_KEYS: usize = 131_072;
/// Up to how many bytes a value is copied when it is stored. One that came in is a part of the buffer it was read
/// into, and would keep all of that; the buffer of a larger one is little else than it.
const COPIED_BYTES: usize = 32 << 10;

/// The state of one namespace.
#[derive(Debug)]
pub(super) struct Image {
    pub lineage: Option<Lineage>,
    pub created_at_ms: i64,
    position: Position,
    revision: Revision,
    /// The time of the newest answer: time never goes back, whatever the machine's clock does.
    time_ms: AtomicI64,
    /// Whether the time stands still, because a commit with that time is on its way to the journal.
    held: bool,
    /// Commits on their way to the journal that others may follow before they are kept.
    pub under_way: UnderWay,
    /// Up to where the journal knows that the log has been forgotten.
    recorded: Revision,
    /// The revision it began after.
    birth: Revision,
    compacted: Revision,
    /// The last clear: what was before it can no longer be read, though its log is still there.
    cleared: Revision,
    user: Space,
    /// Notes on users' keys: what goes with them when they are cleared.
    notes: Space,
    internal: Space,
    usage: Usage,
    log: VecDeque<SharedChange>,
    log_bytes: u64,
    /// Position and last revision of recent commits, and the keys written without a revision.
    commits: VecDeque<(Position, Revision, Vec<Key>)>,
    /// How many keys stand in `commits`.
    remembered_keys: usize,
}

impl Image {
    /// An empty namespace whose past, if it had one, ended at this position and revision.
    pub fn new(position: Position, revision: Revision, time_ms: i64) -> Self {
        Self {
            lineage: None,
            created_at_ms: time_ms,
            position,
            revision,
            time_ms: AtomicI64::new(time_ms),
            held: false,
            under_way: UnderWay::default(),
            recorded: revision,
            birth: revision,
            compacted: revision,
            cleared: revision,
            user: Space::default(),
            notes: Space::default(),
            internal: Space::default(),
            usage: Usage::default(),
            log: VecDeque::new(),
            log_bytes: 0,
            commits: VecDeque::from([(position, revision, Vec::new())]),
            remembered_keys: 0,
        }
    }

    /// What is left of it after it was deleted.
    pub fn deleted(&self) -> Self {
        Self::new(Position(self.position.0 + 1), self.revision, self.time_ms(0))
    }

    /// The time of the namespace when the clock reads `now_ms`.
    pub fn time_ms(&self, now_ms: i64) -> i64 {
        if self.held {
            return self.time_ms.load(Ordering::Relaxed);
        }
        self.time_ms.fetch_max(now_ms, Ordering::Relaxed).max(now_ms)
    }

    /// Lets the time stand still, at the stamp of a commit that goes to the journal.
    ///
    /// Invariant: from its stamp until it is applied or refused, no answer has a later time than that of the commit. A
    /// reader would else see that time with the state before, and as ended what the commit relied on as alive.
    pub fn hold_time(&mut self, time_ms: i64) {
        self.time_ms.fetch_max(time_ms, Ordering::Relaxed);
        self.held = true;
    }

    /// Lets the time go on again: the oldest commit on its way has been applied, or none is any more. With another on its
    /// way it goes as far as the stamp of that.
    pub fn let_time_go_on(&mut self) {
        match self.under_way.oldest_ms() {
            Some(time_ms) => self.hold_time(time_ms),
            None => {
                self.time_ms.fetch_max(self.under_way.seen_ms(), Ordering::Relaxed);
                self.held = false;
            }
        }
    }

    /// Until when the time stands still, if it does.
    pub fn held_ms(&self) -> Option<i64> {
        self.held.then(|| self.time_ms.load(Ordering::Relaxed))
    }

    /// Whether one of these entries has ended by the clock, but not yet by the time of the namespace, which stands still:
    /// who reads it has to wait, for nobody may see it any more.
    pub fn holds_up_an_end<'a>(
        &self,
        newest: impl IntoIterator<Item = &'a SharedChange>,
        now_ms: i64,
    ) -> bool {
        if !self.held {
            return false;
        }
        let (held_ms, mut newest) = (self.time_ms(now_ms), newest.into_iter());
        let ends_between = |at_ms: i64| held_ms < at_ms && at_ms <= now_ms;
        newest.any(|change| match change.entry.as_ref().map(|entry| &entry.deadline) {
            Some(Deadline::At(at_ms)) => ends_between(*at_ms),
            Some(Deadline::Of(key)) => self.get(key).is_some_and(
                |referred| matches!(referred.deadline, Deadline::At(at_ms) if ends_between(at_ms)),
            ),
            Some(Deadline::Never) | None => false,
        })
    }

    /// Up to where the log has been forgotten, if the journal does not know that yet.
    pub fn unrecorded_compaction(&self) -> Option<Revision> {
        (self.compacted > self.recorded).then_some(self.compacted)
    }

    /// Notes what the journal knows.
    pub fn set_recorded_compaction(&mut self, compacted: Revision) {
        self.recorded = compacted;
    }

    /// Where it stands, read at `now_ms`.
    pub fn tip(&self, now_ms: i64) -> Tip {
        Tip {
            position: self.position,
            revision: self.revision,
            time_ms: self.time_ms(now_ms),
            lineage: self.lineage,
            compacted: self.compacted,
            cleared: self.cleared,
            usage: self.usage,
        }
    }

    pub fn position(&self) -> Position {
        self.position
    }

    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The first revision that can be read.
    pub fn oldest_readable(&self) -> Revision {
        self.compacted.max(self.cleared)
    }

    /// The revision after which the log has to be read for all that came after `after`; `None`: it no longer
    /// reaches back so far.
    pub fn resume_after(&self, after: Revision) -> Option<Revision> {
        let whole = self.compacted == self.birth;
        match after {
            Revision(0) if whole => Some(self.birth),
            _ => (after >= self.compacted).then_some(after),
        }
    }

    pub fn log_shape(&self) -> LogShape {
        LogShape {
            events: self.log.len() as u64,
            bytes: self.log_bytes,
            oldest_ms: self.log.front().map(|change| change.time_ms),
        }
    }

    /// What the key holds.
    pub fn get(&self, key: &Key) -> Option<StoredEntry> {
        self.newest(key).and_then(StoredEntry::of)
    }

    /// The newest changes of keys.
    pub fn newest_of(&self, keys: &[Key]) -> Vec<Option<SharedChange>> {
        if keys.len() > 1 {
            self.user.fetch(keys);
        }
        keys.iter().map(|key| self.newest(key)).collect()
    }

    /// The newest change of a key.
    pub fn newest(&self, key: &Key) -> Option<SharedChange> {
        self.space(key).get(key).map(|slot| slot.newest.clone())
    }

    /// Looks at up to `limit` keys in order; answers their newest changes and the range that is left.
    pub fn scan(
        &self,
        range: &KeyRange,
        reverse: bool,
        limit: usize,
    ) -> (Vec<SharedChange>, Option<KeyRange>) {
        if range.is_empty() {
            return (Vec::new(), None);
        }
        self.space(&range.start).scan(range, reverse, limit)
    }

    /// The log after a revision, in whole revisions of up to `limit` changes and about `limit_bytes`.
    pub fn changes(&self, after: Revision, limit: usize, limit_bytes: u64) -> Vec<LoggedChange> {
        let start = self.log.partition_point(|change| change.revision <= after);
        let mut changes: Vec<LoggedChange> = Vec::new();
        let mut bytes = 0;
        for change in self.log.range(start..) {
            let full = changes.len() >= limit || bytes >= limit_bytes;
            if full && changes.last().is_some_and(|last| last.change.revision < change.revision) {
                break;
            }
            bytes += change.log_bytes();
            let previous = change.previous().and_then(StoredEntry::of);
            changes.push(LoggedChange { change: change.clone(), previous });
        }
        changes
    }

    /// The revision of the newest change in the log.
    pub fn last_logged(&self) -> Option<Revision> {
        self.log.back().map(|change| change.revision)
    }

    /// What changed in the read set after a position; `None`: that is too long ago to know.
    pub fn changed_since(
        &self,
        at: Position,
        reads: &ReadSet,
    ) -> Option<Vec<(Key, Option<StoredEntry>)>> {
        if at == self.position {
            return Some(Vec::new());
        }
        let later = self.commits.partition_point(|(position, ..)| *position <= at);
        let (_, from, _) = *self.commits.get(later.checked_sub(1)?)?;
        let unlogged = self.commits.range(later..).flat_map(|(.., keys)| keys);
        let start = self.log.partition_point(|change| change.revision <= from);
        let logged = self.log.range(start..);
        if logged.clone().any(|change| change.kind == ChangeKind::Clear) || from < self.compacted {
            return None;
        }
        let keys: BTreeSet<&Key> = reads.keys.iter().collect();
        let touched: BTreeSet<&Key> = logged
            .map(|change| &change.key)
            .chain(unlogged)
            .filter(|key| {
                keys.contains(key) || reads.ranges.iter().any(|range| range.contains(key))
            })
            .collect();
        Some(touched.into_iter().map(|key| (key.clone(), self.get(key))).collect())
    }

    /// Begins a history: the first commit is about to be applied.
    pub fn begin(&mut self, lineage: Lineage, time_ms: i64) {
        self.lineage = Some(lineage);
        self.created_at_ms = time_ms;
    }

    /// Applies a commit; the caller has checked that it may be.
    pub fn apply(&mut self, groups: Groups) -> Vec<GroupStamp> {
        let mut unlogged = Vec::new();
        let mut stamps = Vec::with_capacity(groups.len());
        let mut writes = groups.writes.into_iter();
        let mut done = 0;
        for end in groups.ends {
            let count = end - done;
            done = end;
            if is_logged(&writes.as_slice()[..count]) {
                self.revision = self.revision.next();
            }
            stamps.push(self.stamp());
            for write in writes.by_ref().take(count) {
                self.write(write, &stamps, &mut unlogged);
            }
        }
        self.remember_commit(unlogged);
        stamps
    }

    /// What these groups would add and remove.
    pub fn difference(&self, groups: &Groups) -> (Usage, Usage) {
        let (mut added, mut removed) = (Usage::default(), Usage::default());
        let mut written = BTreeMap::new();
        for write in &groups.writes {
            if !write.key.is_internal() {
                written.insert(&write.key, &write.op);
            }
        }
        for (key, op) in written {
            if let Some(draft) = op.draft() {
                added.keys += 1;
                added.bytes += entry_bytes(key, &draft.content_type, &draft.value);
            }
            if let Some(entry) = self.get(key) {
                removed.keys += 1;
                removed.bytes += entry_bytes(key, &entry.content_type, &entry.value);
            }
        }
        (added, removed)
    }

    /// Removes all user keys and notes, and writes some records; answers what held them, to be dropped at leisure.
    pub fn clear(&mut self, records: Vec<Write>) -> (GroupStamp, [Space; 2]) {
        self.revision = self.revision.next();
        self.cleared = self.revision;
        self.usage = Usage::default();
        let nothing = Key::new(b"");
        let stamp = self.stamp();
        self.append(SharedChange::new(Change::new(nothing, stamp, ChangeKind::Clear, None, None)));
        let removed = [std::mem::take(&mut self.user), std::mem::take(&mut self.notes)];
        let mut unlogged = Vec::new();
        for record in records {
            self.write(record, &[stamp], &mut unlogged);
        }
        self.remember_commit(unlogged);
        (stamp, removed)
    }

    /// Keys that are due, in order of deadline, and the next deadline. Looks at a bounded number.
    pub fn expired(&mut self, now_ms: i64, limit: usize) -> (Vec<Key>, Option<i64>) {
        let mut due = self.internal.due_keys(now_ms, limit);
        due.extend(self.user.due_keys(now_ms, limit - due.len()));
        (due, self.next_deadline_ms())
    }

    /// Whether a user's key is due by its own deadline.
    pub fn has_due_users(&mut self, now_ms: i64) -> bool {
        loop {
            if !self.user.due_keys(now_ms, 1).is_empty() {
                return true;
            }
            // One look takes in only so much that has moved.
            if self.user.next_deadline_ms().is_none_or(|next_ms| next_ms > now_ms) {
                return false;
            }
        }
    }

    /// A moment at or before the earliest deadline.
    pub fn next_deadline_ms(&self) -> Option<i64> {
        let spaces = [&self.user, &self.internal];
        spaces.into_iter().filter_map(Space::next_deadline_ms).min()
    }

    /// Forgets the oldest of the log, in whole revisions, about `limit` changes at the most. Answers whether
    /// there is more to forget.
    pub fn trim(&mut self, retain: &Retain, limit: usize) -> bool {
        for forgotten in 0.. {
            let Some(oldest) = self.log.front() else {
                return false;
            };
            let within_revision = oldest.revision == self.compacted;
            if !within_revision && holds(retain, oldest, self.log_shape()) {
                return false;
            }
            if !within_revision && forgotten >= limit {
                return true;
            }
            self.forget_oldest();
        }
        false
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.log.pop_front() else {
            return;
        };
        self.compacted = oldest.revision;
        if let Some(previous) = oldest.forget_previous() {
            self.uncount(&previous);
        }
        // What has been replaced stays in memory for the change that replaced it.
        if !oldest.is_replaced() {
            self.uncount(&oldest);
        }
        if matches!(oldest.kind, ChangeKind::Removed(_)) {
            self.space_mut(&oldest.key).forget_tombstone(&oldest);
        }
        if oldest.is_superseded()
            && let Some(newest) = self.newest(&oldest.key)
        {
            newest.forget(&oldest);
        }
    }

    fn count(&mut self, change: &Change) {
        if !change.set_counted(true) {
            self.log_bytes += change.log_bytes();
        }
    }

    fn uncount(&mut self, change: &Change) {
        if change.set_counted(false) {
            self.log_bytes -= change.log_bytes();
        }
    }

    fn stamp(&self) -> GroupStamp {
        GroupStamp { revision: self.revision, time_ms: self.time_ms(0) }
    }

    fn write(&mut self, write: Write, stamps: &[GroupStamp], unlogged: &mut Vec<Key>) {
        let Write { key, op } = write;
        let stamp = self.stamp();
        let entry = |draft: Draft| Some(draft.stamp(stamp, stamps));
        match op {
            WriteOp::Set(draft) => self.put(key, ChangeKind::Set, entry(by_itself(draft))),
            WriteOp::SetDeadline(draft) => self.put(key, ChangeKind::TtlChanged, entry(draft)),
            WriteOp::Remove(removal) => self.put(key, ChangeKind::Removed(removal), None),
            WriteOp::SetUnlogged(draft) => {
                unlogged.push(key.clone());
                self.replace(key, entry(draft));
            }
            WriteOp::RemoveUnlogged => {
                self.space_mut(&key).remove(&key);
                unlogged.push(key);
            }
        }
    }

    fn put(&mut self, key: Key, kind: ChangeKind, entry: Option<Entry>) {
        let stamp = self.stamp();
        let user = !key.is_internal();
        let added =
            entry.as_ref().map_or(0, |entry| entry_bytes(&key, &entry.content_type, &entry.value));
        let space = self.space_mut(&key);
        let (change, removed) = space.put(key, |key, previous| {
            SharedChange::new(Change::new(key, stamp, kind, entry, previous))
        });
        if user {
            self.usage.bytes = self.usage.bytes + added - removed;
            self.usage.keys = self.usage.keys + u64::from(added > 0) - u64::from(removed > 0);
        }
        self.append(change);
    }

    fn replace(&mut self, key: Key, entry: Option<Entry>) {
        let stamp = self.stamp();
        self.space_mut(&key).put(key, |key, replaced| {
            let previous = replaced.and_then(Change::supersede);
            SharedChange::new(Change::new(key, stamp, ChangeKind::Set, entry, previous))
        });
    }

    /// Adds to the log. A version that is only there for the log counts to it, whenever it was made.
    fn append(&mut self, change: SharedChange) {
        self.count(&change);
        if let Some(previous) = change.previous() {
            previous.set_replaced();
            self.count(&previous);
        }
        self.log.push_back(change);
    }

    fn remember_commit(&mut self, unlogged: Vec<Key>) {
        self.position = Position(self.position.0 + 1);
        self.remembered_keys += unlogged.len();
        self.commits.push_back((self.position, self.revision, unlogged));
        while self.commits.len() > REMEMBERED_COMMITS
            || (self.remembered_keys > REMEMBERED_KEYS && self.commits.len() > 1)
        {
            let forgotten = self.commits.pop_front();
            self.remembered_keys -= forgotten.map_or(0, |(.., keys)| keys.len());
        }
    }

    fn space(&self, key: &Key) -> &Space {
        if key.is_note() {
            &self.notes
        } else if key.is_internal() {
            &self.internal
        } else {
            &self.user
        }
    }

    fn space_mut(&mut self, key: &Key) -> &mut Space {
        if key.is_note() {
            &mut self.notes
        } else if key.is_internal() {
            &mut self.internal
        } else {
            &mut self.user
        }
    }
}

/// With a value that keeps no more memory than its own.
fn by_itself(mut draft: Draft) -> Draft {
    if draft.value.len() <= COPIED_BYTES {
        draft.value = Bytes::copy_from_slice(&draft.value);
    }
    draft
}

fn holds(retain: &Retain, oldest: &Change, log: LogShape) -> bool {
    match retain {
        Retain::After(revision) => oldest.revision > *revision,
        Retain::Bounds(bounds) => bounds.hold((oldest.revision, oldest.time_ms), log),
    }
}
