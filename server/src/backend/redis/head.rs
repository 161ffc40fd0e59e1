//! Where a namespace stands, as it comes with every answer.

use redis::Value;
use uuid::Uuid;

use super::answer::{list, parse, strange};
use crate::backend::{
    Ancestor, BackendError, Lineage, LogShape, NamespaceInfo, NamespaceName, Position, Revision,
    Tip, Usage,
};

/// The names of the fields of the head of a namespace, in the order that the prelude of the scripts has them in.
pub(super) const FIELDS: [&str; 20] = [
    "format",
    "identity",
    "lineage",
    "created_ms",
    "position",
    "revision",
    "time_ms",
    "birth",
    "compacted",
    "cleared",
    "keys",
    "bytes",
    "events",
    "log_bytes",
    "oldest_ms",
    "next_ms",
    "forgotten",
    "half",
    "half_keys",
    "turn",
];

/// The format that this version knows.
const FORMAT: &[u8] = b"1";

/// Where a namespace stands.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub tip: Tip,
    pub log: LogShape,
    /// Whether there ever was such a namespace.
    pub exists: bool,
    pub created_at_ms: i64,
    pub next_deadline_ms: Option<i64>,
    birth: Revision,
}

impl Head {
    /// Reads the fields as they are stored.
    pub(super) fn parse(time_ms: i64, fields: Value) -> Result<Self, BackendError> {
        Self::of(time_ms, &list(fields)?)
    }

    /// The same of fields that no script has looked at, by the clock and the identity of the process that they are in;
    /// nothing where the namespace may have to be settled before anything is said of it, or is not understood.
    pub(super) fn settled(
        time_ms: i64,
        identity: &str,
        fields: Value,
    ) -> Result<Option<Self>, BackendError> {
        let fields = list(fields)?;
        let text = |index: usize| match fields.get(index) {
            Some(Value::BulkString(bytes)) => Some(&bytes[..]),
            _ => None,
        };
        let is_known = text(0) == Some(FORMAT) && text(1) == Some(identity.as_bytes());
        if text(0).is_some() && !is_known {
            return Ok(None);
        }
        let kept_ms = text(6).map_or(Some(0), parse).ok_or_else(|| strange("a head"))?;
        // The time of a namespace does not go back.
        let head = Self::of(time_ms.max(kept_ms), &fields)?;
        let is_due = head.next_deadline_ms.is_some_and(|next_ms| next_ms <= head.tip.time_ms);
        Ok((!is_due).then_some(head))
    }

    fn of(time_ms: i64, fields: &[Value]) -> Result<Self, BackendError> {
        let text = |index: usize| match fields.get(index) {
            Some(Value::BulkString(bytes)) if !bytes.is_empty() => Some(bytes.as_slice()),
            _ => None,
        };
        let number = |index: usize| match text(index) {
            None => Ok(None),
            Some(bytes) => parse::<u64>(bytes).map(Some).ok_or_else(|| strange("a head")),
        };
        let count = |index: usize| number(index).map(Option::unwrap_or_default);
        let moment = |index: usize| number(index).map(|it| it.map(|number| number as i64));
        let lineage = match text(2) {
            None => None,
            Some(bytes) => {
                Some(Lineage(Uuid::try_parse_ascii(bytes).map_err(|_| strange("a lineage"))?))
            }
        };
        let tip = Tip {
            position: Position(count(4)?),
            revision: Revision(count(5)?),
            time_ms,
            lineage,
            compacted: Revision(count(8)?),
            cleared: Revision(count(9)?),
            usage: Usage { keys: count(10)?, bytes: count(11)? },
        };
        let log = LogShape { events: count(12)?, bytes: count(13)?, oldest_ms: moment(14)? };
        Ok(Self {
            tip,
            log,
            exists: text(0).is_some(),
            created_at_ms: moment(3)?.unwrap_or_default(),
            next_deadline_ms: moment(15)?,
            birth: Revision(count(7)?),
        })
    }

    /// Whether the state at a revision can be read.
    pub(super) fn check_readable(&self, at: Option<Revision>) -> Result<(), BackendError> {
        let oldest = self.tip.compacted.max(self.tip.cleared);
        match at {
            Some(at) if at > self.tip.revision => {
                Err(BackendError::Future { newest: self.tip.revision })
            }
            Some(at) if at < oldest => Err(BackendError::Compacted { oldest }),
            _ => Ok(()),
        }
    }

    /// The revision after which the log has to be read for all that came after `after`.
    pub(super) fn resume_after(&self, after: Revision) -> Result<Revision, BackendError> {
        let Tip { compacted, revision, .. } = self.tip;
        if after == Revision(0) && compacted == self.birth {
            return Ok(self.birth);
        }
        match () {
            () if after > revision => Err(BackendError::Future { newest: revision }),
            () if after < compacted => Err(BackendError::Compacted { oldest: compacted }),
            () => Ok(after),
        }
    }

    /// What is known of the namespace, if it exists.
    pub(super) fn info(&self, name: &NamespaceName) -> Option<NamespaceInfo> {
        self.tip.lineage.map(|_| NamespaceInfo {
            name: name.clone(),
            tip: self.tip,
            log: self.log,
            created_at_ms: self.created_at_ms,
            next_deadline_ms: self.next_deadline_ms,
        })
    }
}

/// A loss of writes, after which a lineage goes on from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// The lineage that was, and the last of its revisions that was not lost.
    pub ancestor: Ancestor,
    /// The revision from which on the history goes on.
    pub resumed_at: Revision,
}

/// The losses that a head tells of, newest first.
pub(super) fn losses(text: &[u8]) -> Result<Vec<Loss>, BackendError> {
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| loss(line).ok_or_else(|| strange("an ancestor"))).collect()
}

fn loss(line: &[u8]) -> Option<Loss> {
    let mut words = line.split(|byte| *byte == b' ');
    let lineage = Lineage(Uuid::try_parse_ascii(words.next()?).ok()?);
    let valid_through = Revision(parse(words.next()?)?);
    let resumed_at = Revision(parse(words.next()?)?);
    Some(Loss { ancestor: Ancestor { lineage, valid_through }, resumed_at })
}

/// Refuses a revision of writes that were lost.
pub(super) fn check_not_lost(
    tip: &Tip,
    losses: &[Loss],
    revision: Revision,
) -> Result<(), BackendError> {
    let is_lost =
        |loss: &&Loss| revision > loss.ancestor.valid_through && revision < loss.resumed_at;
    match losses.iter().find(is_lost) {
        None => Ok(()),
        Some(loss) => Err(BackendError::Lost {
            lineage: tip.lineage,
            valid_through: loss.ancestor.valid_through,
        }),
    }
}
