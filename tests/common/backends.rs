//! The backends that every suite runs on, and servers on them.

use std::{any::Any, net::SocketAddr, sync::Arc};

use holdfast_proto::v1::{GetStatsRequest, GetStatsResponse};
use holdfast_server::{
    clock::{Clock, SystemClock},
    config::Config,
    serve::Server,
};
use tokio::sync::oneshot;
use tonic::transport::{Channel, Endpoint};

use super::{
    RUNTIME,
    call::Call as _,
    clock::TestClock,
    pair,
    redis::{self, Cluster, Options, Redis, RedisClock},
};

/// A kind of store to test on. Every case of every suite runs on each of [`BACKENDS`].
pub struct Backend {
    /// A part of the names of the tests.
    pub name: &'static str,
    /// Whether this machine has what it needs.
    pub is_here: fn() -> bool,
    /// The same for one with a clock that is moved by hand.
    pub is_here_with_clock: fn() -> bool,
    /// Makes a fresh store, with a clock of its own or the machine's.
    start: fn(Option<&TestClock>) -> Store,
}

/// A fresh store.
struct Store {
    /// What each of its servers calls it.
    urls: Vec<String>,
    /// Ends what was started for it, by being dropped.
    guard: Box<dyn Any + Send + Sync>,
}

/// All tested backends.
pub const BACKENDS: &[Backend] = &[
    Backend::embedded("memory", |_| Store::new("memory:")),
    Backend::embedded("files", |_| Store::in_directory("files")),
    Backend::embedded("sqlite", |_| Store::in_directory("sqlite")),
    Backend::on_redis("redis", |clock| Store::on_redis(clock, 1)),
    Backend::on_redis("redis-pair", |clock| Store::on_redis(clock, 2)),
    Backend::on_redis("redis-cluster", Store::on_cluster),
];

impl Backend {
    const fn embedded(name: &'static str, start: fn(Option<&TestClock>) -> Store) -> Self {
        Self { name, is_here: || true, is_here_with_clock: || true, start }
    }

    const fn on_redis(name: &'static str, start: fn(Option<&TestClock>) -> Store) -> Self {
        let is_here_with_clock = || redis::is_installed() && RedisClock::is_here();
        Self { name, is_here: redis::is_installed, is_here_with_clock, start }
    }
}

impl Store {
    fn new(url: &str) -> Self {
        Store { urls: vec![url.to_owned()], guard: Box::new(()) }
    }

    /// One in a directory of its own, on the disk that holds the build.
    fn in_directory(scheme: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap_or_else(|error| panic!("no directory can be made: {error}"));
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        Store { urls: vec![url], guard: Box::new(directory) }
    }

    /// One in a Redis of its own, with so many servers.
    fn on_redis(clock: Option<&TestClock>, servers: usize) -> Self {
        let clock = clock.map(TestClock::of_redis);
        let redis = Redis::with(Options { clock, ..Options::default() });
        let redis = redis.expect("it is installed");
        Store { urls: vec![redis.url(); servers], guard: Box::new(redis) }
    }

    /// One in a cluster of its own.
    fn on_cluster(clock: Option<&TestClock>) -> Self {
        let clock = clock.map(TestClock::of_redis);
        let cluster = Cluster::start(clock).expect("it is installed");
        Store { urls: vec![cluster.url()], guard: Box::new(cluster) }
    }
}

/// A server inside this process, or a few that share their state, on a free port; end when it is dropped.
pub struct TestServer {
    endpoint: Endpoint,
    servers: Vec<Endpoint>,
    /// Ends the servers, before what their state is in.
    _running: Vec<oneshot::Sender<()>>,
    _guard: Box<dyn Any + Send + Sync>,
}

impl TestServer {
    /// Starts a server with the machine's clock on a fresh store of this kind.
    pub fn start(backend: &Backend) -> Self {
        Self::on_store((backend.start)(None), &machine_clock())
    }

    /// The same with another clock.
    pub fn with_clock(backend: &Backend, clock: &TestClock) -> Self {
        Self::on_store((backend.start)(Some(clock)), &clock.of_servers())
    }

    /// Starts a server on a store given by its URL.
    pub fn on_url(url: &str) -> Self {
        Self::on_store(Store::new(url), &machine_clock())
    }

    /// The same, from within the runtime.
    pub async fn on(url: &str) -> Self {
        let (endpoint, running) = run(url, machine_clock()).await;
        let servers = vec![endpoint.clone()];
        TestServer { endpoint, servers, _running: vec![running], _guard: Box::new(()) }
    }

    /// A new connection to the server.
    pub fn connect(&self) -> Channel {
        let _runtime = RUNTIME.enter();
        self.endpoint.connect_lazy()
    }

    /// Where the server is.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint.clone()
    }

    /// Where each of the servers is that share the state.
    pub fn servers(&self) -> Vec<Endpoint> {
        self.servers.clone()
    }

    fn on_store(store: Store, clock: &Arc<dyn Clock>) -> Self {
        let started = store.urls.iter().map(|url| RUNTIME.block_on(run(url, clock.clone())));
        let (servers, running): (Vec<Endpoint>, _) = started.unzip();
        let endpoint = match &servers[..] {
            [one] => one.clone(),
            [writes, reads] => {
                let servers = [writes.clone(), reads.clone()];
                endpoint(RUNTIME.block_on(pair::listen(servers)))
            }
            _ => unreachable!("a store has one server or two"),
        };
        TestServer { endpoint, servers, _running: running, _guard: store.guard }
    }
}

/// What all servers of a store have counted.
pub async fn statistics(servers: &[Endpoint]) -> GetStatsResponse {
    let mut sum = GetStatsResponse::default();
    for server in servers {
        let answer = GetStatsRequest {}.send(server.connect_lazy()).await;
        let answer = answer.expect("a server tells what it has counted");
        sum = GetStatsResponse {
            commands: sum.commands + answer.commands,
            commits: sum.commits + answer.commits,
            expired: sum.expired + answer.expired,
            watches: sum.watches + answer.watches,
            // What is there is the same for all.
            ..answer
        };
    }
    sum
}

fn machine_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::default())
}

/// Runs a server until the sender is dropped, or the program ends.
async fn run(url: &str, clock: Arc<dyn Clock>) -> (Endpoint, oneshot::Sender<()>) {
    let config =
        Config { listen: "127.0.0.1:0".to_owned(), backend: url.to_owned(), ..Config::default() };
    let server = Server::bind_with_clock(config, clock)
        .await
        .unwrap_or_else(|error| panic!("the server does not start: {error}"));
    let endpoint = endpoint(server.local_addr());
    let (running, stop) = oneshot::channel();
    RUNTIME.spawn(async move {
        let stop = async move {
            // Nothing is ever sent.
            let _ = stop.await;
        };
        if let Err(error) = server.run(stop).await {
            panic!("the server ended: {error}");
        }
    });
    (endpoint, running)
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("an address makes a URL")
}
