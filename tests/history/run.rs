//! One run: servers, clients, watches and faults by a seed, and what was seen of each namespace.

use std::{fmt, sync::Arc};

use holdfast_proto::v1::*;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, timeout},
};
use tonic::transport::Endpoint;

use crate::{
    changes::{self, at},
    client::{Client, Member, connect},
    common::{build, namespace::Namespace},
    faults::{self, Fault, Stage},
    history::{Chronicle, Imported, LockWatch, Recorder, Session, Watch},
    servers::{Kind, PATIENCE, Servers, has_faketime},
    watching::{End, Observer, Watched as _, of_all_keys, of_all_locks},
    witness::{Beginning, Part, Witness, Witnessed, epochs},
    workload::{Role, Workload},
};

/// The namespaces of a run; the names are much the same, and the state must not be.
const NAMESPACES: [&str; 2] = ["history", "history/2"];

/// Clients that wait for one lock, beside those that do everything.
const QUEUERS: usize = 4;

/// All that a run chooses.
#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub kind: Kind,
    pub faults: Vec<Fault>,
    pub clients: usize,
    pub namespaces: usize,
    /// Of each client.
    pub steps: usize,
    /// Whether what is acknowledged is with a replica of Redis, too.
    pub is_replicated: bool,
}

impl Plan {
    /// What this seed means on this kind of store.
    pub fn of(seed: u64, kind: Kind, steps: usize) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        // One run in eight is without faults.
        let mut faults = match random.random_range(0..8) {
            0 => Vec::new(),
            _ => Fault::choose(kind, has_faketime(), &mut random),
        };
        let clients = random.random_range(3..8);
        let namespaces = random.random_range(1..=NAMESPACES.len());
        if random.random_bool(0.5) {
            let count = random.random_range(1..=2);
            faults.extend(Fault::changes(kind).choose_multiple(&mut random, count));
        }
        // Where all is lost revisions go on by the clock.
        if faults.contains(&Fault::Wipe) {
            faults.retain(|fault| *fault != Fault::ClockJump);
        }
        let mut is_replicated = false;
        if kind == Kind::Sentinels {
            // That is what it is for.
            faults.retain(|fault| *fault != Fault::Failover);
            faults.push(Fault::Failover);
            is_replicated = random.random_bool(0.4);
        }
        Plan { seed, kind, faults, clients, namespaces, steps, is_replicated }
    }

    /// Its faults, with something between them.
    pub fn fault_names(&self, between: &str) -> String {
        let names: Vec<String> = self.faults.iter().map(Fault::to_string).collect();
        names.join(between)
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Plan { seed, kind, clients, namespaces, .. } = self;
        let faults = match self.faults.is_empty() {
            true => "no faults".to_owned(),
            false => self.fault_names(", "),
        };
        let waits = if self.is_replicated { ", replicas are waited for" } else { "" };
        write!(
            f,
            "seed {seed} on {kind:?}, {clients} clients, {namespaces} namespaces, {faults}{waits}"
        )
    }
}

/// Runs it; what was seen.
pub async fn run(plan: &Plan) -> Vec<Chronicle> {
    let moving = plan.faults.contains(&Fault::ClockJump);
    let servers = Arc::new(Servers::start(plan.kind, moving, plan.is_replicated).await);
    let exported = changes::exported(&servers.servers[0].direct()).await;
    let imported = Imported::of(&exported);
    let mut scene = Scene {
        plan,
        imported: imported.clone(),
        random: StdRng::seed_from_u64(plan.seed ^ 0x5eed),
        endpoints: servers.endpoints(),
        places: Vec::new(),
    };
    let start = std::time::Instant::now();
    for name in &NAMESPACES[..plan.namespaces] {
        scene.places.push(Place::make(name, start, &servers.servers[0].direct()).await);
    }
    let (done, is_done) = watch::channel(false);
    let watching: Vec<Watching> =
        (0..scene.places.len()).map(|place| scene.observe(place)).collect();
    let clients = scene.clients();
    let recorders = scene.places.iter().map(|place| place.recorder.clone()).collect();
    let witnessed = scene.places.iter().map(|place| place.witnessed.clone()).collect();
    let stage = Stage { servers: servers.clone(), recorders, witnessed, exported };
    let faults = tokio::spawn(faults::inject(stage, plan.faults.clone(), plan.seed, is_done));
    clients.join_all().await;
    done.send_replace(true);
    faults.await.expect("faults end well");
    let mut chronicles = Vec::new();
    for (place, watching) in scene.places.into_iter().zip(watching) {
        let (end, end_ms) = settle(place.recorder.namespace(), &scene.endpoints).await;
        place.end.send_replace(Some(end));
        let mut seen = watching.collect().await;
        seen.end_ms = end_ms;
        seen.is_replicated = plan.is_replicated;
        seen.imported = imported.clone();
        seen.is_steady = plan.faults.iter().all(|fault| fault.leaves_servers_alone());
        chronicles.push(place.recorder.finish(|chronicle| {
            let Chronicle { namespace, changes, calls, .. } = std::mem::take(chronicle);
            *chronicle = Chronicle { namespace, changes, calls, ..seen };
        }));
    }
    chronicles
}

/// What the parts of a run share.
struct Scene<'a> {
    plan: &'a Plan,
    imported: Imported,
    random: StdRng,
    endpoints: Vec<Endpoint>,
    places: Vec<Place>,
}

/// A namespace of a run.
struct Place {
    recorder: Arc<Recorder>,
    witnessed: Arc<Witnessed>,
    beginning: Beginning,
    end: watch::Sender<Option<End>>,
}

