//! Many watches of one namespace, each of which gets every event.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_client::{Namespace, Raw, Selector, WatchItem, WatchStream};
use tokio::sync::Notify;

use super::{
    callers::{Call, Etcd as EtcdCaller, Typed, call_each},
    measure::{median, rounds, scaled},
    peer::etcd::{Etcd, Watches},
    report::{Goal, Report, Unit},
    server::{self, Apart},
};

const WATCHERS: usize = 1000;
/// How many events each gets in a round.
const EVENTS: usize = 1000;
/// A namespace of their own, without the keys of others.
const NAMESPACE: &str = "watched";
/// What etcd has in the place of a namespace.
const PREFIX: &str = "key:";

/// Compares how many events are delivered a second, from the first set until the last watcher has the last of them.
pub async fn run(report: &mut Report, files: &Apart, etcd: &Etcd) {
    let watched = server::connect(&files.address).await.namespace(NAMESPACE);
    let ours = Ours::start(&watched.with_codec(Raw::new())).await;
    let writer = server::connect(&files.address).await.namespace(NAMESPACE);
    let writer = Typed(writer.with_codec(Raw::new()), Call::Set);
    let mut theirs = etcd.client.clone().watch(PREFIX, scaled(WATCHERS)).await;
    let their_writer = EtcdCaller(etcd.client.clone(), Call::Set);
    let (mut our_rates, mut their_rates) = (Vec::new(), Vec::new());
    for _ in 0..rounds() {
        let start = Instant::now();
        futures::join!(call_each(&writer, scaled(EVENTS)), ours.delivered());
        our_rates.push(rate(start.elapsed()));
        let start = Instant::now();
        futures::join!(call_each(&their_writer, scaled(EVENTS)), delivered(&mut theirs));
        their_rates.push(rate(start.elapsed()));
    }
    let figures = (median(our_rates), median(their_rates));
    let what = format!("events at {} watchers, `files:`", scaled(WATCHERS));
    let against = format!("etcd, {} watchers", scaled(WATCHERS));
    report.add(&what, &against, Unit::PerSecond, figures, Some(Goal::AtLeast(5.0)));
}

fn rate(elapsed: Duration) -> f64 {
    (scaled(WATCHERS) * scaled(EVENTS)) as f64 / elapsed.as_secs_f64()
}

/// Watches of the typed client, each with a task that reads it.
struct Ours(Arc<Seen>);

#[derive(Default)]
struct Seen {
    /// Watchers that have all events of the present round.
    watchers: AtomicUsize,
    all: Notify,
}

impl Ours {
    async fn start(namespace: &Namespace<Raw>) -> Self {
        let seen = Arc::<Seen>::default();
        for _ in 0..scaled(WATCHERS) {
            let stream = namespace.watch::<Bytes>(Selector::all()).await;
            tokio::spawn(read(stream.expect("a namespace can be watched"), seen.clone()));
        }
        Self(seen)
    }

    /// Waits until every watcher has all events of a round.
    async fn delivered(&self) {
        self.0.all.notified().await;
    }
}

/// Counts for itself, lest watchers spend their time on a counter of all.
async fn read(mut stream: WatchStream<Bytes>, seen: Arc<Seen>) {
    let mut events = 0;
    while let Some(item) = stream.next().await {
        let WatchItem::Event(_) = item.expect("a watch goes on") else {
            continue;
        };
        events += 1;
        if events == scaled(EVENTS) {
            events = 0;
            if seen.watchers.fetch_add(1, Ordering::Relaxed) + 1 == scaled(WATCHERS) {
                seen.watchers.store(0, Ordering::Relaxed);
                seen.all.notify_one();
            }
        }
    }
}

async fn delivered(watches: &mut Watches) {
    let mut events = 0;
    while events < scaled(WATCHERS) * scaled(EVENTS) {
        events += watches.events().await;
    }
}
