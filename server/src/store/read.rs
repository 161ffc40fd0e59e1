//! Reads. None of them waits for a write, and none that is long holds a namespace for long.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{
    Pin, Stats, Store, error::StoreError, keys, leases::Leases, selector::Selector,
    settings::Settings,
};
use crate::backend::{
    BackendError, History, Key, KeyRange, Lineage, NamespaceInfo, NamespaceName, Revision,
    StoredEntry, Tip, Unreadable,
};

/// How many namespaces are looked at in one step.
const STEP: usize = 1000;
/// In how many steps keys are looked at for one page.
const PAGE_STEPS: usize = 100;

/// Entries as of one revision and time.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The revision.
    pub revision: Revision,
    /// The store's time of the read.
    pub time_ms: i64,
    /// The history that the revision belongs to.
    pub lineage: Option<Lineage>,
    /// One slot a key, in the order asked.
    pub entries: Vec<Option<StoredEntry>>,
    leases: Leases,
}

/// The state that an answer is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadState {
    /// The revision.
    pub revision: Revision,
    /// The store's time of the read.
    pub time_ms: i64,
}

impl Snapshot {
    /// When an entry ends: by its own deadline, or with its lease.
    pub fn deadline_ms(&self, entry: &StoredEntry) -> Option<i64> {
        self.leases.ends_ms(&entry.deadline)
    }
}

/// What to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Which keys.
    pub selector: Selector,
    /// From the last to the first.
    pub reverse: bool,
    /// What this revision held, without regard to the clock.
    pub at: Option<Revision>,
    /// Only entries changed at this revision or later.
    pub min_mod_revision: Revision,
}

/// Where a read of several steps goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The revision of the first step.
    pub revision: Revision,
    /// The time of the first step.
    pub time_ms: i64,
    /// Whether entries are hidden that were due at that time.
    pub by_clock: bool,
    /// The history that the revision belongs to.
    pub lineage: Option<Lineage>,
    /// Where to go on: forward the first key to look at, in reverse the first not to look at any more. `None`:
    /// at the beginning.
    pub edge: Option<Key>,
}

/// Entries in order.
#[derive(Debug, Clone)]
pub struct Page {
    /// The state that they are of, and where to go on.
    pub cursor: Cursor,
    /// The entries.
    pub entries: Vec<StoredEntry>,
    /// Whether there is nothing after them.
    pub end: bool,
}

impl Store {
    /// Reads keys as of now, or what they held at a revision.
    pub async fn read(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        at: Option<Revision>,
    ) -> Result<Snapshot, StoreError> {
        let mut answer = self.backend.read(namespace, keys, at).await?;
        let revision = at.unwrap_or(answer.tip.revision);
        let mut leases = Leases::default();
        if at.is_none() {
            let found = answer.entries.iter().flatten();
            if let Err(error) = self.look_up(namespace, &mut leases, found, revision).await {
                return match error.is_lost_history() {
                    // What was read is gone already: that is as good as not having read it.
                    true => Box::pin(self.read(namespace, keys, at)).await,
                    false => Err(error),
                };
            }
            for entry in &mut answer.entries {
                hide_due(entry, answer.tip.time_ms, &leases);
            }
        }
        let Tip { time_ms, lineage, .. } = answer.tip;
        Ok(Snapshot { revision, time_ms, lineage, entries: answer.entries, leases })
    }

    /// Reads keys at the revision and time of an earlier read.
    pub async fn read_again(
        &self,
        namespace: &NamespaceName,
        keys: &[Key],
        cursor: &Cursor,
    ) -> Result<Snapshot, StoreError> {
        let read = self.read(namespace, keys, Some(cursor.revision)).await;
        let mut snapshot = match read {
            Ok(snapshot) => snapshot,
            Err(error) => return Err(self.explain(namespace, cursor, error).await),
        };
        check_lineage(snapshot.lineage, cursor.lineage)?;
        if cursor.by_clock {
            let found = snapshot.entries.iter().flatten();
            let read = self.look_up(namespace, &mut snapshot.leases, found, cursor.revision).await;
            if let Err(error) = read {
                return Err(self.explain(namespace, cursor, error).await);
            }
            for entry in &mut snapshot.entries {
                hide_due(entry, cursor.time_ms, &snapshot.leases);
            }
        }
        snapshot.time_ms = cursor.time_ms;
        Ok(snapshot)
    }

