//! What a server keeps at hand of a namespace. Nothing of it matters if it is lost.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    committer::Queue, known::Known, locks::WaitingCalls, requests::KeptRequests,
    settings::Settings, watch::Hub,
};
use crate::backend::{LogShape, NamespaceName, Position, Revision, StoredEntry};

pub(super) struct Namespace {
    pub name: NamespaceName,
    pub queue: Mutex<Queue>,
    pub hub: Mutex<Option<Hub>>,
    /// The log as it was last seen.
    pub log: Mutex<SeenLog>,
    /// The latest revision that was committed from here.
    pub committed: AtomicU64,
    /// What its keys hold since the last commit from here, where that need not be read again.
    pub known: Known,
    /// The earliest deadline that expiry knows of; `i64::MAX`: none.
    pub deadline_ms: AtomicI64,
    /// Which answers to requests are kept, once that was looked for.
    pub kept: Mutex<Option<KeptRequests>>,
    /// The calls that wait here for locks.
    pub waiting: Mutex<WaitingCalls>,
    /// The last that were seen, and what they are stored as.
    settings: Mutex<Option<(Option<Bytes>, Arc<Settings>)>>,
    pins: Mutex<BTreeMap<Revision, usize>>,
}

/// What was last seen of a log.
#[derive(Default)]
pub(super) struct SeenLog {
    /// How many commits had been seen by then,
    pub commits: u64,
    /// the latest at this position.
    pub position: Position,
    /// How large it was.
    pub shape: LogShape,
}

impl Namespace {
    pub fn new(name: NamespaceName) -> Self {
        Self {
            name,
            queue: Mutex::default(),
            hub: Mutex::default(),
            log: Mutex::default(),
            committed: AtomicU64::new(0),
            known: Known::default(),
            deadline_ms: AtomicI64::new(i64::MAX),
            kept: Mutex::default(),
            waiting: Mutex::default(),
            settings: Mutex::default(),
            pins: Mutex::default(),
        }
    }

    /// Settings as stored; decoded anew only where they are not those of the last time.
    pub fn settings(&self, stored: Option<&StoredEntry>) -> Arc<Settings> {
        let stored = stored.map(|stored| &stored.value);
        let mut seen = self.settings.lock();
        if let Some((text, settings)) = &*seen
            && text.as_ref() == stored
        {
            return settings.clone();
        }
        // Only this program writes them, so that what cannot be read is of another version.
        let decode = |text: &Bytes| {
            serde_json::from_slice(text).unwrap_or_else(|error| {
                tracing::error!(namespace = self.name.as_str(), %error, "unreadable settings");
                Settings::default()
            })
        };
        let settings = Arc::new(stored.map(decode).unwrap_or_default());
        *seen = Some((stored.cloned(), settings.clone()));
        settings
    }

    /// Whether the log may hold too much, by what was last seen of it and of the settings.
    pub fn may_be_over(&self, now_ms: i64) -> bool {
        let log = self.log.lock().shape;
        let settings = self.settings.lock();
        log.events > 0
            && settings.as_ref().is_none_or(|(_, settings)| settings.is_log_over(log, now_ms))
    }

    /// Holds the state at a revision until the pin is dropped or the log is far too large.
    pub fn pin(self: &Arc<Self>, revision: Revision) -> Pin {
        *self.pins.lock().entry(revision).or_default() += 1;
        Pin { namespace: self.clone(), revision }
    }

    /// The oldest revision that is being read.
    pub fn oldest_pin(&self) -> Option<Revision> {
        self.pins.lock().first_key_value().map(|(revision, _)| *revision)
    }

    /// Whether nothing is lost by forgetting it.
    pub fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
            && self.log.lock().shape.events == 0
            && self.deadline_ms.load(std::sync::atomic::Ordering::Relaxed) == i64::MAX
    }
}

/// Holds the state of a namespace at a revision.
pub struct Pin {
    namespace: Arc<Namespace>,
    revision: Revision,
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pins = self.namespace.pins.lock();
        if let Some(count) = pins.get_mut(&self.revision) {
            *count -= 1;
            if *count == 0 {
                pins.remove(&self.revision);
            }
        }
    }
}
