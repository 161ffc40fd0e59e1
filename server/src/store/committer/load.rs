//! Reads what a batch of commands needs.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures::future::try_join_all;

use super::{Job, batch::Loaded, commands};
use crate::{
    backend::{Key, KeyRange, Position, ReadAnswer, ReadSet, StoredEntry},
    store::{
        Store,
        command::{Command, RangeRead},
        error::{Refusal, StoreError},
        keys::{self, Kind},
        namespace::Namespace,
        record::{self, Hold, HoldDuration, LeaseRecord, LockRecord, Queue, request::RecordName},
        requests::Amount,
        workspace::{Attached, MAX_REVISION_KEYS, Places, RangeView, Related, may_be_offered},
    },
};

/// Most entries that all ranges of one command may hold together.
const MAX_RANGE_ENTRIES: usize = 100_000;
/// About the most keys that are looked at for several ranges of one command; a single range may be of any length.
const MAX_LOOKED_AT: usize = 1_000_000;
/// About how many keys and locks are read that end with leases in one commit.
const MAX_ENDED: usize = MAX_REVISION_KEYS;
/// Of how many leases that end it is read at once what ends with them.
const AT_ONCE: usize = 16;
/// For how many records of answers to come it is looked whether they are there, for each request of a client beyond its
/// first, and for how many at most.
const RECORDS_TO_COME: u64 = 16;
const MAX_RECORDS_TO_COME: u64 = 128;

impl Store {
    /// Reads what a batch of commands needs. Of queues of locks, that is the first `depth` places. Unless it is to be fresh,
    /// upon commits that are on their way, where that is enough to know what keys hold.
    pub(super) async fn load(
        &self,
        namespace: &Namespace,
        batch: &[Job],
        fresh: bool,
        depth: usize,
    ) -> Result<Loaded, StoreError> {
        let mut keys = Vec::with_capacity(batch.len() + 1);
        keys.push(keys::settings());
        let by_keys = !fresh && commands(batch).all(|(_, command)| command.goes_by_keys());
        if !by_keys {
            self.backend.settled(&namespace.name).await;
        }
        let (mut at, mut ranges) = (None, Vec::new());
        for (job, command) in commands(batch) {
            command.add_keys(&mut keys);
            keys.extend(
                job.submission
                    .guards
                    .iter()
                    .flat_map(|it| [it.lock.clone(), keys::queue(&it.lock)]),
            );
            if command.reads_ranges() {
                let (position, read) = match &job.ranges {
                    Some(read) if !fresh => read.clone(),
                    _ => self.load_ranges(namespace, command).await?,
                };
                at.get_or_insert(position);
                ranges.extend(read);
            }
        }
        let is_coordinated = keys[1..].iter().any(Key::is_internal);
        let requests = batch.iter().filter_map(|job| job.submission.request.as_ref());
        let mut records: Vec<_> = requests.map(RecordName::of).collect();
        // Most requests of a client come in a row.
        records.dedup();
        keys.extend(records.into_iter().map(RecordName::key));
        let is_plain = self.backend.is_remote() && !is_coordinated && at.is_none();
        let known = if is_plain && !fresh { self.recall(namespace, &keys) } else { None };
        let is_old = known.is_some();
        let under_way = match known {
            None if by_keys => self.backend.read_under_way(&namespace.name, &keys),
            _ => None,
        };
        let (under_way, upon) = under_way.unzip();
        let answer = match known.or(under_way) {
            Some(answer) => answer,
            None if is_plain => self.read_and_learn(namespace, batch, &mut keys).await?,
            None => self.backend.read(&namespace.name, &keys, None).await?,
        };
        let at = at.unwrap_or(answer.tip.position);
        let covered = ranges.iter().map(|range| range.covered.clone()).collect();
        let reads = ReadSet { keys, ranges: covered };
        let mut loaded = Loaded {
            tip: answer.tip,
            at,
            upon,
            is_short: false,
            is_old,
            reads,
            entries: answer.entries,
            ranges,
            related: Related::default(),
            is_coordinated,
            index: HashMap::new(),
            done: Vec::new(),
            kept_before: Amount::default(),
            stale: Vec::new(),
        };
        // How much there is is known only once nothing is on its way.
        if loaded.upon.is_some() && loaded.settings(namespace).has_quota() {
            loaded.is_short = true;
            return Ok(loaded);
        }
        loaded.is_coordinated |= loaded.has_references();
        if loaded.is_coordinated {
            self.load_related(namespace, batch, &mut loaded, depth).await?;
        }
        self.look_for_kept(namespace, batch, &mut loaded).await?;
        Ok(loaded)
    }

