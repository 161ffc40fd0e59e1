//! Lines of journals and snapshots: one JSON object each, the last member of which is a checksum of what is before it.
//!
//! Whatever is text stands as text, so that people can read it: keys and values that are UTF-8 as strings, values whose
//! content type says JSON as they are, if they are JSON on one line. The rest is base64. Either way exactly the same
//! bytes come back.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::value::RawValue;

use crate::backend::{
    Change, ChangeKind, Created, Deadline, Draft, Entry, GroupStamp, Key, NewDeadline, Removal,
    Revision, Write, WriteOp,
    embedded::journal::{Action, NamespaceState, Place, Record},
};

/// The version of the format of both kinds of files.
pub const FORMAT: u64 = 1;

/// `,"crc":"` and eight digits and `"}`
pub const CHECKSUM_BYTES: usize = 18;

/// What the first line of a file says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Header {
    /// The number of the file.
    pub number: u64,
    /// Of a journal: it goes on from the snapshot of the same number, and from no older one.
    pub needs_snapshot: bool,
    /// Of a snapshot: it is a copy for safe-keeping.
    pub copy: bool,
}

/// A line that is being written at the end of a buffer.
pub struct Line<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Line<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        let start = out.len();
        out.push(b'{');
        Self { out, start }
    }

    fn end(self) {
        let checksum = checksum(&self.out[self.start..]);
        self.out.extend_from_slice(b",\"crc\":\"");
        self.out.extend_from_slice(&checksum);
        self.out.extend_from_slice(b"\"}\n");
    }
}

/// The checksum of what is before it in a line: CRC-32 in hexadecimal digits.
pub fn checksum(content: &[u8]) -> [u8; 8] {
    let sum = crc32fast::hash(content);
    std::array::from_fn(|digit| b"0123456789abcdef"[(sum >> (28 - 4 * digit)) as usize & 0xf])
}

/// The first line of a file.
pub fn header(kind: &str, header: Header) -> Vec<u8> {
    let mut out = Vec::new();
    let line = Line::new(&mut out);
    text(line.out, "holdfast", kind);
    number(line.out, "format", FORMAT);
    number(line.out, "number", header.number);
    if header.needs_snapshot {
        flag(line.out, "needs_snapshot");
    }
    if header.copy {
        flag(line.out, "copy");
    }
    line.end();
    out
}

/// The line of a commit.
pub fn record(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + expected_bytes(&record.action));
    let line = Line::new(&mut out);
    text(line.out, "ns", record.namespace.as_str());
    number(line.out, "p", record.position.0);
    number(line.out, "r", record.before.0);
    integer(line.out, "t", record.time_ms);
    if let Some(lineage) = record.lineage {
        text(line.out, "lineage", &lineage.to_string());
    }
    if let Some(compacted) = record.compacted {
        number(line.out, "compacted", compacted.0);
    }
    let stamps = record.stamps();
    match &record.action {
        Action::Write(groups) => {
            name(line.out, "w");
            line.out.push(b'[');
            let mut start = 0;
            for (index, end) in groups.ends.iter().enumerate() {
                separate(line.out);
                writes(line.out, &groups.writes[start..*end], index, &stamps);
                start = *end;
            }
            line.out.push(b']');
        }
        Action::Clear(records) => {
            name(line.out, "clear");
            writes(line.out, records, 0, &stamps);
        }
        Action::Delete => flag(line.out, "delete"),
        Action::Stage(entries) => {
            name(line.out, "stage");
            line.out.push(b'[');
            for (key, entry) in entries {
                separate(line.out);
                line.out.push(b'{');
                text(line.out, "op", "set");
                bytes(line.out, ["k", "k64"], key.as_bytes());
                number(line.out, "r", entry.mod_revision.0);
                integer(line.out, "t", entry.updated_at_ms);
                entry_members(line.out, entry, false);
                line.out.push(b'}');
            }
            line.out.push(b']');
        }
        Action::Replace(staged, revision) => {
            number(line.out, "replace", revision.0);
            if let Some(staged) = staged {
                text(line.out, "staged", staged.as_str());
            }
        }
    }
    line.end();
    out
}

/// The line with which a namespace begins in a snapshot.
pub fn namespace(out: &mut Vec<u8>, state: &NamespaceState) {
    let line = Line::new(out);
    text(line.out, "namespace", state.name.as_str());
    number(line.out, "p", state.position.0);
    number(line.out, "r", state.revision.0);
    integer(line.out, "t", state.time_ms);
    if let Some(lineage) = state.lineage {
        text(line.out, "lineage", &lineage.to_string());
    }
    integer(line.out, "made", state.created_at_ms);
    number(line.out, "birth", state.birth.0);
    number(line.out, "cleared", state.cleared.0);
    line.end();
}

