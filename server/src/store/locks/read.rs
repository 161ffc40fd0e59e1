//! Who holds locks.

use crate::{
    backend::{Key, NamespaceName, Revision, StoredEntry},
    store::{
        ReadState, Store,
        error::StoreError,
        keys,
        leases::Leases,
        record::{self, LockView, Queue},
    },
};

impl Store {
    /// Who holds a lock, if anybody does.
    pub async fn lock(
        &self,
        namespace: &NamespaceName,
        lock: &Key,
    ) -> Result<(ReadState, Option<LockView>), StoreError> {
        loop {
            let keys = [lock.clone(), keys::queue(lock)];
            let answer = self.backend.read(namespace, &keys, None).await?;
            let state = ReadState { revision: answer.tip.revision, time_ms: answer.tip.time_ms };
            let [found, queue] = [0, 1].map(|place| answer.entries.get(place).cloned().flatten());
            let found: Vec<_> = found.into_iter().collect();
            match self.views(namespace, &found, &[queue], state).await {
                Ok(mut views) => return Ok((state, views.pop())),
                // What was read is gone already: that is as good as not having read it.
                Err(error) if error.is_lost_history() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Up to `limit` locks that are held, whose names begin with `prefix` and come after `after`; and the last name
    /// looked at if there may be more.
    pub async fn locks(
        &self,
        namespace: &NamespaceName,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(ReadState, Vec<LockView>, Option<String>), StoreError> {
        loop {
            let range = keys::locks(prefix, after);
            let step = self.backend.scan(namespace, &range, None, false, limit).await?;
            let state = ReadState { revision: step.tip.revision, time_ms: step.tip.time_ms };
            let queues: Vec<_> =
                step.entries.iter().map(|entry| keys::queue(entry.key())).collect();
            let queues = self.backend.read(namespace, &queues, None).await?.entries;
            let last = step.entries.last().map(|entry| keys::lock_name(entry.key()));
            match self.views(namespace, &step.entries, &queues, state).await {
                Ok(views) => return Ok((state, views, last.filter(|_| step.next.is_some()))),
                Err(error) if error.is_lost_history() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Those of the locks that are held, as answers show them. Each has its queue beside it.
    async fn views(
        &self,
        namespace: &NamespaceName,
        locks: &[StoredEntry],
        queues: &[Option<StoredEntry>],
        state: ReadState,
    ) -> Result<Vec<LockView>, StoreError> {
        let leases = self.leases_of(namespace, locks, state.revision).await?;
        let view = |(lock, queue): (&StoredEntry, &Option<StoredEntry>)| {
            if leases.is_due(lock, state.time_ms) {
                return None;
            }
            let queue = queue.as_ref().and_then(|queue| record::decode::<Queue>(&queue.value));
            let waiting = queue.unwrap_or_default().waiting;
            LockView::of(lock.key(), lock, leases.ends_ms(&lock.deadline), waiting)
        };
        Ok(locks.iter().zip(queues).filter_map(view).collect())
    }

    /// The leases that locks read at a revision are held by.
    pub(super) async fn leases_of(
        &self,
        namespace: &NamespaceName,
        locks: &[StoredEntry],
        at: Revision,
    ) -> Result<Leases, StoreError> {
        let mut leases = Leases::default();
        self.look_up(namespace, &mut leases, locks.iter(), at).await?;
        Ok(leases)
    }
}