    /// What keys hold, as far as that is known from the last commit, and has nothing to do with leases or quotas.
    fn recall(&self, namespace: &Namespace, keys: &[Key]) -> Option<ReadAnswer> {
        let is_attached = |entry: &StoredEntry| entry.deadline.reference().is_some();
        let known = namespace.known.recall(keys, self.clock.now_ms())?;
        // How much there is no commit relies on.
        let has_quota = namespace.settings(known.entries.first()?.as_ref()).has_quota();
        (!has_quota && !known.entries.iter().flatten().any(is_attached)).then_some(known)
    }

    /// Reads keys, and with them the records that the next requests of the same clients will be looked for in.
    async fn read_and_learn(
        &self,
        namespace: &Namespace,
        batch: &[Job],
        keys: &mut Vec<Key>,
    ) -> Result<ReadAnswer, StoreError> {
        let count = keys.len();
        keys.extend(records_to_come(batch).map(RecordName::key));
        let mut answer = self.backend.read(&namespace.name, keys, None).await?;
        namespace.known.learn(keys, &answer, self.clock.now_ms());
        keys.truncate(count);
        answer.entries.truncate(count);
        Ok(answer)
    }

    /// Reads what hangs together with what was read, until nothing is missing: leases that entries are attached to,
    /// what ends with leases, who waits for locks. What changes meanwhile shows at the commit, which goes by the
    /// position of the first read.
    async fn load_related(
        &self,
        namespace: &Namespace,
        batch: &[Job],
        loaded: &mut Loaded,
        depth: usize,
    ) -> Result<(), StoreError> {
        loaded.index_keys(0);
        let mut room = MAX_ENDED;
        loop {
            let mut wanted = Vec::new();
            let leases = loaded.ending_leases(batch, &mut room);
            if loaded.upon.is_some() && !leases.is_empty() {
                loaded.is_short = true;
                return Ok(());
            }
            let mut attached = Vec::with_capacity(leases.len());
            for leases in leases.chunks(AT_ONCE) {
                let mut reading = Vec::with_capacity(leases.len());
                for lease in leases {
                    reading.push(self.load_attached(namespace, lease));
                }
                attached.append(&mut try_join_all(reading).await?);
            }
            for (lease, attached) in leases.into_iter().zip(attached) {
                loaded.reads.ranges.extend([keys::attached_to(&lease), keys::held_by(&lease)]);
                wanted.extend(attached.keys.iter().cloned());
                wanted.extend(
                    attached.locks.iter().flat_map(|lock| [lock.clone(), keys::queue(lock)]),
                );
                loaded.related.leases.insert(lease, attached);
            }
            let locks = loaded.locks_to_pass_on(batch);
            if loaded.upon.is_some() && !locks.is_empty() {
                loaded.is_short = true;
                return Ok(());
            }
            for lock in locks {
                let (places, entries) =
                    self.load_places(namespace, &lock, depth, &mut loaded.reads.ranges).await?;
                for entry in entries {
                    wanted.extend(lease_of_place(&entry));
                    if !loaded.index.contains_key(entry.key()) {
                        let from = loaded.entries.len();
                        loaded.reads.keys.push(entry.key().clone());
                        loaded.entries.push(Some(entry));
                        loaded.index_keys(from);
                    }
                }
                loaded.related.queues.insert(lock, places);
            }
            wanted.extend(loaded.references());
            let mut is_new = HashSet::new();
            wanted.retain(|key| !loaded.index.contains_key(key) && is_new.insert(key.clone()));
            if wanted.is_empty() {
                return Ok(());
            }
            let read_under_way = |_| self.backend.read_under_way(&namespace.name, &wanted);
            let answer = match loaded.upon.and_then(read_under_way) {
                Some((answer, _)) => answer,
                None => self.backend.read(&namespace.name, &wanted, None).await?,
            };
            let from = loaded.entries.len();
            loaded.reads.keys.extend(wanted);
            loaded.entries.extend(answer.entries);
            loaded.index_keys(from);
        }
    }

