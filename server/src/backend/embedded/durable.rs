//! How commits are made by way of the journal.

use std::sync::Arc;

use futures::FutureExt as _;

use super::{
    Embedded,
    cells::{Cell, Cells, Turn},
    commit::{
        committed, drop_at_leisure, is_in_time, is_upon, moved, moved_at_all, moved_or_due,
        new_lineage,
    },
    image::Image,
    journal::{Action, Record},
    writer::{Answered, Writer, lost},
};
use crate::backend::{
    BackendError, Begun, Commit, CommitOutcome, Committed, Generation, Key, NamespaceName,
    Position, ReadAnswer, StoredEntry, Tip, Write,
};

/// A commit that has its stamp.
pub(super) struct Stamped {
    pub record: Record,
    /// Which of those before it have to be kept, if it is to be.
    pub generation: Generation,
}

/// What becomes of a commit that would follow those on their way.
enum Followed<'a> {
    /// It does.
    Begun(Answered),
    /// It may once fewer are.
    Full(Commit<'a>),
    /// It may not.
    No(Commit<'a>),
}

impl Embedded {
    /// Checks a commit and hands it to the journal.
    ///
    /// Invariant: a commit is on its way from its stamp until it is applied or refused. Of those of one namespace that are, each
    /// was made upon the one before, and is handed in after it.
    pub(super) async fn begin_durably(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        mut commit: Commit<'_>,
    ) -> Result<Begun, BackendError> {
        let cell = match self.cell(namespace) {
            None if commit.groups.is_empty() => {
                let nothing = Committed::nothing(&self.nowhere());
                return Ok(Begun::Ended(CommitOutcome::Committed(nothing)));
            }
            None => self.cells.get_or_make(namespace, || self.unborn()),
            Some(cell) => cell,
        };
        let commit = loop {
            let moved_on = cell.moved_on();
            match self.follow(writer, namespace, &cell, commit) {
                Followed::Begun(answered) => {
                    return Ok(Begun::UnderWay(answer(answered).boxed()));
                }
                Followed::Full(back) => commit = back,
                Followed::No(commit) => break commit,
            }
            moved_on.await;
        };
        self.begin_alone(writer, namespace, cell, commit).await
    }

    /// Has a commit follow those on their way, if it was made upon them.
    fn follow<'a>(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        cell: &Arc<Cell>,
        commit: Commit<'a>,
    ) -> Followed<'a> {
        let knows_keys_only = commit.reads.ranges.is_empty() && commit.most_before.is_none();
        let turn = match cell.beside() {
            Some(turn) if knows_keys_only && !commit.groups.is_empty() => turn,
            _ => return Followed::No(commit),
        };
        let _order = cell.order.lock();
        let stamped = {
            let mut image = cell.image.write();
            let now_ms = image.under_way.time_ms(self.clock_ms());
            let holds = image.under_way.stand().is_some_and(|(position, revision)| {
                commit.at == position
                    && is_upon(&image, &commit)
                    && commit.exact_revision.is_none_or(|exact| exact == revision)
                    && is_in_time(commit.valid_until_ms, now_ms)
            });
            if !holds {
                return Followed::No(commit);
            }
            if image.under_way.is_full() {
                return Followed::Full(commit);
            }
            stamp(&mut image, namespace, Action::Write(commit.groups), now_ms)
        };
        Followed::Begun(writer.hand_in(cell.clone(), turn, stamped))
    }

    /// Makes a commit upon what is in the image, once nothing is on its way. The first of a history is waited for.
    async fn begin_alone(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        cell: Arc<Cell>,
        commit: Commit<'_>,
    ) -> Result<Begun, BackendError> {
        let turn = cell.alone().await;
        let begins = cell.image.read().lineage.is_none();
        let ended = match self.hand_in_first(writer, namespace, &cell, turn, commit) {
            Begun::UnderWay(committed) if begins => committed.await.map(CommitOutcome::Committed),
            Begun::Ended(outcome) => Ok(outcome),
            begun => return Ok(begun),
        };
        self.cells.discard(namespace, cell);
        ended.map(Begun::Ended)
    }

    fn hand_in_first(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        cell: &Arc<Cell>,
        turn: Turn,
        commit: Commit<'_>,
    ) -> Begun {
        let _order = cell.order.lock();
        let stamped = {
            let mut image = cell.image.write();
            let now_ms = image.time_ms(self.clock_ms());
            if let Some(moved) = moved(&image, &commit, now_ms) {
                return Begun::Ended(CommitOutcome::Moved(moved));
            }
            if commit.groups.is_empty() {
                let before = image.revision();
                let committed = committed(&image, before, Vec::new(), now_ms);
                return Begun::Ended(CommitOutcome::Committed(committed));
            }
            stamp(&mut image, namespace, Action::Write(commit.groups), now_ms)
        };
        let turn = match can_be_followed(&stamped.record) {
            true => turn.shared(),
            false => turn,
        };
        Begun::UnderWay(answer(writer.hand_in(cell.clone(), turn, stamped)).boxed())
    }

    /// What keys will hold once all is kept that is on its way; nothing if nothing is that can be followed.
    pub(super) fn read_upon_commits(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
    ) -> Option<(ReadAnswer, Generation)> {
        let cell = self.cell(namespace)?;
        let image = cell.image.read();
        let (position, revision) = image.under_way.stand()?;
        let time_ms = image.under_way.time_ms(self.clock_ms());
        let entry = |key: &Key| match image.under_way.newest(key) {
            Some(newest) => newest,
            None => image.newest(key).and_then(StoredEntry::of),
        };
        let entries = keys.iter().map(entry).collect();
        let tip = Tip { position, revision, time_ms, ..image.tip(0) };
        Some((ReadAnswer { tip, entries }, image.under_way.generation()))
    }

    pub(super) async fn clear_durably(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(CommitOutcome::Committed(Committed::nothing(&self.nowhere())));
        };
        let turn = cell.alone().await;
        let stamped = {
            let mut image = cell.image.write();
            let now_ms = image.time_ms(self.clock_ms());
            if let Some(moved) = moved_or_due(&mut image, at, valid_until_ms, now_ms) {
                return Ok(CommitOutcome::Moved(moved));
            }
            stamp(&mut image, namespace, Action::Clear(records), now_ms)
        };
        Ok(CommitOutcome::Committed(writer.write(cell, turn, stamped).await?))
    }

    pub(super) async fn delete_durably(
        &self,
        writer: &Writer,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        let Some(cell) = self.cell(namespace) else {
            return Ok(Some(self.nowhere()));
        };
        let turn = cell.alone().await;
        let (tip, stamped) = {
            let mut image = cell.image.write();
            let now_ms = image.time_ms(self.clock_ms());
            if moved_at_all(&image, at, valid_until_ms, now_ms).is_some() {
                return Ok(None);
            }
            let tip = image.tip(now_ms);
            if tip.lineage.is_none() {
                return Ok(Some(tip));
            }
            (tip, stamp(&mut image, namespace, Action::Delete, now_ms))
        };
        writer.write(cell, turn, stamped).await?;
        Ok(Some(tip))
    }
}

