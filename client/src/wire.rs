//! Between the messages on the wire and the types of this crate: the only place that knows both.

use bytes::Bytes;
use holdfast_proto::v1;

use crate::{
    BoxError, Codec, Decode, Encode, Entry, Error, Expiry, Guard, LeaseId, Lineage, Metadata,
    Revision, Selector, Timestamp,
    types::{SelectorKind, millis_rounded_up},
};

/// How entries are read: with a codec, or without their values. Holds a plain function, so that builders
/// need not name what the codec can read.
#[derive(Clone)]
pub(crate) struct Reader<C, T> {
    codec: C,
    read: ReadEntry<C, T>,
    read_lent: ReadLent<C, T>,
}

type ReadEntry<C, T> = fn(&C, v1::Entry) -> Result<Entry<T>, Error>;
/// For an entry that others read, too.
type ReadLent<C, T> = fn(&C, &v1::Entry) -> Result<Entry<T>, Error>;

impl<C: Codec, T> Reader<C, T> {
    /// Reads entries with their values.
    pub(crate) fn of_values(codec: C) -> Self
    where
        C: Decode<T>,
    {
        Self { codec, read: read_with_value, read_lent: read_lent_with_value }
    }

    /// An entry; its value must have travelled.
    pub(crate) fn read(&self, entry: v1::Entry) -> Result<Entry<T>, Error> {
        (self.read)(&self.codec, entry)
    }

    /// An entry that others read, too; its value must have travelled.
    pub(crate) fn read_lent(&self, entry: &v1::Entry) -> Result<Entry<T>, Error> {
        (self.read_lent)(&self.codec, entry)
    }

    /// The same, or none if its value did not travel.
    pub(crate) fn read_if_valued(&self, entry: &v1::Entry) -> Result<Option<Entry<T>>, Error> {
        match self.read_lent(entry) {
            Err(Error::ValueOmitted { .. }) => Ok(None),
            read => read.map(Some),
        }
    }

    /// An entry, if there is one.
    pub(crate) fn read_option(&self, entry: Option<v1::Entry>) -> Result<Option<Entry<T>>, Error> {
        entry.map(|entry| self.read(entry)).transpose()
    }

    /// The same codec, reading other values.
    pub(crate) fn for_type<U>(self) -> Reader<C, U>
    where
        C: Decode<U>,
    {
        Reader::of_values(self.codec)
    }
}

impl<C: Codec> Reader<C, ()> {
    /// Reads entries without looking at their values.
    pub(crate) fn of_keys(codec: C) -> Self {
        Self { codec, read: read_without_value, read_lent: read_lent_without_value }
    }
}

fn read_with_value<C: Decode<T>, T>(codec: &C, entry: v1::Entry) -> Result<Entry<T>, Error> {
    let (metadata, value) = split(entry);
    let Some(value) = value else {
        return Err(Error::ValueOmitted { key: metadata.key });
    };
    let value = decode(codec, &metadata, value)?;
    Ok(Entry { value, metadata })
}

fn read_without_value<C>(_codec: &C, entry: v1::Entry) -> Result<Entry<()>, Error> {
    let (metadata, _) = split(entry);
    Ok(Entry { value: (), metadata })
}

fn read_lent_with_value<C: Decode<T>, T>(codec: &C, entry: &v1::Entry) -> Result<Entry<T>, Error> {
    let Some(value) = &entry.value else {
        return Err(Error::ValueOmitted { key: entry.key.clone() });
    };
    let metadata = metadata_of(entry);
    let value = decode(codec, &metadata, value.clone())?;
    Ok(Entry { value, metadata })
}

fn read_lent_without_value<C>(_codec: &C, entry: &v1::Entry) -> Result<Entry<()>, Error> {
    Ok(Entry { value: (), metadata: metadata_of(entry) })
}

/// The value of an entry, once its content type is found to be one the codec reads.
pub(crate) fn decode<C: Decode<T>, T>(
    codec: &C,
    metadata: &Metadata,
    value: Bytes,
) -> Result<T, Error> {
    if !codec.accepts(&metadata.content_type) {
        return Err(Error::UnexpectedContentType {
            key: metadata.key.clone(),
            expected: codec.content_type().to_owned(),
            found: metadata.content_type.clone(),
        });
    }
    codec.decode(value).map_err(|source| Error::Codec { key: metadata.key.clone(), source })
}

