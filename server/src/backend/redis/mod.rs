//! State in Redis, shared by any number of servers: one instance, a master that sentinels watch over, or a cluster.
//!
//! Every piece of work on a namespace is one script, which runs alone and sees where the namespace stands. All that a server
//! holds beside is a help that can be lost.
//!
//! - `url`, `link`: how Redis is reached; nothing there knows of namespaces.
//! - `layout`: the names of keys; `record`: what is stored of a change; `writes`: what scripts are told of those to come;
//!   `scripts`: what runs in Redis.
//! - `answer`, `head`: what comes back. `lane`: what is known of a namespace, and how its scripts are called.
//! - `read`, `log`, `commit`, `transfer`, `names`: the work itself.
//! - `wake`: who waits for news; `members`: which server is the first to expire what is due.

mod answer;
mod commit;
#[cfg(test)]
mod fuzz;
mod head;
mod lane;
mod layout;
mod link;
mod log;
mod members;
mod names;
mod read;
mod record;
mod scripts;
mod transfer;
mod url;
mod wake;
mod writes;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::RwLock;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use self::{
    answer::Parts,
    lane::{Answer, Lanes, read_error},
    layout::Layout,
    link::{Call, Link},
    members::Members,
    scripts::Scripts,
    url::Settings,
    wake::Wake,
};
use super::{
    Ancestor, Backend, BackendError, Changes, Commit, CommitOutcome, DueElsewhere, Entry, History,
    Key, KeyRange, Lineage, Listed, NamespaceInfo, NamespaceName, Position, ReadAnswer, Retain,
    Revision, ScanAnswer, Staging, Tip, Trimmed, Write,
};

/// Namespaces in Redis.
pub struct Redis {
    core: Arc<Core>,
    scheme: &'static str,
    durability: &'static str,
    /// What goes on in the background, until this is dropped.
    _tasks: JoinSet<()>,
}

/// What all parts have in common.
struct Core {
    link: Link,
    scripts: Scripts,
    layout: Layout,
    /// The channel of messages.
    channel: Bytes,
    /// Names this server among those that share the state.
    server: String,
    lanes: RwLock<Lanes>,
    wake: Wake,
    members: Members,
}

impl Redis {
    /// Connects as the rest of a URL says. To be called within a runtime.
    ///
    /// # Errors
    /// What is wrong with the URL, or why Redis cannot be used; without passwords.
    pub async fn open(scheme: &'static str, rest: &str) -> Result<Self, String> {
        let settings = Settings::parse(scheme, rest)?;
        let layout = Layout::new(&settings.prefix);
        let link = Link::open(settings).await?;
        // Once for each backend that is opened, and so at most for each start.
        let durability = link.found().durability().leak();
        let core = Arc::new(Core {
            channel: layout.channel().into(),
            link,
            scripts: Scripts::new(),
            layout,
            server: Uuid::new_v4().simple().to_string(),
            lanes: RwLock::default(),
            wake: Wake::default(),
            members: Members::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(core.clone().listen(core.link.messages()));
        tasks.spawn(core.clone().look());
        tasks.spawn(core.clone().live());
        Ok(Self { core, scheme, durability, _tasks: tasks })
    }
}

#[async_trait]
impl Backend for Redis {
    fn scheme(&self) -> &'static str {
        self.scheme
    }

    fn durability(&self) -> &'static str {
        self.durability
    }

    fn writable(&self) -> watch::Receiver<bool> {
        self.core.link.writable()
    }

    fn is_remote(&self) -> bool {
        true
    }

    async fn confirm(&self, namespace: &NamespaceName) -> Result<(), BackendError> {
        if self.core.link.waits_for_replicas() {
            let lane = self.core.lane(namespace);
            self.core.tell(&lane, &self.core.scripts.confirm, &[]).await?;
        }
        Ok(())
    }

    async fn now_ms(&self) -> Result<i64, BackendError> {
        let Core { link, scripts, layout, .. } = &*self.core;
        let call = Call { script: &scripts.time, keys: layout.names(), args: Vec::new() };
        let mut parts = Parts::of(link.call(call).await.map_err(read_error)?)?;
        parts.take()?;
        parts.number()
    }

