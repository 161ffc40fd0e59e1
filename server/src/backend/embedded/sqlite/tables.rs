//! Writes commits into the tables, within a transaction that somebody else began and will end.
//!
//! `entries` always has what keys hold. `changes` has the log in order, and whatever its events were made from, if that is
//! nowhere else: when an event is written whose former version is not in the log, that version is written before it, as a
//! row that is not logged. When the log is forgotten, rows are swept, a bounded number with each commit; one is kept while
//! a later event that is held was made from it.
//!
//! Invariant: a row with `logged` and a revision above `swept` is there. One below is there as long as a later row above
//! `swept` names it as its previous one.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension as _, Row, params};

use super::{
    columns::{DROPPED, Readable, checksum, deadline_columns, kind_name, revision, signed, space},
    load,
};
use crate::backend::{
    ChangeKind, Draft, Entry, GroupStamp, Key, NamespaceName, Position, Revision, Write, WriteOp,
    embedded::journal::{Action, NamespaceState, Record, is_staged},
};

/// How many rows may be swept with a commit beside twice as many as it writes.
const SWEEP: usize = 1000;

/// A namespace as it stands in the tables.
#[derive(Clone, Debug)]
pub struct Known {
    /// Its row.
    pub id: i64,
    /// The position in its row.
    pub at: Position,
    /// Where it stands.
    pub state: NamespaceState,
    /// Up to where the log has been forgotten.
    pub compacted: Revision,
    /// Up to where its rows have been deleted.
    pub swept: Revision,
}

/// All namespaces, by name.
pub type Namespaces = HashMap<NamespaceName, Known>;

/// What becomes of namespaces; none: gone.
pub type Changed = HashMap<NamespaceName, Option<Known>>;

/// Why a commit cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// SQLite refused something.
    #[error(transparent)]
    Sql(#[from] rusqlite::Error),
    /// Somebody else has written to the tables.
    #[error(
        "the namespace {0} does not stand in the database where it stood before: did somebody else write to it?"
    )]
    Interfered(String),
}

/// Commits on their way into the tables.
pub struct Tables<'a> {
    connection: &'a Connection,
    known: &'a Namespaces,
    /// What becomes of the namespaces when all is committed; none: it is gone.
    pub changed: Changed,
    /// The id of the next row of `changes`.
    pub next_change: i64,
    /// How many rows were written.
    written: usize,
}

/// What a key holds, as far as it matters for what follows.
struct Held {
    id: i64,
    mod_revision: Revision,
    logged: bool,
    change: Option<i64>,
}

impl Held {
    /// Whether its version is in `changes`.
    fn is_there(&self, namespace: &Known) -> bool {
        self.logged && self.mod_revision > namespace.swept
    }
}

impl<'a> Tables<'a> {
    /// Begins to write where others have stopped.
    pub fn new(connection: &'a Connection, known: &'a Namespaces, next_change: i64) -> Self {
        Self { connection, known, changed: Changed::new(), next_change, written: 0 }
    }

    /// Writes a commit.
    pub fn record(&mut self, record: &Record) -> Result<(), WriteError> {
        let name = &record.namespace;
        let known = match self.known(name) {
            // What was staged before under this name was given up.
            Some(known) if is_staged(name) && record.position.0 == 1 => {
                self.delete_rows(&known)?;
                self.delete_namespace(&known)?;
                None
            }
            known => known,
        };
        let mut namespace = match known {
            Some(known) => known,
            None => self.add_namespace(&NamespaceState {
                name: name.clone(),
                position: Position(record.position.0.saturating_sub(1)),
                revision: record.before,
                time_ms: record.time_ms,
                lineage: None,
                created_at_ms: record.time_ms,
                birth: record.before,
                cleared: record.before,
            })?,
        };
        let state = &mut namespace.state;
        if (state.position.0 + 1, state.revision) != (record.position.0, record.before) {
            return Err(WriteError::Interfered(name.as_str().to_owned()));
        }
        if let Some(lineage) = record.lineage {
            (state.lineage, state.created_at_ms) = (Some(lineage), record.time_ms);
        }
        (state.position, state.time_ms) = (record.position, record.time_ms);
        namespace.compacted = namespace.compacted.max(record.compacted.unwrap_or_default());
        self.act(&mut namespace, record)?;
        self.changed.insert(name.clone(), Some(namespace));
        Ok(())
    }