/// The bytes of a value.
pub(crate) fn encode<C: Encode<T>, T: ?Sized>(
    codec: &C,
    key: &str,
    value: &T,
) -> Result<Bytes, Error> {
    codec.encode(value).map_err(|source: BoxError| Error::Codec { key: key.to_owned(), source })
}

/// The content type that values of a codec are written with.
pub(crate) fn content_type<C: Codec>(codec: &C) -> String {
    codec.content_type().to_owned()
}

/// What is known of an entry, and its value if that travelled.
pub(crate) fn split(mut entry: v1::Entry) -> (Metadata, Option<Bytes>) {
    let key = std::mem::take(&mut entry.key);
    let content_type = std::mem::take(&mut entry.content_type);
    (metadata_under(key, content_type, &entry), entry.value)
}

/// What is known of an entry that others read, too.
pub(crate) fn metadata_of(entry: &v1::Entry) -> Metadata {
    metadata_under(entry.key.clone(), entry.content_type.clone(), entry)
}

/// What is known of an entry with this key and content type.
fn metadata_under(key: String, content_type: String, entry: &v1::Entry) -> Metadata {
    Metadata {
        key,
        content_type,
        version: entry.version,
        create_revision: Revision::new(entry.create_revision),
        mod_revision: Revision::new(entry.mod_revision),
        created_at: Timestamp::from_millis(entry.created_at_ms),
        updated_at: Timestamp::from_millis(entry.updated_at_ms),
        expires_at: entry.expires_at_ms.map(Timestamp::from_millis),
        lease_id: entry.lease_id.map(LeaseId::new),
    }
}

/// The metadata in an answer to a write.
pub(crate) fn metadata(entry: Option<v1::Entry>) -> Result<Metadata, Error> {
    entry
        .map(|entry| split(entry).0)
        .ok_or_else(|| Error::protocol("the answer to a write has no entry"))
}

/// When an entry is to end.
pub(crate) fn expiry(expiry: Expiry) -> v1::Expiry {
    use v1::expiry::{Keep, Kind, Never};
    let kind = match expiry {
        Expiry::Ttl(ttl) => Kind::TtlMs(millis_rounded_up(ttl)),
        Expiry::At(time) => Kind::ExpiresAtMs(time.as_millis()),
        Expiry::Keep => Kind::Keep(Keep {}),
        Expiry::Never => Kind::Never(Never {}),
        Expiry::Lease(id) => Kind::LeaseId(id.get()),
    };
    v1::Expiry { kind: Some(kind) }
}

/// Which keys a request is about.
pub(crate) fn selector(selector: Selector) -> v1::Selector {
    use v1::selector::{All, Kind, Range};
    let kind = match selector.0 {
        SelectorKind::Key(key) => Kind::Key(key),
        SelectorKind::Prefix(prefix) => Kind::Prefix(prefix),
        SelectorKind::Range { start, end } => Kind::Range(Range { start, end }),
        SelectorKind::Glob(pattern) => Kind::Glob(pattern),
        SelectorKind::All => Kind::All(All {}),
    };
    v1::Selector { kind: Some(kind) }
}

/// Puts the lineage a write expects into its options.
pub(crate) fn expect_lineage(options: &mut Option<v1::WriteOptions>, lineage: Lineage) {
    options.get_or_insert_default().expected_lineage = Some(lineage.into());
}

/// Adds a hold that a write relies on to its options.
pub(crate) fn guard(options: &mut Option<v1::WriteOptions>, guard: Guard) {
    let guard = v1::Guard { lock: guard.lock, token: guard.token.get() };
    options.get_or_insert_default().guards.push(guard);
}

/// The condition that a key is missing.
pub(crate) fn if_absent() -> v1::Condition {
    condition(v1::condition::Kind::Absent(v1::condition::Absent {}))
}

/// The condition that a key is there.
pub(crate) fn if_present() -> v1::Condition {
    condition(v1::condition::Kind::Present(v1::condition::Present {}))
}

/// The condition that a key was last changed at a revision.
pub(crate) fn if_revision(revision: Revision) -> v1::Condition {
    condition(v1::condition::Kind::ModRevision(revision.get()))
}

fn condition(kind: v1::condition::Kind) -> v1::Condition {
    v1::Condition { kind: Some(kind) }
}
