//! The calls of one pipeline: those that wait to be sent, and those that wait for an answer.
//!
//! Invariant: a call is in the queue as long as it is `Queued`, and what has left the queue counts as sent. So
//! what is `Queued` when a stream breaks has surely not been run.

use std::{
    collections::VecDeque,
    task::{Context, Poll, Waker},
};

use tokio::time::Instant;

use super::{
    MAX_CALLS, MESSAGE_BYTES, Unanswered,
    wire::{Answer, Message},
};

/// Room of calls that will not be sent, beyond that of those that will, at which the queue is freed of them.
const DEAD_ROOM: usize = 1 << 20;

/// How many namespaces of the queue are looked through for one to join.
const LOOKED_BACK: usize = 8;

/// Names a call: the slot it uses, and which use of the slot it is. Never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CallId(pub(super) u64);

/// What is to be done once nobody has to wait for it.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    /// Who is to go on.
    pub(super) wakers: Vec<Waker>,
    /// Who does not wait any more. To drop a waker may end a task, and with it another call.
    pub(super) gone: Vec<Waker>,
    /// How much room has become free.
    pub(super) room: usize,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    slots: Vec<Slot>,
    free: Vec<usize>,
    queue: VecDeque<Part>,
    /// Room of the entries of the queue that are still to be sent, and of those that are not.
    live: usize,
    dead: usize,
    /// Calls that are over but whose callers do not know yet.
    unclaimed: usize,
    /// No call has an earlier deadline.
    earliest: Option<Instant>,
}

#[derive(Debug)]
struct Slot {
    /// How often it was used before.
    uses: u64,
    state: State,
    room: usize,
    deadline: Instant,
    waker: Option<Waker>,
}

#[derive(Debug)]
enum State {
    Free,
    Queued,
    Sent,
    Over(Result<Answer, Unanswered>),
}

/// A message in the making.
#[derive(Debug)]
struct Part {
    namespace: String,
    calls: Vec<u8>,
    entries: Vec<Entry>,
}

/// A call in a message.
#[derive(Debug)]
struct Entry {
    id: CallId,
    bytes: usize,
    room: usize,
}

impl CallId {
    const SLOT_BITS: u32 = 24;

    fn new(slot: usize, uses: u64) -> Self {
        Self(uses << Self::SLOT_BITS | slot as u64)
    }

    fn slot(self) -> usize {
        (self.0 & ((1 << Self::SLOT_BITS) - 1)) as usize
    }

    fn uses(self) -> u64 {
        self.0 >> Self::SLOT_BITS
    }
}

