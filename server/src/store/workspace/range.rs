//! Ranges of keys as commands see them.

use std::collections::BTreeMap;

use crate::{
    backend::{Key, KeyRange, StoredEntry},
    store::selector::Selector,
};

/// A range that was read, as far as it was.
#[derive(Debug, Clone)]
pub struct RangeView {
    /// Which keys were asked for.
    pub selector: Selector,
    /// From the last to the first.
    pub reverse: bool,
    /// How many entries were asked for.
    pub needed: usize,
    /// The part of the range that was read.
    pub covered: KeyRange,
    /// Whether that is all of it.
    pub complete: bool,
    /// The entries found that match.
    pub entries: BTreeMap<Key, StoredEntry>,
}
