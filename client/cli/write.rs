//! Commands that write or remove: `set`, `del`.

use std::{fmt, time::Duration};

use bytes::Bytes;
use clap::Args;
use holdfast_client::{Entry, Error, Metadata, Revision, Selector};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse::{self, GuardArgs},
    shape::{EntryShape, printable},
};

#[derive(Args)]
pub struct SetArgs {
    key: String,
    /// The value; `-` takes it from the standard input, byte by byte
    #[arg(allow_negative_numbers = true)]
    value: String,
    #[command(flatten)]
    expiry: ExpiryArgs,
    #[command(flatten)]
    condition: ConditionArgs,
    #[command(flatten)]
    guards: GuardArgs,
    /// What to say the value is, such as application/json; nothing is said unless it is given
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// Also print the value before
    #[arg(long)]
    previous: bool,
}

/// When the entry is to end; unless said, the default of the namespace, else never.
#[derive(Args)]
#[group(multiple = false)]
struct ExpiryArgs {
    /// Let the key end after this time
    #[arg(long, value_parser = parse::duration)]
    ttl: Option<Duration>,
    /// Let the key end with this lease
    #[arg(long, value_name = "ID")]
    lease: Option<u64>,
    /// Leave the TTL or lease of the key as it is
    #[arg(long)]
    keep_ttl: bool,
    /// Let the key stay, whatever the default of the namespace
    #[arg(long)]
    never: bool,
}

#[derive(Args)]
#[group(multiple = false)]
struct ConditionArgs {
    /// Only if the key does not exist
    #[arg(long)]
    if_absent: bool,
    /// Only if the key exists
    #[arg(long)]
    if_present: bool,
    /// Only if the key was last changed at this revision
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,
}

pub async fn set(session: &mut Session, args: SetArgs) -> Result<Verdict, Failure> {
    let key = args.key.clone();
    match send_set(session, args).await {
        Ok(written) => {
            session.out.print(&SetShape::new(&written))?;
            Ok(Verdict::Yes)
        }
        Err(Failure::Call(Error::ConditionNotMet { current, revision })) => {
            session.refused(&key, current.as_deref(), revision)
        }
        Err(failure) => Err(failure),
    }
}

async fn send_set(session: &Session, args: SetArgs) -> Result<Written, Failure> {
    let value = parse::value_or_stdin(args.value)?;
    let call = session.namespace.set(args.key, &value);
    let mut call = args.guards.on(call, |call, guard| call.guard(guard));
    if let Some(ttl) = args.expiry.ttl {
        call = call.ttl(ttl);
    } else if let Some(lease) = args.expiry.lease {
        call = call.lease(lease);
    } else if args.expiry.keep_ttl {
        call = call.keep_ttl();
    } else if args.expiry.never {
        call = call.no_expiry();
    }
    if args.condition.if_absent {
        call = call.if_absent();
    } else if args.condition.if_present {
        call = call.if_present();
    } else if let Some(revision) = args.condition.if_revision {
        call = call.if_revision(revision);
    }
    if let Some(content_type) = args.content_type {
        call = call.content_type(content_type);
    }
    if args.previous {
        let outcome = call.return_previous::<Bytes>().await?;
        return Ok(Written {
            metadata: outcome.metadata,
            created: outcome.created,
            previous: outcome.previous,
        });
    }
    let outcome = call.await?;
    Ok(Written { metadata: outcome.metadata, created: outcome.created, previous: None })
}

struct Written {
    metadata: Metadata,
    created: bool,
    previous: Option<Entry<Bytes>>,
}

#[derive(Serialize)]
struct SetShape<'a> {
    applied: bool,
    created: bool,
    #[serde(flatten)]
    entry: EntryShape<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<EntryShape<'a>>,
    #[serde(skip)]
    written: &'a Written,
}

impl<'a> SetShape<'a> {
    fn new(written: &'a Written) -> Self {
        Self {
            applied: true,
            created: written.created,
            entry: EntryShape::without_value(&written.metadata),
            previous: written.previous.as_ref().map(EntryShape::new),
            written,
        }
    }
}

impl fmt::Display for SetShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = if self.created { "created" } else { "changed" };
        write!(f, "{done}, revision {}", self.written.metadata.mod_revision)?;
        match &self.written.previous {
            Some(previous) => write!(f, ", was {}", printable(&previous.value)),
            None => Ok(()),
        }
    }
}

