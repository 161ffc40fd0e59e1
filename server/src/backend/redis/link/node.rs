//! One server that takes writes, whatever becomes of the connection to it.

use std::{mem, sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    Context, LinkError,
    connection::{ClientId, Connection, Failure, text},
    durable::{Lent, Pool},
    pause, pause_about,
    refusal::Refusal,
    sentinel::Sentinels,
    subscription,
};
use crate::backend::redis::url::{Address, Kind};

/// How often a server that does not take writes is asked whether it does again.
const PROBE: Duration = Duration::from_millis(500);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A script that may write, and does not: it is refused by whatever refuses those that do.
const PROBE_SCRIPT: &str = "#!lua\nreturn 1";

/// A server and the tasks that keep a connection to it.
pub(super) struct Node {
    shared: Arc<Shared>,
    pool: Pool,
    /// End with it.
    _tasks: JoinSet<()>,
}

/// Where a server is.
pub(super) enum Place {
    Fixed(Address),
    /// Where the sentinels say that the master is.
    Sentinels(Sentinels),
}

/// How it stands with the connection.
#[derive(Clone)]
pub(super) enum State {
    /// It is being made, for the first time or because it was just lost.
    Connecting,
    Ready(Arc<Connection>),
    /// It cannot be made, or is not answered on.
    Down(String),
}

impl State {
    /// Has callers wait instead of going on; tells whether any would have gone on.
    fn interrupt(&mut self) -> bool {
        let was_ready = matches!(self, Self::Ready(_));
        if was_ready {
            *self = Self::Connecting;
        }
        was_ready
    }
}

struct Shared {
    context: Arc<Context>,
    place: Place,
    /// For people.
    name: String,
    state: watch::Sender<State>,
    /// An answer is overdue.
    doubted: Notify,
    /// Something was left.
    interrupted: Notify,
    /// A write was refused.
    refused: Notify,
    /// The server is to be looked for anew.
    moved: Notify,
    /// Connections that were given up though something was still to be answered on them.
    left: Mutex<Vec<(Address, ClientId)>>,
}

