//! The initial state of a watch.

use std::sync::Arc;

use super::{WatchItem, WatchQuery};
use crate::{
    backend::{KeyRange, Revision, StoredEntry},
    store::{
        Cursor, ListQuery, Pin, Store, error::StoreError, namespace::Namespace, selector::Selector,
    },
};

/// How many entries are read at once.
const PAGE: usize = 1000;

/// The initial state of a watch, read in pages at one revision and time.
pub(super) struct Initial {
    /// What is left to read, disjoint and in order.
    ranges: std::vec::IntoIter<KeyRange>,
    range: Option<KeyRange>,
    pub cursor: Option<Cursor>,
    entries: Vec<StoredEntry>,
    /// Holds what comes after the state until the watch has caught up with it.
    pub pin: Option<Pin>,
    done: bool,
}

impl Initial {
    pub fn new(selectors: &[Selector]) -> Self {
        let mut ranges = disjoint(selectors).into_iter();
        let range = ranges.next();
        Self { ranges, range, cursor: None, entries: Vec::new(), pin: None, done: false }
    }

    /// The next part to tell; `None` after the end.
    pub async fn next(
        &mut self,
        store: &Store,
        namespace: &Arc<Namespace>,
        query: &WatchQuery,
    ) -> Result<Option<WatchItem>, StoreError> {
        let Some(cursor) = self.cursor.clone().filter(|_| !self.done) else {
            return Ok(None);
        };
        let mut entries = std::mem::take(&mut self.entries);
        entries.retain(|entry| query.selects(entry.key()));
        let end = self.range.is_none();
        if end {
            self.done = true;
        } else {
            self.read(store, namespace).await?;
        }
        Ok(Some(WatchItem::Initial { entries, cursor, end }))
    }

    /// Reads the next page.
    pub async fn read(&mut self, store: &Store, namespace: &Namespace) -> Result<(), StoreError> {
        let Some(range) = &self.range else {
            return Ok(());
        };
        let query = ListQuery {
            selector: range.clone().into(),
            reverse: false,
            at: None,
            min_mod_revision: Revision(0),
        };
        let after = self.cursor.clone();
        let page = store.page(&namespace.name, &query, after, PAGE, |_| true).await?;
        let mut cursor = page.cursor;
        if page.end {
            cursor.edge = None;
            self.range = self.ranges.next();
        }
        self.cursor = Some(cursor);
        self.entries = page.entries;
        Ok(())
    }
}

/// The ranges that the selectors lie in, joined where they overlap, in order.
fn disjoint(selectors: &[Selector]) -> Vec<KeyRange> {
    let mut ranges: Vec<_> = selectors.iter().map(|selector| selector.bounds().clone()).collect();
    ranges.sort_by(|a, b| a.start.cmp(&b.start));
    let mut joined: Vec<KeyRange> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end.as_ref().is_none_or(|end| *end >= range.start) => {
                last.end = match (last.end.take(), range.end) {
                    (Some(a), Some(b)) => Some(a.max(b)),
                    _ => None,
                };
            }
            _ => joined.push(range),
        }
    }
    joined
}
