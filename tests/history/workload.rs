//! What a client does next: chosen by its seed, and by what it has been answered so far.

use std::{collections::BTreeMap, sync::Arc};

use holdfast_proto::v1::{
    acquire_response::Outcome as Acquired, compare::Operand, pipeline_answer::Result as Answer,
    pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};

use crate::{
    common::{
        build::{self, op},
        coordination::{self, with_options},
    },
    history::{Call, Imported, Outcome, Request},
    witness::Witnessed,
};

pub const KEYS: [&str; 9] = ["a", "b", "c", "n/0", "n/1", "p/0", "p/1", "p/2", "p/3"];
pub const LOCKS: [&str; 3] = ["la", "lb", "m"];

/// The lock that some clients do nothing but wait for, so that there is a queue.
const QUEUED: &str = "lq";

/// What a client is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A bit of everything.
    Any,
    /// Locks above all.
    Locker,
    /// One lock that many wait for.
    Queuer,
}

/// What a client knows, and what it is to do.
pub struct Workload {
    client: usize,
    client_id: Bytes,
    role: Role,
    /// Whether callers vanish in the midst of calls.
    vanishing: bool,
    count: u64,
    seq: u64,
    tip: u64,
    /// How far the log has been taken down, and of which lineage: what lies before may be compacted.
    witnessed: Arc<Witnessed>,
    revisions: BTreeMap<String, u64>,
    holds: Vec<Lock>,
    former_holds: Vec<Lock>,
    /// Leases for keys have even ids, those for locks odd ones: no lease has both.
    leases: Vec<u64>,
    /// Those that an import brings, and the holds, which are there for all clients.
    imported_leases: Vec<u64>,
    imported_holds: Vec<Lock>,
}

/// One thing to do.
#[expect(clippy::large_enum_variant, reason = "nearly all are of the large kind")]
pub enum Step {
    /// A call; and whether its caller does not wait for the answer.
    One(Request, bool),
    /// Operations in one message of a pipeline; and whether each sees those before it.
    Message(Vec<(Op, bool)>),
}

impl Workload {
    pub fn new(
        client: usize,
        role: Role,
        vanishing: bool,
        (witnessed, imported): (Arc<Witnessed>, &Imported),
    ) -> Self {
        let client_id = Bytes::copy_from_slice(&(client as u64 + 1).to_be_bytes());
        Workload {
            client,
            client_id,
            role,
            vanishing,
            count: 0,
            seq: 0,
            tip: witnessed.base(),
            witnessed,
            revisions: BTreeMap::new(),
            holds: Vec::new(),
            former_holds: Vec::new(),
            leases: Vec::new(),
            imported_leases: imported.leases.iter().map(|lease| lease.id).collect(),
            imported_holds: imported.holds(),
        }
    }

    pub fn next(&mut self, random: &mut StdRng) -> Step {
        if self.role == Role::Queuer {
            self.count += 1;
            return Step::One(Request::Do(self.queue(random)), false);
        }
        if random.random_bool(0.06) {
            let count = random.random_range(2..7);
            return Step::Message((0..count).map(|_| self.operation_of_message(random)).collect());
        }
        self.count += 1;
        let locks = if self.role == Role::Locker { 50 } else { 4 };
        let request = match random.random_range(0..100 + locks) {
            0..48 => Request::Do(self.write(random)),
            48..80 => Request::Do(self.read(random)),
            80..86 => Request::Do(self.read_past(random)),
            86..97 => Request::Do(self.lease(random)),
            97 if random.random_bool(0.4) => settings(random),
            97 => Request::Look,
            98 if random.random_bool(0.2) => Request::Clear,
            99 if random.random_bool(0.3) => self.compact(random),
            98 | 99 => Request::Do(self.read(random)),
            _ => Request::Do(self.lock(random)),
        };
        let vanishes = self.vanishing && random.random_bool(0.03);
        Step::One(request, vanishes)
    }

