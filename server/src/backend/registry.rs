//! Which URL schemes name which backend.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use futures::future::{BoxFuture, FutureExt as _};

use super::{
    Backend, Repaired, Verification,
    embedded::{
        Capacity, Embedded, Intervals,
        files::{self, Disk, FileLayer, Files, Options},
        sqlite::{self, Sqlite},
    },
    redis::Redis,
};
use crate::clock::Clock;

/// A disk that takes its time and fails when it is told to, and an engine on it: for tests of what goes by a backend.
#[cfg(test)]
pub(crate) use super::embedded::files::tests::{disk, state};

/// Makes a backend from what follows the scheme's colon in its URL, or says what is wrong with it. What it says is
/// logged: it must not show where a password may be.
pub type Constructor = fn(rest: String, clock: Arc<dyn Clock>) -> Opening;

/// Looks through stored state without changing it; takes what a [`Constructor`] takes.
pub type Verifier = fn(rest: String) -> BoxFuture<'static, Result<Verification, String>>;

/// A backend that is being opened.
pub type Opening = BoxFuture<'static, Result<Arc<dyn Backend>, String>>;

/// Why a backend could not be opened. Of the URL it has no more than the scheme: the rest may hold a password.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
pub enum OpenError {
    /// The URL does not begin with a scheme.
    #[error("no scheme; known are {known}")]
    NoScheme {
        /// The schemes that there are.
        known: String,
    },
    /// No backend is registered for the scheme.
    #[error("unknown scheme `{scheme}`; known are {known}")]
    UnknownScheme {
        /// The scheme of the URL.
        scheme: String,
        /// The schemes that there are.
        known: String,
    },
    /// The backend cannot be opened as the rest of the URL says.
    #[error("`{scheme}:` {problem}")]
    Url {
        /// The scheme of the URL.
        scheme: String,
        /// What is wrong.
        problem: String,
    },
}

/// The backends that a server can open. A program of one's own can register others.
#[derive(Debug, Clone)]
pub struct Registry {
    constructors: BTreeMap<&'static str, Constructor>,
    verifiers: BTreeMap<&'static str, Verifier>,
}

impl Default for Registry {
    fn default() -> Self {
        let mut registry = Self { constructors: BTreeMap::new(), verifiers: BTreeMap::new() };
        registry.register("memory", |rest, clock| open_memory(rest, clock).boxed());
        registry.register("files", |rest, clock| open_files(rest, clock).boxed());
        registry.register("sqlite", |rest, clock| open_sqlite(rest, clock).boxed());
        registry.register("redis", |rest, _| open_redis("redis", rest).boxed());
        registry.register("rediss", |rest, _| open_redis("rediss", rest).boxed());
        registry.register("redis+sentinel", |rest, _| open_redis("redis+sentinel", rest).boxed());
        registry.register("rediss+sentinel", |rest, _| open_redis("rediss+sentinel", rest).boxed());
        registry.register("redis+cluster", |rest, _| open_redis("redis+cluster", rest).boxed());
        registry.register("rediss+cluster", |rest, _| open_redis("rediss+cluster", rest).boxed());
        registry.register_verifier("files", |rest| verify_files(rest).boxed());
        registry.register_verifier("sqlite", |rest| verify_sqlite(rest).boxed());
        registry
    }
}

impl Registry {
    /// Makes `scheme:…` open a backend by `constructor`.
    pub fn register(&mut self, scheme: &'static str, constructor: Constructor) {
        self.constructors.insert(scheme, constructor);
    }

    /// Makes `scheme:…` be looked through by `verifier`.
    pub fn register_verifier(&mut self, scheme: &'static str, verifier: Verifier) {
        self.verifiers.insert(scheme, verifier);
    }

    /// Looks through what the backend that a URL names has stored.
    ///
    /// # Errors
    /// See [`OpenError`]; also where a backend stores nothing that it could be asked about.
    pub async fn verify(&self, url: &str) -> Result<Verification, OpenError> {
        let (scheme, rest) = self.parse(url)?;
        let url = |problem| OpenError::Url { scheme: scheme.into(), problem };
        match self.verifiers.get(scheme) {
            Some(verifier) => verifier(rest.to_owned()).await.map_err(url),
            None => Err(url("keeps nothing here that could be verified".into())),
        }
    }

