//! Where a namespace stands, as it comes with every answer.

use redis::Value;
use uuid::Uuid;

use super::answer::{bytes, list, parse, strange};
use crate::backend::{
    Ancestor, BackendError, Lineage, LogShape, NamespaceInfo, NamespaceName, Position, Revision,
    Tip, Usage,
};

/// The fields of the head of a namespace that are read without a script.
pub(super) const FIELDS: [&str; 2] = ["format", "state"];

/// The format that this version knows.
const FORMAT: &[u8] = b"2";

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
    /// Reads the state as a script answers it; there is none where there never was such a namespace.
    pub(super) fn parse(time_ms: i64, state: Value) -> Result<Self, BackendError> {
        match bytes(state)? {
            Some(state) => Self::of(time_ms, &State::parse(&state)?),
            None => Ok(Self::none(time_ms)),
        }
    }

    /// The same of fields that no script has looked at, by the clock and the identity of the process that they are in;
    /// nothing where the namespace may have to be settled before anything is said of it, or is not understood.
    pub(super) fn settled(
        time_ms: i64,
        identity: &str,
        fields: Value,
    ) -> Result<Option<Self>, BackendError> {
        let mut fields = list(fields)?.into_iter();
        let mut field = || fields.next().map(bytes).transpose().map(Option::flatten);
        let (Some(format), state) = (field()?, field()?) else {
            return Ok(Some(Self::none(time_ms)));
        };
        let Some(state) = state.filter(|_| format == FORMAT) else {
            return Ok(None);
        };
        let state = State::parse(&state)?;
        if state.0[0] != identity.as_bytes() {
            return Ok(None);
        }
        // The time of a namespace does not go back.
        let head = Self::of(time_ms.max(state.number(5)? as i64), &state)?;
        let is_due = head.next_deadline_ms.is_some_and(|next_ms| next_ms <= head.tip.time_ms);
        Ok((!is_due).then_some(head))
    }

    fn of(time_ms: i64, state: &State<'_>) -> Result<Self, BackendError> {
        let lineage = Uuid::try_parse_ascii(state.0[1]).map_err(|_| strange("a lineage"))?;
        let tip = Tip {
            position: Position(state.number(3)?),
            revision: Revision(state.number(4)?),
            time_ms,
            lineage: (!lineage.is_nil()).then_some(Lineage(lineage)),
            compacted: Revision(state.number(7)?),
            cleared: Revision(state.number(8)?),
            usage: Usage { keys: state.number(9)?, bytes: state.number(10)? },
        };
        let log = LogShape {
            events: state.number(11)?,
            bytes: state.number(12)?,
            oldest_ms: state.moment(13)?,
        };
        Ok(Self {
            tip,
            log,
            exists: true,
            created_at_ms: state.moment(2)?.unwrap_or_default(),
            next_deadline_ms: state.moment(14)?,
            birth: Revision(state.number(6)?),
        })
    }

    /// That of a namespace that never was.
    fn none(time_ms: i64) -> Self {
        let tip = Tip {
            position: Position(0),
            revision: Revision(0),
            time_ms,
            lineage: None,
            compacted: Revision(0),
            cleared: Revision(0),
            usage: Usage::default(),
        };
        Self {
            tip,
            log: LogShape::default(),
            exists: false,
            created_at_ms: 0,
            next_deadline_ms: None,
            birth: Revision(0),
        }
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

/// The state of a namespace as it is stored, in the order that the prelude of the scripts has it in.
struct State<'a>([&'a [u8]; 18]);

impl<'a> State<'a> {
    fn parse(text: &'a [u8]) -> Result<Self, BackendError> {
        let words: Vec<_> = text.split(|byte| *byte == b' ').collect();
        words.try_into().map(Self).map_err(|_| strange("a head"))
    }

    fn number(&self, index: usize) -> Result<u64, BackendError> {
        parse(self.0[index]).ok_or_else(|| strange("a head"))
    }

    /// A moment, or none.
    fn moment(&self, index: usize) -> Result<Option<i64>, BackendError> {
        match self.0[index] {
            [b'-', ..] => Ok(None),
            _ => self.number(index).map(|number| Some(number as i64)),
        }
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
