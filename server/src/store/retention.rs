//! Forgets history that the settings of a namespace no longer hold.

use std::{sync::Arc, time::Duration};

use super::{Store, error::StoreError, keys, namespace::Namespace, settings::Settings};
use crate::backend::{NamespaceName, Retain, Revision, Tip};

/// How often logs are looked at that nobody writes to.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// How many changes are forgotten in one step, during which the namespace is locked.
const STEP: usize = 1000;
/// How many logs are looked at in turn though they do not seem too long: others may have written, or changed settings.
const IN_TURN: usize = 2;

/// Looks after the logs for ever. Where much is written, commits do it along the way; this is for age.
pub(super) async fn run(store: Arc<Store>) {
    let mut turn = 0;
    loop {
        store.sleep(SWEEP_INTERVAL).await;
        let now_ms = match store.backend.now_ms().await {
            Ok(now_ms) => now_ms,
            Err(error) => {
                tracing::warn!(%error, "retention waits for the backend");
                continue;
            }
        };
        let namespaces: Vec<_> = store.namespaces.read().values().cloned().collect();
        turn = if turn < namespaces.len() { turn + IN_TURN } else { IN_TURN };
        for (index, namespace) in namespaces.iter().enumerate() {
            namespace.known.forget_old(store.clock.now_ms());
            let has_turn = index < turn && index + IN_TURN >= turn;
            if (has_turn || namespace.may_be_over(now_ms))
                && let Err(error) = store.sweep(namespace).await
            {
                tracing::warn!(namespace = namespace.name.as_str(), ?error, "retention failed");
            }
        }
        // What holds them here would make none seem idle.
        drop(namespaces);
        store.namespaces.write().retain(|_, namespace| !namespace.is_idle());
    }
}

impl Store {
    /// Forgets history up to a revision, whatever the settings. Answers where it stands.
    ///
    /// # Errors
    /// `Future` if the namespace has not come so far.
    pub async fn compact(
        &self,
        name: &NamespaceName,
        through: Revision,
    ) -> Result<Tip, StoreError> {
        while self.backend.trim(name, &Retain::After(through), STEP).await?.more {
            tokio::task::yield_now().await;
        }
        Ok(self.tip(name).await?)
    }

    /// Forgets about `limit` changes that the settings do not hold; answers whether there are more.
    pub(super) async fn trim(
        &self,
        namespace: &Namespace,
        settings: &Settings,
        now_ms: i64,
        limit: usize,
    ) -> Result<bool, StoreError> {
        let bounds = settings.log_bounds(now_ms, namespace.oldest_pin());
        let seen = namespace.log.lock().commits;
        let trimmed = self.backend.trim(&namespace.name, &Retain::Bounds(bounds), limit).await?;
        let mut log = namespace.log.lock();
        if log.commits == seen {
            log.shape = trimmed.log;
        }
        Ok(trimmed.more)
    }

    async fn sweep(&self, namespace: &Namespace) -> Result<(), StoreError> {
        if namespace.log.lock().shape.events == 0 {
            return Ok(());
        }
        let answer = self.backend.read(&namespace.name, &[keys::settings()], None).await?;
        let settings = namespace.settings(answer.entries.first().and_then(Option::as_ref));
        while self.trim(namespace, &settings, answer.tip.time_ms, STEP).await? {
            tokio::task::yield_now().await;
        }
        Ok(())
    }
}