    /// Reads the next entries: up to `limit`, and for as long as `admit` lets them in, but at least one. A page
    /// also ends after many keys that do not match.
    pub async fn page(
        &self,
        namespace: &NamespaceName,
        query: &ListQuery,
        after: Option<Cursor>,
        limit: usize,
        mut admit: impl FnMut(&StoredEntry) -> bool,
    ) -> Result<Page, StoreError> {
        let mut rest = Some(query.remaining(after.as_ref()));
        let mut cursor = after;
        let mut entries = Vec::new();
        let mut leases = Leases::default();
        for _ in 0..PAGE_STEPS {
            let Some(range) = rest else { break };
            let at = cursor.as_ref().map(|cursor| cursor.revision).or(query.at);
            let keys = query.selector.step();
            let step = self.backend.scan(namespace, &range, at, query.reverse, keys).await;
            let step = match (step, &cursor) {
                (Ok(step), _) => step,
                (Err(error), Some(cursor)) => {
                    return Err(self.explain(namespace, cursor, error.into()).await);
                }
                (Err(error), None) => return Err(error.into()),
            };
            let here = cursor.get_or_insert_with(|| Cursor {
                revision: at.unwrap_or(step.tip.revision),
                time_ms: step.tip.time_ms,
                by_clock: at.is_none(),
                lineage: step.tip.lineage,
                edge: None,
            });
            check_lineage(step.tip.lineage, here.lineage)?;
            if here.by_clock {
                let found = step.entries.iter();
                let read = self.look_up(namespace, &mut leases, found, here.revision).await;
                if let Err(error) = read {
                    return Err(self.explain(namespace, here, error).await);
                }
            }
            for entry in step.entries {
                if !query.shows(&entry, here, &leases) {
                    continue;
                }
                if entries.len() == limit || !(admit(&entry) || entries.is_empty()) {
                    here.edge = Some(match query.reverse {
                        false => entry.key().clone(),
                        true => entry.key().successor(),
                    });
                    return Ok(Page { cursor: here.clone(), entries, end: false });
                }
                entries.push(entry);
            }
            rest = step.next;
            if let Some(rest) = &rest {
                here.edge = if query.reverse { rest.end.clone() } else { Some(rest.start.clone()) };
                tokio::task::yield_now().await;
            }
        }
        let cursor = cursor.expect("at least one step was made");
        Ok(Page { cursor, entries, end: rest.is_none() })
    }

    /// Why a read could not go on: where its revision went may be where the namespace went.
    async fn explain(
        &self,
        namespace: &NamespaceName,
        cursor: &Cursor,
        error: StoreError,
    ) -> StoreError {
        use BackendError::{Compacted, Future};
        if !matches!(error, StoreError::Backend(Compacted { .. } | Future { .. })) {
            return error;
        }
        let now = self.tip(namespace).await;
        let changed = now.ok().and_then(|now| check_lineage(now.lineage, cursor.lineage).err());
        changed.unwrap_or(error)
    }

    /// Counts the keys that a selector selects, as of one revision and time.
    pub async fn count(
        &self,
        namespace: &NamespaceName,
        selector: &Selector,
    ) -> Result<(u64, Cursor), StoreError> {
        let query = ListQuery {
            selector: selector.clone(),
            reverse: false,
            at: None,
            min_mod_revision: Revision(0),
        };
        let mut count = 0;
        let mut page = self.page(namespace, &query, None, usize::MAX, |_| true).await?;
        let _pin = self.pin(namespace, page.cursor.revision);
        loop {
            count += page.entries.len() as u64;
            if page.end {
                return Ok((count, page.cursor));
            }
            page = self.page(namespace, &query, Some(page.cursor), usize::MAX, |_| true).await?;
        }
    }

    /// The changes of a key that are held, newest first.
    pub async fn history(
        &self,
        namespace: &NamespaceName,
        key: &Key,
        before: Option<Revision>,
        limit: usize,
    ) -> Result<History, StoreError> {
        let before = before.unwrap_or(Revision(u64::MAX));
        Ok(self.backend.history(namespace, key, before, limit).await?)
    }

    /// Holds the state at a revision for a read of several steps.
    pub fn pin(&self, namespace: &NamespaceName, revision: Revision) -> Pin {
        self.namespace(namespace).pin(revision)
    }

