//! Connections to Redis: one instance, a master that sentinels watch over, or a cluster.
//!
//! Nothing here knows of namespaces. A [`Link`] runs scripts where their keys are, says of each that has no answer
//! whether it may have been run, hands on what is published, and knows whether writes are taken. Nothing that writes
//! is ever sent twice once a byte of it may have left.
//!
//! - `connection`: one connection, `tls` under it; `refusal`: what the errors of Redis mean.
//! - `node`: a server whose connection is made again whenever it is lost; `subscription`: what it publishes;
//!   `durable`: commits that wait for replicas.
//! - `look`: several commands in one step.
//! - `sentinel`, `cluster`: where the servers are.
//! - `health`: whether writes are taken; `found`: how the servers are set up.

mod cluster;
mod connection;
mod durable;
mod found;
mod health;
mod look;
mod node;
mod refusal;
mod sentinel;
mod subscription;
#[cfg(test)]
mod tests;
mod tls;

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use bytes::Bytes;
use futures::future;
use parking_lot::Mutex;
use redis::{Pipeline, Value};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::debug;
use uuid::Uuid;

pub(super) use self::found::Found;
use self::{
    cluster::Cluster,
    connection::{Connection, Failure},
    health::Health,
    node::{Node, Place},
    refusal::Refusal,
    sentinel::Sentinels,
};
use super::url::{Address, Kind, Settings};

/// How many messages wait to be taken.
const MESSAGES: usize = 1024;
/// How long is waited before a slot that is being moved is asked for again.
const TRY_AGAIN: Duration = Duration::from_millis(10);

/// How many connections may be lost over one call that only reads.
const MAX_LOSSES: u32 = 3;

/// How often a script may be forgotten during one call.
const MAX_LOADS: u32 = 5;

/// A Lua script.
#[derive(Debug)]
pub(super) struct Script {
    pub name: &'static str,
    pub source: String,
    /// The SHA-1 of the source in hexadecimal digits.
    pub sha: String,
    /// Whether it may change anything: then it is never sent again.
    pub writes: bool,
    /// Whether that it was run is told as done for good: then replicas are waited for, where that is set.
    pub promises: bool,
}

/// A script to be run. All keys are of one slot, and there is at least one.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub script: &'a Script,
    pub keys: Vec<Vec<u8>>,
    pub args: Vec<Bytes>,
}

/// Why a script was not run, or may have been.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum LinkError {
    /// It was surely not run.
    #[error("{0}")]
    Unavailable(String),
    /// It may have been run: the answer was lost.
    #[error("{0}")]
    Unknown(String),
    /// It was run, and ended with an error of its own: the code comes first.
    #[error("{0}")]
    Script(String),
}

/// What comes from the channel that all servers of the state publish to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Published(Bytes),
    /// There is a subscription anew: some messages may have been missed before.
    Subscribed,
}

/// The way to Redis. Everything ends with it.
pub(super) struct Link {
    context: Arc<Context>,
    route: Route,
    found: Found,
    /// Whether this user may not run several commands in one step.
    steps_refused: AtomicBool,
    messages: Mutex<Option<mpsc::Receiver<Message>>>,
}

/// What all parts have in common.
struct Context {
    settings: Settings,
    health: Health,
    messages: mpsc::Sender<Message>,
}

/// Where scripts are run.
enum Route {
    One(Arc<Node>),
    Cluster(Cluster),
}

impl Link {
    /// Connects, and looks at how the servers are set up.
    ///
    /// # Errors
    /// Where none can be reached, or they are not what the URL says or too old.
    pub(super) async fn open(settings: Settings) -> Result<Self, String> {
        let (sender, messages) = mpsc::channel(MESSAGES);
        let context = Arc::new(Context { settings, health: Health::new(), messages: sender });
        let route = match &context.settings.kind {
            Kind::Single => {
                let server = context.settings.servers.first().ok_or("needs a server")?;
                Route::One(Arc::new(Node::start(context.clone(), Place::Fixed(server.clone()))))
            }
            Kind::Sentinel { master } => {
                let place = Place::Sentinels(Sentinels::new(master.clone()));
                Route::One(Arc::new(Node::start(context.clone(), place)))
            }
            Kind::Cluster => Route::Cluster(Cluster::open(context.clone()).await?),
        };
        let found = match &route {
            Route::One(node) => {
                let connection = node.first_connection().await?;
                Found::look(&context.settings, &connection).await?
            }
            Route::Cluster(cluster) => cluster.look().await?,
        };
        let steps_refused = AtomicBool::new(false);
        Ok(Self { context, route, found, steps_refused, messages: Mutex::new(Some(messages)) })
    }

    /// How the servers are set up, as far as they tell.
    pub(super) fn found(&self) -> &Found {
        &self.found
    }

    /// Runs a script where its keys are, within the time for commands.
    ///
    /// - What only reads is sent again where a connection was lost, while there is time.
    /// - What promises is answered once as many replicas have it as is set.
    pub(super) async fn call(&self, call: Call<'_>) -> Result<Value, LinkError> {
        self.call_in_time(&call).await
    }

