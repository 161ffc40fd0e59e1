//! A server under load for a while, with watches, locks, leases and expiries: it must not grow.

use std::{
    fmt, fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use holdfast_proto::v1::{watch_service_client::WatchServiceClient, *};
use libtest_mimic::Failed;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    common::{
        RUNTIME, build,
        coordination::{self, granted},
        namespace::Namespace,
    },
    servers::{Kind, PATIENCE, Servers},
};

/// How long it takes where no time is given.
pub const SMOKE: Duration = Duration::from_secs(6);

/// How much more memory there may be after the load than after its first third: a part of that, and so many KiB.
const MORE_MEMORY: (f64, u64) = (0.25, 24 << 10);

/// How many more descriptors, threads and tasks there may be once the clients have gone: some connections of files come and go.
const MORE_HANDLES: usize = 8;

const WRITERS: usize = 6;
const LOCKERS: usize = 4;
const WATCHERS: usize = 4;
const KEYS: usize = 200;

/// What a server uses.
#[derive(Debug, Clone, Copy)]
struct Use {
    memory_kib: u64,
    descriptors: usize,
    threads: usize,
    tasks: u64,
    watches: u64,
    keys: u64,
    log_bytes: u64,
}

/// What the clients share.
struct Load {
    over: AtomicBool,
    done: AtomicU64,
}

/// Loads a server for so long.
pub fn soak(lasting: Duration) -> Result<(), Failed> {
    RUNTIME.block_on(async {
        let servers = Servers::start(Kind::Files, false, false).await;
        let ns = namespace(&servers);
        // A log of two seconds and at most 2 MiB: what is younger than 30 s is held only up to twice the bytes.
        let settings = NamespaceSettings {
            log_max_age_ms: Some(2000),
            log_max_bytes: Some(1 << 20),
            ..NamespaceSettings::default()
        };
        ns.ok(build::update(settings)).await;
        let idle = Use::of(&servers, &ns).await;
        let load = Arc::new(Load { over: AtomicBool::new(false), done: AtomicU64::new(0) });
        let mut clients = start(&servers, &load);
        // The first third fills what is bounded: the log, pools, caches.
        sleep(lasting / 3).await;
        let warm = Use::of(&servers, &ns).await;
        // The load itself.
        sleep(lasting - lasting / 3).await;
        let loaded = Use::of(&servers, &ns).await;
        load.over.store(true, Ordering::SeqCst);
        while clients.join_next().await.transpose()?.is_some() {}
        let after = settled(&servers, &ns, &idle).await;
        let done = load.done.load(Ordering::SeqCst);
        eprintln!("{done} calls in {lasting:?}");
        for (name, it) in [("idle", idle), ("warm", warm), ("loaded", loaded), ("after", after)] {
            eprintln!("  {name:6} {it}");
        }
        check(&idle, &warm, &loaded, &after)
    })
}

fn check(idle: &Use, warm: &Use, loaded: &Use, after: &Use) -> Result<(), Failed> {
    let (part, more_kib) = MORE_MEMORY;
    let most_kib = (warm.memory_kib as f64 * (1.0 + part)) as u64 + more_kib;
    let bounds = [
        ("memory under load, in KiB", loaded.memory_kib, most_kib),
        ("memory after it, in KiB", after.memory_kib, most_kib),
        ("descriptors", after.descriptors as u64, (idle.descriptors + MORE_HANDLES) as u64),
        ("threads", after.threads as u64, (warm.threads.max(idle.threads) + MORE_HANDLES) as u64),
        ("tasks", after.tasks, idle.tasks + MORE_HANDLES as u64),
        ("open watches", after.watches, 0),
        ("keys", loaded.keys, KEYS as u64 * 3),
        ("bytes of the log", loaded.log_bytes, 3 << 20),
    ];
    for (name, found, most) in bounds {
        if found > most {
            return Err(format!("{name} grew: {found}, at most {most}").into());
        }
    }
    Ok(())
}

/// Waits until the server has noticed that the clients are gone; what it uses then.
async fn settled(servers: &Servers, ns: &Namespace, idle: &Use) -> Use {
    let start = Instant::now();
    loop {
        let now = Use::of(servers, ns).await;
        let is_settled = now.watches == 0
            && now.descriptors <= idle.descriptors + MORE_HANDLES
            && now.tasks <= idle.tasks + MORE_HANDLES as u64;
        if is_settled || start.elapsed() > PATIENCE {
            return now;
        }
        // The server is another program.
        sleep(Duration::from_millis(50)).await;
    }
}

