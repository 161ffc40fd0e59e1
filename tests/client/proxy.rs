//! A proxy between client and server whose connections can be cut, and that can lose answers.

use std::{
    io,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use holdfast_proto::v1::{PipelineAnswer, PipelineResponse};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// Passes bytes on. Ends when dropped.
pub struct Proxy {
    pub address: SocketAddr,
    connections: Arc<Mutex<JoinSet<()>>>,
    blocked: Arc<AtomicBool>,
    held_back: watch::Sender<bool>,
    accepting: tokio::task::AbortHandle,
}

/// The answers that a proxy does not pass on.
#[derive(Clone)]
pub struct LostAnswers {
    every: usize,
    seen: Arc<AtomicUsize>,
}

impl LostAnswers {
    /// One in so many, counted over all connections.
    pub fn one_in(every: usize) -> Self {
        Self { every, seen: Arc::default() }
    }

    /// How many were lost so far.
    pub fn count(&self) -> usize {
        self.seen.load(Ordering::Relaxed) / self.every
    }

    /// Whether one of the next answers is lost, and the others that travel with it.
    fn loses_one_of(&self, answers: usize) -> bool {
        let before = self.seen.fetch_add(answers, Ordering::Relaxed);
        before / self.every < (before + answers) / self.every
    }
}

impl Proxy {
    /// Starts a proxy to a server.
    pub async fn to(server: SocketAddr) -> Self {
        Self::start(server, None).await
    }

    /// Starts a proxy to a server that loses answers: it cuts the connection when the server has sent one.
    pub async fn losing(server: SocketAddr, answers: LostAnswers) -> Self {
        Self::start(server, Some(answers)).await
    }

    async fn start(server: SocketAddr, lost: Option<LostAnswers>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let connections = Arc::new(Mutex::new(JoinSet::new()));
        let blocked = Arc::new(AtomicBool::new(false));
        let held_back = watch::Sender::new(false);
        let (accepted, refusing) = (Arc::clone(&connections), Arc::clone(&blocked));
        let holding = held_back.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let (lost, held_back) = (lost.clone(), holding.clone());
                accepted.lock().spawn(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        // Either side may end the connection, and so may a cut.
                        let _ = pass(client, server, lost, held_back).await;
                    }
                });
            }
        });
        let accepting = accepting.abort_handle();
        Self { address, connections, blocked, held_back, accepting }
    }

    /// Cuts the connections there are, with whatever is on its way. New ones are accepted.
    pub fn cut(&self) {
        self.connections.lock().abort_all();
    }

    /// Cuts the connections there are, and those that are made from now on.
    pub fn block(&self) {
        self.close();
        self.cut();
    }

    /// Leaves the connections that there are, and cuts those that are made from now on.
    pub fn close(&self) {
        self.blocked.store(true, Ordering::SeqCst);
    }

    /// From now on passes on what the client says, but keeps what the server does.
    pub fn hold_back(&self) {
        self.held_back.send_replace(true);
    }

    /// Passes on what it has kept, and all that follows.
    pub fn let_go(&self) {
        self.held_back.send_replace(false);
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.connections.lock().len()
    }

    /// Accepts connections again.
    pub fn unblock(&self) {
        self.blocked.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(
    client: TcpStream,
    server: TcpStream,
    lost: Option<LostAnswers>,
    held_back: watch::Sender<bool>,
) -> io::Result<()> {
    // Else each small frame waits for the one before to be acknowledged.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut requests, mut to_client) = client.into_split();
    let (mut answers, mut to_server) = server.into_split();
    let passing = async {
        match lost {
            Some(lost) => pass_answers(answers, to_client, lost).await,
            None => copy(&mut answers, &mut to_client).await.map(drop),
        }
    };
    // Whichever ends first ends both.
    tokio::select! {
        copied = copy(&mut requests, &mut to_server) => copied.map(drop),
        passed = unless_held_back(held_back, passing) => passed,
    }
}

/// Goes on with this only while nothing is to be kept.
async fn unless_held_back<T>(
    held_back: watch::Sender<bool>,
    passing: impl Future<Output = T>,
) -> T {
    let mut held = held_back.subscribe();
    let mut passing = pin!(passing);
    loop {
        let passed = tokio::select! {
            biased;
            _ = held.wait_for(|is_held| *is_held) => None,
            passed = &mut passing => Some(passed),
        };
        match passed {
            Some(passed) => return passed,
            None => drop(held.wait_for(|is_held| !*is_held).await),
        }
    }
}

/// Passes on what the server says, frame by frame of HTTP/2, until an answer is to be lost.
async fn pass_answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    lost: LostAnswers,
) -> io::Result<()> {
    const DATA: u8 = 0;
    loop {
        let mut frame = vec![0; 9];
        from.read_exact(&mut frame).await?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize;
        let is_message = frame[3] == DATA && length > 0;
        frame.resize(9 + length, 0);
        from.read_exact(&mut frame[9..]).await?;
        if is_message && lost.loses_one_of(answers_in(&frame[9..])) {
            return Ok(());
        }
        to.write_all(&frame).await?;
    }
}

/// How many answers a frame of data holds: those of pipelines, or one a message. The messages of these tests are small, so
/// that none is in two frames; before each stand five bytes with its length.
fn answers_in(mut data: &[u8]) -> usize {
    let mut answers = 0;
    while let Some((&[_, length @ ..], rest)) = data.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(length) as usize;
        let (message, next) = rest.split_at(length.min(rest.len()));
        let pipelined = PipelineResponse::decode(message).map(|message| message.answers);
        let has_results =
            |answers: &Vec<_>| answers.iter().all(|it: &PipelineAnswer| it.result.is_some());
        answers += pipelined.ok().filter(has_results).map_or(1, |answers| answers.len().max(1));
        data = next;
    }
    answers.max(1)
}
