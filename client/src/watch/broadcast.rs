//! The messages of one stream, for all who watch the same: a bounded ring in which each has a place of its own.
//!
//! Invariant: a subscriber that is slow costs no memory and holds up nobody. What it has not read when the ring is full
//! is gone for it, and it has to get that in another way; only where nobody reads any faster the stream itself waits.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use slab::Slab;

use super::resume::{Located, Message};
use crate::error::Failure;

/// How much the ring holds for those who have not read it yet. A message has up to 4 MiB.
const MAX_MESSAGES: usize = 4096;
const MAX_BYTES: usize = 16 << 20;
/// How much of that it keeps when all have read it, for those who come back from a lost connection.
const KEPT_BYTES: usize = 128 << 10;

/// A stream that is under way.
#[derive(Debug)]
pub(crate) struct Broadcast<I, E>(Mutex<Ring<I, E>>);

#[derive(Debug)]
struct Ring<I, E> {
    slots: VecDeque<Slot<I, E>>,
    /// The number of the first slot; they are counted from the beginning of the stream.
    first: u64,
    bytes: usize,
    /// No event before the first slot was of a later revision.
    before: u64,
    /// All events up to this revision have come.
    through: u64,
    /// The newest revision that anything was said of.
    newest: u64,
    lineage: String,
    /// Where the stream began, once it stands.
    began: Option<Began>,
    /// What wakes the subscribers that wait.
    wakers: Slab<Option<Waker>>,
    /// Whether there ever were two who read it at once.
    is_shared: bool,
    /// How many subscribers have a place, all in all and at the end.
    subscribers: usize,
    at_end: usize,
    end: Option<Arc<Failure>>,
    /// What wakes the stream when there is room or nobody left, and whether it is room that it waits for.
    publisher: Option<Waker>,
    is_full: bool,
}

#[derive(Debug)]
struct Slot<I, E> {
    message: Arc<Message<I, E>>,
    /// No event up to its end is of a later revision. What it is complete through may be less: the events of a revision may
    /// be spread over messages.
    reaches: u64,
    bytes: usize,
    /// How many subscribers read this next.
    subscribers: usize,
}

/// A place in the ring.
#[derive(Debug)]
pub(crate) struct Subscriber<I, E> {
    broadcast: Arc<Broadcast<I, E>>,
    id: usize,
    /// The number of the slot that is read next.
    next: u64,
}

/// Where a stream began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Began {
    /// The lineage that the namespace had; empty if there was none.
    pub(crate) lineage: String,
    /// What comes is after this revision.
    pub(crate) after: u64,
}

/// Why a subscriber gets no more.
#[derive(Debug)]
pub(crate) enum Gone {
    /// It was too slow: what it was to read next is no longer held.
    Behind,
    /// The stream has ended.
    Ended(Arc<Failure>),
}

impl<I, E> Broadcast<I, E> {
    /// A stream that is to be opened, and the first who reads it.
    pub(crate) fn with_subscriber() -> (Arc<Self>, Subscriber<I, E>) {
        let mut ring = Ring::default();
        (ring.subscribers, ring.at_end) = (1, 1);
        let id = ring.wakers.insert(None);
        let broadcast = Arc::new(Self(Mutex::new(ring)));
        let subscriber = Subscriber { broadcast: Arc::clone(&broadcast), id, next: 0 };
        (broadcast, subscriber)
    }

    /// The newest revision that anything was said of.
    pub(crate) fn newest(&self) -> u64 {
        self.ring().newest
    }

    /// The lineage that the namespace had when the last message came.
    pub(crate) fn lineage(&self) -> String {
        self.ring().lineage.clone()
    }

    /// Whether the stream has not ended.
    pub(crate) fn goes_on(&self) -> bool {
        self.ring().end.is_none()
    }

    /// Whether the stream stands.
    pub(crate) fn has_begun(&self) -> bool {
        self.ring().began.is_some()
    }

    /// Reads what comes from now on; nothing if the stream has ended.
    pub(crate) fn subscribe(self: &Arc<Self>) -> Option<Subscriber<I, E>> {
        self.subscribe_at(|ring| Some(ring.first + ring.slots.len() as u64))
    }

