//! A change as it is stored: a line of text, then the content type, the key referred to, and the value.
//!
//! The line is `KIND REVISION-INDEX TIME DEADLINE CREATE_REVISION CREATED VERSION CT REF`, all of fixed widths, so that the
//! scripts need not seek in it. KIND is a letter; REVISION-INDEX names the event of the log that has the version before beside
//! it; with the kind `V`, which was written over that without a trace, that name comes after TIME. DEADLINE is a number of
//! milliseconds, or begins with `-` for none, or with `@` for that of the key referred to; the last two are lengths.

use std::io::Write as _;

use bytes::Bytes;

use crate::backend::{
    BackendError, Change, ChangeKind, ContentType, Deadline, Entry, GroupStamp, Key, Removal,
    Revision, SharedChange, WriteOp, entry_bytes,
};

/// What a change counts for in the log beside its key and value.
const LOG_OVERHEAD_BYTES: usize = 128;

/// Reads the record of a key.
pub(super) fn parse(key: Key, record: Bytes) -> Result<SharedChange, BackendError> {
    let broken = || BackendError::Corrupt(format!("the record of {key:?} is not understood"));
    let end = record.iter().position(|byte| *byte == b'\n').ok_or_else(broken)?;
    let line = std::str::from_utf8(&record[..end]).map_err(|_| broken())?;
    let fields = Fields::parse(line).ok_or_else(broken)?;
    let body = record.slice(end + 1..);
    let value_start = fields.content_type.checked_add(fields.reference).ok_or_else(broken)?;
    if value_start > body.len() {
        return Err(broken());
    }
    let deadline = match fields.deadline.as_bytes() {
        [b'-', ..] => Deadline::Never,
        [b'@', ..] => Deadline::Of(Box::new(Key::new(&body[fields.content_type..value_start]))),
        _ => Deadline::At(fields.deadline.parse().map_err(|_| broken())?),
    };
    let stamp = GroupStamp { revision: fields.revision, time_ms: fields.time_ms };
    let is_removal = matches!(fields.kind, ChangeKind::Removed(_) | ChangeKind::Clear);
    let entry = (!is_removal).then(|| Entry {
        value: body.slice(value_start..),
        content_type: ContentType::new(&body[..fields.content_type]),
        version: fields.version,
        create_revision: fields.create_revision,
        mod_revision: fields.revision,
        created_at_ms: fields.created_at_ms,
        updated_at_ms: fields.time_ms,
        deadline,
    });
    Ok(SharedChange::new(Change::new(key, stamp, fields.kind, entry, None)))
}

/// The line of a record.
struct Fields<'a> {
    kind: ChangeKind,
    revision: Revision,
    time_ms: i64,
    deadline: &'a str,
    create_revision: Revision,
    created_at_ms: i64,
    version: u64,
    content_type: usize,
    reference: usize,
}

impl<'a> Fields<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let mut words = line.split(' ');
        let letter = words.next()?;
        let (revision, _) = words.next()?.split_once('-')?;
        let time_ms = words.next()?.parse().ok()?;
        if letter == "V" {
            // What it was written over is for the scripts.
            words.next()?;
        }
        let fields = Self {
            kind: kind_of(letter)?,
            revision: Revision(revision.parse().ok()?),
            time_ms,
            deadline: words.next()?,
            create_revision: Revision(words.next()?.parse().ok()?),
            created_at_ms: words.next()?.parse().ok()?,
            version: words.next()?.parse().ok()?,
            content_type: words.next()?.parse().ok()?,
            reference: words.next()?.parse().ok()?,
        };
        words.next().is_none().then_some(fields)
    }
}

fn kind_of(letter: &str) -> Option<ChangeKind> {
    Some(match letter {
        "S" | "U" | "V" => ChangeKind::Set,
        "T" => ChangeKind::TtlChanged,
        "D" => ChangeKind::Removed(Removal::Deleted),
        "E" => ChangeKind::Removed(Removal::Ttl),
        "L" => ChangeKind::Removed(Removal::Lease),
        "R" => ChangeKind::Removed(Removal::Revoked),
        "C" => ChangeKind::Clear,
        _ => return None,
    })
}

/// How many bytes the log grows by with a write that is logged.
pub(super) fn log_bytes(key: &Key, op: &WriteOp) -> u64 {
    let counted = match op {
        WriteOp::Set(draft) | WriteOp::SetUnlogged(draft) => {
            draft.value.len() + draft.content_type.len()
        }
        WriteOp::SetDeadline(_) | WriteOp::Remove(_) | WriteOp::RemoveUnlogged => 0,
    };
    (LOG_OVERHEAD_BYTES + key.as_bytes().len() + counted) as u64
}

/// No deadline, as it stands in a record,
pub(super) const NEVER: &str = "--------------";
/// and that of the key referred to.
pub(super) const OF_KEY: &str = "@-------------";

/// Writes what stands in a record after its creation.
pub(super) fn rest(
    version: u64,
    content_type: &[u8],
    reference: Option<&Key>,
    value: &[u8],
    record: &mut Vec<u8>,
) {
    let reference = reference.map(Key::as_bytes).unwrap_or_default();
    writeln!(record, " {version:016} {:03} {:05}", content_type.len(), reference.len())
        .expect("memory takes all that is written");
    record.extend_from_slice(content_type);
    record.extend_from_slice(reference);
    record.extend_from_slice(value);
}

/// The record of the clear of a namespace, or of a removal, after its creation.
pub(super) fn empty_rest() -> Bytes {
    let mut record = Vec::with_capacity(32);
    rest(0, b"", None, b"", &mut record);
    record.into()
}

/// What the script that stages takes of an entry: key, deadline, size, record.
pub(super) fn stage_args(key: &Key, entry: &Entry, args: &mut Vec<Bytes>) {
    let Entry { value, content_type, version, mod_revision, .. } = entry;
    let size = entry_bytes(key, content_type, value);
    let (index, deadline) = match &entry.deadline {
        Deadline::Never => (String::new(), NEVER.to_owned()),
        Deadline::Of(_) => (String::new(), OF_KEY.to_owned()),
        Deadline::At(at_ms) => (at_ms.to_string(), format!("{:014}", at_ms.max(&0))),
    };
    let mut record = Vec::with_capacity(value.len() + content_type.len() + 160);
    write!(
        record,
        "U {:016}-00000 {:014} {deadline} {:016} {:014}",
        mod_revision.0, entry.updated_at_ms, entry.create_revision.0, entry.created_at_ms
    )
    .expect("memory takes all that is written");
    rest(*version, content_type, entry.deadline.reference(), value, &mut record);
    let key = Bytes::copy_from_slice(key.as_bytes());
    args.extend([key, index.into(), size.to_string().into(), record.into()]);
}
