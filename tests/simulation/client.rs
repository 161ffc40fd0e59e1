//! Clients that do this and that, by the seed.

use std::{sync::Arc, time::Duration};

use holdfast_server::{
    backend::{BackendError, Key, Revision},
    clock::Clock as _,
    store::{
        Guard, ListQuery, RequestId, Store, Submission, Work,
        command::{Command, Condition, Expiry, Grant, KeepAlive, Operand},
        error::StoreError,
        selector::Selector,
    },
};
use parking_lot::Mutex;

use crate::{
    call::{Call, Op, Outcome, Said},
    faults::World,
    random::Random,
    servers::Servers,
};

/// The keys that are written, numbers first.
pub const KEYS: [&str; 7] = ["n1", "n2", "a1", "a2", "b1", "b2", "b3"];
const PREFIXES: [&str; 3] = ["a", "b", "n"];
/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(12);
/// How often a request with an id is sent again.
const ATTEMPTS: u32 = 8;

/// What the clients of a schedule share.
pub struct Clients {
    pub servers: Arc<Servers>,
    pub calls: Mutex<Vec<Call>>,
    /// Ids of leases that were granted.
    leases: Mutex<Vec<u64>>,
    given: Mutex<u64>,
}

/// One client.
pub struct Client {
    pub id: usize,
    pub clients: Arc<Clients>,
    random: Random,
    sequence: u64,
    /// A revision that it has seen.
    seen: u64,
}

pub fn key(name: &str) -> Key {
    Key::new(name.as_bytes())
}

impl Clients {
    pub fn new(servers: Arc<Servers>) -> Arc<Self> {
        let (calls, leases, given) = Default::default();
        Arc::new(Self { servers, calls, leases, given })
    }

    /// A number that nobody else was given.
    pub fn number(&self) -> u64 {
        let mut given = self.given.lock();
        *given += 1;
        *given
    }
}

impl Client {
    pub fn new(id: usize, clients: &Arc<Clients>, seed: u64) -> Self {
        let random = Random::new(seed);
        Self { id, clients: clients.clone(), random, sequence: 0, seen: 0 }
    }

    fn world(&self) -> Arc<World> {
        self.clients.servers.world.clone()
    }

    /// Does so many things, one after the other.
    pub async fn work(mut self, calls: u64) {
        for _ in 0..calls {
            self.pause().await;
            match self.random.below(100) {
                0..8 => self.grant().await,
                8..18 => self.keep_alive().await,
                18..22 => self.compact().await,
                _ => {
                    let op = self.any_op();
                    self.call(op, Vec::new()).await;
                }
            }
        }
    }

    pub async fn pause(&mut self) {
        let ms = match self.random.below(10) {
            0..5 => 0,
            5..9 => self.random.below(60),
            _ => self.random.below(1500),
        };
        self.world().clock.sleep_ms(ms).await;
    }

    /// Does something, and notes what came of it.
    pub async fn call(&mut self, op: Op, guards: Vec<Guard>) -> Outcome {
        let world = self.world();
        let sent = (world.truth.lock().last(), world.clock.now_ms());
        world.note(format_args!("c{}", self.id), format_args!("asks {op:?}"));
        let outcome = match op.work() {
            Some(work) => self.write(work, &guards).await,
            None => {
                let store = self.clients.servers.any();
                self.in_time(read(&store, &world, &op)).await.unwrap_or(Outcome::Unknown)
            }
        };
        let last = world.truth.lock().last();
        let is_open = matches!(outcome, Outcome::Unknown);
        let ended = ((!is_open).then_some(last), world.clock.now_ms());
        if let Outcome::Done { revision, .. } = &outcome {
            self.seen = *revision;
        }
        self.note_outcome(&outcome);
        let call = Call { client: self.id, op, guards, sent, ended, outcome: outcome.clone() };
        self.clients.calls.lock().push(call);
        outcome
    }

    fn note_outcome(&self, outcome: &Outcome) {
        let world = self.world();
        let first = world.truth.lock().first();
        let who = format!("c{}", self.id);
        match outcome {
            Outcome::Done { revision, said, .. } => {
                // Revisions within are as many after the first.
                world.note(who, format_args!("gets +{} {said:?}", revision.saturating_sub(first)));
            }
            other => world.note(who, format_args!("gets {other:?}")),
        }
    }

