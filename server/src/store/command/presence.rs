//! The command by which a server says that it lives: the places of callers that wait at it last as long.

use crate::{backend::Key, store::workspace::Workspace};

/// How long a server is taken to live from each time it says so.
const TTL_MS: u64 = 2500;

/// Says that a server lives.
#[derive(Debug, Clone)]
pub struct Presence {
    /// The key that says so. One that was not kept alive is never used again: its places may be gone.
    pub server: Key,
    /// Whether it is said for the first time.
    pub is_new: bool,
}

impl Presence {
    /// Whether it lives on.
    pub(super) fn run(&self, workspace: &mut Workspace) -> bool {
        if !self.is_new && workspace.get(&self.server).is_none() {
            return false;
        }
        workspace.keep_server_alive(&self.server, TTL_MS);
        true
    }
}