    /// Writes where the namespaces stand, and sweeps what is no longer needed.
    pub fn finish(&mut self) -> Result<(), WriteError> {
        let mut changed = std::mem::take(&mut self.changed);
        for namespace in changed.values_mut().flatten() {
            self.sweep(namespace, SWEEP + 2 * self.written)?;
            self.update_namespace(namespace)?;
        }
        self.changed = changed;
        Ok(())
    }

    /// Adds a namespace that is not there.
    pub fn add_namespace(&mut self, state: &NamespaceState) -> rusqlite::Result<Known> {
        self.connection.execute(
            "INSERT INTO namespaces (name, lineage, position, revision, time_ms, created_at_ms, birth, cleared, \
             compacted, swept) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7, ?7)",
            params![
                state.name.as_str(),
                state.lineage.map(|lineage| lineage.to_string()),
                signed(state.position.0),
                signed(state.revision.0),
                state.time_ms,
                state.created_at_ms,
                signed(state.birth.0),
                signed(state.cleared.0),
            ],
        )?;
        let id = self.connection.last_insert_rowid();
        let (at, state) = (state.position, state.clone());
        Ok(Known { id, at, compacted: state.birth, swept: state.birth, state })
    }

    /// Writes where a namespace stands.
    pub fn update_namespace(&self, namespace: &mut Known) -> Result<(), WriteError> {
        let state = &namespace.state;
        let updated = self.execute(
            "UPDATE namespaces SET lineage = ?2, position = ?3, revision = ?4, time_ms = ?5, created_at_ms = ?6, \
             birth = ?7, cleared = ?8, compacted = ?9, swept = ?10, name = ?11 WHERE id = ?1 AND position = ?12",
            params![
                namespace.id,
                state.lineage.map(|lineage| lineage.to_string()),
                signed(state.position.0),
                signed(state.revision.0),
                state.time_ms,
                state.created_at_ms,
                signed(state.birth.0),
                signed(state.cleared.0),
                signed(namespace.compacted.0),
                signed(namespace.swept.0),
                state.name.as_str(),
                signed(namespace.at.0),
            ],
        )?;
        if updated != 1 {
            return Err(WriteError::Interfered(state.name.as_str().to_owned()));
        }
        namespace.at = state.position;
        Ok(())
    }

    /// Writes an event, and the entry that it leaves.
    pub fn put_logged(
        &mut self,
        namespace: &Known,
        key: &Key,
        stamp: GroupStamp,
        kind: ChangeKind,
        entry: Option<&Entry>,
    ) -> rusqlite::Result<()> {
        let held = self.held(namespace, key)?;
        let previous = match &held {
            Some(held) if !held.is_there(namespace) => Some(self.keep(held)?),
            Some(held) => held.change,
            None => None,
        };
        let change =
            self.insert_change(namespace, key, stamp, (kind_name(kind), true), previous, entry)?;
        match (entry, held) {
            (Some(entry), held) => {
                self.put_entry(namespace, key, held.as_ref(), entry, kind, (true, Some(change)))
            }
            (None, Some(held)) => self.delete_entry(&held),
            (None, None) => Ok(()),
        }
    }

    /// Writes an entry without an event. It takes the place of the one before.
    pub fn put_unlogged(
        &mut self,
        namespace: &Known,
        key: &Key,
        kind: ChangeKind,
        entry: &Entry,
    ) -> rusqlite::Result<()> {
        let held = self.held(namespace, key)?;
        let change = match &held {
            Some(held) => held.change,
            None => self.last_change(namespace, key)?,
        };
        self.put_entry(namespace, key, held.as_ref(), entry, kind, (false, change))
    }

    /// Removes a key without an event.
    pub fn drop_key(
        &mut self,
        namespace: &Known,
        key: &Key,
        stamp: GroupStamp,
    ) -> rusqlite::Result<()> {
        let held = self.held(namespace, key)?;
        let change = match &held {
            Some(held) => held.change,
            None => self.last_change(namespace, key)?,
        };
        if change.is_some() {
            // The log may tell of it: an event to come was not made from that.
            self.insert_change(namespace, key, stamp, (DROPPED, false), change, None)?;
        }
        held.map_or(Ok(()), |held| self.delete_entry(&held))
    }

