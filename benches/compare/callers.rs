//! Callers of all that is compared, and how they are measured in turns.

use bytes::Bytes;
use futures::{StreamExt as _, future::BoxFuture, stream};
use holdfast_client::{Acquired, Namespace, Raw};
use holdfast_proto::v1::{GetRequest, SetRequest, kv_service_client::KvServiceClient};
use redis::aio::MultiplexedConnection;
use tonic::transport::Channel;

use super::{
    KEYS, NAMESPACE, VALUE, key_of,
    measure::{Caller, Calls, calls_of, median, rounds},
    peer::{echo, etcd, redis as peer_redis},
};

/// How many calls are under way at once where each is to be made once.
const AT_ONCE: usize = 64;

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Get,
    Set,
}

impl Call {
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
        }
    }
}

/// What can be measured.
pub trait Subject: Send + Sync {
    fn measure(&self, callers: usize) -> BoxFuture<'_, Calls>;
}

impl<C: Caller + Sync> Subject for C {
    fn measure(&self, callers: usize) -> BoxFuture<'_, Calls> {
        Box::pin(calls_of(callers, self))
    }
}

/// The medians of all rounds.
#[derive(Clone, Copy, Debug)]
pub struct Figures {
    /// Calls a second.
    pub rate: f64,
    /// What a call takes, in microseconds.
    pub latency_us: f64,
}

/// Measures all that are there, one after the other, again and again.
pub async fn in_turns<const N: usize>(
    callers: usize,
    subjects: [Option<&dyn Subject>; N],
) -> [Option<Figures>; N] {
    let mut rates = [const { Vec::new() }; N];
    let mut latencies_us = [const { Vec::new() }; N];
    for _ in 0..rounds() {
        for (index, subject) in subjects.iter().enumerate() {
            if let Some(subject) = subject {
                let calls = subject.measure(callers).await;
                rates[index].push(calls.rate);
                latencies_us[index].push(median(calls.latencies_us));
            }
        }
    }
    std::array::from_fn(|index| {
        let _there = subjects[index]?;
        let [rate, latency_us] = [&rates, &latencies_us].map(|of| median(of[index].clone()));
        Some(Figures { rate, latency_us })
    })
}

/// The typed client.
#[derive(Clone)]
pub struct Typed(pub Namespace<Raw>, pub Call);

impl Caller for Typed {
    async fn call(&mut self, caller: usize, call: usize) {
        let Self(namespace, what) = self;
        let key = key_of(caller, call);
        match what {
            Call::Get => {
                let entry = namespace.get::<Bytes>(key).await.expect("a get succeeds");
                assert_eq!(entry.expect("the key is there").value.len(), VALUE.len());
            }
            Call::Set => drop(namespace.set(key, &VALUE).await.expect("a set succeeds")),
        }
    }
}

/// Unary calls, as other languages make them.
#[derive(Clone)]
pub struct Unary(pub KvServiceClient<Channel>, pub Call);

impl Caller for Unary {
    async fn call(&mut self, caller: usize, call: usize) {
        let Self(kv, what) = self;
        let (namespace, key) = (NAMESPACE.into(), key_of(caller, call));
        match what {
            Call::Get => {
                let request = GetRequest { namespace, key, ..GetRequest::default() };
                let answer = kv.get(request).await.expect("a get succeeds").into_inner();
                let value = answer.entry.and_then(|entry| entry.value);
                assert_eq!(value.expect("the key is there").len(), VALUE.len());
            }
            Call::Set => {
                let value = Bytes::from_static(&VALUE);
                let request = SetRequest { namespace, key, value, ..SetRequest::default() };
                kv.set(request).await.expect("a set succeeds");
            }
        }
    }
}

impl Caller for echo::Client {
    async fn call(&mut self, _: usize, _: usize) {
        let answer = echo::Client::call(self, Bytes::from_static(&VALUE)).await;
        assert_eq!(answer.len(), VALUE.len());
    }
}

/// Redis by way of its crate.
#[derive(Clone)]
pub struct Redis(pub MultiplexedConnection, pub Call);

impl Caller for Redis {
    async fn call(&mut self, caller: usize, call: usize) {
        let Self(connection, what) = self;
        let key = key_of(caller, call);
        match what {
            Call::Get => {
                assert_eq!(peer_redis::get(connection, key).await.len(), VALUE.len());
            }
            Call::Set => peer_redis::set(connection, key, &VALUE).await,
        }
    }
}

/// etcd, its gets serializable.
#[derive(Clone)]
pub struct Etcd(pub etcd::Client, pub Call);

impl Caller for Etcd {
    async fn call(&mut self, caller: usize, call: usize) {
        let Self(client, what) = self;
        let key = key_of(caller, call);
        match what {
            Call::Get => assert_eq!(client.get_serializable(key).await.len(), VALUE.len()),
            Call::Set => client.put(key, Bytes::from_static(&VALUE)).await,
        }
    }
}

/// Locks of the typed client, each caller with one of its own: taken and given up.
#[derive(Clone)]
pub struct TypedLocks(pub Namespace<Raw>);

impl Caller for TypedLocks {
    async fn call(&mut self, caller: usize, _: usize) {
        let acquire = self.0.lock(format!("lock:{caller}")).try_acquire();
        let Acquired::Held(hold) = acquire.await.expect("a lock can be asked for") else {
            panic!("nobody else wants the lock");
        };
        assert!(hold.release().await.expect("a lock can be given up"), "it was held until now");
    }
}

/// Locks of etcd, the same way, held by one lease.
#[derive(Clone)]
pub struct EtcdLocks(pub etcd::Client, pub i64);

impl Caller for EtcdLocks {
    async fn call(&mut self, caller: usize, _: usize) {
        self.0.lock_and_unlock(format!("lock:{caller}"), self.1).await;
    }
}

/// Sets every key, so that gets find something.
pub async fn fill(caller: impl Caller) {
    call_each(&caller, KEYS).await;
}

/// Makes so many calls, each with a number of its own, several at once.
pub async fn call_each(caller: &impl Caller, calls: usize) {
    let calls = stream::iter(0..calls).map(|number| {
        let mut caller = caller.clone();
        async move { caller.call(number, 0).await }
    });
    calls.buffer_unordered(AT_ONCE).collect::<()>().await;
}
