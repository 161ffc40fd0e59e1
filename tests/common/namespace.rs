//! One namespace, as a case sees it.

use std::sync::atomic::{AtomicU64, Ordering};

use holdfast_proto::v1::{
    kv_service_client::KvServiceClient, pipeline_answer::Result as Outcome,
    pipeline_call::Operation as Op, *,
};
use tonic::transport::{Channel, Endpoint};

use super::{
    backends::TestServer, build, call::Call, failure::Failure, pipe::Pipe, watcher::Watcher,
};

/// A namespace of its own and a connection of its own.
#[derive(Clone)]
pub struct Namespace {
    pub name: String,
    pub channel: Channel,
    /// For further connections.
    pub endpoint: Endpoint,
    /// The servers that are behind it, each for itself.
    pub servers: Vec<Endpoint>,
}

impl Namespace {
    /// A namespace that nobody has used on this server.
    pub fn fresh(server: &TestServer, label: &str) -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let label: String = label.chars().take(100).collect();
        Namespace {
            name: format!("{label}-{number}"),
            channel: server.connect(),
            endpoint: server.endpoint(),
            servers: server.servers(),
        }
    }

    /// The same namespace through another server.
    pub fn through(&self, server: &TestServer) -> Self {
        Namespace { name: self.name.clone(), ..Namespace::fresh(server, "") }
    }

    /// The same connection, another namespace.
    pub fn sibling(&self, suffix: &str) -> Self {
        Namespace { name: format!("{}.{suffix}", self.name), ..self.clone() }
    }

    /// The same namespace over another connection, which belongs to the runtime that this is called in.
    pub fn reconnected(&self) -> Self {
        Namespace { channel: self.endpoint.connect_lazy(), ..self.clone() }
    }

    /// Sends a request on this namespace.
    pub async fn call<C: Call>(&self, mut request: C) -> Result<C::Answer, Failure> {
        if let Some(namespace) = request.namespace() {
            namespace.clone_from(&self.name);
        }
        Ok(request.send(self.channel.clone()).await?)
    }

    /// Sends an operation of a pipeline as a call of its own.
    pub async fn send(&self, operation: Op) -> Result<Outcome, Failure> {
        macro_rules! by_kind {
            ($($kind:ident)*) => {
                match operation {
                    $(Op::$kind(request) => self.call(request).await.map(Outcome::$kind),)*
                }
            };
        }
        by_kind! {
            Get Set Delete Exists GetTtl SetTtl Increment List Count History DeleteRange
            BatchGet BatchSet BatchDelete Transact
            Acquire Renew Release UpdateValue GetLock ListLocks BreakLock
            Grant KeepAlive Revoke GetLease ListLeases
        }
    }

    /// Sends a request that is to succeed.
    pub async fn ok<C: Call>(&self, request: C) -> C::Answer {
        match self.call(request).await {
            Ok(answer) => answer,
            Err(failure) => panic!("{failure:?}"),
        }
    }

    /// Sends a request that is to fail for this reason.
    pub async fn fails<C: Call>(&self, request: C, reason: ErrorReason) -> Failure {
        match self.call(request).await {
            Ok(answer) => panic!("{reason:?} expected, got {answer:?}"),
            Err(failure) => failure.expect(reason),
        }
    }

    /// Sets a key; the metadata it has then.
    pub async fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Entry {
        let answer = self.ok(build::set(key, value)).await;
        let entry = answer.entry.expect("Set answers with the entry");
        assert_eq!(entry.mod_revision, answer.revision);
        entry
    }

    /// The entry of a key.
    pub async fn get(&self, key: &str) -> Option<Entry> {
        self.ok(build::get(key)).await.entry
    }

    /// The value of a key, as text.
    pub async fn value(&self, key: &str) -> Option<String> {
        let entry = self.get(key).await?;
        let value = entry.value.expect("Get answers with a value");
        Some(String::from_utf8(value.to_vec()).expect("the tests write text"))
    }

    /// The revision of the namespace.
    pub async fn revision(&self) -> u64 {
        self.state().await.revision
    }

    /// The namespace's own record.
    pub async fn state(&self) -> GetNamespaceResponse {
        self.ok(GetNamespaceRequest::default()).await
    }

    /// The lineage of a namespace that exists.
    pub async fn lineage(&self) -> String {
        let namespace = self.state().await.namespace;
        namespace.expect("the namespace exists").lineage
    }

    /// The keys that a selector selects, by a list.
    pub async fn keys(&self, selector: Selector) -> Vec<String> {
        let entries = self.list_all(build::list(selector)).await.entries;
        entries.into_iter().map(|entry| entry.key).collect()
    }

    /// All pages of a list in one answer; checks that they are of one state.
    pub async fn list_all(&self, request: ListRequest) -> ListResponse {
        let mut whole = self.ok(request.clone()).await;
        while !whole.next_page_token.is_empty() {
            let page_token = whole.next_page_token.clone();
            let page = self.ok(ListRequest { page_token, ..request.clone() }).await;
            let states = (whole.revision, whole.time_ms, &whole.lineage);
            assert_eq!((page.revision, page.time_ms, &page.lineage), states);
            whole.entries.extend(page.entries);
            whole.next_page_token = page.next_page_token;
        }
        whole
    }

    /// All messages of a scan.
    pub async fn scan(&self, mut request: ScanRequest) -> Result<Vec<ScanResponse>, Failure> {
        request.namespace.clone_from(&self.name);
        let mut client = KvServiceClient::new(self.channel.clone());
        let mut stream = client.scan(request).await?.into_inner();
        let mut messages = Vec::new();
        while let Some(message) = stream.message().await? {
            messages.push(message);
        }
        Ok(messages)
    }

    /// Opens a watch and reads its `created`.
    pub async fn watch(&self, request: WatchRequest) -> Result<Watcher, Failure> {
        Watcher::open(self, request).await
    }

    /// Opens a watch that is to succeed.
    pub async fn watching(&self, request: WatchRequest) -> Watcher {
        match self.watch(request).await {
            Ok(watcher) => watcher,
            Err(failure) => panic!("{failure:?}"),
        }
    }

    /// All events of a namespace from a revision on, up to the present one.
    pub async fn events_after(&self, revision: u64) -> Vec<Event> {
        let now = self.revision().await;
        let mut watcher = self
            .watching(WatchRequest {
                with_previous: true,
                ..build::watch_after(build::all(), revision)
            })
            .await;
        watcher.events_through(now).await
    }

    /// Opens a pipeline.
    pub async fn pipe(&self) -> Pipe {
        Pipe::open(self).await
    }
}
