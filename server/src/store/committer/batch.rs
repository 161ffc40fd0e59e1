//! A batch of commands: what it needs is read, the commands run over that, and answers are made of it.

use std::{collections::BTreeMap, sync::Arc};

use super::{Answer, Job, Outcome, commands};
use crate::{
    backend::{
        Commit, GroupIndex, GroupStamp, KeyRange, Moved, Position, ReadSet, Revision, StoredEntry,
        Tip,
    },
    store::{
        Store,
        command::{Command, EntryView, RangeRead, Reply},
        error::{Refusal, StoreError},
        keys,
        namespace::Namespace,
        settings::Settings,
        workspace::{MAX_REVISION_KEYS, RangeView, Seen, Workspace, settings_write},
    },
};

/// Most entries that all ranges of one command may hold together.
const MAX_RANGE_ENTRIES: usize = 100_000;
/// About the most keys that are looked at for several ranges of one command; a single range may be of any length.
const MAX_LOOKED_AT: usize = 1_000_000;

impl Store {
    /// Reads what a batch of commands needs.
    pub(super) async fn load(
        &self,
        namespace: &Namespace,
        batch: &[Job],
        fresh: bool,
    ) -> Result<Loaded, StoreError> {
        let mut keys = Vec::with_capacity(batch.len() + 1);
        keys.push(keys::settings());
        let (mut at, mut ranges) = (None, Vec::new());
        for (job, command) in commands(batch) {
            command.add_keys(&mut keys);
            if command.reads_ranges() {
                let (position, read) = match &job.ranges {
                    Some(read) if !fresh => read.clone(),
                    _ => self.load_ranges(namespace, command).await?,
                };
                at.get_or_insert(position);
                ranges.extend(read);
            }
        }
        let answer = self.backend.read(&namespace.name, &keys, None).await?;
        let at = at.unwrap_or(answer.tip.position);
        let covered = ranges.iter().map(|range| range.covered.clone()).collect();
        let reads = ReadSet { keys, ranges: covered };
        Ok(Loaded { tip: answer.tip, at, reads, entries: answer.entries, ranges })
    }

    /// The ranges that a command reads, and the position of the first step of reading.
    pub(super) async fn load_ranges(
        &self,
        namespace: &Namespace,
        command: &Command,
    ) -> Result<(Position, Vec<RangeView>), StoreError> {
        let mut at = None;
        let mut ranges = Vec::new();
        let (mut entries, mut looked_at) = (0, 0);
        let reads = command.ranges();
        let is_single = reads.len() == 1;
        for read in reads {
            let range = self.load_range(namespace, read, &mut at, &mut looked_at).await?;
            entries += range.entries.len();
            ranges.push(range);
            let over = if entries > MAX_RANGE_ENTRIES {
                ("entries read", entries, MAX_RANGE_ENTRIES)
            } else if looked_at > MAX_LOOKED_AT && !is_single {
                ("keys looked at", looked_at, MAX_LOOKED_AT)
            } else {
                continue;
            };
            let (what, size, limit) = over;
            let refusal = Refusal::TooLarge { what, size: size as u64, limit: limit as u64 };
            let revision = self.tip(&namespace.name).await?.revision;
            return Err(StoreError::Refused { refusal, revision });
        }
        Ok((at.unwrap_or_default(), ranges))
    }

    /// Reads a range in short steps. What changes meanwhile shows at the commit, which goes by the position
    /// of the first step.
    async fn load_range(
        &self,
        namespace: &Namespace,
        read: RangeRead,
        at: &mut Option<Position>,
        looked_at: &mut usize,
    ) -> Result<RangeView, StoreError> {
        let RangeRead { selector, needed, min_mod_revision, reverse } = read;
        let mut rest = Some(selector.bounds().clone());
        let mut entries = BTreeMap::new();
        let mut alive = 0;
        let keys = selector.step();
        while let Some(range) = rest.clone()
            && alive <= needed
            && entries.len() <= needed + MAX_REVISION_KEYS
        {
            let step = self.backend.scan(&namespace.name, &range, None, reverse, keys).await?;
            at.get_or_insert(step.tip.position);
            *looked_at += keys;
            for entry in step.entries {
                if entry.mod_revision >= min_mod_revision && selector.contains(entry.key()) {
                    alive += usize::from(!entry.deadline.is_due(step.tip.time_ms));
                    entries.insert(entry.key().clone(), entry);
                }
            }
            rest = step.next;
            if rest.is_some() {
                tokio::task::yield_now().await;
            }
        }
        let covered = covered(selector.bounds(), rest.as_ref(), reverse);
        let complete = rest.is_none();
        Ok(RangeView { selector, reverse, needed, covered, complete, entries })
    }
}

