//! Where the master is.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use redis::{PushInfo, PushKind, Value};
use tokio::{sync::mpsc, time::timeout};
use tracing::{debug, info};

use super::{
    Context,
    connection::{Connection, OnPush, text},
    pause_about,
};
use crate::backend::redis::url::Address;

/// How long is waited before another sentinel is listened to.
const PAUSE: Duration = Duration::from_secs(1);

/// The sentinels that watch over a master.
pub(super) struct Sentinels {
    master: String,
    /// Which is asked next: all in turn, so that one with an old view of things does not hold up for ever.
    turn: AtomicUsize,
}

impl Sentinels {
    pub(super) fn new(master: String) -> Self {
        Self { master, turn: AtomicUsize::new(0) }
    }

    /// The name of the master.
    pub(super) fn master(&self) -> &str {
        &self.master
    }

    /// The address of the master, by the first sentinel that knows it.
    ///
    /// # Errors
    /// What each of them said, or why it said nothing.
    pub(super) async fn ask(&self, context: &Context) -> Result<Address, String> {
        let mut problems = Vec::new();
        let servers = &context.settings.servers;
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % servers.len();
        for sentinel in servers[first..].iter().chain(&servers[..first]) {
            let asked = async {
                let connection = connect(context, sentinel, Box::new(|_| {})).await?;
                self.ask_one(context, &connection).await
            };
            match asked.await {
                Ok(address) => return Ok(address),
                Err(problem) => problems.push(format!("sentinel {sentinel}: {problem}")),
            }
        }
        Err(problems.join("; "))
    }

    /// Listens to one sentinel and then another, and tells each time where the master is, whether that is news or
    /// not.
    pub(super) async fn follow(&self, context: &Context, tell: impl Fn(Address)) {
        loop {
            let servers = &context.settings.servers;
            let sentinel = &servers[self.turn.fetch_add(1, Ordering::Relaxed) % servers.len()];
            if let Err(problem) = self.listen(context, sentinel, &tell).await {
                debug!("sentinel {sentinel} is not listened to: {problem}");
            }
            pause_about(PAUSE).await;
        }
    }

    async fn ask_one(&self, context: &Context, connection: &Connection) -> Result<Address, String> {
        let mut command = redis::cmd("SENTINEL");
        command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.master);
        let answer = timeout(context.settings.connect_timeout, connection.command(&command)).await;
        let answer = answer.map_err(|_| "no answer in time")?;
        match answer.map_err(|failure| failure.to_string())? {
            Value::Nil => Err(format!("knows no master `{}`", self.master)),
            Value::Array(parts) => {
                let port = parts.get(1).and_then(text).and_then(|port| port.parse().ok());
                let address = parts.first().and_then(text).zip(port);
                let address = address.map(|(host, port)| Address { host, port });
                address.ok_or_else(|| "does not answer with an address".into())
            }
            _ => Err("does not answer with an address".into()),
        }
    }

    async fn listen(
        &self,
        context: &Context,
        sentinel: &Address,
        tell: &impl Fn(Address),
    ) -> Result<(), String> {
        let (sender, mut switches) = mpsc::channel(1);
        let on_push: OnPush = Box::new(move |PushInfo { kind, .. }| {
            // One that waits is enough: the address is asked for.
            if kind == PushKind::Message {
                let _ = sender.try_send(());
            }
        });
        let connection = connect(context, sentinel, on_push).await?;
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg("+switch-master");
        let subscribed =
            timeout(context.settings.connect_timeout, connection.command(&command)).await;
        subscribed.map_err(|_| "no answer in time")?.map_err(|failure| failure.to_string())?;
        loop {
            tell(self.ask_one(context, &connection).await?);
            tokio::select! {
                () = connection.ended() => return Ok(()),
                switch = switches.recv() => match switch {
                    Some(()) => info!("sentinel {sentinel} tells of another master"),
                    None => return Ok(()),
                },
            }
        }
    }
}

async fn connect(
    context: &Context,
    sentinel: &Address,
    on_push: OnPush,
) -> Result<Connection, String> {
    let Context { settings, .. } = context;
    Connection::open(settings, &settings.sentinel_login, 0, sentinel, on_push).await
}
