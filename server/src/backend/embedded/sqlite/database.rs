//! Opening the database, and what is true of it as a whole.

use std::{io, path::Path, time::Duration};

use rusqlite::{Connection, ErrorCode, OpenFlags, ffi};

use super::{Options, Sync};
use crate::backend::embedded::journal::LoadError;

/// Says in the head of the file whose it is: “Hold”.
const APPLICATION_ID: i64 = 0x486f_6c64;
/// The version of the schema.
const FORMAT: u64 = 1;

/// How many pages of 4 KiB the write-ahead log has before it is copied into the database.
const CHECKPOINT_PAGES: u32 = 16_000;
/// What is left of the write-ahead log after something large was in it.
const LOG_LIMIT_BYTES: u64 = 128 << 20;
/// How many KiB of pages are kept at hand.
const CACHE_KIB: u32 = 64 << 10;
/// How long somebody else may hold the database, who should not write to it at all.
const PATIENCE: Duration = Duration::from_secs(1);
const STATEMENTS: usize = 64;

const ADVICE: &str = "put back a copy of the file without the files -wal and -shm beside it, or see what `sqlite3 FILE \
    .recover` can save";

/// Opens the database, makes it if it is not there, and checks that it is one of ours.
pub fn open(options: &Options) -> Result<Connection, LoadError> {
    let file = &options.file;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(file, flags).map_err(|error| load_error(file, error))?;
    set_up(&connection, options.sync).map_err(|error| load_error(file, error))?;
    check_owner(&connection, file)?;
    Ok(connection)
}

/// Opens it to look only.
pub fn open_to_read(file: &Path) -> Result<Connection, LoadError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection =
        Connection::open_with_flags(file, flags).map_err(|error| load_error(file, error))?;
    let format = format(&connection).map_err(|error| load_error(file, error))?;
    check_format(format, file)?;
    Ok(connection)
}

/// Copies the write-ahead log into the database, makes that durable, and empties the log: what can be read afterwards rests
/// on nothing whose fate is unknown. Answers whether it was done.
pub fn settle(connection: &Connection) -> rusqlite::Result<bool> {
    let busy: i64 =
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
    Ok(busy == 0)
}

/// Whether an error of COMMIT says that nothing was committed. What commits is the last page that is written to the
/// write-ahead log, which counts only if it is whole; and nothing is written after it but by a sync.
pub fn is_surely_not_committed(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error().map(|error| error.extended_code);
    matches!(code, Some(ffi::SQLITE_FULL | ffi::SQLITE_IOERR_WRITE))
}

/// What an error of SQLite means for who loads.
pub fn load_error(file: &Path, error: rusqlite::Error) -> LoadError {
    let place = file.display().to_string();
    let code = error.sqlite_error_code();
    let is_of_system = matches!(
        code,
        Some(
            ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::DiskFull
                | ErrorCode::ReadOnly
                | ErrorCode::PermissionDenied
                | ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::OutOfMemory
        )
    );
    if is_of_system {
        return LoadError::Io { place, error: io::Error::other(error) };
    }
    damaged(file, "", error.to_string())
}

/// Something that is not as it was written, in a table or in none.
pub fn damaged(file: &Path, table: &str, problem: String) -> LoadError {
    let place = match table {
        "" => file.display().to_string(),
        _ => format!("{}, table {table}", file.display()),
    };
    LoadError::Damaged { place, problem, advice: ADVICE.into() }
}

fn set_up(connection: &Connection, sync: Sync) -> rusqlite::Result<()> {
    connection.busy_timeout(PATIENCE)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    let synchronous = match sync {
        Sync::Always => "FULL",
        // Commits are not made durable one by one, but in their order.
        Sync::Interval(_) | Sync::Never => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    connection.pragma_update(None, "cache_size", -i64::from(CACHE_KIB))
}

/// Makes the schema in an empty database, and refuses one that is not ours.
fn check_owner(connection: &Connection, file: &Path) -> Result<(), LoadError> {
    let failed = |error| load_error(file, error);
    let found = format(connection).map_err(failed)?;
    if found == Format::Empty {
        create(connection).map_err(failed)?;
    } else {
        check_format(found, file)?;
    }
    // Only now, since these change the file.
    let mode: String = connection
        .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
        .map_err(failed)?;
    if mode != "wal" {
        let problem = "SQLite cannot keep a write-ahead log there";
        let place = file.display().to_string();
        return Err(LoadError::Io { place, error: io::Error::other(problem) });
    }
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(failed)?;
    let limit = i64::try_from(LOG_LIMIT_BYTES).unwrap_or(i64::MAX);
    let set = connection.pragma_update_and_check(None, "journal_size_limit", limit, |_| Ok(()));
    set.map_err(failed)
}

#[derive(PartialEq, Eq)]
enum Format {
    Empty,
    Foreign,
    Ours(u64),
}

fn format(connection: &Connection) -> rusqlite::Result<Format> {
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    Ok(match application {
        APPLICATION_ID => Format::Ours(u64::try_from(version).unwrap_or_default()),
        0 if version == 0 && tables == 0 => Format::Empty,
        _ => Format::Foreign,
    })
}

fn check_format(format: Format, file: &Path) -> Result<(), LoadError> {
    match format {
        Format::Ours(FORMAT) => Ok(()),
        Format::Ours(found) => {
            let place = file.display().to_string();
            Err(LoadError::Format { place, found, known: FORMAT })
        }
        Format::Empty | Format::Foreign => {
            let place = file.display().to_string();
            let problem = "it is not a database of Holdfast".into();
            Err(LoadError::Damaged { place, problem, advice: "name another file".into() })
        }
    }
}

fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; {} PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {FORMAT}; COMMIT;",
        include_str!("schema.sql")
    ))
}
