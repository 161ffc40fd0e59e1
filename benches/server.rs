//! A server in this program, and clients of it.

use holdfast_client::Client;
use holdfast_server::{config::Config, serve::Server};

/// Starts a server on a free port, which runs as long as the runtime; answers its address.
pub async fn start() -> String {
    let config =
        Config { listen: "127.0.0.1:0".into(), backend: "memory:".into(), ..Config::default() };
    let server = Server::bind(config).await.expect("a free port can be bound");
    let address = server.local_addr().to_string();
    tokio::spawn(server.run(std::future::pending()));
    address
}

/// A client with a connection of its own.
pub async fn connect(address: &str) -> Client {
    Client::connect(address).await.expect("the server serves")
}