/// What a batch of commands needs, as it was read.
pub(super) struct Loaded {
    pub tip: Tip,
    /// The position of the oldest of the reads.
    at: Position,
    /// The settings' key first.
    reads: ReadSet,
    /// One for each key.
    entries: Vec<Option<StoredEntry>>,
    pub ranges: Vec<RangeView>,
}

impl Loaded {
    pub fn settings(&self, namespace: &Namespace) -> Arc<Settings> {
        namespace.settings(self.entries.first().and_then(Option::as_ref))
    }

    /// Runs the commands over what was read. Deletes of many leave out what falls due within `spared_ms`.
    pub fn run(
        &self,
        store: &Store,
        namespace: &Namespace,
        batch: &[Job],
        spared_ms: Option<i64>,
    ) -> (Run, Commit<'_>) {
        let born = self.tip.lineage.is_none();
        let settings = match born {
            true => Arc::new(store.options.initial_settings),
            false => self.settings(namespace),
        };
        let entries = self.reads.keys.iter().zip(self.entries.iter().map(Option::as_ref));
        let mut workspace = Workspace::new(self.tip, settings, entries, &self.ranges);
        workspace.spare_due_within(spared_ms);
        let mut results = Vec::with_capacity(batch.len());
        for (job, command) in commands(batch) {
            let refused = job.submission.lineage_refusal(&self.tip);
            let result = match refused {
                None => workspace.run(command),
                Some(refusal) => Err(refusal),
            };
            results.push(Ran { result, groups: workspace.groups_so_far() });
        }
        let expired = workspace.expired();
        let (mut groups, valid_until_ms, exact_revision) = workspace.into_groups();
        let initial = &store.options.initial_settings;
        if born && !groups.is_empty() && *initial != Default::default() {
            // Where a command of this very commit writes settings, its own are the whole already.
            if groups.writes.iter().all(|write| write.key != keys::settings()) {
                groups.writes.push(settings_write(initial, GroupIndex(groups.len())));
                groups.end_group();
            }
        }
        let commit =
            Commit { at: self.at, reads: &self.reads, groups, valid_until_ms, exact_revision };
        (Run { results, expired }, commit)
    }

    /// Takes in what changed; `false` if that is not known, or too little is left of what was read.
    pub fn follow(&mut self, moved: Moved) -> bool {
        let Some(changed) = moved.changed else {
            return false;
        };
        self.at = moved.tip.position;
        self.tip = moved.tip;
        for (key, entry) in changed {
            for range in &mut self.ranges {
                if range.covered.contains(&key) && range.selector.contains(&key) {
                    match &entry {
                        Some(entry) => range.entries.insert(key.clone(), entry.clone()),
                        None => range.entries.remove(&key),
                    };
                }
            }
            for (named, held) in self.reads.keys.iter().zip(&mut self.entries) {
                if *named == key {
                    held.clone_from(&entry);
                }
            }
        }
        let is_enough = |range: &RangeView| range.complete || range.entries.len() > range.needed;
        self.ranges.iter().all(is_enough)
    }
}

/// What one command answered, and how many groups there were after it.
struct Ran {
    result: Result<Reply<Seen>, Refusal<Seen>>,
    groups: usize,
}

/// What commands answered.
pub(super) struct Run {
    pub expired: u64,
    results: Vec<Ran>,
}

impl Run {
    /// The outcomes, once the stamps of the commit are known.
    pub fn outcomes(self, stamps: &[GroupStamp], before: Revision, time_ms: i64) -> Vec<Outcome> {
        let outcome = |Ran { result, groups }: Ran| {
            let last = groups.checked_sub(1).and_then(|last| stamps.get(last));
            let revision = last.map_or(before, |stamp| stamp.revision);
            let stamps = stamps.get(..groups).unwrap_or(stamps);
            let show = |seen| EntryView::of(seen, stamps, GroupStamp { revision, time_ms });
            match result {
                Ok(reply) => Ok(Answer { revision, time_ms, reply: reply.map(&show) }),
                Err(refusal) => Err(StoreError::Refused { refusal: refusal.map(&show), revision }),
            }
        };
        self.results.into_iter().map(outcome).collect()
    }
}

/// The part of a range that was read when `rest` is left of it.
fn covered(range: &KeyRange, rest: Option<&KeyRange>, reverse: bool) -> KeyRange {
    let mut covered = range.clone();
    match rest {
        // In reverse what is left ends before the last key read, which is inside.
        Some(rest) if reverse => covered.start = rest.end.clone().unwrap_or(covered.start),
        Some(rest) => covered.end = Some(rest.start.clone()),
        None => {}
    }
    covered
}