    /// Reads all that comes, and has come, after a revision; nothing if that is not held, or of another lineage. Answers the
    /// lineage, too.
    pub(crate) fn subscribe_after(
        self: &Arc<Self>,
        revision: u64,
        lineage: &str,
    ) -> Option<(Subscriber<I, E>, String)> {
        let mut present = String::new();
        let subscriber = self.subscribe_at(|ring| {
            present.clone_from(&ring.lineage);
            // Whoever knows of no namespace may go on with one that came to be since.
            let begins = ring.began.as_ref().is_some_and(|began| began.lineage.is_empty());
            let is_ours = lineage == ring.lineage || (lineage.is_empty() && begins);
            (is_ours && ring.holds_after(revision)).then(|| ring.after(revision))
        });
        Some((subscriber?, present))
    }

    /// The same for who is told by another stream, and has been told as much as has come by this one.
    pub(crate) fn subscribe_ahead(
        self: &Arc<Self>,
        revision: u64,
        lineage: &str,
    ) -> Option<Subscriber<I, E>> {
        self.subscribe_at(|ring| {
            let is_ahead = ring.through <= revision && ring.lineage == lineage;
            (is_ahead && ring.holds_after(revision)).then(|| ring.after(revision))
        })
    }

    fn subscribe_at(
        self: &Arc<Self>,
        place: impl FnOnce(&Ring<I, E>) -> Option<u64>,
    ) -> Option<Subscriber<I, E>> {
        let mut ring = self.ring();
        if ring.end.is_some() {
            return None;
        }
        let next = place(&ring)?;
        *ring.readers_of(next) += 1;
        ring.subscribers += 1;
        ring.is_shared |= ring.subscribers > 1;
        let id = ring.wakers.insert(None);
        // Those who hold it up may be left behind now.
        let publisher = if ring.is_full { ring.publisher.take() } else { None };
        drop(ring);
        publisher.into_iter().for_each(Waker::wake);
        Some(Subscriber { broadcast: Arc::clone(self), id, next })
    }

    /// The stream stands.
    pub(crate) fn begin(&self, began: Began) {
        let mut ring = self.ring();
        ring.lineage.clone_from(&began.lineage);
        (ring.before, ring.through, ring.newest) = (began.after, began.after, began.after);
        ring.began = Some(began);
        drop(ring);
        self.wake();
    }

    /// Puts a message into the ring once there is room. Whoever waits for it is to be [woken](Self::wake).
    pub(crate) fn poll_push(
        &self,
        context: &mut Context<'_>,
        message: &mut Option<(Message<I, E>, usize)>,
    ) -> Poll<()>
    where
        E: Located,
    {
        let mut ring = self.ring();
        ring.is_full = !ring.make_room();
        if ring.is_full {
            ring.publisher = Some(context.waker().clone());
            return Poll::Pending;
        }
        if let Some((message, bytes)) = message.take() {
            ring.push(message, bytes);
        }
        Poll::Ready(())
    }

    /// Resolves when nobody is left who could read. Then the stream has ended, and nobody can come any more.
    pub(crate) fn poll_unused(
        &self,
        context: &mut Context<'_>,
        end: impl FnOnce() -> Failure,
    ) -> Poll<()> {
        let mut ring = self.ring();
        if ring.subscribers > 0 {
            ring.publisher = Some(context.waker().clone());
            return Poll::Pending;
        }
        ring.end.get_or_insert_with(|| Arc::new(end()));
        Poll::Ready(())
    }

    /// Wakes all who wait for a message.
    pub(crate) fn wake(&self) {
        let mut ring = self.ring();
        let wakers: Vec<_> = ring.wakers.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        drop(ring);
        for waker in wakers {
            waker.wake();
        }
    }

    /// Ends the stream: all are told when they have read what is held.
    pub(crate) fn end(&self, failure: Failure) {
        self.ring().end.get_or_insert_with(|| Arc::new(failure));
        self.wake();
    }

    fn ring(&self) -> MutexGuard<'_, Ring<I, E>> {
        // No method panics halfway through a change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I, E> Default for Ring<I, E> {
    fn default() -> Self {
        Self {
            slots: VecDeque::new(),
            first: 0,
            bytes: 0,
            before: 0,
            through: 0,
            newest: 0,
            lineage: String::new(),
            began: None,
            wakers: Slab::new(),
            is_shared: false,
            subscribers: 0,
            at_end: 0,
            end: None,
            publisher: None,
            is_full: false,
        }
    }
}