impl Node {
    /// Begins to connect, and to subscribe.
    pub(super) fn start(context: Arc<Context>, place: Place) -> Self {
        let name = match &place {
            Place::Fixed(address) => address.to_string(),
            Place::Sentinels(sentinels) => format!("master `{}`", sentinels.master()),
        };
        let shared = Arc::new(Shared {
            context,
            place,
            name,
            state: watch::Sender::new(State::Connecting),
            doubted: Notify::new(),
            interrupted: Notify::new(),
            refused: Notify::new(),
            moved: Notify::new(),
            left: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(shared.clone().keep());
        tasks.spawn(subscription::keep(shared.context.clone(), shared.state.subscribe()));
        if let Place::Sentinels(_) = &shared.place {
            tasks.spawn(shared.clone().follow());
        }
        Self { shared, pool: Pool::default(), _tasks: tasks }
    }

    /// The connection, once there is one: that is waited for while the first attempt to make it is under way.
    ///
    /// # Errors
    /// Unavailable, with the reason.
    pub(super) async fn connection(&self) -> Result<Arc<Connection>, LinkError> {
        let unavailable = |problem: &str| self.shared.unavailable(problem);
        if let State::Ready(connection) = &*self.shared.state.borrow()
            && !connection.has_ended()
        {
            return Ok(connection.clone());
        }
        let mut state = self.shared.state.subscribe();
        let decided = state.wait_for(|state| match state {
            State::Connecting => false,
            State::Ready(connection) => !connection.has_ended(),
            State::Down(_) => true,
        });
        match timeout(self.shared.context.settings.connect_timeout, decided).await {
            Ok(Ok(state)) => match &*state {
                State::Ready(connection) => Ok(connection.clone()),
                State::Down(problem) => Err(unavailable(problem)),
                State::Connecting => Err(unavailable("a connection is being made")),
            },
            Ok(Err(_)) => Err(unavailable("it is no longer used")),
            Err(_) => Err(unavailable("a connection is being made")),
        }
    }

    /// The connection, or why the first attempt to make it has failed.
    pub(super) async fn first_connection(&self) -> Result<Arc<Connection>, String> {
        let mut state = self.shared.state.subscribe();
        let decided = state.wait_for(|state| !matches!(state, State::Connecting)).await;
        match decided.as_deref() {
            Ok(State::Ready(connection)) => Ok(connection.clone()),
            Ok(State::Down(problem)) => Err(format!("Redis at {}: {problem}", self.shared.name)),
            Ok(State::Connecting) | Err(_) => Err("is no longer used".into()),
        }
    }

    /// Tells that an answer on a connection is overdue.
    pub(super) fn doubt(&self, connection: &Arc<Connection>) {
        if let State::Ready(now) = &*self.shared.state.borrow()
            && Arc::ptr_eq(now, connection)
        {
            self.shared.doubted.notify_one();
        }
    }

    /// Tells that a connection of one's own to this server was given up before all was answered on it.
    pub(super) fn leave(&self, connection: &Connection) {
        self.shared.leave(connection);
        // What is asked next must not be answered before what was left has an end.
        self.shared.state.send_if_modified(State::interrupt);
        self.shared.interrupted.notify_one();
    }

    /// Takes note of a refusal that others meet too.
    pub(super) fn note(&self, refusal: &Refusal) {
        let Refusal::Unwritable(reason) = refusal else {
            return;
        };
        self.shared.context.health.report(&self.shared.name, Some(reason.clone()));
        match is_replica(reason) {
            true => self.shared.moved.notify_one(),
            false => self.shared.refused.notify_one(),
        }
    }

    /// A connection that nobody else uses meanwhile, to where the shared one is to.
    ///
    /// # Errors
    /// Unavailable, with the reason.
    pub(super) async fn lend(self: &Arc<Self>, shared: &Connection) -> Result<Lent, LinkError> {
        let Context { settings, .. } = &*self.shared.context;
        let lent = self.pool.lend(settings, self, &shared.address).await;
        lent.map_err(|problem| self.shared.unavailable(&problem))
    }

    /// The connections that are lent.
    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    /// How it stands with the connection, from now on.
    pub(super) fn state(&self) -> watch::Receiver<State> {
        self.shared.state.subscribe()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shared.context.health.forget(&self.shared.name);
    }
}

impl Shared {
    fn unavailable(&self, problem: &str) -> LinkError {
        LinkError::Unavailable(format!("Redis at {}: {problem}", self.name))
    }

    async fn keep(self: Arc<Self>) {
        loop {
            let connection = self.establish().await;
            self.state.send_replace(State::Ready(connection.clone()));
            self.attend(&connection).await;
            self.leave(&connection);
            self.state.send_if_modified(State::interrupt);
            // So that a server that closes every connection at once is not run against.
            pause_about(FIRST_PAUSE / 4).await;
        }
    }

    /// Whether Redis has closed it too is not known, not even where it has ended here.
    fn leave(&self, connection: &Connection) {
        let left = connection.client.clone().map(|client| (connection.address.clone(), client));
        self.left.lock().extend(left);
    }

    /// Goes to look for the master where the sentinels tell of a new one.
    async fn follow(self: Arc<Self>) {
        let Place::Sentinels(sentinels) = &self.place else {
            return;
        };
        let tell = |address: Address| {
            let is_other =
                matches!(&*self.state.borrow(), State::Ready(now) if now.address != address);
            if is_other {
                self.moved.notify_one();
            }
        };
        sentinels.follow(&self.context, tell).await;
    }

    /// Tries until there is a connection.
    async fn establish(&self) -> Arc<Connection> {
        let mut longest = FIRST_PAUSE;
        loop {
            match self.connect().await {
                Ok(connection) => return Arc::new(connection),
                Err(problem) => {
                    self.context.health.report(&self.name, Some(problem.clone()));
                    self.state.send_replace(State::Down(problem));
                }
            }
            tokio::select! {
                () = pause_about(longest) => {}
                () = self.moved.notified() => {}
            }
            longest = (longest * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Connection, String> {
        let Context { settings, .. } = &*self.context;
        let address = match &self.place {
            Place::Fixed(address) => address.clone(),
            Place::Sentinels(sentinels) => sentinels.ask(&self.context).await?,
        };
        let login = &settings.login;
        let ignore = Box::new(|_| {});
        let connection =
            Connection::open(settings, login, settings.database, &address, ignore).await?;
        let limit = settings.connect_timeout;
        timeout(limit, self.admit(&connection))
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))?;
        Ok(connection)
    }

    /// Looks whether a new connection is to a server that takes writes, and ends what was left open before.
    async fn admit(&self, connection: &Connection) -> Result<(), String> {
        check_role(connection).await?;
        self.end_left(connection).await.map_err(|failure| failure.to_string())?;
        let refused = self.probe(connection).await?;
        self.context.health.report(&self.name, refused);
        Ok(())
    }

    /// Stays until another connection is needed.
    async fn attend(&self, connection: &Arc<Connection>) {
        loop {
            let is_refused = self.context.health.reason(&self.name).is_some();
            tokio::select! {
                () = connection.ended() => return,
                () = self.moved.notified() => return,
                () = self.refused.notified() => {}
                () = self.doubted.notified() => {
                    self.state.send_replace(State::Down("does not answer in time".into()));
                    if !self.goes_on(connection).await {
                        return;
                    }
                }
                () = self.interrupted.notified() => {
                    if !self.goes_on(connection).await {
                        return;
                    }
                }
                () = pause(PROBE), if is_refused => {
                    match timeout(self.context.settings.connect_timeout, self.probe(connection)).await {
                        Ok(Ok(Some(reason))) if is_replica(&reason) => return,
                        Ok(Ok(refused)) => self.context.health.report(&self.name, refused),
                        Ok(Err(_)) => return,
                        Err(_) => self.doubted.notify_one(),
                    }
                }
            }
        }
    }

    /// Waits for the answer to what is handed over now: whatever was handed over before has an end then.
    async fn goes_on(&self, connection: &Arc<Connection>) -> bool {
        let limit = self.context.settings.connect_timeout;
        let problem = match timeout(limit, self.end_left(connection)).await {
            Ok(Ok(())) => {
                self.state.send_replace(State::Ready(connection.clone()));
                return true;
            }
            Ok(Err(failure)) => failure.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        self.context.health.report(&self.name, Some(problem));
        false
    }

    /// Whether writes would be refused, and with which words.
    async fn probe(&self, connection: &Connection) -> Result<Option<String>, String> {
        let mut command = redis::cmd("EVAL");
        command.arg(PROBE_SCRIPT).arg(0);
        match connection.command(&command).await {
            Ok(_) if self.context.settings.kind == Kind::Cluster => is_cut_off(connection).await,
            Ok(_) => Ok(None),
            Err(Failure::Refused(Refusal::Unwritable(text) | Refusal::Unavailable(text))) => {
                Ok(Some(text))
            }
            Err(failure) => Err(failure.to_string()),
        }
    }

    /// Closes what was left open, at Redis' end, so that nothing that is still on its way there is run later than
    /// what is sent from now on.
    async fn end_left(&self, connection: &Connection) -> Result<(), Failure> {
        let left = mem::take(&mut *self.left.lock());
        let mut pipeline = Pipeline::new();
        let here = left.iter().filter(|(address, _)| *address == connection.address);
        for (_, client) in here {
            pipeline.add_command(client.kill());
        }
        pipeline.add_command(redis::cmd("PING"));
        let answered = connection.pipeline(&pipeline).await;
        if answered.is_err() {
            self.left.lock().extend(left);
        }
        // One that is gone is an error, and so is one that this user may not end: nothing can be done about that.
        answered.map(drop)
    }
}

/// Whether a refusal tells that the server is no longer a primary.
fn is_replica(reason: &str) -> bool {
    reason.starts_with("READONLY")
}

/// Whether a node refuses what has keys, which the script that probes has not.
async fn is_cut_off(connection: &Connection) -> Result<Option<String>, String> {
    let mut command = redis::cmd("CLUSTER");
    command.arg("INFO");
    match connection.command(&command).await {
        Ok(answer) => {
            let is_down = text(&answer).is_some_and(|info| info.contains("cluster_state:fail"));
            Ok(is_down.then(|| "CLUSTERDOWN The cluster is down".into()))
        }
        Err(Failure::Refused(_)) => Ok(None),
        Err(failure) => Err(failure.to_string()),
    }
}

/// Refuses what is not a primary; where the user may not ask for that, the first write will tell.
async fn check_role(connection: &Connection) -> Result<(), String> {
    let answer = match connection.command(&redis::cmd("ROLE")).await {
        Ok(answer) => answer,
        Err(Failure::Refused(_)) => return Ok(()),
        Err(Failure::Lost(problem)) => return Err(problem),
    };
    let Value::Array(parts) = answer else {
        return Ok(());
    };
    let part = |index: usize| parts.get(index).and_then(text).unwrap_or_default();
    match part(0).as_str() {
        "slave" => Err(format!(
            "{} is a replica of {}:{}, and takes no writes",
            connection.address,
            part(1),
            part(2)
        )),
        "sentinel" => Err(format!(
            "{} is a sentinel: the URL for that is redis+sentinel://HOST:PORT/MASTER",
            connection.address
        )),
        _ => Ok(()),
    }
}
