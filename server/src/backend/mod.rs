//! What stores bytes: the vocabulary and the contract of all backends.
//!
//! A backend knows keys, entries, positions, revisions, deadlines and time, and nothing of conditions,
//! transactions or protocols: those are the store's. A namespace has two counters. The *position* counts
//! every commit and is what commits are conditioned on; the *revision* is what users see.

mod answer;
mod commit;
mod content_type;
pub mod embedded;
mod entry;
mod key;
mod redis;
pub mod registry;
mod retain;
mod staging;
mod verification;

use async_trait::async_trait;
use tokio::sync::watch;

pub use answer::{
    Ancestor, Changes, DueElsewhere, History, Listed, LogShape, LoggedChange, NamespaceInfo,
    ReadAnswer, ScanAnswer, Tip, Trimmed, Unreadable, Usage,
};
pub use commit::{
    Begun, Commit, CommitOutcome, Committed, Created, Draft, Generation, GroupIndex, GroupStamp,
    Groups, Moved, NewDeadline, ReadSet, Write, WriteOp, is_logged,
};
pub use content_type::ContentType;
pub use entry::{
    Change, ChangeKind, Deadline, Entry, Lineage, Position, Removal, Revision, SharedChange,
    StoredEntry, entry_bytes,
};
pub use key::{Key, KeyRange, NamespaceName};
pub use retain::{LogBounds, Retain};
pub use staging::Staging;
pub use verification::{Finding, Repaired, Verification};

/// Why a backend did not do what it was asked. The kinds differ in what the caller does next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum BackendError {
    /// The revision is no longer held; `oldest` is the first that can be read.
    #[error("revision is compacted; the oldest held is {oldest}")]
    Compacted {
        /// The first revision that can be read.
        oldest: Revision,
    },
    /// The revision is not there yet.
    #[error("revision is not there yet; the newest is {newest}")]
    Future {
        /// The last revision there is.
        newest: Revision,
    },
    /// A bound of the whole backend would be exceeded. Nothing was applied.
    #[error("{what} of the backend is used up: the limit is {limit}")]
    Full {
        /// Which bound: `max_keys` or `max_bytes`.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// The store cannot be reached or does not take writes. Surely nothing was applied.
    #[error("the backend is unavailable: {0}")]
    Unavailable(String),
    /// The revision belongs to writes that the store has lost since.
    #[error("writes after revision {valid_through} were lost")]
    Lost {
        /// The lineage now.
        lineage: Option<Lineage>,
        /// The last revision before those that were lost.
        valid_through: Revision,
    },
    /// The answer was lost: the commit may or may not have been applied.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(String),
    /// Stored data fails its checksum.
    #[error("stored data is corrupt: {0}")]
    Corrupt(String),
}

