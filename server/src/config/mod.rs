//! The settings of the server: what there is, where it comes from, and what is wrong with it.

mod load;
mod settings;
mod shown;
mod task;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    net::{Ipv6Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize, Serializer};

pub use load::{Invocation, LoadError};
pub use settings::{Kind, SETTINGS, Setting};
use shown::hide_passwords;
pub use task::{Offline, Task};

/// All settings. `Debug` and `Serialize` show no secrets.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where to listen: `HOST:PORT`; port 0 takes a free one.
    pub listen: String,
    /// The URL of the backend.
    #[serde(serialize_with = "without_password")]
    pub backend: String,
    /// How long threads that have run out of work look for more before they sleep, where that came soon of late; up to 1 ms.
    #[serde(with = "duration")]
    pub busy_poll: Duration,
    /// What is logged, and how.
    pub log: Log,
    /// Bounds of requests.
    pub limits: Limits,
    /// The settings that a new namespace begins with.
    pub namespace_defaults: NamespaceDefaults,
    /// How the server stops.
    pub shutdown: Shutdown,
    /// Encryption.
    pub tls: Tls,
    /// Who may call.
    pub auth: Auth,
    /// Where the settings come from, for messages.
    #[serde(skip)]
    pub origins: Origins,
}

/// What is logged, and how.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// A level, or directives such as `info,holdfast_server=debug`.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Bounds of requests.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// The largest value, in bytes.
    pub max_value_bytes: usize,
    /// The largest request message, in bytes.
    pub max_request_bytes: usize,
    /// The most keys and locks, together, attached to one lease.
    pub max_lease_keys: usize,
}

/// The settings that a new namespace begins with; `None` leaves the built-in default.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct NamespaceDefaults {
    /// TTL of entries written without an expiry, in milliseconds.
    pub default_ttl_ms: Option<u64>,
    /// Most events of the log.
    pub log_max_events: Option<u64>,
    /// Greatest age of the log, in milliseconds.
    pub log_max_age_ms: Option<u64>,
    /// Most bytes of the log.
    pub log_max_bytes: Option<u64>,
    /// Most keys.
    pub quota_max_keys: Option<u64>,
    /// Most bytes of keys, content types and values.
    pub quota_max_bytes: Option<u64>,
}

/// How the server stops.
#[derive(Clone, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Shutdown {
    /// How long calls in flight may take to finish.
    #[serde(with = "duration")]
    pub drain_timeout: Duration,
}

/// Encryption; off without a certificate.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the server's certificate and those between it and its root.
    pub cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    pub key: Option<PathBuf>,
}

/// Who may call; everybody without a token.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// The bearer tokens that are accepted.
    pub tokens: Vec<Secret>,
}

/// A text that is not shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// Where each setting comes from; what is missing is a default.
#[derive(Clone, Default)]
pub struct Origins(BTreeMap<&'static str, Origin>);

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Nobody has set it.
    Default,
    /// A configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Variable(String),
    /// A flag on the command line.
    Flag(String),
}

/// One mistake in the configuration.
#[derive(Clone, Debug)]
pub struct Problem {
    /// The setting, or what was taken for one.
    pub key: String,
    /// What is wrong with it.
    pub text: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Mistakes in the configuration, at least one.
#[derive(Clone, Debug)]
pub struct Problems(pub Vec<Problem>);

impl Config {
    /// A mistake in what is set.
    pub fn problem(&self, key: &str, text: impl Into<String>) -> Problem {
        Problem { key: key.into(), text: text.into(), origin: self.origins.of(key) }
    }

    /// The URL of the backend without the passwords that may be in it.
    pub fn shown_backend(&self) -> Cow<'_, str> {
        hide_passwords(&self.backend)
    }

    /// What is wrong with single values.
    fn check_values(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let mut check = |key, result: Result<(), String>| {
            problems.extend(result.err().map(|text| (key, text)));
        };
        check("listen", check_address(&self.listen));
        check("busy_poll", check_busy_poll(self.busy_poll));
        check("log.filter", check_filter(&self.log.filter));
        // A revision holds at most 16 MiB, so a larger value could never be stored.
        check("limits.max_value_bytes", in_range(self.limits.max_value_bytes, 1, 16 << 20));
        check(
            "limits.max_request_bytes",
            in_range(self.limits.max_request_bytes, 1 << 16, 1 << 30),
        );
        // They end in one revision, which changes at most 10,000 keys.
        check("limits.max_lease_keys", in_range(self.limits.max_lease_keys, 1, 10_000));
        for token in &self.auth.tokens {
            check("auth.tokens", check_token(token));
        }
        problems
    }

