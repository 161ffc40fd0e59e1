//! Watches of all that is written, beside the load: how many events come, and how late.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::StreamExt as _;
use holdfast_client::{Change, Error, Event, Namespace, Raw, WatchItem, WatchStream};
use tokio::task::JoinSet;

use super::{
    keys::Keys,
    tally::{Latencies, add, no_latencies, record},
};

/// How many bytes at the beginning of a value say when it was due.
pub const STAMP_BYTES: usize = 16;

/// How long watchers have, after the load, to come to its end.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many events a watcher counts by itself before it adds them up with those of others.
const PER_SUM: u64 = 1024;

/// From when times in values are counted. Values are written and read by this program, so that no two clocks have to
/// agree.
#[derive(Clone, Copy)]
pub struct Epoch(Instant);

impl Epoch {
    pub fn now() -> Self {
        Self(Instant::now())
    }

    /// The value with the time at which its write was due. It stays text.
    pub fn stamp(self, value: &Bytes, due: Instant) -> Bytes {
        let nanos = due.saturating_duration_since(self.0).as_nanos();
        let mut stamped = Vec::from(&value[..]);
        stamped[..STAMP_BYTES].copy_from_slice(format!("{nanos:016}").as_bytes());
        stamped.into()
    }

    /// How long ago a value was due to be written, if it says.
    fn age(self, value: &[u8]) -> Option<Duration> {
        let stamp = std::str::from_utf8(value.get(..STAMP_BYTES)?).ok()?;
        let due = self.0 + Duration::from_nanos(stamp.parse().ok()?);
        Some(due.elapsed())
    }
}

/// Watches that stand.
pub struct Watchers {
    tasks: JoinSet<Result<Instant, Error>>,
    seen: Arc<Seen>,
}

/// What all watchers have seen together.
struct Seen {
    events: AtomicU64,
    lateness: Mutex<Latencies>,
}

/// What came of them.
pub struct Fanout {
    pub watchers: u64,
    pub events: u64,
    /// From the beginning of the load until the last watcher came to its end.
    pub elapsed: Duration,
    /// From when a set was due until its event was there.
    pub lateness: Latencies,
    /// Why some did not come to the end.
    pub errors: Vec<String>,
}

impl Watchers {
    /// Starts so many, spread over the connections, and waits until all stand.
    pub async fn start(
        count: u32,
        namespaces: &[Namespace<Raw>],
        keys: &Keys,
        epoch: Epoch,
    ) -> Result<Self, Error> {
        let seen =
            Arc::new(Seen { events: AtomicU64::new(0), lateness: Mutex::new(no_latencies()) });
        let mut tasks = JoinSet::new();
        for number in 0..count as usize {
            let namespace = &namespaces[number % namespaces.len()];
            let stream = namespace.watch::<Bytes>(keys.all()).await?;
            tasks.spawn(follow(stream, keys.end(), epoch, seen.clone()));
        }
        Ok(Self { tasks, seen })
    }

    /// How many events have come.
    pub fn events(&self) -> u64 {
        self.seen.events.load(Ordering::Relaxed)
    }

    /// Waits until all have seen the key that is set last.
    pub async fn finish(mut self, began: Instant) -> Fanout {
        let watchers = self.tasks.len() as u64;
        let (mut last, mut errors) = (Instant::now(), Vec::new());
        let ending = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended.expect("a watcher does not panic") {
                    Ok(end) => last = last.max(end),
                    Err(error) => errors.push(error.to_string()),
                }
            }
        };
        if tokio::time::timeout(PATIENCE, ending).await.is_err() {
            let left = self.tasks.len();
            errors.push(format!("{left} watchers have not seen all after {PATIENCE:?}"));
            last = Instant::now();
        }
        self.tasks.shutdown().await;
        let lateness = self.seen.lateness.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (events, elapsed) = (self.events(), last.saturating_duration_since(began));
        Fanout { watchers, events, elapsed, lateness, errors }
    }
}

/// Reads until the last key comes; answers when that was.
async fn follow(
    mut stream: WatchStream<Bytes>,
    end: String,
    epoch: Epoch,
    seen: Arc<Seen>,
) -> Result<Instant, Error> {
    let (mut events, mut lateness) = (0, no_latencies());
    let add_up = |events: &mut u64, lateness: &mut Latencies| {
        seen.events.fetch_add(std::mem::take(events), Ordering::Relaxed);
        add(&mut seen.lateness.lock().unwrap_or_else(PoisonError::into_inner), lateness);
        lateness.reset();
    };
    while let Some(item) = stream.next().await {
        let WatchItem::Event(event) = item? else {
            continue;
        };
        if event.key == end {
            add_up(&mut events, &mut lateness);
            return Ok(Instant::now());
        }
        events += 1;
        if let Some(age) = age(&event, epoch) {
            record(&mut lateness, age);
        }
        if events == PER_SUM {
            add_up(&mut events, &mut lateness);
        }
    }
    Err(Error::Unavailable { message: "a watch has ended".to_owned(), retry_after: None })
}

fn age(event: &Event<Bytes>, epoch: Epoch) -> Option<Duration> {
    match &event.change {
        Change::Set(entry) => epoch.age(&entry.value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_says_when_it_was_due() {
        let epoch = Epoch::now();
        let due = Instant::now();
        let stamped = epoch.stamp(&Bytes::from(vec![b'x'; 20]), due);
        assert_eq!((stamped.len(), &stamped[16..]), (20, &b"xxxx"[..]));
        let age = epoch.age(&stamped).expect("it has a time");
        assert!(age <= due.elapsed());
        assert_eq!(epoch.age(b"7"), None);
        assert_eq!(epoch.age(&[b'x'; 20]), None);
    }
}
