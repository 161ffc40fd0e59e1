//! The layout of keys in a namespace, all in one place.
//!
//! Keys of users stand as they are: they have no zero byte. Internal keys begin with one:
//!
//! | key | what |
//! | --- | --- |
//! | `\0settings` | the settings of the namespace, as JSON |

use crate::backend::{Key, KeyRange};

/// Where the settings of a namespace are.
pub fn settings() -> Key {
    Key::new(b"\0settings")
}

/// All keys of users.
pub fn all() -> KeyRange {
    KeyRange { start: Key::new(b"\x01"), end: None }
}

/// The keys of users that begin with `prefix`, which is not empty.
pub fn with_prefix(prefix: &[u8]) -> KeyRange {
    KeyRange { start: Key::new(prefix), end: after_prefix(prefix) }
}

/// The keys of users from `start` on and before `end`.
pub fn between(start: &[u8], end: Option<&[u8]>) -> KeyRange {
    let all = all();
    KeyRange { start: Key::new(start).max(all.start), end: end.map(Key::new) }
}

/// The least key that is greater than all that begin with `prefix`; `None` where there is none.
fn after_prefix(prefix: &[u8]) -> Option<Key> {
    let last = prefix.iter().rposition(|byte| *byte != 0xff)?;
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    Some(Key::new(&end))
}
