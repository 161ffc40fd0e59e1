//! A batch of commands: the commands run over what was read for them, and answers are made of that.

use std::{collections::HashMap, sync::Arc};

use super::{Answer, Job, Outcome, commands, requests};
use crate::{
    backend::{
        Commit, Generation, GroupIndex, GroupStamp, Key, Moved, Position, ReadSet, Revision,
        StoredEntry, Tip,
    },
    store::{
        RequestId, Store,
        command::{AcquireReply, Command, EntryView, Reply},
        error::{Refusal, StoreError},
        keys::{self, Kind},
        namespace::Namespace,
        record::request::RecordName,
        requests::{Added, Amount},
        settings::Settings,
        workspace::{NewAnswer, RangeView, Related, Seen, Workspace, done_with, settings_write},
    },
};

/// What a batch of commands needs, as it was read.
pub(super) struct Loaded {
    pub tip: Tip,
    /// The position of the oldest of the reads.
    pub at: Position,
    /// Of which commits on their way, if this is how things will stand once these are kept: it is not to be told before.
    pub upon: Option<Generation>,
    /// Whether something is missing that cannot be read before nothing is on its way.
    pub is_short: bool,
    /// Whether more may have been committed before this was asked for: what relies on it finds out, what does not is to read.
    pub is_old: bool,
    /// The settings' key first.
    pub reads: ReadSet,
    /// One for each key.
    pub entries: Vec<Option<StoredEntry>>,
    pub ranges: Vec<RangeView>,
    pub related: Related,
    /// Whether leases or locks may be touched.
    pub is_coordinated: bool,
    /// Where each of the keys stands, where leases or locks may be touched.
    pub index: HashMap<Key, usize>,
    /// Answers that their clients have no more use for.
    pub done: Vec<RecordName>,
    /// How much is kept of answers without those.
    pub kept_before: Amount,
    /// Clients of which there are requests that they have said to be done with, and up to where: seldom any.
    pub stale: Vec<(u64, u64)>,
}

impl Loaded {
    pub fn settings(&self, namespace: &Namespace) -> Arc<Settings> {
        namespace.settings(self.entries.first().and_then(Option::as_ref))
    }

    /// The leases read that are due, but for those that were read with what hangs on them.
    pub fn due_leases(&self) -> Vec<Key> {
        if !self.is_coordinated {
            return Vec::new();
        }
        let entries = self.reads.keys.iter().zip(&self.entries);
        let due = entries.filter(|(key, entry)| {
            keys::kind(key) == Some(Kind::Lease)
                && !self.related.leases.contains_key::<Key>(key)
                && entry.as_ref().is_some_and(|entry| entry.deadline.is_due(self.tip.time_ms))
        });
        due.map(|(key, _)| key.clone()).collect()
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
        let mut workspace = Workspace::new(
            self.tip,
            settings.clone(),
            entries,
            &self.ranges,
            &self.related,
            store.options.max_lease_keys,
            self.is_coordinated,
        );
        workspace.spare_due_within(spared_ms);
        let mut results = Vec::with_capacity(batch.len());
        let mut kept = Vec::new();
        for (place, (job, command)) in commands(batch).enumerate() {
            let request = job.submission.request.as_ref();
            let recalled =
                request.map_or(Ok(None), |request| workspace.recall(request, command.as_set()));
            let result = match recalled {
                Ok(Some(recalled)) => {
                    results.push(Ran::Recalled(recalled));
                    continue;
                }
                Err(refusal) => Err(refusal),
                Ok(None) => match self.refusal(job, kept.len()) {
                    None => workspace.run(command, &job.submission.guards),
                    Some(refusal) => Err(refusal),
                },
            };
            if let (Some(_), Ok(_), Some(group)) = (request, &result, workspace.group_of_last()) {
                kept.push((place, group));
            }
            results.push(Ran::Now { result, groups: workspace.groups_of_last() });
        }
        let (expired, needs_more) = (workspace.expired(), workspace.needs_more());
        let answers = kept.iter().filter_map(|(place, group)| {
            let Ran::Now { result: Ok(reply), .. } = &results[*place] else {
                return None;
            };
            let submission = &batch[*place].submission;
            let asked = submission.command().and_then(Command::as_set);
            Some(NewAnswer { request: submission.request.as_ref()?, asked, group: *group, reply })
        });
        let kept = workspace.keep_answers(answers);
        let most_before = workspace.most_before();
        let (mut groups, valid_until_ms, exact_revision) = workspace.into_groups();
        let initial = &store.options.initial_settings;
        if born && !groups.is_empty() && *initial != Default::default() {
            // Where a command of this very commit writes settings, its own are the whole already.
            if groups.writes.iter().all(|write| write.key != keys::settings()) {
                groups.writes.push(settings_write(initial, GroupIndex(groups.len())));
                groups.end_group();
            }
        }
        let last = GroupIndex(groups.len().saturating_sub(1));
        let mut done = Vec::new();
        if let Some(end) = groups.ends.last_mut() {
            // What was answered just now is not done with, whatever another request says.
            let is_kept =
                |name: &RecordName| kept.binary_search_by_key(name, |kept| kept.record).is_ok();
            done.extend(self.done.iter().copied().filter(|name| !is_kept(name)));
            let done = done.iter().map(|name| done_with(*name, last, self.tip.time_ms));
            groups.writes.extend(done);
            *end = groups.writes.len();
        }
        let commit = Commit {
            at: self.at,
            reads: &self.reads,
            groups,
            valid_until_ms,
            exact_revision,
            most_before,
            upon: self.upon,
        };
        (Run { results, expired, kept, done, needs_more, settings }, commit)
    }

