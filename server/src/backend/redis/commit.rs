//! Commits: one script each, which checks what they rely on and applies them.

use std::{
    mem,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use bytes::Bytes;
use redis::Value;
use uuid::Uuid;

use super::{
    Core,
    answer::{bytes, strange},
    head::Head,
    lane::{Answer, Lane},
    pause,
    read::key,
    record::{self, empty_rest},
    writes::Writes,
};
use crate::backend::{
    BackendError, Commit, CommitOutcome, Committed, GroupStamp, Groups, Key, Lineage, Moved,
    Position, Revision, StoredEntry, Tip, Write,
};

/// How often a commit waits for the turn of another to end.
const MAX_WAITS: usize = 200;

impl Core {
    pub(super) async fn commit(
        &self,
        lane: &Lane,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        let is_empty = commit.groups.is_empty();
        let script = match makes_room(&commit.groups) {
            true => &self.scripts.commit_removals,
            false => &self.scripts.commit,
        };
        let (mut args, logged) = self.commit_args(lane, commit);
        let mut waited = Waited::default();
        for attempt in 0..MAX_WAITS {
            let refused_at_ms = lane.contest.write_down(&mut args);
            args[PASSED] = waited.passed();
            let named = async {
                match is_empty {
                    true => Ok(()),
                    false => self.register(lane).await,
                }
            };
            // Sent first, and answered before or with the commit.
            let (named, answer) = futures::join!(named, self.tell(lane, script, &args));
            let Answer { verdict, head, mut parts } = answer?;
            if attempt == 0 {
                lane.contest.note_pace(refused_at_ms, head.tip.time_ms);
            }
            if let Err(error) = named {
                // The name is added with the next commit; until then the namespace is only not listed.
                tracing::warn!(namespace = lane.name.as_str(), %error, "a name was not added");
            }
            match &verdict[..] {
                b"done" => {
                    lane.contest.won(head.tip.time_ms);
                    let before = Revision(parts.number()? as u64);
                    let committed = self.committed(lane, &head, before, &logged);
                    return Ok(CommitOutcome::Committed(committed));
                }
                b"moved" => {
                    let changed = changed(parts.take()?)?;
                    if changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
                        lane.contest.lost(head.tip.time_ms);
                    }
                    return Ok(CommitOutcome::Moved(Moved { tip: head.tip, changed }));
                }
                b"busy" => {
                    let left_ms = parts.number()? - head.tip.time_ms;
                    waited.meet(parts.bytes()?, left_ms);
                    let wait_ms = left_ms.clamp(1, 50);
                    tokio::select! {
                        () = lane.turn.notified() => {}
                        () = pause(Duration::from_millis(wait_ms as u64)) => waited.add(wait_ms),
                    }
                }
                _ => return Err(strange("a verdict on a commit")),
            }
        }
        Err(BackendError::Unavailable("others do not let this server have its turn".into()))
    }

    pub(super) async fn clear(
        &self,
        lane: &Lane,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        let mut args = vec![
            self.channel.clone(),
            lane.sender.clone(),
            at.0.to_string().into(),
            optional(valid_until_ms),
            empty_rest(),
        ];
        let ends = if records.is_empty() { Vec::new() } else { vec![records.len()] };
        let writes = Writes::of(Groups { writes: records, ends }, &[]);
        args.extend(writes.counts());
        args.extend(writes.keys());
        args.extend(writes.into_words());
        let Answer { verdict, head, mut parts } =
            self.tell(lane, &self.scripts.clear, &args).await?;
        match &verdict[..] {
            b"nothing" => Ok(CommitOutcome::Committed(Committed::nothing(&head.tip))),
            b"moved" => Ok(CommitOutcome::Moved(Moved { tip: head.tip, changed: None })),
            _ => {
                let before = Revision(parts.number()? as u64);
                Ok(CommitOutcome::Committed(self.committed(lane, &head, before, &[true])))
            }
        }
    }

    pub(super) async fn delete(
        &self,
        lane: &Lane,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        let args = [
            self.channel.clone(),
            lane.sender.clone(),
            at.0.to_string().into(),
            optional(valid_until_ms),
        ];
        let Answer { verdict, head, mut parts } =
            self.tell(lane, &self.scripts.delete, &args).await?;
        if verdict != "done" {
            return Ok(None);
        }
        // That of what there was.
        let lineage = Uuid::try_parse_ascii(&parts.bytes()?).ok().map(Lineage);
        Ok(Some(Tip { lineage, ..head.tip }))
    }

    /// What a commit answers, of groups of which these take a revision.
    pub(super) fn committed(
        &self,
        lane: &Lane,
        head: &Head,
        before: Revision,
        logged: &[bool],
    ) -> Committed {
        let time_ms = head.tip.time_ms;
        let mut revision = before;
        let stamp = |is_logged: &bool| {
            if *is_logged {
                revision = revision.next();
            }
            GroupStamp { revision, time_ms }
        };
        Committed {
            stamps: logged.iter().map(stamp).collect(),
            before,
            tip: head.tip,
            next_deadline_ms: self.look_at(lane, head.next_deadline_ms),
            log: head.log,
        }
    }

    /// The arguments, and which groups take a revision.
    fn commit_args(&self, lane: &Lane, commit: Commit<'_>) -> (Vec<Bytes>, Vec<bool>) {
        let Commit { at, reads, groups, valid_until_ms, exact_revision, most_before, upon: _ } =
            commit;
        let (count, ranges) = (5 * groups.writes.len() + reads.keys.len(), reads.ranges.len());
        let mut writes = Writes::of(groups, &reads.keys);
        let mut args = Vec::with_capacity(22 + 3 * ranges + count);
        args.extend([
            self.server.clone().into(),
            self.channel.clone(),
            lane.sender.clone(),
            at.0.to_string().into(),
            optional(valid_until_ms),
            optional(exact_revision),
            Bytes::new(),
            Bytes::new(),
            Bytes::new(),
            optional(most_before.map(|most| most.keys)),
            optional(most_before.map(|most| most.bytes)),
        ]);
        args.extend(writes.counts());
        args.push(writes.only_read());
        args.push(ranges.to_string().into());
        args.extend(writes.keys());
        let text = |key: &Key| Bytes::copy_from_slice(key.as_bytes());
        for range in &reads.ranges {
            let end = range.end.as_ref().map(text);
            let has_end = Bytes::from_static(if end.is_some() { b"1" } else { b"0" });
            args.extend([text(&range.start), end.unwrap_or_default(), has_end]);
        }
        let logged = mem::take(&mut writes.logged);
        args.extend(writes.into_words());
        (args, logged)
    }
}

