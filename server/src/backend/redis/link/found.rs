//! How the servers are set up, as far as they tell.

use std::collections::HashMap;

use redis::Value;
use tracing::{info, warn};

use super::connection::{Connection, Failure, text};
use crate::backend::redis::url::{Kind, Settings};

/// The first version that has all that is used.
const OLDEST: u32 = 7;

/// What was found at the start. What a server does not tell this user is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    /// The version of Redis, or the one that it is compatible with.
    pub(crate) version: Option<String>,
    /// What is done with keys when the memory is used up.
    pub(crate) eviction: Option<String>,
    /// What survives a restart.
    pub(crate) kept: Option<Kept>,
    /// How many replicas there are.
    pub(crate) replicas: Option<u32>,
    /// How many replicas a commit is waited for.
    pub(crate) waited_for: u32,
}

/// What survives a restart of Redis, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Nothing is written to disk.
    Nothing,
    /// Snapshots from time to time.
    Snapshots,
    /// `appendfsync no`.
    SyncedBySystem,
    /// `appendfsync everysec`.
    SyncedEverySecond,
    /// `appendfsync always`.
    SyncedAlways,
}

impl Found {
    /// Asks a server.
    ///
    /// # Errors
    /// Where it is too old, or of another kind than the URL says.
    pub(super) async fn look(settings: &Settings, connection: &Connection) -> Result<Self, String> {
        let address = &connection.address;
        let info = match connection.command(&redis::cmd("INFO")).await {
            Ok(answer) => fields(&text(&answer).unwrap_or_default()),
            Err(Failure::Refused(_)) => {
                warn!(
                    "Redis at {address} does not tell this user about itself: its version and settings are not \
                       checked (allow +info and +config|get)"
                );
                HashMap::new()
            }
            Err(failure) => return Err(format!("Redis at {address}: {failure}")),
        };
        let field = |name: &str| info.get(name).cloned();
        let version = field("redis_version");
        if let Some(version) = version.as_ref().filter(|version| !is_new_enough(version)) {
            return Err(format!("needs Redis {OLDEST}.0 or later; at {address} is {version}"));
        }
        check_kind(settings, field("redis_mode").as_deref())?;
        let found = Self {
            version,
            eviction: field("maxmemory_policy"),
            kept: kept(connection, field("aof_enabled").as_deref()).await?,
            replicas: field("connected_slaves").and_then(|number| number.parse().ok()),
            waited_for: settings.wait.map_or(0, |(replicas, _)| replicas),
        };
        found.tell(connection);
        Ok(found)
    }

    /// What an acknowledged write survives, in words.
    pub(crate) fn durability(&self) -> String {
        let kept = match self.kept {
            None => "what Redis is set up to keep (it does not tell this user)",
            Some(Kept::Nothing) => "the end of holdfastd alone: Redis keeps nothing on disk",
            Some(Kept::Snapshots) => {
                "the end of holdfastd; a restart of Redis loses what came after its last snapshot"
            }
            Some(Kept::SyncedBySystem) => {
                "the end of Redis (append-only file); a power failure loses what the system had not synced"
            }
            Some(Kept::SyncedEverySecond) => {
                "the end of Redis (append-only file); a power failure loses up to about a second"
            }
            Some(Kept::SyncedAlways) => {
                "process and power failure (append-only file, synced always)"
            }
        };
        match self.waited_for {
            0 => kept.into(),
            1 => format!("{kept}; and a failover, if it is to the replica that was waited for"),
            replicas => {
                format!(
                    "{kept}; and a failover, if it is to one of the {replicas} replicas that were waited for"
                )
            }
        }
    }

    /// What holds of both of two servers.
    pub(super) fn with(self, other: Self) -> Self {
        let is_noeviction = self.eviction.as_deref() == Some("noeviction");
        Self {
            version: self.version.min(other.version),
            eviction: if is_noeviction { other.eviction } else { self.eviction },
            kept: self.kept.min(other.kept),
            replicas: self.replicas.min(other.replicas),
            waited_for: self.waited_for,
        }
    }

    fn tell(&self, connection: &Connection) {
        let address = &connection.address;
        if let Some(policy) = self.eviction.as_ref().filter(|policy| *policy != "noeviction") {
            warn!(
                "Redis at {address} has the eviction policy {policy}: when its memory is used up it throws away parts \
                 of the state, unnoticed; set maxmemory-policy noeviction"
            );
        }
        if let Some(replicas) = self.replicas.filter(|replicas| *replicas < self.waited_for) {
            let waited_for = self.waited_for;
            warn!(
                "Redis at {address} has {replicas} replicas, but commits wait for {waited_for}: their outcome will be \
                 unknown until there are as many"
            );
        }
        let version = self.version.as_deref().unwrap_or("of an unknown version");
        info!(
            "Redis at {address}, {version}: an acknowledged write survives {}",
            self.durability()
        );
    }
}

/// `name:value`, a line each.
fn fields(text: &str) -> HashMap<String, String> {
    let fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.map(|(name, value)| (name.into(), value.trim_end().into())).collect()
}

/// Whether a version has all that is used; one that cannot be read is taken to.
pub(super) fn is_new_enough(version: &str) -> bool {
    version
        .split('.')
        .next()
        .and_then(|major| major.parse().ok())
        .is_none_or(|major: u32| major >= OLDEST)
}

fn check_kind(settings: &Settings, mode: Option<&str>) -> Result<(), String> {
    match (mode, &settings.kind) {
        (Some("cluster"), Kind::Single | Kind::Sentinel { .. }) => {
            Err("is a node of a cluster: the URL for that is redis+cluster://HOST:PORT".into())
        }
        (Some("standalone"), Kind::Cluster) => {
            Err("is not a node of a cluster: the URL for that is redis://HOST:PORT".into())
        }
        (Some("sentinel"), _) => {
            Err("is a sentinel: the URL for that is redis+sentinel://HOST:PORT/MASTER".into())
        }
        _ => Ok(()),
    }
}

async fn kept(connection: &Connection, aof: Option<&str>) -> Result<Option<Kept>, String> {
    let mut command = redis::cmd("CONFIG");
    command.arg("GET").arg("appendfsync").arg("save");
    let config = match connection.command(&command).await {
        Ok(answer) => pairs(answer),
        Err(Failure::Refused(_)) => HashMap::new(),
        Err(failure) => return Err(failure.to_string()),
    };
    let config = |name: &str| config.get(name).map(String::as_str);
    let kept = match (aof, config("appendfsync"), config("save")) {
        (Some("1"), Some("always"), _) => Some(Kept::SyncedAlways),
        (Some("1"), Some("no"), _) => Some(Kept::SyncedBySystem),
        // Also what holds where nothing is set.
        (Some("1"), ..) => Some(Kept::SyncedEverySecond),
        (Some(_), _, Some("")) => Some(Kept::Nothing),
        (Some(_), _, Some(_)) => Some(Kept::Snapshots),
        _ => None,
    };
    Ok(kept)
}

fn pairs(answer: Value) -> HashMap<String, String> {
    let pairs = match answer {
        Value::Map(pairs) => pairs,
        _ => Vec::new(),
    };
    pairs.iter().filter_map(|(name, value)| text(name).zip(text(value))).collect()
}
