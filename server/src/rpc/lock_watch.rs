//! `LockService.WatchLocks`: the request to a query of the store, and what the watch tells to messages.

use async_stream::try_stream;
use futures::{Stream, StreamExt as _};
use holdfast_proto::v1::{
    self, ErrorReason as Reason, LockEventType, WatchLocksRequest, WatchLocksResponse,
    watch_locks_request::Locks,
    watch_locks_response::{Body, Created, Events, Progress, State},
};
use tonic::Status;

use super::{
    MESSAGE_BYTES, Services,
    course::{self, Course},
    entry, lock,
    path::Path,
    status::Failure,
    validate,
};
use crate::{
    backend::Revision,
    store::{
        self, LockEvent, LockEventKind, LockSelector, LockView, LockWatchItem, LockWatchQuery,
    },
};

/// More than what an event has beside its texts and its lock.
const OVERHEAD: usize = 64;

impl Services {
    /// The messages of a watch. They are made as they are sent: a slow reader costs no memory.
    pub(super) fn lock_messages(
        &self,
        request: &WatchLocksRequest,
    ) -> Result<impl Stream<Item = Result<WatchLocksResponse, Status>> + Send + use<>, Failure>
    {
        let name = validate::namespace(&request.namespace)?;
        let query = query(request)?;
        tracing::debug!(namespace = name.as_str(), after = ?query.after, "watch locks");
        let items =
            course::until_stopped(self.store.watch_locks(&name, query), self.stopping.clone());
        Ok(try_stream! {
            let mut items = std::pin::pin!(items);
            let mut teller = Teller { course: Course::new(MESSAGE_BYTES) };
            while let Some(item) = items.next().await {
                for message in teller.tell(item?) {
                    yield message;
                }
            }
        })
    }
}

fn query(request: &WatchLocksRequest) -> Result<LockWatchQuery, Failure> {
    let which = match &request.locks {
        Some(Locks::Name(name)) => {
            validate::lock(name, Path::of("name"))?;
            LockSelector::Name(name.clone())
        }
        Some(Locks::Prefix(prefix)) => {
            validate::lock_prefix(prefix, Path::of("prefix"))?;
            LockSelector::Prefix(prefix.clone())
        }
        None => {
            let problem = "is missing; set `name`, or `prefix`, which is empty for all locks";
            return Err(Failure::invalid(Reason::InvalidLock, Path::of("locks"), problem));
        }
    };
    let after = request.after_revision;
    Ok(LockWatchQuery {
        which,
        after: after.map(|after| (Revision(after.revision), after.or_initial)),
        lineage: request.lineage.clone(),
        progress_interval: validate::progress_interval(request.progress_interval_ms)?,
    })
}

/// Puts what a watch tells into messages.
struct Teller {
    course: Course,
}

impl Teller {
    fn tell(&mut self, item: LockWatchItem) -> Vec<WatchLocksResponse> {
        match item {
            LockWatchItem::Created { lineage, revision, reset, initial, time_ms } => {
                if !initial {
                    self.course.complete = revision;
                }
                let lineage = entry::lineage(lineage);
                let body = Body::Created(Created { lineage, revision: revision.0, reset });
                vec![self.message(revision, time_ms, body)]
            }
            LockWatchItem::State { locks, revision, time_ms, end } => {
                self.tell_state(&locks, revision, time_ms, end)
            }
            LockWatchItem::Born { lineage } => {
                self.course.new_lineage = lineage.to_string();
                Vec::new()
            }
            LockWatchItem::Events { events, through } => self.tell_events(&events, through),
            LockWatchItem::Progress(progress) => {
                let store::Progress { through, newest, time_ms } = progress;
                self.course.complete = through;
                vec![self.message(newest, time_ms, Body::Progress(Progress {}))]
            }
        }
    }

    fn tell_state(
        &mut self,
        locks: &[LockView],
        revision: Revision,
        time_ms: i64,
        end: bool,
    ) -> Vec<WatchLocksResponse> {
        let parts = self.course.parts_of_state(locks, end, lock::size);
        let message = |(part, end): (&[LockView], bool)| {
            if end {
                self.course.complete = revision;
            }
            let locks = part.iter().cloned().map(lock::encode).collect();
            self.message(revision, time_ms, Body::State(State { locks, end }))
        };
        parts.into_iter().map(message).collect()
    }

