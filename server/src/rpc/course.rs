//! What all watches tell in the same way: how far they have come, and how what they tell is parted into messages.

use futures::{Stream, StreamExt as _, stream};
use tokio_util::sync::CancellationToken;

use super::status::Failure;
use crate::{backend::Revision, store::error::StoreError};

/// How far a watch has told.
pub(super) struct Course {
    /// The last revision that was told in full.
    pub complete: Revision,
    /// To go along with the next message.
    pub new_lineage: String,
    /// About the most bytes of a message.
    budget: usize,
}

impl Course {
    /// The beginning of a watch whose messages have about `budget` bytes at the most.
    pub fn new(budget: usize) -> Self {
        Self { complete: Revision(0), new_lineage: String::new(), budget }
    }

    /// The parts of a state, one a message, each with whether it is the last of all. One that is empty but ends the
    /// state is a part, too.
    pub fn parts_of_state<'a, T>(
        &self,
        items: &'a [T],
        end: bool,
        size: impl Fn(&T) -> usize,
    ) -> Vec<(&'a [T], bool)> {
        let mut parts: Vec<_> =
            split(items, self.budget, size).into_iter().map(|part| (part, false)).collect();
        if parts.is_empty() && end {
            parts.push((&[], false));
        }
        if let Some((_, is_last)) = parts.last_mut() {
            *is_last = end;
        }
        parts
    }

    /// The parts of events that come up to the revision `through`, one a message, each with the revision that is
    /// told in full with it. The events of a revision may be spread over messages: it is complete with the last of
    /// them.
    pub fn parts_of_events<'a, T>(
        &self,
        events: &'a [T],
        through: Revision,
        size: impl Fn(&T) -> usize,
        revision: impl Fn(&T) -> Revision,
    ) -> Vec<(&'a [T], Revision)> {
        let mut complete = self.complete;
        let mut told = 0;
        let with_course = |part: &'a [T]| {
            told += part.len();
            match events.get(told).map(&revision) {
                None => complete = through,
                Some(next) => {
                    let in_full = part.iter().rev().map(&revision).find(|it| *it < next);
                    complete = complete.max(in_full.unwrap_or_default());
                }
            }
            (part, complete)
        };
        split(events, self.budget, size).into_iter().map(with_course).collect()
    }
}

/// What a watch of the store tells, until the server stops.
pub(super) fn until_stopped<T>(
    items: impl Stream<Item = Result<T, StoreError>>,
    stopping: CancellationToken,
) -> impl Stream<Item = Result<T, Failure>> {
    let stopped = stream::once(async { Err(Failure::stopping()) });
    let items = items.map(|item| item.map_err(Failure::from));
    items.take_until(stopping.cancelled_owned()).chain(stopped)
}

/// Cuts a list into parts of about `budget` bytes, none of them empty.
fn split<T>(items: &[T], budget: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (index, item) in items.iter().enumerate() {
        let item_bytes = size(item);
        if bytes + item_bytes > budget && index > start {
            parts.push(&items[start..index]);
            (start, bytes) = (index, 0);
        }
        bytes += item_bytes;
    }
    if start < items.len() {
        parts.push(&items[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of events of each message, with how far it says to be complete.
    fn told(course: &mut Course, revisions: &[u64], through: u64) -> Vec<(usize, u64)> {
        let parts = course.parts_of_events(revisions, Revision(through), |_| 1, |it| Revision(*it));
        let told: Vec<_> =
            parts.into_iter().map(|(part, complete)| (part.len(), complete.0)).collect();
        course.complete = told.last().map_or(course.complete, |(_, last)| Revision(*last));
        told
    }

    #[test]
    fn revisions_are_complete_with_their_last_event() {
        let mut course = Course::new(2);
        course.complete = Revision(4);
        assert_eq!(told(&mut course, &[5, 5, 5, 5, 5], 5), [(2, 4), (2, 4), (1, 5)]);
        assert_eq!(told(&mut course, &[6, 7, 7, 7], 9), [(2, 6), (2, 9)]);
        assert_eq!(told(&mut course, &[10, 10, 11, 12], 12), [(2, 10), (2, 12)]);
        assert_eq!(told(&mut course, &[14], 20), [(1, 20)]);
    }

    #[test]
    fn an_event_larger_than_a_message_goes_alone() {
        let mut course = Course::new(0);
        assert_eq!(told(&mut course, &[1, 1, 2], 2), [(1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn a_state_ends_with_its_last_part() {
        let course = Course::new(2);
        let parts = |items: &[u8], end| {
            let parts = course.parts_of_state(items, end, |_| 1).into_iter();
            parts.map(|(part, is_last)| (part.len(), is_last)).collect::<Vec<_>>()
        };
        assert_eq!(parts(&[1, 2, 3], false), [(2, false), (1, false)]);
        assert_eq!(parts(&[1, 2, 3], true), [(2, false), (1, true)]);
        assert_eq!(parts(&[], false), []);
        assert_eq!(parts(&[], true), [(0, true)]);
    }
}
