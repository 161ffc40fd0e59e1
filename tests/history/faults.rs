//! What goes wrong in a run, and when: chosen by the seed.

use std::{fmt, sync::Arc, time::Duration};

use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::sleep;

use crate::{
    changes,
    common::{fault_proxy::Weather, transfer::Exported},
    history::Recorder,
    servers::{Kind, Servers},
    witness::Witnessed,
};

/// How often a run begins another lineage at the most.
const MOST_CHANGES: usize = 4;

/// Something that goes wrong for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The server is killed, and started again.
    Kill,
    /// The server is stopped in the midst of whatever it does, and goes on.
    Pause,
    /// The connections of the clients are cut.
    Cut,
    /// What clients and servers say arrives late.
    Delay,
    /// The connections are there, but nothing arrives until later.
    HalfOpen,
    /// What is asked arrives, what is answered does not.
    LoseAnswers,
    /// Files cannot grow.
    DiskFull,
    /// The clock of the server jumps.
    ClockJump,
    /// Redis is stopped in the midst of whatever it does, and goes on.
    PauseRedis,
    /// The connections between servers and Redis are cut.
    CutRedis,
    /// What servers ask of Redis arrives late.
    DelayRedis,
    /// Redis does what it is asked, but the answer is lost.
    LoseAnswerOfRedis,
    /// Callers do not wait for their answers.
    Vanish,
    /// A namespace is deleted.
    Delete,
    /// A namespace is replaced by an import.
    Import,
    /// The store comes back empty.
    Wipe,
    /// The store comes back with a copy of what it had a while ago.
    Rewind,
    /// The primary of Redis is killed, and a replica that may not have had all takes its place.
    Failover,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Fault {
    /// Those that can be on this kind of store.
    pub fn all(kind: Kind, clocks: bool) -> Vec<Self> {
        use Fault::*;
        let mut all = vec![Pause, Cut, Delay, HalfOpen, LoseAnswers, Vanish];
        match kind {
            Kind::Memory => {}
            Kind::Files | Kind::Sqlite => all.extend([Kill, Kill, DiskFull]),
            Kind::RedisPair => {
                all.extend([Kill, PauseRedis, CutRedis, DelayRedis, LoseAnswerOfRedis]);
            }
            Kind::Sentinels => all.extend([Kill, Kill]),
        }
        if clocks && !kind.is_on_redis() {
            all.push(ClockJump);
        }
        all
    }

    /// Those that begin another lineage of a namespace.
    pub fn changes(kind: Kind) -> Vec<Self> {
        use Fault::*;
        match kind {
            Kind::Memory => vec![Delete, Import, Wipe],
            Kind::RedisPair => vec![Delete, Import, Wipe, Rewind],
            Kind::Sentinels => vec![Delete, Import, Failover],
            Kind::Files | Kind::Sqlite => vec![Delete, Import],
        }
    }

    /// Whether it begins another lineage, if it succeeds.
    fn is_change(self) -> bool {
        matches!(self, Self::Delete | Self::Import | Self::Wipe | Self::Rewind | Self::Failover)
    }

    /// Those of these names that can be on this kind of store.
    pub fn named(kind: Kind, names: &str) -> Vec<Self> {
        let mut all = Self::all(kind, true);
        all.extend(Self::changes(kind));
        all.retain(|fault| names.split(',').any(|name| name == fault.to_string()));
        all
    }

    /// Whether servers can go on saying that they live while it lasts.
    pub fn leaves_servers_alone(self) -> bool {
        use Fault::*;
        matches!(self, Cut | Delay | HalfOpen | LoseAnswers | Vanish | DelayRedis | Delete | Import)
    }

    /// One or several for a run.
    pub fn choose(kind: Kind, clocks: bool, random: &mut StdRng) -> Vec<Self> {
        let all = Self::all(kind, clocks);
        let count = random.random_range(1..=3);
        let mut chosen: Vec<Self> = all.choose_multiple(random, count).copied().collect();
        chosen.dedup();
        chosen
    }
}

/// What faults happen to.
pub struct Stage {
    pub servers: Arc<Servers>,
    /// One of each namespace.
    pub recorders: Vec<Arc<Recorder>>,
    /// The same of those who take down the log.
    pub witnessed: Vec<Arc<Witnessed>>,
    /// What is imported.
    pub exported: Exported,
}

impl Stage {
    fn calls(&self) -> usize {
        self.recorders.iter().map(|it| it.calls()).sum()
    }
}

