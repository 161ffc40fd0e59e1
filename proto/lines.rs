//! The state of namespaces as lines of JSON: what `holdfast export` writes, and whatever imports it reads.
//!
//! It is the same that travels in [`TransferPart`]s, for people and for `jq`: one line each for the file itself, a
//! namespace, a lease, a lock, an entry, the end of the namespace, and the end of the file. Values whose content type says
//! JSON stand as they are, text as text, all else as base64; exactly the same bytes come back.

use std::{fmt, mem};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;

use crate::v1::{
    Entry, LockOwner, NamespaceSettings, TransferEnd, TransferItems, TransferLease, TransferLock,
    TransferPart, TransferStart, transfer_lock::Duration, transfer_part::Part,
};

/// The version of this form.
pub const FORMAT: u32 = 1;

/// About the most bytes that are put into one part.
const PART_BYTES: usize = 1 << 20;

/// Writes parts as lines.
#[derive(Debug, Default)]
pub struct Writer {
    namespaces: u64,
    has_begun: bool,
}

impl Writer {
    /// A writer at the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the lines of a part to `out`.
    pub fn write(&mut self, part: &TransferPart, out: &mut Vec<u8>) {
        self.begin(out);
        match &part.part {
            None => {}
            Some(Part::Start(start)) => line(out, &StartLine::of(start)),
            Some(Part::Items(items)) => {
                items.leases.iter().for_each(|lease| line(out, &LeaseLine::of(lease)));
                items.locks.iter().for_each(|lock| line(out, &LockLine::of(lock)));
                items.entries.iter().for_each(|entry| line(out, &EntryLine::of(entry)));
            }
            Some(Part::End(end)) => {
                self.namespaces += 1;
                line(out, &EndLine::of(end));
            }
        }
    }

    /// Adds the last line, without which whoever reads the file takes it for cut off.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        self.begin(out);
        let (holdfast, namespaces) = ("end".to_owned(), Some(self.namespaces));
        line(out, &FileLine { holdfast, format: None, namespaces });
    }

    fn begin(&mut self, out: &mut Vec<u8>) {
        if !mem::replace(&mut self.has_begun, true) {
            let holdfast = "export".to_owned();
            line(out, &FileLine { holdfast, format: Some(FORMAT), namespaces: None });
        }
    }
}

/// Reads lines as parts.
#[derive(Debug, Default)]
pub struct Reader {
    line: u64,
    namespaces: u64,
    items: TransferItems,
    /// How many bytes the lines of `items` have.
    bytes: usize,
    has_ended: bool,
}

/// Why a line cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LineError {
    /// The number of the line, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for LineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.problem)
    }
}

impl std::error::Error for LineError {}