    /// Why a command is not even run, once it is known that it was not before.
    fn refusal(&self, job: &Job, kept: usize) -> Option<Refusal<Seen>> {
        let answers = self.kept_before.answers + kept as u64;
        if job.submission.request.is_some()
            && let Some(refusal) = requests::refusal(Amount { answers, ..self.kept_before })
        {
            return Some(refusal);
        }
        if let Some(refusal) = self.stale_refusal(job) {
            return Some(refusal);
        }
        job.submission.lineage_refusal(&self.tip)
    }

    /// Whether a request is a copy that comes late: its client has had the answer, and that is no longer kept.
    fn stale_refusal(&self, job: &Job) -> Option<Refusal<Seen>> {
        let RequestId { client, seq, .. } =
            job.submission.request.filter(|_| !self.stale.is_empty())?;
        let known = self.stale.iter().find(|(it, done_below)| *it == client && seq < *done_below);
        known.map(|&(_, done_below)| Refusal::RequestDone { seq, done_below })
    }

    /// Takes in what changed; `false` if that is not known, or too little is left of what was read.
    pub fn follow(&mut self, moved: Moved) -> bool {
        let Some(changed) = moved.changed.filter(|_| !self.is_coordinated) else {
            return false;
        };
        // Something may have become a matter of leases that was none before.
        let is_attached = |(_, entry): &(Key, Option<StoredEntry>)| {
            entry.as_ref().is_some_and(|entry| entry.deadline.reference().is_some())
        };
        if changed.iter().any(is_attached) {
            return false;
        }
        self.at = moved.tip.position;
        self.tip = moved.tip;
        self.upon = None;
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

/// What came of one command.
enum Ran {
    /// It was run; there were so many groups after it.
    Now { result: Result<Reply<Seen>, Refusal<Seen>>, groups: usize },
    /// It had been before.
    Recalled((GroupStamp, Reply<EntryView>)),
}

/// What commands answered.
pub(super) struct Run {
    pub expired: u64,
    /// What is kept of them.
    pub kept: Vec<Added>,
    /// The records in whose place a mark is put.
    pub done: Vec<RecordName>,
    /// Whether more has to be read before any of this can be committed.
    pub needs_more: bool,
    /// Those that it was run by.
    pub settings: Arc<Settings>,
    results: Vec<Ran>,
}

impl Run {
    /// Whether anything is answered that was done before this batch.
    pub fn tells_what_was_done(&self) -> bool {
        self.results.iter().any(|ran| match ran {
            Ran::Recalled(_) => true,
            Ran::Now { result, .. } => {
                matches!(result, Ok(Reply::Acquired(AcquireReply::Granted(_))))
            }
        })
    }

    /// Of how many commands.
    pub fn count(&self) -> usize {
        self.results.len()
    }

    /// The outcomes, once the stamps of the commit are known.
    pub fn outcomes(self, stamps: &[GroupStamp], before: Revision, time_ms: i64) -> Vec<Outcome> {
        let outcome = |ran: Ran| {
            let (result, groups) = match ran {
                Ran::Now { result, groups } => (result, groups),
                Ran::Recalled((GroupStamp { revision, time_ms }, reply)) => {
                    return Ok(Answer { revision, time_ms, reply });
                }
            };
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
