//! Namespaces themselves: what is known of them, their settings, their end.

use std::time::Duration;

use futures::{Stream, TryStreamExt as _};
use holdfast_proto::v1;
use prost_types::FieldMask;

use crate::{
    Answer, Client, Codec, Error, Lineage, Namespace, Revision, Timestamp,
    call::{Pending, awaitable_with_header, call_options, pages, turn_page, write_options},
    types::millis_rounded_up,
};

/// What is known of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Its name.
    pub name: String,
    /// Its lineage, new whenever its history begins anew.
    pub lineage: Lineage,
    /// Its last revision.
    pub revision: Revision,
    /// The last revision that is no longer held in the log.
    pub compacted_revision: Revision,
    /// When it was made.
    pub created_at: Timestamp,
    /// Its settings, without those that have their defaults.
    pub settings: NamespaceSettings,
    /// How many keys it has. Keys that have just expired count until they are removed.
    pub key_count: u64,
    /// How many bytes its keys, content types and values have.
    pub byte_count: u64,
}

/// How a namespace behaves; `None` is the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceSettings {
    /// TTL of entries written without an expiry. Default: none.
    pub default_ttl: Option<Duration>,
    /// How many events the log holds. Default: 1,000,000.
    pub log_max_events: Option<u64>,
    /// How old events may become. Default: one hour.
    pub log_max_age: Option<Duration>,
    /// How large the log may become, in bytes. Default: 256 MiB.
    pub log_max_bytes: Option<u64>,
    /// How many keys there may be. Default: no bound.
    pub quota_max_keys: Option<u64>,
    /// How many bytes the keys, content types and values may have together. Default: no bound.
    pub quota_max_bytes: Option<u64>,
}

impl<C: Codec> Namespace<C> {
    /// What is known of the namespace; `None` if it does not exist.
    pub fn info(&self) -> GetNamespace {
        GetNamespace { call: self.pending(v1::GetNamespaceRequest { namespace: self.namespace() }) }
    }

    /// Changes settings, and creates the namespace if need be: also without any setting. Answers with the
    /// namespace as it is then.
    pub fn update_settings(&self) -> UpdateSettings {
        UpdateSettings {
            call: self.pending(v1::UpdateNamespaceRequest {
                namespace: self.namespace(),
                settings: Some(v1::NamespaceSettings::default()),
                ..Default::default()
            }),
        }
    }

    /// Removes all keys in one revision. Settings stay; what came before can no longer be read. Answers
    /// with the number of keys removed.
    pub fn clear(&self) -> ClearNamespace {
        ClearNamespace {
            call: self
                .pending(v1::ClearNamespaceRequest { namespace: self.namespace(), options: None }),
        }
    }

    /// Removes the namespace with its settings and history. Its watches end with
    /// [`Error::LineageChanged`]. Answers whether it was there.
    ///
    /// The namespace takes the record of this call with it. So where the answer is lost the call is not sent again,
    /// or else it might remove what others have written since: it is [`Error::OutcomeUnknown`]. With an
    /// [expected lineage](DeleteNamespace::expected_lineage) it is sent again, for it can only remove that one
    /// history; if that turns out to be over, by this call or by another's, it is [`Error::OutcomeUnknown`], too,
    /// and what was to be removed is gone.
    pub fn delete_namespace(&self) -> DeleteNamespace {
        DeleteNamespace {
            call: self
                .pending(v1::DeleteNamespaceRequest { namespace: self.namespace(), options: None }),
        }
    }

    /// Forgets the log and old versions up to a revision, whatever the retention. Answers with the last
    /// revision whose events are no longer held. A revision that is not there yet is
    /// [`Error::FutureRevision`].
    pub fn compact(&self, through: impl Into<Revision>) -> Compact {
        Compact {
            call: self.pending(v1::CompactRequest {
                namespace: self.namespace(),
                through_revision: through.into().get(),
            }),
        }
    }
}

/// Lists namespaces; made by [`Client::namespaces`]. End it with [`stream`](Self::stream) or
/// [`all`](Self::all).
#[must_use = "a list does nothing until it is read"]
pub struct Namespaces {
    call: Pending<v1::ListNamespacesRequest>,
}

impl Namespaces {
    pub(crate) fn new(client: Client) -> Self {
        Self { call: Pending::new(client, v1::ListNamespacesRequest::default()) }
    }

    /// Only names that begin with this.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.call.request.prefix = prefix.into();
        self
    }

    /// How many the server sends at a time, up to 1,000; 100 unless set.
    pub fn page_size(mut self, namespaces: u32) -> Self {
        self.call.request.page_size = namespaces;
        self
    }

    call_options!();

    /// The namespaces, in order of their names, read page by page. An error ends the stream.
    pub fn stream(self) -> impl Stream<Item = Result<NamespaceInfo, Error>> + Send + Unpin + use<> {
        pages(self.call, turn_page!(namespaces as NamespaceInfo))
    }

    /// All of them at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the other failures of any call.
    pub async fn all(self) -> Result<Vec<NamespaceInfo>, Error> {
        self.stream().try_collect().await
    }
}