impl Reader {
    /// A reader at the beginning of a file.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a line, with or without its end; answers the parts that are complete with it.
    ///
    /// # Errors
    /// If it is not a line that belongs there; then this is of no further use.
    pub fn read(&mut self, line: &[u8]) -> Result<Vec<TransferPart>, LineError> {
        self.line += 1;
        self.take(line).map_err(|problem| LineError { line: self.line, problem })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// If it was cut off.
    pub fn finish(self) -> Result<(), LineError> {
        if self.has_ended {
            return Ok(());
        }
        let problem =
            "the file ends before its last line: it was cut off, or whatever wrote it failed";
        Err(LineError { line: self.line + 1, problem: problem.to_owned() })
    }

    fn take(&mut self, line: &[u8]) -> Result<Vec<TransferPart>, String> {
        let mut parts = Vec::new();
        let kind = first_member(line)?;
        if self.has_ended {
            return Err("it comes after the last line".to_owned());
        }
        if (self.line == 1) != (kind == "holdfast") && self.line == 1 {
            return Err("it is not how a file begins that `holdfast export` has written".to_owned());
        }
        match kind {
            "holdfast" => self.file(json(line)?, &mut parts)?,
            "namespace" => {
                self.flush(&mut parts);
                parts.push(part(Part::Start(json::<StartLine>(line)?.into_start())));
            }
            "lease" => self.items.leases.push(json::<LeaseLine>(line)?.into_lease()?),
            "lock" => self.items.locks.push(json::<LockLine>(line)?.into_lock()?),
            "key" => {
                let line = serde_json::from_slice::<EntryLine<'_>>(line).map_err(|e| wrong(&e))?;
                self.items.entries.push(line.into_entry()?);
            }
            "end" => {
                self.flush(&mut parts);
                self.namespaces += 1;
                parts.push(part(Part::End(json::<EndLine>(line)?.into_end()?)));
            }
            other => return Err(format!("a line that begins with {other:?} is not known")),
        }
        self.bytes += line.len();
        if self.bytes >= PART_BYTES {
            self.flush(&mut parts);
        }
        Ok(parts)
    }

    fn file(&mut self, line: FileLine, parts: &mut Vec<TransferPart>) -> Result<(), String> {
        match (line.holdfast.as_str(), line.format, line.namespaces) {
            ("export", Some(FORMAT), None) if self.line == 1 => Ok(()),
            ("export", Some(format), None) if self.line == 1 => {
                Err(format!("the file has the format {format}, this program knows {FORMAT}"))
            }
            ("end", None, Some(namespaces)) if namespaces == self.namespaces => {
                self.flush(parts);
                self.has_ended = true;
                Ok(())
            }
            ("end", None, Some(namespaces)) => Err(format!(
                "it says that {namespaces} namespaces are before it, there are {}",
                self.namespaces
            )),
            _ => Err("it does not belong there".to_owned()),
        }
    }

    fn flush(&mut self, parts: &mut Vec<TransferPart>) {
        self.bytes = 0;
        let items = mem::take(&mut self.items);
        if items != TransferItems::default() {
            parts.push(part(Part::Items(items)));
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileLine {
    holdfast: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespaces: Option<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartLine {
    namespace: String,
    revision: u64,
    lineage: String,
    time_ms: i64,
    #[serde(default)]
    entries: u64,
    #[serde(default, skip_serializing_if = "SettingsMember::is_default")]
    settings: SettingsMember,
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct SettingsMember {
    #[serde(skip_serializing_if = "Option::is_none")]
    default_ttl_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_max_events: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_max_age_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_max_keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    quota_max_bytes: Option<u64>,
}

impl SettingsMember {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl StartLine {
    fn of(start: &TransferStart) -> Self {
        let settings = start.settings.unwrap_or_default();
        Self {
            namespace: start.namespace.clone(),
            revision: start.revision,
            lineage: start.lineage.clone(),
            time_ms: start.time_ms,
            entries: start.expected_entries,
            settings: SettingsMember {
                default_ttl_ms: settings.default_ttl_ms,
                log_max_events: settings.log_max_events,
                log_max_age_ms: settings.log_max_age_ms,
                log_max_bytes: settings.log_max_bytes,
                quota_max_keys: settings.quota_max_keys,
                quota_max_bytes: settings.quota_max_bytes,
            },
        }
    }

    fn into_start(self) -> TransferStart {
        let settings = self.settings;
        TransferStart {
            format: FORMAT,
            namespace: self.namespace,
            settings: Some(NamespaceSettings {
                default_ttl_ms: settings.default_ttl_ms,
                log_max_events: settings.log_max_events,
                log_max_age_ms: settings.log_max_age_ms,
                log_max_bytes: settings.log_max_bytes,
                quota_max_keys: settings.quota_max_keys,
                quota_max_bytes: settings.quota_max_bytes,
            }),
            revision: self.revision,
            lineage: self.lineage,
            time_ms: self.time_ms,
            expected_entries: self.entries,
        }
    }
}

/// Ids of leases are text: many programs that read JSON cannot hold all their digits.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LeaseLine {
    lease: String,
    ttl_ms: u64,
    granted_at_ms: i64,
    expires_at_ms: i64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    chosen: bool,
}

impl LeaseLine {
    fn of(lease: &TransferLease) -> Self {
        Self {
            lease: lease.id.to_string(),
            ttl_ms: lease.ttl_ms,
            granted_at_ms: lease.granted_at_ms,
            expires_at_ms: lease.expires_at_ms,
            chosen: lease.is_chosen,
        }
    }

    fn into_lease(self) -> Result<TransferLease, String> {
        Ok(TransferLease {
            id: lease_id(&self.lease)?,
            ttl_ms: self.ttl_ms,
            granted_at_ms: self.granted_at_ms,
            expires_at_ms: self.expires_at_ms,
            is_chosen: self.chosen,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LockLine {
    lock: String,
    token: u64,
    mod_revision: u64,
    version: u64,
    acquired_at_ms: i64,
    updated_at_ms: i64,
    acquire_id: String,
    #[serde(default, skip_serializing_if = "OwnerMember::is_default")]
    owner: OwnerMember,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with_lease: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
}

#[derive(Serialize, Deserialize, Default, PartialEq)]
#[serde(deny_unknown_fields, default)]
struct OwnerMember {
    #[serde(skip_serializing_if = "String::is_empty")]
    id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    who: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    operation: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    client_version: String,
}

impl OwnerMember {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl LockLine {
    fn of(lock: &TransferLock) -> Self {
        let LockOwner { id, who, reason, operation, client_version } =
            lock.owner.clone().unwrap_or_default();
        let (text, base64) = text_or_base64(&lock.value);
        let (ttl_ms, with_lease) = match lock.duration {
            Some(Duration::TtlMs(ttl_ms)) => (Some(ttl_ms), None),
            Some(Duration::LeaseId(lease)) => (None, Some(lease.to_string())),
            None => (None, None),
        };
        Self {
            lock: lock.name.clone(),
            token: lock.token,
            mod_revision: lock.mod_revision,
            version: lock.version,
            acquired_at_ms: lock.acquired_at_ms,
            updated_at_ms: lock.updated_at_ms,
            acquire_id: STANDARD.encode(&lock.acquire_id),
            owner: OwnerMember { id, who, reason, operation, client_version },
            text: text.filter(|text| !text.is_empty()).map(str::to_owned),
            base64,
            ttl_ms,
            with_lease,
            expires_at_ms: lock.expires_at_ms,
        }
    }

    fn into_lock(self) -> Result<TransferLock, String> {
        let OwnerMember { id, who, reason, operation, client_version } = self.owner;
        Ok(TransferLock {
            name: self.lock,
            token: self.token,
            mod_revision: self.mod_revision,
            version: self.version,
            acquired_at_ms: self.acquired_at_ms,
            updated_at_ms: self.updated_at_ms,
            acquire_id: from_base64(&self.acquire_id)?,
            owner: Some(LockOwner { id, who, reason, operation, client_version }),
            value: match (self.text, self.base64) {
                (text, None) => text.unwrap_or_default().into_bytes().into(),
                (None, Some(base64)) => from_base64(&base64)?,
                (Some(_), Some(_)) => return Err("it has two values".to_owned()),
            },
            duration: match (self.ttl_ms, self.with_lease) {
                (Some(ttl_ms), None) => Some(Duration::TtlMs(ttl_ms)),
                (None, Some(lease)) => Some(Duration::LeaseId(lease_id(&lease)?)),
                _ => return Err("it needs either `ttl_ms` or `with_lease`".to_owned()),
            },
            expires_at_ms: self.expires_at_ms,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EntryLine<'a> {
    key: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    content_type: String,
    #[serde(
        borrow,
        default,
        deserialize_with = "present",
        skip_serializing_if = "Option::is_none"
    )]
    json: Option<&'a RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
    version: u64,
    create_revision: u64,
    mod_revision: u64,
    created_at_ms: i64,
    updated_at_ms: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    with_lease: Option<String>,
}

impl<'a> EntryLine<'a> {
    fn of(entry: &'a Entry) -> Self {
        let value: &[u8] = entry.value.as_deref().unwrap_or_default();
        let json = is_json(&entry.content_type).then(|| one_line_of_json(value)).flatten();
        let (text, base64) = match json {
            Some(_) => (None, None),
            None => text_or_base64(value),
        };
        Self {
            key: entry.key.clone(),
            content_type: entry.content_type.clone(),
            json,
            text: text.map(str::to_owned),
            base64,
            version: entry.version,
            create_revision: entry.create_revision,
            mod_revision: entry.mod_revision,
            created_at_ms: entry.created_at_ms,
            updated_at_ms: entry.updated_at_ms,
            expires_at_ms: entry.expires_at_ms,
            with_lease: entry.lease_id.map(|lease| lease.to_string()),
        }
    }

    fn into_entry(self) -> Result<Entry, String> {
        let value = match (self.json, self.text, self.base64) {
            (Some(json), None, None) => Bytes::copy_from_slice(json.get().as_bytes()),
            (None, Some(text), None) => text.into_bytes().into(),
            (None, None, Some(base64)) => from_base64(&base64)?,
            _ => return Err("it needs one of `json`, `text` and `base64`".to_owned()),
        };
        Ok(Entry {
            key: self.key,
            value: Some(value),
            content_type: self.content_type,
            version: self.version,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            created_at_ms: self.created_at_ms,
            updated_at_ms: self.updated_at_ms,
            expires_at_ms: self.expires_at_ms,
            lease_id: self.with_lease.as_deref().map(lease_id).transpose()?,
        })
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndLine {
    end: EndMember,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndMember {
    entries: u64,
    leases: u64,
    locks: u64,
    checksum: String,
}

impl EndLine {
    fn of(end: &TransferEnd) -> Self {
        let checksum = format!("{:08x}", end.checksum);
        let (entries, leases, locks) = (end.entry_count, end.lease_count, end.lock_count);
        Self { end: EndMember { entries, leases, locks, checksum } }
    }

    fn into_end(self) -> Result<TransferEnd, String> {
        let EndMember { entries, leases, locks, checksum } = self.end;
        let checksum = u32::from_str_radix(&checksum, 16)
            .map_err(|_| format!("the checksum {checksum:?} is not 8 hexadecimal digits"))?;
        Ok(TransferEnd { entry_count: entries, lease_count: leases, lock_count: locks, checksum })
    }
}

fn part(part: Part) -> TransferPart {
    TransferPart { part: Some(part) }
}

fn line(out: &mut Vec<u8>, line: &impl Serialize) {
    serde_json::to_writer(&mut *out, line)
        .expect("what is written to memory has only texts as names");
    out.push(b'\n');
}

fn json<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    serde_json::from_slice(line).map_err(|error| wrong(&error))
}

fn wrong(error: &serde_json::Error) -> String {
    format!("it cannot be read: {error}")
}

/// The name of the first member, by which lines are told apart.
fn first_member(line: &[u8]) -> Result<&str, String> {
    let inside = line.trim_ascii_start().strip_prefix(b"{").map(<[u8]>::trim_ascii_start);
    let name = inside.and_then(|inside| inside.strip_prefix(b"\"")).and_then(|name| {
        let end = name.iter().position(|byte| *byte == b'"')?;
        std::str::from_utf8(&name[..end]).ok()
    });
    name.ok_or_else(|| "it is not an object of JSON".to_owned())
}

/// A member that is there, also where it is `null`.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Whether a content type says JSON: `application/json`, or one that ends in `+json`.
fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || essence.ends_with("+json")
}

/// JSON that comes back as it is where it stands in a line.
fn one_line_of_json(value: &[u8]) -> Option<&RawValue> {
    let raw = serde_json::from_slice::<&RawValue>(value).ok()?;
    let is_whole = raw.get().len() == value.len();
    (is_whole && !value.contains(&b'\n') && !value.contains(&b'\r')).then_some(raw)
}

fn text_or_base64(value: &[u8]) -> (Option<&str>, Option<String>) {
    match std::str::from_utf8(value) {
        Ok(text) => (Some(text), None),
        Err(_) => (None, Some(STANDARD.encode(value))),
    }
}

fn from_base64(text: &str) -> Result<Bytes, String> {
    let bytes = STANDARD.decode(text).map_err(|error| format!("it has no base64: {error}"))?;
    Ok(bytes.into())
}

fn lease_id(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not the id of a lease"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content_type: &str, value: &'static [u8]) -> Entry {
        Entry {
            key: "k\"\n".to_owned(),
            value: Some(Bytes::from_static(value)),
            content_type: content_type.to_owned(),
            version: 2,
            lease_id: Some(u64::MAX),
            ..Entry::default()
        }
    }

    fn parts() -> Vec<TransferPart> {
        let locks =
            [Duration::TtlMs(5), Duration::LeaseId(u64::MAX)].map(|duration| TransferLock {
                name: "l".to_owned(),
                acquire_id: Bytes::from_static(&[7; 16]),
                owner: Some(LockOwner { who: "ann".to_owned(), ..LockOwner::default() }),
                value: Bytes::from_static(b"\xff"),
                duration: Some(duration),
                ..TransferLock::default()
            });
        let entries = [
            entry("application/json", b"{\"a\": 1.50}"),
            entry("application/json", b"null"),
            entry("application/json", b"{\n}"),
            entry("application/json", b" 1"),
            entry("application/json", b"{"),
            entry("application/hal+json; v=1", b"[]"),
            entry("", b"text\n"),
            entry("", b""),
            entry("", b"\xff\x00"),
        ];
        let settings = NamespaceSettings { quota_max_keys: Some(0), ..Default::default() };
        let start = TransferStart {
            format: FORMAT,
            namespace: "n".to_owned(),
            settings: Some(settings),
            revision: 1 << 52,
            ..TransferStart::default()
        };
        let lease = TransferLease { id: u64::MAX, is_chosen: true, ..TransferLease::default() };
        let items =
            TransferItems { leases: vec![lease], locks: locks.into(), entries: entries.into() };
        let end = TransferEnd { entry_count: 9, checksum: 0xabc, ..TransferEnd::default() };
        [Part::Start(start), Part::Items(items), Part::End(end)].map(part).into()
    }

    fn written(parts: &[TransferPart]) -> Vec<u8> {
        let (mut writer, mut out) = (Writer::new(), Vec::new());
        parts.iter().for_each(|part| writer.write(part, &mut out));
        writer.finish(&mut out);
        out
    }

    fn read(lines: &[u8]) -> Result<Vec<TransferPart>, LineError> {
        let mut reader = Reader::new();
        let mut parts = Vec::new();
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            parts.extend(reader.read(line)?);
        }
        reader.finish().map(|()| parts)
    }

    #[test]
    fn what_is_written_comes_back() {
        let parts = parts();
        assert_eq!(read(&written(&parts)), Ok(parts));
        assert_eq!(read(&written(&[])), Ok(Vec::new()));
    }

    #[test]
    fn values_can_be_read_by_people() {
        let lines = String::from_utf8(written(&parts())).expect("it is text");
        for shown in [r#""json":{"a": 1.50}"#, r#""json":null"#, r#""text":"text\n""#] {
            assert!(lines.contains(shown), "{shown} is not in {lines}");
        }
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused() {
        let whole = written(&parts());
        for length in 0..whole.len() - 1 {
            assert!(read(&whole[..length]).is_err(), "{length} bytes are enough");
        }
    }

    #[test]
    fn other_files_are_refused() {
        let error = |lines: &str| read(lines.as_bytes()).expect_err("refused").to_string();
        assert!(error("{\"key\":\"k\"}\n").starts_with("line 1: it is not how a file begins"));
        assert!(error("{\"holdfast\":\"export\",\"format\":2}\n").contains("the format 2"));
        assert!(error("PK").contains("not an object"));
    }
}
