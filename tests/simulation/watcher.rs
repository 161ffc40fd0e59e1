//! Watches that break off and go on, and what they were told.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use holdfast_server::{
    backend::{LoggedChange, Revision, StoredEntry},
    clock::Clock as _,
    store::{Kinds, WatchItem, WatchQuery, WatchStart, error::StoreError, selector::Selector},
};
use tokio::sync::watch;

use crate::{random::Random, servers::Servers};

/// How long a watch may take in the end to tell what is left.
const CATCHING_UP: Duration = Duration::from_secs(60);

/// What one watch was told until it ended.
pub struct Told {
    pub watcher: usize,
    /// All keys, or those with this prefix.
    pub prefix: &'static str,
    /// The last revision when it was asked for, and when it began.
    pub asked: (u64, u64),
    /// Whether it was to begin with what comes.
    pub is_now: bool,
    /// After which revision changes come.
    pub from: u64,
    /// The initial state, with its time, if that was asked for; and whether it was told to the end.
    pub initial: Option<(i64, Vec<StoredEntry>, bool)>,
    pub changes: Vec<LoggedChange>,
    pub through: u64,
}

/// Follows changes by the seed.
pub struct Watcher {
    pub id: usize,
    pub servers: Arc<Servers>,
    pub prefix: &'static str,
    pub random: Random,
    pub told: Vec<Told>,
    /// The last revision, once there will be no other.
    pub last: watch::Receiver<Option<u64>>,
}

enum End {
    Caught,
    Broken,
    Lost,
}

impl Watcher {
    /// Watches until everything has been told.
    pub async fn work(mut self) -> Result<Vec<Told>, String> {
        let mut start = match self.random.below(3) {
            0 => WatchStart::Now,
            1 => WatchStart::Initial,
            _ => WatchStart::After { revision: Revision(0), or_initial: true },
        };
        let mut late = None;
        loop {
            let end = self.watch(start, &mut late).await?;
            let through = self.told.last().map(|told| (told.through, told.is_whole()));
            start = match (end, through) {
                (End::Caught, _) => return Ok(self.told),
                (End::Broken, Some((through, true))) => {
                    let or_initial = self.random.percent(50);
                    WatchStart::After { revision: Revision(through), or_initial }
                }
                (End::Broken | End::Lost, _) => WatchStart::Initial,
            };
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.servers.world.note(format_args!("w{}", self.id), what);
    }

    async fn watch(&mut self, start: WatchStart, late: &mut Option<i64>) -> Result<End, String> {
        let world = self.servers.world.clone();
        let selector = match self.prefix {
            "" => Selector::all(),
            prefix => Selector::prefix(prefix),
        };
        let query = WatchQuery {
            selectors: vec![selector],
            start,
            lineage: None,
            kinds: Kinds::ALL,
            progress_interval: Duration::from_secs(2),
        };
        let store = self.servers.any();
        let asked = world.truth.lock().last();
        self.note(format_args!("watches {start:?}"));
        let mut stream = pin!(store.watch(&world.namespace, query));
        let is_now = start == WatchStart::Now;
        loop {
            let item = tokio::select! {
                biased;
                item = stream.next() => item,
                // A server that does not answer is left.
                () = world.clock.sleep(Duration::from_secs(5)) => return self.is_late(late),
            };
            let Some(item) = item else { return Err("a watch ended without a word".into()) };
            let told = self.told.last_mut();
            match item {
                Ok(WatchItem::Created { revision, initial, time_ms, .. }) => {
                    let began = world.truth.lock().last();
                    self.told.push(Told {
                        watcher: self.id,
                        prefix: self.prefix,
                        asked: (asked, began),
                        is_now,
                        from: revision.0,
                        initial: initial.then_some((time_ms, Vec::new(), false)),
                        changes: Vec::new(),
                        through: revision.0,
                    });
                }
                Ok(WatchItem::Initial { entries, end, .. }) => {
                    let told = told.and_then(|told| told.initial.as_mut());
                    let told = told.ok_or("an initial state that nobody asked for")?;
                    told.1.extend(entries);
                    told.2 |= end;
                }
                Ok(WatchItem::Changes { changes, through }) => {
                    let told = told.ok_or("changes before the beginning")?;
                    let places = changes.places().iter();
                    told.changes.extend(places.map(|place| changes.at(*place).clone()));
                    told.through = through.0;
                    let count = changes.places().len();
                    self.note(format_args!("is told {count} changes through {through}"));
                }
                Ok(WatchItem::Progress(progress)) => {
                    told.ok_or("progress before the beginning")?.through = progress.through.0;
                }
                Ok(WatchItem::Born { .. }) => {}
                Err(error) => {
                    self.note(format_args!("breaks: {}", error.is_lost_history()));
                    return self.broken(error, start).await;
                }
            }
            let through = self.told.last().map_or(0, |told| told.through);
            let is_whole = self.told.last().is_some_and(Told::is_whole);
            if self.last.borrow().is_some_and(|last| through >= last) && is_whole {
                return Ok(End::Caught);
            }
            match self.random.below(20) {
                0 => return Ok(End::Broken),
                1 => world.clock.sleep_ms(self.random.below(4000)).await,
                _ => {}
            }
        }
    }

    async fn broken(&mut self, error: StoreError, start: WatchStart) -> Result<End, String> {
        if error.is_lost_history() {
            // Only what was forgotten can be lost, or what was asked for after a revision and is gone by now.
            let forgotten = self.servers.world.truth.lock().forgotten;
            let through = self.told.last().map_or(0, |told| told.through);
            return match start {
                WatchStart::Now if forgotten <= through => {
                    Err(format!("a watch of what comes has lost it: {error:?}"))
                }
                _ => Ok(End::Lost),
            };
        }
        self.servers.world.clock.sleep_ms(100).await;
        Ok(End::Broken)
    }

    fn is_late(&self, late: &mut Option<i64>) -> Result<End, String> {
        let now_ms = self.servers.world.clock.now_ms();
        if let Some(last) = *self.last.borrow() {
            let since_ms = *late.get_or_insert(now_ms);
            if now_ms - since_ms > CATCHING_UP.as_millis() as i64 {
                let through = self.told.last().map_or(0, |told| told.through);
                return Err(format!("a watch stands at {through} and does not come to {last}"));
            }
        }
        Ok(End::Broken)
    }
}

impl Told {
    /// Whether the initial state was told to the end.
    fn is_whole(&self) -> bool {
        self.initial.as_ref().is_none_or(|(_, _, is_whole)| *is_whole)
    }
}
