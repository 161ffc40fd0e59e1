//! `ns`: namespaces and their settings.

use std::{
    fmt,
    io::{self, IsTerminal as _, Write as _},
    str::FromStr,
    time::Duration,
};

use clap::{Args, Subcommand};
use futures::StreamExt as _;
use holdfast_client::{NamespaceInfo, NamespaceSettings};
use serde::Serialize;

use crate::{
    Session, Verdict,
    failure::Failure,
    parse,
    shape::{in_words, millis, printable, rfc3339},
};

#[derive(Subcommand)]
pub enum NsCommand {
    /// List the namespaces
    List(ListArgs),
    /// Print what is known of a namespace
    Show(ShowArgs),
    /// Change settings; creates the namespace if need be
    Set(Box<SetArgs>),
    /// Remove all keys of a namespace
    Clear(RemoveArgs),
    /// Remove a namespace with its keys, settings and history
    Delete(RemoveArgs),
}

impl NsCommand {
    pub fn only_reads(&self) -> bool {
        matches!(self, NsCommand::List(_) | NsCommand::Show(_))
    }
}

pub async fn ns(session: &mut Session, command: NsCommand) -> Result<Verdict, Failure> {
    match command {
        NsCommand::List(args) => list(session, args).await,
        NsCommand::Show(args) => show(session, args).await,
        NsCommand::Set(args) => set(session, *args).await,
        NsCommand::Clear(args) => clear(session, args).await,
        NsCommand::Delete(args) => delete(session, args).await,
    }
}

#[derive(Args)]
pub struct ListArgs {
    /// Only names that begin with this
    prefix: Option<String>,
}

/// Prints `NAME KEYS REVISION` between tabs.
async fn list(session: &mut Session, args: ListArgs) -> Result<Verdict, Failure> {
    let call = session.client.namespaces();
    let mut namespaces = call.prefix(args.prefix.unwrap_or_default()).stream();
    while let Some(info) = namespaces.next().await {
        let info = info?;
        if session.out.is_json() {
            session.out.json(&InfoShape::new(&info))?;
        } else {
            session.out.line(&format!(
                "{}\t{}\trevision {}",
                printable(info.name.as_bytes()),
                keys(info.key_count),
                info.revision
            ))?;
        }
    }
    Ok(Verdict::Yes)
}

#[derive(Args)]
pub struct ShowArgs {
    /// The namespace, instead of that of -n
    name: Option<String>,
}

async fn show(session: &mut Session, args: ShowArgs) -> Result<Verdict, Failure> {
    let name = session.name_or(args.name);
    let info = session.client.namespace(&name).info().await?;
    if session.out.is_json() {
        session.out.json(&ShowShape::new(&name, info.as_ref()))?;
    } else if let Some(info) = &info {
        session.out.line(&InfoShape::new(info).to_string())?;
    }
    if info.is_some() { Ok(Verdict::Yes) } else { session.no_such_namespace(&name) }
}

/// A namespace asked for, and what is known of it if it exists.
#[derive(Serialize)]
struct ShowShape<'a> {
    found: bool,
    /// The name where nothing else has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(flatten)]
    info: Option<InfoShape<'a>>,
}

impl<'a> ShowShape<'a> {
    fn new(name: &'a str, info: Option<&'a NamespaceInfo>) -> Self {
        Self {
            found: info.is_some(),
            name: info.is_none().then_some(name),
            info: info.map(InfoShape::new),
        }
    }
}

