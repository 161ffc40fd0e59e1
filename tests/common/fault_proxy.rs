//! A proxy between clients and a server that may come and go: it delays, falls silent, loses answers, and cuts.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::{AbortHandle, JoinSet},
};

/// What becomes of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weather {
    /// They arrive.
    #[default]
    Fair,
    /// They arrive so much later, each way.
    Slow(Duration),
    /// They wait until the weather changes, on connections that seem to be there.
    Silent,
    /// What is asked arrives; what is answered does not, and when the weather changes the connection is cut.
    Unanswered,
}

/// Passes bytes on. Ends when dropped.
pub struct FaultProxy {
    pub address: SocketAddr,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    /// Where the server is now; none while there is none.
    server: Mutex<Option<SocketAddr>>,
    connections: Mutex<JoinSet<()>>,
    weather: watch::Sender<Weather>,
}

/// Which way bytes go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Asked,
    Answered,
}

impl FaultProxy {
    /// Starts a proxy to a server.
    pub async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("it has an address");
        let state = Arc::new(State {
            server: Mutex::new(Some(server)),
            connections: Mutex::default(),
            weather: watch::Sender::default(),
        });
        let shared = state.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let state = shared.clone();
                let mut connections = shared.connections.lock();
                while connections.try_join_next().is_some() {}
                connections.spawn(async move {
                    // Either side may end the connection, and so may a cut.
                    let _ = pass(client, &state).await;
                });
            }
        });
        Self { address, state, accepting: accepting.abort_handle() }
    }

    /// From now on connections lead to this server, or nowhere.
    pub fn lead_to(&self, server: Option<SocketAddr>) {
        *self.state.server.lock() = server;
    }

    /// Changes what becomes of bytes, on all connections.
    pub fn weather(&self, weather: Weather) {
        self.state.weather.send_replace(weather);
    }

    /// Cuts the connections there are, with whatever is on its way. New ones are accepted.
    pub fn cut(&self) {
        self.state.connections.lock().abort_all();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn pass(client: TcpStream, state: &State) -> io::Result<()> {
    let Some(server) = *state.server.lock() else {
        return Ok(());
    };
    let server = TcpStream::connect(server).await?;
    // Else each small frame waits for the one before to be acknowledged.
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (requests, to_client) = client.into_split();
    let (answers, to_server) = server.into_split();
    // Whichever ends first ends both.
    tokio::select! {
        passed = pass_one_way(requests, to_server, Way::Asked, state.weather.subscribe()) => passed,
        passed = pass_one_way(answers, to_client, Way::Answered, state.weather.subscribe()) => passed,
    }
}

async fn pass_one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    way: Way,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let now = *weather.borrow_and_update();
        match now {
            Weather::Fair => {}
            // The delay itself.
            Weather::Slow(delay) => tokio::time::sleep(delay).await,
            Weather::Silent => drop(weather.wait_for(|now| *now != Weather::Silent).await),
            Weather::Unanswered if way == Way::Asked => {}
            Weather::Unanswered => {
                drop(weather.wait_for(|now| *now != Weather::Unanswered).await);
                return Ok(());
            }
        }
        to.write_all(&buffer[..length]).await?;
    }
}