/// The line of a version in a snapshot.
pub fn version(out: &mut Vec<u8>, change: &Change, place: Place, same_value: bool) {
    let line = Line::new(out);
    text(line.out, "op", kind_name(change.kind));
    bytes(line.out, ["k", "k64"], change.key.as_bytes());
    number(line.out, "r", change.revision.0);
    integer(line.out, "t", change.time_ms);
    if place == Place::Unlogged {
        flag(line.out, "unlogged");
    }
    if let Some(entry) = &change.entry {
        entry_members(line.out, entry, same_value);
    }
    line.end();
}

/// The line of a key in a snapshot that is there no more.
pub fn dropped(out: &mut Vec<u8>, key: &Key) {
    let line = Line::new(out);
    text(line.out, "op", "drop");
    bytes(line.out, ["k", "k64"], key.as_bytes());
    line.end();
}

/// The line with which a namespace ends in a snapshot.
pub fn namespace_end(out: &mut Vec<u8>, compacted: Revision) {
    let line = Line::new(out);
    number(line.out, "compacted", compacted.0);
    line.end();
}

/// The last line of a snapshot. `lines` are before it.
pub fn snapshot_end(out: &mut Vec<u8>, lines: u64) {
    let line = Line::new(out);
    number(line.out, "lines", lines);
    line.end();
}

/// The names of what can be done to a key.
pub const OPS: [(&str, ChangeKind); 7] = [
    ("set", ChangeKind::Set),
    ("ttl", ChangeKind::TtlChanged),
    ("delete", ChangeKind::Removed(Removal::Deleted)),
    ("expire", ChangeKind::Removed(Removal::Ttl)),
    ("lease", ChangeKind::Removed(Removal::Lease)),
    ("revoke", ChangeKind::Removed(Removal::Revoked)),
    ("clear", ChangeKind::Clear),
];

fn kind_name(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Set => "set",
        ChangeKind::TtlChanged => "ttl",
        ChangeKind::Removed(Removal::Deleted) => "delete",
        ChangeKind::Removed(Removal::Ttl) => "expire",
        ChangeKind::Removed(Removal::Lease) => "lease",
        ChangeKind::Removed(Removal::Revoked) => "revoke",
        ChangeKind::Clear => "clear",
    }
}

fn expected_bytes(action: &Action) -> usize {
    let one = |key: &Key, value: usize| 96 + key.as_bytes().len() + value + value / 8;
    let write = |write: &Write| {
        let value =
            write.op.draft().map_or(0, |draft| draft.value.len() + draft.content_type.len());
        one(&write.key, value)
    };
    match action {
        Action::Write(groups) => groups.writes.iter().map(write).sum(),
        Action::Clear(records) => records.iter().map(write).sum(),
        Action::Stage(entries) => {
            let staged = |(key, entry): &(Key, Entry)| one(key, entry.value.len());
            entries.iter().map(staged).sum()
        }
        Action::Delete | Action::Replace(..) => 0,
    }
}

fn writes(out: &mut Vec<u8>, writes: &[Write], group: usize, stamps: &[GroupStamp]) {
    out.push(b'[');
    for Write { key, op } in writes {
        separate(out);
        out.push(b'{');
        let (name, draft) = match op {
            WriteOp::Set(draft) => ("set", Some(draft)),
            WriteOp::SetDeadline(draft) => ("ttl", Some(draft)),
            WriteOp::Remove(removal) => (kind_name(ChangeKind::Removed(*removal)), None),
            WriteOp::SetUnlogged(draft) => ("put", Some(draft)),
            WriteOp::RemoveUnlogged => ("drop", None),
        };
        text(out, "op", name);
        bytes(out, ["k", "k64"], key.as_bytes());
        if let Some(draft) = draft {
            if !matches!(op, WriteOp::SetDeadline(_)) {
                value(out, &draft.content_type, &draft.value);
            }
            draft_metadata(out, draft, group, stamps);
        }
        out.push(b'}');
    }
    out.push(b']');
}

