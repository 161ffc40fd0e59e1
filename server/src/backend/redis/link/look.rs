//! Several commands that only read, in one step, without a script.

use std::sync::atomic::Ordering;

use redis::{Cmd, Pipeline, Value};
use tokio::time::timeout;
use tracing::debug;

use super::{Link, LinkError, Sent, connection::Failure, refusal::Refusal};

impl Link {
    /// Runs commands that change nothing, all on keys of the slot of this one, as one step that nothing comes between:
    /// cheaper than a script that calls them. Nothing where that is refused, or the answer was lost: a script is told why.
    pub(in crate::backend::redis) async fn look(
        &self,
        key: &[u8],
        commands: impl IntoIterator<Item = Cmd>,
    ) -> Result<Option<Vec<Value>>, LinkError> {
        let node = self.route.owner(key).filter(|_| !self.steps_refused.load(Ordering::Relaxed));
        let Some(node) = node else {
            return Ok(None);
        };
        let connection = self.route.connection(&node).await?;
        let mut pipeline = Pipeline::with_capacity(8);
        pipeline.cmd("MULTI");
        for command in commands {
            pipeline.add_command(command);
        }
        pipeline.cmd("EXEC");
        let limit = self.context.settings.command_timeout;
        let Ok(answers) = timeout(limit, connection.pipeline(&pipeline)).await else {
            return Err(Sent::Shared(node, connection).overdue(limit));
        };
        let Ok(mut answers) = answers else {
            return Ok(None);
        };
        let is_forbidden = |answer: &Result<Value, Failure>| {
            matches!(answer, Err(Failure::Refused(Refusal::Unavailable(_))))
        };
        if answers.iter().any(is_forbidden) {
            debug!("Redis at {} lets this user not look in one step", connection.address);
            self.steps_refused.store(true, Ordering::Relaxed);
        }
        match answers.pop() {
            Some(Ok(Value::Array(parts))) if !parts.iter().any(is_error) => Ok(Some(parts)),
            _ => Ok(None),
        }
    }
}

fn is_error(value: &Value) -> bool {
    matches!(value, Value::ServerError(_))
}
