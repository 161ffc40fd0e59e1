//! Redis, as far as loading its append-only file goes.

use std::{
    fs::{self, File},
    io::{BufWriter, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use super::{
    Peer, find, free_port,
    value::{Form, key},
};

/// Writes the append-only file of a Redis in which so many keys were set.
pub fn write_append_only_file(directory: &Path, keys: usize) {
    let files = directory.join("appendonlydir");
    fs::create_dir_all(&files).expect("a directory can be made");
    let manifest = "file appendonly.aof.1.incr.aof seq 1 type i\n";
    fs::write(files.join("appendonly.aof.manifest"), manifest).expect("a file can be written");
    let file = File::create(files.join("appendonly.aof.1.incr.aof")).expect("a file can be made");
    let mut file = BufWriter::new(file);
    for number in 0..keys {
        let (key, value) = (key(number), Form::Text.value(number));
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
pub fn start(directory: &Path, keys: usize) -> Option<Duration> {
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
