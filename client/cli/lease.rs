//! `lease`.

use std::{fmt, time::Duration};

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use holdfast_client::{Error, LeaseContents, LeaseInfo, Revision, Revoked};
use serde::Serialize;
use tokio::time::{self, Instant};

use crate::{
    Session, Verdict,
    failure::Failure,
    parse,
    process::Signals,
    shape::{in_words, millis, printable, rfc3339},
};

#[derive(Subcommand)]
pub enum LeaseCommand {
    /// Grant a lease and print its id
    Grant(GrantArgs),
    /// Keep a lease alive until Ctrl-C
    Keepalive(KeepaliveArgs),
    /// End a lease, its keys and locks with it
    Revoke(LeaseArgs),
    /// Print a lease, with its keys and locks
    Get(LeaseArgs),
    /// List the leases
    List,
}

impl LeaseCommand {
    pub fn only_reads(&self) -> bool {
        matches!(self, LeaseCommand::Get(_) | LeaseCommand::List)
    }
}

pub async fn lease(session: &mut Session, command: LeaseCommand) -> Result<Verdict, Failure> {
    match command {
        LeaseCommand::Grant(args) => grant(session, args).await,
        LeaseCommand::Keepalive(args) => keepalive(session, args).await,
        LeaseCommand::Revoke(args) => revoke(session, args.id).await,
        LeaseCommand::Get(args) => get(session, args.id).await,
        LeaseCommand::List => list(session).await,
    }
}

#[derive(Args)]
pub struct LeaseArgs {
    /// The id of the lease
    id: u64,
}

#[derive(Args)]
pub struct GrantArgs {
    /// How long it lasts unless it is kept alive, such as 30s
    #[arg(value_parser = parse::duration)]
    ttl: Duration,
    /// Its id; chosen at random unless given
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    id: Option<u64>,
}

/// Prints the id alone, for scripts.
async fn grant(session: &mut Session, args: GrantArgs) -> Result<Verdict, Failure> {
    let mut call = session.namespace.grant_lease(args.ttl);
    if let Some(id) = args.id {
        call = call.id(id);
    }
    let lease = call.await?;
    let ttl_ms = millis(lease.ttl());
    session.out.print(&GrantShape { lease_id: lease.detach().to_string(), ttl_ms })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct GrantShape {
    lease_id: String,
    ttl_ms: u64,
}

impl fmt::Display for GrantShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lease_id)
    }
}

#[derive(Args)]
pub struct KeepaliveArgs {
    /// The id of the lease
    id: u64,
    /// Keep it alive once and end
    #[arg(long)]
    once: bool,
}

/// Prints the lease each time it was kept alive. No, if it has ended.
async fn keepalive(session: &mut Session, args: KeepaliveArgs) -> Result<Verdict, Failure> {
    let mut signals = Signals::listen()?;
    let keeping = async {
        match keep(session, &args).await {
            Err(Failure::Call(Error::LeaseNotFound { .. })) => session.lease_found(args.id, false),
            verdict => verdict,
        }
    };
    tokio::select! {
        verdict = keeping => verdict,
        _ = signals.next() => Ok(Verdict::Yes),
    }
}

