//! Commits: one script each, which checks what they rely on and applies them.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use redis::Value;

use super::{
    Core,
    answer::{bytes, strange},
    head::Head,
    lane::{Answer, Lane},
    pause,
    read::key,
    record::{self, clear_rest, write_args},
};
use crate::backend::{
    BackendError, Commit, CommitOutcome, Committed, GroupStamp, Groups, Key, Moved, Position,
    Revision, StoredEntry, Tip, Write, is_logged,
};

/// How often a commit waits for the turn of another to end.
const MAX_WAITS: usize = 200;

impl Core {
    pub(super) async fn commit(
        &self,
        lane: &Lane,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        let logged = logged(&commit.groups);
        let is_empty = commit.groups.is_empty();
        let mut args = self.commit_args(lane, commit);
        let mut waited_ms = 0;
        for _ in 0..MAX_WAITS {
            let refused_at_ms = lane.refused_at_ms.load(Ordering::Relaxed);
            if refused_at_ms > 0 {
                args[REFUSED] = (refused_at_ms + waited_ms).to_string().into();
            }
            let named = async {
                match is_empty {
                    true => Ok(()),
                    false => self.register(lane).await,
                }
            };
            // Sent first, and answered before or with the commit.
            let (named, answer) =
                futures::join!(named, self.tell(lane, &self.scripts.commit, &args));
            let Answer { verdict, head, mut parts } = answer?;
            if let Err(error) = named {
                // The name is added with the next commit; until then the namespace is only not listed.
                tracing::warn!(namespace = lane.name.as_str(), %error, "a name was not added");
            }
            match &verdict[..] {
                b"done" => {
                    lane.refused_at_ms.store(0, Ordering::Relaxed);
                    let before = Revision(parts.number()? as u64);
                    let committed = self.committed(lane, &head, before, &logged);
                    return Ok(CommitOutcome::Committed(committed));
                }
                b"moved" => {
                    let changed = changed(parts.take()?)?;
                    if changed.as_ref().is_none_or(|changed| !changed.is_empty()) {
                        lane.refused_at_ms.store(head.tip.time_ms, Ordering::Relaxed);
                    }
                    return Ok(CommitOutcome::Moved(Moved { tip: head.tip, changed }));
                }
                b"busy" => {
                    let wait_ms = (parts.number()? - head.tip.time_ms).clamp(1, 50);
                    waited_ms += wait_ms;
                    pause(Duration::from_millis(wait_ms as u64)).await;
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
            clear_rest(),
        ];
        let ends = if records.is_empty() { Vec::new() } else { vec![records.len()] };
        group_args(Groups { writes: records, ends }, &mut args);
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
        let answer = self.tell(lane, &self.scripts.delete, &args).await?;
        Ok((answer.verdict == "done").then_some(answer.head.tip))
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
            time_ms,
            next_deadline_ms: self.look_at(lane, head.next_deadline_ms),
            log: head.log,
        }
    }

    fn commit_args(&self, lane: &Lane, commit: Commit<'_>) -> Vec<Bytes> {
        let Commit { at, reads, groups, valid_until_ms, exact_revision } = commit;
        let (keys, ranges) = (reads.keys.len(), reads.ranges.len());
        let mut args =
            Vec::with_capacity(9 + keys + 3 * ranges + 2 * groups.len() + 7 * groups.writes.len());
        args.extend([
            self.server.clone().into(),
            self.channel.clone(),
            lane.sender.clone(),
            at.0.to_string().into(),
            optional(valid_until_ms),
            optional(exact_revision),
            Bytes::from_static(b"0"),
            keys.to_string().into(),
            ranges.to_string().into(),
        ]);
        let text = |key: &Key| Bytes::copy_from_slice(key.as_bytes());
        args.extend(reads.keys.iter().map(text));
        for range in &reads.ranges {
            let end = range.end.as_ref().map(text);
            let has_end = Bytes::from_static(if end.is_some() { b"1" } else { b"0" });
            args.extend([text(&range.start), end.unwrap_or_default(), has_end]);
        }
        group_args(groups, &mut args);
        args
    }
}

/// A key and what it holds.
type Held = (Key, Option<StoredEntry>);

/// Where among the arguments of a commit it stands since when a turn is needed.
const REFUSED: usize = 6;

/// Which groups take a revision.
fn logged(groups: &Groups) -> Vec<bool> {
    let mut start = 0;
    let group = |end: &usize| {
        let group = &groups.writes[start..*end];
        start = *end;
        is_logged(group)
    };
    groups.ends.iter().map(group).collect()
}

fn group_args(groups: Groups, args: &mut Vec<Bytes>) {
    let logged = logged(&groups);
    let mut writes = groups.writes.into_iter();
    let mut start = 0;
    for (end, is_logged) in groups.ends.into_iter().zip(logged) {
        args.push((end - start).to_string().into());
        args.push(Bytes::from_static(if is_logged { b"1" } else { b"0" }));
        for write in writes.by_ref().take(end - start) {
            write_args(write, args);
        }
        start = end;
    }
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
