//! Reads the tables back.
//!
//! Rows of `changes` come in the order in which they were made, so that each finds the version before it in place; then
//! what keys hold, where no event that was told left just that.

use std::{collections::HashSet, path::Path};

use rusqlite::Connection;

use super::{
    columns::{self, DROPPED, Number, checksum, lineage, revision},
    database::{damaged, load_error},
    tables::{Known, Namespaces},
};
use crate::backend::{
    ChangeKind, Entry, GroupStamp, Key, NamespaceName, Position, Revision,
    embedded::{
        hand_over::{HandOver, beside},
        journal::{LoadError, NamespaceState, Place, Restore, Version, is_staged},
    },
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

/// What the tables have.
enum Item {
    Namespace(NamespaceState),
    /// With its table and row.
    Version(&'static str, i64, Version),
    /// With its row of `entries`: it is what the last change in the log of that revision has left.
    Left(i64, Key, Revision),
    /// With its row of `changes`.
    Dropped(i64, Key),
    NamespaceEnd(NamespaceName, Revision),
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
    let read = |over: &mut HandOver<Item>| {
        for namespace in by_id {
            over.hand(Item::Namespace(namespace.state.clone()), 0);
            load_changes(connection, namespace, over)?;
            load_entries(connection, namespace, over)?;
            let name = namespace.state.name.clone();
            over.hand(Item::NamespaceEnd(name, namespace.compacted), 0);
        }
        Ok(())
    };
    beside(read, |item| put(item, restore))?;
    Ok(namespaces)
}

fn put(item: Item, restore: &mut dyn Restore) -> Result<(), Problem> {
    let of_namespace = |name: NamespaceName| {
        move |problem| Problem::Wrong("namespaces", format!("{}: {problem}", name.as_str()))
    };
    match item {
        Item::Namespace(state) => {
            let name = state.name.clone();
            restore.begin(state).map_err(of_namespace(name))
        }
        Item::Version(table, row, version) => {
            restore.put(version).map_err(|problem| wrong(table, row, problem))
        }
        Item::Left(row, key, revision) => {
            restore.expect(&key, revision).map_err(|problem| wrong("entries", row, problem))
        }
        Item::Dropped(row, key) => {
            restore.drop_key(&key).map_err(|problem| wrong("changes", row, problem))
        }
        Item::NamespaceEnd(name, compacted) => restore.end(compacted).map_err(of_namespace(name)),
    }
}

fn load_changes(
    connection: &Connection,
    namespace: &Known,
    over: &mut HandOver<Item>,
) -> Result<(), Problem> {
    let dropped = dropped_keys(connection, namespace)?;
    // Those of them that are there just now.
    let mut there: HashSet<Key> = HashSet::new();
    let (mut last, mut revisions) = (namespace.compacted, 0);
    let mut statement = connection.prepare(
        "SELECT id, revision, time_ms, key, kind, logged, \
         version, create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum \
         FROM changes WHERE namespace = ?1 ORDER BY revision, id",
    )?;
    let mut rows = statement.query([namespace.id])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let (key, kind) = (columns::key(row, 3)?, row.get::<_, String>(4)?);
        let stamp = GroupStamp { revision: revision(row, 1)?, time_ms: row.get(2)? };
        let entry = columns::entry(row, 6, stamp)?;
        let wrong = |problem| wrong("changes", id, problem);
        columns::check(row, 13, checksum(&key, stamp, &kind, entry.as_ref())).map_err(wrong)?;
        if kind == DROPPED {
            if there.remove(&key) {
                over.hand(Item::Dropped(id, key), 0);
            }
            continue;
        }
        let is_logged = row.get(5)?;
        if is_logged && stamp.revision > last {
            (last, revisions) = (stamp.revision, revisions + 1);
        }
        let version = version(is_logged, (key, stamp), &kind, entry, namespace);
        let version = version.map_err(wrong)?;
        if version.kind == ChangeKind::Clear {
            there.retain(|key| key.is_internal() && !key.is_note());
        } else if dropped.contains(&version.key) {
            there.insert(version.key.clone());
        }
        let bytes = size(&version);
        over.hand(Item::Version("changes", id, version), bytes);
    }
    let logged = namespace.state.revision.0.saturating_sub(namespace.compacted.0);
    if namespace.state.lineage.is_some() && revisions != logged {
        let name = namespace.state.name.as_str();
        let problem = format!("{name}: its log has {revisions} of {logged} revisions");
        return Err(Problem::Wrong("changes", problem));
    }
    Ok(())
}

fn version(
    is_logged: bool,
    (key, stamp): (Key, GroupStamp),
    kind: &str,
    entry: Option<Entry>,
    namespace: &Known,
) -> Result<Version, String> {
    let kind = columns::kind(kind).ok_or_else(|| format!("there is no kind `{kind}`"))?;
    if entry.is_some() != matches!(kind, ChangeKind::Set | ChangeKind::TtlChanged) {
        return Err("an entry stands there after a removal, or none after a write".into());
    }
    let place = if is_logged { Place::Logged } else { Place::Unlogged };
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
    over: &mut HandOver<Item>,
) -> Result<(), Problem> {
    let mut statement = connection.prepare(
        "SELECT id, mod_revision, updated_at_ms, key, kind, \
         version, create_revision, created_at_ms, expires_at_ms, ends_with, content_type, value, checksum, logged \
         FROM entries WHERE namespace = ?1",
    )?;
    let mut rows = statement.query([namespace.id])?;
    while let Some(row) = rows.next()? {
        let id = row.get(0)?;
        let wrong = |problem| wrong("entries", id, problem);
        let stamp = GroupStamp { revision: revision(row, 1)?, time_ms: row.get(2)? };
        let key = columns::key(row, 3)?;
        if row.get(13)? && stamp.revision > namespace.swept {
            over.hand(Item::Left(id, key, stamp.revision), 0);
            continue;
        }
        let kind = row.get::<_, String>(4)?;
        let entry = columns::entry(row, 5, stamp)?;
        columns::check(row, 12, checksum(&key, stamp, &kind, entry.as_ref())).map_err(wrong)?;
        let kind = columns::kind(&kind)
            .filter(|it| matches!(it, ChangeKind::Set | ChangeKind::TtlChanged));
        let kind = kind.ok_or_else(|| wrong("no entry is left by a change of its kind".into()))?;
        let place = Place::Unlogged;
        let version = Version { key, stamp, kind, entry, place, same_value: false };
        let bytes = size(&version);
        over.hand(Item::Version("entries", id, version), bytes);
    }
    Ok(())
}

fn size(version: &Version) -> u64 {
    version.entry.as_ref().map_or(0, |entry| entry.value.len() as u64)
}

fn wrong(table: &'static str, row: i64, problem: String) -> Problem {
    Problem::Wrong(table, format!("row {row}: {problem}"))
}