async fn keep(session: &mut Session, args: &KeepaliveArgs) -> Result<Verdict, Failure> {
    let mut alive_until = None;
    let mut limit = session.timeout;
    loop {
        let asked = Instant::now();
        match session.namespace.keep_alive_once(args.id).timeout(limit).await {
            Ok(lease) => {
                session.out.print(&LeaseShape::new(&lease))?;
                session.out.flush()?;
                if args.once {
                    return Ok(Verdict::Yes);
                }
                alive_until = asked.checked_add(lease.ttl);
                // A late answer leaves time to ask again.
                limit = session.timeout.min(lease.ttl / 3);
                time::sleep_until(asked + lease.ttl / 3).await;
            }
            // It lives on for a while without an answer: the next may come in time. To do it twice does no harm.
            Err(error)
                if (error.is_transient() || error.outcome_unknown())
                    && alive_until > Some(Instant::now()) =>
            {
                session.out.remark(format_args!("asking again: {error}"))?;
                time::sleep(RETRY_PAUSE).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// How long to wait before asking again where nobody answered.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

async fn revoke(session: &mut Session, id: u64) -> Result<Verdict, Failure> {
    let answer = session.namespace.revoke_lease(id).with_header().await?;
    let shape = RevokeShape::new(id, &answer.value, answer.header.revision);
    if shape.revoked || session.out.is_json() {
        session.out.print(&shape)?;
    }
    session.lease_found(id, shape.revoked)
}

/// No, if there is no such lease.
async fn get(session: &mut Session, id: u64) -> Result<Verdict, Failure> {
    let contents = session.namespace.get_lease(id).attached().await?;
    if session.out.is_json() {
        session.out.json(&LookupShape::new(id, contents.as_ref()))?;
    } else if let Some(contents) = &contents {
        session.out.line(&ContentsShape::new(contents).to_string())?;
    }
    session.lease_found(id, contents.is_some())
}

/// Prints `ID TTL END KEYS LOCKS` between tabs.
async fn list(session: &mut Session) -> Result<Verdict, Failure> {
    let mut leases = session.namespace.list_leases().stream();
    while let Some(lease) = leases.next().await {
        session.out.print(&LeaseShape::new(&lease?))?;
    }
    Ok(Verdict::Yes)
}

impl Session {
    /// The verdict on a lease that was asked for; people are told if it is not there.
    fn lease_found(&mut self, id: u64, found: bool) -> Result<Verdict, Failure> {
        if !found {
            let namespace = self.namespace.name().to_owned();
            self.out
                .remark(format_args!("there is no lease {id} in the namespace {namespace:?}"))?;
        }
        Ok(Verdict::of(found))
    }
}

/// A lease. As text, `ID TTL END KEYS LOCKS` between tabs.
#[derive(Serialize)]
struct LeaseShape<'a> {
    lease_id: String,
    ttl_ms: u64,
    granted_at_ms: i64,
    expires_at_ms: i64,
    #[serde(rename = "key_count")]
    keys: u32,
    #[serde(rename = "lock_count")]
    locks: u32,
    #[serde(skip)]
    info: &'a LeaseInfo,
}

impl<'a> LeaseShape<'a> {
    fn new(info: &'a LeaseInfo) -> Self {
        Self {
            lease_id: info.id.to_string(),
            ttl_ms: millis(info.ttl),
            granted_at_ms: info.granted_at.as_millis(),
            expires_at_ms: info.expires_at.as_millis(),
            keys: info.keys,
            locks: info.locks,
            info,
        }
    }
}

impl fmt::Display for LeaseShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ttl, end) = (in_words(self.info.ttl), rfc3339(self.info.expires_at));
        write!(f, "{}\t{ttl}\tuntil {end}\t", self.lease_id)?;
        write!(f, "{}\t{}", counted(self.keys, "key"), counted(self.locks, "lock"))
    }
}

/// A lease asked for, and what is known of it if it exists.
#[derive(Serialize)]
struct LookupShape<'a> {
    found: bool,
    /// The id where nothing else has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    #[serde(flatten)]
    contents: Option<ContentsShape<'a>>,
}

impl<'a> LookupShape<'a> {
    fn new(id: u64, contents: Option<&'a LeaseContents>) -> Self {
        Self {
            found: contents.is_some(),
            lease_id: contents.is_none().then(|| id.to_string()),
            contents: contents.map(ContentsShape::new),
        }
    }
}

/// A lease and what is attached to it; as text, a line each.
#[derive(Serialize)]
struct ContentsShape<'a> {
    #[serde(flatten)]
    lease: LeaseShape<'a>,
    keys: &'a [String],
    locks: &'a [String],
    /// Whether more is attached than fits into an answer.
    more: bool,
}

impl<'a> ContentsShape<'a> {
    fn new(contents: &'a LeaseContents) -> Self {
        Self {
            lease: LeaseShape::new(&contents.info),
            keys: &contents.keys,
            locks: &contents.locks,
            more: contents.more,
        }
    }
}

impl fmt::Display for ContentsShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lease.fmt(f)?;
        for key in self.keys {
            write!(f, "\nkey\t{}", printable(key.as_bytes()))?;
        }
        for lock in self.locks {
            write!(f, "\nlock\t{}", printable(lock.as_bytes()))?;
        }
        f.write_str(if self.more { "\nand more" } else { "" })
    }
}

#[derive(Serialize)]
struct RevokeShape {
    revoked: bool,
    lease_id: String,
    #[serde(rename = "key_count")]
    keys: u32,
    #[serde(rename = "lock_count")]
    locks: u32,
    revision: u64,
}

impl RevokeShape {
    fn new(id: u64, outcome: &Revoked, revision: Revision) -> Self {
        Self {
            revoked: outcome.revoked,
            lease_id: id.to_string(),
            keys: outcome.keys,
            locks: outcome.locks,
            revision: revision.get(),
        }
    }
}

impl fmt::Display for RevokeShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (keys, locks) = (counted(self.keys, "key"), counted(self.locks, "lock"));
        write!(f, "revoked, with {keys} and {locks}, revision {}", self.revision)
    }
}

fn counted(number: u32, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}
