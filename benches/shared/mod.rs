//! Servers that share a Redis: what that costs beside Redis alone, and how they share a hot namespace.
//!
//! The bare baselines are the `redis` crate, by plain `GET` and `SET`, and by a script that does what a set has to do: write
//! the entry, its place in the order, and the log.

#[path = "../../tests/common/redis/mod.rs"]
mod processes;

use std::time::Duration;

use holdfast_client::{Namespace, Raw};
use holdfast_proto::v1::kv_service_client::KvServiceClient;
use redis::{
    AsyncConnectionConfig, IntoConnectionInfo as _, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};

use super::{
    compare::{
        NAMESPACE, VALUE,
        callers::{Call, Figures, Redis, Subject, Typed, Unary, fill, in_turns},
        key_of,
    },
    measure::{Caller, calls_of, median, rounds},
    server::{self, Apart},
};
use processes::Proxy;

const CALLERS: [usize; 2] = [1, 64];

/// What a set writes: the entry, the order of the keys, and the log.
const SCRIPT: &str = "\
    redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) \
    redis.call('ZADD', KEYS[2], 0, ARGV[1]) \
    return redis.call('XADD', KEYS[3], '*', 'k', ARGV[1], 'r', ARGV[2])";

/// Prints the figures.
pub fn run() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime can be built");
    runtime.block_on(async {
        let Some(redis) = processes::Redis::start() else {
            println!("no `redis-server` on the path: it is skipped");
            return;
        };
        rates(&redis).await;
        shares(&redis).await;
    });
}

/// Gets and sets through Holdfast, and without it.
async fn rates(redis: &processes::Redis) {
    let server = Apart::start(&redis.url());
    let namespace = server::connect(&server.address).await.namespace(NAMESPACE);
    let namespace = namespace.with_codec(Raw::new());
    let kv = KvServiceClient::new(server::channel(&server.address).await);
    let connection = connect(redis).await;
    fill(Typed(namespace.clone(), Call::Set)).await;
    fill(Redis(connection.clone(), Call::Set)).await;
    let scripted = Scripted::new(connection.clone()).await;
    for callers in CALLERS {
        for call in [Call::Get, Call::Set] {
            let typed = Typed(namespace.clone(), call);
            let unary = Unary(kv.clone(), call);
            let plain = Redis(connection.clone(), call);
            let script = (call == Call::Set).then_some(&scripted as &dyn Subject);
            let subjects = [Some(&typed as &dyn Subject), Some(&unary), Some(&plain), script];
            let [typed, unary, plain, script] = in_turns(callers, subjects).await;
            println!("{}, {callers} callers", call.name());
            for (name, figures) in [("typed client", typed), ("unary calls", unary)] {
                tell(name, figures, [("plain command", plain), ("script", script)]);
            }
        }
    }
}

fn tell(name: &str, ours: Option<Figures>, others: [(&str, Option<Figures>); 2]) {
    let Some(ours) = ours else {
        return;
    };
    let Figures { rate, latency_us } = ours;
    println!("  {name}: {rate:.0}/s, {latency_us:.0} µs");
    for (other, figures) in others {
        if let Some(figures) = figures {
            let (rate, latency_us) = (figures.rate, figures.latency_us);
            let ratio = ours.rate / rate;
            println!("    {ratio:.2} of the {other}: {rate:.0}/s, {latency_us:.0} µs");
        }
    }
}

/// The script by the `redis` crate.
#[derive(Clone)]
struct Scripted(MultiplexedConnection, String);

impl Scripted {
    async fn new(mut connection: MultiplexedConnection) -> Self {
        let mut load = redis::cmd("SCRIPT");
        let sha: redis::RedisResult<String> =
            load.arg("LOAD").arg(SCRIPT).query_async(&mut connection).await;
        Self(connection, sha.expect("a script can be loaded"))
    }
}

impl Caller for Scripted {
    async fn call(&mut self, caller: usize, call: usize) {
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.1).arg(3).arg(&["entries", "order", "log"]);
        command.arg(key_of(caller, call)).arg(&VALUE[..]);
        let done: redis::RedisResult<String> = command.query_async(&mut self.0).await;
        done.expect("the script runs");
    }
}

/// Without delay in sending, which the crate would leave to the system.
async fn connect(redis: &processes::Redis) -> MultiplexedConnection {
    let info = redis.url().into_connection_info().expect("a good address");
    let tcp = TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(info.set_tcp_settings(tcp)).expect("a good address");
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    connected.expect("Redis is there")
}

/// Two and three servers that increment the same key, one of them with a millisecond more on its way to Redis.
async fn shares(redis: &processes::Redis) {
    const DELAY: Duration = Duration::from_millis(1);
    const CALLERS: usize = 16;
    for servers in [2, 3] {
        let mut proxies = Vec::new();
        let mut callers = Vec::new();
        for _ in 0..servers {
            let proxy = Proxy::to(&redis.address()).await;
            let server = Apart::start(&format!("redis://{}", proxy.address));
            let client = server::connect(&server.address).await;
            callers.push(Hot(client.namespace(format!("hot-{servers}"))));
            proxies.push((proxy, server));
        }
        proxies[0].0.delay(DELAY);
        let mut shares = vec![Vec::new(); servers];
        let mut rates = Vec::new();
        for _ in 0..rounds() {
            let all = callers.iter().map(|caller| calls_of(CALLERS, caller));
            let calls = futures::future::join_all(all).await;
            let sum: f64 = calls.iter().map(|calls| calls.rate).sum();
            rates.push(sum);
            for (shares, calls) in shares.iter_mut().zip(calls) {
                shares.push(calls.rate / sum);
            }
        }
        let shares: Vec<_> =
            shares.into_iter().map(|share| format!("{:.2}", median(share))).collect();
        println!(
            "one hot key, {servers} servers with {CALLERS} callers each: {:.0}/s, shares {}; the first has \
             {DELAY:?} more to Redis",
            median(rates),
            shares.join(" "),
        );
    }
}

/// Increments one key.
#[derive(Clone)]
struct Hot(Namespace);

impl Caller for Hot {
    async fn call(&mut self, _: usize, _: usize) {
        self.0.increment("n", 1).await.expect("it comes through");
    }
}