    async fn read(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        at: Option<Revision>,
    ) -> Result<ReadAnswer, BackendError> {
        let lane = self.core.lane(namespace);
        match at {
            None => self.core.read_now(&lane, keys).await,
            Some(at) => self.core.read_at(&lane, keys, at).await,
        }
    }

    async fn scan(
        &self,
        namespace: &NamespaceName,
        range: &KeyRange,
        at: Option<Revision>,
        reverse: bool,
        limit: usize,
    ) -> Result<ScanAnswer, BackendError> {
        self.core.scan(&self.core.lane(namespace), range, at, reverse, limit).await
    }

    async fn history(
        &self,
        namespace: &NamespaceName,
        key: &Key,
        before: Revision,
        limit: usize,
    ) -> Result<History, BackendError> {
        self.core.history(&self.core.lane(namespace), key, before, limit).await
    }

    async fn commit(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError> {
        self.core.commit(&self.core.lane(namespace), commit).await
    }

    async fn changes(
        &self,
        namespace: &NamespaceName,
        after: Revision,
        limit: usize,
        limit_bytes: u64,
    ) -> Result<Changes, BackendError> {
        self.core.changes(&self.core.lane(namespace), after, limit, limit_bytes).await
    }

    async fn changed(
        &self,
        namespace: &NamespaceName,
        lineage: Option<Lineage>,
        after: Revision,
    ) -> Result<(), BackendError> {
        self.core.changed(&self.core.lane(namespace), lineage, after).await;
        Ok(())
    }

    async fn expired(
        &self,
        namespace: &NamespaceName,
        limit: usize,
    ) -> Result<(Vec<Key>, Option<i64>), BackendError> {
        let lane = self.core.lane(namespace);
        let args = [limit.to_string().into()];
        let Answer { head, mut parts, .. } =
            self.core.ask(&lane, &self.core.scripts.expired, &args).await?;
        let due = parts.list()?.into_iter().chain(parts.list()?).map(read::key);
        Ok((due.collect::<Result<_, _>>()?, self.core.look_at(&lane, head.next_deadline_ms)))
    }

    async fn due_elsewhere(&self) -> DueElsewhere {
        self.core.wake.due_elsewhere().await
    }

    async fn ancestors(&self, namespace: &NamespaceName) -> Result<Vec<Ancestor>, BackendError> {
        self.core.ancestors(&self.core.lane(namespace)).await
    }

    async fn trim(
        &self,
        namespace: &NamespaceName,
        retain: &Retain,
        limit: usize,
    ) -> Result<Trimmed, BackendError> {
        self.core.trim(&self.core.lane(namespace), retain, limit).await
    }

    async fn clear(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError> {
        self.core.clear(&self.core.lane(namespace), at, valid_until_ms, records).await
    }

    async fn delete(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError> {
        self.core.delete(&self.core.lane(namespace), at, valid_until_ms).await
    }

    async fn stage(
        &self,
        staging: &Staging,
        entries: Vec<(Key, Entry)>,
    ) -> Result<(), BackendError> {
        self.core.stage(&self.core.lane(&staging.namespace), staging, entries).await
    }

    async fn replace(
        &self,
        staging: &Staging,
        at: Position,
    ) -> Result<CommitOutcome, BackendError> {
        self.core.replace(&self.core.lane(&staging.namespace), staging, at).await
    }

    async fn rewrite(&self) -> Result<(), BackendError> {
        // That is the business of Redis.
        Ok(())
    }

    async fn discard(&self, staging: &Staging) {
        self.core.discard(&self.core.lane(&staging.namespace), staging).await;
    }

    async fn namespace(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Option<NamespaceInfo>, BackendError> {
        let lane = self.core.lane(namespace);
        let none = [Bytes::from_static(b"0")];
        let answer = self.core.ask(&lane, &self.core.scripts.read, &none).await?;
        Ok(answer.head.info(namespace))
    }

    async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError> {
        self.core.namespaces(prefix, after, limit).await
    }
}

/// Resolves after a time on the machine's clock: how often is looked at Redis has nothing to do with the time of the state.
#[expect(clippy::disallowed_methods, reason = "Redis is waited for in the machine's time")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
