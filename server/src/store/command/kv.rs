//! Commands on single keys, and the delete of many.

use std::cell::Cell;

use bytes::Bytes;

use super::{DeleteRangeReply, DeleteReply, RangeRead, SetReply};
use crate::{
    backend::{ContentType, Key, NewDeadline, Revision},
    store::{
        error::Refusal,
        keys,
        selector::Selector,
        workspace::{Seen, Workspace},
    },
};

/// When an entry is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// By the default TTL of the namespace, else never.
    Default,
    /// So many milliseconds after the commit.
    Ttl(u64),
    /// At a moment, in milliseconds since the Unix epoch.
    At(i64),
    /// As it is; on a missing key like `Default`.
    Keep,
    /// Not by itself.
    Never,
    /// With this lease.
    Lease(u64),
}

impl Expiry {
    /// The key of the lease it names.
    pub(super) fn lease(self) -> Option<Key> {
        match self {
            Self::Lease(id) => Some(keys::lease(id)),
            _ => None,
        }
    }

    fn resolve(
        self,
        current: Option<&Seen>,
        workspace: &mut Workspace,
    ) -> Result<NewDeadline, Refusal<Seen>> {
        Ok(match (self, current) {
            (Self::Ttl(ttl_ms), _) => NewDeadline::After(ttl_ms),
            (Self::At(at_ms), _) => NewDeadline::At(at_ms),
            (Self::Never, _) => NewDeadline::Never,
            (Self::Lease(id), _) => NewDeadline::Of(workspace.lease(id)?.key().clone()),
            (Self::Keep, Some(current)) => current.deadline(),
            (Self::Keep, None) | (Self::Default, _) => {
                workspace.settings().default_ttl_ms.map_or(NewDeadline::Never, NewDeadline::After)
            }
        })
    }
}

/// What must hold for a single write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Nothing.
    None,
    /// The key does not exist.
    Absent,
    /// The key exists.
    Present,
    /// The key exists with this revision of its last change.
    ModRevision(Revision),
}

impl Condition {
    fn check(self, current: Option<&Seen>, workspace: &mut Workspace) -> Result<(), Refusal<Seen>> {
        let holds = match (self, current) {
            (Self::None, _) | (Self::Absent, None) | (Self::Present, Some(_)) => true,
            (Self::ModRevision(expected), Some(current)) => {
                workspace.mod_revision(current, expected) == expected
            }
            _ => false,
        };
        if holds {
            return Ok(());
        }
        let current = current.map(|current| Box::new(current.without_value()));
        Err(Refusal::ConditionNotMet { current })
    }
}

/// Writes one entry.
#[derive(Debug, Clone)]
pub struct Set {
    /// The key.
    pub key: Key,
    /// The value.
    pub value: Bytes,
    /// What the value is.
    pub content_type: ContentType,
    /// When the entry is to end.
    pub expiry: Expiry,
    /// What must hold.
    pub condition: Condition,
    /// Answer with the entry before.
    pub return_previous: bool,
}

impl Set {
    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.push(self.key.clone());
        keys.extend(self.expiry.lease());
    }

    /// About how many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.key.as_bytes().len() + self.content_type.len() + self.value.len()
    }

    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<SetReply<Seen>, Refusal<Seen>> {
        let current = workspace.get(&self.key);
        self.condition.check(current.as_ref(), workspace)?;
        let deadline = self.expiry.resolve(current.as_ref(), workspace)?;
        let (value, content_type) = (self.value.clone(), self.content_type.clone());
        let written = workspace.put(&self.key, current.as_ref(), value, content_type, deadline);
        Ok(SetReply {
            entry: written,
            created: current.is_none(),
            previous: current.filter(|_| self.return_previous).map(Box::new),
        })
    }
}

/// Removes one entry.
#[derive(Debug, Clone)]
pub struct Delete {
    /// The key.
    pub key: Key,
    /// What must hold.
    pub condition: Condition,
    /// Answer with the entry before.
    pub return_previous: bool,
}

impl Delete {
    pub(super) fn run(
        &self,
        workspace: &mut Workspace,
    ) -> Result<DeleteReply<Seen>, Refusal<Seen>> {
        let current = workspace.get(&self.key);
        self.condition.check(current.as_ref(), workspace)?;
        workspace.remove(&self.key);
        Ok(DeleteReply {
            deleted: current.is_some(),
            previous: current.filter(|_| self.return_previous).map(Box::new),
        })
    }
}