    /// Whether there is what the backend that a URL names would have stored here, which opening it would else make anew.
    ///
    /// # Errors
    /// See [`OpenError`]; also where there is nothing.
    pub fn check_stored(&self, url: &str) -> Result<(), OpenError> {
        let (scheme, rest) = self.parse(url)?;
        let path = match scheme {
            "files" => Options::parse(rest).map(|options| options.directory),
            "sqlite" => sqlite::Options::parse(rest).map(|options| options.file),
            _ => return Ok(()),
        };
        let checked = path.and_then(|path| match path.try_exists() {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("there is nothing stored: {} does not exist", path.display())),
            Err(error) => Err(format!("{}: {error}", path.display())),
        });
        checked.map_err(|problem| OpenError::Url { scheme: scheme.into(), problem })
    }

    /// Saves what is sound before damage in what the backend that a URL names has stored, into another directory.
    ///
    /// # Errors
    /// See [`OpenError`]; also where that is not possible, and why.
    pub async fn repair(&self, url: &str, into: &str) -> Result<Repaired, OpenError> {
        let (scheme, rest) = self.parse(url)?;
        let repaired = match scheme {
            "files" => repair_files(rest, into.into()).await,
            _ => Err("has no journal that could be cut where it is damaged".into()),
        };
        repaired.map_err(|problem| OpenError::Url { scheme: scheme.into(), problem })
    }

    /// Opens the backend that a URL names. Where it has much to load, that takes a while.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        &self,
        url: &str,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<dyn Backend>, OpenError> {
        let (scheme, rest) = self.parse(url)?;
        let constructor = self.constructors.get(scheme).ok_or_else(|| self.unknown(scheme))?;
        constructor(rest.to_owned(), clock)
            .await
            .map_err(|problem| OpenError::Url { scheme: scheme.into(), problem })
    }

    /// The scheme of a URL, which is known, and the rest.
    fn parse<'a>(&self, url: &'a str) -> Result<(&'a str, &'a str), OpenError> {
        let (scheme, rest) = url
            .split_once(':')
            .filter(|(scheme, _)| is_scheme(scheme))
            .ok_or_else(|| OpenError::NoScheme { known: self.known() })?;
        match self.constructors.contains_key(scheme) {
            true => Ok((scheme, rest)),
            false => Err(self.unknown(scheme)),
        }
    }

    fn unknown(&self, scheme: &str) -> OpenError {
        OpenError::UnknownScheme { scheme: scheme.into(), known: self.known() }
    }

    fn known(&self) -> String {
        let schemes: Vec<_> = self.constructors.keys().map(|known| format!("{known}:")).collect();
        schemes.join(", ")
    }
}

/// Whether it could be one; what could not may be the beginning of a password.
fn is_scheme(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
}

/// `memory:?max_keys=…&max_bytes=…`
async fn open_memory(rest: String, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, String> {
    let options = match rest.split_once('?') {
        None if rest.is_empty() => "",
        Some(("", options)) => options,
        _ => return Err("takes no path".into()),
    };
    let mut capacity = Capacity::default();
    for option in options.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let bound = match name {
            "max_keys" => &mut capacity.max_keys,
            "max_bytes" => &mut capacity.max_bytes,
            _ => return Err(format!("has no option `{name}`; known are max_keys, max_bytes")),
        };
        let number = value
            .parse()
            .map_err(|_| format!("needs a whole number as `{name}`, not `{value}`"))?;
        *bound = Some(number);
    }
    Ok(Arc::new(Embedded::new(clock, capacity)))
}

/// `files:DIR?…`
async fn open_files(rest: String, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, String> {
    let options = Options::parse(&rest)?;
    let intervals =
        Intervals { snapshot: options.snapshot_interval, sync: options.sync.interval() };
    let open = move || {
        let disk = Arc::new(Disk { permissions: options.permissions });
        let journal = Files::open(disk, options)?;
        Embedded::with_journal(clock, Box::new(journal), intervals)
    };
    // Loading is long, and waits for the disk.
    let opened = tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string())?;
    Ok(Arc::new(opened.map_err(|error| error.to_string())?))
}

/// `sqlite:FILE?…`
async fn open_sqlite(rest: String, clock: Arc<dyn Clock>) -> Result<Arc<dyn Backend>, String> {
    let options = sqlite::Options::parse(&rest)?;
    let sync = options.sync.interval();
    let open = move || {
        let journal = Sqlite::open(options)?;
        Embedded::with_journal(clock, Box::new(journal), Intervals { snapshot: None, sync })
    };
    // Loading is long, and waits for the disk.
    let opened = tokio::task::spawn_blocking(open).await.map_err(|error| error.to_string())?;
    Ok(Arc::new(opened.map_err(|error| error.to_string())?))
}

/// `redis://…`, `redis+sentinel://…`, `redis+cluster://…`; with `rediss` for TLS.
async fn open_redis(scheme: &'static str, rest: String) -> Result<Arc<dyn Backend>, String> {
    Ok(Arc::new(Redis::open(scheme, &rest).await?))
}

async fn verify_files(rest: String) -> Result<Verification, String> {
    let options = Options::parse(&rest)?;
    let look = move || {
        let disk = Disk { permissions: options.permissions };
        files::verify(&disk, &options.directory)
    };
    let report = tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?;
    let files::Report { files, lines, namespaces, keys, findings } =
        report.map_err(|error| error.to_string())?;
    let seen = vec![("files", files), ("lines", lines), ("namespaces", namespaces), ("keys", keys)];
    Ok(Verification { seen, findings })
}

async fn repair_files(rest: &str, into: PathBuf) -> Result<Repaired, String> {
    let options = Options::parse(rest)?;
    let work = move || {
        let layer: Arc<dyn FileLayer> = Arc::new(Disk { permissions: options.permissions });
        files::repair(&layer, &options.directory, &into)
    };
    let repaired = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
    repaired.map_err(|error| error.to_string())
}

async fn verify_sqlite(rest: String) -> Result<Verification, String> {
    let options = sqlite::Options::parse(&rest)?;
    let look = move || sqlite::verify(&options.file);
    let report = tokio::task::spawn_blocking(look).await.map_err(|error| error.to_string())?;
    let sqlite::Report { namespaces, keys, events, findings } =
        report.map_err(|error| error.to_string())?;
    let seen = vec![("namespaces", namespaces), ("keys", keys), ("events", events)];
    Ok(Verification { seen, findings })
}
