//! Commands on the server itself: `stats`, `compact`, `info`.

use std::fmt;

use clap::Args;
use holdfast_client::{ServerInfo, Stats};
use serde::Serialize;

use crate::{Session, Verdict, failure::Failure, shape::rfc3339};

pub async fn stats(session: &mut Session) -> Result<Verdict, Failure> {
    let stats = session.client.stats().await?;
    session.out.print(&StatsShape::new(&stats))?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct StatsShape {
    time_ms: i64,
    namespaces: u64,
    keys: u64,
    bytes: u64,
    log_events: u64,
    log_bytes: u64,
    commands: u64,
    commits: u64,
    expired: u64,
    watches: u64,
}

impl StatsShape {
    fn new(stats: &Stats) -> Self {
        Self {
            time_ms: stats.time.as_millis(),
            namespaces: stats.namespaces,
            keys: stats.keys,
            bytes: stats.bytes,
            log_events: stats.log_events,
            log_bytes: stats.log_bytes,
            commands: stats.commands,
            commits: stats.commits,
            expired: stats.expired,
            watches: stats.watches,
        }
    }
}

impl fmt::Display for StatsShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "namespaces  {}", self.namespaces)?;
        writeln!(f, "keys        {}", self.keys)?;
        writeln!(f, "bytes       {}", self.bytes)?;
        writeln!(f, "log events  {}", self.log_events)?;
        writeln!(f, "log bytes   {}", self.log_bytes)?;
        writeln!(f, "watches     {}", self.watches)?;
        writeln!(f, "since the server started:")?;
        writeln!(f, "commands    {}", self.commands)?;
        writeln!(f, "commits     {}", self.commits)?;
        write!(f, "expired     {}", self.expired)
    }
}

#[derive(Args)]
pub struct CompactArgs {
    /// The last revision to forget
    revision: u64,
}

pub async fn compact(session: &mut Session, args: CompactArgs) -> Result<Verdict, Failure> {
    let call = session.namespace.compact(args.revision);
    let answer = call.with_header().await?;
    session.out.print(&CompactShape {
        compacted_revision: answer.value.get(),
        revision: answer.header.revision.get(),
    })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct CompactShape {
    compacted_revision: u64,
    revision: u64,
}

impl fmt::Display for CompactShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "compacted through revision {}", self.compacted_revision)
    }
}

pub async fn info(session: &mut Session) -> Result<Verdict, Failure> {
    let info = session.client.server_info().await?;
    session.out.print(&InfoShape::new(&info))?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct InfoShape<'a> {
    version: &'a str,
    server_id: &'a str,
    backend: &'a str,
    durability: &'a str,
    time_ms: i64,
    started_at_ms: i64,
    limits: LimitsShape,
    #[serde(skip)]
    info: &'a ServerInfo,
}

#[derive(Serialize)]
struct LimitsShape {
    max_value_bytes: u64,
    max_key_bytes: u64,
    max_batch_keys: u64,
    max_revision_keys: u64,
    max_revision_bytes: u64,
    max_request_bytes: u64,
}

impl<'a> InfoShape<'a> {
    fn new(info: &'a ServerInfo) -> Self {
        let limits = &info.limits;
        Self {
            version: &info.version,
            server_id: &info.server_id,
            backend: &info.backend,
            durability: &info.durability,
            time_ms: info.time.as_millis(),
            started_at_ms: info.started_at.as_millis(),
            limits: LimitsShape {
                max_value_bytes: limits.max_value_bytes,
                max_key_bytes: limits.max_key_bytes,
                max_batch_keys: limits.max_batch_keys,
                max_revision_keys: limits.max_revision_keys,
                max_revision_bytes: limits.max_revision_bytes,
                max_request_bytes: limits.max_request_bytes,
            },
            info,
        }
    }
}

impl fmt::Display for InfoShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = &self.limits;
        writeln!(f, "version     {}", self.version)?;
        writeln!(f, "server      {}", self.server_id)?;
        writeln!(f, "started     {}", rfc3339(self.info.started_at))?;
        writeln!(f, "time        {}", rfc3339(self.info.time))?;
        writeln!(f, "backend     {}", self.backend)?;
        writeln!(f, "durability  {}", self.durability)?;
        writeln!(f, "at most:")?;
        writeln!(f, "key         {} bytes", limits.max_key_bytes)?;
        writeln!(f, "value       {} bytes", limits.max_value_bytes)?;
        writeln!(f, "batch       {} keys", limits.max_batch_keys)?;
        writeln!(
            f,
            "revision    {} keys, {} bytes",
            limits.max_revision_keys, limits.max_revision_bytes
        )?;
        write!(f, "request     {} bytes", limits.max_request_bytes)
    }
}
