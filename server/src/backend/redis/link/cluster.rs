//! A cluster: which node has which slot, as far as is known.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use futures::future;
use parking_lot::RwLock;
use redis::{Pipeline, Value};
use tokio::{sync::Notify, task::JoinSet, time::timeout};
use tracing::{debug, info};

use super::{
    Context,
    connection::{Connection, text},
    found::Found,
    node::{Node, Place, State},
    pause,
};
use crate::backend::redis::url::Address;

const SLOTS: usize = 16_384;
/// How often the nodes are asked for changes that nothing else has told of.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How often at most.
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The nodes that take writes.
pub(super) struct Cluster {
    shared: Arc<Shared>,
    /// Ends with it.
    _task: JoinSet<()>,
}

struct Shared {
    context: Arc<Context>,
    map: RwLock<Map>,
    /// The map is old.
    stale: Notify,
}

struct Map {
    nodes: HashMap<Address, Arc<Node>>,
    /// By slot.
    owners: Vec<Option<Arc<Node>>>,
}

/// From a slot to a slot, and who has them.
type Range = (usize, usize, Address);

impl Cluster {
    /// Asks the nodes that are set for all that there are.
    ///
    /// # Errors
    /// Where none of them answers.
    pub(super) async fn open(context: Arc<Context>) -> Result<Self, String> {
        let map = Map { nodes: HashMap::new(), owners: vec![None; SLOTS] };
        let shared = Arc::new(Shared { context, map: RwLock::new(map), stale: Notify::new() });
        let ranges = shared.ask_servers().await?;
        shared.take(ranges);
        let mut task = JoinSet::new();
        task.spawn(shared.clone().keep());
        Ok(Self { shared, _task: task })
    }

    /// The node that has a key.
    pub(super) fn owner(&self, key: &[u8]) -> Option<Arc<Node>> {
        let slot = slot(key);
        self.shared.map.read().owners[usize::from(slot)].clone()
    }

    /// Takes note of what a node has told.
    pub(super) fn moved(&self, slot: u16, address: Address) {
        let node = self.node_at(address);
        if let Some(owner) = self.shared.map.write().owners.get_mut(usize::from(slot)) {
            *owner = Some(node);
        }
        self.look_again();
    }

    /// The node at an address, which may be one that nobody knew of.
    pub(super) fn node_at(&self, address: Address) -> Arc<Node> {
        self.shared.map.write().node_at(&self.shared.context, address)
    }

    /// Has the nodes asked for changes soon.
    pub(super) fn look_again(&self) {
        self.shared.stale.notify_one();
    }

    /// Looks at how the nodes are set up: at those that can be reached, and at least at one.
    pub(super) async fn look(&self) -> Result<Found, String> {
        let Shared { context, map, .. } = &*self.shared;
        let nodes: Vec<_> = map.read().nodes.values().cloned().collect();
        let looks = nodes.iter().map(async |node| {
            let connection = node.first_connection().await?;
            Ok(Found::look(&context.settings, &connection).await)
        });
        let mut found: Option<Found> = None;
        let mut problem = None;
        for look in future::join_all(looks).await {
            match look {
                Ok(Ok(next)) => found = Some(found.map_or(next.clone(), |found| found.with(next))),
                Ok(Err(refused)) => return Err(refused),
                Err(unreached) => problem = Some(unreached),
            }
        }
        found.ok_or_else(|| problem.unwrap_or_else(|| "has no nodes with slots".into()))
    }
}

impl Shared {
    /// Keeps the map up to date.
    async fn keep(self: Arc<Self>) {
        loop {
            // Whether it was told to be old or not.
            let _ = timeout(ASK_EVERY, self.stale.notified()).await;
            match self.ask().await {
                Ok(ranges) => self.take(ranges),
                Err(problem) => debug!("no node tells how the cluster is made up: {problem}"),
            }
            pause(ASK_AGAIN).await;
        }
    }

    /// Asks the nodes that are connected to; else those that are set.
    async fn ask(&self) -> Result<Vec<Range>, String> {
        let nodes: Vec<_> = self.map.read().nodes.values().cloned().collect();
        for node in nodes {
            let connection = match &*node.state().borrow() {
                State::Ready(connection) => connection.clone(),
                State::Connecting | State::Down(_) => continue,
            };
            if let Ok((true, ranges)) = self.ask_on(&connection).await {
                return Ok(ranges);
            }
        }
        self.ask_servers().await
    }