/// Has the faults come one after the other, until the clients are done.
pub async fn inject(
    stage: Stage,
    mut faults: Vec<Fault>,
    seed: u64,
    mut done: tokio::sync::watch::Receiver<bool>,
) {
    let mut random = StdRng::seed_from_u64(seed);
    faults.retain(|fault| *fault != Fault::Vanish);
    if faults.is_empty() {
        // Nor is there anything to heal, by which connections are cut.
        return;
    }
    let (mut calls, mut changes) = (0, 0);
    while !*done.borrow() && !faults.is_empty() {
        calls += random.random_range(20..250);
        while stage.calls() < calls && !*done.borrow_and_update() {
            // It is not told when a call ends.
            sleep(Duration::from_millis(1)).await;
        }
        let fault = *faults.choose(&mut random).expect("there are some");
        if fault.is_change() {
            changes::begin_another(&stage, fault, &mut random).await;
            changes += 1;
            if changes == MOST_CHANGES {
                faults.retain(|it| !it.is_change());
            }
            if fault == Fault::Failover {
                // It takes seconds, in which little else is seen.
                faults.retain(|it| *it != fault);
            }
        } else {
            one(&stage.servers, fault, &mut random).await;
        }
        calls = calls.max(stage.calls());
    }
    heal(&stage.servers);
}

async fn one(servers: &Servers, fault: Fault, random: &mut StdRng) {
    let server = servers.servers.choose(random).expect("there is one");
    let lasting = Duration::from_millis(random.random_range(5..400));
    match fault {
        Fault::Kill => {
            server.kill().await;
            if random.random_bool(0.5) {
                // How long the fault lasts, here and below.
                sleep(lasting).await;
            }
            if let Err(log) = server.start_again().await {
                panic!("it does not start again: {log}");
            }
        }
        Fault::Pause => {
            server.signal("STOP");
            sleep(lasting * 4).await; // As above.
            server.signal("CONT");
        }
        Fault::Cut => server.proxy.cut(),
        Fault::Delay => {
            let delay = Duration::from_millis(random.random_range(1..40));
            under(server, Weather::Slow(delay), lasting).await;
        }
        Fault::HalfOpen => {
            under(server, Weather::Silent, lasting * 6).await;
            if random.random() {
                server.proxy.cut();
            }
        }
        Fault::LoseAnswers => under(server, Weather::Unanswered, lasting).await,
        Fault::DiskFull => {
            server.limit_files(Some(random.random_range(1..40_000)));
            sleep(lasting).await; // As above.
            server.limit_files(None);
        }
        Fault::ClockJump => server.set_clock(random.random_range(-20_000..20_000)),
        Fault::PauseRedis | Fault::CutRedis | Fault::DelayRedis | Fault::LoseAnswerOfRedis => {
            one_of_redis(servers, fault, lasting, random).await;
        }
        Fault::Vanish
        | Fault::Delete
        | Fault::Import
        | Fault::Wipe
        | Fault::Rewind
        | Fault::Failover => {}
    }
}

async fn one_of_redis(servers: &Servers, fault: Fault, lasting: Duration, random: &mut StdRng) {
    let Some((redis, proxy)) = &servers.redis else { return };
    match fault {
        Fault::PauseRedis => {
            redis.lock().pause();
            sleep(lasting * 5).await; // How long the fault lasts.
            redis.lock().go_on();
        }
        Fault::CutRedis => proxy.cut(),
        Fault::DelayRedis => {
            proxy.delay(Duration::from_millis(random.random_range(1..30)));
            sleep(lasting).await; // As above.
            proxy.delay(Duration::ZERO);
        }
        _ => {
            // Every script is called by its hash; whatever comes next on that connection is lost, too.
            proxy.lose_answer_to("EVALSHA");
            sleep(lasting).await; // As above.
            proxy.cut();
        }
    }
}

async fn under(server: &crate::servers::Server, weather: Weather, lasting: Duration) {
    server.proxy.weather(weather);
    // How long the fault lasts.
    sleep(lasting).await;
    server.proxy.weather(Weather::Fair);
}

/// Everything works again.
fn heal(servers: &Servers) {
    for server in &servers.servers {
        server.proxy.weather(Weather::Fair);
        server.proxy.cut();
    }
    if let Some((_, proxy)) = &servers.redis {
        proxy.delay(Duration::ZERO);
        proxy.cut();
    }
}
