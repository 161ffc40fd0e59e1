//! A write in progress: single steps, and what they amount to in the end.

use std::collections::BTreeSet;

use holdfast_proto::v1::{
    expiry::Kind as Ends, operation::Kind as Do, operation_result::Kind as Done,
    selector::Kind as Select, *,
};
use prost::bytes::Bytes;

use crate::model::{Entries, Refusal};

/// What the live entries are to become.
pub struct Draft {
    pub revision: u64,
    pub time_ms: i64,
    pub default_ttl_ms: Option<u64>,
    /// The leases that live.
    pub leases: BTreeSet<u64>,
    pub entries: Entries,
    /// The keys that got a value.
    pub written: BTreeSet<String>,
}

impl Draft {
    /// Writes an entry; the metadata it has then.
    pub fn set(
        &mut self,
        key: &str,
        value: &Bytes,
        content_type: &str,
        expiry: Option<&Expiry>,
    ) -> Result<Entry, Refusal> {
        let (expires_at_ms, lease_id) = self.end(key, expiry)?;
        let mut entry = self.changed(key);
        entry.value = Some(value.clone());
        entry.content_type = content_type.to_owned();
        (entry.expires_at_ms, entry.lease_id) = (expires_at_ms, lease_id);
        self.written.insert(key.to_owned());
        self.entries.insert(key.to_owned(), entry.clone());
        Ok(Entry { value: None, ..entry })
    }

    pub fn set_ttl(&mut self, key: &str, expiry: Option<&Expiry>) -> Result<bool, Refusal> {
        if !self.entries.contains_key(key) {
            return Ok(false);
        }
        let (expires_at_ms, lease_id) = self.end(key, expiry)?;
        let entry = Entry { expires_at_ms, lease_id, ..self.changed(key) };
        self.entries.insert(key.to_owned(), entry);
        Ok(true)
    }

    pub fn increment(
        &mut self,
        key: &str,
        delta: i64,
        initial: i64,
        expiry: Option<&Expiry>,
    ) -> Result<i64, Refusal> {
        let refusal = Refusal::Reason(ErrorReason::NotANumber);
        let (start, content_type, expiry) = match self.entries.get(key) {
            None => (Some(initial), "text/plain".to_owned(), expiry.cloned()),
            Some(entry) => {
                let keep = Ends::Keep(expiry::Keep {});
                let number = entry.value.as_ref().and_then(|value| number(value));
                (number, entry.content_type.clone(), Some(Expiry { kind: Some(keep) }))
            }
        };
        let value = start.and_then(|start| start.checked_add(delta)).ok_or(refusal)?;
        self.set(key, &Bytes::from(value.to_string()), &content_type, expiry.as_ref())?;
        Ok(value)
    }

    pub fn delete_range(&mut self, selector: Option<&Selector>, limit: Option<u32>) -> (u64, bool) {
        let selected = select(&self.entries, selector);
        let limit = limit.unwrap_or(10_000) as usize;
        for entry in selected.iter().take(limit) {
            self.entries.remove(&entry.key);
        }
        (selected.len().min(limit) as u64, selected.len() > limit)
    }

    pub fn run(&mut self, operation: &Operation) -> Result<OperationResult, Refusal> {
        let done = match operation.kind.as_ref().expect("an operation has a kind") {
            Do::Get(o) => {
                Done::Get(operation_result::Get { entry: self.entries.get(&o.key).cloned() })
            }
            Do::Set(o) => {
                let previous = self.entries.get(&o.key).cloned();
                let entry = self.set(&o.key, &o.value, &o.content_type, o.expiry.as_ref())?;
                Done::Set(operation_result::Set {
                    entry: Some(entry),
                    created: previous.is_none(),
                    previous: previous.filter(|_| o.return_previous),
                })
            }
            Do::Delete(o) => {
                let removed = self.entries.remove(&o.key);
                Done::Delete(operation_result::Delete {
                    deleted: removed.is_some(),
                    previous: removed.filter(|_| o.return_previous),
                })
            }
            Do::DeleteRange(o) => {
                let (deleted, more) = self.delete_range(o.selector.as_ref(), o.limit);
                Done::DeleteRange(operation_result::DeleteRange { deleted, more })
            }
            Do::SetTtl(o) => {
                let found = self.set_ttl(&o.key, o.expiry.as_ref())?;
                Done::SetTtl(operation_result::SetTtl { found })
            }
            Do::Increment(o) => {
                let value = self.increment(&o.key, o.delta, o.initial, o.expiry.as_ref())?;
                Done::Increment(operation_result::Increment { value })
            }
            Do::List(o) => {
                let mut entries = select(&self.entries, o.selector.as_ref());
                entries.retain(|entry| entry.mod_revision >= o.min_mod_revision);
                present(&mut entries, o.reverse, o.keys_only);
                let limit = if o.limit == 0 { 100 } else { o.limit as usize };
                let more = entries.len() > limit;
                entries.truncate(limit);
                Done::List(operation_result::List { entries, more })
            }
        };
        Ok(OperationResult { kind: Some(done) })
    }

