//! A journal in the tables of an SQLite database, which can be queried while the server runs.
//!
//! What keys hold and the log are kept up to date in place: a group of commits is one transaction, and loading reads the
//! tables. So no snapshots are needed, but to be mended where commits were kept that nobody can have been told of. The
//! schema is in `schema.sql` and described in `docs/backends.md`.
//!
//! Invariant: where the error does not tell what became of a failed COMMIT, that is decided before it is answered: the
//! database is opened anew, all that is in its write-ahead log is copied and made durable, and the positions tell.

mod columns;
mod database;
mod load;
mod options;
mod snapshot;
mod tables;
#[cfg(test)]
mod tests;
mod verify;

use std::{
    any::Any,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process,
    sync::Arc,
};

use rusqlite::Connection;

use self::{
    database::load_error,
    snapshot::Rewrite,
    tables::{Changed, Known, Namespaces, Tables, WriteError},
};
pub use self::{
    options::Options,
    verify::{Report, verify},
};
use super::{
    files::{Disk, FileLayer as _},
    journal::{AppendError, Encoder, Journal, LoadError, Pending, Restore, SnapshotWriter},
    kept_clock::ClockFile,
    options::Sync,
};
use crate::backend::{NamespaceName, Position};

/// At least so much room is asked for after a failure.
const PROBE_BYTES: usize = 64 << 10;

/// An SQLite database, which this process owns.
pub struct Sqlite {
    options: Options,
    /// None after a failure, until it is opened anew.
    connection: Option<Connection>,
    namespaces: Namespaces,
    next_change: i64,
    /// How many bytes could not be written.
    refused_bytes: usize,
    /// What may have been kept, though it was not said.
    doubt: Option<Doubt>,
    /// Whether something was committed that may not be durable.
    unsynced: bool,
    _lock: Box<dyn Any + Send>,
}

/// Where namespaces stood before an append, and where they would stand after it.
#[derive(Clone)]
struct Doubt(Vec<(NamespaceName, Position, Position)>);

/// What became of an append.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    Kept,
    NotKept,
    /// The database is not where it was left.
    Astray,
}

impl Sqlite {
    /// Takes a database, which is made if it is not there.
    ///
    /// # Errors
    /// Where another process has it, it is not one of ours, or the system refuses.
    pub fn open(mut options: Options) -> Result<Self, LoadError> {
        // One file has one lock, by whatever link it is named.
        if let Ok(file) = fs::canonicalize(&options.file) {
            options.file = file;
        }
        let lock = lock(&options)?;
        let connection = open_file(&options)?;
        Ok(Self {
            options,
            connection: Some(connection),
            namespaces: Namespaces::new(),
            next_change: 1,
            refused_bytes: 0,
            doubt: None,
            unsynced: false,
            _lock: lock,
        })
    }

    /// Writes records in a transaction that is not committed yet.
    fn write(&self, connection: &Connection, records: &[Pending]) -> Result<Written, WriteError> {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut tables = Tables::new(connection, &self.namespaces, self.next_change);
        for Pending { record, .. } in records {
            tables.record(record)?;
        }
        tables.finish()?;
        Ok(Written { namespaces: tables.changed, next_change: tables.next_change })
    }

    fn keep(&mut self, connection: Connection, written: Written) {
        for (name, known) in written.namespaces {
            match known {
                Some(known) => drop(self.namespaces.insert(name, known)),
                None => drop(self.namespaces.remove(&name)),
            }
        }
        self.next_change = written.next_change;
        self.unsynced = self.options.sync != Sync::Always;
        self.connection = Some(connection);
    }

    /// Where the namespaces that an append writes to stand, and would stand.
    fn doubt(&self, written: &Written) -> Doubt {
        let position = |known: Option<&Known>| known.map_or(Position(0), |it| it.state.position);
        let stood = |name| position(self.namespaces.get(name));
        let stand = written.namespaces.iter();
        Doubt(stand.map(|(name, to)| (name.clone(), stood(name), position(to.as_ref()))).collect())
    }

