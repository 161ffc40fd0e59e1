//! Which leases are to be kept alive when. No I/O and no clock.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::LeaseLoss;
use crate::life::Life;

/// The namespace and the number of a lease.
pub(crate) type Key = (String, u64);

/// A lease to be kept alive.
pub(crate) struct Kept {
    pub(crate) key: Key,
    pub(crate) ttl: Duration,
    /// When what was last acknowledged was sent.
    pub(crate) sent: Instant,
    pub(crate) life: Arc<Life<LeaseLoss>>,
}

/// The leases of a client in the order in which they want attention.
#[derive(Default)]
pub(super) struct Schedule {
    leases: HashMap<Key, Entry>,
    /// When each wants attention: is to be kept alive, or should have been answered.
    times: BTreeSet<(Instant, Key)>,
}

struct Entry {
    kept: Kept,
    /// When it stands in `times`.
    at: Instant,
    /// When it was asked to be kept alive, until that is answered.
    asked: Option<Instant>,
}

/// What is to be done at some time.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Due {
    /// These are to be kept alive now.
    pub(super) leases: Vec<Key>,
    /// An answer that should be there is not.
    pub(super) overdue: bool,
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    pub(super) fn keep(&mut self, kept: Kept) {
        self.remove(&kept.key);
        let at = kept.sent + pace(kept.ttl);
        self.times.insert((at, kept.key.clone()));
        self.leases.insert(kept.key.clone(), Entry { kept, at, asked: None });
    }

    /// Forgets the lease of this life. Another of the same key, which was handed in after it, is kept alive.
    pub(super) fn forget(&mut self, key: &Key, life: &Arc<Life<LeaseLoss>>) {
        if self.leases.get(key).is_some_and(|entry| Arc::ptr_eq(&entry.kept.life, life)) {
            self.remove(key);
        }
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.leases.remove(key) {
            self.times.remove(&(entry.at, key.clone()));
        }
    }

    /// When there is something to do.
    pub(super) fn next(&self) -> Option<Instant> {
        self.times.first().map(|(at, _)| *at)
    }

    /// What is to be done by now. The leases in it count as asked; an answer is expected within `patience`.
    pub(super) fn take_due(&mut self, now: Instant, patience: Duration) -> Due {
        let mut due = Due::default();
        while let Some((at, key)) = self.times.first().cloned()
            && at <= now
        {
            let Some(entry) = self.leases.get_mut(&key) else {
                self.times.remove(&(at, key));
                continue;
            };
            if entry.kept.life.loss().is_some() {
                self.remove(&key);
                continue;
            }
            if entry.asked.is_some() {
                due.overdue = true;
                return due;
            }
            entry.asked = Some(now);
            let answer_at = now + patience.min(pace(entry.kept.ttl));
            self.put_off(&key, answer_at);
            due.leases.push(key);
        }
        due
    }

    /// A lease was kept alive, to last `ttl`.
    pub(super) fn acknowledged(&mut self, key: &Key, ttl: Duration) {
        let Some(entry) = self.leases.get_mut(key) else {
            return;
        };
        if let Some(asked) = entry.asked.take() {
            entry.kept.life.renewed(asked, Some(ttl));
            entry.kept.ttl = ttl;
            self.put_off(key, asked + pace(ttl));
        }
    }

    /// A lease could not be kept alive, but perhaps can be later.
    pub(super) fn refused(&mut self, key: &Key, now: Instant) {
        if let Some(entry) = self.leases.get_mut(key) {
            entry.asked = None;
            let soon = pace(entry.kept.ttl) / 4;
            self.put_off(key, now + soon.min(Duration::from_secs(1)));
        }
    }

    /// A lease has ended.
    pub(super) fn ended(&mut self, key: &Key) {
        if let Some(entry) = self.leases.get(key) {
            entry.kept.life.lose(LeaseLoss::Ended);
        }
        self.remove(key);
    }

    /// No answer will come any more to what was asked.
    pub(super) fn disconnected(&mut self, now: Instant) {
        let open: Vec<Key> = self
            .leases
            .iter()
            .filter(|(_, entry)| entry.asked.is_some())
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            if let Some(entry) = self.leases.get_mut(&key) {
                entry.asked = None;
            }
            self.put_off(&key, now);
        }
    }

    fn put_off(&mut self, key: &Key, to: Instant) {
        if let Some(entry) = self.leases.get_mut(key) {
            self.times.remove(&(entry.at, key.clone()));
            entry.at = to;
            self.times.insert((to, key.clone()));
        }
    }
}

