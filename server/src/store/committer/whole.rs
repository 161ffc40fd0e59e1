//! What is done to a namespace as a whole.

use std::sync::Arc;

use super::{Answer, Job, MAX_ATTEMPTS, Outcome, QUEUE_DEPTH, Submission, Work};
use crate::{
    backend::{CommitOutcome, Deadline, StoredEntry, Tip},
    store::{
        Store,
        command::{Command, Reply},
        error::StoreError,
        keys::{self, Kind},
        namespace::Namespace,
        record::request::RecordName,
    },
};

/// How many entries that are due are removed in one step of those before a clear.
const EXPIRE_STEP: usize = 1000;

/// Whether a piece of work is to be done.
enum Check {
    /// It was, before.
    Done(Box<Answer>),
    /// It is, as long as the namespace stands where this says, and until this moment.
    ToDo { tip: Tip, valid_until_ms: Option<i64>, record: Option<StoredEntry> },
}

impl Store {
    pub(super) async fn clear(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
        submission: &Submission,
    ) -> Outcome {
        let mut attempts = 0;
        while attempts < MAX_ATTEMPTS {
            let removed = self.expire_some_due(namespace).await?;
            // Where as much was due as is removed in one step, it was not that something falls due all the time.
            attempts += u32::from(removed < EXPIRE_STEP);
            if removed > 0 {
                continue;
            }
            let (tip, guarded_until_ms, record) = match self.check(namespace, submission).await? {
                Check::Done(answer) => return Ok(*answer),
                Check::ToDo { tip, valid_until_ms, record } => (tip, valid_until_ms, record),
            };
            if tip.usage.keys == 0 {
                // Because this was done before, perhaps.
                self.backend.confirm(&namespace.name).await?;
                let reply = Reply::Cleared(0);
                return Ok(Answer { revision: tip.revision, time_ms: tip.time_ms, reply });
            }
            // What ends with leases is removed as such, too.
            let until_ms = self.first_end_of_a_lease(namespace).await?.map(|end_ms| end_ms - 1);
            let valid_until_ms = until_ms.into_iter().chain(guarded_until_ms).min();
            let reply = Reply::Cleared(tip.usage.keys);
            let request = submission.request.as_ref();
            let (records, kept): (Vec<_>, Vec<_>) =
                request.map(|request| request.write_alone(record, &reply)).into_iter().unzip();
            let cleared =
                self.backend.clear(&namespace.name, tip.position, valid_until_ms, records).await?;
            if let CommitOutcome::Committed(committed) = cleared {
                self.note_commit(namespace, &committed);
                Self::note_kept(namespace, &[], &[], &kept);
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
                Check::ToDo { tip, valid_until_ms, .. } => (tip.position, valid_until_ms),
            };
            if let Some(tip) = self.backend.delete(&namespace.name, at, valid_until_ms).await? {
                *namespace.kept.lock() = None;
                if tip.lineage.is_none() {
                    self.backend.confirm(&namespace.name).await?;
                }
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
        self.confirm(namespace, &run).await?;
        let outcome = run.outcomes(&[], revision, time_ms).pop();
        match outcome.transpose()? {
            Some(answer) if !matches!(answer.reply, Reply::BatchDelete(_)) => {
                Ok(Check::Done(Box::new(answer)))
            }
            _ => {
                let request = submission.request.as_ref();
                let record =
                    request.and_then(|it| loaded.entry(&RecordName::of(it).key()).cloned());
                let tip = Tip { position: loaded.at, ..loaded.tip };
                Ok(Check::ToDo { tip, valid_until_ms, record })
            }
        }
    }

    /// Removes, as such, keys of users that are due, and leases with what ends with them. Answers how many there were.
    async fn expire_some_due(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
    ) -> Result<usize, StoreError> {
        let (mut due, _) = self.backend.expired(&namespace.name, EXPIRE_STEP).await?;
        // What else is due stays; but it may hide what is not answered for it.
        if due.len() < EXPIRE_STEP {
            due.retain(|key| !key.is_internal() || keys::kind(key) == Some(Kind::Lease));
        }
        let count = due.len();
        if count > 0 {
            let expire = Job::from(Submission::command_only(Command::Expire(due)));
            self.try_batch(namespace, &[expire], None).await?.end().await?;
        }
        Ok(count)
    }

    /// When the first of all leases ends.
    async fn first_end_of_a_lease(&self, namespace: &Namespace) -> Result<Option<i64>, StoreError> {
        let leases = self.scan_all(namespace, &keys::leases_after(None), usize::MAX).await?.0;
        let ends = leases.iter().filter_map(|lease| match lease.deadline {
            Deadline::At(at_ms) => Some(at_ms),
            Deadline::Never | Deadline::Of(_) => None,
        });
        Ok(ends.min())
    }
}