    /// Removes all keys of users and the notes on them, with an event.
    pub fn clear(&mut self, namespace: &Known, stamp: GroupStamp) -> rusqlite::Result<()> {
        self.execute(
            "DELETE FROM entries WHERE namespace = ?1 AND space <> 1",
            params![namespace.id],
        )?;
        let kind = (kind_name(ChangeKind::Clear), true);
        self.insert_change(namespace, &Key::new(b""), stamp, kind, None, None)?;
        Ok(())
    }

    /// A namespace as it stands by now.
    fn known(&self, name: &NamespaceName) -> Option<Known> {
        match self.changed.get(name) {
            Some(changed) => changed.clone(),
            None => self.known.get(name).cloned(),
        }
    }

    fn act(&mut self, namespace: &mut Known, record: &Record) -> Result<(), WriteError> {
        let stamps = record.stamps();
        match &record.action {
            Action::Write(groups) => {
                let mut start = 0;
                for (end, stamp) in groups.ends.iter().zip(&stamps) {
                    self.writes(namespace, &groups.writes[start..*end], *stamp, &stamps)?;
                    start = *end;
                }
            }
            Action::Clear(records) => {
                for stamp in &stamps {
                    self.clear(namespace, *stamp)?;
                    namespace.state.cleared = stamp.revision;
                    self.writes(namespace, records, *stamp, &stamps)?;
                }
            }
            Action::Delete => {
                self.delete_rows(namespace)?;
                let state = &mut namespace.state;
                (state.lineage, state.created_at_ms) = (None, record.time_ms);
                (state.birth, state.cleared) = (state.revision, state.revision);
                (namespace.compacted, namespace.swept) = (state.revision, state.revision);
            }
            Action::Stage(entries) => {
                for (key, entry) in entries {
                    self.put_unlogged(namespace, key, ChangeKind::Set, entry)?;
                }
            }
            Action::Replace(staged, revision) => {
                self.delete_rows(namespace)?;
                if let Some(staged) = staged {
                    self.take_place(namespace, staged)?;
                }
                let state = &mut namespace.state;
                state.birth = Revision(revision.0.saturating_sub(1));
                state.cleared = Revision(0);
                (namespace.compacted, namespace.swept) = (*revision, *revision);
            }
        }
        if let Some(last) = stamps.last() {
            namespace.state.revision = last.revision;
        }
        Ok(())
    }

    fn writes(
        &mut self,
        namespace: &Known,
        writes: &[Write],
        stamp: GroupStamp,
        stamps: &[GroupStamp],
    ) -> rusqlite::Result<()> {
        let entry = |draft: &Draft| draft.clone().stamp(stamp, stamps);
        for Write { key, op } in writes {
            let (kind, entry) = match op {
                WriteOp::Set(draft) => (ChangeKind::Set, Some(entry(draft))),
                WriteOp::SetDeadline(draft) => (ChangeKind::TtlChanged, Some(entry(draft))),
                WriteOp::Remove(removal) => (ChangeKind::Removed(*removal), None),
                WriteOp::SetUnlogged(draft) => {
                    self.put_unlogged(namespace, key, ChangeKind::Set, &entry(draft))?;
                    continue;
                }
                WriteOp::RemoveUnlogged => {
                    self.drop_key(namespace, key, stamp)?;
                    continue;
                }
            };
            self.put_logged(namespace, key, stamp, kind, entry.as_ref())?;
        }
        Ok(())
    }

    /// Lets a namespace, which has no rows, have the rows of what was staged. That costs nothing, since it is the rows that
    /// stay and the name that moves.
    fn take_place(
        &mut self,
        namespace: &mut Known,
        name: &NamespaceName,
    ) -> Result<(), WriteError> {
        let staged = self.known(name);
        let staged = staged.ok_or_else(|| WriteError::Interfered(name.as_str().to_owned()))?;
        self.delete_namespace(namespace)?;
        (namespace.id, namespace.at) = (staged.id, staged.at);
        // The name is free only now.
        self.update_namespace(namespace)?;
        self.changed.insert(name.clone(), None);
        Ok(())
    }

    fn delete_rows(&self, namespace: &Known) -> rusqlite::Result<()> {
        self.execute("DELETE FROM entries WHERE namespace = ?1", params![namespace.id])?;
        self.execute("DELETE FROM changes WHERE namespace = ?1", params![namespace.id])?;
        Ok(())
    }

