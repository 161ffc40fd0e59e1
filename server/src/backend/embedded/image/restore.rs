//! An image made anew from what a journal has kept.

use super::Image;
use crate::backend::{
    Change, ChangeKind, Entry, GroupStamp, Groups, Key, Position, Retain, Revision, SharedChange,
    WriteOp,
    embedded::{
        commit::{first_revision, new_lineage},
        journal::{Action, NamespaceState, Place, Record, Version},
    },
    entry_bytes,
};

impl Image {
    /// The image that a snapshot begins to tell of.
    pub fn restored(state: &NamespaceState) -> Self {
        let mut image = Self::new(state.position, state.birth, state.time_ms);
        image.revision = state.revision;
        image.lineage = state.lineage;
        image.created_at_ms = state.created_at_ms;
        image.cleared = state.cleared;
        image.commits = [(state.position, state.revision, Vec::new())].into();
        image
    }

    /// The image of a namespace that a record is the first of.
    pub fn before(record: &Record) -> Self {
        let position = Position(record.position.0.saturating_sub(1));
        Self::new(position, record.before, record.time_ms)
    }

    /// Whether the newest version of a key is of this revision.
    pub fn expect(&self, key: &Key, revision: Revision) -> Result<(), String> {
        match self.newest(key) {
            Some(newest) if newest.revision == revision => Ok(()),
            Some(newest) => Err(format!("its last change is of revision {}", newest.revision)),
            None => Err("the change that it is of is missing".into()),
        }
    }

    /// Puts a version as a snapshot tells it.
    pub fn put_version(&mut self, version: Version) -> Result<(), String> {
        let Version { key, stamp, kind, mut entry, place, same_value } = version;
        if stamp.revision > self.revision {
            let (found, last) = (stamp.revision, self.revision);
            return Err(format!("revision {found} is past the last of the namespace, {last}"));
        }
        if same_value {
            self.fill_value(&key, entry.as_mut())?;
        }
        match (kind, place) {
            (ChangeKind::Clear, Place::Logged) => {
                (self.user, self.notes) = Default::default();
                self.usage = Default::default();
                self.log_restored(SharedChange::new(Change::new(key, stamp, kind, None, None)))
            }
            (ChangeKind::Clear, Place::Unlogged) => Err("a clear is always in the log".into()),
            (_, Place::Logged) => {
                let change = self.link(key, stamp, kind, entry, |newest| newest);
                self.log_restored(change)
            }
            (_, Place::Unlogged) => {
                let link = |newest: Option<SharedChange>| newest.and_then(Change::supersede);
                self.link(key, stamp, kind, entry, link);
                Ok(())
            }
        }
    }

