//! Keeps a near cache true: applies what its watch tells, and asks the store for its time.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_proto::v1;
use tokio::{sync::Notify, time::timeout};

use super::table::Table;
use crate::{
    Codec, Decode, Error, Namespace, Selector,
    retry::Backoff,
    watch::{
        resume::Step,
        session::{Signal, Signals},
    },
    wire,
};

/// How often the store is asked for its time.
const ASK_EVERY: Duration = Duration::from_secs(30);

/// What a keeper works on.
pub(super) struct Keeper<C, T> {
    pub(super) namespace: Namespace<C>,
    pub(super) prefix: String,
    pub(super) progress_interval: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) table: Arc<Table<T>>,
    /// Says that the store's clock may be another now.
    pub(super) ask_time: Arc<Notify>,
}

type Feed = Signals<v1::Entry, v1::Event>;

impl<C: Codec + Decode<T>, T: Send + Sync + 'static> Keeper<C, T> {
    /// Opens the watch and takes the initial state from it.
    pub(super) async fn fill(&self) -> Result<Feed, Error> {
        let mut feed = self.open().await?;
        ask(&self.namespace, &self.prefix, &self.table).await?;
        self.take_initial(&mut feed).await?;
        Ok(feed)
    }

    /// A large state takes its time, but a server that is gone while it is told would be waited for for ever.
    async fn take_initial(&self, feed: &mut Feed) -> Result<(), Error> {
        let patience = self.timeout.unwrap_or(self.namespace.client.transport.timeout());
        while !self.table.is_filled() {
            let taken = timeout(patience, self.take_next(feed)).await;
            taken.map_err(|_| Error::DeadlineExceeded)??;
        }
        Ok(())
    }

    /// Follows the watch for ever. Where it ends for good it is begun anew, later and later: what kept it from going
    /// on may be mended.
    pub(super) async fn run(self, mut feed: Feed) -> Infallible {
        let mut backoff = Backoff::for_watches();
        loop {
            let Err(mut error) = self.follow(&mut feed, &mut backoff).await;
            feed = loop {
                self.table.failed(error.to_string());
                tokio::time::sleep(backoff.wait(None)).await;
                match self.open().await {
                    Ok(feed) => break feed,
                    Err(next) => error = next,
                }
            };
            self.table.forget();
            self.table.connected();
            self.ask_time.notify_one();
        }
    }

    async fn open(&self) -> Result<Feed, Error> {
        let selector = match self.prefix.as_str() {
            "" => Selector::all(),
            prefix => Selector::prefix(prefix),
        };
        let mut watch = self.namespace.watch::<T>(selector).initial().or_initial();
        watch = watch.progress_interval(self.progress_interval);
        if let Some(timeout) = self.timeout {
            watch = watch.timeout(timeout);
        }
        Ok(watch.signals().await?.0)
    }

    async fn follow(&self, feed: &mut Feed, backoff: &mut Backoff) -> Result<Infallible, Error> {
        loop {
            self.take_next(feed).await?;
            if self.table.is_filled() {
                *backoff = Backoff::for_watches();
            }
        }
    }

    async fn take_next(&self, feed: &mut Feed) -> Result<(), Error> {
        let signal = feed.next().await;
        let signal =
            signal.unwrap_or_else(|| Err(Error::protocol("a watch ended without an error")))?;
        match signal {
            Signal::Step(step) => self.apply(step),
            Signal::AsOf(time_ms) => {
                self.note_time(time_ms);
                self.table.complete_as_of(time_ms);
            }
            Signal::Lost => self.table.disconnected(),
            Signal::Standing => {
                self.table.connected();
                self.ask_time.notify_one();
            }
        }
        Ok(())
    }

    fn apply(&self, step: Step<v1::Entry, v1::Event>) {
        match step {
            Step::Reset => self.table.forget(),
            Step::Initial(entry) => self.put(entry),
            Step::Event(event) => self.apply_event(event),
            Step::InitialEnd(cursor) | Step::Progress(cursor) => self.table.complete(cursor),
        }
    }

    fn apply_event(&self, event: v1::Event) {
        self.note_time(event.time_ms);
        match (event.r#type(), event.entry) {
            (v1::EventType::Set, Some(entry)) => self.put(entry),
            (v1::EventType::TtlChanged, Some(entry)) => self.table.retime(wire::split(entry).0),
            (v1::EventType::Delete | v1::EventType::Expire, _) => self.table.remove(&event.key),
            (v1::EventType::Clear, _) => self.table.clear(),
            // What only a newer client knows.
            _ => self.table.lose(&event.key),
        }
    }

    fn note_time(&self, time_ms: i64) {
        if self.table.clock.told(Instant::now(), time_ms) {
            self.ask_time.notify_one();
        }
    }

    fn put(&self, entry: v1::Entry) {
        let (metadata, value) = wire::split(entry);
        let bytes = metadata.key.len() + value.as_ref().map_or(0, Bytes::len);
        let value =
            value.and_then(|value| wire::decode(&self.namespace.codec, &metadata, value).ok());
        self.table.put(metadata, value, bytes as u64);
    }
}