    /// Where all namespaces stand, and should stay.
    fn doubt_all(&self) -> Doubt {
        let stand = self.namespaces.iter();
        let same = |(name, known): (&NamespaceName, &Known)| {
            (name.clone(), known.state.position, known.state.position)
        };
        Doubt(stand.map(same).collect())
    }

    /// Opens the database anew, and finds out what became of an append whose COMMIT failed.
    fn decide(&mut self, doubt: &Doubt) -> Result<Fate, String> {
        self.connection = None;
        let connection = self.reopen()?;
        let settled = database::settle(&connection).map_err(|error| error.to_string())?;
        if !settled {
            return Err(
                "somebody else is reading the database: its write-ahead log cannot be emptied"
                    .into(),
            );
        }
        let stand = load::namespaces(&connection).map_err(|error| error.to_string())?;
        let position = |name| stand.get(name).map_or(Position(0), |known| known.state.position);
        let all = |side: fn(&(NamespaceName, Position, Position)) -> Position| {
            doubt.0.iter().all(|stood| position(&stood.0) == side(stood))
        };
        Ok(match (all(|stood| stood.1), all(|stood| stood.2)) {
            (true, _) => Fate::NotKept,
            (_, true) => Fate::Kept,
            _ => Fate::Astray,
        })
    }

    fn reopen(&self) -> Result<Connection, String> {
        database::open(&self.options).map_err(|error| error.to_string())
    }

    /// Sees whether so much can be written.
    fn probe(&mut self, bytes: usize) -> Result<(), String> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.reopen()?,
        };
        let zeros = vec![0; bytes.max(PROBE_BYTES)];
        let set = "UPDATE holdfast SET probe = ?1";
        connection
            .execute(set, [Some(zeros)])
            .and_then(|_| connection.execute(set, [None::<Vec<u8>>]))
            .map_err(|error| error.to_string())?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Begins to write all tables anew.
    fn rewrite(&mut self) -> Result<Box<dyn SnapshotWriter>, String> {
        // It is read anew before anything is appended.
        self.connection = None;
        let rewrite = Rewrite::begin(self.reopen()?).map_err(|error| error.to_string())?;
        Ok(Box::new(rewrite))
    }

    /// The connection, with what stands in the tables known.
    fn take_connection(&mut self) -> Result<Connection, String> {
        if let Some(connection) = self.connection.take() {
            return Ok(connection);
        }
        let connection = self.reopen()?;
        let known = load::namespaces(&connection)
            .and_then(|namespaces| Ok((namespaces, tables::next_change(&connection)?)));
        (self.namespaces, self.next_change) = known.map_err(|error| error.to_string())?;
        self.doubt = None;
        Ok(connection)
    }
}

/// What an append changes of what is known.
struct Written {
    namespaces: Changed,
    next_change: i64,
}

