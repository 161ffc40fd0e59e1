//! The handle to a namespace: where all calls on its keys begin.

use std::{fmt, sync::Arc};

use holdfast_proto::v1;

use crate::{
    BatchDelete, BatchGet, BatchSet, Client, Codec, Count, Decode, Delete, DeleteRange, Encode,
    Exists, Expiry, Get, GetTtl, History, Increment, Json, List, Scan, Selector, Set, SetTtl,
    Transaction, Watch,
    call::Pending,
    wire::{self, Reader},
};

/// A handle to a namespace. Cheap to clone.
///
/// Every method makes a call to be refined and then awaited; nothing is sent before. Values go through the
/// codec of the handle.
///
/// ```no_run
/// # use std::time::Duration;
/// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
/// let sessions = client.namespace("sessions");
/// let set = sessions.set("user:1", "ann").ttl(Duration::from_secs(60)).await?;
/// let read = sessions.get::<String>("user:1").await?.expect("it was just set");
/// assert_eq!(read.mod_revision(), set.metadata.mod_revision);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Namespace<C = Json> {
    pub(crate) client: Client,
    pub(crate) name: Arc<str>,
    pub(crate) codec: C,
}

impl Namespace {
    pub(crate) fn new(client: Client, name: String) -> Self {
        Self { client, name: name.into(), codec: Json }
    }
}

impl<C: Codec> Namespace<C> {
    /// The name of the namespace.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client of this handle.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The same namespace with values in another form.
    pub fn with_codec<D: Codec>(&self, codec: D) -> Namespace<D> {
        Namespace { client: self.client.clone(), name: Arc::clone(&self.name), codec }
    }

    /// Reads one entry; `None` if there is no such key.
    pub fn get<T>(&self, key: impl Into<String>) -> Get<C, T>
    where
        C: Decode<T>,
    {
        Get {
            call: self.pending(v1::GetRequest {
                namespace: self.namespace(),
                key: key.into(),
                ..Default::default()
            }),
            reader: Reader::of_values(self.codec.clone()),
        }
    }

    /// Writes one entry. Always a change, even if the value is the same as before.
    pub fn set<V: ?Sized>(&self, key: impl Into<String>, value: &V) -> Set<C>
    where
        C: Encode<V>,
    {
        let key = key.into();
        let value = wire::encode(&self.codec, &key, value);
        let mut call = self.pending(v1::SetRequest {
            namespace: self.namespace(),
            key,
            content_type: wire::content_type(&self.codec),
            ..Default::default()
        });
        call.request.value = call.unless_failed(value).unwrap_or_default();
        Set { call, reader: Reader::of_keys(self.codec.clone()) }
    }

    /// Removes one entry. Deleting a missing key succeeds and changes nothing.
    pub fn delete(&self, key: impl Into<String>) -> Delete<C> {
        Delete {
            call: self.pending(v1::DeleteRequest {
                namespace: self.namespace(),
                key: key.into(),
                ..Default::default()
            }),
            reader: Reader::of_keys(self.codec.clone()),
        }
    }

    /// Tells whether a key exists; no value travels.
    pub fn exists(&self, key: impl Into<String>) -> Exists {
        Exists {
            call: self.pending(v1::ExistsRequest { namespace: self.namespace(), key: key.into() }),
        }
    }

    /// Tells how long a key has to live.
    pub fn ttl(&self, key: impl Into<String>) -> GetTtl {
        GetTtl {
            call: self.pending(v1::GetTtlRequest { namespace: self.namespace(), key: key.into() }),
        }
    }

    /// Changes when a key ends, and nothing else: a change like any other, though. Answers whether the key
    /// was there. A `Duration` is a TTL; [`Expiry::Keep`] makes no sense and is refused.
    pub fn set_ttl(&self, key: impl Into<String>, expiry: impl Into<Expiry>) -> SetTtl {
        SetTtl {
            call: self.pending(v1::SetTtlRequest {
                namespace: self.namespace(),
                key: key.into(),
                expiry: Some(wire::expiry(expiry.into())),
                options: None,
            }),
        }
    }

    /// Adds to a number, atomically, and answers with the new one. Counters are decimal text, whatever the
    /// codec: read them with [`increment`](Self::increment) or through [`Text`](crate::Text).
    pub fn increment(&self, key: impl Into<String>, delta: i64) -> Increment {
        Increment {
            call: self.pending(v1::IncrementRequest {
                namespace: self.namespace(),
                key: key.into(),
                delta,
                ..Default::default()
            }),
        }
    }

    /// Lists entries in the order of their keys, all as of one revision and time: as a stream, page by
    /// page, or all at once.
    pub fn list<T: 'static>(&self, selector: Selector) -> List<C, T>
    where
        C: Decode<T>,
    {
        List::new(self, selector, false, Reader::of_values(self.codec.clone()))
    }

    /// Lists entries like [`list`](Self::list), without their values.
    pub fn list_keys(&self, selector: Selector) -> List<C, ()> {
        List::new(self, selector, true, Reader::of_keys(self.codec.clone()))
    }

