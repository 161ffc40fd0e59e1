//! Lines of journals and snapshots, read back.

use std::{borrow::Cow, fmt};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};
use serde_json::value::RawValue;

use super::line::{CHECKSUM_BYTES, Header, OPS, checksum};
use crate::backend::{
    ChangeKind, ContentType, Created, Deadline, Draft, Entry, GroupIndex, GroupStamp, Groups, Key,
    Lineage, NamespaceName, Position, Revision, Write, WriteOp,
    embedded::journal::{Action, NamespaceState, Place, Record, Version},
};

/// Revisions stay below 2 to the power of this.
const REVISION_BITS: u32 = 53;

/// What a line of a snapshot says.
#[derive(Debug)]
pub enum SnapshotLine {
    /// A namespace begins.
    Namespace(NamespaceState),
    /// A version.
    Version(Version),
    /// A key that is there no more.
    Dropped(Key),
    /// The namespace ends.
    NamespaceEnd(Revision),
    /// The snapshot ends, after so many lines.
    End(u64),
}

/// What the first line of a file says, with the version of its format.
pub fn header(line: &[u8], kind: &str) -> Result<(u64, Header), String> {
    #[derive(Deserialize)]
    struct First<'a> {
        holdfast: &'a str,
        format: u64,
        #[serde(default)]
        number: u64,
        #[serde(default)]
        needs_snapshot: bool,
        #[serde(default)]
        copy: bool,
    }
    let First { holdfast, format, number, needs_snapshot, copy } = json(line)?;
    if holdfast != kind {
        return Err(format!("it says that it is a {holdfast}, not a {kind}"));
    }
    Ok((format, Header { number, needs_snapshot, copy }))
}

/// Checks the checksum of a line, without the end of the line.
pub fn check(line: &[u8]) -> Result<(), String> {
    let wrong = || "it does not end with a checksum, as every line does".to_owned();
    let end = line.len().checked_sub(CHECKSUM_BYTES).ok_or_else(wrong)?;
    let (content, sum) = line.split_at(end);
    let digits = sum.strip_prefix(b",\"crc\":\"").and_then(|sum| sum.strip_suffix(b"\"}"));
    let (stored, computed) = (digits.ok_or_else(wrong)?, checksum(content));
    if stored == computed {
        return Ok(());
    }
    let text = |digits: &[u8]| digits.escape_ascii().to_string();
    Err(format!("its checksum is {}, but should be {}", text(&computed), text(stored)))
}

/// Reads lines whose checksum was checked.
#[derive(Debug, Default)]
pub struct Decoder {
    /// The last content type: many entries have the same, and share it.
    content_type: ContentType,
    /// The namespace of the last record.
    namespace: Option<NamespaceName>,
}

impl Decoder {
    /// A line of a journal after the first.
    pub fn journal(&mut self, line: &[u8]) -> Result<Record, String> {
        let line: RecordLine<'_> = json(line)?;
        if line.r >> REVISION_BITS != 0 {
            return Err(format!("its revision {} is too large to be one", line.r));
        }
        let time_ms = line.t;
        let action = match (line.w, line.clear, line.delete, line.stage, line.replace) {
            (Some(groups), None, false, None, None) => Action::Write(self.groups(groups, time_ms)?),
            (None, Some(records), false, None, None) => {
                let write = |line| self.write(line, time_ms, 0);
                Action::Clear(records.into_iter().map(write).collect::<Result<_, _>>()?)
            }
            (None, None, true, None, None) => Action::Delete,
            (None, None, false, Some(entries), None) => {
                let staged = |line| self.staged(&line);
                Action::Stage(entries.into_iter().map(staged).collect::<Result<_, _>>()?)
            }
            (None, None, false, None, Some(revision)) => {
                let staged = line.staged.map(|Text(name)| NamespaceName::new(&name));
                Action::Replace(staged, Revision(revision))
            }
            _ => return Err("it is not one of w, clear, delete, stage and replace".into()),
        };
        Ok(Record {
            namespace: self.namespace(&line.ns),
            position: Position(line.p),
            before: Revision(line.r),
            time_ms,
            lineage: line.lineage.map(lineage).transpose()?,
            compacted: line.compacted.map(Revision),
            action,
        })
    }

