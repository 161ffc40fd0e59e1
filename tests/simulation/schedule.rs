//! One schedule: servers, clients and what befalls them, all by one seed, and the judgement of it.

use std::{
    cell::Cell,
    fmt,
    future::poll_fn,
    sync::{
        Arc, Once,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
};

use futures::{FutureExt as _, task::AtomicWaker};
use holdfast_server::{
    backend::{Key, KeyRange, registry::Registry},
    clock::Clock as _,
    store::command::{Condition, Expiry},
};
use tokio::{
    runtime::Builder,
    sync::watch,
    task::{JoinError, JoinHandle},
};

use crate::{
    call::Op,
    client::{Client, Clients, key},
    clock::SimClock,
    faults::{Breach, Plan, Trace, World},
    holder::{Granted, Holder},
    judge::Judge,
    random::Random,
    servers::Servers,
    watcher::{Told, Watcher},
};

/// How long everything that is left may take to end by itself, in milliseconds.
const SETTLING_MS: u64 = 30_000;

thread_local! {
    /// How many tasks of this thread have panicked.
    static PANICS: Cell<u64> = const { Cell::new(0) };
}

/// What came of a schedule.
pub struct Report {
    pub seed: u64,
    pub trace: Trace,
    /// How many revisions there were.
    pub revisions: u64,
    pub verdict: Result<(), String>,
}

/// Tells that nobody has anything to do.
#[derive(Default)]
struct Idle {
    waker: AtomicWaker,
    /// Whether nobody waits for a moment, either.
    is_over: AtomicBool,
}

/// What befalls a schedule.
#[derive(Debug, Clone, Copy)]
struct Course {
    plan: Plan,
    servers: usize,
    /// Whether servers are frozen and killed.
    is_rough: bool,
    /// Whether the clock jumps.
    jumps: bool,
}

impl Course {
    fn of(random: &mut Random) -> Self {
        let mut plan = Plan::default();
        let servers = 1 + random.below(3) as usize;
        plan.silent = random.below(60);
        // A third of them go well, so that what fails has no excuse.
        let is_calm = random.percent(33);
        if random.percent(80) {
            plan.delay = 5 + random.below(60);
            plan.longest_ms = if is_calm { random.below(30) } else { random.below(400) };
        }
        if !is_calm {
            plan.fail = random.below(12);
            plan.lose = random.below(12);
            plan.moved = random.below(15);
        }
        let is_rough = !is_calm && random.percent(50);
        Self { plan, servers, is_rough, jumps: random.percent(20) }
    }

    fn is_calm(&self) -> bool {
        self.plan.fail + self.plan.lose + self.plan.moved == 0 && !self.is_rough && !self.jumps
    }
}

/// Runs the schedule of a seed.
pub fn run(seed: u64, breach: Option<Breach>) -> Report {
    count_panics();
    let before = PANICS.get();
    let clock = SimClock::new();
    let idle = Arc::new(Idle::default());
    let (timers, noted) = (clock.clone(), idle.clone());
    // Time goes on when nobody has anything to do. Whoever is woken by that may be gone, so that it may have to go on
    // again at once: the thread must not sleep.
    let go_on = move || {
        noted.is_over.store(!timers.go_on(), Ordering::Relaxed);
        noted.waker.wake();
    };
    let runtime = Builder::new_current_thread().on_thread_park(go_on).build();
    let runtime = runtime.expect("a runtime needs nothing but memory");
    let (world, course) = runtime.block_on(async { prepare(seed, breach, clock) });
    let verdict = runtime.block_on(async {
        let mut work = tokio::spawn(play(world.clone(), course));
        poll_fn(|context| {
            idle.waker.register(context.waker());
            match work.poll_unpin(context) {
                Poll::Pending if idle.is_over.load(Ordering::Relaxed) => {
                    Poll::Ready(Err("everybody waits, and for nothing".into()))
                }
                done => done.map(|done| done.unwrap_or_else(|error| Err(error.to_string()))),
            }
        })
        .await
    });
    let verdict = match PANICS.get() - before {
        0 => verdict,
        _ => Err(format!("a task has panicked; {verdict:?}")),
    };
    // What is left under way ends here, as where a server is stopped.
    drop(runtime);
    let truth = world.truth.lock();
    let revisions = truth.last() + 1 - truth.first();
    drop(truth);
    let trace = world.take_trace();
    Report { seed, trace, revisions, verdict }
}

fn prepare(seed: u64, breach: Option<Breach>, clock: Arc<SimClock>) -> (Arc<World>, Course) {
    let mut random = Random::new(seed);
    let mut course = Course::of(&mut random);
    course.plan.breach = breach;
    let opened = Registry::default().open("memory:", clock.clone()).now_or_never();
    let backend = opened.expect("memory waits for nothing").expect("memory can be opened");
    let world = World::new(backend, clock, course.plan, random);
    world.note("course", format_args!("{course:?}"));
    (world, course)
}

async fn play(world: Arc<World>, course: Course) -> Result<(), String> {
    let servers = Servers::start(&world, course.servers);
    let clients = Clients::new(servers.clone());
    let mut random = Random::new(world.random.lock().next());
    let first = Op::Set {
        key: key("n1"),
        value: "0".into(),
        expiry: Expiry::Never,
        condition: Condition::None,
    };
    Client::new(0, &clients, random.next()).call(first, Vec::new()).await;
    world.set_calm(false);
    let (no_more, last) = watch::channel(None);
    let watchers: Vec<_> = (0..2)
        .map(|id| {
            let prefix = random.pick(&["", "a", "b"]);
            let (servers, random) = (servers.clone(), Random::new(random.next()));
            let last = last.clone();
            tokio::spawn(Watcher { id, servers, prefix, random, told: Vec::new(), last }.work())
        })
        .collect();
    let ordinary: Vec<_> = (1..4)
        .map(|id| tokio::spawn(Client::new(id, &clients, random.next()).work(8 + random.below(20))))
        .collect();
    let holders: Vec<_> = (4..7)
        .map(|id| tokio::spawn(Holder::new(id, &clients, random.next()).work(1 + random.below(4))))
        .collect();
    let rough = tokio::spawn(befall(servers.clone(), course, Random::new(random.next())));
    for client in ordinary {
        joined(client).await;
    }
    let mut granted = Vec::new();
    for holder in holders {
        granted.extend(joined(holder).await);
    }
    rough.abort();
    world.set_calm(true);
    world.clock.sleep_ms(SETTLING_MS).await;
    no_more.send_replace(Some(world.truth.lock().last()));
    let mut told = Vec::new();
    for watcher in watchers {
        told.extend(joined(watcher).await?);
    }
    if !servers.are_well() {
        return Err("a server has stopped maintaining itself".into());
    }
    judge(&world, course, &clients, &granted, &told).await
}

async fn judge(
    world: &World,
    course: Course,
    clients: &Clients,
    granted: &[Granted],
    told: &[Told],
) -> Result<(), String> {
    left_over(world).await?;
    let truth = world.truth.lock();
    let judge = Judge { truth: &truth, is_calm: course.is_calm() };
    judge.calls(&clients.calls.lock())?;
    judge.locks(granted)?;
    told.iter().try_for_each(|told| judge.told(told))
}

/// In the end nothing is left of what ends by itself, and what is there is what the log says.
async fn left_over(world: &World) -> Result<(), String> {
    let ours = KeyRange { start: Key::new(b"\0"), end: Some(Key::new(b"\x01")) };
    let mut entries = Vec::new();
    for range in [ours, KeyRange { start: Key::new(b"\x01"), end: None }] {
        let found = world.inner().scan(&world.namespace, &range, None, false, usize::MAX).await;
        entries.extend(found.map_err(|error| error.to_string())?.entries);
    }
    let truth = world.truth.lock();
    let mut state = truth.state(truth.last());
    for entry in &entries {
        let key = entry.key();
        let is_due = entry.deadline.is_due(world.clock.now_ms());
        if !key.is_internal() {
            let said = state.remove(key).map(|said| said.mod_revision);
            if is_due || said != Some(entry.mod_revision) {
                return Err(format!("{key:?} is left over; due: {is_due}, in the log: {said:?}"));
            }
            continue;
        }
        let lasts = [&b"\0settings"[..], b"\0request\0", b"\0ended\0", b"\0lock\0"];
        let is_lasting = lasts.iter().any(|prefix| key.as_bytes().starts_with(prefix));
        if is_due || !is_lasting || entry.value.starts_with(b"{\"held\"") {
            return Err(format!("{key:?} is left over: {:?}", entry.value));
        }
    }
    match state.pop_first() {
        None => Ok(()),
        Some((key, _)) => Err(format!("{key:?} is in the log but not there")),
    }
}

/// What befalls servers from outside.
async fn befall(servers: Arc<Servers>, course: Course, mut random: Random) {
    let clock = servers.world.clock.clone();
    loop {
        clock.sleep_ms(100 + random.below(1500)).await;
        match random.below(4) {
            0 | 1 if course.is_rough => servers.freeze(300 + random.below(4000) as i64),
            2 if course.is_rough => servers.kill(),
            3 if course.jumps => clock.jump(random.below(4000) as i64),
            _ => {}
        }
    }
}

async fn joined<T>(task: JoinHandle<T>) -> T {
    let panic = |error: JoinError| std::panic::resume_unwind(error.into_panic());
    task.await.unwrap_or_else(panic)
}

fn count_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            hook(info);
        }));
    });
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, trace, verdict, .. } = self;
        let shown = match std::env::var_os("TRACE") {
            Some(_) => usize::MAX,
            None => 60,
        };
        let tail = &trace.lines[trace.lines.len().saturating_sub(shown)..];
        writeln!(f, "{}", tail.join("\n"))?;
        if let Err(problem) = verdict {
            writeln!(f, "{problem}")?;
        }
        write!(f, "repeat with: SEED={seed} cargo test --test simulation (TRACE=1 shows all of it)")
    }
}
