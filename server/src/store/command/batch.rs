//! Commands on several keys at once.

use super::Set;
use crate::{
    backend::Key,
    store::{
        error::Refusal,
        workspace::{Seen, Workspace},
    },
};

/// Writes all items; answers the entries without their values.
pub(super) fn set(items: &[Set], workspace: &mut Workspace) -> Result<Vec<Seen>, Refusal<Seen>> {
    items.iter().map(|item| Ok(item.run(workspace)?.entry)).collect()
}

/// Removes all keys; answers whether each was there.
pub(super) fn delete(keys: &[Key], workspace: &mut Workspace) -> Vec<bool> {
    let remove = |key: &Key| {
        let found = workspace.get(key).is_some();
        workspace.remove(key);
        found
    };
    keys.iter().map(remove).collect()
}