#[derive(Args)]
pub struct DelArgs {
    #[arg(required_unless_present = "prefix", value_name = "KEY")]
    keys: Vec<String>,
    /// Delete every key that begins with this, 10,000 in one revision
    #[arg(long, conflicts_with = "keys")]
    prefix: Option<String>,
    /// Only if the key, which must be the only one, was last changed at this revision
    #[arg(long, value_name = "REVISION", conflicts_with = "prefix")]
    if_revision: Option<u64>,
    #[command(flatten)]
    guards: GuardArgs,
}

/// Prints how many keys were deleted. No, if one was missing.
pub async fn del(session: &mut Session, args: DelArgs) -> Result<Verdict, Failure> {
    let guards = &args.guards;
    match (&args.prefix, args.if_revision) {
        (Some(prefix), _) => del_prefix(session, prefix, guards).await,
        (None, None) => del_keys(session, &args.keys, guards).await,
        (None, Some(revision)) => match args.keys.as_slice() {
            [key] => del_if(session, key, revision, guards).await,
            _ => Err(Failure::usage("--if-revision goes with one key only")),
        },
    }
}

async fn del_prefix(
    session: &mut Session,
    prefix: &str,
    guards: &GuardArgs,
) -> Result<Verdict, Failure> {
    let mut deleted = 0;
    let last = loop {
        let call = session.namespace.delete_range(Selector::prefix(prefix));
        let outcome = guards.on(call, |call, guard| call.guard(guard)).await?;
        deleted += outcome.deleted;
        if !outcome.more {
            break outcome.header.revision;
        }
    };
    session.out.print(&DelShape::new(deleted, &[], last))?;
    Ok(Verdict::Yes)
}

async fn del_keys(
    session: &mut Session,
    keys: &[String],
    guards: &GuardArgs,
) -> Result<Verdict, Failure> {
    let call = session.namespace.delete_many(keys);
    let call = guards.on(call, |call, guard| call.guard(guard));
    let answer = call.with_header().await?;
    let deleted = answer.value.iter().filter(|deleted| **deleted).count();
    let missing: Vec<&String> = keys
        .iter()
        .zip(&answer.value)
        .filter_map(|(key, deleted)| (!deleted).then_some(key))
        .collect();
    session.out.print(&DelShape::new(deleted as u64, &missing, answer.header.revision))?;
    for key in &missing {
        session.found(key, false)?;
    }
    Ok(Verdict::of(missing.is_empty()))
}

async fn del_if(
    session: &mut Session,
    key: &String,
    revision: u64,
    guards: &GuardArgs,
) -> Result<Verdict, Failure> {
    let call = session.namespace.delete(key).if_revision(revision);
    match guards.on(call, |call, guard| call.guard(guard)).await {
        Ok(outcome) => {
            let shape = DelShape::new(u64::from(outcome.deleted), &[], outcome.header.revision);
            session.out.print(&shape)?;
            Ok(Verdict::Yes)
        }
        Err(Error::ConditionNotMet { current, revision }) => {
            session.refused(key, current.as_deref(), revision)
        }
        Err(error) => Err(error.into()),
    }
}

#[derive(Serialize)]
struct DelShape<'a> {
    deleted: u64,
    missing: &'a [&'a String],
    revision: u64,
}

impl<'a> DelShape<'a> {
    fn new(deleted: u64, missing: &'a [&'a String], revision: Revision) -> Self {
        Self { deleted, missing, revision: revision.get() }
    }
}

impl fmt::Display for DelShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} deleted, revision {}", self.deleted, self.revision)
    }
}

#[derive(Serialize)]
struct RefusedShape<'a> {
    applied: bool,
    key: &'a str,
    /// The entry that is there instead; none if the key is missing.
    current: Option<EntryShape<'a>>,
    revision: u64,
}

impl Session {
    /// The verdict on a write whose condition did not hold.
    fn refused(
        &mut self,
        key: &str,
        current: Option<&Metadata>,
        revision: Revision,
    ) -> Result<Verdict, Failure> {
        if self.out.is_json() {
            self.out.json(&RefusedShape {
                applied: false,
                key,
                current: current.map(EntryShape::without_value),
                revision: revision.get(),
            })?;
        }
        match current {
            Some(current) => self.out.remark(format_args!(
                "nothing was changed: the key {key:?} was last changed at revision {}",
                current.mod_revision
            ))?,
            None => self.out.remark(format_args!(
                "nothing was changed: there is no key {key:?} in the namespace {:?}",
                self.namespace.name()
            ))?,
        }
        Ok(Verdict::No)
    }
}
