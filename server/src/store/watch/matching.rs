//! What a watch is told of, shared with all others that are told of it.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use super::hub::Batch;
use crate::backend::LoggedChange;

/// In how many ways a change can be told.
const FORMS: usize = 4;

/// The changes of a piece of the log that match a watch, in order.
#[derive(Debug, Clone)]
pub struct Matching {
    batch: Arc<Batch>,
    places: Vec<Place>,
}

/// The place of a change in a piece of the log.
#[derive(Debug, Clone, Copy)]
pub struct Place(u32);

/// A change as it is told, in each form that somebody has told it in.
#[derive(Debug, Default)]
pub(super) struct Told([OnceLock<Bytes>; FORMS]);

impl Matching {
    /// Those that match.
    pub(super) fn new(batch: &Arc<Batch>, matches: impl Fn(&LoggedChange) -> bool) -> Self {
        let places = (0..).zip(&batch.changes).filter(|(_, logged)| matches(logged));
        Self { batch: batch.clone(), places: places.map(|(place, _)| Place(place)).collect() }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Where they are.
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// The change at a place.
    pub fn at(&self, place: Place) -> &LoggedChange {
        &self.batch.changes[place.0 as usize]
    }

    /// The change at a place in one of four forms, from 0 to 3. The first who tells it in that form makes the bytes, all
    /// others get the same: what a form is, is theirs to agree on.
    pub fn told(
        &self,
        place: Place,
        form: usize,
        tell: impl FnOnce(&LoggedChange) -> Bytes,
    ) -> &Bytes {
        let told = &self.batch.told[place.0 as usize];
        told.0[form].get_or_init(|| tell(self.at(place)))
    }
}

#[cfg(test)]
impl From<Vec<LoggedChange>> for Matching {
    /// All of these.
    fn from(changes: Vec<LoggedChange>) -> Self {
        let revision = crate::backend::Revision(0);
        Self::new(&Arc::new(Batch::new(None, revision, revision, changes)), |_| true)
    }
}
