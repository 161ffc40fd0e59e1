//! Clients that take locks, write under them, and give them up, or go away without a word.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use holdfast_server::{
    backend::{Key, Revision},
    clock::Clock as _,
    store::{
        Guard, HoldDuration, Owner, Submission, Work,
        command::{
            Acquire, AcquireReply, Command, Condition, Expiry, HoldName, Release, Renew, Reply,
            Wait,
        },
        keys,
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    call::{Op, Outcome, Said},
    client::{Client, Clients, key},
    random::Random,
};

const LOCKS: [&str; 2] = ["l1", "l2"];

/// A hold that was granted.
#[derive(Debug, Clone)]
pub struct Granted {
    pub lock: Key,
    pub token: u64,
    pub acquire_id: [u8; 16],
    pub time_ms: i64,
}

/// A client of locks.
pub struct Holder {
    pub client: Client,
    pub random: Random,
    pub granted: Vec<Granted>,
}

impl Holder {
    pub fn new(id: usize, clients: &Arc<Clients>, seed: u64) -> Self {
        let client = Client::new(id, clients, seed);
        Self { client, random: Random::new(!seed), granted: Vec::new() }
    }

    /// Tries so many times to get a lock; answers what it got.
    pub async fn work(mut self, attempts: u64) -> Vec<Granted> {
        for _ in 0..attempts {
            self.client.pause().await;
            if let Some(granted) = self.acquire().await {
                self.granted.push(granted.clone());
                self.hold(granted).await;
            }
        }
        self.granted
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.client.clients.servers.world.note(format_args!("c{}", self.client.id), what);
    }

    async fn acquire(&mut self) -> Option<Granted> {
        let world = self.client.clients.servers.world.clone();
        let lock = keys::lock(self.random.pick(&LOCKS));
        let mut acquire_id = [0; 16];
        acquire_id[8..].copy_from_slice(&self.client.clients.number().to_be_bytes());
        let duration = match self.client.any_lease() {
            Some(lease) if self.random.percent(20) => HoldDuration::Lease(lease),
            _ => HoldDuration::Ttl(500 + self.random.below(4000)),
        };
        let command = Acquire {
            lock: lock.clone(),
            acquire_id,
            owner: Owner { id: format!("c{}", self.client.id), ..Owner::default() },
            value: Bytes::new(),
            duration,
            wait: Wait::No,
            renew_to_keep: self.random.percent(30),
        };
        for _ in 0..1 + self.random.below(3) {
            let wait = Duration::from_millis(self.random.below(7000));
            let patience = Duration::from_millis(match self.random.percent(20) {
                true => self.random.below(3000),
                false => 15_000,
            });
            let store = self.client.clients.servers.any();
            let submission = Submission::command_only(Command::Acquire(Box::new(command.clone())));
            let caller = CancellationToken::new();
            self.note(format_args!("acquires {lock:?} for {wait:?}"));
            let acquired = tokio::select! {
                biased;
                acquired = store.acquire(&world.namespace, submission, wait, caller.clone()) => acquired,
                () = world.clock.sleep(patience) => {
                    self.note(format_args!("goes away"));
                    return None;
                }
            };
            match acquired.map(|answer| (answer.time_ms, answer.reply)) {
                Ok((time_ms, Reply::Acquired(AcquireReply::Granted(reply)))) => {
                    let token = reply.lock.entry().create_revision.0;
                    let first = world.truth.lock().first();
                    self.note(format_args!("holds {lock:?} by +{}", token - first));
                    if self.random.percent(10) {
                        // Its connection ends before the answer has arrived.
                        caller.cancel();
                        return None;
                    }
                    return Some(Granted { lock, token, acquire_id, time_ms });
                }
                Ok(_) => {
                    self.note(format_args!("waited in vain"));
                    return None;
                }
                Err(error) => self.note(format_args!("fails to acquire: {}", kind_of(&error))),
            }
        }
        None
    }

    async fn hold(&mut self, granted: Granted) {
        let token = Revision(granted.token);
        for _ in 0..self.random.below(4) {
            if self.random.percent(60) {
                let guard = Guard { lock: granted.lock.clone(), token };
                let value = format!("v{}", self.client.clients.number());
                let key = key(self.random.pick(&["a1", "b1"]));
                let set = Op::Set { key, value, expiry: Expiry::Never, condition: Condition::None };
                let outcome = self.client.call(set, vec![guard]).await;
                if matches!(outcome, Outcome::Refused { said: Said::Other("lock lost"), .. }) {
                    return;
                }
            } else {
                let ttl_ms = self.random.percent(30).then_some(3000);
                let renew = Renew { lock: granted.lock.clone(), token, ttl_ms };
                self.submit(Command::Renew(renew), "renews").await;
            }
            self.client.pause().await;
        }
        match self.random.below(10) {
            0..7 => {
                let release = Release::new(granted.lock.clone(), HoldName::Token(token));
                self.submit(Command::Release(release), "releases").await;
            }
            7 => {
                let hold = HoldName::AcquireId(granted.acquire_id);
                let release = Release::new(granted.lock.clone(), hold);
                self.submit(Command::Release(release), "releases").await;
            }
            _ => self.note(format_args!("forgets what it holds")),
        }
    }

    async fn submit(&self, command: Command, what: &str) {
        let world = &self.client.clients.servers.world;
        let store = self.client.clients.servers.any();
        let work = Work::Command(command);
        let submission =
            Submission { expected_lineage: None, guards: Vec::new(), request: None, work };
        let submitted = store.submit_one(&world.namespace, submission);
        let is_done = matches!(self.client.in_time(submitted).await, Some(Ok(_)));
        self.note(format_args!("{what}: {is_done}"));
    }
}

/// The kind of an error, without what was drawn at random.
fn kind_of(error: &impl std::fmt::Debug) -> String {
    format!("{error:?}").split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}
