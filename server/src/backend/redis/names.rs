//! The names of all namespaces.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Core,
    answer::{Parts, bytes, strange},
    lane::{Answer, Lane, read_error},
    link::Call,
};
use crate::backend::{BackendError, Listed, NamespaceInfo, NamespaceName, Unreadable};

/// How many names are looked at in one step at the most.
const MOST_NAMES: usize = 1024;

impl Core {
    /// Adds the name of a namespace to those of all, unless it is known to be there.
    pub(super) async fn register(&self, lane: &Lane) -> Result<(), BackendError> {
        if lane.is_named() {
            return Ok(());
        }
        let name = Bytes::copy_from_slice(lane.name.as_str().as_bytes());
        let script = &self.scripts.register;
        let call = Call { script, keys: self.layout.names(), args: vec![name] };
        self.link.call(call).await.map_err(read_error)?;
        lane.note_name();
        Ok(())
    }

    pub(super) async fn namespaces(
        &self,
        prefix: &str,
        after: Option<&NamespaceName>,
        limit: usize,
    ) -> Result<Vec<Listed>, BackendError> {
        let mut start = match after {
            Some(after) if after.as_str() >= prefix => format!("({}", after.as_str()),
            _ => format!("[{prefix}"),
        };
        let mut infos = Vec::new();
        let mut step = limit;
        while infos.len() < limit {
            let names = self.names(&start, prefix, step).await?;
            let Some(last) = names.last() else { break };
            // Those of namespaces that were deleted stay: there may be many in a row.
            step = (2 * step).min(MOST_NAMES);
            start = format!("({}", last.as_str());
            let lanes: Vec<Arc<Lane>> = names.iter().map(|name| self.lane(name)).collect();
            let none = [Bytes::from_static(b"0")];
            for (lane, answer) in
                lanes.iter().zip(self.ask_all(&lanes, &self.scripts.read, &none).await)
            {
                let info = |answer: Answer| {
                    answer.head.info(&lane.name).map(|info| NamespaceInfo {
                        next_deadline_ms: self.look_at(lane, info.next_deadline_ms),
                        ..info
                    })
                };
                let unreadable = |error| Unreadable { name: lane.name.clone(), error };
                infos.extend(answer.map(info).map_err(unreadable).transpose());
            }
        }
        infos.truncate(limit);
        Ok(infos)
    }

    async fn names(
        &self,
        start: &str,
        prefix: &str,
        limit: usize,
    ) -> Result<Vec<NamespaceName>, BackendError> {
        // Names are ASCII: nothing of them comes after this byte.
        let end = match prefix {
            "" => Bytes::from_static(b"+"),
            prefix => [b"(", prefix.as_bytes(), b"\xff"].concat().into(),
        };
        let args = vec![start.to_owned().into(), end, limit.to_string().into()];
        let call = Call { script: &self.scripts.names, keys: self.layout.names(), args };
        let mut parts = Parts::of(self.link.call(call).await.map_err(read_error)?)?;
        parts.take()?;
        let name = |value| {
            let bytes = bytes(value)?.ok_or_else(|| strange("an empty name"))?;
            let name = std::str::from_utf8(&bytes).map_err(|_| strange("a name"))?;
            Ok(NamespaceName::new(name))
        };
        parts.list()?.into_iter().map(name).collect()
    }
}