    fn delete_namespace(&self, namespace: &Known) -> rusqlite::Result<()> {
        self.execute("DELETE FROM namespaces WHERE id = ?1", params![namespace.id])?;
        Ok(())
    }

    /// Deletes rows that are no longer needed since the log has been forgotten, about `limit` in whole revisions.
    fn sweep(&mut self, namespace: &mut Known, limit: usize) -> rusqlite::Result<()> {
        let (id, from) = (namespace.id, signed(namespace.swept.0));
        if namespace.swept >= namespace.compacted {
            return Ok(());
        }
        let end = "SELECT revision FROM changes WHERE namespace = ?1 AND revision > ?2 AND revision <= ?3 \
                   ORDER BY revision LIMIT 1 OFFSET ?4";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let arguments = params![id, from, signed(namespace.compacted.0), limit];
        let mut end = self.connection.prepare_cached(end)?;
        let end = end.query_row(arguments, |row| revision(row, 0)).optional()?;
        let end = end.unwrap_or(namespace.compacted);
        let through = signed(end.0);
        // What was before a clear and not removed by itself is followed by nothing.
        self.execute(
            "DELETE FROM changes WHERE namespace = ?1 AND space <> 1 AND revision < \
             (SELECT max(revision) FROM changes WHERE namespace = ?1 AND revision > ?2 AND revision <= ?3 \
              AND kind = 'clear')",
            params![id, from, through],
        )?;
        self.execute(
            "DELETE FROM changes WHERE id IN (SELECT previous FROM changes \
             WHERE namespace = ?1 AND revision > ?2 AND revision <= ?3 AND previous IS NOT NULL)",
            params![id, from, through],
        )?;
        // What a key still holds stands in `entries`; and nobody asks what was before if nothing was.
        self.execute(
            "DELETE FROM changes WHERE namespace = ?1 AND revision > ?2 AND revision <= ?3 \
             AND (version IS NULL OR EXISTS (SELECT 1 FROM entries \
                  WHERE entries.namespace = ?1 AND entries.key = changes.key AND entries.change = changes.id))",
            params![id, from, through],
        )?;
        namespace.swept = end;
        Ok(())
    }