/// How long after it was kept alive a lease is kept alive again.
fn pace(ttl: Duration) -> Duration {
    // No deadline that could matter lies further ahead.
    const LONGEST: Duration = Duration::from_secs(24 * 3600);
    (ttl / 3).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn key(id: u64) -> Key {
        ("n".to_owned(), id)
    }

    fn kept(id: u64, sent: Instant) -> Kept {
        let life = Arc::new(Life::new(sent, Some(TTL), LeaseLoss::NotKeptAlive));
        Kept { key: key(id), ttl: TTL, sent, life }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(ids: &[u64]) -> Due {
        Due { leases: ids.iter().map(|id| key(*id)).collect(), overdue: false }
    }

    #[tokio::test(start_paused = true)]
    async fn each_lease_is_kept_alive_after_a_third_of_its_ttl() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.keep(kept(1, start));
        schedule.keep(kept(2, start + seconds(1)));
        assert_eq!(schedule.next(), Some(start + seconds(10)));
        assert_eq!(schedule.take_due(start + seconds(9), PATIENCE), due(&[]));
        assert_eq!(schedule.take_due(start + seconds(10), PATIENCE), due(&[1]));
        assert_eq!(schedule.take_due(start + seconds(12), PATIENCE), due(&[2]));
        schedule.acknowledged(&key(1), TTL);
        schedule.acknowledged(&key(2), TTL);
        assert_eq!(schedule.next(), Some(start + seconds(20)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_acknowledgement_counts_from_when_it_was_asked_for() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let one = kept(1, start);
        let life = Arc::clone(&one.life);
        schedule.keep(one);
        schedule.take_due(start + seconds(10), PATIENCE);
        schedule.acknowledged(&key(1), TTL);
        // All but the millisecond that a server may have rounded off.
        let end = start + seconds(40) - Duration::from_millis(1);
        assert_eq!(life.deadline(), end);
        // One that nobody asked for counts for nothing.
        schedule.acknowledged(&key(1), seconds(300));
        assert_eq!(life.deadline(), end);
    }

    #[tokio::test(start_paused = true)]
    async fn a_missing_answer_is_noticed_and_asked_for_again() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.keep(kept(1, start));
        schedule.take_due(start + seconds(10), PATIENCE);
        assert_eq!(schedule.next(), Some(start + seconds(15)));
        assert!(schedule.take_due(start + seconds(15), PATIENCE).overdue);
        schedule.disconnected(start + seconds(15));
        assert_eq!(schedule.take_due(start + seconds(15), PATIENCE), due(&[1]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_lost_or_forgotten_is_not_kept_alive() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let lost = kept(1, start);
        lost.life.lose(LeaseLoss::Revoked);
        schedule.keep(lost);
        let [dropped, last] = [kept(2, start), kept(3, start)];
        let lives = [&dropped, &last].map(|kept| Arc::clone(&kept.life));
        schedule.keep(dropped);
        schedule.keep(last);
        let ended = kept(4, start);
        let life = Arc::clone(&ended.life);
        schedule.keep(ended);
        schedule.forget(&key(2), &lives[0]);
        schedule.ended(&key(4));
        assert_eq!(life.loss(), Some(LeaseLoss::Ended));
        assert_eq!(schedule.take_due(start + seconds(10), PATIENCE), due(&[3]));
        schedule.forget(&key(3), &lives[1]);
        assert!(schedule.is_empty() && schedule.next().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_outlives_an_older_handle_of_the_same_id() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let [older, newer] = [kept(1, start), kept(1, start)];
        let lives = [&older, &newer].map(|kept| Arc::clone(&kept.life));
        schedule.keep(older);
        schedule.keep(newer);
        schedule.forget(&key(1), &lives[0]);
        assert_eq!(schedule.take_due(start + seconds(10), PATIENCE), due(&[1]));
        schedule.forget(&key(1), &lives[1]);
        assert!(schedule.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_asked_again_soon() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        schedule.keep(kept(1, start));
        schedule.take_due(start + seconds(10), PATIENCE);
        schedule.refused(&key(1), start + seconds(11));
        assert_eq!(schedule.next(), Some(start + seconds(12)));
    }
}
