//! `WatchService`: the request to a query of the store, and what the watch tells to messages.

use std::pin::Pin;

use async_stream::try_stream;
use futures::{Stream, StreamExt as _};
use holdfast_proto::v1::{
    ErrorReason as Reason, EventType, WatchRequest, WatchResponse,
    selector::Kind,
    watch_request,
    watch_response::{Body, Created, Events, Initial, Progress},
    watch_service_server::WatchService,
};
use tonic::{Request, Response, Status};

use super::{
    MESSAGE_BYTES, Services,
    course::{self, Course},
    entry::{self, Shown},
    path::Path,
    status::Failure,
    validate,
};
use crate::{
    backend::{LoggedChange, Revision, StoredEntry},
    store::{Cursor, Kinds, WatchItem, WatchQuery, WatchStart, selector::Selector},
};

const MAX_SELECTORS: usize = 100;
/// Most bytes that the globs of a watch have together.
const MAX_GLOB_BYTES: usize = 4096;

#[tonic::async_trait]
impl WatchService for Services {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let messages = self.watch_messages(&request.into_inner())?;
        Ok(Response::new(Box::pin(messages)))
    }
}

impl Services {
    /// The messages of a watch. They are made as they are sent: a slow reader costs no memory.
    fn watch_messages(
        &self,
        request: &WatchRequest,
    ) -> Result<impl Stream<Item = Result<WatchResponse, Status>> + Send + use<>, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let query = query(request)?;
        let values = !request.keys_only;
        let shown = Shown { values, unchanged_values: false, previous: request.with_previous };
        tracing::debug!(namespace = name.as_str(), start = ?query.start, "watch");
        let items = course::until_stopped(self.store.watch(&name, query), self.stopping.clone());
        Ok(try_stream! {
            let mut items = std::pin::pin!(items);
            let mut teller = Teller::new(shown, MESSAGE_BYTES);
            while let Some(item) = items.next().await {
                for message in teller.tell(item?) {
                    yield message;
                }
            }
        })
    }
}

fn query(request: &WatchRequest) -> Result<WatchQuery, Failure> {
    Ok(WatchQuery {
        selectors: selectors(request)?,
        start: match request.start {
            None | Some(watch_request::Start::Now(_)) => WatchStart::Now,
            Some(watch_request::Start::Initial(_)) => WatchStart::Initial,
            Some(watch_request::Start::AfterRevision(after)) => WatchStart::After {
                revision: Revision(after.revision),
                or_initial: after.or_initial,
            },
        },
        lineage: request.lineage.clone(),
        kinds: kinds(&request.types)?,
        progress_interval: validate::progress_interval(request.progress_interval_ms)?,
    })
}

fn selectors(request: &WatchRequest) -> Result<Vec<Selector>, Failure> {
    let length = request.selectors.len();
    if !(1..=MAX_SELECTORS).contains(&length) {
        let problem =
            format!("has {length}, 1 to {MAX_SELECTORS} are allowed; use `all` for all keys");
        return Err(Failure::invalid(Reason::InvalidSelector, Path::of("selectors"), problem));
    }
    let globs = request.selectors.iter().map(|selector| match &selector.kind {
        Some(Kind::Glob(glob)) => glob.len(),
        _ => 0,
    });
    let bytes: usize = globs.sum();
    if bytes > MAX_GLOB_BYTES {
        let problem = format!(
            "has globs of {bytes} bytes together, at most {MAX_GLOB_BYTES} are allowed: every change is compared \
             with each of them"
        );
        return Err(Failure::invalid(Reason::InvalidSelector, Path::of("selectors"), problem));
    }
    let selectors = request.selectors.iter().enumerate();
    let checked = |(index, it)| validate::selector(Some(it), Path::item("selectors", index));
    selectors.map(checked).collect()
}

fn kinds(types: &[i32]) -> Result<Kinds, Failure> {
    if types.is_empty() {
        return Ok(Kinds::ALL);
    }
    let mut kinds =
        Kinds { set: false, ttl_changed: false, deleted: false, expired: false, clear: false };
    for (index, number) in types.iter().enumerate() {
        match EventType::try_from(*number) {
            Ok(EventType::Set) => kinds.set = true,
            Ok(EventType::TtlChanged) => kinds.ttl_changed = true,
            Ok(EventType::Delete) => kinds.deleted = true,
            Ok(EventType::Expire) => kinds.expired = true,
            Ok(EventType::Clear) => kinds.clear = true,
            Ok(EventType::Unspecified) | Err(_) => {
                let problem =
                    format!("is {number}, which is no type of event; leave `types` empty for all");
                let at = Path::item("types", index);
                return Err(Failure::invalid(Reason::InvalidField, at, problem));
            }
        }
    }
    Ok(kinds)
}

/// Puts what a watch tells into messages.
struct Teller {
    shown: Shown,
    course: Course,
}

impl Teller {
    fn new(shown: Shown, budget: usize) -> Self {
        Self { shown, course: Course::new(budget) }
    }

