//! The answers to requests with an id that are kept: which may go, and whether there is room for more.

use std::collections::BTreeMap;

use super::{Job, batch::Loaded};
use crate::store::{
    RequestId, Store,
    error::{Refusal, StoreError},
    keys,
    namespace::Namespace,
    record::request::RecordName,
    requests::{Added, Amount, KeptRequests},
};

/// Most answers that are kept in a namespace.
const MAX_KEPT: u64 = 100_000;
/// How many bytes the records of kept answers may have in a namespace; where they have less, one more commit may add to them.
const MAX_KEPT_BYTES: u64 = 256 << 20;
/// Most records of answers that one commit removes for their clients are done with them.
const MAX_DONE: usize = 4096;
/// How long it is believed that there is no room, before it is looked again.
const LOOK_AGAIN_MS: i64 = 1000;

impl Store {
    /// Notes for a batch which answers may go, and how many may be added.
    pub(super) async fn look_for_kept(
        &self,
        namespace: &Namespace,
        batch: &[Job],
        loaded: &mut Loaded,
    ) -> Result<(), StoreError> {
        let requests = || batch.iter().filter_map(|job| job.submission.request);
        if requests().next().is_none() {
            return Ok(());
        }
        let is_known = namespace.kept.lock().as_ref().is_some_and(|kept| {
            let is_old = loaded.tip.time_ms - kept.read_at_ms() >= LOOK_AGAIN_MS;
            let Amount { answers, bytes } = kept.total();
            let is_room = answers + batch.len() as u64 <= MAX_KEPT && bytes < MAX_KEPT_BYTES;
            !kept.is_doubted() && (is_room || !is_old)
        });
        if !is_known && loaded.upon.is_some() {
            loaded.is_short = true;
            return Ok(());
        }
        if !is_known {
            let records = self.scan_all(namespace, &keys::all_requests(), usize::MAX).await?.0;
            let mut kept = namespace.kept.lock();
            let index = KeptRequests::of(records.into_iter(), loaded.tip.time_ms, kept.as_ref());
            *kept = Some(index);
        }
        let kept = namespace.kept.lock();
        let Some(kept) = &*kept else {
            return Ok(());
        };
        // What goes makes room in the same commit.
        let mut total = kept.total();
        for request in last_of_each_client(requests()) {
            let room = MAX_DONE - loaded.done.len();
            for (record, amount) in kept.done(request.client, request.done_below).take(room) {
                loaded.done.push(record);
                total.answers -= amount.answers;
                total.bytes -= amount.bytes;
            }
        }
        let stale = requests().filter(|it| it.seq < kept.done_below(it.client));
        loaded.stale = stale.map(|it| (it.client, kept.done_below(it.client))).collect();
        loaded.kept_before = total;
        Ok(())
    }

    /// Notes what a commit has changed about them: the records that were removed because their clients are done with
    /// them, and what went into others.
    pub(super) fn note_kept(
        namespace: &Namespace,
        batch: &[Job],
        removed: &[RecordName],
        kept: &[Added],
    ) {
        let mut index = namespace.kept.lock();
        let Some(index) = &mut *index else {
            return;
        };
        for name in removed {
            index.forget(*name);
        }
        for added in kept {
            index.note(*added);
        }
        for request in last_of_each_client(batch.iter().filter_map(|job| job.submission.request)) {
            index.note_done(request.client, request.done_below);
        }
    }
}

/// Why no answer is kept after so many, if none is.
pub(super) fn refusal<E>(kept: Amount) -> Option<Refusal<E>> {
    let too_many = |unit, limit| Some(Refusal::TooManyRequests { unit, limit });
    match kept {
        Amount { answers, .. } if answers >= MAX_KEPT => too_many("answers", MAX_KEPT),
        Amount { bytes, .. } if bytes >= MAX_KEPT_BYTES => too_many("bytes", MAX_KEPT_BYTES),
        _ => None,
    }
}

/// Of several requests of a client the last knows best what the client is done with.
fn last_of_each_client(
    requests: impl Iterator<Item = RequestId>,
) -> impl Iterator<Item = RequestId> {
    requests.map(|request| (request.client, request)).collect::<BTreeMap<_, _>>().into_values()
}