    /// The entry as this write changes it: one version more, however often, or created.
    fn changed(&self, key: &str) -> Entry {
        let (revision, time_ms) = (self.revision, self.time_ms);
        let entry = match self.entries.get(key) {
            Some(entry) if entry.mod_revision == revision => entry.clone(),
            Some(entry) => Entry { version: entry.version + 1, ..entry.clone() },
            None => Entry {
                key: key.to_owned(),
                version: 1,
                create_revision: revision,
                created_at_ms: time_ms,
                ..Entry::default()
            },
        };
        Entry { mod_revision: revision, updated_at_ms: time_ms, ..entry }
    }

    /// When an entry ends, or with which lease.
    fn end(
        &self,
        key: &str,
        expiry: Option<&Expiry>,
    ) -> Result<(Option<i64>, Option<u64>), Refusal> {
        let after = |ttl_ms: u64| (Some(self.time_ms + ttl_ms as i64), None);
        let default = self.default_ttl_ms.map_or((None, None), after);
        Ok(match expiry.and_then(|expiry| expiry.kind) {
            None => default,
            Some(Ends::TtlMs(ttl_ms)) => after(ttl_ms),
            Some(Ends::ExpiresAtMs(at)) => (Some(at), None),
            Some(Ends::Never(_)) => (None, None),
            Some(Ends::Keep(_)) => {
                let entry = self.entries.get(key);
                entry.map_or(default, |entry| (entry.expires_at_ms, entry.lease_id))
            }
            Some(Ends::LeaseId(lease)) if self.leases.contains(&lease) => (None, Some(lease)),
            Some(Ends::LeaseId(_)) => return Err(Refusal::Reason(ErrorReason::LeaseNotFound)),
        })
    }

    /// One event for each key that is not as it was.
    pub fn events(&self, before: &Entries) -> Vec<Event> {
        let keys: BTreeSet<&String> = before.keys().chain(self.entries.keys()).collect();
        let mut events = Vec::new();
        for key in keys {
            let (previous, entry) = (before.get(key).cloned(), self.entries.get(key).cloned());
            if previous == entry {
                continue;
            }
            let (kind, reason) = match &entry {
                None => (EventType::Delete, RemovalReason::Deleted),
                Some(_) if self.written.contains(key) => {
                    (EventType::Set, RemovalReason::Unspecified)
                }
                Some(_) => (EventType::TtlChanged, RemovalReason::Unspecified),
            };
            events.push(Event {
                r#type: kind.into(),
                revision: self.revision,
                time_ms: self.time_ms,
                key: key.clone(),
                entry,
                previous,
                reason: reason.into(),
            });
        }
        events
    }
}

pub fn select(entries: &Entries, selector: Option<&Selector>) -> Vec<Entry> {
    let kind = selector.and_then(|selector| selector.kind.as_ref());
    let selected = entries.values().filter(|entry| match kind.expect("a selector has a kind") {
        Select::Key(key) => entry.key == *key,
        Select::Prefix(prefix) => entry.key.starts_with(prefix),
        Select::Range(range) => {
            let key = entry.key.as_bytes();
            key >= range.start.as_ref() && range.end.as_ref().is_none_or(|end| key < end.as_ref())
        }
        Select::Glob(glob) => {
            let (glob, key): (Vec<char>, Vec<char>) =
                (glob.chars().collect(), entry.key.chars().collect());
            matches(&glob, &key)
        }
        Select::All(_) => true,
    });
    selected.cloned().collect()
}

/// Globs of `*` and `?`.
fn matches(glob: &[char], text: &[char]) -> bool {
    match (glob, text) {
        ([], []) => true,
        (['*', rest @ ..], _) => (0..=text.len()).any(|skip| matches(rest, &text[skip..])),
        ([one, glob @ ..], [char, text @ ..]) => {
            (*one == '?' || one == char) && matches(glob, text)
        }
        _ => false,
    }
}

pub fn present(entries: &mut [Entry], reverse: bool, keys_only: bool) {
    if reverse {
        entries.reverse();
    }
    if keys_only {
        entries.iter_mut().for_each(|entry| entry.value = None);
    }
}

/// Decimal text that is written as a number is written.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}