    async fn load_attached(
        &self,
        namespace: &Namespace,
        lease: &Key,
    ) -> Result<Attached, StoreError> {
        let (attached, held) = (keys::attached_to(lease), keys::held_by(lease));
        let ((keys, _), (locks, _)) = futures::try_join!(
            self.scan_all(namespace, &attached, usize::MAX),
            self.scan_all(namespace, &held, usize::MAX),
        )?;
        Ok(Attached {
            keys: keys.iter().map(|entry| keys::key_attached(entry.key())).collect(),
            locks: locks.iter().map(|entry| keys::lock_held(entry.key())).collect(),
        })
    }

    async fn load_places(
        &self,
        namespace: &Namespace,
        lock: &Key,
        depth: usize,
        ranges: &mut Vec<KeyRange>,
    ) -> Result<(Places, Vec<StoredEntry>), StoreError> {
        let range = keys::places(lock);
        let (entries, is_complete) = self.scan_all(namespace, &range, depth).await?;
        let places = entries.iter().map(|entry| entry.key().clone()).collect();
        // Who comes later, behind those that were read, changes nothing.
        let end = match (is_complete, entries.last()) {
            (false, Some(last)) => Some(last.key().successor()),
            _ => range.end,
        };
        ranges.push(KeyRange { start: range.start, end });
        Ok((Places { places, is_complete }, entries))
    }

    /// The first `limit` entries of a range, in short steps, and whether these are all.
    pub(in crate::store) async fn scan_all(
        &self,
        namespace: &Namespace,
        range: &KeyRange,
        limit: usize,
    ) -> Result<(Vec<StoredEntry>, bool), StoreError> {
        const STEP: usize = 1000;
        let mut entries = Vec::new();
        let mut rest = Some(range.clone());
        while let Some(range) = rest
            && entries.len() < limit
        {
            let keys = STEP.min(limit - entries.len());
            let step = self.backend.scan(&namespace.name, &range, None, false, keys).await?;
            entries.extend(step.entries);
            rest = step.next;
            if rest.is_none() {
                return Ok((entries, true));
            }
        }
        Ok((entries, false))
    }

    /// The ranges that a command reads, and the position of the first step of reading.
    pub(super) async fn load_ranges(
        &self,
        namespace: &Namespace,
        command: &Command,
    ) -> Result<(Position, Vec<RangeView>), StoreError> {
        let mut at = None;
        let mut ranges = Vec::new();
        let (mut entries, mut looked_at) = (0, 0);
        let reads = command.ranges();
        let is_single = reads.len() == 1;
        for read in reads {
            let range = self.load_range(namespace, read, &mut at, &mut looked_at).await?;
            entries += range.entries.len();
            ranges.push(range);
            let over = if entries > MAX_RANGE_ENTRIES {
                ("entries read", entries, MAX_RANGE_ENTRIES)
            } else if looked_at > MAX_LOOKED_AT && !is_single {
                ("keys looked at", looked_at, MAX_LOOKED_AT)
            } else {
                continue;
            };
            let (what, size, limit) = over;
            let refusal = Refusal::TooLarge { what, size: size as u64, limit: limit as u64 };
            let revision = self.tip(&namespace.name).await?.revision;
            return Err(StoreError::Refused { refusal, revision });
        }
        Ok((at.unwrap_or_default(), ranges))
    }