impl Calls {
    /// Puts a call into the queue. `put` adds it to the calls of a message.
    pub(super) fn add(
        &mut self,
        namespace: &str,
        room: usize,
        deadline: Instant,
        waker: Waker,
        put: impl FnOnce(CallId, &mut Vec<u8>),
    ) -> CallId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot { uses: 0, state: State::Free, room: 0, deadline, waker: None });
            self.slots.len() - 1
        });
        let slot = &mut self.slots[index];
        slot.uses += 1;
        slot.state = State::Queued;
        slot.room = room;
        slot.deadline = deadline;
        slot.waker = Some(waker);
        let id = CallId::new(index, slot.uses);
        let part = self.part(namespace, room);
        let before = part.calls.len();
        put(id, &mut part.calls);
        part.entries.push(Entry { id, bytes: part.calls.len() - before, room });
        self.live += room;
        if self.earliest.is_none_or(|earliest| deadline < earliest) {
            self.earliest = Some(deadline);
        }
        id
    }

    /// What has become of a call. Once it is over, the slot is free.
    pub(super) fn poll(
        &mut self,
        id: CallId,
        context: &mut Context<'_>,
        after: &mut Aftermath,
    ) -> Poll<Result<Answer, Unanswered>> {
        let slot = &mut self.slots[id.slot()];
        if let State::Over(_) = slot.state {
            let State::Over(outcome) = std::mem::replace(&mut slot.state, State::Free) else {
                unreachable!("it was over a moment ago");
            };
            self.unclaimed -= 1;
            self.free.push(id.slot());
            return Poll::Ready(outcome);
        }
        if !slot.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            after.gone.extend(slot.waker.replace(context.waker().clone()));
        }
        Poll::Pending
    }

    /// Nobody waits for a call any more. If it is not sent yet, it never will be.
    pub(super) fn give_up(&mut self, id: CallId, after: &mut Aftermath) {
        let slot = &mut self.slots[id.slot()];
        after.gone.extend(slot.waker.take());
        match std::mem::replace(&mut slot.state, State::Free) {
            State::Queued => {
                let room = slot.room;
                after.room += room;
                self.bury(room);
            }
            State::Sent => after.room += slot.room,
            State::Over(_) => self.unclaimed -= 1,
            State::Free => {}
        }
        self.free.push(id.slot());
    }

    /// The next message; what is in it counts as sent from now on.
    pub(super) fn take_message(&mut self) -> Option<Message> {
        loop {
            let mut part = self.queue.pop_front()?;
            let buried = part.compact(&self.slots, self.dead);
            self.dead -= buried;
            if part.entries.is_empty() {
                continue;
            }
            for entry in &part.entries {
                self.live -= entry.room;
                self.slots[entry.id.slot()].state = State::Sent;
            }
            return Some(Message { namespace: part.namespace, calls: part.calls });
        }
    }

    /// Whether there is anything to be sent.
    pub(super) fn has_queued(&self) -> bool {
        self.live > 0
    }

    /// Whether callers are about to learn that their calls are over, and may make others.
    pub(super) fn has_unclaimed(&self) -> bool {
        self.unclaimed > 0
    }

    /// No call has an earlier deadline.
    pub(super) fn earliest(&self) -> Option<Instant> {
        self.earliest
    }

    /// Hands an answer to who waits for it, if there is anybody.
    pub(super) fn answer(&mut self, id: CallId, answer: Answer, after: &mut Aftermath) {
        let waits = |slot: &&mut Slot| slot.uses == id.uses() && matches!(slot.state, State::Sent);
        if let Some(slot) = self.slots.get_mut(id.slot()).filter(waits) {
            slot.end(Ok(answer), after);
            self.unclaimed += 1;
        }
    }

    /// Ends the calls whose deadlines have passed.
    pub(super) fn expire(&mut self, now: Instant, after: &mut Aftermath) {
        if self.earliest.is_none_or(|earliest| earliest > now) {
            return;
        }
        self.end_some(after, |slot| (slot.deadline <= now).then_some(Unanswered::Late));
        let waiting = self.slots.iter().filter(|slot| slot.waits());
        self.earliest = waiting.map(|slot| slot.deadline).min();
    }

    /// Ends the calls that are not sent yet.
    pub(super) fn end_queued(&mut self, why: &Unanswered, after: &mut Aftermath) {
        self.end_some(after, |slot| matches!(slot.state, State::Queued).then(|| why.clone()));
    }

    /// Ends the calls that are sent.
    pub(super) fn end_sent(&mut self, why: &Unanswered, after: &mut Aftermath) {
        self.end_some(after, |slot| matches!(slot.state, State::Sent).then(|| why.clone()));
    }

    fn end_some(&mut self, after: &mut Aftermath, why: impl Fn(&Slot) -> Option<Unanswered>) {
        for index in 0..self.slots.len() {
            let slot = &mut self.slots[index];
            if slot.waits()
                && let Some(why) = why(slot)
            {
                let (was_queued, room) = (matches!(slot.state, State::Queued), slot.room);
                slot.end(Err(why), after);
                self.unclaimed += 1;
                if was_queued {
                    self.bury(room);
                }
            }
        }
    }

    /// A call in the queue will not be sent. Once most of the queue is such calls, it is freed of them.
    fn bury(&mut self, room: usize) {
        self.live -= room;
        self.dead += room;
        if self.dead > self.live + DEAD_ROOM {
            let dead = self.dead;
            for part in &mut self.queue {
                part.compact(&self.slots, dead);
            }
            self.queue.retain(|part| !part.entries.is_empty());
            self.dead = 0;
        }
    }

    /// The part of the queue that a call on a namespace joins: the last on that namespace, if there is room in it.
    fn part(&mut self, namespace: &str, room: usize) -> &mut Part {
        let looked_at = self.queue.iter().enumerate().rev().take(LOOKED_BACK);
        let mut own = looked_at.filter(|(_, part)| part.namespace == namespace);
        let joined = own.next().filter(|(_, part)| {
            part.entries.len() < MAX_CALLS && part.calls.len() + room <= MESSAGE_BYTES
        });
        let index = joined.map(|(index, _)| index).unwrap_or_else(|| {
            self.queue.push_back(Part {
                namespace: namespace.to_owned(),
                calls: Vec::with_capacity(4096),
                entries: Vec::with_capacity(16),
            });
            self.queue.len() - 1
        });
        &mut self.queue[index]
    }
}