impl Journal for Sqlite {
    fn scheme(&self) -> &'static str {
        "sqlite"
    }

    fn durability(&self) -> &'static str {
        self.options.sync.durability()
    }

    fn clock_file(&self) -> ClockFile {
        let layer = Arc::new(Disk { permissions: self.options.permissions });
        ClockFile { layer, path: beside(&self.options.file, ".clock") }
    }

    fn encoder(&self) -> Encoder {
        // It goes by the record.
        |_| Vec::new()
    }

    fn load(&mut self, restore: &mut dyn Restore) -> Result<(), LoadError> {
        let file = &self.options.file;
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => database::open(&self.options)?,
        };
        let failed = |error| load_error(file, error);
        // A process that was killed may have left what is not durable yet, also where it was told so. Where the log cannot be
        // emptied, because the disk is full or somebody reads, it is made durable as it is.
        if !database::settle(&connection).unwrap_or(false) {
            sync_log(file).map_err(|error| io_error(file, error))?;
        }
        if let Err(error) = tables::delete_staged(&connection) {
            tracing::warn!(%error, "what was left of an import cannot be removed yet");
        }
        self.namespaces = load::load(&connection, file, restore)?;
        self.next_change = tables::next_change(&connection).map_err(failed)?;
        self.connection = Some(connection);
        Ok(())
    }

    fn append(&mut self, records: &[Pending]) -> Result<(), AppendError> {
        let connection = self.take_connection().map_err(AppendError::NotKept)?;
        let written = match self.write(&connection, records) {
            Ok(written) => written,
            Err(error) => {
                // The connection is closed, and what was not committed is gone.
                self.refused_bytes = size(records);
                if let WriteError::Interfered(_) = error {
                    self.doubt = Some(self.doubt_all());
                }
                return Err(AppendError::NotKept(format!("the database takes nothing: {error}")));
            }
        };
        let Err(error) = connection.execute_batch("COMMIT") else {
            self.keep(connection, written);
            return Ok(());
        };
        drop(connection);
        self.refused_bytes = size(records);
        if database::is_surely_not_committed(&error) {
            return Err(AppendError::NotKept(format!("the database cannot commit: {error}")));
        }
        let doubt = self.doubt(&written);
        match self.decide(&doubt) {
            Ok(Fate::NotKept) => {
                Err(AppendError::NotKept(format!("the database cannot commit: {error}")))
            }
            // What is known is read anew with the next append.
            Ok(Fate::Kept) => Ok(()),
            Ok(Fate::Astray) => {
                self.doubt = Some(doubt);
                Err(AppendError::Unknown(format!(
                    "the database cannot commit: {error}; nor is it where it was before"
                )))
            }
            Err(also) => {
                self.doubt = Some(doubt);
                Err(AppendError::Unknown(format!(
                    "the database cannot commit: {error}; nor be opened anew to see whether it did: {also}"
                )))
            }
        }
    }

    fn sync(&mut self) -> Result<(), AppendError> {
        if !self.unsynced {
            return Ok(());
        }
        self.unsynced = false;
        sync_log(&self.options.file).map_err(|error| {
            self.doubt = Some(self.doubt_all());
            AppendError::Unknown(format!("the database cannot be made durable: {error}"))
        })
    }

    fn wants_snapshot(&self) -> bool {
        false
    }

    fn has_grown(&self) -> bool {
        // The tables are up to date.
        false
    }

    fn begin_snapshot(&mut self) -> Result<Box<dyn SnapshotWriter>, String> {
        self.rewrite()
    }

    fn mend(&mut self) -> Result<Option<Box<dyn SnapshotWriter>>, String> {
        if let Some(doubt) = self.doubt.clone()
            && self.decide(&doubt)? != Fate::NotKept
        {
            // The image does not have what is there: nobody was told that it was kept.
            return self.rewrite().map(Some);
        }
        self.doubt = None;
        self.probe(self.refused_bytes)?;
        // What is known of the tables is read anew with the next append.
        self.connection = None;
        Ok(None)
    }
}

/// Takes the lock beside the database.
fn lock(options: &Options) -> Result<Box<dyn Any + Send>, LoadError> {
    let disk = Disk { permissions: options.permissions };
    let path = beside(&options.file, ".lock");
    let owner = format!("{}\n", process::id());
    disk.lock(&path, &owner).map_err(|error| io_error(&path, error))?.map_err(|owner| {
        LoadError::InUse {
            place: options.file.display().to_string(),
            owner: format!("the process {}", owner.trim()),
        }
    })
}

/// Makes the file with its mode, which SQLite gives to the files beside it as well, and opens it.
fn open_file(options: &Options) -> Result<Connection, LoadError> {
    let file = &options.file;
    if !file.exists() {
        let disk = Disk { permissions: options.permissions };
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let made = disk.create(file).map(drop);
        made.and_then(|()| disk.sync_directory(directory))
            .map_err(|error| io_error(file, error))?;
    }
    database::open(options)
}

/// Makes durable what was committed.
fn sync_log(file: &Path) -> io::Result<()> {
    match File::open(beside(file, "-wal")) {
        Ok(log) => log.sync_data(),
        // All that was in it has been copied into the database, and is durable there.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn io_error(file: &Path, error: io::Error) -> LoadError {
    LoadError::Io { place: file.display().to_string(), error }
}

/// The path of a file beside the database.
fn beside(file: &Path, suffix: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// About how many bytes records take in the tables, where values stand twice.
fn size(records: &[Pending]) -> usize {
    2 * records.iter().map(|pending| pending.record.bytes()).sum::<usize>()
}
