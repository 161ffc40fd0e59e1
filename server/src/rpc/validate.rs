//! Checks of fields, before anything is done. What is fine comes out as the store's own word for it.

use std::{collections::HashMap, fmt::Display, time::Duration};

use bytes::Bytes;
use holdfast_proto::v1::{self, ErrorReason as Reason};

use super::{Limits, path::Path, status::Failure};
use crate::{
    backend::{ContentType, Key, NamespaceName, Revision},
    store::{
        MAX_REVISION_KEYS, Owner,
        command::{Condition, Expiry},
        glob::GlobError,
        keys,
        selector::Selector,
    },
};

/// The longest key, in bytes; also the longest prefix, pattern and end of a range.
pub(super) const MAX_KEY_BYTES: usize = 1024;
/// The most parts of a batch or of a branch of a transaction.
pub(super) const MAX_BATCH: usize = 1024;
/// The longest name of a namespace.
pub(super) const MAX_NAMESPACE_BYTES: usize = 128;

const MAX_CONTENT_TYPE_BYTES: usize = 128;
/// The longest field of an owner of a lock, and the longest reason to break one.
const MAX_OWNER_BYTES: usize = 1024;
const MAX_LOCK_VALUE_BYTES: usize = 4096;
/// 24 hours.
const MAX_WAIT_MS: u64 = 24 * 3_600_000;
const PROGRESS_INTERVAL_MS: u64 = 10_000;
/// 100 years.
const MAX_TTL_MS: u64 = 100 * 365 * 24 * 3_600_000;
/// How many characters of a bad text an error shows.
const SHOWN_CHARS: usize = 40;

/// Checks one request. Most checks need the request alone; that a moment does not lie too far ahead needs the
/// store's clock, which is asked only where a request names one.
#[derive(Debug)]
pub(super) struct Checks {
    limits: Limits,
    latest: Option<Latest>,
}

/// The latest moment that a request names, and where.
#[derive(Debug)]
pub(super) struct Latest {
    at_ms: i64,
    field: String,
}

impl Latest {
    /// Refuses a moment that lies too far after `now_ms`.
    pub fn check(&self, now_ms: i64) -> Result<(), Failure> {
        if self.at_ms <= now_ms.saturating_add_unsigned(MAX_TTL_MS) {
            return Ok(());
        }
        let problem = format!(
            "{} lies more than 100 years ahead; use `never` for what is not to end",
            self.at_ms
        );
        Err(Failure::invalid(Reason::InvalidExpiry, &self.field, problem))
    }
}

impl Checks {
    /// Checks against these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, latest: None }
    }

    /// What is left to be checked against the clock.
    pub fn into_latest(self) -> Option<Latest> {
        self.latest
    }

    /// A value. It is copied out of the buffer that the request came in, which may be much larger.
    pub fn value(&self, value: &[u8], at: Path) -> Result<Bytes, Failure> {
        let (length, limit) = (value.len(), self.limits.max_value_bytes);
        if length > limit {
            let problem =
                format!("has {length} bytes, at most {limit} are allowed; store it in parts");
            return Err(Failure::invalid(Reason::InvalidValue, at, problem));
        }
        Ok(Bytes::copy_from_slice(value))
    }

    /// An expiry; absent, it is the namespace's default.
    pub fn expiry(&mut self, expiry: Option<v1::Expiry>, at: Path) -> Result<Expiry, Failure> {
        match expiry {
            Some(expiry) => self.present_expiry(expiry, at),
            None => Ok(Expiry::Default),
        }
    }

    /// An expiry for an entry that has one already: it must be there, and something else than that.
    pub fn new_expiry(&mut self, expiry: Option<v1::Expiry>, at: Path) -> Result<Expiry, Failure> {
        let Some(expiry) = expiry else {
            let problem = "is missing; set `ttl_ms`, `expires_at_ms`, `lease_id` or `never`";
            return Err(Failure::invalid(Reason::InvalidExpiry, at, problem));
        };
        match self.present_expiry(expiry, at)? {
            Expiry::Keep => {
                let problem = "would change nothing here; set `ttl_ms`, `expires_at_ms`, `lease_id` or \
                               `never`";
                Err(Failure::invalid(Reason::InvalidExpiry, at.field("keep"), problem))
            }
            expiry => Ok(expiry),
        }
    }

    fn present_expiry(&mut self, expiry: v1::Expiry, at: Path) -> Result<Expiry, Failure> {
        use v1::expiry::Kind;
        let invalid = |field: Path, problem: String| {
            Err(Failure::invalid(Reason::InvalidExpiry, field, problem))
        };
        match expiry.kind {
            None => invalid(at, "is empty; set one of its kinds, or leave it out".into()),
            Some(Kind::TtlMs(0)) => {
                let problem = "is 0, at least 1 is needed; delete the key to end it at once";
                invalid(at.field("ttl_ms"), problem.into())
            }
            Some(Kind::TtlMs(ttl_ms)) if ttl_ms > MAX_TTL_MS => {
                let problem = format!(
                    "is {ttl_ms}, at most {MAX_TTL_MS} (100 years) are allowed; use `never` for what \
                     is not to end"
                );
                invalid(at.field("ttl_ms"), problem)
            }
            Some(Kind::TtlMs(ttl_ms)) => Ok(Expiry::Ttl(ttl_ms)),
            Some(Kind::ExpiresAtMs(at_ms)) if at_ms < 0 => {
                let problem =
                    format!("is {at_ms}; it counts from the Unix epoch and is not negative");
                invalid(at.field("expires_at_ms"), problem)
            }
            Some(Kind::ExpiresAtMs(at_ms)) => {
                if self.latest.as_ref().is_none_or(|latest| latest.at_ms < at_ms) {
                    let field = at.field("expires_at_ms").to_string();
                    self.latest = Some(Latest { at_ms, field });
                }
                Ok(Expiry::At(at_ms))
            }
            Some(Kind::Keep(_)) => Ok(Expiry::Keep),
            Some(Kind::Never(_)) => Ok(Expiry::Never),
            Some(Kind::LeaseId(id)) => {
                lease(id, Reason::InvalidExpiry, at.field("lease_id")).map(Expiry::Lease)
            }
        }
    }
}

