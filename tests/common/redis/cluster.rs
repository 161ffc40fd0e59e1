//! Three nodes of a cluster, without replicas.

use redis::Value;

use super::{Options, Redis, RedisClock, until};

const NODES: usize = 3;
const SLOTS: usize = 16_384;

/// Longer than a clock that is moved by hand is ever moved: no node seems to be gone for that.
const FOR_EVER_MS: u64 = 10_000_000_000_000;

/// A cluster whose nodes share the slots evenly.
pub struct Cluster {
    pub nodes: Vec<Redis>,
}

impl Cluster {
    /// Starts a cluster; `None` where Redis is not installed. What time a cluster needs to get ready passes, on a clock
    /// that is moved by hand, before the moment at which that stands.
    pub fn start(clock: Option<RedisClock>) -> Option<Self> {
        let ready_ms = clock.as_ref().map(RedisClock::now_ms);
        if let (Some(clock), Some(ready_ms)) = (&clock, ready_ms) {
            clock.set(ready_ms - 3_600_000);
        }
        let timeout_ms = if clock.is_some() { FOR_EVER_MS } else { 5_000 };
        let arguments = [
            ("--cluster-enabled", "yes"),
            ("--cluster-port", "{free}"),
            ("--cluster-node-timeout", &timeout_ms.to_string()),
        ];
        let arguments = arguments.iter().flat_map(|(name, value)| [*name, *value]);
        let options = Options {
            arguments: arguments.map(str::to_owned).collect(),
            clock: clock.clone(),
            ..Options::default()
        };
        let nodes: Option<Vec<_>> = (0..NODES).map(|_| Redis::with(options.clone())).collect();
        let cluster = Self { nodes: nodes? };
        cluster.assign_slots();
        cluster.introduce();
        until("the cluster is whole", || {
            if let Some(clock) = &clock {
                clock.set(clock.now_ms() + 1);
            }
            cluster.is_whole().then_some(())
        });
        if let (Some(clock), Some(ready_ms)) = (&clock, ready_ms) {
            clock.set(ready_ms);
        }
        Some(cluster)
    }

    /// The URL by which a server of Holdfast keeps its state here.
    pub fn url(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(Redis::address).collect();
        format!("redis+cluster://{}", addresses.join(","))
    }

    /// The slot of all that has this tag, and the index of the node that has it.
    pub fn slot_of(&self, tag: &str) -> (usize, usize) {
        let slot: usize = self.nodes[0].run(&["CLUSTER", "KEYSLOT", &format!("{{{tag}}}")]);
        let owns = |node: &Redis| node.try_run::<Value>(&["GET", &format!("{{{tag}}}")]).is_ok();
        (slot, self.nodes.iter().position(owns).expect("a node has the slot"))
    }

    /// Moves a slot to another node key by key, as `redis-cli --cluster reshard` does, while it is used.
    pub fn move_slot(&self, slot: usize, from: usize, to: usize) {
        let (source, target) = (&self.nodes[from], &self.nodes[to]);
        let (source_id, target_id) = (id(source), id(target));
        let slot = slot.to_string();
        target.run::<()>(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &source_id]);
        source.run::<()>(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &target_id]);
        loop {
            let keys: Vec<Vec<u8>> = source.run(&["CLUSTER", "GETKEYSINSLOT", &slot, "1"]);
            let Some(key) = keys.first() else {
                break;
            };
            let port = target.port.to_string();
            let words: [&[u8]; 6] =
                [b"MIGRATE", b"127.0.0.1", port.as_bytes(), key, b"0", b"60000"];
            source.run::<()>(&words);
        }
        for node in [target, source].into_iter().chain(&self.nodes) {
            node.run::<()>(&["CLUSTER", "SETSLOT", &slot, "NODE", &target_id]);
        }
    }

    fn assign_slots(&self) {
        for (number, node) in self.nodes.iter().enumerate() {
            let first = (number * SLOTS / NODES).to_string();
            let last = ((number + 1) * SLOTS / NODES - 1).to_string();
            node.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            node.run::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]);
        }
    }

    fn introduce(&self) {
        for node in &self.nodes[1..] {
            let bus: Vec<String> = node.run(&["CONFIG", "GET", "cluster-port"]);
            let words = ["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), &bus[1]];
            self.nodes[0].run::<()>(&words);
        }
    }

    fn is_whole(&self) -> bool {
        let is_told = |node: &Redis| {
            let info: String = node.run(&["CLUSTER", "INFO"]);
            let wanted = ["cluster_state:ok", "cluster_slots_ok:16384", "cluster_known_nodes:3"];
            wanted.iter().all(|line| info.contains(line))
        };
        self.nodes.iter().all(is_told)
    }
}

fn id(node: &Redis) -> String {
    node.run(&["CLUSTER", "MYID"])
}