    /// What is wrong with values beside each other.
    fn check_combinations(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let Limits { max_value_bytes, max_request_bytes, .. } = self.limits;
        if max_request_bytes < max_value_bytes + REQUEST_OVERHEAD_BYTES {
            let text = format!(
                "{max_request_bytes} is too small for a value of {max_value_bytes} bytes: at least {} is \
                 needed, or a smaller limits.max_value_bytes",
                max_value_bytes + REQUEST_OVERHEAD_BYTES
            );
            problems.push(("limits.max_request_bytes", text));
        }
        match (&self.tls.cert, &self.tls.key) {
            (Some(_), None) => problems.push(("tls.cert", "needs tls.key beside it".into())),
            (None, Some(_)) => problems.push(("tls.key", "needs tls.cert beside it".into())),
            _ => {}
        }
        problems
    }
}

/// Room for a key, a content type and whatever else a request holds beside its value.
const REQUEST_OVERHEAD_BYTES: usize = 16 << 10;

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:4653".into(),
            backend: "files:holdfast-data".into(),
            busy_poll: Duration::from_micros(200),
            log: Log::default(),
            limits: Limits::default(),
            namespace_defaults: NamespaceDefaults::default(),
            shutdown: Shutdown::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            origins: Origins::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { filter: "info".into(), format: LogFormat::Human }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_value_bytes: 1 << 20, max_request_bytes: 20 << 20, max_lease_keys: 10_000 }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self { drain_timeout: Duration::from_secs(10) }
    }
}

/// As TOML, which is what a configuration file may look like.
impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(self).map_err(|_| fmt::Error)?)
    }
}

/// Through `Serialize`, so that there is one place that hides secrets.
impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(HIDDEN)
    }
}

const HIDDEN: &str = "(hidden)";

impl Origins {
    /// Where a setting comes from.
    pub fn of(&self, key: &str) -> Origin {
        self.0.get(key).cloned().unwrap_or(Origin::Default)
    }

    fn set(&mut self, key: &'static str, origin: Origin) {
        self.0.insert(key, origin);
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "by default"),
            Self::File(path) => write!(f, "in {}", path.display()),
            Self::Variable(name) => write!(f, "from {name}"),
            Self::Flag(name) => write!(f, "from {name}"),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.text, self.origin)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [problem] = &self.0[..] {
            return write!(f, "bad configuration: {problem}");
        }
        write!(f, "bad configuration: {} mistakes", self.0.len())?;
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

fn check_address(address: &str) -> Result<(), String> {
    let host_and_port = address.rsplit_once(':').filter(|(host, port)| {
        let is_name = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']);
        let is_ipv6 = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok());
        (is_name || is_ipv6) && port.parse::<u16>().is_ok()
    });
    if host_and_port.is_some() || address.parse::<SocketAddr>().is_ok() {
        return Ok(());
    }
    Err(format!("`{address}` is not HOST:PORT, such as 127.0.0.1:4653 or [::1]:4653"))
}

/// For longer no thread may keep a processor for nothing.
fn check_busy_poll(busy_poll: Duration) -> Result<(), String> {
    const LONGEST: Duration = Duration::from_millis(1);
    if busy_poll <= LONGEST {
        return Ok(());
    }
    let shown = humantime::format_duration(busy_poll);
    Err(format!("{shown} is too long, at most 1ms is allowed; 0s turns it off"))
}

/// A bare word would be taken for the name of a module, and nothing else would be logged.
fn check_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    let is_level = |word: &str| LEVELS.iter().any(|level| word.eq_ignore_ascii_case(level));
    for directive in filter.split(',').map(str::trim) {
        let is_plain = directive.chars().all(|c| c.is_ascii_alphanumeric());
        if is_plain && !is_level(directive) {
            return Err(format!("`{directive}` is not a level; levels are {}", LEVELS.join(", ")));
        }
    }
    match tracing_subscriber::EnvFilter::builder().parse(filter) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("`{filter}`: {error}")),
    }
}

fn check_token(token: &Secret) -> Result<(), String> {
    let token = token.expose();
    if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    Err("a token must be of visible ASCII characters, without spaces, and at least one".into())
}

fn in_range(value: usize, least: usize, greatest: usize) -> Result<(), String> {
    if (least..=greatest).contains(&value) {
        return Ok(());
    }
    Err(format!("{value} is not within {least} to {greatest}"))
}

fn without_password<S: Serializer>(url: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hide_passwords(url))
}

/// Durations as people write them: `500ms`, `10s`, `1m 30s`.
mod duration {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|_| {
            D::Error::custom(format!("`{text}` is not a duration, such as 500ms or 10s"))
        })
    }

    pub(super) fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(&humantime::format_duration(*duration))
    }
}
