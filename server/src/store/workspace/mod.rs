//! Where commands run: what was read, what earlier commands of the same commit wrote over it, and what the
//! command at hand is writing.
//!
//! Invariant: a refused command leaves no trace. Whatever is due is removed, in a group of its own, before a
//! command that names it runs; so no command ever sees an entry past its deadline.

mod due;
mod lease;
mod lock;
mod range;
mod related;
mod requests;
mod seen;
mod slots;
mod usage;

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use serde::Serialize;

pub use self::{
    lock::may_be_offered,
    range::RangeView,
    related::{Attached, Places, Related},
    requests::{NewAnswer, done_with},
    seen::{Pending, Seen},
};
use self::{
    requests::Records,
    slots::{Before, Place, Slot, Slots},
};
use super::{
    command::{Command, Guard, Reply},
    error::Refusal,
    keys, record,
    settings::Settings,
};
use crate::backend::{
    ContentType, Created, Draft, GroupIndex, Groups, Key, NewDeadline, Removal, Revision,
    StoredEntry, Tip, Usage, Write, WriteOp, is_logged,
};

/// Most keys that one revision changes.
pub const MAX_REVISION_KEYS: usize = 10_000;
/// Most bytes of keys and values that one revision writes.
pub const MAX_REVISION_BYTES: usize = 16 << 20;

/// What the command at hand makes of a key.
#[derive(Debug)]
enum Now {
    Removed,
    /// With whether the value was written, or only the deadline.
    Written(Draft, bool),
    /// Written without a revision.
    Kept(Draft),
    /// Removed without one.
    Dropped,
}

/// See the module.
#[derive(Debug)]
pub struct Workspace<'a> {
    tip: Tip,
    settings: Arc<Settings>,
    slots: Slots<'a>,
    ranges: &'a [RangeView],
    related: &'a Related,
    /// What the command at hand has written.
    current: Vec<(Place, Now)>,
    /// What it has written besides, without a revision, to keys that no command reads by name.
    notes: Vec<Write>,
    /// The locks that it has freed, to be passed on once its writes make a group.
    freed: Vec<Key>,
    /// What its removals are due to.
    removal: Removal,
    /// How many keys of users it has written.
    written_keys: usize,
    new_settings: Option<Settings>,
    written_bytes: usize,
    groups: Groups,
    /// The revision each group will have if nobody else commits in between.
    expected_revisions: Vec<Revision>,
    usage: Usage,
    valid_until_ms: Option<i64>,
    needs_exact_revision: bool,
    /// Whether anything may be due: seldom, and then it has to be looked for.
    maybe_due: bool,
    /// A delete of many leaves alone what is due by then.
    spared_until_ms: Option<i64>,
    expired: u64,
    max_lease_keys: usize,
    /// Whether leases or locks may be touched.
    is_coordinated: bool,
    /// Whether more of a queue is needed than was read.
    needs_more: bool,
    records: Records,
    /// How many groups there were once the last command had made its own.
    groups_of_last: usize,
    /// Whether it made one.
    has_changed: bool,
}

impl<'a> Workspace<'a> {
    /// A workspace over what was read.
    pub fn new(
        tip: Tip,
        settings: Arc<Settings>,
        entries: impl ExactSizeIterator<Item = (&'a Key, Option<&'a StoredEntry>)> + Clone,
        ranges: &'a [RangeView],
        related: &'a Related,
        max_lease_keys: usize,
        is_coordinated: bool,
    ) -> Self {
        let count = entries.len();
        let in_ranges = ranges.iter().flat_map(|range| &range.entries);
        let in_ranges = in_ranges.map(|(key, stored)| (key, Some(stored)));
        let entries = entries.chain(in_ranges);
        let maybe_due = entries
            .clone()
            .any(|(_, stored)| stored.is_some_and(|stored| stored.deadline.is_due(tip.time_ms)));
        let slots = Slots::new(entries, count);
        Self {
            tip,
            settings,
            slots,
            ranges,
            related,
            current: Vec::new(),
            notes: Vec::new(),
            freed: Vec::new(),
            removal: Removal::Deleted,
            written_keys: 0,
            new_settings: None,
            written_bytes: 0,
            groups: Groups::default(),
            expected_revisions: Vec::new(),
            usage: tip.usage,
            valid_until_ms: None,
            needs_exact_revision: false,
            // What leases and locks depend on is seldom, but then not plain to see.
            maybe_due: maybe_due || is_coordinated,
            spared_until_ms: None,
            expired: 0,
            max_lease_keys,
            is_coordinated,
            needs_more: false,
            records: Records::default(),
            groups_of_last: 0,
            has_changed: false,
        }
    }

