//! The names of keys in Redis.
//!
//! All keys of a namespace are in one hash slot, that of its name.

use crate::backend::{NamespaceName, Staging};

/// How many keys belong to a namespace.
const NAMESPACE_KEYS: [&str; 9] = ["head", "ue", "uo", "ud", "ie", "io", "id", "log", "recent"];
/// Which of them is the head,
pub(super) const HEAD: usize = 0;
/// which has the entries of users,
pub(super) const USERS: usize = 1;
/// and which the internal ones.
pub(super) const INTERNALS: usize = 4;
/// What is staged for a namespace, beside it.
const STAGED_KEYS: [&str; 7] = ["ue", "uo", "ud", "ie", "io", "id", "usage"];

/// What all names begin with.
#[derive(Debug)]
pub(super) struct Layout {
    prefix: String,
}

impl Layout {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The names of all namespaces.
    pub(super) fn names(&self) -> Vec<Vec<u8>> {
        vec![format!("{}:{{names}}", self.prefix).into_bytes()]
    }

    /// The servers that share the state.
    pub(super) fn servers(&self) -> Vec<Vec<u8>> {
        vec![format!("{}:{{servers}}", self.prefix).into_bytes()]
    }

    /// The channel of messages.
    pub(super) fn channel(&self) -> String {
        format!("{}:wake", self.prefix)
    }

    /// All that is kept of a namespace, in the order of the scripts' prelude.
    pub(super) fn namespace(&self, name: &NamespaceName) -> Vec<Vec<u8>> {
        let key = |what| format!("{}:{{{}}}:{what}", self.prefix, name.as_str()).into_bytes();
        NAMESPACE_KEYS.into_iter().map(key).collect()
    }

    /// The same, and all that is staged for it.
    pub(super) fn staging(&self, staging: &Staging) -> Vec<Vec<u8>> {
        let (name, id) = (staging.namespace.as_str(), staging.id);
        let key = |what| format!("{}:{{{name}}}:staged:{id}:{what}", self.prefix).into_bytes();
        let mut keys = self.namespace(&staging.namespace);
        keys.extend(STAGED_KEYS.into_iter().map(key));
        keys
    }
}
