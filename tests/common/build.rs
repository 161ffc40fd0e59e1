//! Requests and their parts, tersely. What a case does not speak of stays at its default:
//! `SetRequest { expiry: ttl(50), ..set("k", "v") }`.

use holdfast_proto::v1::{compare::Operand, *};
use prost::bytes::Bytes;

fn text(value: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(value.as_ref())
}

pub fn get(key: &str) -> GetRequest {
    GetRequest { key: key.to_owned(), ..Default::default() }
}

pub fn get_at(key: &str, revision: u64) -> GetRequest {
    GetRequest { at_revision: Some(revision), ..get(key) }
}

pub fn set(key: &str, value: impl AsRef<[u8]>) -> SetRequest {
    SetRequest { key: key.to_owned(), value: text(value), ..Default::default() }
}

pub fn delete(key: &str) -> DeleteRequest {
    DeleteRequest { key: key.to_owned(), ..Default::default() }
}

pub fn exists(key: &str) -> ExistsRequest {
    ExistsRequest { key: key.to_owned(), ..Default::default() }
}

pub fn get_ttl(key: &str) -> GetTtlRequest {
    GetTtlRequest { key: key.to_owned(), ..Default::default() }
}

pub fn set_ttl(key: &str, expiry: Option<Expiry>) -> SetTtlRequest {
    SetTtlRequest { key: key.to_owned(), expiry, ..Default::default() }
}

pub fn increment(key: &str, delta: i64) -> IncrementRequest {
    IncrementRequest { key: key.to_owned(), delta, ..Default::default() }
}

pub fn list(selector: Selector) -> ListRequest {
    ListRequest { selector: Some(selector), ..Default::default() }
}

pub fn scan(selector: Selector) -> ScanRequest {
    ScanRequest { selector: Some(selector), ..Default::default() }
}

pub fn count(selector: Selector) -> CountRequest {
    CountRequest { selector: Some(selector), ..Default::default() }
}

pub fn history(key: &str) -> HistoryRequest {
    HistoryRequest { key: key.to_owned(), ..Default::default() }
}

pub fn delete_range(selector: Selector) -> DeleteRangeRequest {
    DeleteRangeRequest { selector: Some(selector), ..Default::default() }
}

pub fn batch_get<K: AsRef<str>>(keys: &[K]) -> BatchGetRequest {
    BatchGetRequest { keys: strings(keys), ..Default::default() }
}

pub fn item(key: &str, value: impl AsRef<[u8]>) -> batch_set_request::Item {
    batch_set_request::Item { key: key.to_owned(), value: text(value), ..Default::default() }
}

pub fn batch_set(items: impl IntoIterator<Item = batch_set_request::Item>) -> BatchSetRequest {
    BatchSetRequest { items: items.into_iter().collect(), ..Default::default() }
}

pub fn batch_delete<K: AsRef<str>>(keys: &[K]) -> BatchDeleteRequest {
    BatchDeleteRequest { keys: strings(keys), ..Default::default() }
}

fn strings<K: AsRef<str>>(keys: &[K]) -> Vec<String> {
    keys.iter().map(|key| key.as_ref().to_owned()).collect()
}

pub fn update(settings: NamespaceSettings) -> UpdateNamespaceRequest {
    UpdateNamespaceRequest { settings: Some(settings), ..Default::default() }
}

pub fn compact(through_revision: u64) -> CompactRequest {
    CompactRequest { through_revision, ..Default::default() }
}

pub fn ttl(ms: u64) -> Option<Expiry> {
    expiry(expiry::Kind::TtlMs(ms))
}

pub fn expires_at(ms: i64) -> Option<Expiry> {
    expiry(expiry::Kind::ExpiresAtMs(ms))
}

pub fn keep() -> Option<Expiry> {
    expiry(expiry::Kind::Keep(expiry::Keep {}))
}

pub fn never() -> Option<Expiry> {
    expiry(expiry::Kind::Never(expiry::Never {}))
}

fn expiry(kind: expiry::Kind) -> Option<Expiry> {
    Some(Expiry { kind: Some(kind) })
}

pub fn absent() -> Option<Condition> {
    condition(condition::Kind::Absent(condition::Absent {}))
}