/// The name of a namespace.
pub(super) fn namespace(name: &str) -> Result<NamespaceName, Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._:/-".contains(&byte);
    let problem = if name.is_empty() {
        "is empty".into()
    } else if name.len() > MAX_NAMESPACE_BYTES {
        format!("{} has {} bytes", shown(name), name.len())
    } else if name.starts_with('_') {
        format!("{} begins with `_`", shown(name))
    } else if let Some(char) = name.chars().find(|char| !char.is_ascii() || !allowed(*char as u8)) {
        format!("{} has {char:?} in it", shown(name))
    } else {
        return Ok(NamespaceName::new(name));
    };
    let rule = "a name is 1 to 128 bytes of `A-Z a-z 0-9 . _ : / -`, not beginning with `_`";
    let problem = format!("{problem}; {rule}");
    Err(Failure::invalid(Reason::InvalidNamespace, Path::of("namespace"), problem))
}

/// A key.
pub(super) fn key(key: &str, at: Path) -> Result<Key, Failure> {
    match problem_of_name(key) {
        None => Ok(Key::new(key.as_bytes())),
        Some(problem) => Err(Failure::invalid(Reason::InvalidKey, at, problem)),
    }
}

/// The name of a lock, as the key that the lock has.
pub(super) fn lock(name: &str, at: Path) -> Result<Key, Failure> {
    match problem_of_name(name) {
        None => Ok(keys::lock(name)),
        Some(problem) => Err(Failure::invalid(Reason::InvalidLock, at, problem)),
    }
}

/// What names of locks begin with; empty, all do.
pub(super) fn lock_prefix(prefix: &str, at: Path) -> Result<(), Failure> {
    at_most(prefix.len(), MAX_KEY_BYTES, Reason::InvalidLock, at)
}

/// Who wants a lock; absent, nothing is said.
pub(super) fn owner(owner: Option<v1::LockOwner>, at: Path) -> Result<Owner, Failure> {
    let v1::LockOwner { id, who, reason, operation, client_version } = owner.unwrap_or_default();
    let fields = [
        ("id", &id),
        ("who", &who),
        ("reason", &reason),
        ("operation", &operation),
        ("client_version", &client_version),
    ];
    for (name, text) in fields {
        at_most(text.len(), MAX_OWNER_BYTES, Reason::InvalidLock, at.field(name))?;
    }
    Ok(Owner { id, who, reason, operation, client_version })
}

/// What a lock shows. It is copied out of the buffer that the request came in.
pub(super) fn lock_value(value: &[u8], at: Path) -> Result<Bytes, Failure> {
    at_most(value.len(), MAX_LOCK_VALUE_BYTES, Reason::InvalidLock, at)?;
    Ok(Bytes::copy_from_slice(value))
}

/// What an attempt to get a lock is known by.
pub(super) fn acquire_id(id: &[u8], at: Path) -> Result<[u8; 16], Failure> {
    id.try_into().map_err(|_| {
        let problem = format!(
            "has {} bytes, it must be 16, chosen at random for every attempt to get a lock",
            id.len()
        );
        Failure::invalid(Reason::InvalidLock, at, problem)
    })
}

