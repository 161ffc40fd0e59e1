//! Whether commits are taken, and why not.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

/// Of each server that takes writes, why it does not just now.
pub(super) struct Health {
    /// By the names of the servers.
    reasons: Mutex<BTreeMap<String, Option<String>>>,
    writable: watch::Sender<bool>,
}

impl Health {
    pub(super) fn new() -> Self {
        Self { reasons: Mutex::default(), writable: watch::Sender::new(true) }
    }

    /// True while there is a server that takes writes.
    pub(super) fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Takes note of why a server does not take writes, or that it does.
    pub(super) fn report(&self, server: &str, reason: Option<String>) {
        let mut reasons = self.reasons.lock();
        let before = reasons.insert(server.to_owned(), reason.clone());
        match (&before, &reason) {
            (before, Some(reason)) if before.as_ref().and_then(Option::as_ref) != Some(reason) => {
                warn!("Redis at {server} does not take writes: {reason}");
            }
            (Some(Some(_)), None) => info!("Redis at {server} takes writes again"),
            _ => {}
        }
        self.publish(&reasons);
    }

    /// Why a server does not take writes.
    pub(super) fn reason(&self, server: &str) -> Option<String> {
        self.reasons.lock().get(server).cloned().flatten()
    }

    /// A server that is no longer one of them.
    pub(super) fn forget(&self, server: &str) {
        let mut reasons = self.reasons.lock();
        reasons.remove(server);
        self.publish(&reasons);
    }

    fn publish(&self, reasons: &BTreeMap<String, Option<String>>) {
        let writable = reasons.is_empty() || reasons.values().any(Option::is_none);
        self.writable.send_if_modified(|now| std::mem::replace(now, writable) != writable);
    }
}
