//! Entries and changes as messages.

use std::borrow::Cow;

use holdfast_proto::v1;

use crate::{
    backend::{Change, ChangeKind, Deadline, Entry, Key, Lineage, Removal, StoredEntry},
    store::{command::EntryView, keys},
};

/// More than what an entry has beside its key, content type and value, or an event beside its entries.
const OVERHEAD: usize = 128;

/// What a change is shown with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shown {
    /// Values, the one before included.
    pub values: bool,
    /// The values also where only the deadline changed.
    pub unchanged_values: bool,
    /// The entry before.
    pub previous: bool,
}

/// An entry that the backend holds.
pub(super) fn stored(stored: &StoredEntry, with_value: bool) -> v1::Entry {
    encode(stored.key(), stored, with_value)
}

/// An entry that a command saw or wrote; without its value where that was not kept.
pub(super) fn view(view: &EntryView, with_value: bool) -> v1::Entry {
    let has_value = !matches!(view, EntryView::WithoutValue(..));
    encode(view.key(), view.entry(), with_value && has_value)
}

/// A change. Its value, and those before it, are shared with the backend, not copied.
pub(super) fn event(change: &Change, previous: Option<&StoredEntry>, shown: Shown) -> v1::Event {
    let with_value = shows_value(change, shown);
    let (kind, reason) = kind(change.kind);
    let previous = previous.filter(|_| shown.previous);
    v1::Event {
        r#type: kind.into(),
        revision: change.revision.0,
        time_ms: change.time_ms,
        key: text(change.key.as_bytes()).into_owned(),
        entry: change.entry.as_ref().map(|entry| encode(&change.key, entry, with_value)),
        previous: previous.map(|entry| stored(entry, with_value)),
        reason: reason.into(),
    }
}

/// No less than the bytes that an entry takes in a message.
pub(super) fn size(entry: &StoredEntry, with_value: bool) -> usize {
    entry_size(entry.key(), entry, with_value)
}

/// No less than the bytes that a change takes in a message.
pub(super) fn event_size(change: &Change, previous: Option<&StoredEntry>, shown: Shown) -> usize {
    let with_value = shows_value(change, shown);
    let entry = change.entry.as_ref().map(|entry| entry_size(&change.key, entry, with_value));
    let previous = previous.filter(|_| shown.previous);
    let previous = previous.map(|entry| size(entry, with_value));
    OVERHEAD + change.key.as_bytes().len() + entry.unwrap_or(0) + previous.unwrap_or(0)
}

/// A lineage; empty where there is no namespace.
pub(super) fn lineage(lineage: Option<Lineage>) -> String {
    lineage.map(|lineage| lineage.to_string()).unwrap_or_default()
}

/// What came in as text goes out as text. Only what was stored by other means is no text.
pub(super) fn text(bytes: &[u8]) -> Cow<'_, str> {
    str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}

/// An entry.
pub(super) fn encode(key: &Key, entry: &Entry, with_value: bool) -> v1::Entry {
    v1::Entry {
        key: text(key.as_bytes()).into_owned(),
        value: with_value.then(|| entry.value.clone()),
        content_type: text(&entry.content_type).into_owned(),
        version: entry.version,
        create_revision: entry.create_revision.0,
        mod_revision: entry.mod_revision.0,
        created_at_ms: entry.created_at_ms,
        updated_at_ms: entry.updated_at_ms,
        expires_at_ms: match entry.deadline {
            Deadline::At(at_ms) => Some(at_ms),
            Deadline::Never | Deadline::Of(_) => None,
        },
        lease_id: entry.deadline.reference().and_then(keys::lease_id),
    }
}

fn entry_size(key: &Key, entry: &Entry, with_value: bool) -> usize {
    let value = if with_value { entry.value.len() } else { 0 };
    OVERHEAD + key.as_bytes().len() + entry.content_type.len() + value
}

fn shows_value(change: &Change, shown: Shown) -> bool {
    shown.values && (shown.unchanged_values || change.kind != ChangeKind::TtlChanged)
}

fn kind(kind: ChangeKind) -> (v1::EventType, v1::RemovalReason) {
    use v1::{EventType as Type, RemovalReason as Reason};
    match kind {
        ChangeKind::Set => (Type::Set, Reason::Unspecified),
        ChangeKind::TtlChanged => (Type::TtlChanged, Reason::Unspecified),
        ChangeKind::Removed(Removal::Deleted) => (Type::Delete, Reason::Deleted),
        ChangeKind::Removed(Removal::Ttl) => (Type::Expire, Reason::Ttl),
        ChangeKind::Removed(Removal::Lease) => (Type::Expire, Reason::Lease),
        ChangeKind::Removed(Removal::Revoked) => (Type::Delete, Reason::Revoked),
        ChangeKind::Clear => (Type::Clear, Reason::Deleted),
    }
}
