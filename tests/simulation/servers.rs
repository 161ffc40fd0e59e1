//! The servers of a schedule, and what becomes of them.

use std::sync::Arc;

use holdfast_server::{
    clock::Clock as _,
    store::{Store, StoreOptions},
};
use parking_lot::Mutex;
use tokio::{sync::watch, task::JoinHandle};

use crate::faults::{Faulty, World};

/// The servers that clients know of.
pub struct Servers {
    pub world: Arc<World>,
    running: Mutex<Vec<Running>>,
}

struct Running {
    store: Arc<Store>,
    faulty: Arc<Faulty>,
    maintenance: JoinHandle<()>,
    _stop: watch::Sender<bool>,
}

impl Servers {
    /// So many servers.
    pub fn start(world: &Arc<World>, count: usize) -> Arc<Self> {
        let running = Mutex::new((0..count).map(|_| run(world)).collect());
        Arc::new(Self { world: world.clone(), running })
    }

    /// One that runs, as far as clients know.
    pub fn any(&self) -> Arc<Store> {
        let running = self.running.lock();
        let chosen = self.world.random.lock().below(running.len() as u64) as usize;
        running[chosen].store.clone()
    }

    /// Stops one for a while, so that it goes on where it was without having noticed.
    pub fn freeze(&self, ms: i64) {
        let running = self.running.lock();
        let chosen = self.world.random.lock().below(running.len() as u64) as usize;
        let until_ms = self.world.clock.now_ms() + ms;
        let faulty = &running[chosen].faulty;
        self.world.note(faulty, format_args!("is frozen for {ms} ms"));
        faulty.freeze_until(until_ms);
    }

    /// Ends one in the middle of whatever it does, and starts another.
    pub fn kill(&self) {
        let mut running = self.running.lock();
        let chosen = self.world.random.lock().below(running.len() as u64) as usize;
        let new = run(&self.world);
        let old = std::mem::replace(&mut running[chosen], new);
        self.world.note(&old.faulty, format_args!("is killed"));
        old.faulty.freeze_until(i64::MAX);
        old.maintenance.abort();
    }

    /// Whether all of them maintain themselves still.
    pub fn are_well(&self) -> bool {
        self.running.lock().iter().all(|running| !running.maintenance.is_finished())
    }
}

fn run(world: &Arc<World>) -> Running {
    let faulty = world.connect();
    let store = Store::new(faulty.clone(), world.clock.clone(), StoreOptions::default());
    let (stop, stopped) = watch::channel(false);
    let maintenance = tokio::spawn(store.clone().maintain(stopped));
    Running { store, faulty, maintenance, _stop: stop }
}