    /// A line of a snapshot after the first.
    pub fn snapshot(&mut self, line: &[u8]) -> Result<SnapshotLine, String> {
        if line.starts_with(b"{\"op\"") {
            return self.version(json(line)?);
        }
        if line.starts_with(b"{\"namespace\"") {
            let line: NamespaceLine<'_> = json(line)?;
            return Ok(SnapshotLine::Namespace(NamespaceState {
                name: NamespaceName::new(&line.namespace.0),
                position: Position(line.p),
                revision: Revision(line.r),
                time_ms: line.t,
                lineage: line.lineage.map(lineage).transpose()?,
                created_at_ms: line.made,
                birth: Revision(line.birth),
                cleared: Revision(line.cleared),
            }));
        }
        #[derive(Deserialize)]
        struct Line {
            compacted: Option<u64>,
            lines: Option<u64>,
        }
        match json(line)? {
            Line { compacted: Some(compacted), lines: None } => {
                Ok(SnapshotLine::NamespaceEnd(Revision(compacted)))
            }
            Line { compacted: None, lines: Some(lines) } => Ok(SnapshotLine::End(lines)),
            _ => Err("it is no line of a snapshot".into()),
        }
    }

    fn version(&mut self, line: KeyLine<'_>) -> Result<SnapshotLine, String> {
        let key = key(&line.k, &line.k64)?;
        if line.op == "drop" {
            return Ok(SnapshotLine::Dropped(key));
        }
        let kind = kind(line.op)?;
        let (revision, time_ms) = line.r.zip(line.t).ok_or("it has no revision and time")?;
        let stamp = GroupStamp { revision: Revision(revision), time_ms };
        let has_entry = matches!(kind, ChangeKind::Set | ChangeKind::TtlChanged);
        let value = match line.same || !has_entry {
            true => Default::default(),
            false => self.value(&line)?,
        };
        let entry = entry(&line, stamp, value)?;
        Ok(SnapshotLine::Version(Version {
            key,
            stamp,
            kind,
            entry: has_entry.then_some(entry),
            place: if line.unlogged { Place::Unlogged } else { Place::Logged },
            same_value: line.same,
        }))
    }

    fn staged(&mut self, line: &KeyLine<'_>) -> Result<(Key, Entry), String> {
        let (revision, time_ms) = line.r.zip(line.t).ok_or("it has no revision and time")?;
        let stamp = GroupStamp { revision: Revision(revision), time_ms };
        let value = self.value(line)?;
        Ok((key(&line.k, &line.k64)?, entry(line, stamp, value)?))
    }

    fn groups(&mut self, lines: Vec<Vec<KeyLine<'_>>>, time_ms: i64) -> Result<Groups, String> {
        let mut groups = Groups::default();
        for (index, group) in lines.into_iter().enumerate() {
            if group.is_empty() {
                return Err("it has a group without writes".into());
            }
            for line in group {
                let write = self.write(line, time_ms, index)?;
                groups.writes.push(write);
            }
            groups.end_group();
        }
        Ok(groups)
    }

    fn write(&mut self, line: KeyLine<'_>, time_ms: i64, group: usize) -> Result<Write, String> {
        let op = match line.op {
            "drop" => WriteOp::RemoveUnlogged,
            "set" => WriteOp::Set(self.draft(&line, group)?),
            "ttl" => WriteOp::SetDeadline(self.draft(&line, group)?),
            "put" => WriteOp::SetUnlogged(self.draft(&line, group)?),
            other => match kind(other)? {
                ChangeKind::Removed(removal) => WriteOp::Remove(removal),
                _ => return Err(format!("`{other}` is not done to a key at time {time_ms}")),
            },
        };
        Ok(Write { key: key(&line.k, &line.k64)?, op })
    }

    fn draft(&mut self, line: &KeyLine<'_>, group: usize) -> Result<Draft, String> {
        let (value, content_type) = match line.op {
            "ttl" => Default::default(),
            _ => self.value(line)?,
        };
        let created = match line.made {
            None => Created::By(GroupIndex(group)),
            Some((revision, time_ms)) => Created::Before(Revision(revision), time_ms),
        };
        Ok(Draft {
            value,
            content_type,
            version: line.n.unwrap_or(1),
            created,
            deadline: deadline(line)?.into(),
        })
    }

    fn value(&mut self, line: &KeyLine<'_>) -> Result<(Bytes, ContentType), String> {
        let content_type = match (&line.content_type, &line.type64) {
            (None, None) => ContentType::UNKNOWN,
            (Some(Text(text)), None) => {
                if *self.content_type != *text.as_bytes() {
                    self.content_type = ContentType::new(text.as_bytes());
                }
                self.content_type.clone()
            }
            (None, Some(Text(base64))) => ContentType::new(&decode(base64)?),
            _ => return Err("it has two content types".into()),
        };
        let value = match (line.json, &line.text, &line.b64) {
            (Some(json), None, None) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, Some(Text(text)), None) => Bytes::copy_from_slice(text.as_bytes()),
            (None, None, Some(Text(base64))) => decode(base64)?.into(),
            _ => return Err("it has no value, or more than one".into()),
        };
        Ok((value, content_type))
    }

    fn namespace(&mut self, name: &Text<'_>) -> NamespaceName {
        match &self.namespace {
            Some(last) if last.as_str() == name.0 => last.clone(),
            _ => self.namespace.insert(NamespaceName::new(&name.0)).clone(),
        }
    }
}

