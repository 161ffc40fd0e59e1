//! What is published, from each server that takes writes.

use std::sync::Arc;

use bytes::Bytes;
use redis::{PushInfo, PushKind, Value};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tracing::warn;

use super::{
    Context, Message,
    connection::{Connection, OnPush},
    node::State,
    pause_about,
};

/// How long is waited before it is tried again to subscribe.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(1);

/// Stays subscribed to a server while there is a connection to it. Ends when nobody listens.
pub(super) async fn keep(context: Arc<Context>, mut state: watch::Receiver<State>) {
    let mut problem = None;
    while !context.messages.is_closed() {
        let Some(connection) = ready(&mut state).await else {
            return;
        };
        match listen(&context, &connection, &mut state).await {
            Ok(()) => problem = None,
            // The connection for commands tells more, and sooner, of a server that is gone.
            Err(new) if connection.has_ended() || problem.as_ref() == Some(&new) => {}
            Err(new) => {
                warn!("changes at Redis at {} are seen late: {new}", connection.address);
                problem = Some(new);
            }
        }
        pause_about(PAUSE / 4).await;
    }
}

/// The connection for commands, when there is one.
async fn ready(state: &mut watch::Receiver<State>) -> Option<Arc<Connection>> {
    let state = state.wait_for(|state| matches!(state, State::Ready(_))).await.ok()?;
    match &*state {
        State::Ready(connection) => Some(connection.clone()),
        State::Connecting | State::Down(_) => None,
    }
}

/// Listens until the subscription ends, or the server is another.
async fn listen(
    context: &Context,
    commands: &Arc<Connection>,
    state: &mut watch::Receiver<State>,
) -> Result<(), String> {
    let Context { settings, messages, .. } = context;
    let missed = Arc::new(Notify::new());
    let (login, address) = (&settings.login, &commands.address);
    let on_push = forward(messages.clone(), missed.clone());
    let connection = Connection::open(settings, login, 0, address, on_push).await?;
    let mut command = redis::cmd("SUBSCRIBE");
    command.arg(format!("{}:wake", settings.prefix));
    let subscribed = timeout(settings.connect_timeout, connection.command(&command)).await;
    subscribed.map_err(|_| "no answer in time")?.map_err(|failure| failure.to_string())?;
    // What was published before this moment is missed.
    let mut is_told = false;
    let mut known = commands.clone();
    loop {
        tokio::select! {
            permit = messages.reserve(), if !is_told => match permit {
                Ok(permit) => {
                    permit.send(Message::Subscribed);
                    is_told = true;
                }
                Err(_) => return Ok(()),
            },
            () = missed.notified() => is_told = false,
            () = connection.ended() => return Ok(()),
            () = messages.closed() => return Ok(()),
            changed = ready_other(state, &known) => match changed {
                // Another connection to the same server: perhaps only this one has not noticed that it is lost.
                Some(other) if other.address == known.address => {
                    let ping = redis::cmd("PING");
                    let answered = timeout(settings.connect_timeout, connection.command(&ping)).await;
                    if !matches!(answered, Ok(Ok(_))) {
                        return Ok(());
                    }
                    known = other;
                }
                _ => return Ok(()),
            },
        }
    }
}

/// The connection for commands, once it is another than the known.
async fn ready_other(
    state: &mut watch::Receiver<State>,
    known: &Arc<Connection>,
) -> Option<Arc<Connection>> {
    let is_other =
        |state: &State| matches!(state, State::Ready(other) if !Arc::ptr_eq(other, known));
    match &*state.wait_for(is_other).await.ok()? {
        State::Ready(other) => Some(other.clone()),
        State::Connecting | State::Down(_) => None,
    }
}

/// Hands messages on while there is room; what is dropped is told as missed.
fn forward(messages: mpsc::Sender<Message>, missed: Arc<Notify>) -> OnPush {
    Box::new(move |PushInfo { kind, mut data }| {
        if kind != PushKind::Message {
            return;
        }
        if let Some(Value::BulkString(payload)) = data.pop()
            && messages.try_send(Message::Published(Bytes::from(payload))).is_err()
        {
            missed.notify_one();
        }
    })
}