    fn held(&self, namespace: &Known, key: &Key) -> rusqlite::Result<Option<Held>> {
        let mut statement = self.connection.prepare_cached(
            "SELECT id, mod_revision, logged, change FROM entries WHERE namespace = ?1 AND key = ?2",
        )?;
        let held = |row: &Row<'_>| {
            let (id, mod_revision) = (row.get(0)?, revision(row, 1)?);
            Ok(Held { id, mod_revision, logged: row.get(2)?, change: row.get(3)? })
        };
        statement.query_row(params![namespace.id, Readable(key.as_bytes())], held).optional()
    }

    /// The newest row of `changes` of a key that holds nothing. Of users' keys that is not known, nor needed: they are
    /// written with an event, but for those that are staged, which have none.
    fn last_change(&self, namespace: &Known, key: &Key) -> rusqlite::Result<Option<i64>> {
        if !key.is_internal() {
            return Ok(None);
        }
        let mut statement = self.connection.prepare_cached(
            "SELECT max(id) FROM changes WHERE namespace = ?1 AND key = ?2 AND space <> 0",
        )?;
        statement.query_row(params![namespace.id, Readable(key.as_bytes())], |row| row.get(0))
    }

    /// Writes what a key holds into `changes`, since an event is to be made from it.
    fn keep(&mut self, held: &Held) -> rusqlite::Result<i64> {
        let id = self.change_id();
        self.execute(
            "INSERT INTO changes (id, namespace, revision, time_ms, key, space, kind, logged, previous, version, \
             create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum) \
             SELECT ?1, namespace, mod_revision, updated_at_ms, key, space, kind, 0, change, version, \
             create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum \
             FROM entries WHERE id = ?2",
            params![id, held.id],
        )?;
        Ok(id)
    }

    fn insert_change(
        &mut self,
        namespace: &Known,
        key: &Key,
        stamp: GroupStamp,
        (kind, logged): (&str, bool),
        previous: Option<i64>,
        entry: Option<&Entry>,
    ) -> rusqlite::Result<i64> {
        let id = self.change_id();
        let (expires_at_ms, ends_with) =
            entry.map_or((None, None), |entry| deadline_columns(&entry.deadline));
        self.execute(
            "INSERT INTO changes (id, namespace, revision, time_ms, key, space, kind, logged, previous, version, \
             create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17)",
            params![
                id,
                namespace.id,
                signed(stamp.revision.0),
                stamp.time_ms,
                Readable(key.as_bytes()),
                space(key),
                kind,
                logged,
                previous,
                entry.map(|entry| signed(entry.version)),
                entry.map(|entry| signed(entry.create_revision.0)),
                entry.map(|entry| entry.created_at_ms),
                expires_at_ms,
                ends_with,
                entry.map(|entry| Readable(&entry.content_type)),
                entry.map(|entry| Readable(&entry.value)),
                checksum(key, stamp, kind, entry),
            ],
        )?;
        Ok(id)
    }

    fn put_entry(
        &mut self,
        namespace: &Known,
        key: &Key,
        held: Option<&Held>,
        entry: &Entry,
        kind: ChangeKind,
        (logged, change): (bool, Option<i64>),
    ) -> rusqlite::Result<()> {
        self.written += 1;
        let sql = match held {
            None => {
                "INSERT INTO entries (namespace, key, space, version, create_revision, mod_revision, created_at_ms, \
                 updated_at_ms, expires_at_ms, ends_with, kind, logged, change, content_type, value, checksum) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)"
            }
            Some(_) => {
                "UPDATE entries SET version = ?4, create_revision = ?5, mod_revision = ?6, created_at_ms = ?7, \
                 updated_at_ms = ?8, expires_at_ms = ?9, ends_with = ?10, kind = ?11, logged = ?12, change = ?13, \
                 content_type = ?14, value = ?15, checksum = ?16 WHERE id = ?17"
            }
        };
        let (expires_at_ms, ends_with) = deadline_columns(&entry.deadline);
        let (key_bytes, space) = (Readable(key.as_bytes()), space(key));
        let numbers = [entry.version, entry.create_revision.0, entry.mod_revision.0].map(signed);
        let (content_type, value) = (Readable(&entry.content_type), Readable(&entry.value));
        let kind = kind_name(kind);
        let stamp = GroupStamp { revision: entry.mod_revision, time_ms: entry.updated_at_ms };
        let checksum = checksum(key, stamp, kind, Some(entry));
        let mut arguments: Vec<&dyn rusqlite::ToSql> = vec![
            &namespace.id,
            &key_bytes,
            &space,
            &numbers[0],
            &numbers[1],
            &numbers[2],
            &entry.created_at_ms,
            &entry.updated_at_ms,
            &expires_at_ms,
            &ends_with,
            &kind,
            &logged,
            &change,
            &content_type,
            &value,
            &checksum,
        ];
        arguments.extend(held.map(|held| &held.id as &dyn rusqlite::ToSql));
        self.execute(sql, &arguments[..])?;
        Ok(())
    }

    fn delete_entry(&mut self, held: &Held) -> rusqlite::Result<()> {
        self.written += 1;
        self.execute("DELETE FROM entries WHERE id = ?1", params![held.id])?;
        Ok(())
    }

    fn change_id(&mut self) -> i64 {
        self.written += 1;
        self.next_change += 1;
        self.next_change - 1
    }

    fn execute(&self, sql: &str, arguments: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(arguments)
    }
}

/// Deletes what was being staged when a process ended: nobody will put it in place.
pub fn delete_staged(connection: &Connection) -> rusqlite::Result<()> {
    let mut namespaces = load::namespaces(connection)?;
    namespaces.retain(|name, _| is_staged(name));
    if namespaces.is_empty() {
        return Ok(());
    }
    let transaction = connection.unchecked_transaction()?;
    let nothing = Namespaces::new();
    let tables = Tables::new(&transaction, &nothing, 1);
    for staged in namespaces.values() {
        tables.delete_rows(staged)?;
        tables.delete_namespace(staged)?;
    }
    transaction.commit()
}

/// The id that the next row of `changes` may have: no row has it or a larger one, or names it as its previous one.
pub fn next_change(connection: &Connection) -> rusqlite::Result<i64> {
    let last = "SELECT max(ifnull((SELECT max(id) FROM changes), 0), ifnull((SELECT max(change) FROM entries), 0))";
    connection.query_row(last, [], |row| Ok(row.get::<_, i64>(0)? + 1))
}