    /// What is known of a namespace with its settings, if it exists, and where it stands in any case: all as of one state.
    pub async fn namespace_info(
        &self,
        namespace: &NamespaceName,
    ) -> Result<(Tip, Option<(NamespaceInfo, Settings)>), StoreError> {
        loop {
            let info = self.backend.namespace(namespace).await?;
            let answer = self.backend.read(namespace, &[keys::settings()], None).await?;
            let stored = answer.entries.first().and_then(Option::as_ref);
            let Some(info) = info else {
                if answer.tip.lineage.is_none() {
                    return Ok((answer.tip, None));
                }
                continue;
            };
            // Settings are never removed but with the namespace: what there is of them now was there then.
            let were_there = stored.is_none_or(|stored| stored.updated_at_ms < info.tip.time_ms);
            let is_of_one_state = answer.tip.position == info.tip.position
                || answer.tip.lineage == info.tip.lineage && were_there;
            if is_of_one_state {
                let settings = self.namespace(namespace).settings(stored);
                return Ok((info.tip, Some((info, *settings))));
            }
        }
    }

    /// Namespaces with their settings, in order of their names.
    pub async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<(NamespaceInfo, Settings)>, StoreError> {
        let mut found: Vec<(NamespaceInfo, Settings)> = Vec::new();
        let mut after = after.cloned();
        loop {
            let left = limit - found.len();
            let infos = self.readable_namespaces(prefix, after.as_ref(), left).await?;
            let Some(last) = infos.last().filter(|_| left > 0) else {
                return Ok(found);
            };
            after = Some(last.name.clone());
            for info in infos {
                // One that was deleted in between is not there.
                found.extend(self.namespace_info(&info.name).await?.1);
            }
        }
    }

    /// Namespaces as the backend lists them; an error if any of them cannot be read.
    pub async fn readable_namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<NamespaceInfo>, BackendError> {
        let listed = self.backend.namespaces(prefix, after, limit).await?;
        listed.into_iter().map(|it| it.map_err(|Unreadable { error, .. }| error)).collect()
    }

    /// What the store has done, and what it holds.
    pub async fn stats(&self) -> Result<Stats, StoreError> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut stats = Stats {
            time_ms: self.backend.now_ms().await?,
            commands: count(&self.counters.commands),
            commits: count(&self.counters.commits),
            expired: count(&self.counters.expired),
            watches: count(&self.counters.watches),
            ..Stats::default()
        };
        let mut after = None;
        loop {
            let infos = self.readable_namespaces("", after.as_ref(), STEP).await?;
            let Some(last) = infos.last() else {
                return Ok(stats);
            };
            after = Some(last.name.clone());
            for info in infos {
                stats.namespaces += 1;
                stats.usage.keys += info.tip.usage.keys;
                stats.usage.bytes += info.tip.usage.bytes;
                stats.log.events += info.log.events;
                stats.log.bytes += info.log.bytes;
            }
        }
    }
}

impl ListQuery {
    fn shows(&self, entry: &StoredEntry, cursor: &Cursor, leases: &Leases) -> bool {
        self.selector.contains(entry.key())
            && entry.mod_revision >= self.min_mod_revision
            && !(cursor.by_clock && leases.is_due(entry, cursor.time_ms))
    }

    /// The part of the range that is left.
    fn remaining(&self, cursor: Option<&Cursor>) -> KeyRange {
        let mut range = self.selector.bounds().clone();
        if let Some(edge) = cursor.and_then(|cursor| cursor.edge.clone()) {
            // A token is the client's word: it must not lead out of the range.
            if self.reverse {
                range.end = Some(range.end.map_or(edge.clone(), |end| end.min(edge)));
            } else {
                range.start = range.start.max(edge);
            }
        }
        range
    }
}

/// A read that goes on must find the history it began in.
pub(super) fn check_lineage(
    lineage: Option<Lineage>,
    expected: Option<Lineage>,
) -> Result<(), StoreError> {
    if lineage == expected {
        return Ok(());
    }
    Err(StoreError::LineageChanged { lineage, valid_through: Revision(0) })
}

fn hide_due(entry: &mut Option<StoredEntry>, time_ms: i64, leases: &Leases) {
    if entry.as_ref().is_some_and(|entry| leases.is_due(entry, time_ms)) {
        *entry = None;
    }
}
