//! A server for all tests of this suite, and clients of it.

use std::{
    net::SocketAddr,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_client::{Client, Namespace};
use holdfast_server::{config::Config, serve::Server};
use tokio::runtime::{Builder, Runtime};

/// How long a test waits for what must come; long, for machines that are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread().enable_all().build().expect("a runtime can be made")
});

static SHARED: LazyLock<SocketAddr> = LazyLock::new(start);

/// Starts a server on a free port; ends with the process.
pub fn start() -> SocketAddr {
    let config = Config {
        listen: "127.0.0.1:0".to_owned(),
        backend: "memory:".to_owned(),
        ..Config::default()
    };
    let server = RUNTIME.block_on(Server::bind(config)).expect("the server starts");
    let address = server.local_addr();
    RUNTIME.spawn(async move {
        server.run(std::future::pending()).await.expect("the server goes on");
    });
    address
}

/// The server that tests share, each in namespaces of its own.
pub fn shared() -> SocketAddr {
    *SHARED
}

/// A name that no other test has.
pub fn fresh_name(test: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("{test}.{}", COUNT.fetch_add(1, Ordering::Relaxed))
}

/// Runs a test on a namespace of its own.
pub fn with_namespace(test: &str, run: impl AsyncFnOnce(Namespace)) {
    let address = shared();
    RUNTIME.block_on(async {
        let client = connect(address).await;
        let whole = run(client.namespace(fresh_name(test)));
        tokio::time::timeout(2 * PATIENCE, whole).await.expect("the test comes to an end");
    });
}

/// Runs a test.
pub fn block_on<T>(test: impl Future<Output = T>) -> T {
    RUNTIME.block_on(test)
}

/// A client with much time.
pub async fn connect(address: SocketAddr) -> Client {
    let builder = Client::builder(address.to_string()).timeout(PATIENCE);
    builder.connect().await.expect("the server answers")
}
