//! The log of a namespace, pulled once for all who watch it.

use std::{sync::Arc, time::Duration};

use tokio::sync::broadcast;

use super::matching::Told;
use crate::{
    backend::{BackendError, Lineage, LoggedChange, Revision},
    store::{Store, namespace::Namespace},
};

/// How many changes are pulled at once.
const PULL: usize = 512;
/// About how many bytes of them.
const PULL_BYTES: u64 = 1 << 20;
/// How many batches the ring holds.
const RING: usize = 32;
/// How long to wait after a failure of the backend.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A piece of the log, on its way to all watches of a namespace.
#[derive(Debug)]
pub(in crate::store) struct Batch {
    pub lineage: Option<Lineage>,
    pub after: Revision,
    pub through: Revision,
    /// Whether the log went no further when this was pulled.
    pub at_tip: bool,
    pub changes: Vec<LoggedChange>,
    /// How each of the changes is told.
    pub(super) told: Vec<Told>,
}

impl Batch {
    pub(super) fn new(
        lineage: Option<Lineage>,
        after: Revision,
        through: Revision,
        changes: Vec<LoggedChange>,
    ) -> Self {
        let told = changes.iter().map(|_| Told::default()).collect();
        Self { lineage, after, through, at_tip: true, changes, told }
    }
}

/// The place where the watches of a namespace get the log from.
pub(in crate::store) struct Hub {
    ring: broadcast::Sender<Arc<Batch>>,
}

impl Store {
    /// A place in the ring of the namespace's hub, which is started if there is none.
    pub(super) fn subscribe(
        self: &Arc<Self>,
        namespace: &Arc<Namespace>,
    ) -> broadcast::Receiver<Arc<Batch>> {
        let mut hub = namespace.hub.lock();
        if let Some(hub) = &*hub {
            return hub.ring.subscribe();
        }
        let (ring, receiver) = broadcast::channel(RING);
        *hub = Some(Hub { ring: ring.clone() });
        tokio::spawn(self.clone().run_hub(namespace.clone(), ring));
        receiver
    }

    /// Feeds the ring until nobody listens, or the history ends.
    async fn run_hub(
        self: Arc<Self>,
        namespace: Arc<Namespace>,
        ring: broadcast::Sender<Arc<Batch>>,
    ) {
        let mut place: Option<(Option<Lineage>, Revision)> = None;
        loop {
            let changed = async {
                match place {
                    Some((lineage, have)) => {
                        self.backend.changed(&namespace.name, lineage, have).await
                    }
                    None => Ok(()),
                }
            };
            let pulled = tokio::select! {
                biased;
                () = ring.closed() => {
                    let mut hub = namespace.hub.lock();
                    if ring.receiver_count() == 0 {
                        *hub = None;
                        return;
                    }
                    continue;
                }
                changed = changed => match changed {
                    Ok(()) => self.pull_for_hub(&namespace, place).await,
                    Err(error) => Err(error),
                },
            };
            match pulled {
                Ok(batch) => {
                    let ended = place
                        .is_some_and(|(lineage, _)| lineage.is_some() && lineage != batch.lineage);
                    if ended {
                        // Those who listen find the ring closed, look for themselves, and see why.
                        *namespace.hub.lock() = None;
                        return;
                    }
                    place = Some((batch.lineage, batch.through));
                    // That nobody listens shows at the next turn.
                    let _ = ring.send(Arc::new(batch));
                }
                Err(error) => {
                    tracing::warn!(namespace = namespace.name.as_str(), %error, "watching waits");
                    self.sleep(AFTER_FAILURE).await;
                }
            }
        }
    }

    /// What came after `place`. From nowhere, or from where the log no longer is, an empty batch at the end:
    /// whoever has not come so far pulls for himself.
    async fn pull_for_hub(
        &self,
        namespace: &Namespace,
        place: Option<(Option<Lineage>, Revision)>,
    ) -> Result<Batch, BackendError> {
        if let Some((_, after)) = place {
            match self.pull(namespace, after).await {
                Err(
                    BackendError::Compacted { .. }
                    | BackendError::Future { .. }
                    | BackendError::Lost { .. },
                ) => {}
                pulled => return pulled,
            }
        }
        let tip = self.tip(&namespace.name).await?;
        Ok(Batch::new(tip.lineage, tip.revision, tip.revision, Vec::new()))
    }

    pub(super) async fn pull(
        &self,
        namespace: &Namespace,
        after: Revision,
    ) -> Result<Batch, BackendError> {
        let pulled = self.backend.changes(&namespace.name, after, PULL, PULL_BYTES).await?;
        let at_tip = pulled.through >= pulled.tip.revision;
        let batch = Batch::new(pulled.tip.lineage, after, pulled.through, pulled.changes);
        Ok(Batch { at_tip, ..batch })
    }
}
