//! When a watch that has nothing to tell says how far it has come.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};

use super::{Follower, hub::Batch};
use crate::{
    backend::{Revision, Tip},
    store::{Store, error::StoreError, namespace::Namespace},
};

/// What a watch says after a while without anything else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Everything up to this revision has been told.
    pub through: Revision,
    /// Where the namespace stood: at the same, or, while the watch is catching up, further on.
    pub newest: Revision,
    /// The store's time then.
    pub time_ms: i64,
}

/// The time in which a watch tells nothing.
pub(in crate::store) struct Silence {
    longest: Duration,
    over: BoxFuture<'static, ()>,
    is_over: bool,
    /// The time of what was told last.
    told_ms: i64,
    /// Where the namespace stood at the last progress, if the watch had not come so far.
    owed: Option<Tip>,
}

impl Silence {
    pub fn new(store: &Store, longest: Duration) -> Self {
        let over = sleep(store, longest);
        Self { longest, over, is_over: false, told_ms: i64::MIN, owed: None }
    }

    /// Resolves when it has lasted too long. Losing the future loses nothing.
    async fn over(&mut self) {
        if !self.is_over {
            (&mut self.over).await;
            self.is_over = true;
        }
    }

    /// What comes next of the log; nothing when it has lasted too long. Losing the future loses nothing.
    pub async fn next(
        &mut self,
        store: &Arc<Store>,
        follower: &mut Follower,
    ) -> Result<Option<Arc<Batch>>, StoreError> {
        tokio::select! {
            biased;
            batch = follower.next(store) => batch.map(Some),
            () = self.over() => Ok(None),
        }
    }

    /// Begins anew, as something of this time has been told.
    pub fn end(&mut self, store: &Store, told_ms: i64) {
        (self.over, self.is_over) = (sleep(store, self.longest), false);
        self.told_ms = self.told_ms.max(told_ms);
    }

    /// What is to be said by a watch that stands at `through`. One that has not come so far as the namespace says so, and
    /// once more when it has: until then nobody may take what it has told for the state of that time.
    pub async fn progress(
        &mut self,
        store: &Store,
        namespace: &Namespace,
        through: Revision,
    ) -> Result<Option<Progress>, StoreError> {
        let tip = if let Some(tip) = self.owed.take_if(|tip| tip.revision <= through) {
            tip
        } else if self.over().now_or_never().is_some() {
            let tip = store.tip(&namespace.name).await?;
            self.owed = (through < tip.revision).then_some(tip);
            tip
        } else {
            return Ok(None);
        };
        self.end(store, tip.time_ms);
        let newest = tip.revision.max(through);
        Ok(Some(Progress { through, newest, time_ms: self.told_ms }))
    }
}

fn sleep(store: &Store, longest: Duration) -> BoxFuture<'static, ()> {
    let clock = store.clock.clone();
    async move { clock.sleep(longest).await }.boxed()
}