/// Reads what is known of a namespace; made by [`Namespace::info`].
#[must_use = "a call does nothing until it is awaited"]
pub struct GetNamespace {
    call: Pending<v1::GetNamespaceRequest>,
}

impl GetNamespace {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<Option<NamespaceInfo>>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(
            response.revision,
            response.time_ms,
            response.namespace.map(NamespaceInfo::from_wire),
        ))
    }
}

awaitable_with_header!([] GetNamespace => Option<NamespaceInfo>);

/// Changes settings; made by [`Namespace::update_settings`]. Only what is named changes; `None` goes back
/// to the default.
#[must_use = "a call does nothing until it is awaited"]
pub struct UpdateSettings {
    call: Pending<v1::UpdateNamespaceRequest>,
}

impl UpdateSettings {
    /// TTL of entries written without an expiry: 1 ms to 100 years.
    pub fn default_ttl(self, ttl: impl Into<Option<Duration>>) -> Self {
        let millis = ttl.into().map(millis_rounded_up);
        self.change("default_ttl_ms", |settings| settings.default_ttl_ms = millis)
    }

    /// How many events the log holds: 1 to 1,000,000,000.
    pub fn log_max_events(self, events: impl Into<Option<u64>>) -> Self {
        let events = events.into();
        self.change("log_max_events", |settings| settings.log_max_events = events)
    }

    /// How old events may become: 1 s to 10 years.
    pub fn log_max_age(self, age: impl Into<Option<Duration>>) -> Self {
        let millis = age.into().map(millis_rounded_up);
        self.change("log_max_age_ms", |settings| settings.log_max_age_ms = millis)
    }

    /// How large the log may become, in bytes: 1 MiB to 1 TiB.
    pub fn log_max_bytes(self, bytes: impl Into<Option<u64>>) -> Self {
        let bytes = bytes.into();
        self.change("log_max_bytes", |settings| settings.log_max_bytes = bytes)
    }

    /// How many keys there may be.
    pub fn quota_max_keys(self, keys: impl Into<Option<u64>>) -> Self {
        let keys = keys.into();
        self.change("quota_max_keys", |settings| settings.quota_max_keys = keys)
    }

    /// How many bytes the keys, content types and values may have together.
    pub fn quota_max_bytes(self, bytes: impl Into<Option<u64>>) -> Self {
        let bytes = bytes.into();
        self.change("quota_max_bytes", |settings| settings.quota_max_bytes = bytes)
    }

    call_options!();
    write_options!();

    fn change(mut self, path: &str, change: impl FnOnce(&mut v1::NamespaceSettings)) -> Self {
        change(self.call.request.settings.get_or_insert_default());
        let mask = self.call.request.update_mask.get_or_insert_with(FieldMask::default);
        if !mask.paths.iter().any(|known| known == path) {
            mask.paths.push(path.to_owned());
        }
        self
    }

    async fn answer(&mut self) -> Result<Answer<NamespaceInfo>, Error> {
        let response = self.call.send().await?;
        let namespace = response
            .namespace
            .ok_or_else(|| Error::protocol("the answer to an update has no namespace"))?;
        Ok(Answer::new(response.revision, response.time_ms, NamespaceInfo::from_wire(namespace)))
    }
}

awaitable_with_header!([] UpdateSettings => NamespaceInfo);

/// Removes all keys; made by [`Namespace::clear`].
#[must_use = "a call does nothing until it is awaited"]
pub struct ClearNamespace {
    call: Pending<v1::ClearNamespaceRequest>,
}

impl ClearNamespace {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<u64>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.cleared))
    }
}

awaitable_with_header!([] ClearNamespace => u64);

/// Removes a namespace; made by [`Namespace::delete_namespace`].
#[must_use = "a call does nothing until it is awaited"]
pub struct DeleteNamespace {
    call: Pending<v1::DeleteNamespaceRequest>,
}

impl DeleteNamespace {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<bool>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.deleted))
    }
}

awaitable_with_header!([] DeleteNamespace => bool);

/// Forgets history; made by [`Namespace::compact`].
#[must_use = "a call does nothing until it is awaited"]
pub struct Compact {
    call: Pending<v1::CompactRequest>,
}

impl Compact {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<Revision>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(
            response.revision,
            response.time_ms,
            Revision::new(response.compacted_revision),
        ))
    }
}

awaitable_with_header!([] Compact => Revision);

impl NamespaceInfo {
    fn from_wire(namespace: v1::Namespace) -> Self {
        let settings = namespace.settings.unwrap_or_default();
        Self {
            name: namespace.name,
            lineage: Lineage::new(namespace.lineage),
            revision: Revision::new(namespace.revision),
            compacted_revision: Revision::new(namespace.compacted_revision),
            created_at: Timestamp::from_millis(namespace.created_at_ms),
            settings: NamespaceSettings {
                default_ttl: settings.default_ttl_ms.map(Duration::from_millis),
                log_max_events: settings.log_max_events,
                log_max_age: settings.log_max_age_ms.map(Duration::from_millis),
                log_max_bytes: settings.log_max_bytes,
                quota_max_keys: settings.quota_max_keys,
                quota_max_bytes: settings.quota_max_bytes,
            },
            key_count: namespace.key_count,
            byte_count: namespace.byte_count,
        }
    }
}
