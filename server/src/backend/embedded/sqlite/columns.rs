//! How what the engine knows stands in columns.

use rusqlite::{
    Row, ToSql,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use uuid::Uuid;

use crate::backend::{
    ChangeKind, ContentType, Deadline, Entry, GroupStamp, Key, Lineage, Removal, Revision,
};

/// Bytes on their way into a column: as text if they are, so that people can read them and SQL can work on them.
///
/// Invariant: the same bytes are always of the same type, so that keys are found by them.
pub struct Readable<'a>(pub &'a [u8]);

impl ToSql for Readable<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // SQLite takes a zero for the end of text in some places.
        let is_text = !self.0.contains(&0) && std::str::from_utf8(self.0).is_ok();
        Ok(ToSqlOutput::Borrowed(if is_text {
            ValueRef::Text(self.0)
        } else {
            ValueRef::Blob(self.0)
        }))
    }
}

/// Bytes as they come from such a column.
pub struct Raw(pub Vec<u8>);

impl FromSql for Raw {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        match value {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Self(bytes.to_vec())),
            _ => Err(FromSqlError::InvalidType),
        }
    }
}

/// A revision, position or another number that is never negative; SQLite knows only signed ones.
pub struct Number(pub u64);

impl FromSql for Number {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let number = value.as_i64()?;
        u64::try_from(number).map(Self).map_err(|_| FromSqlError::OutOfRange(number))
    }
}

/// A number as SQLite wants it. Revisions are below 2^53, versions and positions are counted up one by one.
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// What kind of key it is, for the column `space`.
pub fn space(key: &Key) -> i64 {
    match () {
        () if key.is_note() => 2,
        () if key.is_internal() => 1,
        () => 0,
    }
}

/// How a removal without a trace in the log is named.
pub const DROPPED: &str = "dropped";

/// How a kind of change is named.
pub fn kind_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Set => "set",
        ChangeKind::TtlChanged => "ttl_changed",
        ChangeKind::Removed(Removal::Deleted) => "deleted",
        ChangeKind::Removed(Removal::Ttl) => "ttl_ended",
        ChangeKind::Removed(Removal::Lease) => "lease_ended",
        ChangeKind::Removed(Removal::Revoked) => "lease_revoked",
        ChangeKind::Clear => "clear",
    }
}

/// The kind of change of a name.
pub fn kind(name: &str) -> Option<ChangeKind> {
    let kinds = [
        ChangeKind::Set,
        ChangeKind::TtlChanged,
        ChangeKind::Removed(Removal::Deleted),
        ChangeKind::Removed(Removal::Ttl),
        ChangeKind::Removed(Removal::Lease),
        ChangeKind::Removed(Removal::Revoked),
        ChangeKind::Clear,
    ];
    kinds.into_iter().find(|kind| kind_name(*kind) == name)
}

/// When an entry ends, in its two columns.
pub fn deadline_columns(deadline: &Deadline) -> (Option<i64>, Option<Readable<'_>>) {
    match deadline {
        Deadline::Never => (None, None),
        Deadline::At(at_ms) => (Some(*at_ms), None),
        Deadline::Of(key) => (None, Some(Readable(key.as_bytes()))),
    }
}

/// The checksum of a row: CRC-32 of the key, its last change, and what it holds since.
pub fn checksum(key: &Key, stamp: GroupStamp, kind: &str, entry: Option<&Entry>) -> u32 {
    let mut sum = Sum(crc32fast::Hasher::new());
    sum.bytes(key.as_bytes());
    sum.number(stamp.revision.0);
    sum.number(stamp.time_ms.cast_unsigned());
    sum.bytes(kind.as_bytes());
    if let Some(entry) = entry {
        sum.number(entry.version);
        sum.number(entry.create_revision.0);
        sum.number(entry.created_at_ms.cast_unsigned());
        match &entry.deadline {
            Deadline::Never => sum.number(0),
            Deadline::At(at_ms) => {
                sum.number(1);
                sum.number(at_ms.cast_unsigned());
            }
            Deadline::Of(key) => {
                sum.number(2);
                sum.bytes(key.as_bytes());
            }
        }
        sum.bytes(&entry.content_type);
        sum.bytes(&entry.value);
    }
    sum.0.finalize()
}

/// A checksum in the making.
struct Sum(crc32fast::Hasher);

impl Sum {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }
}

/// Compares the checksum in a column with that of what was read.
pub fn check(row: &Row<'_>, column: usize, computed: u32) -> Result<(), String> {
    let stored = row.get::<_, i64>(column).map_err(|error| error.to_string())?;
    match stored == i64::from(computed) {
        true => Ok(()),
        false => Err(format!("its checksum is {stored}, but should be {computed}")),
    }
}

/// Reads an entry whose last change has this stamp from `version, create_revision, created_at_ms, expires_at_ms, ends_with,
/// content_type, value`, which begin at column `first`. None where there is no version.
pub fn entry(row: &Row<'_>, first: usize, stamp: GroupStamp) -> rusqlite::Result<Option<Entry>> {
    let Some(version) = row.get::<_, Option<Number>>(first)? else {
        return Ok(None);
    };
    let at_ms: Option<i64> = row.get(first + 3)?;
    let ends_with: Option<Raw> = row.get(first + 4)?;
    let deadline = match (at_ms, ends_with) {
        (Some(at_ms), _) => Deadline::At(at_ms),
        (None, Some(key)) => Deadline::Of(Box::new(Key::new(&key.0))),
        (None, None) => Deadline::Never,
    };
    Ok(Some(Entry {
        value: row.get::<_, Raw>(first + 6)?.0.into(),
        content_type: ContentType::new(&row.get::<_, Raw>(first + 5)?.0),
        version: version.0,
        create_revision: revision(row, first + 1)?,
        mod_revision: stamp.revision,
        created_at_ms: row.get(first + 2)?,
        updated_at_ms: stamp.time_ms,
        deadline,
    }))
}

/// Reads a revision.
pub fn revision(row: &Row<'_>, column: usize) -> rusqlite::Result<Revision> {
    Ok(Revision(row.get::<_, Number>(column)?.0))
}

/// Reads a key.
pub fn key(row: &Row<'_>, column: usize) -> rusqlite::Result<Key> {
    Ok(Key::new(&row.get::<_, Raw>(column)?.0))
}

/// Reads a lineage; none where the namespace has been deleted.
pub fn lineage(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Lineage>> {
    let text: Option<String> = row.get(column)?;
    let parse = |text: String| {
        Uuid::parse_str(&text).map(Lineage).map_err(|error| {
            let kind = rusqlite::types::Type::Text;
            rusqlite::Error::FromSqlConversionFailure(column, kind, Box::new(error))
        })
    };
    text.map(parse).transpose()
}
