//! What the URL of a Redis backend says.
//!
//! `redis://[user:password@]host[:port][/db][?option=value&…]`, `redis+sentinel://…,…/master[/db]`, and
//! `redis+cluster://…,…`; with `rediss` for TLS. All mistakes are told at once, and none shows a password.

#[cfg(test)]
mod tests;

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

use crate::config::Secret;

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
const OPTIONS: &str = "prefix, connect_timeout, command_timeout, wait_replicas, wait_timeout";
const TLS_OPTIONS: &str = ", ca, cert, key";
const SENTINEL_OPTIONS: &str = ", sentinel_user, sentinel_password";

/// How Redis is reached, and how long is waited for it.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// What the servers are.
    pub kind: Kind,
    /// The server; several sentinels, or several nodes of a cluster to begin with.
    pub servers: Vec<Address>,
    /// How to speak TLS, if at all.
    pub tls: Option<Tls>,
    /// Who to be for Redis, and for the sentinels.
    pub login: Login,
    pub sentinel_login: Login,
    /// The number of the database; 0 in a cluster.
    pub database: i64,
    /// What all keys and the channel begin with.
    pub prefix: String,
    /// How long a connection may take to be made,
    pub connect_timeout: Duration,
    /// and an answer to come.
    pub command_timeout: Duration,
    /// How many replicas must have a commit, and how long they may take.
    pub wait: Option<(u32, Duration)>,
}

/// What is behind the servers of a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Single,
    /// Sentinels know where the one of this name is.
    Sentinel {
        master: String,
    },
    Cluster,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Address {
    /// A name or an IP address, without brackets.
    pub host: String,
    pub port: u16,
}

/// Files in PEM, which are read anew for each connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tls {
    /// The authorities that are trusted instead of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate to show, with its private key.
    pub cert: Option<(PathBuf, PathBuf)>,
}

/// A user of Redis; without a name the one that it calls `default`.
#[derive(Clone, Debug, Default)]
pub(super) struct Login {
    pub user: Option<String>,
    pub password: Option<Secret>,
}

