//! Calls on many named keys at once.

use std::mem;

use holdfast_proto::v1;

use crate::{
    Answer, Codec, Encode, Entry, Error, Expiry, Header, Metadata, Revision,
    call::{Pending, awaitable_with_header, call_options, expiry_options, write_options},
    wire::{self, Reader},
};

/// Reads some keys; made by [`Namespace::get_many`](crate::Namespace::get_many).
#[must_use = "a call does nothing until it is awaited"]
pub struct BatchGet<C, T> {
    pub(crate) call: Pending<v1::BatchGetRequest>,
    pub(crate) reader: Reader<C, T>,
}

impl<C: Codec, T: 'static> BatchGet<C, T> {
    /// Reads what this revision held, without regard to the clock.
    pub fn at_revision(mut self, revision: impl Into<Revision>) -> Self {
        self.call.request.at_revision = Some(revision.into().get());
        self
    }

    call_options!();

    async fn answer(&mut self) -> Result<Answer<Vec<Option<Entry<T>>>>, Error> {
        // Large answers come in parts, all of the same revision and time.
        let asked = self.call.request.keys.len();
        let mut slots = Vec::with_capacity(asked);
        let header = loop {
            let mut response = self.call.send_again().await?;
            slots.append(&mut response.slots);
            self.call.request.page_token = mem::take(&mut response.next_page_token);
            if self.call.request.page_token.is_empty() {
                break Header::new(response.revision, response.time_ms);
            }
        };
        if slots.len() != asked {
            return Err(Error::protocol("a batch was answered in part"));
        }
        let entries = slots
            .into_iter()
            .map(|slot| self.reader.read_option(slot.entry))
            .collect::<Result<_, _>>()?;
        Ok(Answer { header, value: entries })
    }
}

awaitable_with_header!([C: Codec, T: 'static] BatchGet<C, T> => Vec<Option<Entry<T>>>);

/// Writes some keys; made by [`Namespace::set_many`](crate::Namespace::set_many). Answers with the entries
/// as they are now, in the order of the items; a new one has version 1.
#[must_use = "a call does nothing until it is awaited"]
pub struct BatchSet<C> {
    pub(crate) call: Pending<v1::BatchSetRequest>,
    pub(crate) codec: C,
    pub(crate) expiry: Option<Expiry>,
}

impl<C: Codec> BatchSet<C> {
    /// Adds an entry.
    pub fn set<V: ?Sized>(self, key: impl Into<String>, value: &V) -> Self
    where
        C: Encode<V>,
    {
        self.item(key.into(), value, None)
    }

    /// Adds an entry with an expiry of its own.
    pub fn set_expiring<V: ?Sized>(
        self,
        key: impl Into<String>,
        value: &V,
        expiry: impl Into<Expiry>,
    ) -> Self
    where
        C: Encode<V>,
    {
        self.item(key.into(), value, Some(expiry.into()))
    }

    /// When all entries without an expiry of their own are to end; unless said, the default TTL of the
    /// namespace, else never.
    pub fn expiry(mut self, expiry: impl Into<Expiry>) -> Self {
        self.expiry = Some(expiry.into());
        self
    }

    expiry_options!();
    call_options!();
    write_options!();

    fn item<V: ?Sized>(mut self, key: String, value: &V, expiry: Option<Expiry>) -> Self
    where
        C: Encode<V>,
    {
        let value = wire::encode(&self.codec, &key, value);
        if let Some(value) = self.call.unless_failed(value) {
            self.call.request.items.push(v1::batch_set_request::Item {
                key,
                value,
                content_type: wire::content_type(&self.codec),
                expiry: expiry.map(wire::expiry),
            });
        }
        self
    }

    async fn answer(&mut self) -> Result<Answer<Vec<Metadata>>, Error> {
        if let Some(expiry) = self.expiry {
            for item in &mut self.call.request.items {
                item.expiry.get_or_insert_with(|| wire::expiry(expiry));
            }
        }
        let response = self.call.send().await?;
        Ok(Answer::new(
            response.revision,
            response.time_ms,
            response.entries.into_iter().map(|entry| wire::split(entry).0).collect(),
        ))
    }
}

awaitable_with_header!([C: Codec] BatchSet<C> => Vec<Metadata>);

/// Removes some keys; made by [`Namespace::delete_many`](crate::Namespace::delete_many).
#[must_use = "a call does nothing until it is awaited"]
pub struct BatchDelete {
    pub(crate) call: Pending<v1::BatchDeleteRequest>,
}

impl BatchDelete {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<Vec<bool>>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.deleted))
    }
}

awaitable_with_header!([] BatchDelete => Vec<bool>);
