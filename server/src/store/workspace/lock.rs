//! Locks: who holds them, who waits, and how they are passed on.

use super::{Now, Workspace, seen::Seen};
use crate::{
    backend::{Deadline, Draft, Key, NewDeadline, Revision, StoredEntry, WriteOp},
    store::{
        command::LockReply,
        error::Refusal,
        keys,
        record::{self, Ended, Hold, HoldDuration, LockRecord, LossCause, Past, Queue, Ticket},
    },
};

/// How long it is remembered how the last holds of a free lock ended.
const REMEMBERED_MS: u64 = 600_000;
/// How long the first of a queue has to take the lock that it is offered.
const OFFER_MS: u64 = 2000;

/// Whether a lock may be one that was only offered yet; that one is, its record tells.
pub fn may_be_offered(lock: &StoredEntry) -> bool {
    let longest_ms = lock.updated_at_ms.saturating_add_unsigned(OFFER_MS);
    matches!(lock.deadline, Deadline::At(at_ms) if at_ms <= longest_ms)
}

/// How long the server of a call that waits is known to live.
enum Attended {
    /// Until this moment, unless it says so again.
    Until(i64),
    /// It says so in the same commit.
    FromNow,
}

impl Workspace<'_> {
    /// Who holds a lock.
    pub fn hold(&mut self, lock: &Key) -> Option<(Seen, Hold)> {
        self.hold_or_past(lock).ok()
    }

    /// The hold with this token, if it is current.
    pub fn hold_of(&mut self, lock: &Key, token: Revision) -> Result<(Seen, Hold), Refusal<Seen>> {
        let past = match self.hold_or_past(lock) {
            Ok((seen, hold)) if self.create_revision(&seen, token) == token => {
                return Ok((seen, hold));
            }
            Ok((_, hold)) => hold.before,
            Err(past) => past,
        };
        Err(Refusal::LockLost { lock: lock.clone(), token, cause: past.cause_of_loss(token) })
    }

    /// What is answered of a lock that is held for so long.
    pub fn lock_reply(
        &mut self,
        lock: &Key,
        seen: Seen,
        duration: HoldDuration,
    ) -> LockReply<Seen> {
        let lease = match duration {
            HoldDuration::Lease(id) => self.get(&keys::lease(id)).map(Box::new),
            HoldDuration::Ttl(_) => None,
        };
        LockReply { lock: seen, lease, waiting: self.queue(lock).1.waiting }
    }

    /// Who holds a lock, or how the last holds of it ended.
    pub fn hold_or_past(&mut self, lock: &Key) -> Result<(Seen, Hold), Past> {
        let Some(seen) = self.get(lock) else {
            return Err(Past::default());
        };
        match record::decode(seen.value()) {
            Some(LockRecord::Held(hold)) => Ok((seen, *hold)),
            Some(LockRecord::Free(past)) => Err(past),
            None => Err(Past::default()),
        }
    }

    /// Grants a lock that nobody holds.
    pub fn grant_lock(&mut self, lock: &Key, hold: Hold) -> Seen {
        let deadline = lasting(hold.duration);
        self.write_lock(lock, None, &LockRecord::Held(Box::new(hold)), deadline)
    }

    /// Lets a hold last from now, as it is now told.
    pub fn renew_hold(&mut self, lock: &Key, current: &Seen, hold: Hold) -> Seen {
        let deadline = lasting(hold.duration);
        self.keep(lock, Some(current), &LockRecord::Held(Box::new(hold)), deadline)
    }

    /// Changes what is known of a hold, but not when it ends.
    pub fn keep_hold(&mut self, lock: &Key, current: &Seen, hold: Hold) -> Seen {
        let deadline = current.deadline();
        self.keep(lock, Some(current), &LockRecord::Held(Box::new(hold)), deadline)
    }

    /// Changes what a hold shows.
    pub fn change_hold(&mut self, lock: &Key, current: &Seen, hold: Hold) -> Seen {
        let deadline = current.deadline();
        self.write_lock(lock, Some(current), &LockRecord::Held(Box::new(hold)), deadline)
    }

    /// Ends a hold. The lock is passed on in the next revision, if somebody waits.
    pub fn end_hold(&mut self, lock: &Key, current: &Seen, hold: Hold, cause: LossCause) {
        // One that this very commit grants has the revision that it will have.
        let token = self.create_revision(current, Revision(u64::MAX));
        let free = hold.end(Ended { token: token.0, cause });
        self.write_lock(lock, None, &free, NewDeadline::After(REMEMBERED_MS));
        self.freed.push(lock.clone());
    }

    /// Puts a call into the queue of a lock, unless it is full. A call that waits already keeps its place, at the
    /// server that it now waits at.
    pub fn queue_up(
        &mut self,
        lock: &Key,
        hold: Hold,
        server: &Key,
        is_first: bool,
        limit: u32,
    ) -> bool {
        let wait = keys::wait(lock, hold.acquire_id.as_bytes());
        // Where its server was late in saying that it lives, the place is still there until it is reached.
        let current = self.held(&wait);
        let known: Option<Ticket> = current.as_ref().and_then(|seen| record::decode(seen.value()));
        let deadline = NewDeadline::Of(server.clone());
        let ticket = match known {
            Some(known) if known.call == hold.call && is_at(current.as_ref(), server) => {
                return true;
            }
            Some(known) if known.call != hold.call && !is_first => return true,
            Some(known) => known.ticket,
            None => {
                let (seen, queue) = self.queue(lock);
                if queue.waiting >= limit {
                    return false;
                }
                let (waiting, last_ticket) = (queue.waiting + 1, queue.last_ticket + 1);
                let queue = Queue { waiting, last_ticket };
                self.keep(&keys::queue(lock), seen.as_ref(), &queue, NewDeadline::Never);
                last_ticket
            }
        };
        let place = self.record_draft(None, &hold, deadline.clone());
        self.note(keys::place(lock, ticket), WriteOp::SetUnlogged(place));
        let call = hold.call;
        self.keep(&wait, current.as_ref(), &Ticket { ticket, call }, deadline);
        true
    }

    /// Gives up the place of an acquire id in the queue of a lock, if it has one: by this call, or by any.
    pub fn leave_queue(&mut self, lock: &Key, acquire_id: &[u8; 16], call: Option<u64>) -> bool {
        let wait = keys::wait(lock, acquire_id);
        let ticket: Option<Ticket> = self.held(&wait).and_then(|seen| record::decode(seen.value()));
        let Some(ticket) = ticket.filter(|it| call.is_none() || it.call == call) else {
            return false;
        };
        self.drop_key(&wait);
        self.drop_key(&keys::place(lock, ticket.ticket));
        self.count_waiting(lock, 1);
        true
    }

    /// The same for a place that ends with this sign of life of a server, and not if the call has queued up again since.
    pub fn leave_queue_at(&mut self, lock: &Key, acquire_id: &[u8; 16], server: &Key) -> bool {
        let wait = self.held(&keys::wait(lock, acquire_id));
        is_at(wait.as_ref(), server) && self.leave_queue(lock, acquire_id, None)
    }

    /// Grants the locks that the last group of writes freed to those who wait for them.
    pub(super) fn pass_on_freed(&mut self) {
        for lock in std::mem::take(&mut self.freed) {
            self.pass_on(&lock);
        }
    }

    /// Grants a lock to the first in its queue whose server and lease live. Places of others are gone.
    fn pass_on(&mut self, lock: &Key) {
        if self.queue(lock).1.waiting == 0 {
            return;
        }
        let related = self.related;
        let Some(queue) = related.queues.get(lock) else {
            self.needs_more = true;
            return;
        };
        let mut left = 0;
        let mut next = None;
        for place in &queue.places {
            let Some(hold) = self.held(place).and_then(|seen| record::decode::<Hold>(seen.value()))
            else {
                continue;
            };
            left += 1;
            self.drop_key(place);
            self.drop_key(&keys::wait(lock, hold.acquire_id.as_bytes()));
            if let Some(attended) = self.attended(place)
                && self.lives(hold.duration)
            {
                next = Some((hold, attended));
                break;
            }
        }
        match next {
            Some((hold, attended)) => {
                self.count_waiting(lock, left);
                self.offer(lock, hold, attended);
            }
            None if queue.is_complete => self.write(&keys::queue(lock), Now::Dropped),
            None => self.needs_more = true,
        }
    }

    /// Grants a lock to a call that waits; only for as long as it may take to take it, and as its server is known to
    /// live: else the next in the queue would wait for a server that has gone, and the one after it again.
    fn offer(&mut self, lock: &Key, mut hold: Hold, attended: Attended) {
        let offer_ms = match hold.duration {
            HoldDuration::Ttl(ttl_ms) => ttl_ms.min(OFFER_MS),
            HoldDuration::Lease(_) => OFFER_MS,
        };
        hold.is_offered = true;
        let former = self.held(lock).and_then(|it| record::decode::<LockRecord>(it.value()));
        hold.before = former.map(LockRecord::into_past).unwrap_or_default();
        let latest_ms = self.tip.time_ms.saturating_add_unsigned(offer_ms);
        let deadline = match attended {
            Attended::Until(at_ms) if at_ms < latest_ms => NewDeadline::At(at_ms),
            Attended::Until(_) | Attended::FromNow => NewDeadline::After(offer_ms),
        };
        self.write_lock(lock, None, &LockRecord::Held(Box::new(hold)), deadline);
    }

    /// Whether what a hold is to last as long as is still there.
    fn lives(&mut self, duration: HoldDuration) -> bool {
        match duration {
            HoldDuration::Ttl(_) => true,
            HoldDuration::Lease(id) => self.get(&keys::lease(id)).is_some(),
        }
    }

    /// How long the server of a place, which is being dropped, is known to live; nothing if it does not.
    fn attended(&mut self, place: &Key) -> Option<Attended> {
        let found = self.slots.find(place)?;
        let seen = self.before(&self.slots[found])?;
        if self.is_due(&seen) {
            return None;
        }
        self.rely_on(&seen);
        let server = seen.reference().and_then(|server| self.peek(server));
        Some(match server.map(|server| server.deadline()) {
            Some(NewDeadline::At(at_ms)) => Attended::Until(at_ms),
            _ => Attended::FromNow,
        })
    }

    /// Removes a key without a revision, whether it was read or not.
    fn drop_key(&mut self, key: &Key) {
        match self.slots.find(key) {
            Some(_) => self.write(key, Now::Dropped),
            None => self.note(key.clone(), WriteOp::RemoveUnlogged),
        }
    }

    fn count_waiting(&mut self, lock: &Key, fewer: u32) {
        let (seen, queue) = self.queue(lock);
        let key = keys::queue(lock);
        match queue.waiting.saturating_sub(fewer) {
            0 => self.write(&key, Now::Dropped),
            waiting => {
                let queue = Queue { waiting, ..queue };
                self.keep(&key, seen.as_ref(), &queue, NewDeadline::Never);
            }
        }
    }

    fn queue(&mut self, lock: &Key) -> (Option<Seen>, Queue) {
        let seen = self.get(&keys::queue(lock));
        let queue = seen.as_ref().and_then(|seen| record::decode(seen.value()));
        (seen, queue.unwrap_or_default())
    }

    /// The hold that stands there, due or not.
    pub(super) fn held_lock(&self, lock: &Key) -> Option<(Seen, Hold)> {
        let seen = self.held(lock)?;
        let hold = hold_in(&seen)?;
        Some((seen, hold))
    }

    /// Writes a lock so that those who watch it are told. Over nothing, its entry is created anew.
    fn write_lock(
        &mut self,
        lock: &Key,
        current: Option<&Seen>,
        record: &LockRecord,
        deadline: NewDeadline,
    ) -> Seen {
        let draft = self.record_draft(current, record, deadline);
        let version = draft.version + u64::from(current.is_some());
        let draft = Draft { version, ..draft };
        self.write(lock, Now::Written(draft.clone(), true));
        self.pending(lock, draft)
    }
}

fn hold_in(seen: &Seen) -> Option<Hold> {
    match record::decode(seen.value())? {
        LockRecord::Held(hold) => Some(*hold),
        LockRecord::Free(_) => None,
    }
}

fn lasting(duration: HoldDuration) -> NewDeadline {
    match duration {
        HoldDuration::Ttl(ttl_ms) => NewDeadline::After(ttl_ms),
        HoldDuration::Lease(id) => NewDeadline::Of(keys::lease(id)),
    }
}

fn is_at(place: Option<&Seen>, server: &Key) -> bool {
    place.is_some_and(|place| place.reference() == Some(server))
}
