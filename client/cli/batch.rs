//! Commands on several named keys: `mget`, `mset`.

use std::{fmt, time::Duration};

use bytes::Bytes;
use clap::Args;
use holdfast_client::{Answer, Metadata, Raw};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse::{self, GuardArgs},
    shape::{EntryShape, LookupShape, key_and_value},
};

#[derive(Args)]
pub struct MgetArgs {
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// What was there at this revision
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
}

/// Prints `KEY VALUE` between tabs in the order asked. No, if a key is missing.
pub async fn mget(session: &mut Session, args: MgetArgs) -> Result<Verdict, Failure> {
    let mut call = session.namespace.get_many::<Bytes>(&args.keys);
    if let Some(revision) = args.at {
        call = call.at_revision(revision);
    }
    let entries = call.await?;
    let mut all_found = true;
    for (key, entry) in args.keys.iter().zip(&entries) {
        if session.out.is_json() {
            session.out.json(&LookupShape::new(key, entry.as_ref()))?;
        } else if let Some(entry) = entry {
            session.out.line(&key_and_value(entry))?;
        }
        all_found &= session.found(key, entry.is_some())? == Verdict::Yes;
    }
    Ok(Verdict::of(all_found))
}

#[derive(Args)]
pub struct MsetArgs {
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = parse::pair)]
    pairs: Vec<(String, String)>,
    /// Let the keys end after this time
    #[arg(long, value_parser = parse::duration)]
    ttl: Option<Duration>,
    /// Let the keys end with this lease
    #[arg(long, value_name = "ID", conflicts_with = "ttl")]
    lease: Option<u64>,
    /// What to say the values are, such as application/json; nothing is said unless it is given
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    guards: GuardArgs,
}

pub async fn mset(session: &mut Session, args: MsetArgs) -> Result<Verdict, Failure> {
    let codec = Raw::with_content_type(args.content_type.unwrap_or_default());
    let mut call = session.namespace.with_codec(codec).set_many(args.pairs);
    if let Some(ttl) = args.ttl {
        call = call.ttl(ttl);
    } else if let Some(lease) = args.lease {
        call = call.lease(lease);
    }
    let call = args.guards.on(call, |call, guard| call.guard(guard));
    let answer = call.with_header().await?;
    session.out.print(&MsetShape::new(&answer))?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct MsetShape<'a> {
    revision: u64,
    entries: Vec<EntryShape<'a>>,
    #[serde(skip)]
    created: usize,
}

impl<'a> MsetShape<'a> {
    fn new(answer: &'a Answer<Vec<Metadata>>) -> Self {
        Self {
            revision: answer.header.revision.get(),
            entries: answer.value.iter().map(EntryShape::without_value).collect(),
            created: answer.value.iter().filter(|metadata| metadata.version == 1).count(),
        }
    }
}

impl fmt::Display for MsetShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let created = self.created;
        let changed = self.entries.len() - created;
        write!(f, "{created} created, {changed} changed, revision {}", self.revision)
    }
}
