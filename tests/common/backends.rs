//! The backends that every suite runs on, and servers on them.

use std::{any::Any, sync::Arc};

use holdfast_server::{
    clock::{Clock, SystemClock},
    config::Config,
    serve::Server,
};
use tonic::transport::{Channel, Endpoint};

use super::RUNTIME;

/// A kind of store to test on. Every case of every suite runs on each of [`BACKENDS`].
pub struct Backend {
    /// Its URL scheme: a part of the names of the tests.
    pub name: &'static str,
    /// Makes a fresh store; `None` where this machine lacks what it needs.
    pub start: fn() -> Option<Store>,
}

/// A fresh store.
pub struct Store {
    /// Its URL.
    pub url: String,
    /// Ends what was started for it, by being dropped.
    pub guard: Box<dyn Any + Send + Sync>,
}

/// All tested backends.
pub const BACKENDS: &[Backend] = &[
    Backend { name: "memory", start: || Some(Store::new("memory:")) },
    Backend { name: "files", start: || Some(Store::in_directory("files")) },
    Backend { name: "sqlite", start: || Some(Store::in_directory("sqlite")) },
];

impl Store {
    fn new(url: &str) -> Self {
        Store { url: url.to_owned(), guard: Box::new(()) }
    }

    /// One in a directory of its own, on the disk that holds the build.
    fn in_directory(scheme: &str) -> Self {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))
            .unwrap_or_else(|error| panic!("no directory can be made: {error}"));
        let url = format!("{scheme}:{}", directory.path().join("data").display());
        Store { url, guard: Box::new(directory) }
    }
}

/// A server inside this process, on a free port; ends with the process.
pub struct TestServer {
    endpoint: Endpoint,
    _guard: Box<dyn Any + Send + Sync>,
}

impl TestServer {
    /// Starts a server with the machine's clock on a fresh store of this kind.
    pub fn start(backend: &Backend) -> Option<Self> {
        Self::with_clock(backend, Arc::new(SystemClock::default()))
    }

    /// The same with another clock.
    pub fn with_clock(backend: &Backend, clock: Arc<dyn Clock>) -> Option<Self> {
        let store = (backend.start)()?;
        Some(Self::on_store(store, clock))
    }

    /// Starts a server on a store given by its URL.
    pub fn on_url(url: &str) -> Self {
        Self::on_store(Store::new(url), Arc::new(SystemClock::default()))
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

    fn on_store(store: Store, clock: Arc<dyn Clock>) -> Self {
        let config =
            Config { listen: "127.0.0.1:0".to_owned(), backend: store.url, ..Config::default() };
        let server = RUNTIME
            .block_on(Server::bind_with_clock(config, clock))
            .unwrap_or_else(|error| panic!("the server does not start: {error}"));
        let endpoint = Endpoint::from_shared(format!("http://{}", server.local_addr()))
            .expect("an address makes a URL");
        RUNTIME.spawn(async move {
            if let Err(error) = server.run(std::future::pending()).await {
                panic!("the server ended: {error}");
            }
        });
        TestServer { endpoint, _guard: store.guard }
    }
}
