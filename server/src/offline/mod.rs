//! What is done to stored state without a server: the same as over the network, by the same means, and in the same form.

mod export;
mod import;

use std::{
    fmt, io,
    io::Write as _,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use tonic::Status;

use crate::{
    backend::{
        BackendError, NamespaceName, Repaired,
        registry::{OpenError, Registry},
    },
    clock::SystemClock,
    config::{Config, Offline},
    store::{Store, StoreOptions, error::StoreError},
};

/// How many namespaces are looked up at once.
const STEP: usize = 1000;

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OfflineError {
    /// The backend cannot be opened.
    #[error("backend: {0}")]
    Open(#[from] OpenError),
    /// A file or pipe cannot be read or written.
    #[error("{what}: {error}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        error: io::Error,
    },
    /// A line of a file is not what an export has written.
    #[error("{file}, {error}")]
    Line {
        /// The file.
        file: String,
        /// Which line, and what is wrong with it.
        error: holdfast_proto::lines::LineError,
    },
    /// It was refused, with what to do about it.
    #[error("{}", .0.message())]
    Refused(Box<Status>),
    /// The backend failed.
    #[error("the backend failed: {0:?}")]
    Store(Box<StoreError>),
    /// A namespace that was named does not exist.
    #[error("there is no namespace {0:?}")]
    NoNamespace(String),
    /// Stored state is damaged.
    #[error("{0} of these findings are damage, which may keep the server from starting")]
    Damaged(usize),
}

/// Does a piece of work on the backend that is set. No server may have it open.
///
/// # Errors
/// See [`OfflineError`].
pub async fn run(work: Offline, config: Config) -> Result<(), OfflineError> {
    match work {
        Offline::Export { file, namespaces } => {
            let store = open_stored(&config).await?;
            export::export(store, &file, &namespaces).await
        }
        Offline::Import { file, replace } => {
            let store = open(&config).await?;
            import::import(store, &config, &file, replace).await
        }
        Offline::Verify => verify(&config).await,
        Offline::Compact => compact(open_stored(&config).await?).await,
        Offline::Repair { into } => repair(&config, &into).await,
    }
}

async fn open(config: &Config) -> Result<Arc<Store>, OfflineError> {
    let clock = Arc::new(SystemClock::default());
    let backend = Registry::default().open(&config.backend, clock.clone()).await?;
    let max_lease_keys = config.limits.max_lease_keys;
    Ok(Store::new(backend, clock, StoreOptions { max_lease_keys, ..StoreOptions::default() }))
}

/// Opens what is there, and makes nothing anew: a wrong path is no empty state.
async fn open_stored(config: &Config) -> Result<Arc<Store>, OfflineError> {
    Registry::default().check_stored(&config.backend)?;
    open(config).await
}

async fn verify(config: &Config) -> Result<(), OfflineError> {
    let verified = Registry::default().verify(&config.backend).await?;
    let seen: Vec<_> =
        verified.seen.iter().map(|(what, count)| format!("{count} {what}")).collect();
    say(&seen.join(", "))?;
    for finding in &verified.findings {
        say(finding)?;
    }
    match verified.harmful() {
        0 => say(&"sound"),
        count => Err(OfflineError::Damaged(count)),
    }
}

/// Saves what is sound before damage, and tells what is not saved.
async fn repair(config: &Config, into: &str) -> Result<(), OfflineError> {
    let repaired = Registry::default().repair(&config.backend, into).await?;
    say(&repaired.damage)?;
    let Repaired { unsound_lines, lost_commits, last_lost_ms, .. } = repaired;
    let last = last_lost_ms.and_then(|at_ms| u64::try_from(at_ms).ok()).map_or_else(
        String::new,
        |at_ms| {
            let at = UNIX_EPOCH + Duration::from_millis(at_ms);
            format!(", the last of {}", humantime::format_rfc3339_millis(at))
        },
    );
    say(&format!(
        "given up: {unsound_lines} lines that are not sound, and {lost_commits} sound commits after them{last}"
    ))?;
    let Repaired { namespaces, keys, .. } = repaired;
    say(&format!(
        "saved in {into}: {namespaces} namespaces, {keys} keys, which begin other histories; `holdfastd --backend files:{into}`"
    ))
}

/// Forgets all history, and has what is left written anew.
async fn compact(store: Arc<Store>) -> Result<(), OfflineError> {
    let mut after: Option<NamespaceName> = None;
    loop {
        let infos = store.readable_namespaces("", after.as_ref(), STEP).await?;
        let Some(last) = infos.last() else { break };
        after = Some(last.name.clone());
        for info in infos {
            store.compact(&info.name, info.tip.revision).await?;
        }
    }
    store.backend().rewrite().await?;
    say(&"compacted")
}

/// Tells a result.
fn say(text: &dyn fmt::Display) -> Result<(), OfflineError> {
    writeln!(io::stdout(), "{text}").map_err(|error| failed("the standard output", error))
}

fn failed(what: impl Into<String>, error: io::Error) -> OfflineError {
    OfflineError::Io { what: what.into(), error }
}

impl From<Status> for OfflineError {
    fn from(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }
}

impl From<StoreError> for OfflineError {
    fn from(error: StoreError) -> Self {
        Self::Store(Box::new(error))
    }
}

impl From<BackendError> for OfflineError {
    fn from(error: BackendError) -> Self {
        StoreError::from(error).into()
    }
}
