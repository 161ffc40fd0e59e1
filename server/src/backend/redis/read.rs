//! Reads of entries: now, many callers' together, or at a revision, step by step back.

use std::{collections::HashMap, ops::Bound, sync::Arc};

use bytes::Bytes;
use redis::Value;
use tokio::sync::oneshot;

use super::{
    Core,
    answer::{bytes, list, strange},
    head::{Head, check_not_lost, losses},
    lane::{Answer, Lane},
    record,
};
use crate::backend::{
    BackendError, History, Key, KeyRange, ReadAnswer, Revision, ScanAnswer, SharedChange,
    StoredEntry, Tip,
};

/// Most keys that are read together, unless one caller asks for more.
const MAX_TOGETHER: usize = 2048;
/// Most reads of a namespace under way at once. With one, server and Redis would take turns; what waits is read together.
const MAX_UNDER_WAY: usize = 4;

/// What a key holds, or why that cannot be told.
type Held = Result<Option<StoredEntry>, BackendError>;

/// Keys that somebody asked for.
pub(super) struct Asked {
    keys: Vec<Key>,
    answer: oneshot::Sender<Result<ReadAnswer, BackendError>>,
}

impl Core {
    /// Reads keys as they are now. What is asked for while many reads are under way is read together, after one of them.
    pub(super) async fn read_now(
        self: &Arc<Self>,
        lane: &Arc<Lane>,
        keys: &[Key],
    ) -> Result<ReadAnswer, BackendError> {
        let (sender, receiver) = oneshot::channel();
        let begins = {
            let mut reads = lane.reads.lock();
            reads.waiting.push(Asked { keys: keys.to_vec(), answer: sender });
            let begins = reads.under_way < MAX_UNDER_WAY;
            reads.under_way += usize::from(begins);
            begins
        };
        if begins {
            // Not on the caller's task: it may go away, and leave the others without an answer.
            tokio::spawn(self.clone().read_waiting(lane.clone()));
        }
        let lost = || BackendError::Unavailable("the server stops".into());
        receiver.await.unwrap_or_else(|_| Err(lost()))
    }

    /// Reads what keys held at a revision.
    pub(super) async fn read_at(
        &self,
        lane: &Lane,
        keys: &[Key],
        at: Revision,
    ) -> Result<ReadAnswer, BackendError> {
        let wanted = keys.iter().map(|key| (key.clone(), Bytes::new())).collect();
        let (head, entries) = self.versions_at(lane, wanted, at).await?;
        Ok(ReadAnswer { tip: head.tip, entries })
    }

    /// Where a namespace stands.
    pub(super) async fn tip(self: &Arc<Self>, lane: &Arc<Lane>) -> Result<Tip, BackendError> {
        Ok(self.read_now(lane, &[]).await?.tip)
    }

    pub(super) async fn scan(
        &self,
        lane: &Lane,
        range: &KeyRange,
        at: Option<Revision>,
        reverse: bool,
        limit: usize,
    ) -> Result<ScanAnswer, BackendError> {
        let Answer { head, mut parts, .. } =
            self.ask(lane, &self.scripts.scan, &scan_args(range, at, reverse, limit)).await?;
        let ancestors = bytes(parts.take()?)?.unwrap_or_default();
        check_at(&head, at, &ancestors)?;
        let (keys, records) = (parts.list()?, parts.list()?);
        let is_more = parts.number()? == 1;
        let keys = keys.into_iter().map(key).collect::<Result<Vec<_>, _>>()?;
        let last = keys.last().filter(|_| is_more);
        let next = last.map(|last| match reverse {
            true => KeyRange { start: range.start.clone(), end: Some(last.clone()) },
            false => KeyRange { start: last.successor(), end: range.end.clone() },
        });
        let mut entries = Vec::with_capacity(keys.len());
        let mut unfinished = Vec::new();
        for (key, record) in keys.into_iter().zip(records) {
            match Found::parse(key, record)? {
                Found::Version(change) => entries.push(change.and_then(StoredEntry::of)),
                Found::Before(key, link) => {
                    unfinished.push((entries.len(), key, link));
                    entries.push(None);
                }
            }
        }
        if let Some(at) = at.filter(|_| !unfinished.is_empty()) {
            let wanted = unfinished.iter().map(|(_, key, link)| (key.clone(), link.clone()));
            let (_, found) = self.versions_at(lane, wanted.collect(), at).await?;
            for ((place, ..), entry) in unfinished.into_iter().zip(found) {
                entries[place] = entry;
            }
        }
        Ok(ScanAnswer { tip: head.tip, entries: entries.into_iter().flatten().collect(), next })
    }

