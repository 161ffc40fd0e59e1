//! Transactions as people write them down.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use holdfast_client::{
    Compare, CompareProperty, Expiry, IntoOperation as _, LeaseId, Op, Operation, Raw, Revision,
    Selector, Token,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{failure::Failure, parse};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Draft {
    #[serde(default)]
    pub compare: Vec<CompareDraft>,
    #[serde(default)]
    pub then: Vec<OperationDraft>,
    #[serde(default)]
    pub otherwise: Vec<OperationDraft>,
}

impl Draft {
    /// The error says line and column.
    pub fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareDraft {
    key: Option<String>,
    lock: Option<String>,
    exists: Option<bool>,
    version: Option<Test<u64>>,
    mod_revision: Option<Test<u64>>,
    create_revision: Option<Test<u64>>,
    value: Option<Test<String>>,
    value_base64: Option<Test<Base64>>,
    lease: Option<Test<LeaseNumber>>,
    token: Option<Test<u64>>,
}

/// A bare value stands for equality.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged, expecting = "expected a value, or {\"=\": value}, or the same with !=, < or >")]
enum Test<T> {
    Bare(T),
    Signed(SignedTest<T>),
}

#[derive(Clone, Debug, Deserialize)]
enum SignedTest<T> {
    #[serde(rename = "=")]
    Equal(T),
    #[serde(rename = "!=")]
    NotEqual(T),
    #[serde(rename = "<")]
    Less(T),
    #[serde(rename = ">")]
    Greater(T),
}

impl CompareDraft {
    /// The key or the lock that it is about.
    pub fn name(&self) -> &str {
        self.key.as_deref().or(self.lock.as_deref()).unwrap_or_default()
    }

    pub fn to_compare(&self) -> Result<Compare, Failure> {
        let compares = match (&self.key, &self.lock) {
            (Some(key), None) => self.of_key(key),
            (None, Some(lock)) => self.of_lock(lock),
            _ => return Err(Failure::usage("a compare must name one of key and lock")),
        };
        let mut named = compares.into_iter().flatten();
        match (named.next(), named.next()) {
            (Some(compare), None) => Ok(compare),
            _ => Err(Failure::usage(format!(
                "the compare of {:?} must name one of exists, version, mod_revision, create_revision, value, \
                 value_base64 and lease of a key, or the token of a lock",
                self.name()
            ))),
        }
    }

    fn of_key(&self, key: &str) -> Vec<Option<Compare>> {
        let key = || Compare::key(key);
        let exists =
            self.exists.map(|exists| if exists { key().exists() } else { key().missing() });
        let revision = Revision::new;
        vec![
            exists,
            tested(&self.version, key().version(), |version| version),
            tested(&self.mod_revision, key().mod_revision(), revision),
            tested(&self.create_revision, key().create_revision(), revision),
            tested(&self.value, key().value(), String::into_bytes),
            tested(&self.value_base64, key().value(), |value| value.0),
            tested(&self.lease, key().lease(), |lease| LeaseId::new(lease.0)),
        ]
    }

