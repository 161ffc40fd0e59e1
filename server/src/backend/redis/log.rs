//! The log: reading it, and forgetting its oldest part.

use std::sync::Arc;

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
    Ancestor, BackendError, Change, Changes, Key, LogBounds, LogShape, LoggedChange, Retain,
    Revision, StoredEntry, Trimmed,
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
            to: Bytes::from_static(b"+"),
            room: limit,
            bytes_room: limit_bytes,
        };
        let mut changes: Vec<LoggedChange> = Vec::new();
        let mut bytes_read = 0;
        let mut lineage = None;
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
                let is_full = changes.len() >= limit || bytes_read >= limit_bytes;
                let last = changes.last().map(|last| last.change.revision);
                if is_full && let Some(last) = last.filter(|last| *last < logged.change.revision) {
                    return Ok(Changes { tip, changes, through: last });
                }
                bytes_read += logged.change.log_bytes();
                changes.push(logged);
                step.from = [b"(", &id[..]].concat().into();
            }
            let last = changes.last().map_or(after, |last| last.change.revision);
            if !is_more {
                let is_end = step.is_to_the_end();
                let through = if is_end { tip.revision } else { last };
                return Ok(Changes { tip, changes, through });
            }
            // The last revision may go on after what was read: it is left out, unless there is no other.
            let whole = changes.partition_point(|logged| logged.change.revision < last);
            if whole > 0 {
                changes.truncate(whole);
                let through = changes[whole - 1].change.revision;
                return Ok(Changes { tip, changes, through });
            }
            step = Step::rest_of(last, step.from);
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
    to: Bytes,
    /// How many entries,
    room: usize,
    /// and about how many bytes.
    bytes_room: u64,
}

impl Step {
    /// What one revision has left: that is read however much it is, in steps that the script bounds.
    fn rest_of(revision: Revision, from: Bytes) -> Self {
        Self {
            from,
            to: revision.to_string().into(),
            room: usize::from(u16::MAX),
            bytes_room: STEP_BYTES,
        }
    }

    fn is_to_the_end(&self) -> bool {
        self.to == "+"
    }

    fn args(&self) -> [Bytes; 4] {
        let Self { from, to, room, bytes_room } = self;
        [from.clone(), to.clone(), room.to_string().into(), bytes_room.to_string().into()]
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

/// An entry of the log, and its id.
fn logged(entry: Value) -> Result<(Bytes, LoggedChange), BackendError> {
    let mut parts = Parts::of(entry)?;
    let id = parts.bytes()?;
    let mut fields = parts.list()?.into_iter().skip(1).step_by(2);
    let mut field = || fields.next();
    let named = field().ok_or_else(|| strange("a log without keys"))?;
    let key = key(named)?;
    let change = change_of(&key, field())?.ok_or_else(|| strange("a log without records"))?;
    let previous = change_of(&key, field())?.and_then(StoredEntry::of);
    Ok((id, LoggedChange { change, previous }))
}

fn change_of(key: &Key, value: Option<Value>) -> Result<Option<Arc<Change>>, BackendError> {
    let text = value.map(bytes).transpose()?.flatten();
    text.map(|text| record::parse(key.clone(), text)).transpose()
}
