//! A job queue: each job is done by one worker at a time, and its completion is recorded once, whoever dies on the way.
//!
//! ```sh
//! cargo run -p holdfast-client --example job_queue -- [ADDRESS]
//! ```
//!
//! | key | what it is |
//! | --- | --- |
//! | `job:N` | A job to be done, in the order of their numbers |
//! | `claim:N` | Who is at it; has the lease of that worker, so it goes when the worker does |
//! | `done:N` | What came of it |
//!
//! - A worker takes a job by a transaction that makes the claim if there is none. The revision of the claim is its
//!   **fencing token**: if the worker is taken for dead and another gets the job, that claim has a higher one.
//! - Completion is one transaction: only if the claim is still that very one, remove job and claim, and write the
//!   result. A worker that comes back too late is refused. So each result is written exactly once. The *work* itself
//!   may have been begun more than once, as with every queue: what it does elsewhere has to bear that, or check the
//!   token.
//! - Nobody polls: idle workers follow jobs and claims by a watch, which stands before they look for one.

use std::{
    collections::{BTreeMap, HashSet},
    env,
    time::Duration,
};

use futures::{FutureExt as _, StreamExt as _, future::try_join_all};
use holdfast_client::{
    Client, Compare, Error, EventType, Lease, Namespace, Op, Revision, Selector, WatchStream,
};
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Job {
    square_of: u64,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Done {
    result: u64,
    by: String,
}

/// A job that a worker has taken.
#[derive(Debug)]
struct Claim {
    job: Job,
    number: String,
    /// The revision of the claim: rises each time that the job is taken.
    token: Revision,
}

/// A queue of jobs.
#[derive(Clone)]
struct Queue {
    namespace: Namespace,
}

impl Queue {
    /// The queue in this namespace.
    fn new(client: &Client, namespace: &str) -> Self {
        Self { namespace: client.namespace(namespace) }
    }

    /// Adds a job at the end.
    async fn add(&self, job: &Job) -> Result<(), Error> {
        let number = self.namespace.increment("last", 1).await?;
        // Zeros in front, so that the order of the keys is that of the numbers.
        self.namespace.set(format!("job:{number:019}"), job).await?;
        Ok(())
    }

    /// A worker, which is taken for dead when nothing was heard of it for so long.
    async fn worker(&self, name: &str, patience: Duration) -> Result<Worker, Error> {
        // Where it cannot go on, after a long absence, it begins anew: as good a reason to look.
        let news = self.namespace.watch_keys(Selector::prefix("job:"));
        let news = news.also(Selector::prefix("claim:")).or_initial();
        let news = news.types([EventType::Set, EventType::Deleted, EventType::Expired]).await?;
        let lease = self.namespace.grant_lease(patience).await?;
        Ok(Worker { queue: self.clone(), name: name.to_owned(), news, patience, lease })
    }

    /// All that is done.
    async fn done(&self) -> Result<BTreeMap<String, Done>, Error> {
        let done = self.namespace.list::<Done>(Selector::prefix("done:")).all().await?;
        Ok(done.into_iter().map(|entry| (entry.key().to_owned(), entry.value)).collect())
    }
}

/// Takes jobs and does them.
struct Worker {
    queue: Queue,
    name: String,
    /// Tells of jobs that have come or are free again.
    news: WatchStream<()>,
    patience: Duration,
    /// Kept alive in the background for as long as this is.
    lease: Lease,
}

impl Worker {
    /// Takes the first job that nobody is at; waits while others are at all that is left. `None`: all is done.
    async fn take(&mut self) -> Result<Option<Claim>, Error> {
        loop {
            // What was told before the look is seen by it, and what happens after it wakes this up.
            while let Some(Some(told)) = self.news.next().now_or_never() {
                told?;
            }
            let namespace = self.queue.namespace.clone();
            let jobs = namespace.list::<Job>(Selector::prefix("job:")).all().await?;
            if jobs.is_empty() {
                return Ok(None);
            }
            let claims = namespace.list_keys(Selector::prefix("claim:")).all().await?;
            let claimed: HashSet<&str> =
                claims.iter().map(|claim| claim.key().trim_start_matches("claim:")).collect();
            for job in jobs {
                let number = job.key().trim_start_matches("job:").to_owned();
                if claimed.contains(&*number) {
                    continue;
                }
                // Another may have been faster; then it is the next job's turn.
                if let Some(token) = self.claim(&number).await? {
                    return Ok(Some(Claim { job: job.value, number, token }));
                }
            }
            self.news.next().await.transpose()?;
        }
    }

    /// Claims a job if nobody else has, and it is still to be done.
    async fn claim(&mut self, number: &str) -> Result<Option<Revision>, Error> {
        loop {
            let (job, claim) = (format!("job:{number}"), format!("claim:{number}"));
            let claimed = self
                .queue
                .namespace
                .transaction()
                .compare(Compare::key(job).exists())
                .compare(Compare::key(&claim).missing())
                .then(Op::set(&claim, &self.name).lease(&self.lease))
                .await;
            match claimed {
                Ok(outcome) => {
                    return Ok(outcome.succeeded.then_some(outcome.header.revision));
                }
                // This worker was taken for dead, by a pause or a cut: it begins a new life.
                Err(Error::LeaseNotFound { .. }) => {
                    self.lease = self.queue.namespace.grant_lease(self.patience).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Records what came of a job. False: another has the job by now, or has done it, and this result counts for
    /// nothing.
    async fn complete(&self, claim: Claim, result: u64) -> Result<bool, Error> {
        let Claim { number, token, .. } = claim;
        let done = Done { result, by: self.name.clone() };
        let key = format!("claim:{number}");
        let outcome = self
            .queue
            .namespace
            .transaction()
            .compare(Compare::key(&key).mod_revision().equal_to(token))
            .then(Op::set(format!("done:{number}"), &done))
            .then(Op::delete(format!("job:{number}")))
            .then(Op::delete(key))
            .await?;
        Ok(outcome.succeeded)
    }

    /// Takes jobs and does them until none is left; answers how many that were.
    async fn work(mut self) -> Result<usize, Error> {
        let mut completed = 0;
        while let Some(claim) = self.take().await? {
            let result = claim.job.square_of.pow(2);
            completed += usize::from(self.complete(claim, result).await?);
        }
        Ok(completed)
    }

    /// As if the machine were switched off: the lease is not kept alive any more.
    fn crash(self) {
        self.lease.detach();
    }
}

/// Twenty jobs and four workers, of which one dies with a job in its hands and another comes back too late.
pub async fn run(client: Client, namespace: &str) -> Result<Vec<String>, Error> {
    const JOBS: u64 = 20;
    let queue = Queue::new(&client, namespace);
    let patience = Duration::from_secs(1);
    let mut log = Vec::new();
    for number in 1..=JOBS {
        queue.add(&Job { square_of: number }).await?;
    }

    // One takes the first job and is never heard of again.
    let mut mortal = queue.worker("mortal", patience).await?;
    let first = mortal.take().await?.map(|claim| claim.job.square_of);
    mortal.crash();
    log.push(format!("mortal dies with the job of {first:?}"));

    // One takes the second, and is cut off so long that it is taken for dead.
    let mut late = queue.worker("late", patience).await?;
    let second = late.take().await?;
    client.namespace(namespace).revoke_lease(&late.lease).await?;

    let workers = ["one", "two", "three"]
        .map(|name| async { queue.worker(name, Duration::from_secs(10)).await?.work().await });
    let completed = try_join_all(workers).await?;
    log.push(format!("the others complete {} jobs", completed.iter().sum::<usize>()));

    if let Some(claim) = second {
        let counts = late.complete(claim, 0).await?;
        log.push(format!("what comes from late counts: {counts}"));
    }
    let done = queue.done().await?;
    let sum: u64 = done.values().map(|done| done.result).sum();
    log.push(format!("{} results, which add up to {sum}", done.len()));
    Ok(log)
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).or_else(|| env::var("HOLDFAST_ADDR").ok());
    let client = Client::connect(address.unwrap_or("127.0.0.1:4653".to_owned())).await?;
    for line in run(client, "example:jobs").await? {
        println!("{line}");
    }
    Ok(())
}
