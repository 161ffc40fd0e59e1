//! The servers that share the state, and which of them is the first to expire what is due in a namespace.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use parking_lot::RwLock;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{
    Core,
    answer::{Parts, bytes},
    lane::{Lane, read_error},
    link::Call,
    pause,
};
use crate::backend::BackendError;

/// How often a server gives a sign of life.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// After how long without one it is not counted any more.
const SILENCE_MS: u32 = 3500;
/// How much later than the first the others see to what is due.
const SECOND_MS: i64 = 250;

/// The servers that live, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Members(RwLock<Vec<Bytes>>);

impl Members {
    /// Whether a server is the first for a namespace: of all, the one with the largest hash with its name.
    fn is_first(&self, server: &str, lane: &Lane) -> bool {
        let name = lane.name.as_str().as_bytes();
        let rank = |member: &[u8]| xxh3_64_with_seed(name, xxh3_64(member));
        let own = rank(server.as_bytes());
        self.0.read().iter().all(|member| member == server.as_bytes() || rank(member) < own)
    }
}

impl Core {
    /// When this server is to look at a deadline.
    pub(super) fn look_at(&self, lane: &Lane, deadline_ms: Option<i64>) -> Option<i64> {
        let deadline_ms = deadline_ms?;
        match self.members.is_first(&self.server, lane) {
            true => Some(deadline_ms),
            false => Some(deadline_ms.saturating_add(SECOND_MS)),
        }
    }

    /// Gives signs of life, for ever.
    pub(super) async fn live(self: Arc<Self>) {
        loop {
            if let Err(error) = self.give_sign().await {
                tracing::debug!(%error, "no sign of life was given");
            }
            pause(HEARTBEAT).await;
        }
    }

    async fn give_sign(&self) -> Result<(), BackendError> {
        let args = vec![self.server.clone().into(), SILENCE_MS.to_string().into()];
        let call = Call { script: &self.scripts.members, keys: self.layout.servers(), args };
        let mut parts = Parts::of(self.link.call(call).await.map_err(read_error)?)?;
        parts.take()?;
        let mut members = Vec::new();
        for member in parts.list()? {
            members.extend(bytes(member)?);
        }
        *self.members.0.write() = members;
        Ok(())
    }
}
