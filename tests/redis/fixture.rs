//! Servers and clients for the cases, and records of what they did.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures::StreamExt as _;
use holdfast_client::{self as client, Client, Error, Selector, WatchItem, WatchStream};
use holdfast_proto::v1::ErrorReason;

use crate::common::{
    backends::TestServer, build::set, failure::Failure, namespace::Namespace, redis::Redis,
};

/// What notices within half a second that Redis does not answer.
pub const IMPATIENT: &str = "?connect_timeout=500ms&command_timeout=500ms";

/// What waits for a busy machine.
const PATIENT: &str = "?connect_timeout=10s&command_timeout=30s";

/// How long a client waits for what must come; long, for machines that are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A Redis with a server on it, and a namespace there.
pub async fn started() -> (Redis, TestServer, Namespace) {
    let redis = Redis::start().expect("it is installed");
    let server = serve(&redis.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    (redis, server, ns)
}

/// A server on the Redis of this URL.
pub async fn serve(url: &str) -> TestServer {
    TestServer::on(&format!("{url}{PATIENT}")).await
}

/// The typed client of a namespace, that does not give up.
pub async fn typed(ns: &Namespace) -> client::Namespace {
    let address = ns.endpoint.uri().to_string();
    let builder = Client::builder(address).timeout(PATIENCE).max_attempts(10_000);
    builder.connect().await.expect("the server is there").namespace(&ns.name)
}

/// What became of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It was acknowledged with this revision.
    Done(u64),
    /// It was surely not applied.
    Refused,
    /// It may or may not have been.
    Unknown,
}

impl Fate {
    pub fn is_done(self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Sets a key, where Redis may be away.
pub async fn try_set(ns: &Namespace, key: &str, value: &str) -> Fate {
    match ns.call(set(key, value)).await {
        Ok(answer) => Fate::Done(answer.revision),
        Err(failure) => fate(failure),
    }
}

/// That of a write that failed for nothing else than that Redis is away.
pub fn fate(failure: Failure) -> Fate {
    match failure.reason.as_str() {
        "BACKEND_UNAVAILABLE" => {
            failure.expect(ErrorReason::BackendUnavailable);
            Fate::Refused
        }
        _ => {
            failure.expect(ErrorReason::OutcomeUnknown);
            Fate::Unknown
        }
    }
}

/// Writes, each of a key of its own, and what became of them.
#[derive(Default)]
pub struct Record {
    pub done: BTreeMap<String, u64>,
    unknown: BTreeSet<String>,
    count: usize,
}

impl Record {
    /// Writes once.
    pub async fn write(&mut self, ns: &Namespace) -> Fate {
        let key = format!("w{:06}", self.count);
        self.count += 1;
        let fate = try_set(ns, &key, "written").await;
        match fate {
            Fate::Done(revision) => assert_eq!(self.done.insert(key, revision), None),
            Fate::Unknown => assert!(self.unknown.insert(key)),
            Fate::Refused => {}
        }
        fate
    }

    /// Writes until a write is acknowledged; its revision.
    pub async fn write_until_done(&mut self, ns: &Namespace) -> u64 {
        loop {
            if let Fate::Done(revision) = self.write(ns).await {
                return revision;
            }
        }
    }

    /// Reads a watch up to the last key that was acknowledged: everything that was acknowledged comes in order, once,
    /// and nothing that was refused.
    pub async fn check(&self, watch: &mut WatchStream<()>) {
        let (last, _) = self.done.last_key_value().expect("something was acknowledged");
        let mut seen = BTreeMap::new();
        let mut newest = 0;
        while !seen.contains_key(last) {
            let (key, revision) = next_key(watch).await;
            assert!(revision > newest, "{key} at {revision} comes after {newest}");
            newest = revision;
            assert!(
                self.done.contains_key(&key) || self.unknown.contains(&key),
                "{key} was refused, or never written"
            );
            assert_eq!(seen.insert(key, revision), None, "each comes once");
        }
        for (key, revision) in &self.done {
            assert_eq!(seen.get(key), Some(revision), "{key} was acknowledged");
        }
    }
}

/// A watch of all that a record writes.
pub async fn watch_record(ns: &client::Namespace) -> WatchStream<()> {
    ns.watch_keys(Selector::prefix("w")).await.expect("it stands")
}

/// The key and the revision of the next event.
pub async fn next_key(watch: &mut WatchStream<()>) -> (String, u64) {
    loop {
        match next(watch).await.expect("the watch goes on") {
            WatchItem::Event(event) => return (event.key.to_string(), event.revision.get()),
            WatchItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// The error that a watch ends with.
pub async fn end(watch: &mut WatchStream<()>) -> Error {
    loop {
        if let Err(error) = next(watch).await {
            return error;
        }
    }
}

async fn next(watch: &mut WatchStream<()>) -> Result<WatchItem<()>, Error> {
    let item = tokio::time::timeout(PATIENCE, watch.next()).await.expect("something comes");
    item.expect("a watch does not end without an error")
}