/// Changes when an entry ends.
#[derive(Debug, Clone)]
pub struct SetTtl {
    /// The key.
    pub key: Key,
    /// When it is to end.
    pub expiry: Expiry,
}

impl SetTtl {
    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.push(self.key.clone());
        keys.extend(self.expiry.lease());
    }

    /// The entry after it, if there is one.
    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<Option<Seen>, Refusal<Seen>> {
        let Some(current) = workspace.get(&self.key) else {
            return Ok(None);
        };
        let deadline = self.expiry.resolve(Some(&current), workspace)?;
        Ok(Some(workspace.set_deadline(&self.key, &current, deadline)))
    }
}

/// Adds to a number.
#[derive(Debug, Clone)]
pub struct Increment {
    /// The key.
    pub key: Key,
    /// What to add.
    pub delta: i64,
    /// What a missing key counts as.
    pub initial: i64,
    /// When the entry is to end if this creates it.
    pub expiry: Expiry,
}

impl Increment {
    pub(super) fn add_keys(&self, keys: &mut Vec<Key>) {
        keys.push(self.key.clone());
        keys.extend(self.expiry.lease());
    }

    pub(super) fn run(&self, workspace: &mut Workspace) -> Result<i64, Refusal<Seen>> {
        let current = workspace.get(&self.key);
        let (base, content_type, deadline) = match &current {
            Some(current) => {
                let number = parse_number(current.value())?;
                (number, current.content_type().clone(), current.deadline())
            }
            None => (self.initial, ContentType::TEXT, self.expiry.resolve(None, workspace)?),
        };
        let sum = base.checked_add(self.delta).ok_or_else(|| Refusal::NotANumber {
            problem: format!("{base} + {} does not fit into 64 bits signed", self.delta),
        })?;
        let value = Bytes::from(sum.to_string());
        workspace.put(&self.key, current.as_ref(), value, content_type, deadline);
        Ok(sum)
    }
}

/// Removes many entries.
#[derive(Debug, Clone)]
pub struct DeleteRange {
    /// Which.
    pub selector: Selector,
    /// How many at the most.
    pub limit: usize,
}

impl DeleteRange {
    pub(super) fn range_read(&self) -> RangeRead {
        RangeRead {
            selector: self.selector.clone(),
            needed: self.limit,
            min_mod_revision: Revision(0),
            reverse: false,
        }
    }

    /// `range` is the index of its range among those that the command reads. What is due by `spared_until_ms` is
    /// left over.
    pub(super) fn run(
        &self,
        workspace: &mut Workspace,
        range: usize,
        spared_until_ms: Option<i64>,
    ) -> DeleteRangeReply {
        let has_spared = Cell::new(false);
        let admit = |entry: &Seen| {
            let is_spared = spared_until_ms.is_some_and(|until_ms| entry.is_due(until_ms));
            has_spared.set(has_spared.get() || is_spared);
            !is_spared
        };
        let (entries, more) = workspace.entries(range, self.limit, admit);
        for entry in &entries {
            workspace.remove(entry.key());
        }
        DeleteRangeReply { deleted: entries.len() as u64, more: more || has_spared.get() }
    }
}

/// Decimal text as `Increment` writes it: `-?(0|[1-9][0-9]*)`, 64 bits signed.
fn parse_number(value: &[u8]) -> Result<i64, Refusal<Seen>> {
    let text = std::str::from_utf8(value).unwrap_or_default();
    let number: Option<i64> = text.parse().ok();
    // What is not written back the same way is not in the one form: `+1`, `007`, `-0`.
    number.filter(|number| number.to_string() == text).ok_or_else(|| {
        let shown = String::from_utf8_lossy(&value[..value.len().min(32)]).into_owned();
        Refusal::NotANumber {
            problem: format!("the value {shown:?} is not a decimal number of 64 bits signed"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_numbers_in_one_form_only() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-1", Some(-1)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("-0", None),
            ("+1", None),
            ("01", None),
            ("", None),
            (" 1", None),
            ("1.0", None),
        ] {
            assert_eq!(parse_number(text.as_bytes()).ok(), expected, "{text:?}");
        }
    }
}
