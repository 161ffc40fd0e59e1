//! The whole image written into the tables, in the place of all that was there, in one transaction.

use rusqlite::Connection;

use super::tables::{Known, Namespaces, Tables, WriteError};
use crate::backend::{
    Change, ChangeKind, GroupStamp, Key, Revision,
    embedded::journal::{NamespaceState, Place, SnapshotWriter},
};

/// Tables that are being written anew. Dropped, nothing has happened.
pub struct Rewrite {
    connection: Connection,
    next_change: i64,
    current: Option<Known>,
    /// The last event that was told.
    last: GroupStamp,
}

impl Rewrite {
    /// Begins on a connection of its own.
    pub fn begin(connection: Connection) -> rusqlite::Result<Self> {
        connection.execute_batch(
            "BEGIN IMMEDIATE; DELETE FROM entries; DELETE FROM changes; DELETE FROM namespaces; \
             UPDATE holdfast SET is_copy = 0",
        )?;
        let last = GroupStamp { revision: Revision(0), time_ms: 0 };
        Ok(Self { connection, next_change: 1, current: None, last })
    }

    fn write<T, E: Into<WriteError>>(
        &mut self,
        write: impl FnOnce(&mut Tables<'_>, &mut Known) -> Result<T, E>,
    ) -> Result<T, String> {
        let nothing = Namespaces::new();
        let mut tables = Tables::new(&self.connection, &nothing, self.next_change);
        let current = self.current.as_mut().ok_or("it belongs to no namespace")?;
        let written = write(&mut tables, current);
        self.next_change = tables.next_change;
        written.map_err(|error| error.into().to_string())
    }
}

impl SnapshotWriter for Rewrite {
    fn begin(&mut self, state: &NamespaceState) -> Result<(), String> {
        let nothing = Namespaces::new();
        let mut tables = Tables::new(&self.connection, &nothing, self.next_change);
        let known = tables.add_namespace(state).map_err(|error| error.to_string())?;
        self.last = GroupStamp { revision: state.birth, time_ms: state.created_at_ms };
        self.current = Some(known);
        Ok(())
    }

    fn put(&mut self, change: &Change, place: Place, _same_value: bool) -> Result<(), String> {
        let stamp = GroupStamp { revision: change.revision, time_ms: change.time_ms };
        let entry = change.entry.as_ref();
        if place == Place::Logged {
            self.last = stamp;
        }
        self.write(|tables, namespace| match (place, change.kind, entry) {
            (_, ChangeKind::Clear, _) => tables.clear(namespace, stamp),
            (Place::Logged, kind, entry) => {
                tables.put_logged(namespace, &change.key, stamp, kind, entry)
            }
            (Place::Unlogged, kind, Some(entry)) => {
                tables.put_unlogged(namespace, &change.key, kind, entry)
            }
            // A removal that has been forgotten: as if nothing had been.
            (Place::Unlogged, _, None) => tables.drop_key(namespace, &change.key, stamp),
        })
    }

    fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        // After what was told of it, and before what comes.
        let stamp = self.last;
        self.write(|tables, namespace| tables.drop_key(namespace, key, stamp))
    }

    fn end(&mut self, compacted: Revision) -> Result<(), String> {
        self.write(|tables, namespace| {
            namespace.compacted = namespace.compacted.max(compacted);
            tables.update_namespace(namespace)
        })?;
        self.current = None;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<(), String> {
        self.connection.execute_batch("COMMIT").map_err(|error| error.to_string())
    }
}
