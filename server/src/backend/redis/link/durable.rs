//! Commits that are answered once replicas have them.
//!
//! `WAIT` waits for what its own connection has written, and holds that connection up meanwhile: so these commits have
//! connections of their own, a few of them, each used by one at a time.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use redis::{Pipeline, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{
    Call,
    connection::{Connection, Failure, evalsha},
    node::Node,
};
use crate::backend::redis::url::{Address, Settings};

/// How many connections there may be to one server.
const CONNECTIONS: usize = 16;

/// Connections that are not used just now.
pub(super) struct Pool {
    idle: Mutex<Vec<Connection>>,
    room: Arc<Semaphore>,
}

/// A connection on loan. Dropped before it was answered on, it is closed, at Redis' end too.
pub(super) struct Lent {
    node: Arc<Node>,
    connection: Option<Connection>,
    _permit: OwnedSemaphorePermit,
}

impl Default for Pool {
    fn default() -> Self {
        Self { idle: Mutex::default(), room: Arc::new(Semaphore::new(CONNECTIONS)) }
    }
}

impl Pool {
    /// Waits for a connection that is free, or for the room to make one.
    pub(super) async fn lend(
        &self,
        settings: &Settings,
        node: &Arc<Node>,
        address: &Address,
    ) -> Result<Lent, String> {
        let permit = self.room.clone().acquire_owned().await;
        let permit = permit.map_err(|_| "is no longer used".to_owned())?;
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|connection| connection.address == *address && !connection.has_ended());
            idle.pop()
        };
        let connection = match idle {
            Some(connection) => connection,
            None => {
                let (login, ignore) = (&settings.login, Box::new(|_| {}));
                Connection::open(settings, login, settings.database, address, ignore).await?
            }
        };
        Ok(Lent { node: node.clone(), connection: Some(connection), _permit: permit })
    }

    fn take_back(&self, connection: Connection) {
        self.idle.lock().push(connection);
    }
}

impl Lent {
    /// Runs a script, and waits until as many replicas have what it wrote.
    pub(super) async fn run(
        mut self,
        call: &Call<'_>,
        asking: bool,
        (replicas, limit): (u32, Duration),
    ) -> Result<Value, Failure> {
        let Some(connection) = &self.connection else {
            return Err(Failure::Lost("the connection is gone".into()));
        };
        let mut pipeline = Pipeline::with_capacity(3);
        if asking {
            pipeline.add_command(redis::cmd("ASKING"));
        }
        pipeline.add_command(evalsha(call));
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        pipeline.cmd("WAIT").arg(replicas).arg(limit_ms);
        let answers = connection.pipeline(&pipeline).await;
        if answers.is_ok()
            && let Some(connection) = self.connection.take()
        {
            self.node.pool().take_back(connection);
        }
        let mut answers = answers?;
        let (waited, value) = (answers.pop(), answers.pop());
        let value = value.unwrap_or_else(|| Err(Failure::Lost("an answer is missing".into())))?;
        match waited {
            Some(Ok(Value::Int(reached))) if reached >= i64::from(replicas) => Ok(value),
            Some(Ok(Value::Int(reached))) => Err(Failure::Lost(format!(
                "{reached} of {replicas} replicas have confirmed it within {limit:?}; it would be lost in a failover \
                 to another"
            ))),
            Some(Err(failure)) => {
                Err(Failure::Lost(format!("replicas were not waited for: {failure}")))
            }
            _ => Err(Failure::Lost("replicas were not waited for".into())),
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.node.leave(&connection);
        }
    }
}