    pub(super) async fn history(
        &self,
        lane: &Lane,
        key: &Key,
        before: Revision,
        limit: usize,
    ) -> Result<History, BackendError> {
        let before = match before.0 {
            u64::MAX => Bytes::new(),
            before => before.to_string().into(),
        };
        let mut link = Bytes::new();
        let mut changes: Vec<SharedChange> = Vec::new();
        loop {
            let room = (limit + 1 - changes.len()).to_string().into();
            let args = [Bytes::copy_from_slice(key.as_bytes()), link, before.clone(), room];
            let Answer { head, mut parts, .. } =
                self.ask(lane, &self.scripts.history, &args).await?;
            let tip = head.tip;
            for record in parts.list()? {
                let record = bytes(record)?.ok_or_else(|| strange("an empty record"))?;
                let change = record::parse(key.clone(), record)?;
                // Of those that are no longer in the log, only what left an entry is of use.
                if change.revision > tip.compacted || change.entry.is_some() {
                    changes.push(change);
                }
            }
            let next = bytes(parts.take()?)?;
            let more = changes.len() > limit;
            match next {
                Some(next) if !more => link = next,
                _ => {
                    changes.truncate(limit);
                    return Ok(History { tip, changes, more });
                }
            }
        }
    }

    /// Goes on reading until nobody waits.
    async fn read_waiting(self: Arc<Self>, lane: Arc<Lane>) {
        loop {
            let asked = {
                let mut reads = lane.reads.lock();
                let mut room = MAX_TOGETHER;
                let fits = |asked: &&Asked| {
                    let fits = room > 0;
                    room = room.saturating_sub(asked.keys.len().max(1));
                    fits
                };
                let count = reads.waiting.iter().take_while(fits).count();
                if count == 0 {
                    reads.under_way -= 1;
                    return;
                }
                reads.waiting.drain(..count).collect::<Vec<_>>()
            };
            match self.read_together(&lane, &asked).await {
                Ok((tip, found)) => {
                    for Asked { keys, answer } in asked {
                        let entry = |key| found.get(key).cloned().unwrap_or(Ok(None));
                        let entries = keys.iter().map(entry).collect::<Result<_, _>>();
                        // Who has gone away needs no answer.
                        let _ = answer.send(entries.map(|entries| ReadAnswer { tip, entries }));
                    }
                }
                Err(error) => {
                    for Asked { answer, .. } in asked {
                        let _ = answer.send(Err(error.clone()));
                    }
                }
            }
        }
    }

    async fn read_together(
        &self,
        lane: &Lane,
        asked: &[Asked],
    ) -> Result<(Tip, HashMap<Key, Held>), BackendError> {
        let mut found: HashMap<Key, Held> = HashMap::new();
        let mut keys = Vec::new();
        for key in asked.iter().flat_map(|asked| &asked.keys) {
            if found.insert(key.clone(), Ok(None)).is_none() {
                keys.push(key);
            }
        }
        keys.sort_by_key(|key| is_internal(key));
        let users = keys.partition_point(|key| !is_internal(key));
        let (head, records) = match self.look_up(lane, &keys, users).await? {
            Some(found) => found,
            None => self.read_by_script(lane, &keys, users).await?,
        };
        for (key, record) in keys.into_iter().zip(records) {
            // What is wrong with one record is of no concern to who asks for others.
            let held = bytes(record).and_then(|record| {
                let change = record.map(|record| record::parse(key.clone(), record)).transpose()?;
                Ok(change.and_then(StoredEntry::of))
            });
            found.insert(key.clone(), held);
        }
        Ok((head.tip, found))
    }

    async fn read_by_script(
        &self,
        lane: &Lane,
        keys: &[&Key],
        users: usize,
    ) -> Result<(Head, Vec<Value>), BackendError> {
        let mut args = Vec::with_capacity(keys.len() + 1);
        args.push(users.to_string().into());
        args.extend(keys.iter().map(|key| Bytes::copy_from_slice(key.as_bytes())));
        let Answer { head, mut parts, .. } = self.ask(lane, &self.scripts.read, &args).await?;
        let mut records = parts.list()?;
        records.append(&mut parts.list()?);
        Ok((head, records))
    }