    /// Reads a range in short steps. What changes meanwhile shows at the commit, which goes by the position
    /// of the first step.
    async fn load_range(
        &self,
        namespace: &Namespace,
        read: RangeRead,
        at: &mut Option<Position>,
        looked_at: &mut usize,
    ) -> Result<RangeView, StoreError> {
        let RangeRead { selector, needed, min_mod_revision, reverse } = read;
        let mut rest = Some(selector.bounds().clone());
        let mut entries = BTreeMap::new();
        let mut alive = 0;
        let keys = selector.step();
        while let Some(range) = rest.clone()
            && alive <= needed
            && entries.len() <= needed + MAX_REVISION_KEYS
        {
            let step = self.backend.scan(&namespace.name, &range, None, reverse, keys).await?;
            at.get_or_insert(step.tip.position);
            *looked_at += keys;
            for entry in step.entries {
                if entry.mod_revision >= min_mod_revision && selector.contains(entry.key()) {
                    alive += usize::from(!entry.deadline.is_due(step.tip.time_ms));
                    entries.insert(entry.key().clone(), entry);
                }
            }
            rest = step.next;
            if rest.is_some() {
                tokio::task::yield_now().await;
            }
        }
        let covered = covered(selector.bounds(), rest.as_ref(), reverse);
        let complete = rest.is_none();
        Ok(RangeView { selector, reverse, needed, covered, complete, entries })
    }
}

/// The records after those of a batch that its clients will come to if they go on like this.
fn records_to_come(batch: &[Job]) -> impl Iterator<Item = RecordName> {
    let mut clients: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
    for request in batch.iter().filter_map(|job| job.submission.request.as_ref()) {
        let RecordName { client, bucket } = RecordName::of(request);
        let (last, requests) = clients.entry(client).or_insert((bucket, 0));
        *last = bucket.max(*last);
        *requests += 1;
    }
    let to_come = clients.into_iter().flat_map(|(client, (last, requests))| {
        let count = ((requests - 1) * RECORDS_TO_COME).min(MAX_RECORDS_TO_COME);
        (last + 1..=last.saturating_add(count)).map(move |bucket| RecordName { client, bucket })
    });
    to_come.take(MAX_RECORDS_TO_COME as usize)
}

impl Loaded {
    fn has_references(&self) -> bool {
        let in_ranges = self.ranges.iter().flat_map(|range| range.entries.values());
        let mut entries = self.entries.iter().flatten().chain(in_ranges);
        entries.any(|entry| entry.deadline.reference().is_some())
    }

    /// What entries that were read refer to.
    fn references(&self) -> Vec<Key> {
        let in_ranges = self.ranges.iter().flat_map(|range| range.entries.values());
        let entries = self.entries.iter().flatten().chain(in_ranges);
        let referred = entries.clone().filter_map(|entry| entry.deadline.reference().cloned());
        // One that was only offered yet is to be held by a lease that its deadline does not tell.
        let locks = entries
            .filter(|entry| keys::kind(entry.key()) == Some(Kind::Lock) && may_be_offered(entry));
        referred.chain(locks.filter_map(lease_of_lock)).collect()
    }

    /// Notes where the keys from one on stand.
    fn index_keys(&mut self, from: usize) {
        for (place, key) in self.reads.keys.iter().enumerate().skip(from) {
            self.index.entry(key.clone()).or_insert(place);
        }
    }

    /// What was read of a key.
    pub fn entry(&self, key: &Key) -> Option<&StoredEntry> {
        let place = match self.is_coordinated {
            true => *self.index.get(key)?,
            false => self.reads.keys.iter().position(|named| named == key)?,
        };
        self.entries[place].as_ref()
    }