    /// Runs a command where its guards hold. What it wrote becomes a group of its own, and what it names and is due,
    /// one before that; locks that it freed are granted to others in one after it.
    pub fn run(
        &mut self,
        command: &Command,
        guards: &[Guard],
    ) -> Result<Reply<Seen>, Refusal<Seen>> {
        if self.maybe_due {
            self.expire_due(command, guards);
        }
        (self.groups_of_last, self.has_changed) = (self.groups.len(), false);
        let guarded = guards.iter().try_for_each(|guard| guard.check(self));
        let result = guarded.and_then(|()| command.run(self)).and_then(|reply| {
            self.check_size()?;
            self.finish()?;
            Ok(reply)
        });
        if result.is_err() {
            self.undo();
        }
        result
    }

    /// How many entries were removed because they were due.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// How many groups of writes there were once the last command had made its own.
    pub fn groups_of_last(&self) -> usize {
        self.groups_of_last
    }

    /// The group of writes that the last command made, if it changed anything.
    pub fn group_of_last(&self) -> Option<GroupIndex> {
        self.has_changed.then(|| GroupIndex(self.groups_of_last - 1))
    }

    /// Whether it cannot be told what is to become of a lock without reading more of its queue: then nothing of this
    /// may be committed.
    pub fn needs_more(&self) -> bool {
        self.needs_more
    }

    /// The writes, one group each command, to commit them; with the last moment at which they may be
    /// committed, and the revision that must still be the last if commands relied on those to come.
    pub fn into_groups(self) -> (Groups, Option<i64>, Option<Revision>) {
        let exact_revision = self.needs_exact_revision.then_some(self.tip.revision);
        (self.groups, self.valid_until_ms, exact_revision)
    }

    /// The settings of the namespace.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Has deletes of many leave alone what falls due within so many milliseconds.
    pub fn spare_due_within(&mut self, ms: Option<i64>) {
        self.spared_until_ms = ms.map(|ms| self.tip.time_ms + ms);
    }

    /// Until when what falls due is left alone by deletes of many.
    pub fn spared_until_ms(&self) -> Option<i64> {
        self.spared_until_ms
    }

    /// Changes the settings of the namespace.
    pub fn set_settings(&mut self, settings: Settings) {
        self.new_settings = Some(settings);
    }

    /// What a key holds. The key is one that the command named.
    pub fn get(&mut self, key: &Key) -> Option<Seen> {
        let alive = self.peek(key)?;
        self.rely_on(&alive);
        Some(alive)
    }

    /// The same for an entry that nothing depends on yet.
    fn peek(&self, key: &Key) -> Option<Seen> {
        self.held(key).filter(|seen| !self.is_due(seen))
    }

    /// What stands there, due or not.
    fn held(&self, key: &Key) -> Option<Seen> {
        let slot = &self.slots[self.slots.find(key)?];
        match slot.now {
            None => self.before(slot),
            Some(index) => match &self.current[index].1 {
                Now::Removed | Now::Dropped => None,
                Now::Written(draft, _) | Now::Kept(draft) => Some(self.pending(key, draft.clone())),
            },
        }
    }

    /// Whether an entry has ended, by its own deadline or with what it depends on.
    fn is_due(&self, seen: &Seen) -> bool {
        match seen.reference() {
            None => seen.is_due(self.tip.time_ms),
            Some(reference) => self.peek(reference).is_none(),
        }
    }

    /// The commit depends on an entry that is still there.
    fn rely_on(&mut self, alive: &Seen) {
        match alive.deadline() {
            NewDeadline::At(at_ms) => {
                let until_ms = self.valid_until_ms.unwrap_or(i64::MAX).min(at_ms - 1);
                self.valid_until_ms = Some(until_ms);
            }
            NewDeadline::Of(reference) => {
                if let Some(referred) = self.peek(&reference) {
                    self.rely_on(&referred);
                }
            }
            NewDeadline::Never | NewDeadline::After(_) => {}
        }
    }

    /// Writes a value over `current`, which is what `get` has answered; answers the entry without the value.
    pub fn put(
        &mut self,
        key: &Key,
        current: Option<&Seen>,
        value: Bytes,
        content_type: ContentType,
        deadline: NewDeadline,
    ) -> Seen {
        self.written_bytes += key.as_bytes().len() + content_type.len() + value.len();
        let draft = self.draft(current, value, content_type, deadline);
        let shown = Draft {
            value: Bytes::new(),
            content_type: draft.content_type.clone(),
            deadline: draft.deadline.clone(),
            ..draft
        };
        self.write(key, Now::Written(draft, true));
        self.pending(key, shown)
    }

    /// Changes when an entry ends; answers the entry.
    pub fn set_deadline(&mut self, key: &Key, current: &Seen, deadline: NewDeadline) -> Seen {
        let (value, content_type) = (current.value().clone(), current.content_type().clone());
        let draft = self.draft(Some(current), value, content_type, deadline);
        let now = self.slots.find(key).and_then(|place| self.slots[place].now);
        let wrote_value =
            now.is_some_and(|now| matches!(self.current[now].1, Now::Written(_, true)));
        self.write(key, Now::Written(draft.clone(), wrote_value));
        self.pending(key, draft)
    }

