//! `watch`.

use std::{pin::pin, str::FromStr};

use bytes::Bytes;
use clap::Args;
use futures::StreamExt as _;
use holdfast_client::{Cursor, Error, Revision, WatchItem, WatchStream};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse::SelectorArgs,
    shape::{EntryShape, EventShape, printable},
};

pub const HELP: &str = "\
Text is REVISION TYPE KEY DETAIL between tabs. TYPE is SET, with the value; TTL (the expiry alone was
changed), with the new one; DELETE; EXPIRE (the key has reached its end); CLEAR (all keys of the namespace
were removed); and with --initial, ENTRY for what is there already. With --expiries or --previous, DELETE
and EXPIRE have the last value.

JSON is an object a line with a `type`: first `watching`; then `initial` entries up to `initial_end`; then
set, ttl_changed, delete, expire and clear, with `entry` (after) and `previous` (before, if asked for).
`watching`, `initial_end` and (with --progress) `progress` have a `cursor`: everything up to it has been
printed, and --after goes on from it. `reset` means that what came before no longer counts: initial entries follow.

A broken connection is mended, and nothing is lost or told twice. The watch ends with an error if the
history it needs is no longer held, or the namespace is deleted.";

#[derive(Args)]
pub struct WatchArgs {
    #[command(flatten)]
    which: SelectorArgs,
    /// Begin after this revision, or after a cursor (REVISION@LINEAGE)
    #[arg(long, value_name = "REVISION")]
    after: Option<After>,
    /// Begin with the entries there are
    #[arg(long, conflicts_with = "after")]
    initial: bool,
    /// Only keys that reach their end, with their last value
    #[arg(long)]
    expiries: bool,
    /// Print the value before each change, too
    #[arg(long)]
    previous: bool,
    /// Also print how far the watch has come: after events, and from time to time without
    #[arg(long)]
    progress: bool,
    /// Stop after so many events
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Where to begin.
#[derive(Clone)]
enum After {
    Revision(Revision),
    Cursor(Cursor),
}

impl FromStr for After {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(revision) = text.parse::<u64>() {
            return Ok(After::Revision(Revision::new(revision)));
        }
        text.parse().map(After::Cursor).map_err(|_| "neither a revision nor REVISION@LINEAGE")
    }
}

pub async fn watch(session: &mut Session, args: WatchArgs) -> Result<Verdict, Failure> {
    let mut interrupt = pin!(tokio::signal::ctrl_c());
    let watching = async {
        let mut stream = open(session, &args).await?;
        announce(session, &args, &stream)?;
        let mut left = args.count.unwrap_or(u64::MAX);
        while left > 0
            && let Some(item) = stream.next().await
        {
            left -= u64::from(print(session, item?, args.progress)?);
            // Whoever follows wants to see each change at once.
            session.out.flush()?;
        }
        Ok(Verdict::Yes)
    };
    tokio::select! {
        verdict = watching => verdict,
        _ = &mut interrupt => Ok(Verdict::Yes),
    }
}

async fn open(session: &Session, args: &WatchArgs) -> Result<WatchStream<Bytes>, Error> {
    let selector = args.which.selector();
    let mut watch = session.namespace.watch::<Bytes>(selector);
    match &args.after {
        Some(After::Revision(revision)) => watch = watch.after_revision(*revision),
        Some(After::Cursor(cursor)) => watch = watch.after(cursor.clone()),
        None if args.initial => watch = watch.initial(),
        None => {}
    }
    if args.expiries {
        watch = watch.expiries();
    }
    if args.previous {
        watch = watch.with_previous();
    }
    watch.await
}

/// Says that the watch stands: from now on, nothing is missed.
fn announce(
    session: &mut Session,
    args: &WatchArgs,
    stream: &WatchStream<Bytes>,
) -> Result<(), Failure> {
    if session.out.is_json() {
        session.out.json(&Mark::new("watching", stream.cursor()))?;
        return session.out.flush();
    }
    let what = match (&args.which.glob, &args.which.prefix) {
        (Some(glob), _) => format!("{glob:?}"),
        (None, Some(prefix)) => format!("keys that begin with {prefix:?}"),
        (None, None) => "all keys".to_owned(),
    };
    let from = match stream.cursor() {
        Some(cursor) => format!("after revision {}", cursor.revision),
        None => "beginning with what is there".to_owned(),
    };
    let namespace = session.namespace.name().to_owned();
    session
        .out
        .remark(format_args!("watching {what} in the namespace {namespace:?}, {from}; Ctrl-C ends"))
}

/// Prints an item, and tells whether it was an event.
fn print(session: &mut Session, item: WatchItem<Bytes>, progress: bool) -> Result<bool, Failure> {
    let out = &mut session.out;
    match item {
        WatchItem::Event(event) => {
            out.print(&EventShape::new(&event))?;
            return Ok(true);
        }
        WatchItem::Initial(entry) if out.is_json() => {
            out.json(&InitialShape { r#type: "initial", entry: EntryShape::new(&entry) })?
        }
        WatchItem::Initial(entry) => out.line(&format!(
            "{}\tENTRY\t{}\t{}",
            entry.mod_revision(),
            printable(entry.key().as_bytes()),
            printable(&entry.value)
        ))?,
        WatchItem::InitialEnd(cursor) if out.is_json() => {
            out.json(&Mark::new("initial_end", Some(&cursor)))?;
        }
        WatchItem::InitialEnd(cursor) => out
            .remark(format_args!("that was all at revision {}; changes follow", cursor.revision))?,
        WatchItem::Progress(_) if !progress => {}
        WatchItem::Progress(cursor) if out.is_json() => {
            out.json(&Mark::new("progress", Some(&cursor)))?;
        }
        WatchItem::Progress(cursor) => {
            out.line(&format!("{}\tPROGRESS\t{cursor}", cursor.revision))?;
        }
        WatchItem::Reset if out.is_json() => out.json(&Mark::new("reset", None))?,
        WatchItem::Reset => {
            out.remark("the connection broke: beginning again with what is there")?;
        }
        _ => {}
    }
    Ok(false)
}

#[derive(Serialize)]
struct InitialShape<'a> {
    r#type: &'static str,
    entry: EntryShape<'a>,
}

/// A line that is not about a key.
#[derive(Serialize)]
struct Mark {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

impl Mark {
    fn new(r#type: &'static str, cursor: Option<&Cursor>) -> Self {
        Self { r#type, cursor: cursor.map(Cursor::to_string) }
    }
}
