//! All settings by name, as the command line, the environment and the documentation have them.

use serde_json::Value;

use super::Config;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its path in the configuration file: `section.name`.
    pub key: &'static str,
    /// What kind of value it takes.
    pub kind: Kind,
    /// What it means, in a line.
    pub help: &'static str,
}

/// What kind of value a setting takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text; the name stands for it in the help.
    Text(&'static str),
    /// A whole number.
    Number,
    /// A duration with its unit.
    Duration,
    /// Several secret texts. They have no flag: anybody on a machine can read the command lines on it.
    Secrets,
}

/// All settings.
pub const SETTINGS: &[Setting] = &[
    setting("listen", Kind::Text("ADDR"), "Where to listen; port 0 takes a free one"),
    setting("backend", Kind::Text("URL"), "Where the state is kept"),
    setting("busy_poll", Kind::Duration, "How long to look for work before sleeping; 0s: not"),
    setting(
        "log.filter",
        Kind::Text("FILTER"),
        "off, error, warn, info, debug, trace, or directives by module",
    ),
    setting("log.format", Kind::Text("FORMAT"), "human or json"),
    setting("limits.max_value_bytes", Kind::Number, "Largest value, at most 16777216"),
    setting("limits.max_request_bytes", Kind::Number, "Largest request message"),
    setting(
        "limits.max_lease_keys",
        Kind::Number,
        "Most keys and locks of a lease together, at most 10000",
    ),
    setting(
        "namespace_defaults.default_ttl_ms",
        Kind::Number,
        "TTL of entries written without an expiry",
    ),
    setting(
        "namespace_defaults.log_max_events",
        Kind::Number,
        "Most events that are kept for watches",
    ),
    setting(
        "namespace_defaults.log_max_age_ms",
        Kind::Number,
        "How long events are kept for watches",
    ),
    setting(
        "namespace_defaults.log_max_bytes",
        Kind::Number,
        "Most bytes of events that are kept for watches",
    ),
    setting("namespace_defaults.quota_max_keys", Kind::Number, "Most keys of a namespace"),
    setting("namespace_defaults.quota_max_bytes", Kind::Number, "Most bytes of a namespace"),
    setting(
        "shutdown.drain_timeout",
        Kind::Duration,
        "How long calls in flight may take to finish",
    ),
    setting("tls.cert", Kind::Text("FILE"), "Certificate chain, PEM; turns TLS on"),
    setting("tls.key", Kind::Text("FILE"), "Private key of the certificate, PEM"),
    setting("auth.tokens", Kind::Secrets, "Bearer tokens that callers must show one of"),
];

/// What the names of all variables begin with.
pub(super) const VARIABLE_PREFIX: &str = "HOLDFASTD_";

const fn setting(key: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting { key, kind, help }
}

impl Setting {
    /// The setting of this key.
    pub fn find(key: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.key == key)
    }

    /// Its flag without the dashes, if it has one.
    pub fn flag(&self) -> Option<String> {
        (self.kind != Kind::Secrets).then(|| self.key.replace(['.', '_'], "-"))
    }

    /// Its default, if it has one.
    pub fn default(&self) -> Option<String> {
        let defaults = serde_json::to_value(Config::default()).ok()?;
        let value = self.key.split('.').try_fold(&defaults, |value, name| value.get(name))?;
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Its variable in the environment.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.key.replace('.', "_").to_uppercase())
    }
}

impl Kind {
    /// What stands for its value in the help.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Text(name) => name,
            Self::Number => "N",
            Self::Duration => "DURATION",
            Self::Secrets => "TEXT,…",
        }
    }

    /// The value that a text from the command line or the environment means.
    pub(super) fn parse(self, text: &str) -> Result<Value, String> {
        match self {
            Self::Text(_) | Self::Duration => Ok(Value::from(text)),
            Self::Number => match text.parse::<u64>() {
                Ok(number) => Ok(Value::from(number)),
                Err(_) => Err(format!("`{text}` is not a whole number")),
            },
            Self::Secrets => Ok(text.split(',').map(str::trim).collect()),
        }
    }

    /// Whether a value from a file is of this kind.
    pub(super) fn check(self, value: &Value) -> Result<(), String> {
        match self {
            // It may be a URL with a password, in a list for example.
            Self::Text(_) if !value.is_string() => Err("is not a text".into()),
            Self::Number if !value.is_u64() => Err(format!("{value} is not a whole number")),
            Self::Duration if !value.is_string() => {
                Err(format!("{value} is not a text with a duration and its unit, such as \"10s\""))
            }
            Self::Secrets if !is_texts(value) => Err("is not a list of texts".into()),
            _ => Ok(()),
        }
    }
}

fn is_texts(value: &Value) -> bool {
    value.as_array().is_some_and(|items| items.iter().all(Value::is_string))
}
