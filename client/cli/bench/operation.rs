//! What callers do.

use std::{str::FromStr, sync::Arc, time::Instant};

use bytes::Bytes;
use holdfast_client::{Compare, Error, Namespace, Op, Raw};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use super::{args::BenchArgs, keys::Keys, watch::Epoch};

/// A kind of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Get,
    Set,
    Delete,
    Exists,
    Increment,
    List,
    Transaction,
    Lock,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Exists,
        Self::Increment,
        Self::List,
        Self::Transaction,
        Self::Lock,
    ];

    /// The name of the command that does the same.
    pub fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Set => "set",
            Self::Delete => "del",
            Self::Exists => "exists",
            Self::Increment => "incr",
            Self::List => "list",
            Self::Transaction => "txn",
            Self::Lock => "lock",
        }
    }
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.name() == name);
        found.or_else(|| (name == "delete").then_some(Self::Delete)).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            format!("there is no kind {name:?}; there are: {known}")
        })
    }
}

/// What one caller works with.
pub struct Caller {
    number: u64,
    namespace: Namespace<Raw>,
    keys: Keys,
    value: Bytes,
    random: StdRng,
    args: Arc<BenchArgs>,
    /// Since when times are counted in values; none unless they carry times.
    epoch: Option<Epoch>,
}

impl Caller {
    pub fn new(
        number: u64,
        namespace: Namespace<Raw>,
        keys: &Keys,
        args: &Arc<BenchArgs>,
        epoch: Option<Epoch>,
    ) -> Self {
        Self {
            number,
            namespace,
            keys: keys.clone(),
            value: value(args.value_size),
            random: StdRng::from_os_rng(),
            args: args.clone(),
            epoch,
        }
    }

    /// What to do next.
    pub fn pick(&mut self) -> Kind {
        self.args.mix.pick(&mut self.random)
    }

    /// Does it; it was due at a certain time.
    pub async fn run(&mut self, kind: Kind, due: Instant) -> Result<(), Error> {
        let number = self.keys.choose(&mut self.random);
        let key = self.keys.value(number);
        match kind {
            Kind::Get => self.namespace.get::<Bytes>(key).await.map(drop),
            Kind::Set => self.set(key, due).await,
            Kind::Delete => self.namespace.delete(key).await.map(drop),
            Kind::Exists => self.namespace.exists(key).await.map(drop),
            Kind::Increment => self.increment(number).await,
            Kind::List => self.list(number).await,
            Kind::Transaction => self.transact(key, number).await,
            Kind::Lock => self.lock().await,
        }
    }

    async fn set(&self, key: String, due: Instant) -> Result<(), Error> {
        let stamped = self.epoch.map(|epoch| epoch.stamp(&self.value, due));
        let mut set = self.namespace.set(key, stamped.as_ref().unwrap_or(&self.value));
        if let Some(ttl) = self.args.ttl {
            set = set.ttl(ttl);
        }
        set.await.map(drop)
    }

    async fn increment(&self, number: u64) -> Result<(), Error> {
        self.namespace.increment(self.keys.counter(number), 1).await.map(drop)
    }

    async fn list(&self, number: u64) -> Result<(), Error> {
        let list = self.namespace.list::<Bytes>(self.keys.from(number));
        list.page_size(self.args.page_size).page().await.map(drop)
    }

    /// If the key is there, counts and reads it.
    async fn transact(&self, key: String, number: u64) -> Result<(), Error> {
        let transaction = self
            .namespace
            .transaction()
            .compare(Compare::key(&key).exists())
            .then(Op::increment(self.keys.counter(number), 1))
            .then(Op::get(key));
        transaction.await.map(drop)
    }

    /// Takes a lock, waiting for it if need be, and gives it up.
    async fn lock(&mut self) -> Result<(), Error> {
        let number = match self.args.locks {
            Some(locks) => self.random.random_range(0..u64::from(locks)),
            None => self.number,
        };
        let hold = self.namespace.lock(self.keys.lock(number)).acquire().await?;
        hold.release().await.map(drop)
    }
}

/// A value of so many bytes.
pub fn value(bytes: u64) -> Bytes {
    vec![b'x'; usize::try_from(bytes).unwrap_or(usize::MAX)].into()
}