    /// Submits a write; where it has an id, again until its outcome is known.
    async fn write(&mut self, work: Work, guards: &[Guard]) -> Outcome {
        let world = self.world();
        let is_repeated = self.random.percent(50);
        self.sequence += 1;
        let request = is_repeated.then_some(RequestId {
            client: self.id as u64,
            seq: self.sequence,
            done_below: self.sequence,
            fingerprint: self.sequence,
        });
        let mut outcome = Outcome::Unknown;
        for attempt in 0..if is_repeated { ATTEMPTS } else { 1 } {
            if attempt > 0 {
                world.clock.sleep_ms(self.random.below(500)).await;
            }
            let store = self.clients.servers.any();
            let submission = Submission {
                expected_lineage: None,
                guards: guards.to_vec(),
                request,
                work: work.clone(),
            };
            let submitted = store.submit_one(&world.namespace, submission);
            outcome = match self.in_time(submitted).await {
                None => Outcome::Unknown,
                Some(Ok(answer)) => Outcome::Done {
                    revision: answer.revision.0,
                    time_ms: answer.time_ms,
                    said: Said::of(&answer.reply),
                },
                Some(Err(StoreError::Refused { refusal, revision })) => {
                    Outcome::Refused { revision: revision.0, said: Said::of_refusal(&refusal) }
                }
                Some(Err(StoreError::Backend(BackendError::OutcomeUnknown(_)))) => Outcome::Unknown,
                // That this attempt was not applied says nothing of those before.
                Some(Err(_)) if attempt > 0 => Outcome::Unknown,
                Some(Err(error)) => Outcome::Failed(format!("{error:?}")),
            };
            if !matches!(outcome, Outcome::Unknown) {
                break;
            }
        }
        outcome
    }

    /// What comes in time.
    pub async fn in_time<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let world = self.world();
        tokio::select! {
            biased;
            done = work => Some(done),
            () = world.clock.sleep(PATIENCE) => None,
        }
    }

    async fn grant(&mut self) {
        let world = self.world();
        let lease = 1000 + self.clients.number();
        let ttl_ms = 300 + self.random.below(4000);
        let command = Command::Grant(Grant { lease, ttl_ms, is_chosen: true });
        let store = self.clients.servers.any();
        let granted = store.submit_one(&world.namespace, Submission::command_only(command));
        if let Some(Ok(_)) = self.in_time(granted).await {
            world.note(format_args!("c{}", self.id), format_args!("has the lease {lease}"));
            self.clients.leases.lock().push(lease);
        }
    }

    async fn keep_alive(&mut self) {
        let Some(lease) = self.any_lease() else { return };
        let world = self.world();
        let command = Command::KeepAlive(KeepAlive { lease });
        let store = self.clients.servers.any();
        let kept = store.submit_one(&world.namespace, Submission::command_only(command));
        let is_kept = matches!(self.in_time(kept).await, Some(Ok(_)));
        world.note(format_args!("c{}", self.id), format_args!("keeps {lease}: {is_kept}"));
    }

    async fn compact(&mut self) {
        let world = self.world();
        let through = Revision(self.seen.saturating_sub(self.random.below(10)));
        let store = self.clients.servers.any();
        let compacted = self.in_time(store.compact(&world.namespace, through)).await;
        let is_done = matches!(compacted, Some(Ok(_)));
        world.note(format_args!("c{}", self.id), format_args!("compacts: {is_done}"));
    }

    /// One of the last leases.
    pub fn any_lease(&mut self) -> Option<u64> {
        let leases = self.clients.leases.lock();
        let last = &leases[leases.len().saturating_sub(4)..];
        (!last.is_empty()).then(|| self.random.pick(last))
    }

    fn any_op(&mut self) -> Op {
        let key = self.any_key();
        match self.random.below(100) {
            0..24 => self.any_set(key),
            24..32 => Op::Delete { key, condition: self.any_condition() },
            32..38 => Op::SetTtl { key, expiry: self.any_expiry() },
            38..48 => self.any_increment(),
            48..52 => Op::BatchSet { keys: self.any_keys(), value: self.value() },
            52..55 => Op::BatchDelete { keys: self.any_keys() },
            55..59 => {
                let prefix = self.random.pick(&PREFIXES);
                Op::DeleteRange { prefix, limit: 1 + self.random.below(3) as usize }
            }
            59..71 => self.any_transaction(),
            71..72 => Op::Clear,
            72..75 => match self.any_lease() {
                Some(lease) => Op::Revoke { lease },
                None => self.any_set(key),
            },
            75..87 => {
                let at = self.random.percent(30);
                let at = at.then(|| Revision(self.seen.saturating_sub(self.random.below(6))));
                Op::Get { keys: self.any_keys(), at: at.filter(|at| at.0 > 0) }
            }
            87..95 => Op::List { prefix: self.random.pick(&PREFIXES) },
            _ => Op::Count { prefix: self.random.pick(&PREFIXES) },
        }
    }

    fn any_set(&mut self, key: Key) -> Op {
        let (expiry, condition) = (self.any_expiry(), self.any_condition());
        Op::Set { key, value: self.value(), expiry, condition }
    }

    fn any_increment(&mut self) -> Op {
        let number = self.random.percent(80);
        let key = if number { key(self.random.pick(&KEYS[..2])) } else { self.any_key() };
        Op::Increment { key, delta: 1 + self.random.below(3) as i64 }
    }

    fn any_transaction(&mut self) -> Op {
        let mut compares = Vec::new();
        for _ in 0..self.random.below(3) {
            let operand = match self.random.below(3) {
                0 => Operand::Exists(self.random.percent(50)),
                1 => Operand::ModRevision(Revision(self.seen)),
                _ => Operand::Exists(true),
            };
            compares.push((self.any_key(), operand));
        }
        let mut branch = || {
            let operations = 1 + self.random.below(4);
            (0..operations).map(|_| self.any_operation()).collect()
        };
        Op::Transact { compares, then: branch(), otherwise: branch() }
    }

    fn any_operation(&mut self) -> Op {
        let key = self.any_key();
        match self.random.below(10) {
            0..4 => {
                let expiry = self.any_expiry();
                Op::Set { key, value: self.value(), expiry, condition: Condition::None }
            }
            4..6 => Op::Delete { key, condition: Condition::None },
            6 => Op::SetTtl { key, expiry: self.any_expiry() },
            7 => self.any_increment(),
            8 => Op::DeleteRange { prefix: self.random.pick(&PREFIXES), limit: 2 },
            _ => Op::Get { keys: vec![key], at: None },
        }
    }

    fn any_key(&mut self) -> Key {
        key(self.random.pick(&KEYS))
    }

    fn any_keys(&mut self) -> Vec<Key> {
        let start = self.random.below(5) as usize;
        KEYS[start..start + 1 + self.random.below(3) as usize].iter().map(|it| key(it)).collect()
    }

    fn any_expiry(&mut self) -> Expiry {
        match self.random.below(10) {
            0..4 => Expiry::Never,
            4..7 => Expiry::Ttl(1 + self.random.below(800)),
            7 => Expiry::Ttl(1 + self.random.below(6000)),
            8 => Expiry::Keep,
            _ => self.any_lease().map_or(Expiry::Default, Expiry::Lease),
        }
    }

    fn any_condition(&mut self) -> Condition {
        match self.random.below(10) {
            0..6 => Condition::None,
            6 => Condition::Absent,
            7 => Condition::Present,
            _ => Condition::ModRevision(Revision(self.seen)),
        }
    }

    /// One that no other write has.
    fn value(&self) -> String {
        format!("v{}", self.clients.number())
    }
}