#[derive(Deserialize)]
struct RecordLine<'a> {
    #[serde(borrow)]
    ns: Text<'a>,
    p: u64,
    r: u64,
    t: i64,
    lineage: Option<&'a str>,
    compacted: Option<u64>,
    #[serde(borrow)]
    w: Option<Vec<Vec<KeyLine<'a>>>>,
    #[serde(borrow)]
    clear: Option<Vec<KeyLine<'a>>>,
    #[serde(default)]
    delete: bool,
    #[serde(borrow)]
    stage: Option<Vec<KeyLine<'a>>>,
    replace: Option<u64>,
    #[serde(borrow)]
    staged: Option<Text<'a>>,
}

#[derive(Deserialize)]
struct NamespaceLine<'a> {
    #[serde(borrow)]
    namespace: Text<'a>,
    p: u64,
    r: u64,
    t: i64,
    lineage: Option<&'a str>,
    made: i64,
    birth: u64,
    cleared: u64,
}

/// What stands of one key, in both kinds of files.
#[derive(Deserialize)]
struct KeyLine<'a> {
    op: &'a str,
    #[serde(borrow)]
    k: Option<Text<'a>>,
    #[serde(borrow)]
    k64: Option<Text<'a>>,
    r: Option<u64>,
    t: Option<i64>,
    #[serde(default)]
    unlogged: bool,
    #[serde(default)]
    same: bool,
    n: Option<u64>,
    made: Option<(u64, i64)>,
    ends: Option<i64>,
    #[serde(borrow, default, deserialize_with = "present")]
    json: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Text<'a>>,
    #[serde(borrow)]
    b64: Option<Text<'a>>,
    #[serde(borrow, rename = "type")]
    content_type: Option<Text<'a>>,
    #[serde(borrow)]
    type64: Option<Text<'a>>,
    #[serde(borrow)]
    with: Option<Text<'a>>,
    #[serde(borrow)]
    with64: Option<Text<'a>>,
}

/// Text that is borrowed from the line where it stands there as it is.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text")
            }

            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Any)
    }
}

/// A member that is there, also where it is `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

fn json<'a, T: Deserialize<'a>>(line: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| format!("it is not what belongs there: {error}"))
}

fn kind(name: &str) -> Result<ChangeKind, String> {
    let known = OPS.into_iter().find(|(op, _)| *op == name);
    known.map(|(_, kind)| kind).ok_or_else(|| format!("`{name}` is nothing that is done to keys"))
}

fn key(text: &Option<Text<'_>>, base64: &Option<Text<'_>>) -> Result<Key, String> {
    match (text, base64) {
        (Some(Text(text)), None) => Ok(Key::new(text.as_bytes())),
        (None, Some(Text(base64))) => Ok(Key::new(&decode(base64)?)),
        _ => Err("it has no key, or two".into()),
    }
}

fn entry(
    line: &KeyLine<'_>,
    stamp: GroupStamp,
    (value, content_type): (Bytes, ContentType),
) -> Result<Entry, String> {
    let GroupStamp { revision, time_ms } = stamp;
    let created = line.made.unwrap_or((revision.0, time_ms));
    Ok(Entry {
        value,
        content_type,
        version: line.n.unwrap_or(1),
        create_revision: Revision(created.0),
        mod_revision: revision,
        created_at_ms: created.1,
        updated_at_ms: time_ms,
        deadline: deadline(line)?,
    })
}

fn deadline(line: &KeyLine<'_>) -> Result<Deadline, String> {
    match (line.ends, &line.with, &line.with64) {
        (None, None, None) => Ok(Deadline::Never),
        (Some(at_ms), None, None) => Ok(Deadline::At(at_ms)),
        (None, with, with64) => Ok(Deadline::Of(Box::new(key(with, with64)?))),
        _ => Err("it ends in two ways".into()),
    }
}

fn decode(base64: &str) -> Result<Vec<u8>, String> {
    STANDARD.decode(base64).map_err(|error| format!("it has no base64 where it should: {error}"))
}

fn lineage(text: &str) -> Result<Lineage, String> {
    let uuid = text.parse().map_err(|error| format!("`{text}` is no lineage: {error}"))?;
    Ok(Lineage(uuid))
}