impl<I, E> Ring<I, E> {
    /// Whether the stream stands, and nothing after a revision has gone by.
    fn holds_after(&self, revision: u64) -> bool {
        self.began.is_some() && self.before <= revision
    }

    /// The number of the first slot that may have something after a revision.
    fn after(&self, revision: u64) -> u64 {
        self.first + self.slots.partition_point(|slot| slot.reaches <= revision) as u64
    }

    /// Drops what is too much. Not possible while nobody is far ahead of those who would be left behind.
    fn make_room(&mut self) -> bool {
        self.drop_read();
        while self.slots.len() >= MAX_MESSAGES || self.bytes >= MAX_BYTES {
            let is_unread = self.slots.front().is_some_and(|slot| slot.subscribers > 0);
            if is_unread && !self.is_read_by_half() {
                return false;
            }
            self.drop_first();
        }
        true
    }

    /// Whether anybody has read at least half of what is held.
    fn is_read_by_half(&self) -> bool {
        let half = self.slots.len().div_ceil(2);
        self.at_end > 0 || self.slots.range(half..).any(|slot| slot.subscribers > 0)
    }

    /// Drops what all have read, but for what is kept of it.
    fn drop_read(&mut self) {
        let kept = if self.is_shared { KEPT_BYTES } else { 0 };
        while self.bytes > kept && self.slots.front().is_some_and(|slot| slot.subscribers == 0) {
            self.drop_first();
        }
    }

    /// Drops the first slot. Who has yet to read it is left behind.
    fn drop_first(&mut self) {
        let Some(slot) = self.slots.pop_front() else { return };
        self.subscribers -= slot.subscribers;
        self.bytes -= slot.bytes;
        self.before = self.before.max(slot.reaches);
        self.first += 1;
    }

    fn push(&mut self, message: Message<I, E>, bytes: usize)
    where
        E: Located,
    {
        if !message.new_lineage.is_empty() {
            message.new_lineage.clone_into(&mut self.lineage);
        }
        self.through = self.through.max(message.complete_through);
        self.newest = self.newest.max(message.revision).max(self.through);
        // One that only says how far it is takes room, too.
        let bytes = bytes + size_of::<Message<I, E>>() + size_of::<Slot<I, E>>();
        self.bytes += bytes;
        let subscribers = std::mem::take(&mut self.at_end);
        let reached = self.slots.back().map_or(self.before, |last| last.reaches);
        let reaches = message.reaches().max(reached);
        self.slots.push_back(Slot { message: Arc::new(message), reaches, bytes, subscribers });
    }

    /// The slot of this number; none if it is yet to come, or no longer held.
    fn slot(&mut self, number: u64) -> Option<&mut Slot<I, E>> {
        let index = number.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(index).ok()?)
    }

    /// How many subscribers read this next, which is held or the next to come.
    fn readers_of(&mut self, number: u64) -> &mut usize {
        let index = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        match self.slots.get_mut(index) {
            Some(slot) => &mut slot.subscribers,
            None => &mut self.at_end,
        }
    }
}

impl<I, E> Subscriber<I, E> {
    pub(crate) fn broadcast(&self) -> &Arc<Broadcast<I, E>> {
        &self.broadcast
    }

    /// Waits until the stream stands; answers where it began, or why it could not.
    pub(crate) fn poll_began(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Began, Arc<Failure>>> {
        let ring = self.broadcast.ring();
        if let Some(began) = &ring.began {
            return Poll::Ready(Ok(began.clone()));
        }
        if let Some(failure) = &ring.end {
            return Poll::Ready(Err(Arc::clone(failure)));
        }
        self.wait(ring, context);
        Poll::Pending
    }

    pub(crate) fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Result<Arc<Message<I, E>>, Gone>> {
        let mut ring = self.broadcast.ring();
        if self.next < ring.first {
            return Poll::Ready(Err(Gone::Behind));
        }
        let Some(slot) = ring.slot(self.next) else {
            if let Some(failure) = &ring.end {
                return Poll::Ready(Err(Gone::Ended(Arc::clone(failure))));
            }
            self.wait(ring, context);
            return Poll::Pending;
        };
        let message = Arc::clone(&slot.message);
        slot.subscribers -= 1;
        self.next += 1;
        *ring.readers_of(self.next) += 1;
        ring.drop_read();
        let publisher = if ring.is_full { ring.publisher.take() } else { None };
        drop(ring);
        publisher.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(message))
    }

