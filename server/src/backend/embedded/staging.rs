//! How a namespace is replaced: what is to take its place is staged as a namespace of its own, which nobody sees, and
//! then put there in one step.

use super::{
    Embedded, Usage,
    commit::{committed, drop_at_leisure, moved_at_all, new_lineage},
    durable::stamp,
    image::Image,
    journal::{Action, staged_name},
    writer::{Writer, lost},
};
use crate::backend::{BackendError, CommitOutcome, Entry, Key, Position, Revision, Staging};

impl Embedded {
    pub(super) async fn add_to_staging(
        &self,
        staging: &Staging,
        entries: Vec<(Key, Entry)>,
    ) -> Result<(), BackendError> {
        let name = staged_name(staging);
        let begin = || Image::new(Position(0), staging.revision, self.clock_ms());
        let cell = self.cells.get_or_make(&name, begin);
        let Some(writer) = &self.writer else {
            self.cells.show(&cell);
            let mut image = cell.image.write();
            image.stage(entries);
            return self.check_room(image.tip(i64::MIN).usage);
        };
        let turn = cell.alone().await;
        let record = {
            let mut image = cell.image.write();
            let now_ms = image.time_ms(self.clock_ms());
            stamp(&mut image, &name, Action::Stage(entries), now_ms)
        };
        writer.write(cell, turn, record).await.map(drop)
    }

    pub(super) fn replace_in_memory(
        &self,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        let name = staged_name(staging);
        let staged = self.cells.get(&name);
        let cell = self.cells.get_or_make(&staging.namespace, || self.unborn());
        let mut image = cell.image.write();
        let now_ms = image.time_ms(self.clock_ms());
        let moved = moved_at_all(&image, at, None, now_ms);
        let before = image.revision();
        let added = staged.as_ref().map(|it| it.image.read().tip(now_ms).usage);
        let refused = match moved {
            Some(moved) => Some(Ok(CommitOutcome::Moved(moved))),
            None => {
                let reserved = self.reserve(added.unwrap_or_default(), image.tip(now_ms).usage);
                reserved.err().map(Err)
            }
        };
        if let Some(outcome) = refused {
            drop(image);
            self.cells.discard(&staging.namespace, cell);
            return outcome;
        }
        let revision = revision_after(&image, staging);
        let staged = staged.map(|staged| staged.take_image());
        let (stamp, replaced) = image.put_in_place(staged, Some(new_lineage()), revision);
        let committed = committed(&image, before, vec![stamp], now_ms);
        cell.announce(&image);
        drop(image);
        self.cells.remove(&name);
        self.cells.show(&cell);
        drop_at_leisure(replaced);
        Ok(CommitOutcome::Committed(committed))
    }

    pub(super) async fn replace_durably(
        &self,
        writer: &Writer,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        let name = staged_name(staging);
        let staged = self.cells.get(&name);
        let staged_turn = match &staged {
            Some(staged) => Some(staged.alone().await),
            None => None,
        };
        let cell = self.cells.get_or_make(&staging.namespace, || self.unborn());
        let turn = cell.alone().await;
        let record = {
            let mut image = cell.image.write();
            let now_ms = image.time_ms(self.clock_ms());
            match moved_at_all(&image, at, None, now_ms) {
                Some(moved) => Err(moved),
                None => {
                    let revision = revision_after(&image, staging);
                    let action = Action::Replace(staged.is_some().then_some(name), revision);
                    Ok(stamp(&mut image, &staging.namespace, action, now_ms))
                }
            }
        };
        let record = match record {
            Ok(record) => record,
            Err(moved) => {
                drop(turn);
                self.cells.discard(&staging.namespace, cell);
                return Ok(CommitOutcome::Moved(moved));
            }
        };
        let answered = writer.hand_in(cell.clone(), turn, record);
        // What is staged must not be thrown away before the journal has done with it, whether or not the caller waits.
        let answered = tokio::spawn(async move {
            let answered = answered.await;
            drop(staged_turn);
            answered
        });
        let written = match answered.await {
            Ok(Ok(written)) => written,
            Ok(Err(_)) | Err(_) => Err(lost()),
        };
        if written.is_err() {
            self.cells.discard(&staging.namespace, cell);
        }
        Ok(CommitOutcome::Committed(written?))
    }

    pub(super) async fn drop_staging(&self, staging: &Staging) {
        let name = staged_name(staging);
        let Some(cell) = self.cells.get(&name) else {
            return;
        };
        let turn = match &self.writer {
            Some(_) => Some(cell.alone().await),
            None => None,
        };
        if let (Some(writer), Some(turn)) = (&self.writer, turn) {
            let record = {
                let mut image = cell.image.write();
                let now_ms = image.time_ms(self.clock_ms());
                stamp(&mut image, &name, Action::Delete, now_ms)
            };
            // What cannot be deleted now is of no use after the next start.
            let _ = writer.write(cell.clone(), turn, record).await;
        }
        drop_at_leisure(cell.take_image());
        self.cells.remove(&name);
    }

    /// Refuses what could not be put in place even if it were to replace all there is.
    fn check_room(&self, staged: Usage) -> Result<(), BackendError> {
        for (what, limit, size) in [
            ("max_keys", self.capacity.max_keys, staged.keys),
            ("max_bytes", self.capacity.max_bytes, staged.bytes),
        ] {
            if let Some(limit) = limit.filter(|limit| size > *limit) {
                return Err(BackendError::Full { what, limit });
            }
        }
        Ok(())
    }
}

/// Where a namespace goes on once it is replaced.
fn revision_after(image: &Image, staging: &Staging) -> Revision {
    image.revision().max(staging.revision).next()
}
