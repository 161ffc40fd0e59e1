//! Keeps all leases of a client alive over one stream.

use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use holdfast_proto::v1::{self, keep_alive_response};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

pub(crate) use super::schedule::{Kept, Key};
use super::{LeaseLoss, schedule::Schedule};
use crate::{Error, error::Failure, life::Life, retry::Backoff, transport::Transport};

/// Where leases are handed in. The task behind it is started with the first of them, has no connection while
/// there are none, and ends with the client.
pub(crate) struct Keeper {
    transport: Arc<Transport>,
    orders: Mutex<Option<mpsc::UnboundedSender<Order>>>,
}

enum Order {
    Keep(Kept),
    Forget(Key, Arc<Life<LeaseLoss>>),
}

impl Keeper {
    pub(crate) fn new(transport: Arc<Transport>) -> Self {
        Self { transport, orders: Mutex::default() }
    }

    /// Keeps a lease alive from now on. Must be called within a Tokio runtime.
    pub(super) fn keep(&self, kept: Kept) {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        let order = Order::Keep(kept);
        let order = match &*orders {
            None => order,
            Some(task) => match task.send(order) {
                Ok(()) => return,
                // The runtime that it ran on is gone.
                Err(returned) => returned.0,
            },
        };
        let (task, received) = mpsc::unbounded_channel();
        tokio::spawn(keep_alive(Arc::clone(&self.transport), received));
        // The other end was just handed to the task; if that is gone already, so is the runtime.
        let _ = task.send(order);
        *orders = Some(task);
    }

    /// Keeps a lease alive no longer, unless another of the same key has come after the one of this life.
    pub(super) fn forget(&self, key: Key, life: Arc<Life<LeaseLoss>>) {
        let orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = &*orders {
            // Where nobody listens any more, nothing is kept alive.
            let _ = task.send(Order::Forget(key, life));
        }
    }
}

type Orders = mpsc::UnboundedReceiver<Order>;

async fn keep_alive(transport: Arc<Transport>, mut orders: Orders) {
    let mut schedule = Schedule::default();
    let mut backoff = Backoff::for_calls();
    loop {
        if schedule.is_empty() {
            backoff = Backoff::for_calls();
            match orders.recv().await {
                Some(order) => obey(&mut schedule, order),
                None => return,
            }
            continue;
        }
        match over_one_connection(&transport, &mut schedule, &mut orders, &mut backoff).await {
            End::ClientGone => return,
            End::NothingLeft => {}
            End::Broken(wait) => {
                schedule.disconnected(Instant::now());
                let again = Instant::now() + backoff.wait(wait);
                if !obey_until(again, &mut schedule, &mut orders).await {
                    return;
                }
            }
        }
    }
}

/// How it ended with a connection.
enum End {
    ClientGone,
    NothingLeft,
    /// It is of no use any more; the server may have said when to come back.
    Broken(Option<Duration>),
}

/// Keeps leases alive over one connection, which is made when the first is due.
async fn over_one_connection(
    transport: &Transport,
    schedule: &mut Schedule,
    orders: &mut Orders,
    backoff: &mut Backoff,
) -> End {
    while let Some(next) = schedule.next()
        && next > Instant::now()
    {
        if !obey_until(next, schedule, orders).await {
            return End::ClientGone;
        }
    }
    if schedule.is_empty() {
        return End::NothingLeft;
    }
    let (requests, outgoing) = futures::channel::mpsc::unbounded();
    // Some servers do not answer before they are asked.
    ask(transport, schedule, &requests);
    let endpoint = transport.endpoint();
    // To open it is a part of waiting for the first answer, and may not take longer than that.
    let opening = stream::once(transport.keep_alive(outgoing));
    let mut messages = pin!(opening.map_ok(|opened| opened.messages).try_flatten());
    loop {
        let Some(next) = schedule.next() else {
            return End::NothingLeft;
        };
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(schedule, order),
                None => return End::ClientGone,
            },
            message = messages.next() => match message {
                Some(Ok(message)) => {
                    if let Some(refused) = take(schedule, message) {
                        transport.note(endpoint, &refused);
                        if transport.endpoint() != endpoint {
                            return End::Broken(None);
                        }
                    }
                    *backoff = Backoff::for_calls();
                }
                Some(Err(failure)) => {
                    transport.note(endpoint, &failure);
                    return End::Broken(failure.error.retry_after());
                }
                None => return End::Broken(None),
            },
            () = sleep_until(next) => {
                if !ask(transport, schedule, &requests) {
                    transport.avoid(endpoint);
                    return End::Broken(None);
                }
            }
        }
    }
}

/// Asks for what is due to be kept alive. False: an answer is overdue, so the connection must be dead.
fn ask(
    transport: &Transport,
    schedule: &mut Schedule,
    requests: &futures::channel::mpsc::UnboundedSender<v1::KeepAliveRequest>,
) -> bool {
    let due = schedule.take_due(Instant::now(), transport.timeout());
    for (namespace, lease_id) in due.leases {
        // If nobody reads it any more, that comes to light as a broken connection.
        let _ = requests.unbounded_send(v1::KeepAliveRequest { namespace, lease_id });
    }
    !due.overdue
}

/// Takes what became of a lease; answers with why it could not be kept alive, if it perhaps can be later. A server whose
/// backend is away tells so here, lease by lease, and does not end the stream.
fn take(schedule: &mut Schedule, message: v1::KeepAliveResponse) -> Option<Failure> {
    let key = (message.namespace, message.lease_id);
    match message.result {
        Some(keep_alive_response::Result::Lease(lease)) => {
            schedule.acknowledged(&key, Duration::from_millis(lease.ttl_ms));
            None
        }
        Some(keep_alive_response::Result::Status(status)) => {
            let failure = Failure::from_wire(status);
            if matches!(failure.error, Error::LeaseNotFound { .. }) {
                schedule.ended(&key);
                return None;
            }
            schedule.refused(&key, Instant::now());
            Some(failure)
        }
        // What a newer server says that this client does not know.
        None => {
            schedule.refused(&key, Instant::now());
            None
        }
    }
}

/// Takes orders until then. False: the client is gone.
async fn obey_until(then: Instant, schedule: &mut Schedule, orders: &mut Orders) -> bool {
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(order) => obey(schedule, order),
                None => return false,
            },
            () = sleep_until(then) => return true,
        }
    }
}

fn obey(schedule: &mut Schedule, order: Order) {
    match order {
        Order::Keep(kept) => schedule.keep(kept),
        Order::Forget(key, life) => schedule.forget(&key, &life),
    }
}