async fn read(store: &Arc<Store>, world: &World, op: &Op) -> Outcome {
    let name = &world.namespace;
    let read = match op {
        Op::Get { keys, at } => store.read(name, keys, *at).await.map(|snapshot| {
            let found = snapshot.entries.iter().flatten();
            let said = Said::entries(found.map(|entry| (entry.key(), &**entry)));
            (snapshot.revision, snapshot.time_ms, said)
        }),
        Op::List { prefix } => list(store, world, prefix).await,
        Op::Count { prefix } => store
            .count(name, &Selector::prefix(prefix))
            .await
            .map(|(count, cursor)| (cursor.revision, cursor.time_ms, Said::Count(count))),
        other => unreachable!("a write: {other:?}"),
    };
    match read {
        Ok((revision, time_ms, said)) => Outcome::Done { revision: revision.0, time_ms, said },
        Err(error) => Outcome::Failed(format!("{error:?}")),
    }
}

/// All pages of a list, of one entry each.
async fn list(
    store: &Store,
    world: &World,
    prefix: &str,
) -> Result<(Revision, i64, Said), StoreError> {
    let selector = Selector::prefix(prefix);
    let query = ListQuery { selector, reverse: false, at: None, min_mod_revision: Revision(0) };
    let (mut entries, mut cursor) = (Vec::new(), None);
    loop {
        let page = store.page(&world.namespace, &query, cursor, 1, |_| true).await?;
        entries.extend(page.entries);
        if page.end {
            let said = Said::entries(entries.iter().map(|entry| (entry.key(), &**entry)));
            return Ok((page.cursor.revision, page.cursor.time_ms, said));
        }
        cursor = Some(page.cursor);
        tokio::task::yield_now().await;
    }
}