impl Slot {
    fn waits(&self) -> bool {
        matches!(self.state, State::Queued | State::Sent)
    }

    fn end(&mut self, outcome: Result<Answer, Unanswered>, after: &mut Aftermath) {
        self.state = State::Over(outcome);
        after.room += self.room;
        after.wakers.extend(self.waker.take());
    }
}

impl Part {
    /// Takes out the calls that are not to be sent, which have so much room at the most; answers how much they had.
    fn compact(&mut self, slots: &[Slot], at_most: usize) -> usize {
        if at_most == 0 {
            return 0;
        }
        let (mut from, mut to, mut buried) = (0, 0, 0);
        let calls = &mut self.calls;
        self.entries.retain(|&Entry { id, bytes, room }| {
            let slot = &slots[id.slot()];
            let is_live = slot.uses == id.uses() && matches!(slot.state, State::Queued);
            if is_live {
                calls.copy_within(from..from + bytes, to);
                to += bytes;
            } else {
                buried += room;
            }
            from += bytes;
            is_live
        });
        calls.truncate(to);
        buried
    }
}

#[cfg(test)]
mod tests {
    use std::{task::Waker, time::Duration};

    use bytes::Bytes;

    use super::*;

    const ROOM: usize = 100;

    fn add(calls: &mut Calls, namespace: &str, text: &str, deadline: Instant) -> CallId {
        let put = |_, into: &mut Vec<u8>| into.extend_from_slice(text.as_bytes());
        calls.add(namespace, ROOM, deadline, Waker::noop().clone(), put)
    }

    fn sent(calls: &mut Calls) -> Option<(String, String)> {
        let Message { namespace, calls } = calls.take_message()?;
        Some((namespace, String::from_utf8(calls).expect("is text")))
    }

    fn outcome(calls: &mut Calls, id: CallId) -> Option<Result<Answer, Unanswered>> {
        let mut context = Context::from_waker(Waker::noop());
        match calls.poll(id, &mut context, &mut Aftermath::default()) {
            Poll::Ready(outcome) => Some(outcome),
            Poll::Pending => None,
        }
    }

