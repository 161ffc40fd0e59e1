//! How far work has come: to its end, or so far that other work can be built on it.

use std::sync::Arc;

use futures::{FutureExt as _, future::BoxFuture};

use super::{Outcome, batch::Run};
use crate::{
    backend::{BackendError, Committed},
    store::{Store, error::StoreError, namespace::Namespace},
};

/// How far work has come.
pub(super) enum Progress {
    /// To its end.
    Done(Vec<Outcome>),
    /// What it commits is on its way. Until the end of that nobody is told of it, but more can be committed upon it.
    Committing(Committing),
}

/// Work of which the commits are on their way.
pub(super) struct Committing {
    /// Of how many pieces.
    count: usize,
    outcomes: BoxFuture<'static, Result<Vec<Outcome>, StoreError>>,
}

impl Progress {
    /// That of several pieces of work, one after the other.
    pub fn together(mut parts: Vec<Self>) -> Self {
        if parts.len() == 1
            && let Some(part) = parts.pop()
        {
            return part;
        }
        let count = parts.iter().map(Self::count).sum();
        let all = async move {
            let mut outcomes = Vec::with_capacity(count);
            for part in parts {
                outcomes.append(&mut part.outcomes().await);
            }
            outcomes
        };
        let mut all = all.boxed();
        match all.as_mut().now_or_never() {
            Some(outcomes) => Self::Done(outcomes),
            None => Self::Committing(Committing { count, outcomes: all.map(Ok).boxed() }),
        }
    }

    /// Waits for the end.
    pub async fn outcomes(self) -> Vec<Outcome> {
        let count = self.count();
        match self.end().await {
            Ok(outcomes) => outcomes,
            Err(error) => vec![Err(error); count],
        }
    }

    /// The same. Fails where that of the commit as a whole did.
    pub async fn end(self) -> Result<Vec<Outcome>, StoreError> {
        match self {
            Self::Done(outcomes) => Ok(outcomes),
            Self::Committing(committing) => committing.outcomes.await,
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Done(outcomes) => outcomes.len(),
            Self::Committing(committing) => committing.count,
        }
    }
}

impl Run {
    /// What comes after its commit.
    pub async fn committed(
        self,
        store: &Arc<Store>,
        namespace: &Namespace,
        committed: &Committed,
    ) -> Vec<Outcome> {
        store.committed(namespace, self.expired, &self.settings, committed).await;
        self.outcomes(&committed.stamps, committed.before, committed.tip.time_ms)
    }

    /// The same, once that has been made.
    pub fn committing(
        self,
        store: Arc<Store>,
        namespace: Arc<Namespace>,
        committed: BoxFuture<'static, Result<Committed, BackendError>>,
    ) -> Progress {
        let count = self.count();
        let outcomes = async move {
            match committed.await {
                Ok(committed) => Ok(self.committed(&store, &namespace, &committed).await),
                Err(error) => {
                    // What was noted of them when it was begun does not hold.
                    if let Some(kept) = &mut *namespace.kept.lock() {
                        kept.doubt();
                    }
                    Err(error.into())
                }
            }
        };
        Progress::Committing(Committing { count, outcomes: outcomes.boxed() })
    }
}