/// What the journal answered.
async fn answer(answered: Answered) -> Result<Committed, BackendError> {
    answered.await.map_err(|_| lost())?
}

/// Gives a commit that may be made its stamp, after those on their way. Until the first of all is in the image the time stands
/// still, at its stamp.
pub(super) fn stamp(
    image: &mut Image,
    namespace: &NamespaceName,
    action: Action,
    time_ms: i64,
) -> Stamped {
    let under_way = image.under_way.stand();
    if under_way.is_none() {
        image.hold_time(time_ms);
    }
    let (last, before) = under_way.unwrap_or((image.position(), image.revision()));
    let begins = match &action {
        Action::Write(_) | Action::Clear(_) => image.lineage.is_none(),
        Action::Stage(_) | Action::Delete => false,
        Action::Replace(..) => true,
    };
    let record = Record {
        namespace: namespace.clone(),
        position: Position(last.0 + 1),
        before,
        time_ms,
        lineage: begins.then(new_lineage),
        compacted: image.unrecorded_compaction(),
        action,
    };
    if can_be_followed(&record) {
        image.under_way.add(&record);
    }
    Stamped { record, generation: image.under_way.generation() }
}

/// Whether all that it changes is what keys hold.
fn can_be_followed(record: &Record) -> bool {
    matches!(record.action, Action::Write(_)) && record.lineage.is_none()
}

/// Applies what the journal has kept.
pub(super) fn apply(cells: &Cells, cell: &Cell, record: Record) -> Committed {
    // Not while the image is locked: others lock images while they look through the cells.
    let staged_name = record.action.staged().cloned();
    let staged = staged_name.as_ref().and_then(|name| cells.get(name));
    let mut image = cell.image.write();
    let (before, position) = (image.revision(), record.position);
    if let Some(compacted) = record.compacted {
        image.set_recorded_compaction(compacted);
    }
    let lineage = record.lineage;
    if let Some(lineage) = lineage.filter(|_| image.lineage.is_none()) {
        image.begin(lineage, record.time_ms);
    }
    let stamps = match record.action {
        Action::Write(groups) => image.apply(groups),
        Action::Clear(records) => {
            let (stamp, removed) = image.clear(records);
            drop_at_leisure(removed);
            vec![stamp]
        }
        Action::Delete => {
            let deleted = image.deleted();
            drop_at_leisure(std::mem::replace(&mut *image, deleted));
            Vec::new()
        }
        Action::Stage(entries) => vec![image.stage(entries)],
        Action::Replace(_, revision) => {
            let staged = staged.map(|staged| staged.take_image());
            let (stamp, replaced) = image.put_in_place(staged, lineage, revision);
            drop_at_leisure(replaced);
            vec![stamp]
        }
    };
    let committed = committed(&image, before, stamps, record.time_ms);
    image.under_way.applied(position);
    image.let_time_go_on();
    cell.announce(&image);
    drop(image);
    cell.tell_moved_on();
    if let Some(staged) = staged_name {
        // Only now: a snapshot finds what was staged either there or here.
        cells.remove(&staged);
    }
    committed
}

/// Takes the stamps of a commit and of those behind it off a namespace again: it was not kept.
pub(super) fn refuse(cell: &Cell, generation: Generation) {
    {
        let mut image = cell.image.write();
        image.under_way.refused(generation);
        image.let_time_go_on();
    }
    cell.tell_moved_on();
}

/// Whether a commit was made upon one that was not kept.
pub(super) fn is_stale(cell: &Cell, generation: Generation) -> bool {
    cell.image.read().under_way.generation() != generation
}
