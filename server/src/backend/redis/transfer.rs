//! What takes the place of a namespace: staged beside it, where nobody looks, and renamed in one step.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Core,
    lane::{Answer, Lane},
    record::stage_args,
};
use crate::backend::{
    BackendError, CommitOutcome, Committed, Entry, GroupStamp, Key, Moved, Position, Revision,
    Staging, Tip,
};

/// About how many entries and bytes one script is given.
const STEP: usize = 1000;
const STEP_BYTES: usize = 1 << 20;

impl Core {
    pub(super) async fn stage(
        &self,
        lane: &Lane,
        staging: &Staging,
        entries: Vec<(Key, Entry)>,
    ) -> Result<(), BackendError> {
        let keys = self.layout.staging(staging);
        let mut entries = entries.iter().peekable();
        loop {
            let (mut args, mut bytes) = (Vec::new(), 0);
            while args.len() < 4 * STEP && bytes < STEP_BYTES {
                let Some((key, entry)) = entries.next() else { break };
                stage_args(key, entry, &mut args);
                bytes += args.last().map_or(0, Bytes::len);
            }
            self.tell_only(lane, &self.scripts.stage, keys.clone(), &args).await?;
            if entries.peek().is_none() {
                return Ok(());
            }
        }
    }

    /// Goes on when the caller goes away.
    pub(super) async fn replace(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        let (core, lane, staging) = (self.clone(), lane.clone(), staging.clone());
        let replaced = tokio::spawn(async move { core.put_in_place(&lane, &staging, at).await });
        let lost =
            |_| BackendError::OutcomeUnknown("the server stopped in the middle of it".into());
        replaced.await.map_err(lost)?
    }

    pub(super) async fn discard(&self, lane: &Lane, staging: &Staging) {
        let keys = self.layout.staging(staging);
        let discarded = self.tell_only(lane, &self.scripts.discard, keys, &[]).await;
        if let Err(error) = discarded {
            tracing::warn!(%error, "what was staged could not be thrown away; it goes in a day");
        }
    }

    async fn put_in_place(
        &self,
        lane: &Lane,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        lane.forget_name();
        self.register(lane).await?;
        let args = [
            self.channel.clone(),
            lane.sender.clone(),
            at.0.to_string().into(),
            staging.revision.to_string().into(),
            staging.entries.to_string().into(),
        ];
        let keys = self.layout.staging(staging);
        let Answer { verdict, head, mut parts } =
            self.tell_with(lane, &self.scripts.replace, keys, &args).await?;
        match &verdict[..] {
            b"moved" => return Ok(CommitOutcome::Moved(Moved { tip: head.tip, changed: None })),
            b"lost" => {
                let problem = "Redis has lost a part of what was imported; import it again";
                return Err(BackendError::Unavailable(problem.into()));
            }
            _ => {}
        }
        let before = Revision(parts.number()? as u64);
        let Tip { revision, time_ms, .. } = head.tip;
        let committed = self.committed(lane, &head, before, &[]);
        Ok(CommitOutcome::Committed(Committed {
            stamps: vec![GroupStamp { revision, time_ms }],
            ..committed
        }))
    }
}
