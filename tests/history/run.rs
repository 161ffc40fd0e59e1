//! One run: servers, clients, watches and faults by a seed, and the history of it.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use holdfast_proto::v1::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{
    client::{Client, connect},
    common::{build, namespace::Namespace},
    faults::{self, Fault},
    history::{History, LockWatch, Recorder, Watch},
    servers::{Kind, PATIENCE, Servers, has_faketime},
    watching::{Observer, Watched as _, of_all_keys, of_all_locks},
    workload::Workload,
};

const NAMESPACE: &str = "history";

/// All that a run chooses.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub faults: Vec<Fault>,
    pub clients: usize,
    /// Of each client.
    pub steps: usize,
}

impl Plan {
    /// What this seed means on this kind of store.
    pub fn of(seed: u64, kind: Kind, steps: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // One run in eight is without faults.
        let faults = match random.random_range(0..8) {
            0 => Vec::new(),
            _ => Fault::choose(kind, has_faketime(), &mut random),
        };
        let clients = random.random_range(3..8);
        Plan { seed, kind, faults, clients, steps }
    }

    /// Its faults, with something between them.
    pub fn fault_names(&self, between: &str) -> String {
        let names: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        names.join(between)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = match self.faults.is_empty() {
            true => "no faults".to_owned(),
            false => self.fault_names(", "),
        };
        write!(f, "seed {} on {:?}, {} clients, {faults}", self.seed, self.kind, self.clients)
    }
}

/// Runs it; what was seen.
pub async fn run(plan: &Plan) -> History {
    let moving = plan.faults.contains(&Fault::ClockJump);
    let servers = Arc::new(Servers::start(plan.kind, moving).await);
    let direct = namespace_at(&servers);
    let made = direct.ok(build::update(NamespaceSettings::default())).await;
    let lineage = direct.lineage().await;
    let recorder = Arc::new(Recorder::new(made.revision, lineage.clone()));
    let mut scene = Scene {
        plan,
        random: StdRng::seed_from_u64(plan.seed ^ 0x5eed),
        servers: servers.clone(),
        recorder: recorder.clone(),
        base: made.revision,
        lineage,
        witnessed: [
            Arc::new(AtomicU64::new(made.revision)),
            Arc::new(AtomicU64::new(made.revision)),
        ],
    };
    let (end, ended) = watch::channel(None);
    let (done, is_done) = watch::channel(false);
    let watching = scene.observe(&ended);
    let clients = scene.clients();
    let faults = tokio::spawn(faults::inject(
        servers.clone(),
        plan.faults.clone(),
        recorder.clone(),
        plan.seed,
        is_done,
    ));
    clients.join_all().await;
    done.send_replace(true);
    faults.await.expect("faults end well");
    let (last, end_ms) = settle(&servers).await;
    end.send_replace(Some(last));
    let Watching { witness, lock_witness, watches, lock_watches } = watching;
    let witness = witness.join_all().await.concat();
    let lock_witness = lock_witness.join_all().await.concat();
    let log = log_of(&witness, last);
    let lock_log = lock_log_of(&lock_witness, last);
    let (mut watches, mut lock_watches) =
        (watches.join_all().await.concat(), lock_watches.join_all().await.concat());
    watches.extend(witness);
    lock_watches.extend(lock_witness);
    recorder.watches(watches, lock_watches);
    recorder.finish(|history| {
        (history.last, history.end_ms) = (last, end_ms);
        (history.log, history.lock_log) = (log, lock_log);
    })
}

/// What the parts of a run share.
struct Scene<'a> {
    plan: &'a Plan,
    random: StdRng,
    servers: Arc<Servers>,
    recorder: Arc<Recorder>,
    base: u64,
    lineage: String,
    /// How far the log of keys is taken down, and that of locks.
    witnessed: [Arc<AtomicU64>; 2],
}

struct Watching {
    witness: JoinSet<Vec<Watch>>,
    lock_witness: JoinSet<Vec<LockWatch>>,
    watches: JoinSet<Vec<Watch>>,
    lock_watches: JoinSet<Vec<LockWatch>>,
}

