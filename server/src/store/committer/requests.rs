//! The answers to requests with an id that are kept: which may go, and whether there is room for more.

use std::collections::BTreeMap;

use super::{Job, batch::Loaded};
use crate::store::{
    RequestId, Store, error::StoreError, keys, namespace::Namespace, record::request::RecordName,
    requests::KeptRequests,
};

/// Most answers that are kept in a namespace.
pub(super) const MAX_KEPT: u64 = 100_000;
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
            !kept.is_doubted() && (kept.count() + batch.len() as u64 <= MAX_KEPT || !is_old)
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
        let mut count = kept.count();
        for request in last_of_each_client(requests()) {
            let room = MAX_DONE - loaded.done.len();
            for (record, answers) in kept.done(request.client, request.done_below).take(room) {
                loaded.done.push(record);
                count -= u64::from(answers);
            }
        }
        let stale = requests().filter(|it| it.seq < kept.done_below(it.client));
        loaded.stale = stale.map(|it| (it.client, kept.done_below(it.client))).collect();
        loaded.room_for_answers = MAX_KEPT.saturating_sub(count);
        Ok(())
    }

    /// Notes what a commit has changed about them: the records that were removed because their clients are done with
    /// them, and how many answers went into others.
    pub(super) fn note_kept(
        namespace: &Namespace,
        batch: &[Job],
        removed: &[RecordName],
        kept: &[(RecordName, u32)],
    ) {
        let mut index = namespace.kept.lock();
        let Some(index) = &mut *index else {
            return;
        };
        for name in removed {
            index.forget(*name);
        }
        for (name, answers) in kept {
            index.note(*name, *answers);
        }
        for request in last_of_each_client(batch.iter().filter_map(|job| job.submission.request)) {
            index.note_done(request.client, request.done_below);
        }
    }
}

/// Of several requests of a client the last knows best what the client is done with.
fn last_of_each_client(
    requests: impl Iterator<Item = RequestId>,
) -> impl Iterator<Item = RequestId> {
    requests.map(|request| (request.client, request)).collect::<BTreeMap<_, _>>().into_values()
}