impl Settings {
    /// Reads what follows `scheme:`.
    ///
    /// # Errors
    /// All that is wrong, to be shown after the scheme.
    pub(super) fn parse(scheme: &str, rest: &str) -> Result<Self, String> {
        let mut parser = Parser::new(scheme);
        let settings = parser.parse(rest);
        match parser.problems.is_empty() {
            true => Ok(settings),
            false => Err(parser.problems.join("; and ")),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The kinds of URLs there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Single,
    Sentinel,
    Cluster,
}

struct Parser {
    form: Form,
    /// Whether the scheme alone says that TLS is spoken.
    tls: bool,
    problems: Vec<String>,
    /// What was set so far.
    seen: Vec<String>,
}

/// Options as they were read, before they are looked at beside each other.
#[derive(Default)]
struct Options {
    tls: bool,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    sentinel_user: Option<String>,
    sentinel_password: Option<String>,
    prefix: Option<String>,
    connect_timeout: Option<Duration>,
    command_timeout: Option<Duration>,
    wait_replicas: Option<u32>,
    wait_timeout: Option<Duration>,
}

impl Parser {
    fn new(scheme: &str) -> Self {
        let (name, form) = scheme.split_once('+').unwrap_or((scheme, ""));
        let form = match form {
            "sentinel" => Form::Sentinel,
            "cluster" => Form::Cluster,
            _ => Form::Single,
        };
        Self { form, tls: name == "rediss", problems: Vec::new(), seen: Vec::new() }
    }

    fn wrong(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    fn parse(&mut self, rest: &str) -> Settings {
        let rest = rest.strip_prefix("//").unwrap_or_else(|| {
            self.wrong("needs `//` and a server, as in redis://localhost:6379");
            ""
        });
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = place.split_once('/').unwrap_or((place, ""));
        if let Some(problem) = self.misplaced_password(authority, path, query) {
            // Whatever else could be said might show a part of it.
            self.problems = vec![problem];
            return self.settings(
                Login::default(),
                Vec::new(),
                (Kind::Single, 0),
                Options::default(),
            );
        }
        let (login, servers) = match authority.rsplit_once('@') {
            Some((login, servers)) => (self.login(login), servers),
            None => (Login::default(), authority),
        };
        let servers = self.servers(servers);
        let path = self.path(path);
        let options = self.options(query);
        self.settings(login, servers, path, options)
    }

    /// Where there is an `@` that cannot be meant: it is likely the end of a password that holds a `/` or a `?`.
    fn misplaced_password(&self, authority: &str, path: &str, query: &str) -> Option<String> {
        let in_option = |setting: &str| {
            let (name, _) = setting.split_once('=').unwrap_or((setting, ""));
            self.known().split(", ").any(|known| known == name)
        };
        let mut settings = query.split('&');
        let misplaced = path.contains('@')
            || settings.any(|setting| setting.contains('@') && !in_option(setting))
            || (!authority.contains('@') && query.contains('@') && !self.are_servers(authority));
        misplaced.then(|| {
            "has an `@` after its servers: in a user or password write `/` as %2F, `?` as %3F, `@` as %40, `:` as \
             %3A and `%` as %25"
                .into()
        })
    }

    fn are_servers(&self, text: &str) -> bool {
        text.split(',').all(|server| address(server, REDIS_PORT).is_some())
    }

    /// `user:password`, `:password`.
    fn login(&mut self, text: &str) -> Login {
        let Some((user, password)) = text.split_once(':') else {
            self.wrong("needs `user:password@` or `:password@` before its servers, with a colon");
            return Login::default();
        };
        let (user, password) =
            (self.decode("the user", user), self.decode("the password", password));
        if password.is_empty() {
            self.wrong("has a user but no password: `user:password@`");
        }
        Login {
            user: Some(user).filter(|user| !user.is_empty()),
            password: Some(Secret::from(password.as_str())),
        }
    }

    fn servers(&mut self, text: &str) -> Vec<Address> {
        let port = match self.form {
            Form::Sentinel => SENTINEL_PORT,
            Form::Single | Form::Cluster => REDIS_PORT,
        };
        if text.is_empty() {
            self.wrong("needs a server, as in redis://localhost:6379");
            return Vec::new();
        }
        if self.form == Form::Single && text.contains(',') {
            self.wrong("takes one server; several are for redis+sentinel: and redis+cluster:");
        }
        let mut servers = Vec::new();
        for server in text.split(',') {
            match address(server, port) {
                Some(address) => servers.push(address),
                None => {
                    self.wrong(format!("needs `host` or `host:port` as a server, not `{server}`"))
                }
            }
        }
        servers
    }

    /// `db`, or `master/db` with sentinels.
    fn path(&mut self, text: &str) -> (Kind, i64) {
        let (kind, database) = match self.form {
            Form::Single => (Kind::Single, text),
            Form::Cluster => (Kind::Cluster, text),
            Form::Sentinel => {
                let (master, database) = text.split_once('/').unwrap_or((text, ""));
                let master = self.decode("the master's name", master);
                if master.is_empty() {
                    self.wrong(
                        "needs the master's name after the sentinels: `host:port,host:port/MASTER`",
                    );
                }
                (Kind::Sentinel { master }, database)
            }
        };
        let number = match database {
            "" => Some(0),
            _ => database.parse().ok().filter(|number| (0..=i64::from(i32::MAX)).contains(number)),
        };
        match number {
            Some(number) if number != 0 && self.form == Form::Cluster => {
                self.wrong(format!("has no database `{number}`: a cluster has only 0"));
            }
            Some(_) => {}
            None => self.wrong(format!("needs a number as the database, not `{database}`")),
        }
        (kind, number.unwrap_or(0))
    }

    fn options(&mut self, query: &str) -> Options {
        let mut options = Options::default();
        for setting in query.split('&').filter(|setting| !setting.is_empty()) {
            let (name, value) = setting.split_once('=').unwrap_or((setting, ""));
            if self.seen.iter().any(|seen| seen == name) {
                self.wrong(format!("has `{name}` twice"));
            }
            self.seen.push(name.into());
            if !self.known().split(", ").any(|known| known == name) {
                let known = self.known();
                self.wrong(format!("has no option `{name}`; known are {known}"));
                continue;
            }
            let value = self.decode(&format!("`{name}`"), value);
            self.option(&mut options, name, value);
        }
        options
    }

    /// Takes an option that there is.
    fn option(&mut self, options: &mut Options, name: &str, value: String) {
        const DURATION: &str = "a duration such as 500ms or 2s";
        let needs = |what: &str| format!("needs {what} as `{name}`, not `{value}`");
        let mut problem = None;
        match name {
            "prefix" if is_prefix(&value) => options.prefix = Some(value),
            "prefix" => {
                problem =
                    Some(needs("1 to 64 printable ASCII characters without blanks and braces"));
            }
            "connect_timeout" | "command_timeout" | "wait_timeout" => match duration(&value) {
                None => problem = Some(needs(DURATION)),
                parsed if name == "connect_timeout" => options.connect_timeout = parsed,
                parsed if name == "command_timeout" => options.command_timeout = parsed,
                parsed => options.wait_timeout = parsed,
            },
            "wait_replicas" => match value.parse().ok().filter(|replicas| *replicas > 0) {
                None => problem = Some(needs("a whole number from 1 on")),
                parsed => options.wait_replicas = parsed,
            },
            "tls" => match value.as_str() {
                "true" => options.tls = true,
                "false" if !self.tls => {}
                _ => problem = Some(needs("`true`")),
            },
            "ca" | "cert" | "key" if value.is_empty() => problem = Some(needs("a file")),
            "ca" => options.ca = Some(value.into()),
            "cert" => options.cert = Some(value.into()),
            "key" => options.key = Some(value.into()),
            "sentinel_user" => options.sentinel_user = Some(value),
            _ => options.sentinel_password = Some(value),
        }
        self.problems.extend(problem);
    }

    fn settings(
        &mut self,
        login: Login,
        servers: Vec<Address>,
        (kind, database): (Kind, i64),
        options: Options,
    ) -> Settings {
        let tls = self.tls(&options);
        if options.wait_timeout.is_some() && options.wait_replicas.is_none() {
            self.wrong("has `wait_timeout` but not for how many replicas: set `wait_replicas`");
        }
        if options.sentinel_user.is_some() && options.sentinel_password.is_none() {
            self.wrong("has `sentinel_user` but no `sentinel_password`");
        }
        let wait_timeout = options.wait_timeout.unwrap_or(Duration::from_secs(1));
        Settings {
            kind,
            servers,
            tls,
            login,
            sentinel_login: Login {
                user: options.sentinel_user,
                password: options.sentinel_password.map(|password| Secret::from(password.as_str())),
            },
            database,
            prefix: options.prefix.unwrap_or_else(|| "holdfast".into()),
            connect_timeout: options.connect_timeout.unwrap_or(Duration::from_secs(2)),
            command_timeout: options.command_timeout.unwrap_or(Duration::from_secs(5)),
            wait: options.wait_replicas.map(|replicas| (replicas, wait_timeout)),
        }
    }

    fn tls(&mut self, options: &Options) -> Option<Tls> {
        let Options { ca, cert, key, .. } = options;
        if !self.tls && !options.tls {
            if ca.is_some() || cert.is_some() || key.is_some() {
                self.wrong("has certificate files but no TLS: the scheme for that is rediss");
            }
            return None;
        }
        let cert = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert.clone(), key.clone())),
            (None, None) => None,
            (Some(_), None) => {
                self.wrong("has `cert` but no `key`");
                None
            }
            (None, Some(_)) => {
                self.wrong("has `key` but no `cert`");
                None
            }
        };
        Some(Tls { ca: ca.clone(), cert })
    }