impl Place {
    async fn make(name: &str, start: std::time::Instant, endpoint: &Endpoint) -> Self {
        let ns = at(endpoint, name);
        let made = ns.ok(build::update(NamespaceSettings::default())).await;
        let lineage = ns.lineage().await;
        let (base, initial) = (made.revision, Some(Vec::new()));
        let beginning = Beginning { lineage, base, initial, shared: None };
        let witnessed = Arc::new(Witnessed::new(&beginning));
        let recorder = Arc::new(Recorder::new(name, start));
        Place { recorder, witnessed, beginning, end: watch::Sender::new(None) }
    }
}

/// Those who watch a namespace.
struct Watching {
    keys: JoinHandle<Vec<Part<WatchRequest, WatchResponse>>>,
    locks: JoinHandle<Vec<Part<WatchLocksRequest, WatchLocksResponse>>>,
    watches: JoinSet<Vec<Watch>>,
    lock_watches: JoinSet<Vec<LockWatch>>,
}

impl Watching {
    /// Waits for them, and puts together what they saw.
    async fn collect(self) -> Chronicle {
        let keys = self.keys.await.expect("a witness ends well");
        let locks = self.locks.await.expect("a witness ends well");
        let mut watches = self.watches.join_all().await.concat();
        let mut lock_watches = self.lock_watches.join_all().await.concat();
        let epochs = epochs(&keys, &locks);
        watches.extend(sessions(keys));
        lock_watches.extend(sessions(locks));
        Chronicle { epochs, watches, lock_watches, ..Chronicle::default() }
    }
}

fn sessions<W, M>(parts: Vec<Part<W, M>>) -> impl Iterator<Item = Session<W, M>> {
    parts.into_iter().flat_map(|part| part.sessions.into_iter().chain(part.aside))
}

impl Scene<'_> {
    fn clients(&mut self) -> JoinSet<()> {
        let mut clients = JoinSet::new();
        for index in 0..self.plan.clients + QUEUERS {
            let (role, steps) = match index {
                _ if index >= self.plan.clients => (Role::Queuer, self.plan.steps / 3),
                _ if index % 3 == 2 => (Role::Locker, self.plan.steps),
                _ => (Role::Any, self.plan.steps),
            };
            // One queue is enough.
            let places = if role == Role::Queuer { 1 } else { self.places.len() };
            let members = self.places[..places].iter().map(|place| {
                let vanishing = self.plan.faults.contains(&Fault::Vanish);
                let witnessed = place.witnessed.clone();
                let imports = self.plan.faults.contains(&Fault::Import);
                let imported = if imports { self.imported.clone() } else { Imported::default() };
                Member {
                    namespace: place.recorder.namespace().to_owned(),
                    recorder: place.recorder.clone(),
                    workload: Workload::new(index, role, vanishing, (witnessed, &imported)),
                }
            });
            let members = members.collect();
            let random = StdRng::seed_from_u64(self.random.random());
            let client = Client::new(index, random, self.endpoints.clone(), members);
            clients.spawn(client.run(steps));
        }
        clients
    }

    fn observe(&mut self, place: usize) -> Watching {
        let Place { recorder, beginning, .. } = &self.places[place];
        let (name, beginning) = (recorder.namespace().to_owned(), beginning.clone());
        let base = beginning.base;
        let (keys, locks) = (of_all_keys(&name, base), of_all_locks(&name, base));
        let (mut watches, mut lock_watches) = (JoinSet::new(), JoinSet::new());
        for _ in 0..self.random.random_range(2..5) {
            let first = keys.other(base, &mut self.random);
            watches.spawn(self.observer(place).run(first));
        }
        lock_watches.spawn(self.observer(place).run(locks.clone()));
        Watching {
            keys: tokio::spawn(self.witness(place, 0).run(keys, beginning.clone())),
            locks: tokio::spawn(self.witness(place, 1).run(locks, beginning)),
            watches,
            lock_watches,
        }
    }

    fn witness(&mut self, place: usize, index: usize) -> Witness {
        let observer = self.observer(place);
        let Place { recorder, witnessed, .. } = &self.places[place];
        let (namespace, shared) = (recorder.namespace().to_owned(), witnessed.clone());
        Witness { observer, namespace, shared, index }
    }

    fn observer(&mut self, place: usize) -> Observer {
        let Place { recorder, end, .. } = &self.places[place];
        Observer {
            recorder: recorder.clone(),
            endpoints: self.endpoints.clone(),
            random: StdRng::seed_from_u64(self.random.random()),
            end: end.subscribe(),
        }
    }
}

/// Waits until the servers answer and all that is due has been removed; where the namespace is then, and the time.
async fn settle(name: &str, endpoints: &[Endpoint]) -> (End, i64) {
    let late = Instant::now() + PATIENCE;
    loop {
        let namespace = Namespace {
            channel: connect(endpoints, &mut StdRng::seed_from_u64(0)),
            ..at(&endpoints[0], name)
        };
        // It may be that there is none any more.
        let made = namespace.call(build::update(NamespaceSettings::default()));
        let state = timeout(PATIENCE / 6, made).await;
        let count = timeout(PATIENCE / 6, namespace.call(build::count(build::all()))).await;
        if let (Ok(Ok(state)), Ok(Ok(live))) = (state, count) {
            let made = state.namespace.unwrap_or_default();
            if made.key_count == live.count && state.revision == live.revision {
                let end = End { lineage: made.lineage, revision: live.revision };
                return (end, live.time_ms);
            }
            let held = made.key_count;
            assert!(Instant::now() < late, "{held} keys, but {} that are not due", live.count);
        }
        assert!(Instant::now() < late, "the servers do not answer again");
        // The server is another program.
        sleep(PATIENCE / 3000).await;
    }
}