    /// What keys held at a revision, each sought before a link, if one is given.
    async fn versions_at(
        &self,
        lane: &Lane,
        mut wanted: Vec<(Key, Bytes)>,
        at: Revision,
    ) -> Result<(Head, Vec<Option<StoredEntry>>), BackendError> {
        let mut entries = vec![None; wanted.len()];
        let mut places: Vec<usize> = (0..wanted.len()).collect();
        loop {
            let mut args = Vec::with_capacity(2 * wanted.len() + 1);
            args.push(at.to_string().into());
            for (key, link) in wanted.drain(..) {
                args.extend([Bytes::copy_from_slice(key.as_bytes()), link]);
            }
            let Answer { head, mut parts, .. } =
                self.ask(lane, &self.scripts.read_at, &args).await?;
            let ancestors = bytes(parts.take()?)?.unwrap_or_default();
            check_at(&head, Some(at), &ancestors)?;
            let keys = args[1..].chunks(2).map(|pair| Key::new(&pair[0]));
            let mut unfinished = Vec::new();
            for ((place, key), record) in places.into_iter().zip(keys).zip(parts.list()?) {
                match Found::parse(key, record)? {
                    Found::Version(change) => entries[place] = change.and_then(StoredEntry::of),
                    Found::Before(key, link) => {
                        unfinished.push(place);
                        wanted.push((key, link));
                    }
                }
            }
            if wanted.is_empty() {
                return Ok((head, entries));
            }
            places = unfinished;
        }
    }
}

/// What a search for a version has come to.
enum Found {
    /// The version, if there is one.
    Version(Option<SharedChange>),
    /// It lies before this link.
    Before(Key, Bytes),
}

impl Found {
    fn parse(key: Key, value: Value) -> Result<Self, BackendError> {
        match value {
            Value::Array(_) => {
                let link = list(value)?.pop().map(bytes).transpose()?.flatten();
                Ok(Self::Before(key, link.ok_or_else(|| strange("an empty link"))?))
            }
            value => {
                let record = bytes(value)?.map(|text| record::parse(key, text)).transpose()?;
                Ok(Self::Version(record))
            }
        }
    }
}

/// Whether a key stands among the internal ones; notes stand among those of users, with which they go.
pub(super) fn is_internal(key: &Key) -> bool {
    key.is_internal() && !key.is_note()
}

pub(super) fn key(value: Value) -> Result<Key, BackendError> {
    let bytes = bytes(value)?.ok_or_else(|| strange("an empty key"))?;
    Ok(Key::new(&bytes))
}

/// Whether what was read is what was there at a revision.
fn check_at(head: &Head, at: Option<Revision>, ancestors: &[u8]) -> Result<(), BackendError> {
    let Some(at) = at.filter(|at| head.exists || *at > Revision(0)) else {
        return Ok(());
    };
    check_not_lost(&head.tip, &losses(ancestors)?, at)?;
    head.check_readable(Some(at))
}

/// The arguments of a scan. A range is of one kind of keys, that of its first.
fn scan_args(range: &KeyRange, at: Option<Revision>, reverse: bool, limit: usize) -> [Bytes; 6] {
    let (least, beyond): (&[u8], Option<&[u8]>) = match () {
        () if range.start.is_note() => (b"\0\0", Some(b"\0\x01")),
        () if range.start.is_internal() => (b"\0", Some(b"\x01")),
        () => (b"\x01", None),
    };
    let start = range.start.as_bytes().max(least);
    let end = range.end.as_ref().map(Key::as_bytes);
    let end = end.into_iter().chain(beyond).min();
    let bound = |bound: Bound<&[u8]>| match bound {
        Bound::Included(key) => [b"[", key].concat(),
        Bound::Excluded(key) => [b"(", key].concat(),
        Bound::Unbounded => b"+".to_vec(),
    };
    let space: &[u8] = if is_internal(&range.start) { b"i" } else { b"u" };
    [
        Bytes::copy_from_slice(space),
        bound(Bound::Included(start)).into(),
        bound(end.map_or(Bound::Unbounded, Bound::Excluded)).into(),
        Bytes::from_static(if reverse { b"1" } else { b"0" }),
        limit.to_string().into(),
        at.map_or_else(Bytes::new, |at| at.to_string().into()),
    ]
}