    /// Removes what a key holds, if anything.
    pub fn remove(&mut self, key: &Key) {
        self.write(key, Now::Removed);
    }

    /// Up to `limit` entries of the command's range number `range` that `admit` lets in, in its order, and
    /// whether more may be there.
    pub fn entries(
        &mut self,
        range: usize,
        limit: usize,
        admit: impl Fn(&Seen) -> bool,
    ) -> (Vec<Seen>, bool) {
        let view = &self.ranges[range];
        let written = self
            .current
            .iter()
            .map(|(place, _)| self.slots[*place].key)
            .filter(|key| view.covered.contains(key) && view.selector.contains(key));
        let mut keys: BTreeSet<Key> = view.entries.keys().chain(written).cloned().collect();
        let (complete, reverse) = (view.complete, view.reverse);
        let mut entries = Vec::new();
        while let Some(key) = if reverse { keys.pop_last() } else { keys.pop_first() } {
            let Some(entry) = self.peek(&key).filter(&admit) else {
                continue;
            };
            self.rely_on(&entry);
            if entries.len() == limit {
                return (entries, true);
            }
            entries.push(entry);
        }
        (entries, !complete)
    }

    /// The revision of an entry's last change, to be compared with `other`.
    pub fn mod_revision(&mut self, seen: &Seen, other: Revision) -> Revision {
        match seen {
            Seen::Stored(stored) => stored.mod_revision,
            Seen::Pending(pending) => self.expected_revision(pending.group, other),
        }
    }

    /// The revision that created an entry, to be compared with `other`.
    pub fn create_revision(&mut self, seen: &Seen, other: Revision) -> Revision {
        match seen.created() {
            Created::Before(revision, _) => revision,
            Created::By(group) => self.expected_revision(group, other),
        }
    }

    /// Refuses what would be more than one revision may change.
    pub fn check_size(&self) -> Result<(), Refusal<Seen>> {
        let (keys, bytes) = (self.written_keys, self.written_bytes);
        let over = if keys > MAX_REVISION_KEYS {
            ("keys", keys, MAX_REVISION_KEYS)
        } else if bytes > MAX_REVISION_BYTES {
            ("bytes", bytes, MAX_REVISION_BYTES)
        } else {
            return Ok(());
        };
        let (what, size, limit) = over;
        Err(Refusal::TooLarge { what, size: size as u64, limit: limit as u64 })
    }

    /// A revision that is not given yet is greater than all that are. Where the other lies beyond those, the
    /// guess must come true: the commit is then bound to the revision it was made at.
    fn expected_revision(&mut self, group: GroupIndex, other: Revision) -> Revision {
        self.needs_exact_revision |= other > self.tip.revision;
        let next = self.expected_revisions.last().unwrap_or(&self.tip.revision).next();
        self.expected_revisions.get(group.0).copied().unwrap_or(next)
    }

    fn pending(&self, key: &Key, draft: Draft) -> Seen {
        Seen::Pending(Box::new(Pending { key: key.clone(), draft, group: self.this_group() }))
    }

    fn this_group(&self) -> GroupIndex {
        GroupIndex(self.groups.len())
    }

    /// What a key held before the command at hand.
    fn before(&self, slot: &Slot<'_>) -> Option<Seen> {
        match slot.before {
            Before::Absent => None,
            Before::Stored(stored) => Some(Seen::Stored(stored.clone())),
            Before::Written(group, write) => {
                let draft = self.groups.writes[write].op.draft()?.clone();
                Some(Seen::Pending(Box::new(Pending { key: slot.key.clone(), draft, group })))
            }
        }
    }

    /// What is written over `current`: within one command the version rises only once, and what was removed
    /// is created anew.
    fn draft(
        &mut self,
        current: Option<&Seen>,
        value: Bytes,
        content_type: ContentType,
        deadline: NewDeadline,
    ) -> Draft {
        let this_group = self.this_group();
        let (version, created) = match current {
            None => (1, Created::By(this_group)),
            Some(Seen::Pending(pending)) if pending.group == this_group => {
                (pending.draft.version, pending.draft.created)
            }
            Some(seen) => (seen.version() + 1, seen.created()),
        };
        self.maybe_due |= matches!(deadline, NewDeadline::At(at_ms) if at_ms <= self.tip.time_ms);
        Draft { value, content_type, version, created, deadline }
    }

    /// Writes a record without a revision over `current`, which is what stands there; answers it.
    fn keep(
        &mut self,
        key: &Key,
        current: Option<&Seen>,
        record: &impl Serialize,
        deadline: NewDeadline,
    ) -> Seen {
        let draft = self.record_draft(current, record, deadline);
        self.write(key, Now::Kept(draft.clone()));
        self.pending(key, draft)
    }