    fn decode(&mut self, what: &str, text: &str) -> String {
        percent_decode_str(text).decode_utf8().map(Into::into).unwrap_or_else(|_| {
            self.wrong(format!("needs UTF-8 as {what}, once percent-decoded"));
            String::new()
        })
    }

    /// The names of the options of this kind of URL.
    fn known(&self) -> String {
        let (tls, sentinel) = match self.form {
            Form::Single => ("", ""),
            Form::Cluster => (", tls", ""),
            Form::Sentinel => (", tls", SENTINEL_OPTIONS),
        };
        format!("{OPTIONS}{TLS_OPTIONS}{tls}{sentinel}")
    }
}

/// `host`, `host:port`, `[ipv6]`, `[ipv6]:port`.
fn address(text: &str, default_port: u16) -> Option<Address> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, if port.is_empty() { None } else { Some(port.strip_prefix(':')?) })
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    let bracketed = text.starts_with('[');
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !(bracketed || host.bytes().all(is_name)) {
        return None;
    }
    let port = match port {
        Some(port) => port.parse().ok().filter(|port| *port > 0)?,
        None => default_port,
    };
    Some(Address { host: host.into(), port })
}

/// Braces would change which slot a key is in.
fn is_prefix(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}".contains(&byte))
}

fn duration(text: &str) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| *duration >= Duration::from_millis(1))
}
