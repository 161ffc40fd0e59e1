//! Commands on the locks of others: `locks`, `unlock`.

use std::fmt;

use clap::Args;
use futures::StreamExt as _;
use holdfast_client::{LockInfo, LockOwner, Timestamp};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    shape::{ValueShape, millis, printable, rfc3339},
};

#[derive(Args)]
pub struct LocksArgs {
    /// Only names that begin with this
    prefix: Option<String>,
}

/// Prints `NAME TOKEN HOLDER END WAITING` between tabs.
pub async fn locks(session: &mut Session, args: LocksArgs) -> Result<Verdict, Failure> {
    let mut locks = session.namespace.list_locks(args.prefix.unwrap_or_default()).stream();
    while let Some(lock) = locks.next().await {
        session.out.print(&LockShape::new(&lock?))?;
    }
    Ok(Verdict::Yes)
}

#[derive(Args)]
pub struct UnlockArgs {
    name: String,
    /// The token of the hold that is to end, as `locks` shows it
    #[arg(long)]
    token: u64,
    /// Why; the holder is told
    #[arg(long, value_name = "TEXT", default_value = "unlocked by hand")]
    reason: String,
}

/// No, if that hold was not current.
pub async fn unlock(session: &mut Session, args: UnlockArgs) -> Result<Verdict, Failure> {
    let UnlockArgs { name, token, reason } = args;
    let answer = session.namespace.break_lock(&name, token, reason).with_header().await?;
    let shape = UnlockShape {
        unlocked: answer.value,
        name: &name,
        token,
        revision: answer.header.revision.get(),
    };
    if shape.unlocked || session.out.is_json() {
        session.out.print(&shape)?;
    }
    if !shape.unlocked {
        session.out.remark(format_args!(
            "nothing was changed: the lock {name:?} is not held with the token {token}"
        ))?;
    }
    Ok(Verdict::of(shape.unlocked))
}

#[derive(Serialize)]
struct UnlockShape<'a> {
    unlocked: bool,
    name: &'a str,
    token: u64,
    revision: u64,
}

impl fmt::Display for UnlockShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unlocked, revision {}", self.revision)
    }
}

/// A lock that is held.
#[derive(Serialize)]
pub struct LockShape<'a> {
    name: &'a str,
    token: u64,
    owner: OwnerShape<'a>,
    #[serde(flatten)]
    value: ValueShape<'a>,
    acquired_at_ms: i64,
    /// None for a hold as long as a lease.
    ttl_ms: Option<u64>,
    expires_at_ms: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease_id: Option<String>,
    waiting: u32,
    #[serde(skip)]
    info: &'a LockInfo,
}

#[derive(Serialize)]
pub struct OwnerShape<'a> {
    id: &'a str,
    who: &'a str,
    reason: &'a str,
    operation: &'a str,
    client_version: &'a str,
}

impl<'a> LockShape<'a> {
    pub fn new(info: &'a LockInfo) -> Self {
        Self {
            name: &info.name,
            token: info.token.get(),
            owner: OwnerShape::new(&info.owner),
            value: ValueShape::new(&info.value),
            acquired_at_ms: info.acquired_at.as_millis(),
            ttl_ms: info.ttl.map(millis),
            expires_at_ms: info.expires_at.as_millis(),
            lease_id: info.lease_id.map(|id| id.to_string()),
            waiting: info.waiting,
            info,
        }
    }
}

impl<'a> OwnerShape<'a> {
    pub fn new(owner: &'a LockOwner) -> Self {
        Self {
            id: &owner.id,
            who: &owner.who,
            reason: &owner.reason,
            operation: &owner.operation,
            client_version: &owner.client_version,
        }
    }
}

impl fmt::Display for LockShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = printable(self.name.as_bytes());
        let owner = in_words(&self.info.owner);
        let end = end(self.info.expires_at, self.lease_id.as_deref());
        write!(f, "{name}\t{}\t{owner}\t{end}\t{} waiting", self.token, self.waiting)
    }
}

/// Says who has a lock.
pub fn held_by(lock: &LockInfo) -> String {
    let LockInfo { name, token, owner, .. } = lock;
    let owner = in_words(owner);
    let since = rfc3339(lock.acquired_at);
    format!("the lock {name:?} is held by {owner}, since {since}, with the token {token}")
}

/// `WHO (ID): REASON`, as far as it is known.
pub fn in_words(owner: &LockOwner) -> String {
    let text = match owner.reason.as_str() {
        "" => owner.to_string(),
        reason => format!("{owner}: {reason}"),
    };
    printable(text.as_bytes()).into_owned()
}

fn end(expires_at: Timestamp, lease: Option<&str>) -> String {
    match lease {
        Some(lease) => format!("with the lease {lease}"),
        None => format!("until {}", rfc3339(expires_at)),
    }
}
