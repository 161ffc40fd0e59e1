//! Redis: a server that keeps nothing, and how long loading an append-only file takes.

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, AsyncTypedCommands as _, ConnectionInfo, IntoConnectionInfo as _,
    aio::MultiplexedConnection, io::tcp::TcpSettings,
};

use super::{Peer, find, free_port};

/// How long a call may take; as long as a call of Holdfast's client, rather than half a second.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A server that writes nothing to disk.
pub struct Redis {
    process: Peer,
    /// A connection to it, that all callers share.
    pub connection: MultiplexedConnection,
}

impl Redis {
    /// Starts one, if there is a `redis-server` on the path; else says so.
    pub async fn start() -> Option<Self> {
        let Some(program) = find("redis-server") else {
            println!("no `redis-server` on the path: it is skipped");
            return None;
        };
        let port = free_port().to_string();
        let process = Peer::start(Command::new(program).args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
        ]));
        let client = redis::Client::open(address(&port)).expect("a good address");
        for _ in 0..300 {
            let config = AsyncConnectionConfig::new().set_response_timeout(Some(TIMEOUT));
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            if let Ok(connection) = connected {
                return Some(Self { process, connection });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("Redis starts within half a minute")
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.process.0.id()
    }

    /// Sets keys, many to a message.
    pub async fn fill(&self, items: impl Iterator<Item = (String, bytes::Bytes)>) {
        let items: Vec<_> = items.collect();
        for items in items.chunks(1000) {
            let mut pipe = redis::pipe();
            for (key, value) in items {
                pipe.set(key, &value[..]).ignore();
            }
            let mut connection = self.connection.clone();
            pipe.exec_async(&mut connection).await.expect("keys can be set");
        }
    }
}

/// Which one is on the path.
pub fn version() -> Option<String> {
    super::version("redis-server")
}

/// Without delay in sending, which the crate would leave to the system, and no other client here does.
fn address(port: &str) -> ConnectionInfo {
    let info = format!("redis://127.0.0.1:{port}/").into_connection_info();
    let tcp = TcpSettings::default().set_nodelay(true);
    info.expect("a good address").set_tcp_settings(tcp)
}

/// Sets a key.
pub async fn set(connection: &mut MultiplexedConnection, key: String, value: &[u8]) {
    connection.set(key, value).await.expect("a set succeeds");
}

/// Reads a key that is there.
pub async fn get(connection: &mut MultiplexedConnection, key: String) -> Vec<u8> {
    let value: redis::RedisResult<Option<Vec<u8>>> =
        redis::cmd("GET").arg(key).query_async(connection).await;
    value.expect("a get succeeds").expect("the key is there")
}

/// Writes the append-only file of a Redis with these keys.
pub fn write_append_only_file(
    directory: &Path,
    items: impl Iterator<Item = (String, bytes::Bytes)>,
) {
    let files = directory.join("appendonlydir");
    fs::create_dir_all(&files).expect("a directory can be made");
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    fs::write(files.join("appendonly.aof.manifest"), manifest).expect("a file can be written");
    let file = File::create(files.join("appendonly.aof.1.incr.aof")).expect("a file can be made");
    let mut file = BufWriter::new(file);
    for (key, value) in items {
        let mut write = |bytes: &[u8]| file.write_all(bytes).expect("a file can be written");
        write(
            format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n", key.len(), value.len())
                .as_bytes(),
        );
        write(&value);
        write(b"\r\n");
    }
    file.flush().expect("a file can be written");
}

/// How long it takes from the start until a `PING` is answered and all keys are there; nothing without a
/// `redis-server` on the path.
pub fn start_from_file(directory: &Path, keys: usize) -> Option<Duration> {
    let port = free_port().to_string();
    let start = Instant::now();
    let _process = Peer::start(Command::new(find("redis-server")?).args([
        "--appendonly",
        "yes",
        "--save",
        "",
        "--bind",
        "127.0.0.1",
        "--port",
        &port,
        "--dir",
        directory.to_str()?,
    ]));
    while ask(&port, "PING").as_deref() != Some("+PONG") {
        assert!(start.elapsed() < Duration::from_secs(300), "Redis starts");
        std::thread::sleep(Duration::from_millis(1));
    }
    let taken = start.elapsed();
    assert_eq!(ask(&port, "DBSIZE"), Some(format!(":{keys}")), "Redis has loaded the file");
    Some(taken)
}

fn ask(port: &str, command: &str) -> Option<String> {
    let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).ok()?;
    stream.write_all(format!("{command}\r\n").as_bytes()).ok()?;
    let mut answer = [0; 256];
    let length = stream.read(&mut answer).ok()?;
    Some(String::from_utf8_lossy(&answer[..length]).trim().into())
}