fn entry_members(out: &mut Vec<u8>, entry: &Entry, same_value: bool) {
    if same_value {
        flag(out, "same");
    } else {
        value(out, &entry.content_type, &entry.value);
    }
    let created = (entry.create_revision, entry.created_at_ms);
    let is_new = created == (entry.mod_revision, entry.updated_at_ms);
    metadata(out, entry.version, (!is_new).then_some(created));
    match &entry.deadline {
        Deadline::Never => {}
        Deadline::At(at_ms) => integer(out, "ends", *at_ms),
        Deadline::Of(key) => bytes(out, ["with", "with64"], key.as_bytes()),
    }
}

fn draft_metadata(out: &mut Vec<u8>, draft: &Draft, group: usize, stamps: &[GroupStamp]) {
    let own = stamps[group];
    let created = match draft.created {
        Created::Before(revision, time_ms) => Some((revision, time_ms)),
        Created::By(by) if by.0 == group => None,
        Created::By(by) => {
            let stamp = stamps.get(by.0).copied().unwrap_or(own);
            Some((stamp.revision, stamp.time_ms))
        }
    };
    metadata(out, draft.version, created);
    match &draft.deadline {
        NewDeadline::Never => {}
        NewDeadline::Of(key) => bytes(out, ["with", "with64"], key.as_bytes()),
        NewDeadline::At(_) | NewDeadline::After(_) => {
            if let Deadline::At(at_ms) = draft.deadline.clone().from(own.time_ms) {
                integer(out, "ends", at_ms);
            }
        }
    }
}

fn metadata(out: &mut Vec<u8>, version: u64, created: Option<(Revision, i64)>) {
    if version != 1 {
        number(out, "n", version);
    }
    if let Some((revision, time_ms)) = created {
        name(out, "made");
        out.push(b'[');
        json(out, &revision.0);
        out.push(b',');
        json(out, &time_ms);
        out.push(b']');
    }
}

fn value(out: &mut Vec<u8>, content_type: &[u8], value: &[u8]) {
    if !content_type.is_empty() {
        bytes(out, ["type", "type64"], content_type);
    }
    if is_json(content_type) && is_one_line_of_json(value) {
        name(out, "json");
        out.extend_from_slice(value);
    } else {
        bytes(out, ["text", "b64"], value);
    }
}

/// Whether a content type says JSON: `application/json`, or one that ends in `+json`.
fn is_json(content_type: &[u8]) -> bool {
    let essence = content_type.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    let ends_with = |end: &[u8]| {
        let start = essence.len().checked_sub(end.len());
        start.is_some_and(|start| essence[start..].eq_ignore_ascii_case(end))
    };
    essence.eq_ignore_ascii_case(b"application/json") || ends_with(b"+json")
}

/// Whether it comes back as it is where it stands in a line.
fn is_one_line_of_json(value: &[u8]) -> bool {
    let parsed = serde_json::from_slice::<&RawValue>(value);
    parsed.is_ok_and(|raw| raw.get().len() == value.len()) && !value.contains(&b'\n')
}

/// A member that is text if it can be.
fn bytes(out: &mut Vec<u8>, [as_text, as_base64]: [&str; 2], value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(value) => text(out, as_text, value),
        Err(_) => {
            name(out, as_base64);
            out.push(b'"');
            let start = out.len();
            let length = base64::encoded_len(value.len(), true);
            out.resize(start + length.expect("a value in memory is not so large"), 0);
            let written = STANDARD.encode_slice(value, &mut out[start..]);
            written.expect("the length is that of the encoding");
            out.push(b'"');
        }
    }
}

fn text(out: &mut Vec<u8>, member: &str, value: &str) {
    name(out, member);
    // Most text is as it is, and seen to be so many bytes at a time: the whole of it is looked at, without a way out.
    let is_escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if value.bytes().fold(false, |any, byte| any | is_escaped(byte)) {
        return json(out, value);
    }
    out.push(b'"');
    out.extend_from_slice(value.as_bytes());
    out.push(b'"');
}

fn number(out: &mut Vec<u8>, member: &str, value: u64) {
    name(out, member);
    json(out, &value);
}

fn integer(out: &mut Vec<u8>, member: &str, value: i64) {
    name(out, member);
    json(out, &value);
}

fn flag(out: &mut Vec<u8>, member: &str) {
    name(out, member);
    out.extend_from_slice(b"true");
}

fn name(out: &mut Vec<u8>, member: &str) {
    separate(out);
    out.push(b'"');
    out.extend_from_slice(member.as_bytes());
    out.extend_from_slice(b"\":");
}

fn separate(out: &mut Vec<u8>) {
    if !matches!(out.last(), Some(b'{' | b'[')) {
        out.push(b',');
    }
}

fn json<T: serde::Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    serde_json::to_writer(out, value).expect("numbers and text can be written to memory");
}
