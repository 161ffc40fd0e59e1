//! Copies of the keys under a prefix, in the memory of this program.

mod clock;
mod keeper;
mod table;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{sync::Notify, task::AbortHandle};

use crate::{Codec, Cursor, Decode, Entry, Error, Namespace, Revision, Timestamp, call::awaitable};
use keeper::Keeper;
use table::{Bounds, Table};

/// How often a server speaks up at least, and at most, so that the age of what is held is known.
const PROGRESS_INTERVALS: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(10)];

impl<C: Codec> Namespace<C> {
    /// Holds the keys that begin with this in memory, and answers repeated reads from there, in nanoseconds: a
    /// [`NearCache`]. The empty prefix is that of all keys.
    ///
    /// ```no_run
    /// # async fn example(client: holdfast_client::Client) -> Result<(), holdfast_client::Error> {
    /// let settings = client.namespace("shop").near_cache::<String>("settings:").await?;
    /// let currency = settings.get("settings:currency").await?;
    /// println!("{:?}", currency.map(|entry| entry.value.clone()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn near_cache<T>(&self, prefix: impl Into<String>) -> NearCacheBuilder<C, T>
    where
        C: Decode<T>,
        T: Send + Sync + 'static,
    {
        NearCacheBuilder {
            namespace: self.clone(),
            prefix: prefix.into(),
            bounds: Bounds {
                max_staleness: Duration::from_secs(10),
                max_entries: 1_000_000,
                max_bytes: 256 * 1024 * 1024,
                leased: false,
            },
            timeout: None,
            values: std::marker::PhantomData,
        }
    }
}

/// A near cache to be; made by [`Namespace::near_cache`]. Awaiting it gives the [`NearCache`], once it holds the
/// present state.
///
/// # Errors
/// The failures of any watch. Whoever may not watch the prefix gets no cache.
#[must_use = "a cache holds nothing until it is awaited"]
pub struct NearCacheBuilder<C, T> {
    namespace: Namespace<C>,
    prefix: String,
    bounds: Bounds,
    timeout: Option<Duration>,
    values: std::marker::PhantomData<fn() -> T>,
}

impl<C: Codec + Decode<T>, T: Send + Sync + 'static> NearCacheBuilder<C, T> {
    /// How old the state that [`NearCache::get`] answers from may be; 10 s unless set. In a quiet namespace the
    /// server is asked to speak up four times in this span, at most every 100 ms: bounds under half a second make
    /// for many reads from the server.
    pub fn max_staleness(mut self, bound: Duration) -> Self {
        self.bounds.max_staleness = bound;
        self
    }

    /// How many entries to hold at the most; 1,000,000 unless set. Those that come when there is no room are not held
    /// but read from the server, whenever they are asked for.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.bounds.max_entries = entries;
        self
    }

    /// How many bytes of keys and encoded values to hold at the most; 256 MiB unless set. What it takes in memory
    /// depends on the decoded values, and is some 200 bytes an entry more.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.bounds.max_bytes = bytes;
        self
    }

    /// Answers from memory for entries with a lease as well. A lease may end at any moment without a deadline that the
    /// cache could know, so that such an entry can be seen until the event of its end has come: within 50 ms as a rule,
    /// at the worst within [`max_staleness`](Self::max_staleness). Unless set, they are read from the server.
    pub fn with_leased(mut self) -> Self {
        self.bounds.leased = true;
        self
    }

    /// How long it may take until the watch stands, and then until more of the present state comes, instead of the
    /// client's setting.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    async fn send(self) -> Result<NearCache<C, T>, Error> {
        let [shortest, longest] = PROGRESS_INTERVALS;
        let table = Arc::new(Table::new(self.prefix.clone(), self.bounds));
        let ask_time = Arc::new(Notify::new());
        let keeper = Keeper {
            namespace: self.namespace.clone(),
            prefix: self.prefix.clone(),
            progress_interval: (self.bounds.max_staleness / 4).clamp(shortest, longest),
            timeout: self.timeout,
            table: Arc::clone(&table),
            ask_time: Arc::clone(&ask_time),
        };
        let feed = keeper.fill().await?;
        let time =
            keeper::keep_time(self.namespace.clone(), self.prefix, Arc::clone(&table), ask_time);
        let tasks = [
            tokio::spawn(async move { match keeper.run(feed).await {} }).abort_handle(),
            tokio::spawn(async move { match time.await {} }).abort_handle(),
        ];
        Ok(NearCache { namespace: self.namespace, table, tasks: Arc::new(Tasks(tasks)) })
    }
}

awaitable!([C: Codec + Decode<T>, T: Send + Sync + 'static] NearCacheBuilder<C, T> => NearCache<C, T>);

/// An entry that is shared with the cache it comes from: reading it again costs no more than a reference count.
pub type SharedEntry<T> = Arc<Entry<Arc<T>>>;

/// What a near cache knows of a key by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cached<T> {
    /// Its entry.
    Held(SharedEntry<T>),
    /// It does not exist.
    Missing,
    /// Nothing: ask the server.
    Unknown,
}

/// How far a near cache can be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Freshness {
    /// Whether the age is within [`max_staleness`](NearCacheBuilder::max_staleness), so that reads are answered from
    /// memory.
    pub is_fresh: bool,
    /// What is held was the whole state at this time, by the clock of the store. None while no state is held.
    pub as_of: Option<Timestamp>,
    /// How long ago that was at the most. It grows to the interval at which the server speaks up, and beyond it only
    /// while the connection is gone. None also while the clock of the store is not known, which was set forward.
    pub age: Option<Duration>,
    /// All changes up to here are held.
    pub complete_through: Option<Cursor>,
    /// For how long the connection to the server has been known to be gone; none while it stands. A connection whose
    /// other side is gone without a word is found out after three intervals of silence.
    pub disconnected_for: Option<Duration>,
    /// Whether all that there is is held. Once an entry had no room it is false until the keys are cleared or the
    /// cache is filled anew; while it is, what is not held is read from the server.
    pub holds_all: bool,
    /// Why the watch of the cache has ended, while it is being begun anew.
    pub problem: Option<String>,
}

