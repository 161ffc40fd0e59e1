//! Commands on one key: `get`, `exists`, `ttl`, `expire`, `incr`.

use std::{fmt, time::Duration};

use bytes::Bytes;
use clap::Args;
use holdfast_client::{Expiry, Header, Ttl};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse::{self, GuardArgs},
    shape::{LookupShape, in_words, millis, printable},
};

#[derive(Args)]
pub struct KeyArgs {
    key: String,
}

#[derive(Args)]
pub struct GetArgs {
    key: String,
    /// The value that the key had at this revision
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
    /// Also let the key end after this time, or `never`
    #[arg(long, value_name = "TTL", value_parser = parse::expiry, conflicts_with = "at")]
    touch: Option<Expiry>,
    /// Print the bytes of the value and nothing else: no line break after it, no JSON
    #[arg(long)]
    raw: bool,
}

/// Prints the bare value and a line break.
pub async fn get(session: &mut Session, args: GetArgs) -> Result<Verdict, Failure> {
    let mut call = session.namespace.get::<Bytes>(&args.key);
    if let Some(revision) = args.at {
        call = call.at_revision(revision);
    }
    if let Some(expiry) = args.touch {
        call = call.touch(expiry);
    }
    let entry = call.await?;
    if session.out.is_json() && !args.raw {
        let lookup = LookupShape::new(&args.key, entry.as_ref());
        session.out.json(&lookup)?;
    } else if let Some(entry) = &entry {
        session.out.bytes(&entry.value)?;
        if !args.raw {
            session.out.bytes(b"\n")?;
        }
    }
    session.found(&args.key, entry.is_some())
}

/// Prints `true` or `false`.
pub async fn exists(session: &mut Session, args: KeyArgs) -> Result<Verdict, Failure> {
    let answer = session.namespace.exists(&args.key).with_header().await?;
    session.out.print(&ExistsShape {
        key: &args.key,
        exists: answer.value,
        revision: answer.header.revision.get(),
    })?;
    Ok(Verdict::of(answer.value))
}

#[derive(Serialize)]
struct ExistsShape<'a> {
    key: &'a str,
    exists: bool,
    revision: u64,
}

impl fmt::Display for ExistsShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.exists.fmt(f)
    }
}

/// Prints the rest of the TTL, or `never`.
pub async fn ttl(session: &mut Session, args: KeyArgs) -> Result<Verdict, Failure> {
    let answer = session.namespace.ttl(&args.key).with_header().await?;
    let shape = TtlShape::new(&args.key, answer.value, answer.header);
    if shape.found || session.out.is_json() {
        session.out.print(&shape)?;
    }
    session.found(&args.key, shape.found)
}

#[derive(Serialize)]
struct TtlShape<'a> {
    found: bool,
    key: &'a str,
    /// None for a key that stays, or is missing.
    ttl_ms: Option<u64>,
    revision: u64,
}

impl<'a> TtlShape<'a> {
    fn new(key: &'a str, ttl: Ttl, header: Header) -> Self {
        Self {
            found: ttl != Ttl::Missing,
            key,
            ttl_ms: match ttl {
                Ttl::Remaining(rest) => Some(millis(rest)),
                Ttl::Missing | Ttl::Never => None,
            },
            revision: header.revision.get(),
        }
    }
}

impl fmt::Display for TtlShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ttl_ms {
            Some(millis) => f.write_str(&in_words(Duration::from_millis(millis))),
            None => f.write_str("never"),
        }
    }
}

#[derive(Args)]
pub struct ExpireArgs {
    key: String,
    /// From now on, such as 30s; `never` lets the key stay
    #[arg(value_parser = parse::expiry)]
    ttl: Expiry,
    #[command(flatten)]
    guards: GuardArgs,
}

pub async fn expire(session: &mut Session, args: ExpireArgs) -> Result<Verdict, Failure> {
    let call = session.namespace.set_ttl(&args.key, args.ttl);
    let call = args.guards.on(call, |call, guard| call.guard(guard));
    let answer = call.with_header().await?;
    let shape = ExpireShape {
        found: answer.value,
        key: &args.key,
        revision: answer.header.revision.get(),
        expiry: args.ttl,
    };
    if shape.found || session.out.is_json() {
        session.out.print(&shape)?;
    }
    session.found(&args.key, shape.found)
}

#[derive(Serialize)]
struct ExpireShape<'a> {
    found: bool,
    key: &'a str,
    revision: u64,
    #[serde(skip)]
    expiry: Expiry,
}

impl fmt::Display for ExpireShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = printable(self.key.as_bytes());
        match self.expiry {
            Expiry::Ttl(ttl) => write!(f, "{key} ends in {}", in_words(ttl))?,
            _ => write!(f, "{key} never ends")?,
        }
        write!(f, ", revision {}", self.revision)
    }
}

#[derive(Args)]
pub struct IncrArgs {
    key: String,
    /// What to add; may be negative
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    delta: i64,
    /// What a missing key counts as
    #[arg(long, value_name = "NUMBER", default_value_t = 0, allow_negative_numbers = true)]
    initial: i64,
    /// Let the key end after this time, if this creates it
    #[arg(long, value_parser = parse::duration)]
    ttl: Option<Duration>,
    #[command(flatten)]
    guards: GuardArgs,
}

/// Prints the new number.
pub async fn incr(session: &mut Session, args: IncrArgs) -> Result<Verdict, Failure> {
    let call = session.namespace.increment(&args.key, args.delta);
    let mut call = args.guards.on(call.initial(args.initial), |call, guard| call.guard(guard));
    if let Some(ttl) = args.ttl {
        call = call.ttl(ttl);
    }
    let answer = call.with_header().await?;
    session.out.print(&IncrShape {
        key: &args.key,
        value: answer.value,
        revision: answer.header.revision.get(),
    })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct IncrShape<'a> {
    key: &'a str,
    value: i64,
    revision: u64,
}

impl fmt::Display for IncrShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl Session {
    /// The verdict on a key that was asked for; people are told if it is missing.
    pub fn found(&mut self, key: &str, found: bool) -> Result<Verdict, Failure> {
        if !found {
            let namespace = self.namespace.name().to_owned();
            self.out
                .remark(format_args!("there is no key {key:?} in the namespace {namespace:?}"))?;
        }
        Ok(Verdict::of(found))
    }
}
