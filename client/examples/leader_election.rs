//! Leader election: of several processes one does the work, and when it goes another takes over.
//!
//! ```sh
//! cargo run -p holdfast-client --example leader_election -- [ADDRESS]
//! ```
//!
//! - Everybody campaigns; the first is elected, the others wait in line, and the next is elected as soon as the
//!   leader resigns, at the latest when its TTL is over without a sign of it.
//! - A leader that was paused may not know yet that it leads no longer. What it writes therefore names its hold, by a
//!   **guard**: it is applied only if that very hold is current at the commit.
//! - Whoever wants to know who leads, to send it requests, observes the election.

use std::{env, time::Duration};

use futures::StreamExt as _;
use holdfast_client::{Client, Election, Error, Guard, LeaderStream, Leadership, Namespace};

/// One process that wants to lead.
struct Candidate {
    namespace: Namespace,
    election: Election,
    address: String,
}

impl Candidate {
    /// A candidate who can be reached at this address.
    fn new(client: &Client, namespace: &str, address: &str) -> Self {
        let namespace = client.namespace(namespace);
        // For as long as nobody takes over after a leader has died without a word. Shorter is faster, but a leader that
        // is slow to say that it lives is deposed sooner.
        let election = namespace.election("scheduler").ttl(Duration::from_secs(5));
        Self { namespace, election, address: address.to_owned() }
    }

    /// Waits to be elected, and leads until `work` is done or the leadership is lost; answers whether the work was
    /// done.
    async fn lead_once(
        &self,
        work: impl AsyncFnOnce(&Namespace, &Leadership) -> Result<(), Error>,
    ) -> Result<bool, Error> {
        let leadership = self.election.campaign(self.address.clone()).await?;
        let done = tokio::select! {
            // Known by this machine's own clock, before anybody else can be elected.
            _ = leadership.lost() => false,
            done = work(&self.namespace, &leadership) => match done {
                Ok(()) => true,
                // The same, found out by the server.
                Err(Error::LockLost { .. }) => false,
                Err(error) => return Err(error),
            },
        };
        leadership.resign().await?;
        Ok(done)
    }
}

/// Waits until somebody leads, and answers with the address that it shows.
async fn next_leader(leaders: &mut LeaderStream) -> Result<Option<String>, Error> {
    while let Some(leader) = leaders.next().await.transpose()? {
        if let Some(leader) = leader {
            return Ok(Some(String::from_utf8_lossy(&leader.value).into_owned()));
        }
    }
    Ok(None)
}

/// Two terms of office, and a leader of yesterday.
pub async fn run(client: Client, namespace: &str) -> Result<Vec<String>, Error> {
    let first = Candidate::new(&client, namespace, "10.0.0.1");
    let second = Candidate::new(&client, namespace, "10.0.0.2");
    let plans = client.namespace(namespace);
    let mut leaders = first.election.observe().await?;
    let mut log = Vec::new();

    let mut yesterday: Option<Guard> = None;
    let done = first
        .lead_once(async |plans, leadership| {
            plans.set("plan", "of the first").guard(leadership.hold()).await?;
            yesterday = Some(Guard::from(leadership.hold()));
            Ok(())
        })
        .await?;
    log.push(format!("the first has done its work: {done}"));
    log.push(format!("observed: {:?}", next_leader(&mut leaders).await?));

    let done = second
        .lead_once(async |plans, leadership| {
            plans.set("plan", "of the second").guard(leadership.hold()).await?;
            Ok(())
        })
        .await?;
    log.push(format!("the second has done its work: {done}"));
    log.push(format!("observed: {:?}", next_leader(&mut leaders).await?));

    // The first was only asleep, and goes on with what it was about to write.
    if let Some(guard) = yesterday {
        let refused = plans.set("plan", "of yesterday").guard(guard).await;
        log.push(format!(
            "who led yesterday is refused: {}",
            matches!(refused, Err(Error::LockLost { .. }))
        ));
    }
    let plan = plans.get::<String>("plan").await?.map(|entry| entry.value);
    log.push(format!("the plan is {plan:?}"));
    Ok(log)
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).or_else(|| env::var("HOLDFAST_ADDR").ok());
    let client = Client::connect(address.unwrap_or("127.0.0.1:4653".to_owned())).await?;
    for line in run(client, "example:leaders").await? {
        println!("{line}");
    }
    Ok(())
}