    /// A record that stands in the place of `current`, or is new.
    fn record_draft(
        &self,
        current: Option<&Seen>,
        record: &impl Serialize,
        deadline: NewDeadline,
    ) -> Draft {
        let this_group = Created::By(self.this_group());
        let (version, created) =
            current.map_or((1, this_group), |current| (current.version(), current.created()));
        let (value, content_type) = (record::encode(record), ContentType::JSON);
        Draft { value, content_type, version, created, deadline }
    }

    /// Writes, without a revision, to a key that no command reads by name.
    fn note(&mut self, key: Key, op: WriteOp) {
        self.notes.push(Write { key, op });
    }

    fn write(&mut self, key: &Key, now: Now) {
        let place = self.slots.find(key).expect("a command names every key it writes");
        let slot = &mut self.slots[place];
        match slot.now {
            Some(index) => self.current[index].1 = now,
            None => {
                slot.now = Some(self.current.len());
                self.current.push((place, now));
                self.written_keys += usize::from(!key.is_internal());
            }
        }
    }

    fn undo(&mut self) {
        for (place, _) in self.current.drain(..) {
            self.slots[place].now = None;
        }
        self.notes.clear();
        self.freed.clear();
        self.removal = Removal::Deleted;
        self.new_settings = None;
        self.written_bytes = 0;
        self.written_keys = 0;
    }

    fn finish(&mut self) -> Result<(), Refusal<Seen>> {
        if !self.current.is_empty() {
            self.settle_leases()?;
            let difference = self.difference();
            self.check_quotas(difference)?;
            self.finish_group(difference);
        }
        if let Some(settings) = self.new_settings.take() {
            self.groups.writes.push(settings_write(&settings, self.this_group()));
            self.end_group();
            self.settings = Arc::new(settings);
        }
        self.has_changed = self.groups.len() > self.groups_of_last;
        self.groups_of_last = self.groups.len();
        if !self.freed.is_empty() {
            self.pass_on_freed();
            self.finish_group(self.difference());
        }
        Ok(())
    }

    /// Makes a group of what was written, comparing before with after.
    fn finish_group(&mut self, (added, removed): (Usage, Usage)) {
        let removal = std::mem::replace(&mut self.removal, Removal::Deleted);
        // A range may have been read before what the usage counts: less may be there than is removed. Such a
        // commit is refused by its reads, and made anew.
        self.usage.keys = (self.usage.keys + added.keys).saturating_sub(removed.keys);
        self.usage.bytes = (self.usage.bytes + added.bytes).saturating_sub(removed.bytes);
        self.written_bytes = 0;
        self.written_keys = 0;
        let group = self.this_group();
        for (place, now) in self.current.drain(..) {
            let slot = &mut self.slots[place];
            slot.now = None;
            let before = std::mem::replace(
                &mut slot.before,
                Before::Written(group, self.groups.writes.len()),
            );
            let was_there = match before {
                Before::Absent => false,
                Before::Stored(_) => true,
                Before::Written(_, write) => self.groups.writes[write].op.draft().is_some(),
            };
            let op = match now {
                Now::Written(draft, true) => WriteOp::Set(draft),
                Now::Written(draft, false) => WriteOp::SetDeadline(draft),
                Now::Kept(draft) => WriteOp::SetUnlogged(draft),
                Now::Removed if was_there => WriteOp::Remove(removal),
                Now::Dropped if was_there => WriteOp::RemoveUnlogged,
                Now::Removed | Now::Dropped => {
                    // Created and removed by the same command: nothing has happened.
                    slot.before = Before::Absent;
                    continue;
                }
            };
            self.groups.writes.push(Write { key: slot.key.clone(), op });
        }
        self.groups.writes.append(&mut self.notes);
        self.end_group();
    }

    fn end_group(&mut self) {
        let start = self.groups.ends.last().copied().unwrap_or_default();
        let group = &self.groups.writes[start..];
        if group.is_empty() {
            return;
        }
        let last = *self.expected_revisions.last().unwrap_or(&self.tip.revision);
        self.expected_revisions.push(if is_logged(group) { last.next() } else { last });
        self.groups.end_group();
    }
}

/// The unlogged write that stores settings.
pub fn settings_write(settings: &Settings, group: GroupIndex) -> Write {
    let value = serde_json::to_vec(settings).expect("a struct of numbers can be written as JSON");
    let draft = Draft {
        value: value.into(),
        content_type: ContentType::JSON,
        version: 1,
        created: Created::By(group),
        deadline: NewDeadline::Never,
    };
    Write { key: keys::settings(), op: WriteOp::SetUnlogged(draft) }
}