#[derive(Args)]
pub struct SetArgs {
    /// The namespace, instead of that of -n
    name: Option<String>,
    /// TTL of entries written without one; `default` is none
    #[arg(long, value_name = "TTL", value_parser = setting(parse::duration))]
    default_ttl: Option<Setting<Duration>>,
    /// How many events the log holds, or `default`
    #[arg(long, value_name = "NUMBER", value_parser = setting(number))]
    log_max_events: Option<Setting<u64>>,
    /// How old events may become, or `default`
    #[arg(long, value_name = "DURATION", value_parser = setting(parse::duration))]
    log_max_age: Option<Setting<Duration>>,
    /// How large the log may become, such as 256MiB, or `default`
    #[arg(long, value_name = "BYTES", value_parser = setting(parse::bytes))]
    log_max_bytes: Option<Setting<u64>>,
    /// How many keys there may be; `default` is no bound
    #[arg(long, value_name = "NUMBER", value_parser = setting(number))]
    quota_max_keys: Option<Setting<u64>>,
    /// How many bytes keys, content types and values may have; `default` is no bound
    #[arg(long, value_name = "BYTES", value_parser = setting(parse::bytes))]
    quota_max_bytes: Option<Setting<u64>>,
}

/// What a setting is to be; `None` is its default.
#[derive(Clone, Copy)]
struct Setting<T>(Option<T>);

fn setting<T: 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl Fn(&str) -> Result<Setting<T>, String> + Clone {
    move |text| match text {
        "default" => Ok(Setting(None)),
        _ => parse(text)
            .map(|value| Setting(Some(value)))
            .map_err(|error| format!("{error}, and not `default`")),
    }
}

fn number(text: &str) -> Result<u64, String> {
    u64::from_str(text).map_err(|_| "not a whole number".to_owned())
}

async fn set(session: &mut Session, args: SetArgs) -> Result<Verdict, Failure> {
    let name = session.name_or(args.name);
    let mut call = session.client.namespace(&name).update_settings();
    if let Some(Setting(ttl)) = args.default_ttl {
        call = call.default_ttl(ttl);
    }
    if let Some(Setting(events)) = args.log_max_events {
        call = call.log_max_events(events);
    }
    if let Some(Setting(age)) = args.log_max_age {
        call = call.log_max_age(age);
    }
    if let Some(Setting(bytes)) = args.log_max_bytes {
        call = call.log_max_bytes(bytes);
    }
    if let Some(Setting(keys)) = args.quota_max_keys {
        call = call.quota_max_keys(keys);
    }
    if let Some(Setting(bytes)) = args.quota_max_bytes {
        call = call.quota_max_bytes(bytes);
    }
    let info = call.await?;
    session.out.print(&InfoShape::new(&info))?;
    Ok(Verdict::Yes)
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The namespace
    name: String,
    /// Do not ask first
    #[arg(long)]
    yes: bool,
}

async fn clear(session: &mut Session, args: RemoveArgs) -> Result<Verdict, Failure> {
    let name = &args.name;
    if !args.yes && !confirmed(&format!("Remove all keys of the namespace {name:?}?"))? {
        return session.left_alone();
    }
    let answer = session.client.namespace(name).clear().with_header().await?;
    session.out.print(&ClearShape {
        name,
        cleared: answer.value,
        revision: answer.header.revision.get(),
    })?;
    Ok(Verdict::Yes)
}

#[derive(Serialize)]
struct ClearShape<'a> {
    name: &'a str,
    cleared: u64,
    revision: u64,
}

impl fmt::Display for ClearShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} removed, revision {}", keys(self.cleared), self.revision)
    }
}

async fn delete(session: &mut Session, args: RemoveArgs) -> Result<Verdict, Failure> {
    let name = &args.name;
    let question = format!("Remove the namespace {name:?} with its keys, settings and history?");
    if !args.yes && !confirmed(&question)? {
        return session.left_alone();
    }
    let deleted = session.client.namespace(name).delete_namespace().await?;
    if deleted || session.out.is_json() {
        session.out.print(&DeleteShape { name, deleted })?;
    }
    if deleted { Ok(Verdict::Yes) } else { session.no_such_namespace(name) }
}

#[derive(Serialize)]
struct DeleteShape<'a> {
    name: &'a str,
    deleted: bool,
}

impl fmt::Display for DeleteShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "namespace {} removed", printable(self.name.as_bytes()))
    }
}