fn start(servers: &Servers, load: &Arc<Load>) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for number in 0..WRITERS {
        clients.spawn(write(namespace(servers), load.clone(), number));
    }
    for number in 0..LOCKERS {
        clients.spawn(lock(namespace(servers), load.clone(), number));
    }
    for number in 0..WATCHERS {
        clients.spawn(watch(namespace(servers), load.clone(), number));
    }
    clients
}

impl Load {
    fn goes_on(&self) -> bool {
        self.done.fetch_add(1, Ordering::Relaxed);
        !self.over.load(Ordering::SeqCst)
    }
}

/// Sets, most with a TTL, each with an id; increments, leases with keys, and lists.
async fn write(ns: Namespace, load: Arc<Load>, number: usize) {
    let mut random = StdRng::seed_from_u64(number as u64);
    let client_id = coordination::unique(8);
    let mut seq = 0;
    while load.goes_on() {
        let key = format!("k{}", random.random_range(0..KEYS));
        match random.random_range(0..20) {
            0..14 => {
                seq += 1;
                let request = SetRequest {
                    expiry: build::ttl(random.random_range(1..200)),
                    options: coordination::numbered_done(&client_id, seq, seq),
                    ..build::set(&key, [b'v'; 256])
                };
                ns.ok(request).await;
            }
            14..16 => drop(ns.ok(build::increment(&format!("n{number}"), 1)).await),
            16 => {
                let lease = ns.lease(100).await;
                let expiry = coordination::with_lease(lease);
                // It may have ended by then.
                let _ = ns.call(SetRequest { expiry, ..build::set(&key, "leased") }).await;
                let _ = ns.keep(lease).await;
            }
            17 => {
                drop(ns.list_all(ListRequest { page_size: 50, ..build::list(build::all()) }).await)
            }
            _ => drop(ns.get(&key).await),
        }
    }
}

/// Takes locks for which others wait, and leaves some to their deadlines.
async fn lock(ns: Namespace, load: Arc<Load>, number: usize) {
    let mut random = StdRng::seed_from_u64(1000 + number as u64);
    while load.goes_on() {
        let name = format!("l{}", random.random_range(0..2));
        let asked = AcquireRequest { wait_ms: 200, ..coordination::acquire_for(&name, 50) };
        let Some(lock) = granted(ns.ok(asked).await) else { continue };
        if random.random_bool(0.8) {
            ns.ok(coordination::release(&lock)).await;
        }
    }
}

/// Opens watches, each on a connection of its own, and leaves them after a while.
async fn watch(ns: Namespace, load: Arc<Load>, number: usize) {
    let mut random = StdRng::seed_from_u64(2000 + number as u64);
    while load.goes_on() {
        let namespace = ns.name.clone();
        let request = WatchRequest { namespace, ..build::watch_initial(build::all()) };
        let channel = ns.endpoint.connect_lazy();
        let opened = WatchServiceClient::new(channel).watch(request).await;
        let mut stream = opened.expect("a watch opens").into_inner();
        for _ in 0..random.random_range(1..300) {
            if !load.goes_on() {
                return;
            }
            let message = timeout(PATIENCE, stream.message()).await.expect("a watch goes on");
            message.expect("a watch goes on").expect("a watch goes on");
        }
    }
}

fn namespace(servers: &Servers) -> Namespace {
    let endpoint = servers.endpoints().remove(0);
    let channel = endpoint.connect_lazy();
    Namespace { name: "soak".to_owned(), channel, endpoint, servers: Vec::new() }
}

impl Use {
    async fn of(servers: &Servers, ns: &Namespace) -> Self {
        let stats = ns.ok(GetStatsRequest {}).await;
        let process = servers.servers[0].process();
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
        };
        let descriptors = fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count);
        Use {
            memory_kib: number("VmRSS:"),
            descriptors,
            threads: number("Threads:") as usize,
            tasks: stats.tasks,
            watches: stats.watches,
            keys: stats.keys,
            log_bytes: stats.log_bytes,
        }
    }
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Use { memory_kib, descriptors, threads, tasks, watches, keys, log_bytes } = self;
        write!(
            f,
            "{memory_kib} KiB, {descriptors} descriptors, {threads} threads, {tasks} tasks, {watches} watches, {keys} keys, \
             {log_bytes} bytes of the log"
        )
    }
}