/// Why a lock is taken away.
pub(super) fn break_reason(reason: &str, at: Path) -> Result<(), Failure> {
    at_most(reason.len(), MAX_OWNER_BYTES, Reason::InvalidField, at)
}

/// How long to wait for a lock.
pub(super) fn wait(wait_ms: u64, at: Path) -> Result<Duration, Failure> {
    within(wait_ms, 0, MAX_WAIT_MS, at).map(Duration::from_millis)
}

/// The TTL of a hold or of a lease.
pub(super) fn ttl(ttl_ms: u64, at: Path) -> Result<u64, Failure> {
    if (1..=MAX_TTL_MS).contains(&ttl_ms) {
        return Ok(ttl_ms);
    }
    let problem = format!("is {ttl_ms}, 1 to {MAX_TTL_MS} (100 years) are allowed");
    Err(Failure::invalid(Reason::InvalidExpiry, at, problem))
}

/// The id of a lease.
pub(super) fn lease(id: u64, reason: Reason, at: Path) -> Result<u64, Failure> {
    if id != 0 {
        return Ok(id);
    }
    Err(Failure::invalid(reason, at, "is 0, which no lease has; name one that was granted"))
}

/// After how long a watch is to say how far it has come.
pub(super) fn progress_interval(interval_ms: Option<u64>) -> Result<Duration, Failure> {
    let interval_ms = interval_ms.unwrap_or(PROGRESS_INTERVAL_MS);
    let at = Path::of("progress_interval_ms");
    within(interval_ms, 100, 3_600_000, at).map(Duration::from_millis)
}

/// The keys of a batch: some, but not too many, and none twice.
pub(super) fn keys(keys: &[String], name: &'static str) -> Result<Vec<Key>, Failure> {
    batch_size(keys.len(), name)?;
    let checked = keys.iter().enumerate().map(|(index, text)| key(text, Path::item(name, index)));
    let checked = checked.collect::<Result<_, _>>()?;
    distinct(keys.iter().map(String::as_str), name)?;
    Ok(checked)
}

/// The number of parts of a batch.
pub(super) fn batch_size(length: usize, name: &'static str) -> Result<(), Failure> {
    if (1..=MAX_BATCH).contains(&length) {
        return Ok(());
    }
    let problem = format!("has {length}, 1 to {MAX_BATCH} are allowed; send several batches");
    Err(Failure::invalid(Reason::InvalidBatch, Path::of(name), problem))
}

/// That no key of a batch is there twice.
pub(super) fn distinct<'a>(
    keys: impl ExactSizeIterator<Item = &'a str>,
    name: &'static str,
) -> Result<(), Failure> {
    let mut seen = HashMap::with_capacity(keys.len());
    for (index, key) in keys.enumerate() {
        if let Some(first) = seen.insert(key, index) {
            let problem =
                format!("has the key {} of {name}[{first}] again; name each once", shown(key));
            return Err(Failure::invalid(Reason::InvalidBatch, Path::item(name, index), problem));
        }
    }
    Ok(())
}

/// A content type.
pub(super) fn content_type(content_type: &str, at: Path) -> Result<ContentType, Failure> {
    let problem = if content_type.len() > MAX_CONTENT_TYPE_BYTES {
        format!("has {} bytes", content_type.len())
    } else if content_type.chars().any(char::is_control) {
        format!("{} has control characters in it", shown(content_type))
    } else {
        return Ok(content_type.into());
    };
    let problem = format!(
        "{problem}; it is at most {MAX_CONTENT_TYPE_BYTES} bytes without control characters, such as \
         `application/json`"
    );
    Err(Failure::invalid(Reason::InvalidContentType, at, problem))
}

/// A condition; absent, there is none.
pub(super) fn condition(condition: Option<v1::Condition>, at: Path) -> Result<Condition, Failure> {
    use v1::condition::Kind;
    let Some(condition) = condition else {
        return Ok(Condition::None);
    };
    match condition.kind {
        Some(Kind::Absent(_)) => Ok(Condition::Absent),
        Some(Kind::Present(_)) => Ok(Condition::Present),
        Some(Kind::ModRevision(revision)) => Ok(Condition::ModRevision(Revision(revision))),
        None => {
            let problem = "is empty; set `absent`, `present` or `mod_revision`, or leave it out";
            Err(Failure::invalid(Reason::InvalidCondition, at, problem))
        }
    }
}

/// A selector.
pub(super) fn selector(selector: Option<&v1::Selector>, at: Path) -> Result<Selector, Failure> {
    use v1::selector::Kind;
    let Some(kind) = selector.and_then(|selector| selector.kind.as_ref()) else {
        let problem = "is missing; set one of `key`, `prefix`, `range`, `glob` and `all`";
        return Err(Failure::invalid(Reason::InvalidSelector, at, problem));
    };
    match kind {
        Kind::Key(text) => Ok(Selector::key(&key(text, at.field("key"))?)),
        Kind::Prefix(text) => prefix(text, at.field("prefix")),
        Kind::Range(range) => key_range(range, at.field("range")),
        Kind::Glob(pattern) => glob(pattern, at.field("glob")),
        Kind::All(_) => Ok(Selector::all()),
    }
}