/// A place where namespaces are kept.
///
/// Rules for every implementation:
/// - **Atomic**: a commit is applied whole or not at all, and no read sees a part of one.
/// - **Durable**: what is answered or readable is as durable as the backend promises.
/// - **Ordered**: revisions are assigned inside the commit, without gaps, in the order of commits.
/// - **One clock**: time comes from the store, in the same answer, and never goes back in a namespace.
/// - **No meaning**: entries past their deadline are returned like others; hiding them is the store's.
/// - Keys that begin with a zero byte are internal: `usage` does not count them, and `clear` leaves them, but for
///   those that begin with two: these are notes on users' keys.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// The scheme of its URL, for people.
    fn scheme(&self) -> &'static str;

    /// What an acknowledged write survives, in words.
    fn durability(&self) -> &'static str;

    /// Whether commits are accepted just now; while they are not, they are refused as
    /// [`BackendError::Unavailable`], and reads go on.
    fn writable(&self) -> watch::Receiver<bool>;

    /// Whether it is reached over connections of this process. Reads then take so long that those of what waits are begun while
    /// a commit is under way, and that what a commit has written is kept at hand for the next; and not only clients are waited
    /// for, so that none can be looked out for.
    fn is_remote(&self) -> bool;

    /// Resolves once all that reads of a namespace have shown so far is as durable as what its commits have promised. That takes
    /// something only where it can be seen before.
    ///
    /// # Errors
    /// As a commit has them.
    async fn confirm(&self, _namespace: &NamespaceName) -> Result<(), BackendError> {
        Ok(())
    }

    /// The store's time, outside of any namespace, in milliseconds since the Unix epoch.
    async fn now_ms(&self) -> Result<i64, BackendError>;

    /// Reads entries, all at one position and time.
    ///
    /// - A missing namespace reads as empty, at [`Tip::lineage`] `None`.
    /// - With `at`, what that revision held; `Compacted` or `Future` when it is not there.
    async fn read(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        at: Option<Revision>,
    ) -> Result<ReadAnswer, BackendError>;

    /// Reads entries in the order of their keys.
    ///
    /// - Looks at no more than `limit` keys, those without an entry included, so that one call is short;
    ///   [`ScanAnswer::next`] is the range that is left.
    /// - With `at`, what that revision held; `Compacted` or `Future` when it is not there.
    async fn scan(
        &self,
        namespace: &NamespaceName,
        range: &KeyRange,
        at: Option<Revision>,
        reverse: bool,
        limit: usize,
    ) -> Result<ScanAnswer, BackendError>;

    /// The retained changes of one key before a revision, newest first, at most `limit`. Of those that are
    /// compacted only the newest is retained, if it left an entry.
    async fn history(
        &self,
        namespace: &NamespaceName,
        key: &Key,
        before: Revision,
        limit: usize,
    ) -> Result<History, BackendError>;

    /// Appends groups of writes if nothing in `reads` changed after position `at` and the clock has not
    /// passed `valid_until_ms`.
    ///
    /// - Every group with a logged write takes the next revision.
    /// - Otherwise nothing is applied and [`Moved`] tells what changed.
    /// - The first commit of a namespace creates it.
    /// - A commit without groups only checks its reads; it takes no position.
    async fn commit(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<CommitOutcome, BackendError>;

    /// The same, answered as soon as others can be made upon it: see [`Begun::UnderWay`].
    async fn begin(
        &self,
        namespace: &NamespaceName,
        commit: Commit<'_>,
    ) -> Result<Begun, BackendError> {
        self.commit(namespace, commit).await.map(Begun::Ended)
    }

    /// Reads entries as they will be once all commits are made that are on their way, for a commit upon these; nothing if
    /// none is. Whatever it shows is not to be told before a commit upon it has been made.
    ///
    /// - [`Tip::usage`] is that of the state before them.
    /// - [`Commit::upon`] is to name the generation.
    fn read_under_way(
        &self,
        _namespace: &NamespaceName,
        _keys: &[Key],
    ) -> Option<(ReadAnswer, Generation)> {
        None
    }

    /// Resolves once no commit that was begun is on its way.
    async fn settled(&self, _namespace: &NamespaceName) {}

    /// The log after a revision, in order, in whole revisions: up to `limit` changes and about
    /// `limit_bytes`, but more if one revision has more.
    ///
    /// - `Compacted` where the log no longer reaches back, `Future` past its end.
    /// - After revision 0: from the first change of the namespace, if that is still held.
    /// - A `limit` of 0 reads none: that only asks whether the log goes on from there.
    /// - `Lost` after a revision of writes that the store has lost.
    async fn changes(
        &self,
        namespace: &NamespaceName,
        after: Revision,
        limit: usize,
        limit_bytes: u64,
    ) -> Result<Changes, BackendError>;

    /// Resolves when the namespace is past `after`, or its lineage is not (or no longer) `lineage`.
    async fn changed(
        &self,
        namespace: &NamespaceName,
        lineage: Option<Lineage>,
        after: Revision,
    ) -> Result<(), BackendError>;

    /// Keys that are due by the store's clock, in order of deadline, at most `limit`, and the moment at which to ask
    /// again: at or before the earliest deadline there is, but for servers that share the state, of which one is to
    /// be the first. Where it has passed, there may be more that are due, though none was answered: the work of one
    /// call is bounded.
    async fn expired(
        &self,
        namespace: &NamespaceName,
        limit: usize,
    ) -> Result<(Vec<Key>, Option<i64>), BackendError>;

    /// Resolves when there is news of what is due that no answer to this process has brought: where others share the
    /// state. Asked by one caller at a time; what comes while nobody asks is kept for the next.
    async fn due_elsewhere(&self) -> DueElsewhere;

    /// The lineages that a namespace goes on from after the store has lost writes, newest first, each with the last
    /// revision that both have.
    async fn ancestors(&self, namespace: &NamespaceName) -> Result<Vec<Ancestor>, BackendError>;

    /// Forgets the oldest changes, and the versions only they could show, while `retain` does not hold
    /// them; at most about `limit` in one call. Answers whether there is more to forget.
    ///
    /// - With bounds and a `limit` below 1,000 it may be put off while the log is less than an eighth over the bounds
    ///   of its size, where each call takes a round trip.
    async fn trim(
        &self,
        namespace: &NamespaceName,
        retain: &Retain,
        limit: usize,
    ) -> Result<Trimmed, BackendError>;

    /// Removes all user keys and notes at one revision, with one [`ChangeKind::Clear`], if nothing was committed
    /// after position `at`, no user key is due by its own deadline, and the clock has not passed `valid_until_ms`; older
    /// revisions can no longer be read, though their log stays for watches. `records` are unlogged writes of the same
    /// commit.
    async fn clear(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
        records: Vec<Write>,
    ) -> Result<CommitOutcome, BackendError>;

    /// Removes everything but the name, the last revision and the position, if nothing was committed after position
    /// `at` and the clock has not passed `valid_until_ms`. Answers what was there; nothing if it was not removed for
    /// that.
    async fn delete(
        &self,
        namespace: &NamespaceName,
        at: Position,
        valid_until_ms: Option<i64>,
    ) -> Result<Option<Tip>, BackendError>;

    /// Adds entries to what is to take the place of a namespace, where nobody sees them yet: as they are, with their
    /// revisions, versions and times. The first call begins it.
    ///
    /// - An entry replaces that of the same key.
    /// - No entry has a revision after [`Staging::revision`].
    /// - What is neither put in place nor discarded goes when the server stops, or a day later.
    async fn stage(
        &self,
        staging: &Staging,
        entries: Vec<(Key, Entry)>,
    ) -> Result<(), BackendError>;

    /// Puts what was staged in the place of its namespace, in one step, if nothing was committed there after position
    /// `at`. If nothing was staged, the namespace is empty then. What was staged is used up by that.
    ///
    /// - The namespace has a new lineage, whatever it had before.
    /// - Its revision is one more than the larger of its last and [`Staging::revision`], and is the first that can be
    ///   read at or followed from.
    /// - Once begun, it is done whether or not the answer is awaited.
    async fn replace(&self, staging: &Staging, at: Position)
    -> Result<CommitOutcome, BackendError>;

    /// Writes what is kept anew, without what has been forgotten, where that makes it smaller. Resolves when it is done.
    async fn rewrite(&self) -> Result<(), BackendError>;

    /// Throws away what was staged, unless it was put in place.
    async fn discard(&self, staging: &Staging);

    /// What is known of a namespace, if it exists.
    async fn namespace(
        &self,
        namespace: &NamespaceName,
    ) -> Result<Option<NamespaceInfo>, BackendError>;

    /// Namespaces that exist whose names begin with `prefix`, in order of their names, after `after`, at most
    /// `limit`. One that cannot be read does not keep the others from being told of.
    async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError>;
}