    async fn ask_servers(&self) -> Result<Vec<Range>, String> {
        let settings = &self.context.settings;
        let (mut doubtful, mut problems) = (None, Vec::new());
        for address in &settings.servers {
            let asked = async {
                let ignore = Box::new(|_| {});
                let connection =
                    Connection::open(settings, &settings.login, 0, address, ignore).await?;
                self.ask_on(&connection).await
            };
            match asked.await {
                Ok((true, ranges)) => return Ok(ranges),
                Ok((false, ranges)) => doubtful = Some(ranges),
                Err(problem) => problems.push(format!("Redis at {address}: {problem}")),
            }
        }
        doubtful.ok_or_else(|| problems.join("; "))
    }

    /// Who has which slots, and whether the node that says so is with the majority of the cluster.
    async fn ask_on(&self, connection: &Connection) -> Result<(bool, Vec<Range>), String> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("CLUSTER").arg("INFO").cmd("CLUSTER").arg("SLOTS");
        let asked = timeout(self.context.settings.connect_timeout, connection.pipeline(&pipeline));
        let answers = asked.await.map_err(|_| "no answer in time")?;
        let mut answers = answers.map_err(|failure| failure.to_string())?;
        let slots =
            answers.pop().ok_or("an answer is missing")?.map_err(|failure| failure.to_string())?;
        let info =
            answers.pop().and_then(Result::ok).and_then(|info| text(&info)).unwrap_or_default();
        let Value::Array(parts) = slots else {
            return Err("does not answer with slots".into());
        };
        let ranges: Vec<_> =
            parts.iter().filter_map(|part| range(part, &connection.address)).collect();
        match ranges.is_empty() {
            true => Err("knows of no slots: is the cluster made up?".into()),
            false => Ok((!info.contains("cluster_state:fail"), ranges)),
        }
    }

    fn take(&self, ranges: Vec<Range>) {
        let mut map = self.map.write();
        let before = mem::take(&mut map.nodes);
        map.owners.fill(None);
        for (first, last, address) in ranges {
            let known = before.get(&address).cloned();
            let node = known.unwrap_or_else(|| map.node_at(&self.context, address.clone()));
            map.nodes.entry(address).or_insert_with(|| node.clone());
            for owner in &mut map.owners[first..=last] {
                *owner = Some(node.clone());
            }
        }
        for address in before.keys().filter(|address| !map.nodes.contains_key(*address)) {
            info!("Redis at {address} has no slots of the cluster any more");
        }
    }
}

impl Map {
    fn node_at(&mut self, context: &Arc<Context>, address: Address) -> Arc<Node> {
        let start = |address: &Address| {
            info!("Redis at {address} is a node of the cluster");
            Arc::new(Node::start(context.clone(), Place::Fixed(address.clone())))
        };
        self.nodes.entry(address).or_insert_with_key(start).clone()
    }
}

/// The slot that a key is in: of what is in its first braces, if there is anything.
pub(super) fn slot(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        rest.iter()
            .position(|byte| *byte == b'}')
            .filter(|close| *close > 0)
            .map(|close| &rest[..close])
    });
    crc16(tag.unwrap_or(key)) % SLOTS as u16
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

/// `[first, last, [host, port, …], replicas…]`; a node that does not know its own host is the one that was asked.
fn range(part: &Value, asked: &Address) -> Option<Range> {
    let Value::Array(parts) = part else {
        return None;
    };
    let [Value::Int(first), Value::Int(last), Value::Array(node), ..] = &parts[..] else {
        return None;
    };
    let host = node.first().and_then(text).filter(|host| !host.is_empty() && host != "?");
    let Some(Value::Int(port)) = node.get(1) else {
        return None;
    };
    let host = host.unwrap_or_else(|| asked.host.clone());
    let address = Address { host, port: u16::try_from(*port).ok()? };
    let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
    (first <= last && last < SLOTS).then_some((first, last, address))
}
