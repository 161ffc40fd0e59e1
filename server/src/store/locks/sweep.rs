//! Removes the places of callers whose server has gone.

use std::{collections::HashSet, sync::Arc};

use crate::{
    backend::{Key, StoredEntry},
    store::{
        Store, Submission,
        command::{Command, HoldName, Release},
        error::StoreError,
        keys,
        namespace::Namespace,
        record::{self, Hold},
    },
};

/// How many places are looked at in one step.
const STEP: usize = 1000;

impl Store {
    /// Looks through all queues for places whose servers no longer say that they live. Nobody is served out of turn by
    /// them in any case; but they count, and one that nobody reaches would stay.
    pub(in crate::store) async fn sweep_places(
        self: &Arc<Self>,
        namespace: &Namespace,
    ) -> Result<(), StoreError> {
        let mut rest = Some(keys::all_places());
        while let Some(range) = rest {
            let step = self.backend.scan(&namespace.name, &range, None, false, STEP).await?;
            let dead = self.dead_among(namespace, step.entries).await?;
            let releases = dead.iter().filter_map(release).map(Submission::command_only).collect();
            for outcome in self.submit(&namespace.name, releases).await {
                outcome?;
            }
            rest = step.next;
        }
        Ok(())
    }

    async fn dead_among(
        &self,
        namespace: &Namespace,
        places: Vec<StoredEntry>,
    ) -> Result<Vec<StoredEntry>, StoreError> {
        let servers: HashSet<Key> =
            places.iter().filter_map(|place| place.deadline.reference().cloned()).collect();
        let servers: Vec<Key> = servers.into_iter().collect();
        let found = self.backend.read(&namespace.name, &servers, None).await?;
        let lives = |server: &StoredEntry| !server.deadline.is_due(found.tip.time_ms);
        let alive: HashSet<&Key> = found
            .entries
            .iter()
            .flatten()
            .filter(|server| lives(server))
            .map(|it| it.key())
            .collect();
        let is_dead =
            |place: &StoredEntry| !place.deadline.reference().is_some_and(|it| alive.contains(it));
        Ok(places.into_iter().filter(is_dead).collect())
    }
}

/// What gives a place up, unless its call has queued up again since.
fn release(place: &StoredEntry) -> Option<Command> {
    let hold: Hold = record::decode(&place.value)?;
    let lock = keys::lock_of_place(place.key());
    let name = HoldName::Place(*hold.acquire_id.as_bytes(), place.deadline.reference()?.clone());
    Some(Command::Release(Release::new(lock, name)))
}
