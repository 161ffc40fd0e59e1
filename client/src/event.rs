//! Changes, as histories and watches tell them.

use holdfast_proto::v1;

use crate::{
    Codec, Entry, Error, Metadata, Revision, Timestamp,
    wire::{self, Reader},
};

/// One change of one key. A revision has at most one event per key, comparing before with after.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Event<T> {
    /// The key; empty for [`Change::Cleared`].
    pub key: String,
    /// The revision of the change.
    pub revision: Revision,
    /// When it was committed.
    pub time: Timestamp,
    /// What happened.
    pub change: Change<T>,
    /// Why the key was removed, if it was.
    pub removal: Option<Removal>,
    /// The entry before the change, if a watch asked for it, there was one, and its value travelled.
    pub previous: Option<Entry<T>>,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change<T> {
    /// A value was written, be it the same as before. The entry's version is 1 if the key is new.
    Set(Entry<T>),
    /// Only the expiry changed.
    TtlChanged {
        /// The entry after the change.
        metadata: Metadata,
        /// Its value; only in histories.
        value: Option<T>,
    },
    /// A request deleted the key, or its lease was revoked.
    Deleted,
    /// The key ended by its deadline, or with its lease.
    Expired,
    /// All keys of the namespace were removed at once.
    Cleared,
}

/// Why a key was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Removal {
    /// A request deleted or cleared it.
    Deleted,
    /// Its own TTL ended.
    Ttl,
    /// Its lease ended.
    Lease,
    /// Its lease was revoked.
    Revoked,
}

/// What an event can be, to ask for some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EventType {
    /// A value was written.
    Set,
    /// Only the expiry changed.
    TtlChanged,
    /// A request deleted the key, or its lease was revoked.
    Deleted,
    /// The key ended by its deadline, or with its lease.
    Expired,
    /// All keys of the namespace were removed at once; comes also where `Deleted` is asked for.
    Cleared,
}

impl<T> Change<T> {
    /// Its type.
    pub fn event_type(&self) -> EventType {
        match self {
            Change::Set(_) => EventType::Set,
            Change::TtlChanged { .. } => EventType::TtlChanged,
            Change::Deleted => EventType::Deleted,
            Change::Expired => EventType::Expired,
            Change::Cleared => EventType::Cleared,
        }
    }
}

impl EventType {
    pub(crate) fn to_wire(self) -> v1::EventType {
        match self {
            EventType::Set => v1::EventType::Set,
            EventType::TtlChanged => v1::EventType::TtlChanged,
            EventType::Deleted => v1::EventType::Delete,
            EventType::Expired => v1::EventType::Expire,
            EventType::Cleared => v1::EventType::Clear,
        }
    }
}

impl<T> Event<T> {
    pub(crate) fn from_wire<C: Codec>(
        reader: &Reader<C, T>,
        event: &v1::Event,
    ) -> Result<Self, Error> {
        let after = || event.entry.as_ref().ok_or_else(|| Error::protocol("an event has no entry"));
        let change = match event.r#type() {
            v1::EventType::Set => Change::Set(reader.read_lent(after()?)?),
            v1::EventType::TtlChanged => ttl_changed(reader, after()?)?,
            v1::EventType::Delete => Change::Deleted,
            v1::EventType::Expire => Change::Expired,
            v1::EventType::Clear => Change::Cleared,
            v1::EventType::Unspecified => {
                return Err(Error::protocol("an event is of no known type"));
            }
        };
        let previous = match &event.previous {
            Some(entry) => reader.read_if_valued(entry)?,
            None => None,
        };
        Ok(Self {
            key: event.key.clone(),
            revision: Revision::new(event.revision),
            time: Timestamp::from_millis(event.time_ms),
            change,
            removal: removal(event.reason()),
            previous,
        })
    }
}

fn removal(reason: v1::RemovalReason) -> Option<Removal> {
    match reason {
        v1::RemovalReason::Unspecified => None,
        v1::RemovalReason::Deleted => Some(Removal::Deleted),
        v1::RemovalReason::Ttl => Some(Removal::Ttl),
        v1::RemovalReason::Lease => Some(Removal::Lease),
        v1::RemovalReason::Revoked => Some(Removal::Revoked),
    }
}

fn ttl_changed<C: Codec, T>(reader: &Reader<C, T>, entry: &v1::Entry) -> Result<Change<T>, Error> {
    let value = reader.read_if_valued(entry)?.map(Entry::into_value);
    Ok(Change::TtlChanged { metadata: wire::metadata_of(entry), value })
}
