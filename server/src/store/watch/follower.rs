//! The place of one watch in the log.

use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt as _};
use tokio::sync::broadcast::{self, error::RecvError};

use super::hub::Batch;
use crate::{
    backend::{BackendError, Lineage, Revision, Tip},
    store::{Pin, Store, error::StoreError, namespace::Namespace},
};

/// Where a watch stands in the log.
pub(in crate::store) struct Follower {
    namespace: Arc<Namespace>,
    lineage: Option<Lineage>,
    pub have: Revision,
    ring: broadcast::Receiver<Arc<Batch>>,
    /// Holds what comes after the initial state until this has caught up.
    pub pin: Option<Pin>,
    /// Whether there may be something that will not come by the ring.
    behind: bool,
    /// A pull that is under way. It is kept where `next` is lost, for one that takes longer than callers wait at a time
    /// would else begin anew for ever.
    pulling: Option<BoxFuture<'static, Result<Batch, BackendError>>>,
}

impl Follower {
    /// One that goes on from where a namespace stands.
    pub fn from_tip(store: &Arc<Store>, namespace: &Arc<Namespace>, tip: &Tip) -> Self {
        Self::after(store, namespace, tip, tip.revision)
    }

    /// One that goes on after a revision of a namespace that stands at `tip`.
    pub fn after(
        store: &Arc<Store>,
        namespace: &Arc<Namespace>,
        tip: &Tip,
        have: Revision,
    ) -> Self {
        // Where there is no namespace nothing has been missed of it, also from the beginning on.
        let have = if tip.lineage.is_none() { tip.revision } else { have };
        Self {
            namespace: namespace.clone(),
            lineage: tip.lineage,
            have,
            ring: store.subscribe(namespace),
            pin: None,
            behind: true,
            pulling: None,
        }
    }

    /// The next batch that begins where this stands. Losing the future loses nothing.
    pub async fn next(&mut self, store: &Arc<Store>) -> Result<Arc<Batch>, StoreError> {
        loop {
            if self.behind {
                let batch = self.pull(store).await?;
                if batch.at_tip {
                    // What comes later comes by the ring, which was listened to before.
                    self.behind = false;
                    self.pin = None;
                }
                if batch.through > self.have || batch.lineage != self.lineage {
                    return Ok(Arc::new(batch));
                }
            }
            match self.ring.recv().await {
                Ok(batch) if self.is_over(batch.lineage, batch.through) => self.behind = true,
                Ok(batch) if batch.through <= self.have => {}
                Ok(batch) if batch.after <= self.have => return Ok(batch),
                Ok(_) | Err(RecvError::Lagged(_)) => self.behind = true,
                Err(RecvError::Closed) => {
                    self.ring = store.subscribe(&self.namespace);
                    self.behind = true;
                }
            }
        }
    }

    /// Notes that a batch has been taken; answers the lineage if the namespace came into being with it.
    pub fn take(&mut self, batch: &Batch) -> Option<Lineage> {
        self.have = self.have.max(batch.through);
        let born = batch.lineage.filter(|_| self.lineage.is_none());
        self.lineage = batch.lineage;
        born
    }

    async fn pull(&mut self, store: &Arc<Store>) -> Result<Batch, StoreError> {
        let pulling = self.pulling.get_or_insert_with(|| {
            let (store, namespace, have) = (store.clone(), self.namespace.clone(), self.have);
            async move { store.pull(&namespace, have).await }.boxed()
        });
        let pulled = pulling.await;
        self.pulling = None;
        let (lineage, through) = match &pulled {
            Ok(batch) => (batch.lineage, batch.through),
            // Where the log went may be where the namespace went.
            Err(_) => (store.tip(&self.namespace.name).await?.lineage, self.have),
        };
        if self.is_over(lineage, through) {
            return Err(self.ended(store, lineage).await?);
        }
        Ok(pulled?)
    }

    /// Why the history that is followed has ended where the log has this lineage.
    async fn ended(
        &mut self,
        store: &Store,
        lineage: Option<Lineage>,
    ) -> Result<StoreError, StoreError> {
        let last = self.lineage;
        let followed = |ancestor| Some(ancestor) == last;
        let shared = store.shared_through(&self.namespace, followed).await?;
        Ok(match shared {
            // It goes on under another lineage, which a watch tells where it begins.
            Some(through) if self.have <= through => {
                BackendError::Unavailable("it came back with another lineage; resume".into()).into()
            }
            shared => {
                let valid_through = shared.unwrap_or_default();
                StoreError::LineageChanged { lineage, valid_through }
            }
        })
    }

    /// Whether the history that is followed has ended where the log has this lineage and end. One that came and
    /// went since the watch began has left nothing but its last revision.
    fn is_over(&self, lineage: Option<Lineage>, through: Revision) -> bool {
        match self.lineage {
            Some(_) => lineage != self.lineage,
            None => lineage.is_none() && through > self.have,
        }
    }
}
