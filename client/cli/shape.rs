//! What entries and events look like, as JSON and as text.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use holdfast_client::{Change, Entry, Event, Metadata, Removal, Timestamp};
use serde::Serialize;

/// A value: text where it can be, Base64 where it cannot.
#[derive(Serialize)]
pub struct ValueShape<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

impl<'a> ValueShape<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        match std::str::from_utf8(bytes) {
            Ok(text) => Self { value: Some(text), value_base64: None },
            Err(_) => Self { value: None, value_base64: Some(BASE64_STANDARD.encode(bytes)) },
        }
    }
}

/// An entry, with its value if that is known.
#[derive(Serialize)]
pub struct EntryShape<'a> {
    key: &'a str,
    #[serde(flatten)]
    value: Option<ValueShape<'a>>,
    content_type: &'a str,
    version: u64,
    create_revision: u64,
    mod_revision: u64,
    created_at_ms: i64,
    updated_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at_ms: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
}

impl<'a> EntryShape<'a> {
    pub fn new(entry: &'a Entry<Bytes>) -> Self {
        Self { value: Some(ValueShape::new(&entry.value)), ..Self::without_value(&entry.metadata) }
    }

    pub fn without_value(metadata: &'a Metadata) -> Self {
        Self {
            key: &metadata.key,
            value: None,
            content_type: &metadata.content_type,
            version: metadata.version,
            create_revision: metadata.create_revision.get(),
            mod_revision: metadata.mod_revision.get(),
            created_at_ms: metadata.created_at.as_millis(),
            updated_at_ms: metadata.updated_at.as_millis(),
            expires_at_ms: metadata.expires_at.map(Timestamp::as_millis),
            lease_id: metadata.lease_id.map(|id| id.to_string()),
        }
    }
}

/// A key asked for, and its entry if there is one.
#[derive(Serialize)]
pub struct LookupShape<'a> {
    found: bool,
    /// The key where no entry has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(flatten)]
    entry: Option<EntryShape<'a>>,
}

impl<'a> LookupShape<'a> {
    pub fn new(key: &'a str, entry: Option<&'a Entry<Bytes>>) -> Self {
        Self {
            found: entry.is_some(),
            key: entry.is_none().then_some(key),
            entry: entry.map(EntryShape::new),
        }
    }
}

/// A change. As text, `REVISION TYPE KEY DETAIL` between tabs.
#[derive(Serialize)]
pub struct EventShape<'a> {
    r#type: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    key: &'a str,
    revision: u64,
    time_ms: i64,
    /// Why the key was removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry: Option<EntryShape<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<EntryShape<'a>>,
    #[serde(skip)]
    event: &'a Event<Bytes>,
}

impl<'a> EventShape<'a> {
    pub fn new(event: &'a Event<Bytes>) -> Self {
        let (r#type, entry) = match &event.change {
            Change::Set(entry) => ("set", Some(EntryShape::new(entry))),
            Change::TtlChanged { metadata, value } => (
                "ttl_changed",
                Some(EntryShape {
                    value: value.as_deref().map(ValueShape::new),
                    ..EntryShape::without_value(metadata)
                }),
            ),
            Change::Deleted => ("delete", None),
            Change::Expired => ("expire", None),
            Change::Cleared => ("clear", None),
            _ => ("unknown", None),
        };
        Self {
            r#type,
            key: &event.key,
            revision: event.revision.get(),
            time_ms: event.time.as_millis(),
            reason: event.removal.and_then(reason),
            entry,
            previous: event.previous.as_ref().map(EntryShape::new),
            event,
        }
    }
}

impl fmt::Display for EventShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Event { key, revision, time, change, previous, .. } = self.event;
        let key = printable(key.as_bytes());
        match change {
            Change::Set(entry) => {
                write!(f, "{revision}\tSET\t{key}\t{}", printable(&entry.value))?;
                match previous {
                    Some(previous) => write!(f, "\twas {}", printable(&previous.value)),
                    None => Ok(()),
                }
            }
            Change::TtlChanged { metadata, .. } => {
                let ends = ends(metadata, *time);
                write!(f, "{revision}\tTTL\t{key}\t{ends}")
            }
            Change::Deleted => removal(f, self, "DELETE"),
            Change::Expired => removal(f, self, "EXPIRE"),
            Change::Cleared => write!(f, "{revision}\tCLEAR\t(all keys)"),
            _ => write!(f, "{revision}\tUNKNOWN\t{key}"),
        }
    }
}

fn removal(f: &mut fmt::Formatter<'_>, shape: &EventShape<'_>, name: &str) -> fmt::Result {
    let Event { key, revision, previous, removal, .. } = shape.event;
    write!(f, "{revision}\t{name}\t{}", printable(key.as_bytes()))?;
    if let Some(previous) = previous {
        write!(f, "\t{}", printable(&previous.value))?;
    }
    match removal {
        Some(Removal::Lease) => f.write_str("\twith its lease"),
        Some(Removal::Revoked) => f.write_str("\tits lease was revoked"),
        _ => Ok(()),
    }
}

fn reason(removal: Removal) -> Option<&'static str> {
    Some(match removal {
        Removal::Deleted => "deleted",
        Removal::Ttl => "ttl",
        Removal::Lease => "lease",
        Removal::Revoked => "revoked",
        _ => return None,
    })
}

/// When an entry ends, seen from a time.
fn ends(metadata: &Metadata, now: Timestamp) -> String {
    match (metadata.expires_at, metadata.lease_id) {
        (_, Some(lease)) => format!("ends with the lease {lease}"),
        (Some(at), None) => format!("ends in {}", in_words(at.saturating_duration_since(now))),
        (None, None) => "never ends".to_owned(),
    }
}

/// Milliseconds, as JSON has durations.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// A duration, such as `1h 30m`.
pub fn in_words(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// A time, such as `2026-01-31T12:00:00.000Z`.
pub fn rfc3339(time: Timestamp) -> String {
    // What lies outside the years 1970 to 9999 has no such form.
    const END: i64 = 253_402_300_800_000;
    match time.as_millis() {
        0..END => humantime::format_rfc3339_millis(SystemTime::from(time)).to_string(),
        millis => format!("{millis} ms"),
    }
}

/// `KEY VALUE` between tabs, as a line of text.
pub fn key_and_value(entry: &Entry<Bytes>) -> String {
    let key = printable(entry.key().as_bytes());
    format!("{key}\t{}", printable(&entry.value))
}

/// Bytes as text on one line that does nothing to a terminal.
pub fn printable(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => Cow::Borrowed(text),
        _ => Cow::Owned(escaped(bytes)),
    }
}

fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                c if c.is_control() => push_hex(&mut text, u32::from(c)),
                c => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            push_hex(&mut text, u32::from(*byte));
        }
    }
    text
}

fn push_hex(text: &mut String, number: u32) {
    write!(text, "\\x{number:02x}").expect("a string takes whatever is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stays_on_its_line_and_leaves_the_terminal_alone() {
        assert_eq!(printable("grün ü\\n".as_bytes()), "grün ü\\n");
        assert_eq!(printable(b"a\nb\tc\x1b[1m\xff"), "a\\nb\\tc\\x1b[1m\\xff");
    }

    #[test]
    fn a_value_is_text_or_base64() {
        let json = |bytes| serde_json::to_string(&ValueShape::new(bytes)).expect("JSON");
        assert_eq!(json(b"a\nb"), r#"{"value":"a\nb"}"#);
        assert_eq!(json(b""), r#"{"value":""}"#);
        assert_eq!(json(b"\xff\x00"), r#"{"value_base64":"/wA="}"#);
    }
}
