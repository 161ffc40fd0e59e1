//! What was read because of what else was read: what hangs on a lease that ends, and who waits for a lock that may be
//! passed on.

use std::collections::HashMap;

use crate::backend::Key;

/// See the module. The entries of all keys named here are among those of the workspace.
#[derive(Debug, Default)]
pub struct Related {
    /// Leases that may end.
    pub leases: HashMap<Key, Attached>,
    /// The queues of locks that may be passed on.
    pub queues: HashMap<Key, Places>,
}

/// What hangs on a lease.
#[derive(Debug, Default)]
pub struct Attached {
    /// Keys of users.
    pub keys: Vec<Key>,
    /// Locks.
    pub locks: Vec<Key>,
}

/// The first of those who wait for a lock.
#[derive(Debug, Default)]
pub struct Places {
    /// Their places, in order.
    pub places: Vec<Key>,
    /// Whether these are all.
    pub is_complete: bool,
}