    /// The leases that commands of the batch end and whose ends were not read yet. Of those that are only due, as
    /// many as there is room for, but at least one.
    fn ending_leases(&self, batch: &[Job], room: &mut usize) -> Vec<Key> {
        let mut ending = Vec::new();
        for (_, command) in commands(batch) {
            match command {
                Command::Revoke(revoke) => ending.push(keys::lease(revoke.lease)),
                Command::Expire(keys) => {
                    for key in keys.iter().filter(|key| keys::kind(key) == Some(Kind::Lease)) {
                        let Some(entry) = self.entry(key) else { continue };
                        let is_due = entry.deadline.is_due(self.tip.time_ms);
                        if !is_due || self.related.leases.contains_key(key) {
                            continue;
                        }
                        let size = lease_size(entry);
                        if size <= *room || *room == MAX_ENDED {
                            *room = room.saturating_sub(size.max(1));
                            ending.push(key.clone());
                        }
                    }
                }
                _ => {}
            }
        }
        ending.retain(|lease| !self.related.leases.contains_key(lease));
        ending
    }

    /// The locks that may be passed on, that somebody waits for, and whose queues were not read yet: those that
    /// commands of the batch free, that are due, or that end with a lease.
    fn locks_to_pass_on(&self, batch: &[Job]) -> Vec<Key> {
        let freed = commands(batch).filter_map(|(_, command)| command.lock_freed());
        let with_leases = self.related.leases.values().flat_map(|attached| &attached.locks);
        let entries = self.reads.keys.iter().zip(&self.entries);
        let due = entries.filter_map(|(key, entry)| {
            let entry = entry.as_ref().filter(|_| keys::kind(key) == Some(Kind::Lock))?;
            (entry.deadline.is_due(self.tip.time_ms) || self.has_lost_its_lease(entry))
                .then_some(key)
        });
        // In order: what is read, and so a run of the whole, can be repeated.
        let locks: BTreeSet<&Key> = freed.chain(with_leases).chain(due).collect();
        let is_wanted = |lock: &&&Key| {
            let queue = self.entry(&keys::queue(lock));
            let queue = queue.and_then(|entry| record::decode::<Queue>(&entry.value));
            queue.is_some_and(|queue| queue.waiting > 0)
                && !self.related.queues.contains_key(**lock)
        };
        locks.iter().filter(is_wanted).map(|lock| (*lock).clone()).collect()
    }

    fn has_lost_its_lease(&self, entry: &StoredEntry) -> bool {
        let Some(lease) = entry.deadline.reference() else {
            return false;
        };
        let is_read = self.index.contains_key(lease);
        is_read && self.entry(lease).is_none_or(|lease| lease.deadline.is_due(self.tip.time_ms))
    }
}

/// How much hangs on a lease, about.
fn lease_size(entry: &StoredEntry) -> usize {
    let record: Option<LeaseRecord> = record::decode(&entry.value);
    record.map_or(0, |record| (record.keys + record.locks) as usize)
}

/// The lease that a lock is held by.
fn lease_of_lock(lock: &StoredEntry) -> Option<Key> {
    match record::decode(&lock.value)? {
        LockRecord::Held(hold) => lease_of_hold(&hold),
        LockRecord::Free(_) => None,
    }
}

/// The lease that who waits in a place wants to hold the lock by.
fn lease_of_place(place: &StoredEntry) -> Option<Key> {
    lease_of_hold(&record::decode(&place.value)?)
}

fn lease_of_hold(hold: &Hold) -> Option<Key> {
    match hold.duration {
        HoldDuration::Lease(lease) => Some(keys::lease(lease)),
        HoldDuration::Ttl(_) => None,
    }
}

/// The part of a range that was read when `rest` is left of it.
fn covered(range: &KeyRange, rest: Option<&KeyRange>, reverse: bool) -> KeyRange {
    let mut covered = range.clone();
    match rest {
        // In reverse what is left ends before the last key read, which is inside.
        Some(rest) if reverse => covered.start = rest.end.clone().unwrap_or(covered.start),
        Some(rest) => covered.end = Some(rest.start.clone()),
        None => {}
    }
    covered
}