/// Asks whoever sits at the terminal; nobody there is wrong usage, for a script must say that it means it.
fn confirmed(question: &str) -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(
            "this cannot be undone: without a terminal to ask at, say --yes",
        ));
    }
    let mut stderr = io::stderr();
    write!(stderr, "{question} This cannot be undone. [y/N] ").map_err(Failure::Output)?;
    let mut answer = String::new();
    io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::io("cannot read the answer", error))?;
    Ok(matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
}

impl Session {
    fn name_or(&self, name: Option<String>) -> String {
        name.unwrap_or_else(|| self.namespace.name().to_owned())
    }

    fn no_such_namespace(&mut self, name: &str) -> Result<Verdict, Failure> {
        let remark = format_args!("there is no namespace {name:?}");
        self.out.remark(remark)?;
        Ok(Verdict::No)
    }

    fn left_alone(&mut self) -> Result<Verdict, Failure> {
        self.out.remark("nothing was changed")?;
        Ok(Verdict::No)
    }
}

#[derive(Serialize)]
struct InfoShape<'a> {
    name: &'a str,
    lineage: &'a str,
    revision: u64,
    compacted_revision: u64,
    created_at_ms: i64,
    settings: SettingsShape,
    key_count: u64,
    byte_count: u64,
    #[serde(skip)]
    info: &'a NamespaceInfo,
}

/// Settings that have their defaults are null.
#[derive(Serialize)]
struct SettingsShape {
    default_ttl_ms: Option<u64>,
    log_max_events: Option<u64>,
    log_max_age_ms: Option<u64>,
    log_max_bytes: Option<u64>,
    quota_max_keys: Option<u64>,
    quota_max_bytes: Option<u64>,
}

impl<'a> InfoShape<'a> {
    fn new(info: &'a NamespaceInfo) -> Self {
        let settings = &info.settings;
        Self {
            name: &info.name,
            lineage: info.lineage.as_str(),
            revision: info.revision.get(),
            compacted_revision: info.compacted_revision.get(),
            created_at_ms: info.created_at.as_millis(),
            settings: SettingsShape {
                default_ttl_ms: settings.default_ttl.map(millis),
                log_max_events: settings.log_max_events,
                log_max_age_ms: settings.log_max_age.map(millis),
                log_max_bytes: settings.log_max_bytes,
                quota_max_keys: settings.quota_max_keys,
                quota_max_bytes: settings.quota_max_bytes,
            },
            key_count: info.key_count,
            byte_count: info.byte_count,
            info,
        }
    }
}

impl fmt::Display for InfoShape<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let NamespaceSettings {
            default_ttl,
            log_max_events,
            log_max_age,
            log_max_bytes,
            quota_max_keys,
            quota_max_bytes,
            ..
        } = &self.info.settings;
        writeln!(f, "name             {}", printable(self.name.as_bytes()))?;
        writeln!(f, "keys             {}", self.key_count)?;
        writeln!(f, "bytes            {}", self.byte_count)?;
        writeln!(f, "revision         {}", self.revision)?;
        writeln!(f, "compacted        {}", self.compacted_revision)?;
        writeln!(f, "lineage          {}", self.lineage)?;
        writeln!(f, "created          {}", rfc3339(self.info.created_at))?;
        let default_ttl = default_ttl.map(in_words);
        let log_max_age = log_max_age.map(in_words);
        writeln!(f, "default TTL      {}", or(default_ttl, "none"))?;
        writeln!(f, "log max events   {}", or(*log_max_events, "1000000"))?;
        writeln!(f, "log max age      {}", or(log_max_age, "1h"))?;
        writeln!(f, "log max bytes    {}", or(*log_max_bytes, "268435456"))?;
        writeln!(f, "quota max keys   {}", or(*quota_max_keys, "no bound"))?;
        write!(f, "quota max bytes  {}", or(*quota_max_bytes, "no bound"))
    }
}

fn or(setting: Option<impl fmt::Display>, default: &str) -> String {
    match setting {
        Some(setting) => setting.to_string(),
        None => format!("{default} (default)"),
    }
}

fn keys(number: u64) -> String {
    match number {
        1 => "1 key".to_owned(),
        _ => format!("{number} keys"),
    }
}
