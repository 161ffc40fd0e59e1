//! Commits on their way to the journal, and how the namespace will stand after them.
//!
//! A commit may be made upon others of which none is kept yet: it goes to the journal behind them, and where one of them is
//! not kept it is not either. Only who makes a commit may go by this: nobody is told of it before it is kept.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicI64, Ordering},
};

use hashbrown::HashMap;

use super::super::journal::{Action, Record};
use crate::backend::{Entry, Generation, GroupStamp, Groups, Key, Position, Revision, StoredEntry};

/// Most commits of a namespace that are on their way together: the next waits, and what comes after that is made one commit.
const MAX_COMMITS: usize = 8;
/// About the most bytes of theirs, but for the last.
const MAX_BYTES: usize = 8 << 20;

/// The commits of a namespace that are on their way, and that others may follow.
#[derive(Debug, Default)]
pub struct UnderWay {
    /// The oldest first.
    commits: VecDeque<OnItsWay>,
    /// What they write last.
    newest: HashMap<Key, Newest>,
    bytes: usize,
    seen_ms: AtomicI64,
    generation: Generation,
}

/// A commit.
#[derive(Debug)]
struct OnItsWay {
    position: Position,
    /// The last revision with it.
    revision: Revision,
    time_ms: i64,
    keys: Vec<Key>,
    bytes: usize,
}

/// What a key will hold.
#[derive(Debug)]
struct Newest {
    /// The commit that writes it.
    position: Position,
    entry: Option<Entry>,
}

impl UnderWay {
    /// Where the namespace will stand; nothing if no commit is on its way that may be followed.
    pub fn stand(&self) -> Option<(Position, Revision)> {
        self.commits.back().map(|last| (last.position, last.revision))
    }

    /// The time, when the clock reads `now_ms`, of who makes a commit upon them.
    pub fn time_ms(&self, now_ms: i64) -> i64 {
        let last_ms = self.commits.back().map_or(now_ms, |last| last.time_ms.max(now_ms));
        self.seen_ms.fetch_max(last_ms, Ordering::Relaxed).max(last_ms)
    }

    /// The latest time that was seen by who made commits upon them.
    pub fn seen_ms(&self) -> i64 {
        self.seen_ms.load(Ordering::Relaxed)
    }

    /// Whether there are so many, or such large ones, that the next has to wait.
    pub fn is_full(&self) -> bool {
        self.commits.len() >= MAX_COMMITS || self.bytes >= MAX_BYTES
    }

    /// What a commit belongs to that is made now.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The time of the oldest.
    pub fn oldest_ms(&self) -> Option<i64> {
        self.commits.front().map(|oldest| oldest.time_ms)
    }

    /// What a key will hold, if one of them writes it.
    pub fn newest(&self, key: &Key) -> Option<Option<StoredEntry>> {
        let newest = self.newest.get(key)?;
        Some(newest.entry.clone().map(|entry| StoredEntry::alone(key.clone(), entry)))
    }

    /// Adds a commit of writes.
    pub fn add(&mut self, record: &Record) {
        let Action::Write(groups) = &record.action else {
            return;
        };
        let stamps = record.stamps();
        let revision = stamps.last().map_or(record.before, |last| last.revision);
        let keys = self.note_writes(record.position, groups, &stamps);
        let (position, time_ms, bytes) = (record.position, record.time_ms, record.bytes());
        self.bytes += bytes;
        self.commits.push_back(OnItsWay { position, revision, time_ms, keys, bytes });
    }

    fn note_writes(
        &mut self,
        position: Position,
        groups: &Groups,
        stamps: &[GroupStamp],
    ) -> Vec<Key> {
        let mut keys = Vec::with_capacity(groups.writes.len());
        let mut start = 0;
        for (end, stamp) in groups.ends.iter().zip(stamps) {
            for write in &groups.writes[start..*end] {
                let entry = write.op.draft().map(|draft| draft.clone().stamp(*stamp, stamps));
                self.newest.insert(write.key.clone(), Newest { position, entry });
                keys.push(write.key.clone());
            }
            start = *end;
        }
        keys
    }

    /// The commit at a position, if it is one of these, is in the image.
    pub fn applied(&mut self, position: Position) {
        let Some(oldest) = self.commits.pop_front_if(|oldest| oldest.position == position) else {
            return;
        };
        self.bytes -= oldest.bytes;
        for key in oldest.keys {
            if self.newest.get(&key).is_some_and(|newest| newest.position == position) {
                self.newest.remove(&key);
            }
        }
    }

    /// One of a generation was not kept: none of those that are on their way will be. Of those of an earlier one that is
    /// known already.
    pub fn refused(&mut self, generation: Generation) {
        if generation == self.generation {
            self.generation = Generation::new();
            self.commits.clear();
            self.newest.clear();
            self.bytes = 0;
        }
    }
}
