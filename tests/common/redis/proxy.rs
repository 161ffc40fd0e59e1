//! A proxy between servers of Holdfast and Redis: it delays, it can be cut, and it can lose the answer to a command.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy, sink},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};

/// Passes bytes on. Ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

/// What the connections share.
struct State {
    connections: Mutex<JoinSet<()>>,
    blocked: AtomicBool,
    /// How much later what is asked arrives.
    delay_us: AtomicU64,
    /// What is in the command whose answer is to be lost.
    losing: Mutex<Option<Vec<u8>>>,
    /// How many commands have come whose answers are lost.
    lost: watch::Sender<usize>,
}

impl Proxy {
    /// Starts a proxy to a server, given as `HOST:PORT`.
    pub async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(State {
            connections: Mutex::default(),
            blocked: AtomicBool::new(false),
            delay_us: AtomicU64::new(0),
            losing: Mutex::default(),
            lost: watch::Sender::new(0),
        });
        let (server, shared) = (server.to_owned(), state.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if shared.blocked.load(Ordering::SeqCst) {
                    continue;
                }
                let (server, state) = (server.clone(), shared.clone());
                shared.connections.lock().spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        // Either side may end the connection, and so may a cut.
                        let _ = pass(client, server, &state).await;
                    }
                });
            }
        });
        Self { address, state, accepting: accepting.abort_handle() }
    }

    /// From now on what is asked arrives so much later, on each connection.
    pub fn delay(&self, delay: Duration) {
        let delay_us = u64::try_from(delay.as_micros()).expect("a short time");
        self.state.delay_us.store(delay_us, Ordering::SeqCst);
    }

    /// Cuts the connections there are, with whatever is on its way. New ones are accepted.
    pub fn cut(&self) {
        self.state.connections.lock().abort_all();
    }

    /// Cuts the connections there are, and those that are made until it is unblocked.
    pub fn block(&self) {
        self.state.blocked.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Accepts connections again.
    pub fn unblock(&self) {
        self.state.blocked.store(false, Ordering::SeqCst);
    }

    /// Loses the answer to the next command that has these bytes in it, and all that come after it on its connection,
    /// until that is cut.
    pub fn lose_answer_to(&self, marker: &str) {
        *self.state.losing.lock() = Some(marker.as_bytes().to_owned());
    }

    /// Waits until so many commands have come whose answers are lost.
    pub async fn lost(&self, count: usize) {
        let mut lost = self.state.lost.subscribe();
        lost.wait_for(|lost| *lost >= count).await.expect("the proxy lives");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, server: TcpStream, state: &State) -> io::Result<()> {
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, mut to_client) = client.into_split();
    let (mut answers, to_server) = server.into_split();
    let (sender, delayed) = mpsc::unbounded_channel();
    let doomed = watch::Sender::new(false);
    // Whichever ends first ends all.
    tokio::select! {
        read = read_requests(requests, state, &doomed, sender) => read,
        written = write_requests(to_server, delayed) => written,
        passed = pass_answers(&mut answers, &mut to_client, state, &doomed) => passed,
    }
}

/// Reads what is asked, with the time at which it is to arrive.
async fn read_requests(
    mut from: OwnedReadHalf,
    state: &State,
    doomed: &watch::Sender<bool>,
    to: mpsc::UnboundedSender<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    let mut recent = Vec::new();
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        recent.extend_from_slice(&buffer[..length]);
        let mut losing = state.losing.lock();
        if let Some(marker) = &*losing
            && recent.windows(marker.len()).any(|part| part == marker)
        {
            doomed.send_replace(true);
            *losing = None;
        }
        drop(losing);
        // A marker may come in two parts.
        recent.drain(..recent.len().saturating_sub(256));
        let due = Instant::now() + Duration::from_micros(state.delay_us.load(Ordering::Relaxed));
        if to.send((due, buffer[..length].to_owned())).is_err() {
            return Ok(());
        }
    }
}

async fn write_requests(
    mut to: OwnedWriteHalf,
    mut requests: mpsc::UnboundedReceiver<(Instant, Vec<u8>)>,
) -> io::Result<()> {
    while let Some((due, bytes)) = requests.recv().await {
        if due > Instant::now() {
            // The delay itself.
            tokio::time::sleep_until(due).await;
        }
        to.write_all(&bytes).await?;
    }
    Ok(())
}

/// Passes on what Redis says, until something has been asked that is not to be answered.
async fn pass_answers(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    state: &State,
    doomed: &watch::Sender<bool>,
) -> io::Result<()> {
    let mut is_doomed = doomed.subscribe();
    tokio::select! {
        copied = copy(from, to) => return copied.map(drop),
        _ = is_doomed.wait_for(|doomed| *doomed) => {}
    }
    state.lost.send_modify(|lost| *lost += 1);
    copy(from, &mut sink()).await.map(drop)
}
