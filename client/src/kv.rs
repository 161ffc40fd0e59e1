//! Calls on single keys and ranges.

use std::time::Duration;

use holdfast_proto::v1;

use crate::{
    Answer, Codec, Decode, Entry, Error, Event, Expiry, Header, Metadata, Revision, Ttl,
    call::{
        Pending, awaitable_in_place, awaitable_with_header, call_options, condition_options,
        expiry_options, write_options,
    },
    wire::{self, Reader},
};

/// Reads one entry; made by [`Namespace::get`](crate::Namespace::get).
#[must_use = "a call does nothing until it is awaited"]
pub struct Get<C, T> {
    pub(crate) call: Pending<v1::GetRequest>,
    pub(crate) reader: Reader<C, T>,
}

impl<C: Codec, T: 'static> Get<C, T> {
    /// Reads what this revision held, without regard to the clock.
    pub fn at_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.at_revision = Some(revision.into().get());
        self
    }

    /// Also sets this expiry, in the same step, if the key exists; the answer is the entry after that.
    /// This makes the call a write. If it had to be sent again, and the value is large and no longer held, it is
    /// [`Error::ValueOmitted`] although the expiry was set.
    pub fn touch(mut self, expiry: impl Into<Expiry>) -> Self {
        self.call.request.touch = Some(wire::expiry(expiry.into()));
        self
    }

    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<Option<Entry<T>>>, Error> {
        let response = self.call.send().await?;
        let entry = match response.entry {
            // The answer is a repeated one, which has no large values.
            Some(entry) if entry.value.is_none() => Some(Box::pin(self.read_again(entry)).await),
            entry => entry,
        };
        let entry = self.reader.read_option(entry)?;
        Ok(Answer::new(response.revision, response.time_ms, entry))
    }

    /// An entry that came without its value, with that if it is still held.
    async fn read_again(&self, mut entry: v1::Entry) -> v1::Entry {
        let request = v1::GetRequest {
            namespace: self.call.request.namespace.clone(),
            key: entry.key.clone(),
            at_revision: Some(entry.mod_revision),
            ..Default::default()
        };
        let read = self.call.client.transport.call(request, self.call.timeout).await;
        let found = read.ok().and_then(|response| response.entry);
        // Under this name there may be another history by now.
        if let Some(found) = found.filter(|it| it.mod_revision == entry.mod_revision) {
            entry.value = found.value;
        }
        entry
    }
}