    fn tell(&mut self, item: WatchItem) -> Vec<WatchResponse> {
        match item {
            WatchItem::Created { lineage, revision, compacted, reset, initial, time_ms } => {
                if !initial {
                    self.course.complete = revision;
                }
                let body = Body::Created(Created {
                    lineage: entry::lineage(lineage),
                    revision: revision.0,
                    compacted_revision: compacted.0,
                    reset,
                });
                vec![self.message(revision, time_ms, body)]
            }
            WatchItem::Initial { entries, cursor, end } => {
                self.tell_initial(&entries, &cursor, end)
            }
            WatchItem::Born { lineage } => {
                self.course.new_lineage = lineage.to_string();
                Vec::new()
            }
            WatchItem::Changes { changes, through } => self.tell_changes(&changes, through),
            WatchItem::Progress { through, time_ms } => {
                self.course.complete = through;
                vec![self.message(through, time_ms, Body::Progress(Progress {}))]
            }
        }
    }

    fn tell_initial(
        &mut self,
        entries: &[StoredEntry],
        cursor: &Cursor,
        end: bool,
    ) -> Vec<WatchResponse> {
        let with_value = self.shown.values;
        let size = |found: &StoredEntry| entry::size(found, with_value);
        let parts = self.course.parts_of_state(entries, end, size);
        let message = |(part, end): (&[StoredEntry], bool)| {
            if end {
                self.course.complete = cursor.revision;
            }
            let entries = part.iter().map(|found| entry::stored(found, with_value)).collect();
            let body = Body::Initial(Initial { entries, end });
            self.message(cursor.revision, cursor.time_ms, body)
        };
        parts.into_iter().map(message).collect()
    }

    fn tell_changes(&mut self, changes: &[LoggedChange], through: Revision) -> Vec<WatchResponse> {
        let shown = self.shown;
        let parts = self.course.parts_of_events(
            changes,
            through,
            |logged| entry::event_size(&logged.change, logged.previous.as_ref(), shown),
            |logged| logged.change.revision,
        );
        let mut messages = Vec::with_capacity(parts.len());
        for (part, complete) in parts {
            let Some(last) = part.last() else { continue };
            self.course.complete = complete;
            let event = |logged: &LoggedChange| {
                entry::event(&logged.change, logged.previous.as_ref(), shown)
            };
            let events = part.iter().map(event).collect();
            let body = Body::Events(Events { events });
            messages.push(self.message(last.change.revision, last.change.time_ms, body));
        }
        messages
    }

    fn message(&mut self, revision: Revision, time_ms: i64, body: Body) -> WatchResponse {
        WatchResponse {
            revision: revision.0,
            time_ms,
            complete_through: self.course.complete.0,
            new_lineage: std::mem::take(&mut self.course.new_lineage),
            body: Some(body),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::backend::{Change, ChangeKind, GroupStamp, Key, Removal};

    const SHOWN: Shown = Shown { values: true, unchanged_values: false, previous: false };

    fn changes(revisions: &[u64]) -> Vec<LoggedChange> {
        let change = |revision: &u64| {
            let stamp = GroupStamp { revision: Revision(*revision), time_ms: 0 };
            let kind = ChangeKind::Removed(Removal::Deleted);
            let change = Arc::new(Change::new(Key::new(b"k"), stamp, kind, None, None));
            LoggedChange { change, previous: None }
        };
        revisions.iter().map(change).collect()
    }

    /// The number of events of each message, with how far it says to be complete.
    fn told(teller: &mut Teller, revisions: &[u64], through: u64) -> Vec<(usize, u64)> {
        let messages = teller.tell_changes(&changes(revisions), Revision(through));
        let brief = |message: WatchResponse| match message.body {
            Some(Body::Events(events)) => (events.events.len(), message.complete_through),
            other => panic!("{other:?}"),
        };
        messages.into_iter().map(brief).collect()
    }

    #[test]
    fn revisions_are_complete_with_their_last_event() {
        let two = 2 * entry::event_size(&changes(&[1])[0].change, None, SHOWN);
        let mut teller = Teller::new(SHOWN, two);
        teller.course.complete = Revision(4);
        assert_eq!(told(&mut teller, &[5, 5, 5, 5, 5], 5), [(2, 4), (2, 4), (1, 5)]);
        assert_eq!(told(&mut teller, &[6, 7, 7, 7], 9), [(2, 6), (2, 9)]);
        assert_eq!(told(&mut teller, &[10, 10, 11, 12], 12), [(2, 10), (2, 12)]);
        assert_eq!(told(&mut teller, &[14], 20), [(1, 20)]);
    }

    #[test]
    fn an_event_larger_than_a_message_goes_alone() {
        let mut teller = Teller::new(SHOWN, 1);
        assert_eq!(told(&mut teller, &[1, 1, 2], 2), [(1, 0), (1, 1), (1, 2)]);
    }

    #[test]
    fn an_empty_initial_state_still_ends() {
        let mut teller = Teller::new(SHOWN, 1);
        let (revision, time_ms) = (Revision(3), 0);
        let cursor = Cursor { revision, time_ms, by_clock: true, lineage: None, edge: None };
        assert_eq!(teller.tell_initial(&[], &cursor, false), []);
        let messages = teller.tell_initial(&[], &cursor, true);
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].complete_through, 3);
    }
}
