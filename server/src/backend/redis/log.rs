//! The log: reading it, and forgetting its oldest part.

use bytes::Bytes;
use redis::Value;

use super::{
    Core,
    answer::{Parts, bytes, strange},
    head::{check_not_lost, losses},
    lane::{Answer, Lane},
    read::key,
    record,
};
use crate::backend::{
    Ancestor, BackendError, Changes, Key, LogBounds, LogShape, LoggedChange, Retain, Revision,
    SharedChange, StoredEntry, Trimmed,
};

/// About how many bytes of one revision are read in one step.
const STEP_BYTES: u64 = 1 << 20;
/// Who forgets fewer changes does so along with a commit, which is not to take another round trip for them each time.
const SWEPT: usize = 1000;

impl Core {
    pub(super) async fn changes(
        &self,
        lane: &Lane,
        after: Revision,
        limit: usize,
        limit_bytes: u64,
    ) -> Result<Changes, BackendError> {
        let mut step = Step {
            from: format!("{}-0", after.next()).into(),
            room: limit,
            bytes_room: limit_bytes,
        };
        let mut changes: Vec<LoggedChange> = Vec::new();
        let mut bytes_read = 0;
        let mut lineage = None;
        // Once nothing but the rest of one revision is left to be read.
        let mut is_rest = false;
        loop {
            let Answer { head, mut parts, .. } =
                self.ask(lane, &self.scripts.changes, &step.args()).await?;
            let tip = head.tip;
            let ancestors = bytes(parts.take()?)?.unwrap_or_default();
            check_not_lost(&tip, &losses(&ancestors)?, after)?;
            head.resume_after(after)?;
            if limit == 0 {
                return Ok(Changes { tip, changes, through: after });
            }
            if *lineage.get_or_insert(tip.lineage) != tip.lineage {
                // What was read of the revision so far may be of another history.
                return Err(BackendError::Unavailable("the history changed meanwhile".into()));
            }
            let found = parts.list()?;
            let is_more = parts.number()? == 1;
            for entry in found {
                let (id, logged) = logged(entry)?;
                // An entry of the log may begin before what was asked for.
                for logged in logged.into_iter().filter(|it| it.change.revision > after) {
                    let is_full = is_rest || changes.len() >= limit || bytes_read >= limit_bytes;
                    let last = changes.last().map(|last| last.change.revision);
                    if is_full
                        && let Some(last) = last.filter(|last| *last < logged.change.revision)
                    {
                        return Ok(Changes { tip, changes, through: last });
                    }
                    bytes_read += logged.change.log_bytes();
                    changes.push(logged);
                }
                step.from = [b"(", &id[..]].concat().into();
            }
            let last = changes.last().map_or(after, |last| last.change.revision);
            if !is_more {
                return Ok(Changes { tip, changes, through: tip.revision });
            }
            // The last revision may go on after what was read: it is left out, unless there is no other.
            let whole = changes.partition_point(|logged| logged.change.revision < last);
            if whole > 0 {
                changes.truncate(whole);
                let through = changes[whole - 1].change.revision;
                return Ok(Changes { tip, changes, through });
            }
            // That is read however much it is, in steps that the script bounds.
            is_rest = !changes.is_empty();
            step = Step { room: usize::from(u16::MAX), bytes_room: STEP_BYTES, ..step };
        }
    }

    pub(super) async fn ancestors(&self, lane: &Lane) -> Result<Vec<Ancestor>, BackendError> {
        let Answer { mut parts, .. } = self.ask(lane, &self.scripts.ancestors, &[]).await?;
        let text = bytes(parts.take()?)?.unwrap_or_default();
        Ok(losses(&text)?.into_iter().map(|loss| loss.ancestor).collect())
    }

    pub(super) async fn trim(
        &self,
        lane: &Lane,
        retain: &Retain,
        limit: usize,
    ) -> Result<Trimmed, BackendError> {
        if let (Retain::Bounds(bounds), true) = (retain, limit < SWEPT) {
            let log = *lane.log.lock();
            if is_nearly_within(bounds, log) {
                return Ok(Trimmed { log, more: true });
            }
        }
        let args = trim_args(retain, limit);
        let Answer { head, mut parts, .. } = self.tell(lane, &self.scripts.trim, &args).await?;
        if let Retain::After(revision) = retain
            && *revision > head.tip.revision
        {
            return Err(BackendError::Future { newest: head.tip.revision });
        }
        Ok(Trimmed { log: head.log, more: parts.number()? == 1 })
    }
}

/// A part of the log to be read.
struct Step {
    from: Bytes,
    /// How many events,
    room: usize,
    /// and about how many bytes.
    bytes_room: u64,
}

impl Step {
    fn args(&self) -> [Bytes; 3] {
        let Self { from, room, bytes_room } = self;
        [from.clone(), room.to_string().into(), bytes_room.to_string().into()]
    }
}

/// Whether a log is so little over its bounds that forgetting can wait for a sweep.
fn is_nearly_within(bounds: &LogBounds, log: LogShape) -> bool {
    let slack = |bound: u64| bound.saturating_add(bound / 8);
    log.events <= slack(bounds.max_events) && log.bytes <= slack(bounds.max_bytes)
}

fn trim_args(retain: &Retain, limit: usize) -> Vec<Bytes> {
    let mut args = vec![limit.to_string().into()];
    match retain {
        Retain::After(revision) => args.push(revision.to_string().into()),
        Retain::Bounds(bounds) => {
            let LogBounds {
                max_events,
                max_bytes,
                since_ms,
                young_since_ms,
                pinned,
                ceiling_bytes,
            } = bounds;
            args.push(Bytes::new());
            args.extend([*max_events, *max_bytes].map(|bound| bound.to_string().into()));
            args.extend([*since_ms, *young_since_ms].map(|moment| moment.to_string().into()));
            args.push(pinned.map(|pinned| pinned.to_string().into()).unwrap_or_default());
            args.push(ceiling_bytes.to_string().into());
        }
    }
    args
}

/// An entry of the log: its id, and its events.
fn logged(entry: Value) -> Result<(Bytes, Vec<LoggedChange>), BackendError> {
    let mut parts = Parts::of(entry)?;
    let id = parts.bytes()?;
    let mut fields = parts.list()?.into_iter();
    let mut events = Vec::new();
    while let Some(named) = fields.next() {
        let key = key(named)?;
        let change = change_of(&key, fields.next())?;
        let change = change.ok_or_else(|| strange("a log without records"))?;
        // How it stands with what was before is for the scripts.
        fields.next();
        let previous = change_of(&key, fields.next())?.and_then(StoredEntry::of);
        events.push(LoggedChange { change, previous });
    }
    Ok((id, events))
}

fn change_of(key: &Key, value: Option<Value>) -> Result<Option<SharedChange>, BackendError> {
    let text = value.map(bytes).transpose()?.flatten().filter(|text| !text.is_empty());
    text.map(|text| record::parse(key.clone(), text)).transpose()
}
