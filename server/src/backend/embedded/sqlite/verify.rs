//! Looks through stored state without changing it.

use std::path::Path;

use rusqlite::Connection;

use super::{
    database,
    load::{self, load},
};
use crate::backend::{
    Finding,
    embedded::{journal::LoadError, load::Loaded},
};

/// Most findings of one check that are told.
const MAX_FINDINGS: usize = 100;

/// What there is, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How many namespaces there are, deleted ones included.
    pub namespaces: u64,
    /// How many keys of users these hold.
    pub keys: u64,
    /// How many events the logs have.
    pub events: u64,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

/// What must not be found, each with the table it is about. A statement answers what to show of each row that it finds.
const MUST_NOT_BE: [(&str, &str, &str); 11] = [
    (
        "namespaces",
        "its revisions are not in order",
        "SELECT name FROM namespaces WHERE NOT (0 <= birth AND birth <= swept AND swept <= compacted \
         AND compacted <= revision AND cleared <= revision AND position >= 1)",
    ),
    (
        "entries",
        "it belongs to no namespace that there is",
        "SELECT id FROM entries WHERE namespace NOT IN (SELECT id FROM namespaces WHERE lineage IS NOT NULL \
         OR substr(name, 1, 1) = '!')",
    ),
    (
        "changes",
        "it belongs to no namespace that there is",
        "SELECT id FROM changes WHERE namespace NOT IN (SELECT id FROM namespaces WHERE lineage IS NOT NULL)",
    ),
    (
        "entries",
        "its version or revisions cannot be",
        "SELECT entries.id FROM entries JOIN namespaces ON namespaces.id = entries.namespace \
         WHERE NOT (version >= 1 AND create_revision <= mod_revision AND mod_revision <= revision)",
    ),
    (
        "entries",
        "its column `space` is not that of its key",
        "SELECT id FROM entries WHERE space <> iif(substr(CAST(key AS BLOB), 1, 1) <> x'00', 0, \
         iif(substr(CAST(key AS BLOB), 1, 2) = x'0000', 2, 1))",
    ),
    (
        "entries",
        "it is not what its last change in the log left",
        "SELECT entries.id FROM entries JOIN namespaces ON namespaces.id = entries.namespace \
         LEFT JOIN changes ON changes.id = entries.change \
         WHERE entries.logged AND entries.mod_revision > namespaces.swept AND NOT ifnull( \
             changes.logged AND changes.namespace = entries.namespace AND changes.key = entries.key \
             AND changes.revision = entries.mod_revision AND changes.version = entries.version \
             AND changes.kind = entries.kind AND changes.expires_at_ms IS entries.expires_at_ms \
             AND changes.ends_with IS entries.ends_with AND changes.content_type = entries.content_type \
             AND changes.value = entries.value, 0)",
    ),
    (
        "changes",
        "a later revision than the last of its namespace",
        "SELECT changes.id FROM changes JOIN namespaces ON namespaces.id = changes.namespace \
         WHERE changes.revision > namespaces.revision",
    ),
    (
        "changes",
        "what it was made from is missing",
        "SELECT changes.id FROM changes JOIN namespaces ON namespaces.id = changes.namespace \
         LEFT JOIN changes AS former ON former.id = changes.previous \
         WHERE changes.logged AND changes.previous IS NOT NULL AND changes.revision > namespaces.swept \
         AND ifnull(former.key <> changes.key OR former.namespace <> changes.namespace, 1)",
    ),
    (
        "changes",
        "another event of the same key in the same revision",
        "SELECT max(id) FROM changes WHERE logged GROUP BY namespace, revision, key HAVING count(*) > 1",
    ),
    (
        "changes",
        "it counts its versions wrongly",
        "SELECT changes.id FROM changes JOIN changes AS former ON former.id = changes.previous \
         WHERE changes.logged AND changes.version NOT IN (1, former.version + 1)",
    ),
    (
        "namespaces",
        "its log lacks revisions",
        "SELECT name FROM namespaces WHERE lineage IS NOT NULL AND revision - compacted <> \
         (SELECT count(DISTINCT changes.revision) FROM changes WHERE changes.namespace = namespaces.id \
          AND logged AND changes.revision > compacted)",
    ),
];

/// Checks the pages of the database, what must hold between its rows, and whether all of them together make a state. It may
/// be in use.
///
/// # Errors
/// Where it cannot be read at all.
pub fn verify(file: &Path) -> Result<Report, LoadError> {
    let connection = database::open_to_read(file)?;
    let mut report = Report::default();
    let failed = |error| database::load_error(file, error);
    check_pages(&connection, file, &mut report).map_err(failed)?;
    if report.findings.is_empty() {
        check_rows(&connection, file, &mut report).map_err(failed)?;
    }
    let mut loaded = Loaded::default();
    match load(&connection, file, &mut loaded) {
        Ok(_) => (report.namespaces, report.keys) = loaded.size(),
        Err(error @ LoadError::Io { .. }) => return Err(error),
        Err(error) => report.findings.push(Finding {
            place: file.display().to_string(),
            problem: error.to_string(),
            harmless: false,
        }),
    }
    Ok(report)
}

fn check_pages(connection: &Connection, file: &Path, report: &mut Report) -> rusqlite::Result<()> {
    let mut statement = connection.prepare("PRAGMA integrity_check")?;
    let problems = statement.query_map([], |row| row.get::<_, String>(0))?;
    for problem in problems {
        let problem = problem?;
        if problem != "ok" {
            let place = file.display().to_string();
            report.findings.push(Finding { place, problem, harmless: false });
        }
    }
    Ok(())
}

fn check_rows(connection: &Connection, file: &Path, report: &mut Report) -> rusqlite::Result<()> {
    // All checks see one moment.
    let snapshot = connection.unchecked_transaction()?;
    report.events = snapshot.query_row(
        "SELECT count(*) FROM changes JOIN namespaces ON namespaces.id = changes.namespace \
         WHERE logged AND changes.revision > compacted",
        [],
        |row| Ok(row.get::<_, i64>(0)?.unsigned_abs()),
    )?;
    for (table, problem, statement) in MUST_NOT_BE {
        let mut statement = snapshot.prepare(statement)?;
        let mut rows = statement.query([])?;
        let mut told = 0;
        while let Some(row) = rows.next()? {
            told += 1;
            if told > MAX_FINDINGS {
                break;
            }
            let which = match row.get::<_, rusqlite::types::Value>(0)? {
                rusqlite::types::Value::Text(name) => name,
                rusqlite::types::Value::Integer(id) => id.to_string(),
                _ => "?".into(),
            };
            let place = format!("{}, table {table}, row {which}", file.display());
            report.findings.push(Finding { place, problem: problem.into(), harmless: false });
        }
    }
    let mut told = 0;
    let findings = &mut report.findings;
    load::check_rows(&snapshot, |table, row, problem| {
        told += 1;
        if told <= MAX_FINDINGS {
            let place = format!("{}, table {table}, row {row}", file.display());
            findings.push(Finding { place, problem, harmless: false });
        }
    })?;
    snapshot.finish()
}