    /// Streams entries in the order of their keys, in a single call at one revision and time: faster than
    /// [`list`](Self::list), but once it has begun, a broken connection ends it with an error.
    pub fn scan<T: 'static>(&self, selector: Selector) -> Scan<C, T>
    where
        C: Decode<T>,
    {
        Scan::new(self, selector, false, Reader::of_values(self.codec.clone()))
    }

    /// Streams entries like [`scan`](Self::scan), without their values.
    pub fn scan_keys(&self, selector: Selector) -> Scan<C, ()> {
        Scan::new(self, selector, true, Reader::of_keys(self.codec.clone()))
    }

    /// Counts entries; no value travels.
    pub fn count(&self, selector: Selector) -> Count {
        Count {
            call: self.pending(v1::CountRequest {
                namespace: self.namespace(),
                selector: Some(wire::selector(selector)),
            }),
        }
    }

    /// The changes of one key that are still held, newest first, removals included.
    /// Fails as a whole if one of the values does not fit the codec.
    pub fn history<T>(&self, key: impl Into<String>) -> History<C, T>
    where
        C: Decode<T>,
    {
        History {
            call: self.pending(v1::HistoryRequest {
                namespace: self.namespace(),
                key: key.into(),
                ..Default::default()
            }),
            reader: Reader::of_values(self.codec.clone()),
        }
    }

    /// Removes many entries in one revision, in the order of their keys, at most 10,000 a call.
    pub fn delete_range(&self, selector: Selector) -> DeleteRange {
        DeleteRange {
            call: self.pending(v1::DeleteRangeRequest {
                namespace: self.namespace(),
                selector: Some(wire::selector(selector)),
                ..Default::default()
            }),
        }
    }

    /// Reads up to 1,024 keys, none twice, as of one revision and time; answers in the order asked.
    /// Fails as a whole if one of the values does not fit the codec.
    pub fn get_many<T>(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> BatchGet<C, T>
    where
        C: Decode<T>,
    {
        self.batch_get(keys, false, Reader::of_values(self.codec.clone()))
    }

    /// Reads up to 1,024 keys like [`get_many`](Self::get_many), without their values.
    pub fn get_many_keys(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
    ) -> BatchGet<C, ()> {
        self.batch_get(keys, true, Reader::of_keys(self.codec.clone()))
    }

    /// Writes up to 1,024 keys, none twice, in one revision: all or none.
    pub fn set_many<K, V>(&self, items: impl IntoIterator<Item = (K, V)>) -> BatchSet<C>
    where
        K: Into<String>,
        C: Encode<V>,
    {
        let batch = BatchSet {
            call: self
                .pending(v1::BatchSetRequest { namespace: self.namespace(), ..Default::default() }),
            codec: self.codec.clone(),
            expiry: None,
        };
        items.into_iter().fold(batch, |batch, (key, value)| batch.set(key, &value))
    }

    /// Removes up to 1,024 keys, none twice, in one revision: all or none. Answers for each, in the order
    /// asked, whether it was there.
    pub fn delete_many(&self, keys: impl IntoIterator<Item = impl Into<String>>) -> BatchDelete {
        BatchDelete {
            call: self.pending(v1::BatchDeleteRequest {
                namespace: self.namespace(),
                keys: keys.into_iter().map(Into::into).collect(),
                options: None,
            }),
        }
    }

    /// Compares, then acts, as one atomic step. See [`transact`](Self::transact) for transactions written
    /// as a closure.
    pub fn transaction(&self) -> Transaction<C> {
        Transaction::new(self)
    }

    /// Follows the changes of the keys selected, expiry included, without loss.
    pub fn watch<T: 'static>(&self, selector: Selector) -> Watch<C, T>
    where
        C: Decode<T>,
    {
        Watch::new(self, selector, false, Reader::of_values(self.codec.clone()))
    }

    /// Follows changes like [`watch`](Self::watch), without the values.
    pub fn watch_keys(&self, selector: Selector) -> Watch<C, ()> {
        Watch::new(self, selector, true, Reader::of_keys(self.codec.clone()))
    }

    pub(crate) fn pending<R>(&self, request: R) -> Pending<R> {
        Pending::new(self.client.clone(), request)
    }

    /// The name as requests carry it.
    pub(crate) fn namespace(&self) -> String {
        self.name.as_ref().to_owned()
    }

    fn batch_get<T>(
        &self,
        keys: impl IntoIterator<Item = impl Into<String>>,
        keys_only: bool,
        reader: Reader<C, T>,
    ) -> BatchGet<C, T> {
        BatchGet {
            call: self.pending(v1::BatchGetRequest {
                namespace: self.namespace(),
                keys: keys.into_iter().map(Into::into).collect(),
                keys_only,
                ..Default::default()
            }),
            reader,
        }
    }
}

impl<C> fmt::Debug for Namespace<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Namespace").field(&self.name).finish()
    }
}