/// A number that counts something: `default` where it is 0, and at most `max`.
pub(super) fn limit(value: u32, default: u32, max: u32, at: Path) -> Result<usize, Failure> {
    match value {
        0 => Ok(default as usize),
        _ => within(value, 1, max, at).map(|value| value as usize),
    }
}

/// How many keys to delete.
pub(super) fn delete_limit(limit: Option<u32>, at: Path) -> Result<usize, Failure> {
    let max = MAX_REVISION_KEYS as u32;
    within(limit.unwrap_or(max), 1, max, at).map(|limit| limit as usize)
}

/// A number between two others, both included.
pub(super) fn within<T: PartialOrd + Display>(
    value: T,
    min: T,
    max: T,
    at: Path,
) -> Result<T, Failure> {
    if (&min..=&max).contains(&&value) {
        return Ok(value);
    }
    let problem = format!("is {value}, {min} to {max} are allowed");
    Err(Failure::invalid(Reason::InvalidField, at, problem))
}

/// A text as an error shows it: quoted, and not too long.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{:?}…", &text[..end]),
        None => format!("{text:?}"),
    }
}

/// What is wrong with a key, or the name of a lock.
fn problem_of_name(name: &str) -> Option<String> {
    let problem = if name.is_empty() {
        "is empty".into()
    } else if name.len() > MAX_KEY_BYTES {
        format!("{} has {} bytes", shown(name), name.len())
    } else if name.as_bytes().contains(&0) {
        format!("{} has a NUL in it", shown(name))
    } else {
        return None;
    };
    Some(format!("{problem}; 1 to {MAX_KEY_BYTES} bytes of UTF-8 without NUL are allowed"))
}

fn at_most(length: usize, limit: usize, reason: Reason, at: Path) -> Result<(), Failure> {
    if length <= limit {
        return Ok(());
    }
    let problem = format!("has {length} bytes, at most {limit} are allowed");
    Err(Failure::invalid(reason, at, problem))
}

fn prefix(prefix: &str, at: Path) -> Result<Selector, Failure> {
    let problem = if prefix.is_empty() {
        "is empty; use `all` for all keys".into()
    } else if prefix.len() > MAX_KEY_BYTES {
        format!("{} has {} bytes, at most {MAX_KEY_BYTES} are allowed", shown(prefix), prefix.len())
    } else if prefix.as_bytes().contains(&0) {
        format!("{} has a NUL in it, which no key has", shown(prefix))
    } else {
        return Ok(Selector::prefix(prefix));
    };
    Err(Failure::invalid(Reason::InvalidSelector, at, problem))
}

fn key_range(range: &v1::selector::Range, at: Path) -> Result<Selector, Failure> {
    let (start, end) = (&*range.start, range.end.as_deref());
    for (bound, name) in [(Some(start), "start"), (end, "end")] {
        let length = bound.map_or(0, <[u8]>::len);
        if length > MAX_KEY_BYTES {
            let problem = format!("has {length} bytes, at most {MAX_KEY_BYTES} are allowed");
            return Err(Failure::invalid(Reason::InvalidSelector, at.field(name), problem));
        }
    }
    match end {
        Some(end) if end < start => {
            let problem = "lies before `start`; leave it out for a range to the last key";
            Err(Failure::invalid(Reason::InvalidSelector, at.field("end"), problem))
        }
        _ => Ok(Selector::range(start, end)),
    }
}

fn glob(pattern: &str, at: Path) -> Result<Selector, Failure> {
    let length = pattern.len();
    if !(1..=MAX_KEY_BYTES).contains(&length) {
        let problem = format!("has {length} bytes, 1 to {MAX_KEY_BYTES} are allowed");
        return Err(Failure::invalid(Reason::InvalidGlob, at, problem));
    }
    if pattern.contains('\0') {
        let problem = format!("{} has a NUL in it, which no key has", shown(pattern));
        return Err(Failure::invalid(Reason::InvalidGlob, at, problem));
    }
    Selector::glob(pattern).map_err(|error| {
        let remedy = match error {
            GlobError::UnclosedClass => "close it, or write `\\[` for a bracket",
            GlobError::DanglingEscape => "write `\\\\` for a backslash",
        };
        let problem = format!("{}: {error}; {remedy}", shown(pattern));
        Failure::invalid(Reason::InvalidGlob, at, problem)
    })
}