awaitable_with_header!([C: Codec, T: 'static] Get<C, T> => Option<Entry<T>>);

/// Writes one entry; made by [`Namespace::set`](crate::Namespace::set).
#[must_use = "a call does nothing until it is awaited"]
pub struct Set<C, P = ()> {
    pub(crate) call: Pending<v1::SetRequest>,
    pub(crate) reader: Reader<C, P>,
}

impl<C: Codec, P: 'static> Set<C, P> {
    /// When the entry is to end; unless said, the default TTL of the namespace, else never.
    pub fn expiry(mut self, expiry: impl Into<Expiry>) -> Self {
        self.call.request.expiry = Some(wire::expiry(expiry.into()));
        self
    }

    expiry_options!();

    /// Leaves the present expiry as it is.
    pub fn keep_ttl(self) -> Self {
        self.expiry(Expiry::Keep)
    }

    /// Only if the key does not exist; else it is
    /// [`Error::ConditionNotMet`](crate::Error::ConditionNotMet).
    pub fn if_absent(mut self) -> Self {
        self.call.request.condition = Some(wire::if_absent());
        self
    }

    condition_options!();

    /// What to say the value is, instead of what the codec says; at most 128 bytes.
    pub fn content_type(mut self, content_type: impl Into<String>) -> Self {
        self.call.request.content_type = content_type.into();
        self
    }

    /// Answers with the entry as it was before, its value read as a `Q`. If that value does not fit the
    /// codec, or is large and the write had to be sent again ([`Error::ValueOmitted`]), the call fails although the
    /// write was applied.
    pub fn return_previous<Q>(mut self) -> Set<C, Q>
    where
        C: Decode<Q>,
    {
        self.call.request.return_previous = true;
        Set { call: self.call, reader: self.reader.for_type() }
    }

    call_options!();
    write_options!();

    async fn send(&mut self) -> Result<SetOutcome<P>, Error> {
        let response = self.call.send().await?;
        Ok(SetOutcome {
            header: Header::new(response.revision, response.time_ms),
            metadata: wire::metadata(response.entry)?,
            created: response.created,
            previous: self.reader.read_option(response.previous)?,
        })
    }
}

awaitable_in_place!([C: Codec, P: 'static] Set<C, P> => SetOutcome<P>);

/// What a [`Set`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetOutcome<P = ()> {
    /// The revision and time of the write.
    pub header: Header,
    /// The entry as it is now.
    pub metadata: Metadata,
    /// Whether the key is new.
    pub created: bool,
    /// The entry before, if it was asked for and there was one.
    pub previous: Option<Entry<P>>,
}

/// Removes one entry; made by [`Namespace::delete`](crate::Namespace::delete).
#[must_use = "a call does nothing until it is awaited"]
pub struct Delete<C, P = ()> {
    pub(crate) call: Pending<v1::DeleteRequest>,
    pub(crate) reader: Reader<C, P>,
}

impl<C: Codec, P: 'static> Delete<C, P> {
    condition_options!();

    /// Answers with the entry as it was before, its value read as a `Q`. If that value does not fit the
    /// codec, or is large and the write had to be sent again ([`Error::ValueOmitted`]), the call fails although the
    /// entry was removed.
    pub fn return_previous<Q>(mut self) -> Delete<C, Q>
    where
        C: Decode<Q>,
    {
        self.call.request.return_previous = true;
        Delete { call: self.call, reader: self.reader.for_type() }
    }

    call_options!();
    write_options!();

    async fn send(&mut self) -> Result<DeleteOutcome<P>, Error> {
        let response = self.call.send().await?;
        Ok(DeleteOutcome {
            header: Header::new(response.revision, response.time_ms),
            deleted: response.deleted,
            previous: self.reader.read_option(response.previous)?,
        })
    }
}

awaitable_in_place!([C: Codec, P: 'static] Delete<C, P> => DeleteOutcome<P>);

/// What a [`Delete`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteOutcome<P = ()> {
    /// The revision and time of the removal, or of the state in which the key was missing.
    pub header: Header,
    /// Whether the key was there.
    pub deleted: bool,
    /// The entry before, if it was asked for and there was one.
    pub previous: Option<Entry<P>>,
}

/// Tells whether a key exists; made by [`Namespace::exists`](crate::Namespace::exists).
#[must_use = "a call does nothing until it is awaited"]
pub struct Exists {
    pub(crate) call: Pending<v1::ExistsRequest>,
}

impl Exists {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<bool>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.exists))
    }
}

awaitable_with_header!([] Exists => bool);

/// Tells how long a key has to live; made by [`Namespace::ttl`](crate::Namespace::ttl).
#[must_use = "a call does nothing until it is awaited"]
pub struct GetTtl {
    pub(crate) call: Pending<v1::GetTtlRequest>,
}

impl GetTtl {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<Ttl>, Error> {
        use v1::get_ttl_response::Ttl as Wire;
        let response = self.call.send().await?;
        let ttl = match response.ttl {
            Some(Wire::Missing(_)) => Ttl::Missing,
            Some(Wire::Never(_)) => Ttl::Never,
            Some(Wire::RemainingMs(millis)) => Ttl::Remaining(Duration::from_millis(millis)),
            None => return Err(Error::protocol("the answer names no TTL")),
        };
        Ok(Answer::new(response.revision, response.time_ms, ttl))
    }
}

awaitable_with_header!([] GetTtl => Ttl);