/// Copies of the keys under a prefix, kept true by a watch; made by [`Namespace::near_cache`]. Cheap to clone: all
/// clones share what is held, and it is let go with the last of them.
///
/// What is said of it:
/// - **How old.** [`get`](Self::get) answers from a state that is at most
///   [`max_staleness`](NearCacheBuilder::max_staleness) old, by the clock of the store, and asks the server where it
///   has none. While the connection stands, changes come within milliseconds; while it is gone what is held ages, which
///   [`freshness`](Self::freshness) tells. The watch mends its connection by itself, and catches up without a gap.
/// - **Expiry.** An entry is not answered from memory from its deadline on: that is measured on the clock of the store,
///   by an upper bound on it, so that the last milliseconds of its life (the round trip to the server and one in a
///   thousand of the time since the last of two measurements a minute) are left to the server. Two things are beyond
///   it: a clock of the store that is set forward, until its next message, and a machine that is suspended as a whole,
///   until it has noticed.
/// - **Leases.** The end of an entry with a lease cannot be foretold, so it is read from the server, unless
///   [`with_leased`](NearCacheBuilder::with_leased) says otherwise.
/// - **Missing keys.** That a key under the prefix does not exist is answered from memory, too.
/// - **Own writes.** A write is seen once its event has come, which may be after its answer.
///   [`get_at_least`](Self::get_at_least) reads a state that includes it, and [`wait_for`](Self::wait_for) waits for
///   it.
/// - **Several keys.** Each answer is of one key. Two of them may be of different revisions: for one state of many keys
///   ask the server, by [`get_many`](Namespace::get_many) or [`list`](Namespace::list).
/// - **Another history.** If the namespace is deleted, imported anew or comes back without its past, the cache is
///   filled anew as soon as it hears of that; until then the bound on old answers holds.
pub struct NearCache<C, T> {
    namespace: Namespace<C>,
    table: Arc<Table<T>>,
    tasks: Arc<Tasks>,
}

impl<C: Codec + Decode<T>, T: Send + Sync + 'static> NearCache<C, T> {
    /// Reads an entry; `None` if there is no such key. From memory where that is fresh and knows, else from the server;
    /// also for keys outside of the prefix.
    ///
    /// # Errors
    /// From memory none. Else those of [`Namespace::get`]: a value that the codec cannot read is told by the server's
    /// answer.
    pub async fn get(&self, key: &str) -> Result<Option<SharedEntry<T>>, Error> {
        match self.table.fresh(key) {
            Cached::Held(entry) => Ok(Some(entry)),
            Cached::Missing => Ok(None),
            Cached::Unknown => self.ask(key).await,
        }
    }

    /// Reads an entry like [`get`](Self::get), from a state that includes this revision: that of a write of one's own,
    /// for instance.
    ///
    /// # Errors
    /// Those of [`get`](Self::get).
    pub async fn get_at_least(
        &self,
        key: &str,
        revision: impl Into<Revision>,
    ) -> Result<Option<SharedEntry<T>>, Error> {
        match self.table.has_reached(revision.into()) {
            true => self.get(key).await,
            false => self.ask(key).await,
        }
    }

    async fn ask(&self, key: &str) -> Result<Option<SharedEntry<T>>, Error> {
        let entry = self.namespace.get::<T>(key).await?;
        let shared =
            |Entry { value, metadata }| Arc::new(Entry { value: Arc::new(value), metadata });
        Ok(entry.map(shared))
    }
}

impl<C, T> NearCache<C, T> {
    /// What is known of a key from memory alone, at once and **however old** it is: ask [`freshness`](Self::freshness)
    /// for that. Entries are not answered past their deadline all the same, nor those with a lease while what is held
    /// is not fresh.
    pub fn get_cached(&self, key: &str) -> Cached<T> {
        self.table.any(key)
    }

    /// What is known of a key from memory alone, if it is fresh: what [`get`](Self::get) answers without asking the
    /// server.
    pub fn get_fresh(&self, key: &str) -> Cached<T> {
        self.table.fresh(key)
    }

    /// How far the cache can be believed at the moment.
    pub fn freshness(&self) -> Freshness {
        self.table.freshness()
    }

    /// Resolves when all changes up to this revision are held. A revision that changed nothing under the prefix is
    /// known to be held only when the server next speaks up: after a quarter of
    /// [`max_staleness`](NearCacheBuilder::max_staleness). While the server cannot be reached this waits: put a timeout
    /// around it.
    pub async fn wait_for(&self, revision: impl Into<Revision>) {
        self.table.wait_for(revision.into()).await;
    }

    /// How many entries are held.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether no entry is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<C: Clone, T> Clone for NearCache<C, T> {
    fn clone(&self) -> Self {
        Self {
            namespace: self.namespace.clone(),
            table: Arc::clone(&self.table),
            tasks: Arc::clone(&self.tasks),
        }
    }
}

impl<C, T> fmt::Debug for NearCache<C, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NearCache")
            .field("namespace", &self.namespace)
            .field("entries", &self.len())
            .field("freshness", &self.freshness())
            .field("tasks", &self.tasks)
            .finish()
    }
}

/// What keeps a cache true; ends with it.
#[derive(Debug)]
struct Tasks([AbortHandle; 2]);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}