    fn operation_of_message(&mut self, random: &mut StdRng) -> (Op, bool) {
        self.count += 1;
        match random.random_bool(0.7) {
            true => (self.write(random), true),
            false => (Op::Get(build::get(self.key(random))), random.random()),
        }
    }

    /// Takes in what a call has told.
    pub fn learn(&mut self, call: &Call) {
        if let Some((revision, _)) = call.state() {
            self.tip = self.tip.max(revision);
        }
        let Outcome::Answered(answer) = &call.outcome else {
            self.learn_loss(call);
            return;
        };
        match answer {
            Answer::Get(GetResponse { entry: Some(entry), .. })
            | Answer::Set(SetResponse { entry: Some(entry), .. }) => {
                self.revisions.insert(entry.key.clone(), entry.mod_revision);
            }
            Answer::List(list) => {
                let seen = list.entries.iter().map(|it| (it.key.clone(), it.mod_revision));
                self.revisions.extend(seen);
            }
            Answer::Grant(grant) => {
                self.leases.extend(grant.lease.map(|lease| lease.lease_id));
                if self.leases.len() > 4 {
                    self.leases.remove(0);
                }
            }
            Answer::Acquire(AcquireResponse { outcome: Some(Acquired::Lock(lock)), .. }) => {
                self.holds.push(lock.clone());
            }
            Answer::Release(_) | Answer::BreakLock(_) => self.learn_loss(call),
            _ => {}
        }
    }

    fn learn_loss(&mut self, call: &Call) {
        let Request::Do(Op::Release(_) | Op::Renew(_) | Op::UpdateValue(_)) = &call.request else {
            return;
        };
        let Request::Do(op) = &call.request else { return };
        let name = match op {
            Op::Release(r) => &r.name,
            Op::Renew(r) => &r.name,
            Op::UpdateValue(r) => &r.name,
            _ => return,
        };
        if let Some(place) = self.holds.iter().position(|lock| lock.name == *name) {
            self.former_holds.push(self.holds.remove(place));
        }
    }

    /// A value that nobody else writes.
    fn value(&self) -> String {
        format!("{}.{}", self.client, self.count)
    }