    /// To be woken with all who wait.
    fn wait(&self, mut ring: MutexGuard<'_, Ring<I, E>>, context: &Context<'_>) {
        let former = ring.wakers[self.id].replace(context.waker().clone());
        // What goes with a waker is not for within the lock.
        drop(ring);
        drop(former);
    }
}

impl<I, E> Drop for Subscriber<I, E> {
    fn drop(&mut self) {
        let mut ring = self.broadcast.ring();
        let waker = ring.wakers.remove(self.id);
        let mut publisher = None;
        if self.next >= ring.first {
            *ring.readers_of(self.next) -= 1;
            ring.subscribers -= 1;
            publisher = ring.publisher.take();
        }
        // Nor is what it does.
        drop(ring);
        drop(waker);
        publisher.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, Ordering},
        task::Wake,
    };

    use futures::task::noop_waker_ref;

    use super::*;
    use crate::watch::{resume::Body, session::lost};

    type Ours = Broadcast<(), Event>;

    /// An event of a revision.
    #[derive(Debug)]
    struct Event(u64);

    impl Located for Event {
        fn revision(&self) -> u64 {
            self.0
        }

        fn identity(&self) -> String {
            String::new()
        }
    }

    #[derive(Default)]
    struct Woken(AtomicBool);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    /// A stream of the lineage `l` after revision 5, and who reads it.
    fn begun() -> (Arc<Ours>, Subscriber<(), Event>) {
        let (broadcast, subscriber) = Ours::with_subscriber();
        broadcast.begin(Began { lineage: "l".to_owned(), after: 5 });
        (broadcast, subscriber)
    }

    fn context() -> Context<'static> {
        Context::from_waker(noop_waker_ref())
    }

    /// Whether there was room for a message that is complete through this revision.
    fn push(broadcast: &Ours, through: u64, bytes: usize) -> bool {
        push_part(broadcast, through, through, bytes)
    }

    /// The same for one with an event of a revision that may not be complete with it.
    fn push_part(broadcast: &Ours, revision: u64, complete_through: u64, bytes: usize) -> bool {
        let message = Message {
            revision,
            time_ms: 0,
            complete_through,
            new_lineage: String::new(),
            body: Body::Events(vec![Event(revision)]),
        };
        broadcast.poll_push(&mut context(), &mut Some((message, bytes))).is_ready()
    }

    /// What the next message is complete through; none if there is none, an error if it is no longer held.
    fn read(subscriber: &mut Subscriber<(), Event>) -> Result<Option<u64>, Gone> {
        match subscriber.poll_next(&mut context()) {
            Poll::Ready(message) => message.map(|message| Some(message.complete_through)),
            Poll::Pending => Ok(None),
        }
    }

    #[test]
    fn who_joins_gets_what_came_after_its_place_if_all_of_that_is_held() {
        let (broadcast, mut first) = begun();
        for through in [7, 9] {
            assert!(push(&broadcast, through, 1));
        }
        for (after, expected) in [(5, 7), (6, 7), (7, 9), (8, 9)] {
            let (mut joined, _) = broadcast.subscribe_after(after, "l").expect("it is held");
            assert_eq!(read(&mut joined).expect("it is held"), Some(expected));
        }
        assert!(broadcast.subscribe_after(4, "l").is_none());
        assert!(broadcast.subscribe_after(7, "another").is_none());
        assert!(broadcast.subscribe_ahead(8, "l").is_none());
        let (unbegun, _opener) = Ours::with_subscriber();
        assert!(unbegun.subscribe_ahead(0, "").is_none(), "nobody knows yet where it begins");
        let mut ahead = broadcast.subscribe_ahead(10, "l").expect("it has come as far");
        assert_eq!(read(&mut ahead).expect("nothing is lost"), None);
        assert_eq!(read(&mut first).expect("it is held"), Some(7));
    }

    #[test]
    fn the_slow_one_is_left_behind_and_the_fast_one_gets_everything() {
        let (broadcast, mut slow) = begun();
        let mut fast = broadcast.subscribe().expect("it goes on");
        for through in 6..10_000 {
            assert!(push(&broadcast, through, 1));
            assert_eq!(read(&mut fast).expect("it is held"), Some(through));
        }
        assert!(matches!(read(&mut slow), Err(Gone::Behind)));
        assert!(broadcast.subscribe_after(6, "l").is_none());
        // It no longer counts, and does not when it goes.
        drop(slow);
        assert!(broadcast.poll_unused(&mut context(), || lost("unused")).is_pending());
    }

    #[test]
    fn parts_of_a_revision_are_not_taken_for_what_came_before_it() {
        let (broadcast, mut first) = begun();
        for complete in [5, 5, 6] {
            assert!(push_part(&broadcast, 6, complete, MAX_BYTES / 3));
        }
        let place = |after| broadcast.subscribe_after(after, "l").map(|(joined, _)| joined.next);
        assert_eq!((place(5), place(6)), (Some(0), Some(3)));
        let _fast = broadcast.subscribe_after(6, "l").expect("it is held");
        assert!(push(&broadcast, 7, 1), "one is faster");
        assert!(matches!(read(&mut first), Err(Gone::Behind)));
        assert!(place(5).is_none(), "the first part is gone");
        assert!(broadcast.subscribe_ahead(5, "l").is_none());
    }

    #[test]
    fn where_nobody_is_far_ahead_the_stream_waits() {
        const PARTS: usize = 8;
        let (broadcast, mut first) = begun();
        let mut second = broadcast.subscribe().expect("it goes on");
        for through in 6..6 + PARTS as u64 {
            assert!(push(&broadcast, through, MAX_BYTES / PARTS));
        }
        for through in 6..6 + PARTS as u64 / 2 {
            assert!(!push(&broadcast, 20, 1), "they have yet to read half of it");
            assert_eq!(read(&mut first).expect("it is held"), Some(through));
        }
        assert!(push(&broadcast, 20, 1), "one has now");
        assert!(matches!(read(&mut second), Err(Gone::Behind)));
    }

    #[test]
    fn one_who_joins_at_the_end_is_not_held_up_by_those_who_stand_still() {
        let (broadcast, mut still) = begun();
        assert!(push(&broadcast, 6, MAX_BYTES));
        let woken = Arc::<Woken>::default();
        let waker = Waker::from(Arc::clone(&woken));
        broadcast.ring().publisher = Some(waker);
        broadcast.ring().is_full = true;
        let _joined = broadcast.subscribe().expect("it goes on");
        assert!(woken.0.load(Ordering::Relaxed), "there is room now");
        assert!(push(&broadcast, 7, 1));
        assert!(matches!(read(&mut still), Err(Gone::Behind)));
    }

    #[test]
    fn what_all_have_read_is_kept_to_a_smaller_bound() {
        let (broadcast, mut only) = begun();
        assert!(push(&broadcast, 6, 1));
        assert_eq!(read(&mut only).expect("it is held"), Some(6));
        assert!(broadcast.subscribe_after(5, "l").is_none(), "who reads alone needs nothing kept");
        drop(broadcast.subscribe());
        for through in [7, 8, 9] {
            assert!(push(&broadcast, through, KEPT_BYTES / 3));
            assert_eq!(read(&mut only).expect("it is held"), Some(through));
        }
        assert!(broadcast.subscribe_after(6, "l").is_none());
        assert!(broadcast.subscribe_after(7, "l").is_some());
    }

    #[test]
    fn with_the_last_reader_the_stream_ends_for_good() {
        let (broadcast, only) = begun();
        let another = broadcast.subscribe().expect("it goes on");
        drop(only);
        assert!(broadcast.poll_unused(&mut context(), || lost("unused")).is_pending());
        drop(another);
        assert!(broadcast.poll_unused(&mut context(), || lost("unused")).is_ready());
        assert!(broadcast.subscribe().is_none());
    }

    #[test]
    fn a_failure_is_told_after_what_came_before_it() {
        let (broadcast, mut first) = begun();
        assert!(push(&broadcast, 6, 1));
        broadcast.end(lost("cut"));
        assert_eq!(read(&mut first).expect("it is held"), Some(6));
        assert!(matches!(read(&mut first), Err(Gone::Ended(_))));
        assert!(broadcast.subscribe_after(6, "l").is_none());
    }
}