    fn answer() -> Answer {
        Answer::new(&Bytes::from_static(b"answer"), 0..6)
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn what_is_queued_goes_together_a_message_for_each_namespace() {
        let mut calls = Calls::default();
        for (namespace, text) in [("a", "1"), ("b", "2"), ("a", "3")] {
            add(&mut calls, namespace, text, later());
        }
        let expected = [("a", "13"), ("b", "2")];
        for (namespace, text) in expected {
            assert_eq!(sent(&mut calls), Some((namespace.to_owned(), text.to_owned())));
        }
        assert!(sent(&mut calls).is_none() && !calls.has_queued());
        // What is too much for one message goes in two.
        for _ in 0..=MAX_CALLS {
            add(&mut calls, "a", "x", later());
        }
        assert_eq!(sent(&mut calls).expect("is queued").1.len(), MAX_CALLS);
        assert_eq!(sent(&mut calls).expect("is queued").1.len(), 1);
    }

    #[test]
    fn what_is_given_up_before_it_is_sent_is_not_sent() {
        let (mut calls, mut after) = (Calls::default(), Aftermath::default());
        let ids = ["a", "b", "c"].map(|text| add(&mut calls, "n", text, later()));
        calls.give_up(ids[1], &mut after);
        // The slot is used again at once.
        let again = add(&mut calls, "n", "d", later());
        assert_ne!(again, ids[1]);
        assert_eq!(sent(&mut calls).expect("is queued").1, "acd");
        assert_eq!(after.room, ROOM);
        let long = "x".repeat(10_000);
        for _ in 0..1_000 {
            let put = |_, into: &mut Vec<u8>| into.extend_from_slice(long.as_bytes());
            let id = calls.add("n", long.len(), later(), Waker::noop().clone(), put);
            calls.give_up(id, &mut after);
        }
        let kept: usize = calls.queue.iter().map(|part| part.calls.len()).sum();
        assert!(kept <= DEAD_ROOM && !calls.has_queued(), "{kept} bytes are kept");
        assert!(sent(&mut calls).is_none());
    }

    #[test]
    fn an_answer_goes_to_its_call_alone() {
        let (mut calls, mut after) = (Calls::default(), Aftermath::default());
        let first = add(&mut calls, "n", "a", later());
        // It is not even sent.
        calls.answer(first, answer(), &mut after);
        assert!(outcome(&mut calls, first).is_none());
        calls.take_message();
        calls.give_up(first, &mut after);
        let second = add(&mut calls, "n", "b", later());
        calls.take_message();
        calls.answer(first, answer(), &mut after);
        calls.answer(CallId(u64::MAX), answer(), &mut after);
        assert!(outcome(&mut calls, second).is_none());
        calls.answer(second, answer(), &mut after);
        assert!(calls.has_unclaimed());
        assert!(matches!(outcome(&mut calls, second), Some(Ok(_))));
        assert!(!calls.has_unclaimed());
        assert_eq!(after.room, 2 * ROOM);
    }

    #[test]
    fn what_was_sent_is_told_from_what_was_not() {
        let (mut calls, mut after) = (Calls::default(), Aftermath::default());
        let first = add(&mut calls, "n", "a", later());
        calls.take_message();
        let second = add(&mut calls, "n", "b", later());
        calls.end_queued(&Unanswered::GoesAlone, &mut after);
        assert!(matches!(outcome(&mut calls, second), Some(Err(Unanswered::GoesAlone))));
        assert!(outcome(&mut calls, first).is_none());
        calls.end_sent(&Unanswered::Late, &mut after);
        assert!(matches!(outcome(&mut calls, first), Some(Err(Unanswered::Late))));
    }

    #[test]
    fn each_call_has_its_deadline() {
        let (mut calls, mut after) = (Calls::default(), Aftermath::default());
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let ids = [30, 10, 20].map(|millis| add(&mut calls, "n", "x", at(millis)));
        assert_eq!(calls.earliest(), Some(at(10)));
        calls.expire(at(9), &mut after);
        assert!(outcome(&mut calls, ids[1]).is_none());
        calls.expire(at(25), &mut after);
        for late in [ids[1], ids[2]] {
            assert!(matches!(outcome(&mut calls, late), Some(Err(Unanswered::Late))));
        }
        assert_eq!(calls.earliest(), Some(at(30)));
        assert_eq!(sent(&mut calls).expect("is queued").1, "x");
    }
}