impl Scene<'_> {
    fn clients(&mut self) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for index in 0..self.plan.clients {
            let vanishing = self.plan.faults.contains(&Fault::Vanish);
            let start = (self.base, self.lineage.clone());
            let workload = Workload::new(index, vanishing, start, self.witnessed.clone());
            let random = StdRng::seed_from_u64(self.random.random());
            let (recorder, endpoints) = (self.recorder.clone(), self.servers.endpoints());
            let client = Client::new(index, random, recorder, endpoints, workload, NAMESPACE);
            clients.spawn(client.run(self.plan.steps));
        }
        clients
    }

    fn observe(&mut self, end: &watch::Receiver<Option<u64>>) -> Watching {
        let (keys, locks) = (of_all_keys(NAMESPACE, self.base), of_all_locks(NAMESPACE, self.base));
        let [keys_witnessed, locks_witnessed] = self.witnessed.clone();
        let mut witness = JoinSet::new();
        witness.spawn(self.observer(end, Some(keys_witnessed)).run(keys.clone()));
        let mut lock_witness = JoinSet::new();
        lock_witness.spawn(self.observer(end, Some(locks_witnessed)).run(locks.clone()));
        let (mut watches, mut lock_watches) = (JoinSet::new(), JoinSet::new());
        for _ in 0..self.random.random_range(2..5) {
            let first = keys.other(self.base, &mut self.random);
            watches.spawn(self.observer(end, None).run(first));
        }
        lock_watches.spawn(self.observer(end, None).run(locks));
        Watching { witness, lock_witness, watches, lock_watches }
    }

    fn observer(
        &mut self,
        end: &watch::Receiver<Option<u64>>,
        witnessed: Option<Arc<AtomicU64>>,
    ) -> Observer {
        Observer {
            recorder: self.recorder.clone(),
            endpoints: self.servers.endpoints(),
            random: StdRng::seed_from_u64(self.random.random()),
            lineage: self.lineage.clone(),
            end: end.clone(),
            witnessed,
        }
    }
}

fn namespace_at(servers: &Servers) -> Namespace {
    let endpoints = servers.endpoints();
    Namespace {
        name: NAMESPACE.to_owned(),
        channel: connect(&endpoints, &mut StdRng::seed_from_u64(0)),
        endpoint: endpoints[0].clone(),
        servers: Vec::new(),
    }
}

/// Waits until the servers answer and all that is due has been removed; the revision and the time then.
async fn settle(servers: &Servers) -> (u64, i64) {
    let late = Instant::now() + PATIENCE;
    loop {
        let namespace = namespace_at(servers);
        let state = timeout(PATIENCE / 6, namespace.call(GetNamespaceRequest::default())).await;
        let count = timeout(PATIENCE / 6, namespace.call(build::count(build::all()))).await;
        if let (Ok(Ok(state)), Ok(Ok(live))) = (state, count) {
            let held = state.namespace.as_ref().map_or(0, |namespace| namespace.key_count);
            if held == live.count && state.revision == live.revision {
                return (live.revision, live.time_ms);
            }
            assert!(Instant::now() < late, "{held} keys, but {} that are not due", live.count);
        }
        assert!(Instant::now() < late, "the servers do not answer again");
        // The server is another program.
        sleep(PATIENCE / 3000).await;
    }
}

/// The log, as it was taken down.
fn log_of(sessions: &[Watch], last: u64) -> Vec<Event> {
    use watch_response::Body;
    let mut log = Taken::default();
    for session in sessions {
        log.resume();
        for (_, message) in &session.messages {
            if let Some(Body::Events(events)) = &message.body {
                log.partial.extend(events.events.iter().map(|it| (it.revision, it.clone())));
            }
            log.complete(message.complete_through);
        }
    }
    log.through(last)
}

/// The same of locks.
fn lock_log_of(sessions: &[LockWatch], last: u64) -> Vec<LockEvent> {
    use watch_locks_response::Body;
    let mut log = Taken::default();
    for session in sessions {
        log.resume();
        for (_, message) in &session.messages {
            if let Some(Body::Events(events)) = &message.body {
                log.partial.extend(events.events.iter().map(|it| (it.revision, it.clone())));
            }
            log.complete(message.complete_through);
        }
    }
    log.through(last)
}

/// Events that are complete, and those of which more may come.
struct Taken<E> {
    whole: Vec<(u64, E)>,
    partial: Vec<(u64, E)>,
}

impl<E> Default for Taken<E> {
    fn default() -> Self {
        Taken { whole: Vec::new(), partial: Vec::new() }
    }
}

impl<E> Taken<E> {
    /// What is not complete comes again.
    fn resume(&mut self) {
        self.partial.clear();
    }

    fn complete(&mut self, through: u64) {
        self.whole.extend(self.partial.extract_if(.., |(revision, _)| *revision <= through));
    }

    fn through(self, last: u64) -> Vec<E> {
        let events = self.whole.into_iter().filter(|(revision, _)| *revision <= last);
        events.map(|(_, event)| event).collect()
    }
}