/// Asks the store for its time, again and again.
pub(super) async fn keep_time<C: Codec, T>(
    namespace: Namespace<C>,
    prefix: String,
    table: Arc<Table<T>>,
    ask_time: Arc<Notify>,
) -> Infallible {
    let mut backoff = Backoff::for_watches();
    loop {
        let wait = match ask(&namespace, &prefix, &table).await {
            Ok(()) => {
                backoff = Backoff::for_watches();
                ASK_EVERY
            }
            Err(error) => backoff.wait(error.retry_after()),
        };
        // Whichever comes first.
        let _ = timeout(wait, ask_time.notified()).await;
    }
}

/// Asks the store for its time, by a call that costs little.
async fn ask<C: Codec, T>(
    namespace: &Namespace<C>,
    prefix: &str,
    table: &Table<T>,
) -> Result<(), Error> {
    // A key under the prefix, so that who may read there may ask; whether it is there does not matter.
    let key = if prefix.is_empty() { "time" } else { prefix };
    let sent = Instant::now();
    let answer = namespace.exists(key).with_header().await?;
    table.clock.answered(sent, Instant::now(), answer.header.time.as_millis());
    Ok(())
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::{
        Json, Revision,
        cache::{Cached, table::Bounds},
        watch::tests::{created, initial, scripted, sets, silence},
    };

    fn keeper(namespace: Namespace) -> Keeper<Json, u64> {
        let bounds = Bounds {
            max_staleness: Duration::from_secs(60),
            max_entries: 10,
            max_bytes: 1_000,
            leased: false,
        };
        let table = Table::new(String::new(), bounds);
        // The scripts tell no time, so it is that of the epoch.
        let now = Instant::now();
        table.clock.answered(now, now, 0);
        Keeper {
            namespace,
            prefix: String::new(),
            progress_interval: Duration::from_secs(10),
            timeout: None,
            table: Arc::new(table),
            ask_time: Arc::default(),
        }
    }

    fn known(cached: Cached<u64>) -> Option<Option<u64>> {
        match cached {
            Cached::Held(entry) => Some(Some(*entry.value)),
            Cached::Missing => Some(None),
            Cached::Unknown => None,
        }
    }

    #[tokio::test]
    async fn a_watch_that_has_ended_for_good_is_begun_anew() {
        let refused = Err(Status::permission_denied("not today"));
        let (client, _requests) = scripted(vec![
            vec![created("l", 5, false), initial(5, "a", true), sets(6, &[("b", 6)]), refused],
            vec![created("l", 8, false), initial(8, "b", true), silence()],
        ])
        .await;
        let keeper = keeper(client.namespace("n"));
        let table = Arc::clone(&keeper.table);
        let mut feed = keeper.open().await.expect("stands");
        while !table.has_reached(Revision::new(6)) {
            keeper.take_next(&mut feed).await.expect("the script goes on");
        }
        assert_eq!(known(table.any("a")), Some(Some(5)));
        assert_eq!(known(table.any("b")), Some(Some(6)));
        let task = tokio::spawn(keeper.run(feed));
        table.wait_for(Revision::new(8)).await;
        assert_eq!(known(table.any("a")), Some(None));
        assert_eq!(known(table.any("b")), Some(Some(8)));
        assert_eq!(table.freshness().problem, None);
        task.abort();
    }

    #[tokio::test]
    async fn a_state_of_which_nothing_more_comes_is_not_waited_for() {
        let begun = vec![created("l", 5, false), initial(5, "a", false), silence()];
        let (client, _requests) = scripted(vec![begun]).await;
        let patience = Some(Duration::from_millis(100));
        let keeper = Keeper { timeout: patience, ..keeper(client.namespace("n")) };
        let mut feed = keeper.open().await.expect("stands");
        let late = keeper.take_initial(&mut feed).await;
        assert!(matches!(late, Err(Error::DeadlineExceeded)), "{late:?}");
    }
}