    fn tell_events(&mut self, events: &[LockEvent], through: Revision) -> Vec<WatchLocksResponse> {
        let parts = self.course.parts_of_events(events, through, size, |event| event.revision);
        let mut messages = Vec::with_capacity(parts.len());
        for (part, complete) in parts {
            let Some(last) = part.last() else { continue };
            self.course.complete = complete;
            let body = Body::Events(Events { events: part.iter().map(encode).collect() });
            messages.push(self.message(last.revision, last.time_ms, body));
        }
        messages
    }

    fn message(&mut self, revision: Revision, time_ms: i64, body: Body) -> WatchLocksResponse {
        WatchLocksResponse {
            revision: revision.0,
            time_ms,
            complete_through: self.course.complete.0,
            new_lineage: std::mem::take(&mut self.course.new_lineage),
            body: Some(body),
        }
    }
}

fn encode(event: &LockEvent) -> v1::LockEvent {
    let kind = match event.kind {
        LockEventKind::Granted => LockEventType::Granted,
        LockEventKind::Released => LockEventType::Released,
        LockEventKind::Expired => LockEventType::Expired,
        LockEventKind::Broken => LockEventType::Broken,
        LockEventKind::ValueChanged => LockEventType::ValueChanged,
    };
    v1::LockEvent {
        r#type: kind.into(),
        revision: event.revision.0,
        time_ms: event.time_ms,
        name: event.name.clone(),
        token: event.token.0,
        lock: event.lock.clone().map(lock::encode),
        reason: event.reason.clone(),
    }
}

/// No less than the bytes that an event takes in a message.
fn size(event: &LockEvent) -> usize {
    let lock = event.lock.as_ref().map_or(0, lock::size);
    OVERHEAD + event.name.len() + event.reason.len() + lock
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Owner;

    fn lock(name: &str) -> LockView {
        LockView {
            name: name.into(),
            token: Revision(5),
            owner: Owner::default(),
            value: vec![0; 4096].into(),
            acquired_at_ms: 0,
            ttl_ms: 1,
            expires_at_ms: 1,
            lease: None,
            waiting: 0,
        }
    }

    fn event(revision: u64) -> LockEvent {
        LockEvent {
            kind: LockEventKind::Granted,
            revision: Revision(revision),
            time_ms: 0,
            name: "l".into(),
            token: Revision(revision),
            lock: Some(lock("l")),
            reason: String::new(),
        }
    }

    fn teller(budget: usize) -> Teller {
        Teller { course: Course::new(budget) }
    }

    #[test]
    fn a_state_is_complete_with_its_end() {
        let mut teller = teller(2 * lock::size(&lock("a")));
        let locks = ["a", "b", "c"].map(lock).to_vec();
        let state = |end| LockWatchItem::State {
            locks: locks.clone(),
            revision: Revision(9),
            time_ms: 0,
            end,
        };
        let brief = |messages: Vec<WatchLocksResponse>| {
            let brief = messages.into_iter().map(|message| match message.body {
                Some(Body::State(state)) => {
                    (state.locks.len(), state.end, message.complete_through)
                }
                other => panic!("{other:?}"),
            });
            brief.collect::<Vec<_>>()
        };
        assert_eq!(brief(teller.tell(state(false))), [(2, false, 0), (1, false, 0)]);
        assert_eq!(brief(teller.tell(state(true))), [(2, false, 0), (1, true, 9)]);
    }

    #[test]
    fn an_event_says_how_far_all_is_told() {
        let mut teller = teller(2 * size(&event(1)));
        let events = [5, 6, 7].map(event).to_vec();
        let messages = teller.tell(LockWatchItem::Events { events, through: Revision(8) });
        let told: Vec<_> =
            messages.iter().map(|message| (message.revision, message.complete_through)).collect();
        assert_eq!(told, [(6, 6), (7, 8)]);
    }
}
