//! What is done to a namespace as a whole.

use std::sync::Arc;

use super::{Answer, Job, MAX_ATTEMPTS, Outcome, QUEUE_DEPTH, Submission, Work};
use crate::{
    backend::{CommitOutcome, Position, StoredEntry, Tip},
    store::{
        Store,
        command::{Command, Reply},
        error::StoreError,
        namespace::Namespace,
        record::request::RecordName,
    },
};

/// How many entries that are due are removed in one step.
const EXPIRE_STEP: usize = 1000;

/// Whether a piece of work is to be done.
enum Check {
    /// It was, before.
    Done(Box<Answer>),
    /// It is, as long as the namespace stands at this position and until this moment.
    ToDo { at: Position, valid_until_ms: Option<i64>, record: Option<StoredEntry> },
}

impl Store {
    pub(super) async fn clear(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        submission: &Submission,
    ) -> Outcome {
        for _ in 0..MAX_ATTEMPTS {
            let (tip, next_ms) = self.expire_all_due(namespace).await?;
            let (at, guarded_until_ms, record) = match self.check(namespace, submission).await? {
                Check::Done(answer) => return Ok(*answer),
                Check::ToDo { at, valid_until_ms, record } => (at, valid_until_ms, record),
            };
            if tip.usage.keys == 0 {
                let reply = Reply::Cleared(0);
                return Ok(Answer { revision: tip.revision, time_ms: tip.time_ms, reply });
            }
            if at != tip.position {
                continue;
            }
            // What falls due before the commit is to be removed as such, too.
            let next_ms = next_ms.map(|next_ms| next_ms - 1);
            let valid_until_ms = next_ms.into_iter().chain(guarded_until_ms).min();
            let reply = Reply::Cleared(tip.usage.keys);
            let request = submission.request.as_ref();
            let records =
                request.map(|request| request.write_alone(record, &reply)).into_iter().collect();
            let cleared = self.backend.clear(&namespace.name, at, valid_until_ms, records).await?;
            if let CommitOutcome::Committed(committed) = cleared {
                self.note_commit(namespace, &committed);
                let kept = request.map(|request| (RecordName::of(request), 1));
                Self::note_kept(namespace, &[], &[], kept.as_slice());
                let stamp = committed.stamps.first();
                return Ok(Answer {
                    revision: stamp.map_or(committed.before, |stamp| stamp.revision),
                    time_ms: committed.tip.time_ms,
                    reply: Reply::Cleared(tip.usage.keys),
                });
            }
        }
        Err(StoreError::Contended { attempts: MAX_ATTEMPTS })
    }

    pub(super) async fn delete(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        submission: &Submission,
    ) -> Outcome {
        for _ in 0..MAX_ATTEMPTS {
            let (at, valid_until_ms) = match self.check(namespace, submission).await? {
                Check::Done(answer) => return Ok(*answer),
                Check::ToDo { at, valid_until_ms, .. } => (at, valid_until_ms),
            };
            if let Some(tip) = self.backend.delete(&namespace.name, at, valid_until_ms).await? {
                *namespace.kept.lock() = None;
                let reply = Reply::NamespaceDeleted(tip.lineage.is_some());
                return Ok(Answer { revision: tip.revision, time_ms: tip.time_ms, reply });
            }
        }
        Err(StoreError::Contended { attempts: MAX_ATTEMPTS })
    }

    /// What goes before any work is asked of a command that does nothing.
    async fn check(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        submission: &Submission,
    ) -> Result<Check, StoreError> {
        let work = Work::Command(Command::BatchDelete(Vec::new()));
        let batch = [Job::from(Submission { work, ..submission.clone() })];
        let loaded = self.load_alive(namespace, &batch, true, QUEUE_DEPTH).await?;
        let Tip { revision, time_ms, .. } = loaded.tip;
        let (run, commit) = loaded.run(self, namespace, &batch, None);
        let valid_until_ms = commit.valid_until_ms;
        let outcome = run.outcomes(&[], revision, time_ms).pop();
        match outcome.transpose()? {
            Some(answer) if !matches!(answer.reply, Reply::BatchDelete(_)) => {
                Ok(Check::Done(Box::new(answer)))
            }
            _ => {
                let request = submission.request.as_ref();
                let record =
                    request.and_then(|it| loaded.entry(&RecordName::of(it).key()).cloned());
                Ok(Check::ToDo { at: loaded.at, valid_until_ms, record })
            }
        }
    }

    /// What is due is removed as such, before all is. Answers where the namespace stands then, and a moment at or
    /// before the next deadline.
    async fn expire_all_due(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
    ) -> Result<(Tip, Option<i64>), StoreError> {
        loop {
            let tip = self.tip(&namespace.name).await?;
            let (due, next_ms) = self.backend.expired(&namespace.name, EXPIRE_STEP).await?;
            if !due.is_empty() {
                let expire = Job::from(Submission::command_only(Command::Expire(due)));
                self.try_batch(namespace, &[expire], None).await?;
            } else if next_ms.is_none_or(|next_ms| next_ms > tip.time_ms) {
                return Ok((tip, next_ms));
            }
        }
    }
}