/// Changes when a key ends; made by [`Namespace::set_ttl`](crate::Namespace::set_ttl).
#[must_use = "a call does nothing until it is awaited"]
pub struct SetTtl {
    pub(crate) call: Pending<v1::SetTtlRequest>,
}

impl SetTtl {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<bool>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.found))
    }
}

awaitable_with_header!([] SetTtl => bool);

/// Adds to a number; made by [`Namespace::increment`](crate::Namespace::increment).
#[must_use = "a call does nothing until it is awaited"]
pub struct Increment {
    pub(crate) call: Pending<v1::IncrementRequest>,
}

impl Increment {
    /// What a missing key counts as; 0 unless set.
    pub fn initial(mut self, initial: i64) -> Self {
        self.call.request.initial = initial;
        self
    }

    /// When the entry is to end, if this creates it. An existing entry keeps its expiry.
    pub fn expiry(mut self, expiry: impl Into<Expiry>) -> Self {
        self.call.request.expiry = Some(wire::expiry(expiry.into()));
        self
    }

    expiry_options!();
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<i64>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.value))
    }
}

awaitable_with_header!([] Increment => i64);

/// Counts entries; made by [`Namespace::count`](crate::Namespace::count).
#[must_use = "a call does nothing until it is awaited"]
pub struct Count {
    pub(crate) call: Pending<v1::CountRequest>,
}

impl Count {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<u64>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.count))
    }
}

awaitable_with_header!([] Count => u64);

/// Reads the changes of one key; made by [`Namespace::history`](crate::Namespace::history).
#[must_use = "a call does nothing until it is awaited"]
pub struct History<C, T> {
    pub(crate) call: Pending<v1::HistoryRequest>,
    pub(crate) reader: Reader<C, T>,
}

impl<C: Codec, T: 'static> History<C, T> {
    /// How many changes at the most, up to 1,000; 100 unless set. An answer may end earlier, at about
    /// 4 MiB.
    pub fn limit(mut self, limit: u32) -> Self {
        self.call.request.limit = limit;
        self
    }

    /// Only changes before this revision: that of the last change of the answer before, to go on.
    pub fn before(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.before_revision = Some(revision.into().get());
        self
    }

    call_options!();

    async fn send(&mut self) -> Result<HistoryPage<T>, Error> {
        let response = self.call.send().await?;
        Ok(HistoryPage {
            header: Header::new(response.revision, response.time_ms),
            events: response
                .events
                .iter()
                .map(|event| Event::from_wire(&self.reader, event))
                .collect::<Result<_, _>>()?,
            more: response.more,
        })
    }
}

awaitable_in_place!([C: Codec, T: 'static] History<C, T> => HistoryPage<T>);

/// Changes of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct HistoryPage<T> {
    /// The state read.
    pub header: Header,
    /// Newest first, each with its value, without the entry before.
    pub events: Vec<Event<T>>,
    /// Whether older ones are held.
    pub more: bool,
}

/// Removes many entries; made by [`Namespace::delete_range`](crate::Namespace::delete_range).
#[must_use = "a call does nothing until it is awaited"]
pub struct DeleteRange {
    pub(crate) call: Pending<v1::DeleteRangeRequest>,
}

impl DeleteRange {
    /// How many entries at the most: 1 to 10,000, which is also the default.
    pub fn limit(mut self, limit: u32) -> Self {
        self.call.request.limit = Some(limit);
        self
    }

    call_options!();
    write_options!();

    async fn send(&mut self) -> Result<DeleteRangeOutcome, Error> {
        let response = self.call.send().await?;
        Ok(DeleteRangeOutcome {
            header: Header::new(response.revision, response.time_ms),
            deleted: response.deleted,
            more: response.more,
        })
    }
}

awaitable_in_place!([] DeleteRange => DeleteRangeOutcome);

/// What a [`DeleteRange`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteRangeOutcome {
    /// The revision and time of the removal, or of the state in which nothing matched.
    pub header: Header,
    /// How many entries were removed.
    pub deleted: u64,
    /// Whether some that match may be left: call again.
    pub more: bool,
}