pub fn present() -> Option<Condition> {
    condition(condition::Kind::Present(condition::Present {}))
}

pub fn at_mod(revision: u64) -> Option<Condition> {
    condition(condition::Kind::ModRevision(revision))
}

fn condition(kind: condition::Kind) -> Option<Condition> {
    Some(Condition { kind: Some(kind) })
}

pub fn key(key: &str) -> Selector {
    selector(selector::Kind::Key(key.to_owned()))
}

pub fn prefix(prefix: &str) -> Selector {
    selector(selector::Kind::Prefix(prefix.to_owned()))
}

pub fn range(start: impl AsRef<[u8]>, end: Option<&[u8]>) -> Selector {
    selector(selector::Kind::Range(selector::Range { start: text(start), end: end.map(text) }))
}

pub fn glob(pattern: &str) -> Selector {
    selector(selector::Kind::Glob(pattern.to_owned()))
}

pub fn all() -> Selector {
    selector(selector::Kind::All(selector::All {}))
}

fn selector(kind: selector::Kind) -> Selector {
    Selector { kind: Some(kind) }
}

pub fn lineage_is(lineage: &str) -> Option<WriteOptions> {
    Some(WriteOptions { expected_lineage: Some(lineage.to_owned()), ..Default::default() })
}

/// A transaction without compares.
pub fn transact(then: impl IntoIterator<Item = Operation>) -> TransactRequest {
    TransactRequest { then: then.into_iter().collect(), ..Default::default() }
}

pub fn compare(key: &str, comparison: Comparison, operand: Operand) -> Compare {
    Compare { key: key.to_owned(), comparison: comparison.into(), operand: Some(operand) }
}

/// Steps of transactions.
pub mod op {
    use holdfast_proto::v1::{operation::Kind, *};

    pub fn get(key: &str) -> Operation {
        step(Kind::Get(operation::Get { key: key.to_owned() }))
    }

    pub fn set(key: &str, value: impl AsRef<[u8]>) -> Operation {
        set_with(key, value, None)
    }

    pub fn set_with(key: &str, value: impl AsRef<[u8]>, expiry: Option<Expiry>) -> Operation {
        step(Kind::Set(operation::Set {
            key: key.to_owned(),
            value: super::text(value),
            expiry,
            return_previous: true,
            ..Default::default()
        }))
    }

    pub fn delete(key: &str) -> Operation {
        step(Kind::Delete(operation::Delete { key: key.to_owned(), return_previous: true }))
    }

    pub fn delete_range(selector: Selector, limit: Option<u32>) -> Operation {
        step(Kind::DeleteRange(operation::DeleteRange { selector: Some(selector), limit }))
    }

    pub fn set_ttl(key: &str, expiry: Option<Expiry>) -> Operation {
        step(Kind::SetTtl(operation::SetTtl { key: key.to_owned(), expiry }))
    }

    pub fn increment(key: &str, delta: i64) -> Operation {
        step(Kind::Increment(operation::Increment {
            key: key.to_owned(),
            delta,
            ..Default::default()
        }))
    }

    pub fn list(selector: Selector) -> Operation {
        step(Kind::List(operation::List { selector: Some(selector), ..Default::default() }))
    }

    fn step(kind: Kind) -> Operation {
        Operation { kind: Some(kind) }
    }
}

/// A watch that says how far it has come ten times a second.
pub fn watch(selector: Selector) -> WatchRequest {
    WatchRequest {
        selectors: vec![selector],
        progress_interval_ms: Some(100),
        ..Default::default()
    }
}

pub fn watch_after(selector: Selector, revision: u64) -> WatchRequest {
    WatchRequest { start: after(revision, false), ..watch(selector) }
}

pub fn watch_initial(selector: Selector) -> WatchRequest {
    let initial = watch_request::Initial {};
    WatchRequest { start: Some(watch_request::Start::Initial(initial)), ..watch(selector) }
}

pub fn after(revision: u64, or_initial: bool) -> Option<watch_request::Start> {
    let after = watch_request::AfterRevision { revision, or_initial };
    Some(watch_request::Start::AfterRevision(after))
}