/// A key and what it holds.
type Held = (Key, Option<StoredEntry>);

/// Where among the arguments of a commit it stands how long after a refusal the next attempt comes,
const PACE: usize = 6;
/// which turn is over by this machine's clock,
const PASSED: usize = 7;
/// and when the last attempt was refused.
const REFUSED: usize = 8;

/// For an attempt that is the first, and yet asks for a turn: it was refused at no time before now.
const NEVER_REFUSED: &str = "9007199254740991";
/// For how long after a refusal a turn is asked for with the first attempt already: where servers fight over the same keys,
/// who is farther from Redis would else be refused once more than the others for each of its commits.
const CONTESTED_MS: i64 = 1000;

/// How this server fares beside others that write the same, by the store's clock.
#[derive(Default)]
pub(super) struct Contest {
    /// When the last attempt was refused because others were faster; 0: it was not.
    refused_at_ms: AtomicI64,
    /// When any was, last.
    lost_at_ms: AtomicI64,
    /// When a commit was made last.
    won_at_ms: AtomicI64,
    /// How long after a refusal the next attempt comes.
    pace_ms: AtomicI64,
}

impl Contest {
    /// Writes down what the next attempt tells of this; answers when the last one was refused, or 0.
    fn write_down(&self, args: &mut [Bytes]) -> i64 {
        let [refused_at, lost_at, won_at, pace] =
            [&self.refused_at_ms, &self.lost_at_ms, &self.won_at_ms, &self.pace_ms]
                .map(|number| number.load(Ordering::Relaxed));
        let is_contested = refused_at > 0 || won_at - lost_at < CONTESTED_MS && lost_at > 0;
        args[PACE] = pace.to_string().into();
        args[REFUSED] = match (refused_at, is_contested) {
            (0, true) => NEVER_REFUSED.into(),
            _ => refused_at.to_string().into(),
        };
        refused_at
    }

    fn note_pace(&self, refused_at_ms: i64, now_ms: i64) {
        if refused_at_ms > 0 {
            let took_ms = (now_ms - refused_at_ms).clamp(0, 500);
            // What was slow once may not be the next time.
            let known_ms = self.pace_ms.load(Ordering::Relaxed) * 7 / 8;
            self.pace_ms.store(took_ms.max(known_ms), Ordering::Relaxed);
        }
    }

    fn lost(&self, now_ms: i64) {
        self.refused_at_ms.store(now_ms, Ordering::Relaxed);
        self.lost_at_ms.store(now_ms, Ordering::Relaxed);
    }

    fn won(&self, now_ms: i64) {
        self.refused_at_ms.store(0, Ordering::Relaxed);
        self.won_at_ms.store(now_ms, Ordering::Relaxed);
    }
}

/// How long a commit has waited for the turns of others, by this machine's clock: that of Redis may stand still, or be set
/// back, and must not keep a server out by that.
#[derive(Default)]
struct Waited {
    /// The turn that was met last, as Redis names it.
    turn: Bytes,
    /// How long it had to last when it was first met, less what was waited for it since.
    left_ms: i64,
}

impl Waited {
    fn meet(&mut self, turn: Bytes, left_ms: i64) {
        if self.turn != turn {
            (self.turn, self.left_ms) = (turn, left_ms);
        }
    }

    fn add(&mut self, waited_ms: i64) {
        self.left_ms -= waited_ms;
    }

    /// The turn that is over by now, if any was met.
    fn passed(&self) -> Bytes {
        if self.left_ms <= 0 { self.turn.clone() } else { Bytes::new() }
    }
}

/// Whether a commit removes something, and writes nothing beside that but what is internal, which is small: that something has
/// ended, or was answered.
fn makes_room(groups: &Groups) -> bool {
    let removes = |write: &Write| write.op.draft().is_none();
    groups.writes.iter().any(removes)
        && groups.writes.iter().all(|write| removes(write) || write.key.is_internal())
}

/// A number, or nothing.
fn optional(number: Option<impl ToString>) -> Bytes {
    number.map(|number| number.to_string().into()).unwrap_or_default()
}

/// The keys that were changed, with what they hold now; `None`: that is not known.
fn changed(value: Value) -> Result<Option<Vec<Held>>, BackendError> {
    let Value::Array(parts) = value else {
        return Ok(None);
    };
    let mut changed = Vec::with_capacity(parts.len() / 2);
    let mut parts = parts.into_iter();
    while let (Some(named), Some(record)) = (parts.next(), parts.next()) {
        let key = key(named)?;
        let record = bytes(record)?.map(|text| record::parse(key.clone(), text)).transpose()?;
        changed.push((key, record.and_then(StoredEntry::of)));
    }
    Ok(Some(changed))
}
