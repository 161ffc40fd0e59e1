//! Configuration with live reload: every process has the settings in memory, and knows of a change within milliseconds.
//!
//! ```sh
//! cargo run -p holdfast-client --example live_configuration -- [ADDRESS]
//! ```
//!
//! - **Settings** that belong together are one value, so that nobody sees half of a change. A watch brings the
//!   present value first and then each change; the rest of the program reads them from a channel that always has the
//!   last good ones. Settings that make no sense are reported and not taken.
//! - **Flags** that are asked for all the time, one by one, are in a near cache: asking is a look into memory,
//!   without `await`.

use std::{env, sync::Arc};

use futures::StreamExt as _;
use holdfast_client::{
    Cached, Change, Client, Error, Json, Namespace, NearCache, Selector, WatchItem, WatchStream,
};
use serde::{Deserialize, Serialize};
use tokio::{sync::watch, task::JoinHandle};

const KEY: &str = "settings";

/// How the program is to behave. New fields get a default, so that old settings can still be read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Settings {
    workers: u32,
    greeting: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { workers: 4, greeting: "hello".to_owned() }
    }
}

impl Settings {
    fn check(self) -> Result<Self, String> {
        match self.workers {
            0 => Err("there must be a worker".to_owned()),
            _ => Ok(self),
        }
    }
}

/// The last good settings, and what was wrong with the last ones that were none.
#[derive(Clone, Debug, Default)]
struct Current {
    settings: Arc<Settings>,
    problem: Option<String>,
}

/// Follows the settings in the background; the receiver has the present ones from the beginning.
async fn follow(
    namespace: &Namespace,
) -> Result<(watch::Receiver<Current>, JoinHandle<Error>), Error> {
    // With `or_initial` nothing ends the watch but what no new connection would help against: after a long absence it
    // begins anew with the present value.
    let watch = namespace.watch::<Settings>(Selector::key(KEY));
    let mut changes = watch.initial().or_initial().await?;
    let mut current = Current::default();
    take_present(&mut changes, &mut current).await?;
    let (sender, receiver) = watch::channel(current);
    let task = tokio::spawn(async move {
        loop {
            let mut next = sender.borrow().clone();
            match take_present(&mut changes, &mut next).await {
                Ok(()) => drop(sender.send_replace(next)),
                Err(error) => return error,
            }
        }
    });
    Ok((receiver, task))
}

/// Takes what the watch tells up to the next place at which it is complete.
async fn take_present(
    changes: &mut WatchStream<Settings>,
    current: &mut Current,
) -> Result<(), Error> {
    loop {
        let settings = match changes.next().await {
            Some(Ok(WatchItem::InitialEnd(_) | WatchItem::Progress(_))) => return Ok(()),
            Some(Ok(WatchItem::Initial(entry))) => entry.value,
            Some(Ok(WatchItem::Event(event))) => match event.change {
                Change::Set(entry) => entry.value,
                // Without settings those that are built in count.
                Change::Deleted | Change::Expired | Change::Cleared => Settings::default(),
                _ => continue,
            },
            // The present value follows.
            Some(Ok(_)) => continue,
            // It was none. The watch goes on after it, and so does the program with what it has.
            Some(Err(error @ (Error::Codec { .. } | Error::UnexpectedContentType { .. }))) => {
                current.problem = Some(error.to_string());
                continue;
            }
            Some(Err(error)) => return Err(error),
            None => return Ok(()),
        };
        match settings.check() {
            Ok(settings) => *current = Current { settings: Arc::new(settings), problem: None },
            Err(problem) => current.problem = Some(problem),
        }
    }
}

/// Flags that are on or off.
struct Flags(NearCache<Json, bool>);

impl Flags {
    /// Holds all flags in memory.
    async fn load(namespace: &Namespace) -> Result<Self, Error> {
        Ok(Self(namespace.near_cache("flag:").await?))
    }

    /// Whether a flag is on; one that nobody has set is off. When the server is away this is what was known last: for
    /// flags that is better than an error.
    fn is_on(&self, flag: &str) -> bool {
        match self.0.get_cached(&format!("flag:{flag}")) {
            Cached::Held(entry) => *entry.value,
            Cached::Missing | Cached::Unknown => false,
        }
    }
}

/// An administrator changes settings under a running program: once well, once badly.
pub async fn run(client: Client, namespace: &str) -> Result<Vec<String>, Error> {
    let namespace = client.namespace(namespace);
    namespace.clear().await?;
    let (mut current, task) = follow(&namespace).await?;
    let flags = Flags::load(&namespace).await?;
    let mut log = vec![format!("at first: {:?}", current.borrow().settings)];

    let settings = Settings { workers: 8, greeting: "welcome".to_owned() };
    namespace.set(KEY, &settings).await?;
    changed(&mut current, |current| *current.settings == settings).await;
    log.push(format!("changed: {:?}", current.borrow().settings));

    // One that makes no sense, and one that is not even settings.
    namespace.set(KEY, &Settings { workers: 0, ..settings.clone() }).await?;
    changed(&mut current, |current| current.problem.is_some()).await;
    log.push(format!("refused: {:?}", current.borrow().problem));
    namespace.set(KEY, "eight workers, please").await?;
    changed(&mut current, |current| current.problem.as_deref() != Some("there must be a worker"))
        .await;
    log.push(format!("still: {:?}", current.borrow().settings));

    log.push(format!("the flag is on: {}", flags.is_on("dark")));
    let set = namespace.set("flag:dark", &true).await?;
    flags.0.wait_for(set.header.revision).await;
    log.push(format!("the flag is on: {}", flags.is_on("dark")));
    task.abort();
    Ok(log)
}

async fn changed(current: &mut watch::Receiver<Current>, reached: impl FnMut(&Current) -> bool) {
    // The sender ends with the task, which goes on.
    let _ = current.wait_for(reached).await;
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).or_else(|| env::var("HOLDFAST_ADDR").ok());
    let client = Client::connect(address.unwrap_or("127.0.0.1:4653".to_owned())).await?;
    for line in run(client, "example:configuration").await? {
        println!("{line}");
    }
    Ok(())
}
