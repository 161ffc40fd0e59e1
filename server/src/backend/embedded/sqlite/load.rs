//! Reads the tables back.
//!
//! Rows of `changes` come in the order in which they were made, so that each finds the version before it in place; then
//! what keys hold, where no event that was told left just that.

use std::{collections::HashSet, path::Path};

use rusqlite::{Connection, Row};

use super::{
    columns::{self, DROPPED, Number, checksum, lineage, revision},
    database::{damaged, load_error},
    tables::{Known, Namespaces},
};
use crate::backend::{
    ChangeKind, Entry, GroupStamp, Key, NamespaceName, Position,
    embedded::journal::{LoadError, NamespaceState, Place, Restore, Version, is_staged},
};

/// A problem with a table, before the file is known.
enum Problem {
    Sql(rusqlite::Error),
    Wrong(&'static str, String),
}

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

/// Hands all that is in the tables to `restore`; answers the namespaces.
pub fn load(
    connection: &Connection,
    file: &Path,
    restore: &mut dyn Restore,
) -> Result<Namespaces, LoadError> {
    // All of it as it is at one moment, also for one that only looks.
    let loaded = (|| {
        let snapshot = connection.unchecked_transaction()?;
        let loaded = load_all(&snapshot, restore)?;
        snapshot.finish()?;
        Ok(loaded)
    })();
    loaded.map_err(|problem| match problem {
        Problem::Sql(error) => load_error(file, error),
        Problem::Wrong(table, problem) => damaged(file, table, problem),
    })
}

/// Reads all namespaces.
pub fn namespaces(connection: &Connection) -> rusqlite::Result<Namespaces> {
    let mut statement = connection.prepare(
        "SELECT id, name, lineage, position, revision, time_ms, created_at_ms, birth, cleared, compacted, swept \
         FROM namespaces",
    )?;
    let rows = statement.query_map([], |row| {
        let name = NamespaceName::new(&row.get::<_, String>(1)?);
        let state = NamespaceState {
            name: name.clone(),
            lineage: lineage(row, 2)?,
            position: Position(row.get::<_, Number>(3)?.0),
            revision: revision(row, 4)?,
            time_ms: row.get(5)?,
            created_at_ms: row.get(6)?,
            birth: revision(row, 7)?,
            cleared: revision(row, 8)?,
        };
        let (compacted, swept) = (revision(row, 9)?, revision(row, 10)?);
        Ok((name, Known { id: row.get(0)?, at: state.position, state, compacted, swept }))
    })?;
    rows.collect()
}

fn load_all(connection: &Connection, restore: &mut dyn Restore) -> Result<Namespaces, Problem> {
    if connection.query_row("SELECT is_copy FROM holdfast", [], |row| row.get(0))? {
        restore.is_copy();
    }
    let mut namespaces = namespaces(connection)?;
    // Whoever was staging something is gone.
    namespaces.retain(|name, _| !is_staged(name));
    let mut by_id: Vec<_> = namespaces.values().collect();
    by_id.sort_by_key(|namespace| namespace.id);
    for namespace in by_id {
        let wrong = |problem| {
            let name = namespace.state.name.as_str();
            Problem::Wrong("namespaces", format!("{name}: {problem}"))
        };
        restore.begin(namespace.state.clone()).map_err(wrong)?;
        load_changes(connection, namespace, restore)?;
        load_entries(connection, namespace, restore)?;
        restore.end(namespace.compacted).map_err(wrong)?;
    }
    Ok(namespaces)
}

fn load_changes(
    connection: &Connection,
    namespace: &Known,
    restore: &mut dyn Restore,
) -> Result<(), Problem> {
    let dropped = dropped_keys(connection, namespace)?;
    // Those of them that are there just now.
    let mut there: HashSet<Key> = HashSet::new();
    let mut statement = connection.prepare(
        "SELECT id, revision, time_ms, key, kind, logged, \
         version, create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum \
         FROM changes WHERE namespace = ?1 ORDER BY revision, id",
    )?;
    let mut rows = statement.query([namespace.id])?;
    while let Some(row) = rows.next()? {
        let wrong = |problem| wrong("changes", row, problem);
        let (key, kind) = (columns::key(row, 3)?, row.get::<_, String>(4)?);
        let stamp = GroupStamp { revision: revision(row, 1)?, time_ms: row.get(2)? };
        let entry = columns::entry(row, 6, stamp)?;
        columns::check(row, 13, checksum(&key, stamp, &kind, entry.as_ref())).map_err(wrong)?;
        if kind == DROPPED {
            if there.remove(&key) {
                restore.drop_key(&key).map_err(wrong)?;
            }
            continue;
        }
        let version = version(row, (key, stamp), &kind, entry, namespace)?;
        if version.kind == ChangeKind::Clear {
            there.retain(|key| key.is_internal() && !key.is_note());
        } else if dropped.contains(&version.key) {
            there.insert(version.key.clone());
        }
        restore.put(version).map_err(wrong)?;
    }
    Ok(())
}

fn version(
    row: &Row<'_>,
    (key, stamp): (Key, GroupStamp),
    kind: &str,
    entry: Option<Entry>,
    namespace: &Known,
) -> Result<Version, Problem> {
    let known = columns::kind(kind);
    let kind = known.ok_or_else(|| wrong("changes", row, format!("there is no kind `{kind}`")))?;
    if entry.is_some() != matches!(kind, ChangeKind::Set | ChangeKind::TtlChanged) {
        let problem = "an entry stands there after a removal, or none after a write";
        return Err(wrong("changes", row, problem.into()));
    }
    let place = if row.get(5)? { Place::Logged } else { Place::Unlogged };
    // The row before may have been swept where this one could have been.
    let has_former = place == Place::Logged && stamp.revision > namespace.swept;
    let same_value = kind == ChangeKind::TtlChanged && has_former;
    Ok(Version { key, stamp, kind, entry, place, same_value })
}

/// Calls `problem` with each row whose checksum is wrong, by table and id.
pub fn check_rows(
    connection: &Connection,
    mut problem: impl FnMut(&'static str, i64, String),
) -> rusqlite::Result<()> {
    for (table, revision_and_time) in
        [("entries", "mod_revision, updated_at_ms"), ("changes", "revision, time_ms")]
    {
        let mut statement = connection.prepare(&format!(
            "SELECT id, {revision_and_time}, key, kind, \
             version, create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum \
             FROM {table}"
        ))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (key, kind) = (columns::key(row, 3)?, row.get::<_, String>(4)?);
            let stamp = GroupStamp { revision: revision(row, 1)?, time_ms: row.get(2)? };
            let entry = columns::entry(row, 5, stamp)?;
            if let Err(why) = columns::check(row, 12, checksum(&key, stamp, &kind, entry.as_ref()))
            {
                problem(table, row.get(0)?, why);
            }
        }
    }
    Ok(())
}

/// The keys that were removed without an event.
fn dropped_keys(connection: &Connection, namespace: &Known) -> Result<HashSet<Key>, Problem> {
    let mut statement =
        connection.prepare("SELECT key FROM changes WHERE namespace = ?1 AND kind = ?2")?;
    let mut rows = statement.query((namespace.id, DROPPED))?;
    let mut keys = HashSet::new();
    while let Some(row) = rows.next()? {
        keys.insert(columns::key(row, 0)?);
    }
    Ok(keys)
}

fn load_entries(
    connection: &Connection,
    namespace: &Known,
    restore: &mut dyn Restore,
) -> Result<(), Problem> {
    let mut statement = connection.prepare(
        "SELECT id, mod_revision, updated_at_ms, key, kind, \
         version, create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum \
         FROM entries WHERE namespace = ?1 AND NOT (logged AND mod_revision > ?2)",
    )?;
    let mut rows = statement.query((namespace.id, columns::signed(namespace.swept.0)))?;
    while let Some(row) = rows.next()? {
        let wrong = |problem| wrong("entries", row, problem);
        let stamp = GroupStamp { revision: revision(row, 1)?, time_ms: row.get(2)? };
        let (key, kind) = (columns::key(row, 3)?, row.get::<_, String>(4)?);
        let entry = columns::entry(row, 5, stamp)?;
        columns::check(row, 12, checksum(&key, stamp, &kind, entry.as_ref())).map_err(wrong)?;
        let kind = columns::kind(&kind)
            .filter(|it| matches!(it, ChangeKind::Set | ChangeKind::TtlChanged));
        let kind = kind.ok_or_else(|| wrong("no entry is left by a change of its kind".into()))?;
        let place = Place::Unlogged;
        let version = Version { key, stamp, kind, entry, place, same_value: false };
        restore.put(version).map_err(wrong)?;
    }
    Ok(())
}

fn wrong(table: &'static str, row: &Row<'_>, problem: String) -> Problem {
    let id = row.get::<_, i64>(0).unwrap_or_default();
    Problem::Wrong(table, format!("row {id}: {problem}"))
}