    /// Runs scripts, those of one server in one round trip. Each has an answer of its own, in their order.
    pub(super) async fn call_all(&self, calls: Vec<Call<'_>>) -> Vec<Result<Value, LinkError>> {
        let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
        let groups = self.group(&calls).into_iter();
        let together = groups.map(|(node, indexes)| self.call_together(node, &calls, indexes));
        for (index, answer) in future::join_all(together).await.into_iter().flatten() {
            answers[index] = Some(answer);
        }
        let each = answers.into_iter().zip(&calls).map(async |(answer, call)| match answer {
            Some(answer) => answer,
            None => self.call_in_time(call).await,
        });
        future::join_all(each).await
    }

    /// Whether there is a server that takes writes.
    pub(super) fn writable(&self) -> watch::Receiver<bool> {
        self.context.health.writable()
    }

    /// Whether what promises waits for replicas.
    pub(super) fn waits_for_replicas(&self) -> bool {
        self.context.settings.wait.is_some()
    }

    /// What is published. To be taken once: afterwards there is nothing to come.
    pub(super) fn messages(&self) -> mpsc::Receiver<Message> {
        self.messages.lock().take().unwrap_or_else(|| mpsc::channel(1).1)
    }

    async fn call_in_time(&self, call: &Call<'_>) -> Result<Value, LinkError> {
        let wait = self.wait(call);
        let limit = self.context.settings.command_timeout
            + wait.map_or(Duration::ZERO, |(_, timeout)| timeout);
        let mut sent = Sent::default();
        match timeout(limit, self.attempts(call, wait, &mut sent)).await {
            Ok(answer) => answer,
            Err(_) => Err(sent.overdue(limit)),
        }
    }

    /// What a script is to wait for before it is answered.
    fn wait(&self, call: &Call<'_>) -> Option<(u32, Duration)> {
        self.context.settings.wait.filter(|_| call.script.promises)
    }

    /// Tries until there is an answer, as long as nothing is done twice by that.
    async fn attempts(
        &self,
        call: &Call<'_>,
        wait: Option<(u32, Duration)>,
        sent: &mut Sent,
    ) -> Result<Value, LinkError> {
        let mut course = Course::default();
        loop {
            let (node, asking) = course.node(&self.route, call)?;
            let connection = self.route.connection(&node).await?;
            let answer = match wait {
                None => {
                    *sent = Sent::Shared(node.clone(), connection.clone());
                    connection.run(call, asking).await
                }
                Some(wait) => {
                    let lent = node.lend(&connection).await?;
                    *sent = Sent::Lent;
                    lent.run(call, asking, wait).await
                }
            };
            *sent = Sent::Nothing;
            match answer {
                Ok(value) => return Ok(value),
                Err(Failure::Lost(problem)) if call.script.writes => {
                    return Err(LinkError::Unknown(problem));
                }
                // It is sent again over the next connection.
                Err(Failure::Lost(problem)) => course.lost(problem).await?,
                Err(Failure::Refused(Refusal::NoScript)) => {
                    course.load(call.script, &connection).await?;
                }
                Err(Failure::Refused(refusal)) => {
                    course.refused(&self.route, &node, &connection, refusal).await?;
                }
            }
        }
    }