    fn of_lock(&self, lock: &str) -> Vec<Option<Compare>> {
        vec![tested(&self.token, Compare::lock(lock).token(), Token::new)]
    }
}

fn tested<T: Clone, U: Into<V>, V>(
    test: &Option<Test<T>>,
    property: CompareProperty<V>,
    convert: fn(T) -> U,
) -> Option<Compare> {
    Some(match test.clone()? {
        Test::Bare(value) | Test::Signed(SignedTest::Equal(value)) => {
            property.equal_to(convert(value))
        }
        Test::Signed(SignedTest::NotEqual(value)) => property.not_equal_to(convert(value)),
        Test::Signed(SignedTest::Less(value)) => property.less_than(convert(value)),
        Test::Signed(SignedTest::Greater(value)) => property.greater_than(convert(value)),
    })
}

/// An operation by the name of the command that does the same.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationDraft {
    Get(GetDraft),
    Set(SetDraft),
    Del(DelDraft),
    Expire(ExpireDraft),
    Incr(IncrDraft),
    List(ListDraft),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GetDraft {
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetDraft {
    key: String,
    value: Option<String>,
    value_base64: Option<Base64>,
    #[serde(default, deserialize_with = "expiry_or_keep")]
    ttl: Option<Expiry>,
    lease: Option<LeaseNumber>,
    #[serde(default)]
    content_type: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DelDraft {
    key: Option<String>,
    prefix: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpireDraft {
    key: String,
    #[serde(deserialize_with = "expiry")]
    ttl: Expiry,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncrDraft {
    key: String,
    #[serde(default = "one")]
    delta: i64,
    #[serde(default)]
    initial: i64,
    #[serde(default, deserialize_with = "duration")]
    ttl: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListDraft {
    glob: Option<String>,
    prefix: Option<String>,
    #[serde(default)]
    keys: bool,
    #[serde(default)]
    reverse: bool,
    limit: Option<u32>,
}

impl OperationDraft {
    /// Its name and what it is about, for messages.
    pub fn name(&self) -> (&'static str, &str) {
        match self {
            Self::Get(get) => ("get", &get.key),
            Self::Set(set) => ("set", &set.key),
            Self::Del(del) => {
                let what = del.key.as_deref().or(del.prefix.as_deref());
                ("del", what.unwrap_or_default())
            }
            Self::Expire(expire) => ("expire", &expire.key),
            Self::Incr(incr) => ("incr", &incr.key),
            Self::List(list) => {
                let what = list.glob.as_deref().or(list.prefix.as_deref());
                ("list", what.unwrap_or("*"))
            }
        }
    }

    pub fn to_operation(&self) -> Result<Operation, Failure> {
        let codec = Raw::with_content_type("");
        Ok(match self {
            Self::Get(get) => Op::get(&get.key).into_operation(&codec)?,
            Self::Set(set) => set.to_operation(&codec)?,
            Self::Del(del) => del.to_operation(&codec)?,
            Self::Expire(expire) => Op::set_ttl(&expire.key, expire.ttl).into_operation(&codec)?,
            Self::Incr(incr) => {
                let mut op = Op::increment(&incr.key, incr.delta).initial(incr.initial);
                if let Some(ttl) = incr.ttl {
                    op = op.ttl(ttl);
                }
                op.into_operation(&codec)?
            }
            Self::List(list) => list.to_operation(&codec)?,
        })
    }
}

impl SetDraft {
    fn to_operation(&self, codec: &Raw) -> Result<Operation, Failure> {
        let value = match (&self.value, &self.value_base64) {
            (Some(value), None) => value.as_bytes(),
            (None, Some(Base64(value))) => value,
            _ => {
                return Err(Failure::usage(format!(
                    "the set of the key {:?} must have one of value and value_base64",
                    self.key
                )));
            }
        };
        let mut op = Op::set(&self.key, value).content_type(&self.content_type);
        op = match (self.ttl, self.lease) {
            (None, None) => op,
            (Some(expiry), None) => op.expiry(expiry),
            (None, Some(LeaseNumber(lease))) => op.lease(lease),
            (Some(_), Some(_)) => {
                return Err(Failure::usage(format!(
                    "the set of the key {:?} has one of ttl and lease at the most",
                    self.key
                )));
            }
        };
        Ok(op.into_operation(codec)?)
    }
}

impl DelDraft {
    fn to_operation(&self, codec: &Raw) -> Result<Operation, Failure> {
        match (&self.key, &self.prefix) {
            (Some(key), None) => Ok(Op::delete(key).into_operation(codec)?),
            (None, Some(prefix)) => {
                let op = Op::delete_range(Selector::prefix(prefix));
                Ok(op.into_operation(codec)?)
            }
            _ => Err(Failure::usage("a del must have one of key and prefix")),
        }
    }
}

impl ListDraft {
    fn to_operation(&self, codec: &Raw) -> Result<Operation, Failure> {
        if self.glob.is_some() && self.prefix.is_some() {
            return Err(Failure::usage("a list has one of glob and prefix at the most"));
        }
        let mut op = Op::list(parse::selector(self.glob.clone(), self.prefix.clone()));
        if self.keys {
            op = op.keys_only();
        }
        if self.reverse {
            op = op.reverse();
        }
        if let Some(limit) = self.limit {
            op = op.limit(limit);
        }
        Ok(op.into_operation(codec)?)
    }
}

#[derive(Clone, Debug)]
struct Base64(Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match BASE64_STANDARD.decode(&text) {
            Ok(bytes) => Ok(Self(bytes)),
            Err(error) => Err(D::Error::custom(format!("{text:?} is not Base64: {error}"))),
        }
    }
}

/// The id of a lease: a number or, as it is printed for programs that cannot hold all its digits, text.
#[derive(Clone, Copy, Debug)]
struct LeaseNumber(u64);

impl<'de> Deserialize<'de> for LeaseNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected the id of a lease, as a number or as text")]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(id) => Ok(Self(id)),
            Form::Text(text) => {
                let id = text.parse();
                id.map(Self)
                    .map_err(|_| D::Error::custom(format!("{text:?} is not the id of a lease")))
            }
        }
    }
}

fn one() -> i64 {
    1
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    read(deserializer, parse::duration).map(Some)
}

fn expiry<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Expiry, D::Error> {
    read(deserializer, parse::expiry)
}

fn expiry_or_keep<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Expiry>, D::Error> {
    let parse = |text: &str| match text {
        "keep" => Ok(Expiry::Keep),
        _ => parse::expiry(text).map_err(|error| format!("{error}, and not `keep`")),
    };
    read(deserializer, parse).map(Some)
}

fn read<'de, D: Deserializer<'de>, T>(
    deserializer: D,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).map_err(|error| D::Error::custom(format!("{text:?} is {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(text: &str) -> Draft {
        Draft::parse(text.as_bytes()).expect("a transaction")
    }

    fn compare(text: &str) -> Result<Compare, Failure> {
        let text = format!(r#"{{"compare": [{text}]}}"#);
        draft(&text).compare[0].to_compare()
    }

    #[test]
    fn the_example_of_the_help_is_a_transaction() {
        let (start, end) = (super::super::HELP.find('{'), super::super::HELP.find("\n  }"));
        let example = &super::super::HELP[start.expect("begin")..end.expect("end") + 4];
        let draft = draft(example);
        assert_eq!(draft.compare.len(), 3);
        assert_eq!(draft.then.len(), 2);
        assert_eq!(draft.otherwise.len(), 1);
        for operation in draft.then.iter().chain(&draft.otherwise) {
            operation.to_operation().expect("an operation");
        }
    }

    #[test]
    fn a_bare_value_means_equal() {
        let cases = [
            (r#""exists": true"#, Compare::key("k").exists()),
            (r#""exists": false"#, Compare::key("k").missing()),
            (r#""version": 3"#, Compare::key("k").version().equal_to(3_u64)),
            (r#""version": {"=": 3}"#, Compare::key("k").version().equal_to(3_u64)),
            (r#""mod_revision": {"<": 3}"#, Compare::key("k").mod_revision().less_than(3)),
            (r#""create_revision": {">": 3}"#, Compare::key("k").create_revision().greater_than(3)),
            (r#""value": {"!=": "x"}"#, Compare::key("k").value().not_equal_to("x")),
            (r#""value_base64": "eA==""#, Compare::key("k").value().equal_to("x")),
            (r#""lease": 7"#, Compare::key("k").lease().equal_to(7)),
            (r#""lease": "7""#, Compare::key("k").lease().equal_to(7)),
            (r#""lease": {"!=": "7"}"#, Compare::key("k").lease().not_equal_to(7)),
        ];
        for (text, expected) in cases {
            let found = compare(&format!(r#"{{"key": "k", {text}}}"#));
            assert_eq!(found.expect("a compare"), expected, "{text}");
        }
    }

    #[test]
    fn a_compare_is_about_one_property() {
        for text in [
            r#"{"exists": true}"#,
            r#"{"key": "k"}"#,
            r#"{"key": "k", "token": 7}"#,
            r#"{"lock": "l", "version": 7}"#,
            r#"{"key": "k", "lock": "l", "token": 7}"#,
        ] {
            assert!(compare(text).is_err(), "{text}");
        }
        let token = compare(r#"{"lock": "l", "token": 7}"#).expect("a compare");
        assert_eq!(token, Compare::lock("l").token().equal_to(7));
        assert!(compare(r#"{"key": "k", "exists": true, "version": 1}"#).is_err());
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let error = |text: &str| match Draft::parse(text.as_bytes()) {
            Ok(draft) => panic!("{draft:?}"),
            Err(error) => error.to_string(),
        };
        let unknown = error("{\n\"than\": []}");
        assert!(unknown.contains("`than`") && unknown.contains("line 2"), "{unknown}");
        let ttl = error(r#"{"then": [{"expire": {"key": "k", "ttl": "soon"}}]}"#);
        assert!(ttl.contains("\"soon\" is not a duration"), "{ttl}");
        let sign = error(r#"{"compare": [{"key": "k", "version": {"=>": 3}}]}"#);
        assert!(sign.contains("expected a value, or {\"=\": value}"), "{sign}");
        let operation = error(r#"{"then": [{"put": {"key": "k"}}]}"#);
        assert!(operation.contains("`put`"), "{operation}");
    }

    #[test]
    fn a_set_has_one_value() {
        for text in [
            r#""key": "k""#,
            r#""key": "k", "value": "x", "value_base64": "eA==""#,
            r#""key": "k", "value": "x", "ttl": "1s", "lease": 7"#,
        ] {
            let draft = draft(&format!(r#"{{"then": [{{"set": {{{text}}}}}]}}"#));
            assert!(draft.then[0].to_operation().is_err(), "{text}");
        }
    }
}
