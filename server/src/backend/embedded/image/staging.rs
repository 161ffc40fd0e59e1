//! An image that takes the place of another.

use std::sync::atomic::AtomicI64;

use super::{Image, UnderWay};
use crate::backend::{ChangeKind, Entry, GroupStamp, Key, Lineage, Position, Revision};

impl Image {
    /// Puts entries as they are, each in the place of what the key held. Nothing of it is in the log.
    pub fn stage(&mut self, entries: Vec<(Key, Entry)>) -> GroupStamp {
        let mut keys = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            keys.push(key.clone());
            let (revision, time_ms) = (entry.mod_revision, entry.updated_at_ms);
            let stamp = GroupStamp { revision, time_ms };
            self.link(key, stamp, ChangeKind::Set, Some(entry), |_| None);
        }
        self.remember_commit(keys);
        self.stamp()
    }

    /// Lets a history begin here, at a revision, with what was staged. Answers what was here before.
    pub fn put_in_place(
        &mut self,
        staged: Option<Self>,
        lineage: Option<Lineage>,
        revision: Revision,
    ) -> (GroupStamp, Self) {
        let time_ms = self.time_ms(0);
        let position = Position(self.position.0 + 1);
        let staged = staged.unwrap_or_else(|| Self::new(position, revision, time_ms));
        let begun = Self {
            lineage,
            created_at_ms: time_ms,
            position,
            revision,
            time_ms: AtomicI64::new(time_ms),
            held: false,
            under_way: UnderWay::default(),
            recorded: revision,
            // The entries were not told by the log: who follows it from the beginning has missed something.
            birth: Revision(revision.0.saturating_sub(1)),
            compacted: revision,
            cleared: Revision(0),
            commits: [(position, revision, Vec::new())].into(),
            remembered_keys: 0,
            ..staged
        };
        let replaced = std::mem::replace(self, begun);
        (self.stamp(), replaced)
    }
}
