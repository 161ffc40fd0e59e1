//! Two rate limiters that many servers share: a window, and a bucket.
//!
//! ```sh
//! cargo run -p holdfast-client --example rate_limiter -- [ADDRESS]
//! ```
//!
//! - The **window** admits so many calls from the first one on until its span is over. It costs one call, an increment
//!   that sets a TTL where it makes the counter, and lets up to twice its limit through around the end of a window.
//! - The **bucket** admits a burst, and then one call each interval, evenly. It reads, decides, and writes if nobody
//!   else has written meanwhile. It stores a single time: when the bucket will be full again.
//!
//! Both go by the clock of the store, so that the servers that ask need not agree on the time, and both keep nothing
//! of who has not come for a while.

use std::{env, time::Duration};

use futures::future::try_join_all;
use holdfast_client::{Client, Error, Namespace, Ttl};

/// What a limiter says to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Go ahead.
    Admitted,
    /// Not before so much time has passed.
    Refused { retry_after: Duration },
}

/// So many calls in each window.
struct Window {
    namespace: Namespace,
    limit: i64,
    span: Duration,
}

impl Window {
    /// Asks for one call.
    async fn ask(&self, who: &str) -> Result<Decision, Error> {
        let key = format!("window:{who}");
        // The TTL counts for the call that makes the counter: the window begins with it.
        let calls = self.namespace.increment(&key, 1).ttl(self.span).await?;
        if calls <= self.limit {
            return Ok(Decision::Admitted);
        }
        let retry_after = match self.namespace.ttl(&key).await? {
            Ttl::Remaining(rest) => rest,
            Ttl::Missing | Ttl::Never => Duration::ZERO,
        };
        Ok(Decision::Refused { retry_after })
    }
}

/// A burst, and then one call each interval.
struct Bucket {
    namespace: Namespace,
    burst: u32,
    interval: Duration,
}

impl Bucket {
    /// Asks for one call.
    async fn ask(&self, who: &str) -> Result<Decision, Error> {
        let key = format!("bucket:{who}");
        let room = self.interval * self.burst;
        loop {
            // The answer brings the time of the store along.
            let read = self.namespace.get::<i64>(&key).with_header().await?;
            let now = read.header.time.as_millis();
            // When the bucket is full again, in milliseconds: who is not known has a full one.
            let full_at = read.value.as_ref().map_or(now, |entry| entry.value.max(now));
            let next_full_at = full_at + self.interval.as_millis() as i64;
            let wait = next_full_at - (now + room.as_millis() as i64);
            if wait > 0 {
                return Ok(Decision::Refused { retry_after: Duration::from_millis(wait as u64) });
            }
            // A full bucket need not be kept.
            let rest = Duration::from_millis((next_full_at - now) as u64);
            let write = self.namespace.set(&key, &next_full_at).ttl(rest);
            let write = match &read.value {
                Some(entry) => write.if_revision(entry.mod_revision()),
                None => write.if_absent(),
            };
            match write.await {
                Ok(_) => return Ok(Decision::Admitted),
                // Another call was faster: decide anew. One of them gets through each time, so this ends at the latest
                // when the bucket is empty.
                Err(Error::ConditionNotMet { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Many calls at once, from whichever server: exactly as many are admitted as may be.
pub async fn run(client: Client, namespace: &str) -> Result<Vec<String>, Error> {
    let namespace = client.namespace(namespace);
    let (minute, hour) = (Duration::from_secs(60), Duration::from_secs(3_600));
    let window = Window { namespace: namespace.clone(), limit: 10, span: hour };
    let bucket = Bucket { namespace: namespace.clone(), burst: 5, interval: minute };
    let mut log = Vec::new();

    let decisions = try_join_all((0..50).map(|_| window.ask("ann"))).await?;
    log.push(format!("the window admits {} of {}", admitted(&decisions), decisions.len()));
    log.push(format!("and somebody else: {:?}", window.ask("bob").await?));

    let decisions = try_join_all((0..50).map(|_| bucket.ask("ann"))).await?;
    log.push(format!("the bucket admits {} of {}", admitted(&decisions), decisions.len()));
    if let Decision::Refused { retry_after } = bucket.ask("ann").await? {
        log.push(format!("the next within its interval: {}", retry_after <= minute));
    }

    // What was drawn comes back with time: here after a tenth of a second.
    let quick = Bucket { namespace, burst: 1, interval: Duration::from_millis(100) };
    let mut admitted = 0;
    while admitted < 3 {
        match quick.ask("carl").await? {
            Decision::Admitted => admitted += 1,
            Decision::Refused { retry_after } => tokio::time::sleep(retry_after).await,
        }
    }
    log.push(format!("who waits as told gets through: {admitted} times"));
    Ok(log)
}

fn admitted(decisions: &[Decision]) -> usize {
    decisions.iter().filter(|decision| **decision == Decision::Admitted).count()
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).or_else(|| env::var("HOLDFAST_ADDR").ok());
    let client = Client::connect(address.unwrap_or("127.0.0.1:4653".to_owned())).await?;
    for line in run(client, "example:limits").await? {
        println!("{line}");
    }
    Ok(())
}