    fn key(&self, random: &mut StdRng) -> &'static str {
        KEYS.choose(random).expect("there are some")
    }

    fn keys(&self, random: &mut StdRng) -> Vec<&'static str> {
        let count = random.random_range(1..4);
        KEYS.choose_multiple(random, count).copied().collect()
    }

    fn expiry(&self, random: &mut StdRng) -> Option<Expiry> {
        match random.random_range(0..20) {
            0..9 => None,
            9..14 => build::ttl(random.random_range(1..400)),
            14 => build::ttl(60_000),
            15 => build::keep(),
            16 => build::never(),
            17 => build::expires_at(1),
            _ => self.lease_for(random, 0).and_then(coordination::with_lease),
        }
    }

    fn lasting(&self, random: &mut StdRng) -> Option<Expiry> {
        loop {
            let expiry = self.expiry(random);
            let at_once = build::expires_at(1);
            if expiry.is_some() && expiry != build::keep() && expiry != at_once {
                return expiry;
            }
        }
    }

    /// One of the leases that this client has had, or of those that were imported, for keys (0) or for locks (1).
    fn lease_for(&self, random: &mut StdRng, parity: u64) -> Option<u64> {
        let is_imported = !self.imported_leases.is_empty() && random.random_bool(0.2);
        let leases = if is_imported { &self.imported_leases } else { &self.leases };
        let fitting: Vec<u64> = leases.iter().copied().filter(|id| id % 2 == parity).collect();
        fitting.choose(random).copied()
    }

    fn selector(&self, random: &mut StdRng) -> Selector {
        selector(random)
    }

    fn condition(&self, key: &str, random: &mut StdRng) -> Option<Condition> {
        match random.random_range(0..10) {
            0..5 => None,
            5 => build::absent(),
            6 => build::present(),
            _ => build::at_mod(self.revisions.get(key).copied().unwrap_or(self.tip)),
        }
    }

    fn write(&mut self, random: &mut StdRng) -> Op {
        let key = self.key(random);
        let op = match random.random_range(0..24) {
            0..8 => Op::Set(SetRequest {
                expiry: self.expiry(random),
                condition: self.condition(key, random),
                return_previous: random.random(),
                ..build::set(key, self.value())
            }),
            8..11 => Op::Delete(DeleteRequest {
                condition: self.condition(key, random),
                return_previous: random.random(),
                ..build::delete(key)
            }),
            11 => Op::SetTtl(build::set_ttl(key, self.lasting(random))),
            12 => {
                let touch = self.lasting(random);
                Op::Get(GetRequest { touch, ..build::get(key) })
            }
            13..16 => {
                let key = if random.random_bool(0.9) { "n/0" } else { key };
                let expiry = self.expiry(random);
                let expiry = expiry.filter(|it| Some(*it) != build::expires_at(1));
                let delta = random.random_range(-3..9);
                Op::Increment(IncrementRequest { expiry, ..build::increment(key, delta) })
            }
            16 => {
                let selector = self.selector(random);
                let limit = random.random_bool(0.5).then(|| random.random_range(1..3));
                Op::DeleteRange(DeleteRangeRequest { limit, ..build::delete_range(selector) })
            }
            17..19 => {
                let (keys, expiry) = (self.keys(random), self.expiry(random));
                let items = keys.into_iter().map(|key| build::item(key, self.value()));
                let items = items.map(|item| batch_set_request::Item { expiry, ..item });
                Op::BatchSet(build::batch_set(items))
            }
            19 => Op::BatchDelete(build::batch_delete(&self.keys(random))),
            _ => Op::Transact(self.transact(random)),
        };
        let options = self.options(random);
        with_options(op, options)
    }

    fn transact(&self, random: &mut StdRng) -> TransactRequest {
        let compares = (0..random.random_range(0..3)).map(|_| self.compare(random)).collect();
        let then = (0..random.random_range(1..5)).map(|_| self.operation(random)).collect();
        let otherwise = (0..random.random_range(0..3)).map(|_| self.operation(random)).collect();
        TransactRequest { compares, then, otherwise, ..TransactRequest::default() }
    }

    fn compare(&self, random: &mut StdRng) -> Compare {
        let key = self.key(random);
        let equal = match random.random() {
            true => Comparison::Equal,
            false => Comparison::NotEqual,
        };
        match random.random_range(0..5) {
            0 => build::compare(key, equal, Operand::Exists(random.random())),
            1 => build::compare(key, Comparison::Less, Operand::Version(random.random_range(1..5))),
            2 => {
                let name = LOCKS.choose(random).expect("there are some");
                let token = self.holds.iter().find(|it| it.name == **name).map_or(1, |it| it.token);
                build::compare(name, equal, Operand::LockToken(token))
            }
            _ => {
                let known = self.revisions.get(key).copied().unwrap_or_default();
                build::compare(key, equal, Operand::ModRevision(known))
            }
        }
    }

    fn operation(&self, random: &mut StdRng) -> Operation {
        let key = self.key(random);
        match random.random_range(0..12) {
            0..2 => op::get(key),
            2..6 => {
                let expiry = self.expiry(random);
                let expiry = expiry.filter(|it| Some(*it) != build::expires_at(1));
                op::set_with(key, self.value(), expiry)
            }
            6..8 => op::delete(key),
            8 => op::delete_range(self.selector(random), Some(2)),
            9 => op::set_ttl(key, self.lasting(random)),
            10 => op::increment("n/1", 1),
            _ => op::list(self.selector(random)),
        }
    }

    fn read(&mut self, random: &mut StdRng) -> Op {
        let key = self.key(random);
        match random.random_range(0..12) {
            0..4 => Op::Get(build::get(key)),
            4 => Op::Exists(build::exists(key)),
            5 => Op::GetTtl(build::get_ttl(key)),
            6 => Op::Count(build::count(self.selector(random))),
            7 => Op::History(build::history(key)),
            8 => Op::BatchGet(build::batch_get(&self.keys(random))),
            _ => Op::List(ListRequest {
                keys_only: random.random(),
                reverse: random.random(),
                page_size: random.random_range(0..5),
                ..build::list(self.selector(random))
            }),
        }
    }

    /// A read of what a revision held that this client knows of.
    fn read_past(&mut self, random: &mut StdRng) -> Op {
        let oldest = self.tip.saturating_sub(30).max(self.witnessed.base()).min(self.tip);
        let mut at_revision = Some(random.random_range(oldest..=self.tip));
        if let Some(through) = self.witnessed.shared().filter(|_| random.random_bool(0.3)) {
            // What may have been lost, and what was before that.
            at_revision = Some((through + 20).saturating_sub(random.random_range(0..40)));
        }
        match random.random_range(0..3) {
            0 => Op::Get(GetRequest { at_revision, ..build::get(self.key(random)) }),
            1 => Op::BatchGet(BatchGetRequest {
                at_revision,
                ..build::batch_get(&self.keys(random))
            }),
            _ => Op::List(ListRequest { at_revision, ..build::list(self.selector(random)) }),
        }
    }

    fn lease(&mut self, random: &mut StdRng) -> Op {
        let parity = u64::from(self.role == Role::Locker && random.random());
        let known = self.lease_for(random, parity);
        match (random.random_range(0..10), known) {
            (0..3, _) | (_, None) => {
                let id = (random.random::<u64>() | 2) & !1 | parity;
                let ttl_ms = *[150, 300, 600, 60_000].choose(random).expect("not empty");
                let grant =
                    Op::Grant(GrantRequest { lease_id: Some(id), ..coordination::grant(ttl_ms) });
                with_options(grant, self.named_options())
            }
            (3..7, Some(id)) => Op::KeepAlive(coordination::keep_alive(id)),
            (7, Some(id)) => {
                let options = self.options(random);
                with_options(Op::Revoke(coordination::revoke(id)), options)
            }
            (_, Some(id)) => Op::GetLease(coordination::get_lease(id)),
        }
    }

    fn lock(&mut self, random: &mut StdRng) -> Op {
        let mut hold = self.holds.choose(random).cloned();
        if !self.imported_holds.is_empty() && random.random_bool(0.2) {
            hold = self.imported_holds.choose(random).cloned();
        }
        let former = self.former_holds.choose(random).cloned();
        let name = LOCKS.choose(random).expect("there are some");
        match (random.random_range(0..16), hold, former) {
            (0..3, Some(lock), _) => self.named(Op::Release(coordination::release(&lock)), random),
            (3..7, Some(lock), _) => self.named(Op::Renew(coordination::renew(&lock)), random),
            (7, Some(lock), _) => {
                let value = self.value();
                self.named(Op::UpdateValue(coordination::update_value(&lock, &value)), random)
            }
            (8, Some(lock), _) => {
                let why = self.value();
                self.named(Op::BreakLock(coordination::break_lock(&lock, &why)), random)
            }
            (9, _, Some(lock)) => self.named(Op::Release(coordination::release(&lock)), random),
            (10, _, Some(lock)) => self.named(Op::Renew(coordination::renew(&lock)), random),
            (11..13, _, _) => Op::GetLock(coordination::get_lock(name)),
            _ => self.acquire(name, random),
        }
    }

    fn acquire(&mut self, name: &str, random: &mut StdRng) -> Op {
        let lease = self.lease_for(random, 1).filter(|_| random.random_bool(0.4));
        let duration = match lease {
            Some(id) => acquire_request::Duration::LeaseId(id),
            None => acquire_request::Duration::TtlMs(random.random_range(30..1500)),
        };
        let waits = random.random_bool(0.5);
        Op::Acquire(AcquireRequest {
            duration: Some(duration),
            wait_ms: if waits { random.random_range(50..500) } else { 0 },
            renew_to_keep: random.random(),
            ..self.attempt(name)
        })
    }

    /// An attempt to take a lock that is like no other.
    fn attempt(&self, name: &str) -> AcquireRequest {
        let mut acquire_id = [0; 16];
        acquire_id[..8].copy_from_slice(&(self.client as u64 + 1).to_be_bytes());
        acquire_id[8..].copy_from_slice(&self.count.to_be_bytes());
        let id = self.value();
        AcquireRequest {
            acquire_id: Bytes::copy_from_slice(&acquire_id),
            owner: Some(LockOwner { id, ..LockOwner::default() }),
            ..coordination::acquire(name)
        }
    }

    /// Waits in the queue, looks at it, or makes room for the next.
    fn queue(&mut self, random: &mut StdRng) -> Op {
        if let Some(lock) = self.holds.last().cloned() {
            return with_options(Op::Release(coordination::release(&lock)), self.named_options());
        }
        match random.random_range(0..5) {
            0..3 => {
                let wait_ms = random.random_range(100..600);
                let ttl_ms = random.random_range(20..80);
                Op::Acquire(AcquireRequest {
                    duration: Some(acquire_request::Duration::TtlMs(ttl_ms)),
                    wait_ms,
                    ..self.attempt(QUEUED)
                })
            }
            _ => Op::GetLock(coordination::get_lock(QUEUED)),
        }
    }

    fn compact(&self, random: &mut StdRng) -> Request {
        let complete = self.witnessed.complete();
        Request::Compact(complete.saturating_sub(random.random_range(0..60)).max(1))
    }

    fn named(&mut self, op: Op, random: &mut StdRng) -> Op {
        let options = random.random_bool(0.6).then(|| self.named_options()).flatten();
        with_options(op, options)
    }

    /// An id, so that it can be sent again.
    fn named_options(&mut self) -> Option<WriteOptions> {
        self.seq += 1;
        coordination::numbered_done(&self.client_id, self.seq, self.seq)
    }

    fn options(&mut self, random: &mut StdRng) -> Option<WriteOptions> {
        let named = random.random_bool(0.6).then(|| self.named_options()).flatten();
        let mut options = named.unwrap_or_default();
        if random.random_bool(0.05) {
            options.expected_lineage = Some(self.witnessed.lineage());
        }
        let hold = self.holds.choose(random).filter(|_| random.random_bool(0.25));
        let former = self.former_holds.choose(random).filter(|_| random.random_bool(0.05));
        let imported = match self.imported_holds.is_empty() {
            true => None,
            false => self.imported_holds.choose(random).filter(|_| random.random_bool(0.05)),
        };
        if let Some(lock) = hold.or(former).or(imported) {
            options.guards.push(Guard { lock: lock.name.clone(), token: lock.token });
        }
        Some(options)
    }
}

/// Settings that make a difference within a run, or none.
fn settings(random: &mut StdRng) -> Request {
    let mut any = |of: &[u64]| of.choose(random).copied().filter(|it| *it > 0);
    Request::Update(NamespaceSettings {
        default_ttl_ms: any(&[0, 0, 50, 300]),
        log_max_events: any(&[0, 1, 100]),
        log_max_age_ms: any(&[0, 1000]),
        log_max_bytes: any(&[0, 1 << 20]),
        ..NamespaceSettings::default()
    })
}

/// Some keys.
pub fn selector(random: &mut StdRng) -> Selector {
    match random.random_range(0..7) {
        0 => build::all(),
        1 => build::prefix("p/"),
        2 => build::glob("*/0"),
        3 => build::glob("p/?"),
        4 => build::range("a", Some(b"n/1")),
        5 => build::range("n", None),
        _ => build::key(KEYS.choose(random).expect("there are some")),
    }
}
