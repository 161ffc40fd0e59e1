//! A session store: sessions that end when nobody uses them, and who is told when they do.
//!
//! ```sh
//! cargo run -p holdfast-client --example session_store -- [ADDRESS]
//! ```
//!
//! - A session is a key with a TTL, which every visit sets anew: by `touch`, one step for reading and prolonging.
//! - Its id is a secret. It is random, and made only if it is not there yet.
//! - What changes a session compares first, so that two requests at the same time do not undo each other.
//! - Signing out deletes the key. All others end by themselves, and the server tells that with the last value: the
//!   place for what must happen then, like putting back what was in a cart.

use std::{env, time::Duration};

use futures::StreamExt as _;
use holdfast_client::{Client, Error, Expiry, Namespace, Selector, WatchItem, WatchStream};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

/// What is known of somebody who has signed in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    user: String,
    cart: Vec<String>,
}

/// The sessions of a shop.
#[derive(Clone)]
struct Sessions {
    namespace: Namespace,
    idle: Duration,
}

impl Sessions {
    /// Sessions that end when they have not been used for so long.
    fn new(client: &Client, namespace: &str, idle: Duration) -> Self {
        Self { namespace: client.namespace(namespace), idle }
    }

    /// Begins a session; answers with its id, for a cookie.
    async fn sign_in(&self, user: &str) -> Result<String, Error> {
        let id = format!("{:032x}", rand::rng().random::<u128>());
        let session = Session { user: user.to_owned(), cart: Vec::new() };
        self.namespace.set(key(&id), &session).ttl(self.idle).if_absent().await?;
        Ok(id)
    }

    /// The session of a request, which has another full span to live now; none if it has ended.
    async fn visit(&self, id: &str) -> Result<Option<Session>, Error> {
        let entry = self.namespace.get::<Session>(key(id)).touch(self.idle).await?;
        Ok(entry.map(|entry| entry.value))
    }

    /// Puts something into the cart; answers whether the session still lives.
    async fn put_into_cart(&self, id: &str, item: &str) -> Result<bool, Error> {
        let committed = self
            .namespace
            .transact(async |tx| {
                let Some(mut session) = tx.get::<Session>(key(id)).await? else {
                    return Ok(false);
                };
                session.cart.push(item.to_owned());
                tx.set_expiring(key(id), &session, Expiry::Ttl(self.idle))?;
                Ok(true)
            })
            .await?;
        Ok(committed.value)
    }

    /// Ends a session; answers whether it was there.
    async fn sign_out(&self, id: &str) -> Result<bool, Error> {
        Ok(self.namespace.delete(key(id)).await?.deleted)
    }

    /// Ends all sessions of somebody, say, because of a new password; answers how many there were.
    async fn sign_out_everywhere(&self, user: &str) -> Result<usize, Error> {
        let mut sessions = self.namespace.list::<Session>(Selector::prefix("session:")).stream();
        let mut ended = 0;
        while let Some(session) = sessions.next().await.transpose()? {
            if session.value.user == user {
                ended += usize::from(self.namespace.delete(session.key()).await?.deleted);
            }
        }
        Ok(ended)
    }

    /// The sessions that end by themselves from now on. Who must not miss any keeps the cursor of the watch, and goes
    /// on after it when the program starts again.
    async fn abandoned(&self) -> Result<WatchStream<Session>, Error> {
        self.namespace.watch(Selector::prefix("session:")).expiries().await
    }
}

/// Waits for the next session that has ended.
async fn next_abandoned(abandoned: &mut WatchStream<Session>) -> Result<Option<Session>, Error> {
    while let Some(item) = abandoned.next().await.transpose()? {
        if let WatchItem::Event(event) = item {
            return Ok(event.previous.map(|entry| entry.value));
        }
    }
    Ok(None)
}

fn key(id: &str) -> String {
    format!("session:{id}")
}

/// Two users sign in; one signs out, the other walks away.
pub async fn run(client: Client, namespace: &str) -> Result<Vec<String>, Error> {
    let sessions = Sessions::new(&client, namespace, Duration::from_secs(3));
    let mut abandoned = sessions.abandoned().await?;
    let mut log = Vec::new();

    let ann = sessions.sign_in("ann").await?;
    let bob = sessions.sign_in("bob").await?;
    // Three requests of one browser at the same time: none of them is lost.
    let (apples, pears, plums) = tokio::join!(
        sessions.put_into_cart(&bob, "apples"),
        sessions.put_into_cart(&bob, "pears"),
        sessions.put_into_cart(&bob, "plums"),
    );
    log.push(format!("bob's cart has all three: {}", apples? && pears? && plums?));

    let visited = sessions.visit(&ann).await?.map(|session| session.user);
    log.push(format!("who comes with ann's cookie: {visited:?}"));
    log.push(format!("ann signs out: {}", sessions.sign_out(&ann).await?));
    log.push(format!("who comes with it now: {:?}", sessions.visit(&ann).await?));

    sessions.sign_in("carl").await?;
    sessions.sign_in("carl").await?;
    log.push(format!("sessions of carl that end: {}", sessions.sign_out_everywhere("carl").await?));

    // Nobody hears of bob again. His session ends, and the watch tells what was in it.
    if let Some(mut left) = next_abandoned(&mut abandoned).await? {
        left.cart.sort();
        log.push(format!("{} went away and left {:?}", left.user, left.cart));
    }
    log.push(format!("bob is still there: {}", sessions.visit(&bob).await?.is_some()));
    Ok(log)
}

#[tokio::main]
#[allow(clippy::print_stdout, reason = "it shows what it does")]
async fn main() -> Result<(), Error> {
    let address = env::args().nth(1).or_else(|| env::var("HOLDFAST_ADDR").ok());
    let client = Client::connect(address.unwrap_or("127.0.0.1:4653".to_owned())).await?;
    for line in run(client, "example:sessions").await? {
        println!("{line}");
    }
    Ok(())
}
