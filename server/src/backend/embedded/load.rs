//! The images of all namespaces, made anew from a journal.

use std::collections::BTreeMap;

use super::{
    cells::Cells,
    image::Image,
    journal::{NamespaceState, Record, Restore, Version, is_staged},
};
use crate::backend::{Key, NamespaceName, Revision};

/// What has been loaded.
#[derive(Debug, Default)]
pub struct Loaded {
    images: BTreeMap<NamespaceName, Image>,
    /// The namespace that a snapshot is telling of.
    current: Option<(NamespaceName, Image)>,
    latest_ms: Option<i64>,
    /// Whether it is a copy that was put back.
    copy: bool,
}

impl Loaded {
    /// The largest time that was kept.
    pub fn latest_ms(&self) -> i64 {
        self.latest_ms.unwrap_or(i64::MIN)
    }

    /// How many namespaces there are, deleted ones included, and how many keys of users they hold.
    pub fn size(&self) -> (u64, u64) {
        let images = || self.images.iter().filter(|(name, _)| !is_staged(name));
        let keys = images().map(|(_, image)| image.tip(i64::MIN).usage.keys).sum();
        (images().count() as u64, keys)
    }

    /// Begins the histories of a copy anew; answers whether it is one.
    pub(super) fn renew_copy(&mut self, now_ms: i64) -> bool {
        if self.copy {
            for image in self.images.values_mut() {
                image.renew(now_ms);
            }
        }
        self.copy
    }

    /// The namespaces of an engine that goes on from here.
    pub(super) fn into_cells(self) -> Cells {
        // Whoever was staging something is gone.
        self.images.into_iter().filter(|(name, _)| !is_staged(name)).collect()
    }

    fn current(&mut self) -> Result<&mut Image, String> {
        let current = self.current.as_mut().map(|(_, image)| image);
        current.ok_or_else(|| "it belongs to no namespace".to_owned())
    }

    fn note_time(&mut self, time_ms: i64) {
        self.latest_ms = self.latest_ms.max(Some(time_ms));
    }
}

impl Restore for Loaded {
    fn is_copy(&mut self) {
        self.copy = true;
    }

    fn begin(&mut self, state: NamespaceState) -> Result<(), String> {
        if let Some((name, _)) = &self.current {
            return Err(format!("the namespace {} has not ended", name.as_str()));
        }
        if self.images.contains_key(&state.name) {
            return Err(format!("the namespace {} came before", state.name.as_str()));
        }
        self.note_time(state.time_ms);
        let image = Image::restored(&state);
        self.current = Some((state.name, image));
        Ok(())
    }

    fn put(&mut self, version: Version) -> Result<(), String> {
        self.current()?.put_version(version)
    }

    fn expect(&mut self, key: &Key, revision: Revision) -> Result<(), String> {
        self.current()?.expect(key, revision)
    }

    fn drop_key(&mut self, key: &Key) -> Result<(), String> {
        self.current()?.drop_key(key)
    }

    fn end(&mut self, compacted: Revision) -> Result<(), String> {
        self.current()?.forget_through(compacted)?;
        self.images.extend(self.current.take());
        Ok(())
    }

    fn apply(&mut self, record: Record) -> Result<(), String> {
        self.note_time(record.time_ms);
        let staged = record.action.staged().and_then(|staged| self.images.remove(staged));
        if let Some(image) = self.images.get_mut(&record.namespace) {
            return image.replay(record, staged).map(drop);
        }
        if record.position.0 != 1 {
            // What was staged and discarded is in no snapshot.
            return match is_staged(&record.namespace) {
                true => Ok(()),
                false => Err("the commits before it are missing".into()),
            };
        }
        let name = record.namespace.clone();
        let mut image = Image::before(&record);
        image.replay(record, staged)?;
        self.images.insert(name, image);
        Ok(())
    }
}
