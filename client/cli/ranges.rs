//! Commands on many keys: `list`, `count`; and on the past of one: `history`.

use std::fmt;

use bytes::Bytes;
use clap::Args;
use futures::StreamExt as _;
use holdfast_client::{Codec, Entry, List, Revision};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    output::Output,
    parse::SelectorArgs,
    shape::{EntryShape, EventShape, key_and_value, printable},
};

/// How many entries or changes to ask for at a time: the most that a history may have.
const MAX_PAGE: u64 = 1_000;

#[derive(Args)]
pub struct ListArgs {
    #[command(flatten)]
    which: SelectorArgs,
    /// Print the keys alone
    #[arg(long)]
    keys: bool,
    /// Stop after so many entries
    #[arg(long, value_name = "NUMBER")]
    limit: Option<u64>,
    /// From the last key to the first
    #[arg(long)]
    reverse: bool,
    /// What was there at this revision
    #[arg(long, value_name = "REVISION")]
    at: Option<u64>,
}

/// Prints `KEY VALUE` between tabs, or the keys alone; all as of one revision, however many.
pub async fn list(session: &mut Session, args: ListArgs) -> Result<Verdict, Failure> {
    if args.limit == Some(0) {
        return Err(Failure::usage("--limit must be at least 1"));
    }
    let selector = args.which.selector();
    if args.keys {
        let list = session.namespace.list_keys(selector);
        print_all(session, list, &args, |out, entry| match out.is_json() {
            true => out.json(&EntryShape::without_value(&entry.metadata)),
            false => out.line(&printable(entry.metadata.key.as_bytes())),
        })
        .await
    } else {
        let list = session.namespace.list(selector);
        print_all(session, list, &args, |out, entry: &Entry<Bytes>| match out.is_json() {
            true => out.json(&EntryShape::new(entry)),
            false => out.line(&key_and_value(entry)),
        })
        .await
    }
}

async fn print_all<C: Codec, T: 'static, E>(
    session: &mut Session,
    list: List<C, T>,
    args: &ListArgs,
    print: impl Fn(&mut Output, &Entry<T>) -> Result<(), E>,
) -> Result<Verdict, Failure>
where
    Failure: From<E>,
{
    let mut entries = refine(list, args).stream();
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0
        && let Some(entry) = entries.next().await
    {
        print(&mut session.out, &entry?)?;
        left -= 1;
    }
    Ok(Verdict::Yes)
}

fn refine<C: Codec, T: 'static>(mut list: List<C, T>, args: &ListArgs) -> List<C, T> {
    if args.reverse {
        list = list.reverse();
    }
    if let Some(revision) = args.at {
        list = list.at_revision(revision);
    }
    let page = args.limit.unwrap_or(MAX_PAGE).min(MAX_PAGE);
    list.page_size(u32::try_from(page).expect("the most is far less"))
}

#[derive(Args)]
pub struct CountArgs {
    #[command(flatten)]
    which: SelectorArgs,
}

/// Prints the number.
pub async fn count(session: &mut Session, args: CountArgs) -> Result<Verdict, Failure> {
    let selector = args.which.selector();
    let answer = session.namespace.count(selector).with_header().await?;
    session
        .out
        .print(&CountShape { count: answer.value, revision: answer.header.revision.get() })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct CountShape {
    count: u64,
    revision: u64,
}

impl fmt::Display for CountShape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count.fmt(f)
    }
}

#[derive(Args)]
pub struct HistoryArgs {
    key: String,
    /// Stop after so many changes
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    /// Only changes before this revision
    #[arg(long, value_name = "REVISION")]
    before: Option<u64>,
}

/// Prints `REVISION TYPE KEY DETAIL` between tabs. No, if nothing is held.
pub async fn history(session: &mut Session, args: HistoryArgs) -> Result<Verdict, Failure> {
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut before = args.before.map(Revision::new);
    let mut found = false;
    loop {
        let limit = u32::try_from(left.min(MAX_PAGE)).expect("the most is far less");
        let mut call = session.namespace.history::<Bytes>(&args.key).limit(limit);
        if let Some(before) = before {
            call = call.before(before);
        }
        let page = call.await?;
        for event in &page.events {
            session.out.print(&EventShape::new(event))?;
        }
        found |= !page.events.is_empty();
        left -= page.events.len() as u64;
        before = page.events.last().map(|event| event.revision);
        if !page.more || left == 0 || before.is_none() {
            break;
        }
    }
    if !found {
        let key = &args.key;
        session.out.remark(format_args!("no changes of the key {key:?} are held"))?;
    }
    Ok(Verdict::of(found))
}