    /// Which calls go to which server at once; those that wait for replicas go alone.
    fn group(&self, calls: &[Call<'_>]) -> Vec<(Arc<Node>, Vec<usize>)> {
        let mut groups: Vec<(Arc<Node>, Vec<usize>)> = Vec::new();
        for (index, call) in calls.iter().enumerate() {
            let Some(node) = self.route.node(call).filter(|_| self.wait(call).is_none()) else {
                continue;
            };
            match groups.iter_mut().find(|(other, _)| Arc::ptr_eq(other, &node)) {
                Some((_, indexes)) => indexes.push(index),
                None => groups.push((node, vec![index])),
            }
        }
        groups
    }

    /// Answers those of the calls that have an answer; the others were not run, or only read, and can be called again.
    async fn call_together(
        &self,
        node: Arc<Node>,
        calls: &[Call<'_>],
        indexes: Vec<usize>,
    ) -> Vec<(usize, Result<Value, LinkError>)> {
        let connection = match self.route.connection(&node).await {
            Ok(connection) => connection,
            Err(error) => {
                return indexes.iter().map(|index| (*index, Err(error.clone()))).collect();
            }
        };
        let mut pipeline = Pipeline::with_capacity(indexes.len());
        for index in &indexes {
            pipeline.add_command(connection::evalsha(&calls[*index]));
        }
        let limit = self.context.settings.command_timeout;
        let lost = |problem: &str| LinkError::Unknown(problem.to_owned());
        let answers = match timeout(limit, connection.pipeline(&pipeline)).await {
            Ok(Ok(answers)) => answers,
            Ok(Err(failure)) => {
                let writes = indexes.iter().filter(|index| calls[**index].script.writes);
                return writes.map(|index| (*index, Err(lost(&failure.to_string())))).collect();
            }
            Err(_) => {
                let overdue = Sent::Shared(node, connection).overdue(limit);
                return indexes.iter().map(|index| (*index, Err(overdue.clone()))).collect();
            }
        };
        let answered =
            indexes.into_iter().zip(answers).filter_map(|(index, answer)| match answer {
                Ok(value) => Some((index, Ok(value))),
                Err(Failure::Lost(problem)) => Some((index, Err(lost(&problem)))),
                Err(Failure::Refused(refusal)) if refusal.is_passing() => None,
                Err(Failure::Refused(refusal)) => {
                    node.note(&refusal);
                    Some((index, Err(refusal.into())))
                }
            });
        answered.collect()
    }
}

/// What is out when the time is over.
#[derive(Default)]
enum Sent {
    #[default]
    Nothing,
    Shared(Arc<Node>, Arc<Connection>),
    /// On a connection of its own, which tells by itself that it was given up.
    Lent,
}

impl Sent {
    fn overdue(self, limit: Duration) -> LinkError {
        let problem = format!("no answer from Redis within {limit:?}");
        match self {
            Self::Nothing => return LinkError::Unavailable(problem),
            Self::Shared(node, connection) => node.doubt(&connection),
            Self::Lent => {}
        }
        LinkError::Unknown(problem)
    }
}

impl Route {
    /// The server that has the keys of a call, if any is known to.
    fn node(&self, call: &Call<'_>) -> Option<Arc<Node>> {
        self.owner(call.keys.first()?)
    }

    /// The server that has a key, if any is known to.
    fn owner(&self, key: &[u8]) -> Option<Arc<Node>> {
        match self {
            Self::One(node) => Some(node.clone()),
            Self::Cluster(cluster) => cluster.owner(key),
        }
    }

    async fn connection(&self, node: &Node) -> Result<Arc<Connection>, LinkError> {
        let connection = node.connection().await;
        if let (Self::Cluster(cluster), Err(_)) = (self, &connection) {
            // Another may have taken its slots over.
            cluster.look_again();
        }
        connection
    }
}

/// Where the attempts at one call have led so far.
#[derive(Default)]
struct Course {
    asked_for: Option<Arc<Node>>,
    redirects: u32,
    losses: u32,
    loads: u32,
}

impl Course {
    /// Where to try next, and whether the slot is only on its way there.
    fn node(&mut self, route: &Route, call: &Call<'_>) -> Result<(Arc<Node>, bool), LinkError> {
        if let Some(node) = self.asked_for.take() {
            return Ok((node, true));
        }
        let nobody = || LinkError::Unavailable("no node of the cluster has the slot".into());
        route.node(call).map(|node| (node, false)).ok_or_else(nobody)
    }

    /// Gives up where it may be the call itself that connections are lost by.
    async fn lost(&mut self, problem: String) -> Result<(), LinkError> {
        self.losses += 1;
        if self.losses > MAX_LOSSES {
            return Err(LinkError::Unknown(problem));
        }
        pause(TRY_AGAIN).await;
        Ok(())
    }

    /// Has the server know the script, which one that was restarted does not, nor one that was told to forget it.
    async fn load(&mut self, script: &Script, connection: &Connection) -> Result<(), LinkError> {
        self.loads += 1;
        if self.loads > MAX_LOADS {
            return Err(Refusal::NoScript.into());
        }
        debug!("Redis at {} is given the script `{}`", connection.address, script.name);
        connection.load(&script.source).await?;
        Ok(())
    }

    /// Makes up what to do about a refusal, if anything.
    async fn refused(
        &mut self,
        route: &Route,
        node: &Node,
        connection: &Connection,
        refusal: Refusal,
    ) -> Result<(), LinkError> {
        node.note(&refusal);
        let Route::Cluster(cluster) = route else {
            return Err(refusal.into());
        };
        // A node that does not know its own name means the one that was spoken to.
        let full = |address: Address| match address.host.is_empty() {
            true => Address { host: connection.address.host.clone(), ..address },
            false => address,
        };
        match refusal {
            Refusal::Moved { slot, address } => {
                cluster.moved(slot, full(address));
                self.redirects += 1;
                // Two that send from one to the other will agree in a moment.
                if self.redirects > 2 {
                    pause(TRY_AGAIN).await;
                }
            }
            Refusal::Ask { address } => self.asked_for = Some(cluster.node_at(full(address))),
            Refusal::TryAgain => pause(TRY_AGAIN).await,
            refusal => {
                cluster.look_again();
                return Err(refusal.into());
            }
        }
        Ok(())
    }
}

impl From<Failure> for LinkError {
    /// For what changes nothing.
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Lost(problem) => Self::Unavailable(problem),
            Failure::Refused(refusal) => refusal.into(),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("settings", &self.context.settings).finish_non_exhaustive()
    }
}

/// Resolves after about half of `longest` up to the whole of it, so that many do not come back at once.
async fn pause_about(longest: Duration) {
    let random = (Uuid::new_v4().as_u128() & 0xffff) as u32;
    pause(longest / 2 + longest / 2 * random / 0x1_0000).await;
}

/// Resolves after a time on the machine's clock, by which connections live whatever the time of the state is.
#[expect(clippy::disallowed_methods, reason = "connections are kept up in the machine's time")]
async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}