    /// Takes a key away without a trace.
    pub fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        let newest = self.newest(key).ok_or_else(|| format!("there is no key {key:?} to drop"))?;
        self.uncount_usage(&newest);
        self.space_mut(key).remove(key);
        Ok(())
    }

    /// Forgets the log up to a revision.
    pub fn forget_through(&mut self, compacted: Revision) -> Result<(), String> {
        if compacted > self.revision {
            let last = self.revision;
            return Err(format!(
                "it is compacted up to {compacted}, past the last revision, {last}"
            ));
        }
        self.trim(&Retain::After(compacted), usize::MAX);
        self.compacted = self.compacted.max(compacted);
        self.recorded = self.compacted;
        Ok(())
    }

    /// Applies a record. Answers whether it was new.
    ///
    /// `staged` is what a record puts in place.
    pub fn replay(&mut self, record: Record, staged: Option<Self>) -> Result<bool, String> {
        if record.position <= self.position {
            return Ok(false);
        }
        let expected = (Position(self.position.0 + 1), self.revision);
        if (record.position, record.before) != expected {
            return Err(format!(
                "it is position {} after revision {}, expected was position {} after revision {}",
                record.position.0, record.before, expected.0.0, expected.1
            ));
        }
        if record.time_ms < self.time_ms(0) {
            return Err(format!("its time {} is before that of the one before", record.time_ms));
        }
        self.time_ms(record.time_ms);
        let has_lineage = match record.action {
            Action::Write(_) | Action::Clear(_) => self.lineage.is_none(),
            Action::Stage(_) | Action::Delete => false,
            Action::Replace(..) => true,
        };
        if record.lineage.is_some() != has_lineage {
            return Err(
                "a history begins with the first commit of a namespace, or where it is replaced"
                    .into(),
            );
        }
        if let Some(compacted) = record.compacted {
            self.forget_through(compacted)?;
        }
        if let Some(lineage) = record.lineage.filter(|_| self.lineage.is_none()) {
            self.begin(lineage, record.time_ms);
        }
        match record.action {
            Action::Write(mut groups) => {
                self.fill_values(&mut groups)?;
                self.apply(groups);
            }
            Action::Clear(records) => drop(self.clear(records)),
            Action::Delete => *self = self.deleted(),
            Action::Stage(entries) => {
                check_staged(&entries, self.revision)?;
                self.stage(entries);
            }
            Action::Replace(name, revision) => {
                if name.is_some() && staged.is_none() {
                    return Err("what it puts in place is missing".into());
                }
                let staged_at = staged.as_ref().map_or(Revision(0), Self::revision);
                if revision <= self.revision.max(staged_at) {
                    return Err(format!(
                        "its revision {revision} is not later than what it replaces"
                    ));
                }
                self.put_in_place(staged, record.lineage, revision);
            }
        }
        Ok(true)
    }

    /// Begins its history anew, where commits may have been lost: with another lineage, from a revision that was not given
    /// yet, without what came before.
    pub fn renew(&mut self, now_ms: i64) {
        let time_ms = self.time_ms(now_ms);
        let revision = self.revision.max(first_revision(time_ms));
        let renewed = Self::new(Position(self.position.0 + 1), revision, time_ms);
        let former = std::mem::replace(self, renewed);
        // Who watched before there was anything has missed what is there now.
        self.birth = Revision(revision.0.saturating_sub(1));
        self.created_at_ms = former.created_at_ms;
        // What leases count goes on.
        self.cleared = former.cleared;
        self.lineage = former.lineage.map(|_| new_lineage());
        for space in [former.user, former.notes, former.internal] {
            for change in space.newest_after(None, usize::MAX) {
                if let Some(entry) = change.entry.clone() {
                    let stamp = GroupStamp { revision: change.revision, time_ms: change.time_ms };
                    self.link(change.key.clone(), stamp, ChangeKind::Set, Some(entry), |_| None);
                }
            }
        }
    }

    /// Adds a version to its key, linked to what `link` makes of the newest one.
    pub(super) fn link(
        &mut self,
        key: Key,
        stamp: GroupStamp,
        kind: ChangeKind,
        entry: Option<Entry>,
        link: impl FnOnce(Option<SharedChange>) -> Option<SharedChange>,
    ) -> SharedChange {
        let is_user = !key.is_internal();
        let (change, removed) = self.space_mut(&key).put(key, |key, newest| {
            SharedChange::new(Change::new(key, stamp, kind, entry, link(newest)))
        });
        if is_user {
            let added = change.entry.as_ref();
            let added = added.map_or(0, |it| entry_bytes(&change.key, &it.content_type, &it.value));
            self.usage.bytes = self.usage.bytes + added - removed;
            self.usage.keys = self.usage.keys + u64::from(added > 0) - u64::from(removed > 0);
        }
        change
    }

    fn log_restored(&mut self, change: SharedChange) -> Result<(), String> {
        if let Some(last) = self.last_logged()
            && change.revision < last
        {
            return Err(format!("revision {} stands after {last} in the log", change.revision));
        }
        self.append(change);
        Ok(())
    }

    fn uncount_usage(&mut self, change: &Change) {
        if let Some(entry) = change.entry.as_ref().filter(|_| !change.key.is_internal()) {
            self.usage.bytes -= entry_bytes(&change.key, &entry.content_type, &entry.value);
            self.usage.keys -= 1;
        }
    }

    /// Gives an entry the value of the one before.
    fn fill_value(&self, key: &Key, entry: Option<&mut Entry>) -> Result<(), String> {
        let missing = || format!("there is no value before that of {key:?} that it could share");
        let before = self.get(key).ok_or_else(missing)?;
        let entry = entry.ok_or_else(missing)?;
        entry.value = before.value.clone();
        entry.content_type = before.content_type.clone();
        Ok(())
    }

    /// Gives writes that change only a deadline the values of the entries before.
    fn fill_values(&self, groups: &mut Groups) -> Result<(), String> {
        for index in 0..groups.writes.len() {
            let (before, rest) = groups.writes.split_at_mut(index);
            let write = &mut rest[0];
            let WriteOp::SetDeadline(draft) = &mut write.op else {
                continue;
            };
            let same_commit = before.iter().rev().find(|other| other.key == write.key);
            (draft.value, draft.content_type) = match same_commit {
                Some(other) => {
                    let other = other.op.draft();
                    other.map(|other| (other.value.clone(), other.content_type.clone()))
                }
                None => {
                    let held = self.get(&write.key);
                    held.map(|held| (held.value.clone(), held.content_type.clone()))
                }
            }
            .ok_or_else(|| format!("there is no entry {:?} to change the end of", write.key))?;
        }
        Ok(())
    }
}

fn check_staged(entries: &[(Key, Entry)], last: Revision) -> Result<(), String> {
    match entries.iter().find(|(_, entry)| entry.mod_revision > last) {
        Some((key, entry)) => {
            let found = entry.mod_revision;
            Err(format!(
                "the revision {found} of {key:?} is past the last of what is staged, {last}"
            ))
        }
        None => Ok(()),
    }
}
