//! What is known of the server itself.

use holdfast_proto::v1;

use crate::Timestamp;

/// What the server is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerInfo {
    /// The server's time.
    pub time: Timestamp,
    /// Its version.
    pub version: String,
    /// A UUID, new at every start of the server.
    pub server_id: String,
    /// The scheme of its backend: `memory`.
    pub backend: String,
    /// What an acknowledged write survives, in words.
    pub durability: String,
    /// When it started.
    pub started_at: Timestamp,
    /// Its limits.
    pub limits: Limits,
}

/// The limits of a server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest value, in bytes.
    pub max_value_bytes: u64,
    /// The longest key, in bytes.
    pub max_key_bytes: u64,
    /// The most keys of a batch.
    pub max_batch_keys: u64,
    /// The most keys one revision may change.
    pub max_revision_keys: u64,
    /// The most bytes one revision may change.
    pub max_revision_bytes: u64,
    /// The largest request message accepted, in bytes.
    pub max_request_bytes: u64,
}

/// What the server has done since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The server's time.
    pub time: Timestamp,
    /// How many namespaces there are.
    pub namespaces: u64,
    /// How many keys all of them have together.
    pub keys: u64,
    /// How many bytes the keys, content types and values of all of them have.
    pub bytes: u64,
    /// How many events their logs hold.
    pub log_events: u64,
    /// How many bytes their logs hold.
    pub log_bytes: u64,
    /// Commands run.
    pub commands: u64,
    /// Commits; one holds the commands that were waiting together.
    pub commits: u64,
    /// Entries removed by expiry.
    pub expired: u64,
    /// Watches open now.
    pub watches: u64,
    /// Tasks there are now in the server: for each connection, each stream that lasts, and what it does by itself.
    pub tasks: u64,
}

impl ServerInfo {
    pub(crate) fn from_wire(info: v1::GetServerInfoResponse) -> Self {
        let limits = info.limits.unwrap_or_default();
        Self {
            time: Timestamp::from_millis(info.time_ms),
            version: info.version,
            server_id: info.server_id,
            backend: info.backend,
            durability: info.durability,
            started_at: Timestamp::from_millis(info.started_at_ms),
            limits: Limits {
                max_value_bytes: limits.max_value_bytes,
                max_key_bytes: limits.max_key_bytes,
                max_batch_keys: limits.max_batch_keys,
                max_revision_keys: limits.max_revision_keys,
                max_revision_bytes: limits.max_revision_bytes,
                max_request_bytes: limits.max_request_bytes,
            },
        }
    }
}

impl Stats {
    pub(crate) fn from_wire(stats: v1::GetStatsResponse) -> Self {
        Self {
            time: Timestamp::from_millis(stats.time_ms),
            namespaces: stats.namespaces,
            keys: stats.keys,
            bytes: stats.bytes,
            log_events: stats.log_events,
            log_bytes: stats.log_bytes,
            commands: stats.commands,
            commits: stats.commits,
            expired: stats.expired,
            watches: stats.watches,
            tasks: stats.tasks,
        }
    }
}
