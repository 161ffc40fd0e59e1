//! `WatchService`: the request to a query of the store, and what the watch tells to messages.

use std::{
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
};

use async_stream::try_stream;
use futures::{Stream, StreamExt as _};
use holdfast_proto::v1::{
    ErrorReason as Reason, EventType, WatchRequest, WatchResponse,
    selector::Kind,
    watch_request,
    watch_response::{Body, Created, Initial, Progress},
};
use tonic::{Request, Response, Status, server::ServerStreamingService};

use super::{
    MESSAGE_BYTES, Services,
    course::{self, Course},
    entry::{self, Shown},
    path::Path,
    status::Failure,
    validate,
    watch_server::{Message, Watching},
};
use crate::{
    backend::{Revision, StoredEntry},
    store::{self, Cursor, Kinds, Matching, WatchItem, WatchQuery, WatchStart, selector::Selector},
};

const MAX_SELECTORS: usize = 100;
/// Most bytes that the globs of a watch have together.
const MAX_GLOB_BYTES: usize = 4096;

impl ServerStreamingService<WatchRequest> for Watching {
    type Response = Message;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Message, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<WatchRequest>) -> Self::Future {
        let messages = self.services.watch_messages(&request.into_inner());
        let stream = |messages| Response::new(Box::pin(messages) as Self::ResponseStream);
        ready(messages.map(stream).map_err(Status::from))
    }
}

impl Services {
    /// The messages of a watch. They are made as they are sent: a slow reader costs no memory.
    fn watch_messages(
        &self,
        request: &WatchRequest,
    ) -> Result<impl Stream<Item = Result<Message, Status>> + Send + use<>, Failure> {
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

    fn tell(&mut self, item: WatchItem) -> Vec<Message> {
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
                vec![self.message(revision, time_ms, Some(body)).into()]
            }
            WatchItem::Initial { entries, cursor, end } => {
                self.tell_initial(&entries, &cursor, end)
            }
            WatchItem::Born { lineage } => {
                self.course.new_lineage = lineage.to_string();
                Vec::new()
            }
            WatchItem::Changes { changes, through } => {
                self.tell_changes(&Arc::new(changes), through)
            }
            WatchItem::Progress(progress) => {
                let store::Progress { through, newest, time_ms } = progress;
                self.course.complete = through;
                vec![self.message(newest, time_ms, Some(Body::Progress(Progress {}))).into()]
            }
        }
    }

    fn tell_initial(
        &mut self,
        entries: &[StoredEntry],
        cursor: &Cursor,
        end: bool,
    ) -> Vec<Message> {
        let with_value = self.shown.values;
        let size = |found: &StoredEntry| entry::size(found, with_value);
        let parts = self.course.parts_of_state(entries, end, size);
        let message = |(part, end): (&[StoredEntry], bool)| {
            if end {
                self.course.complete = cursor.revision;
            }
            let entries = part.iter().map(|found| entry::stored(found, with_value)).collect();
            let body = Body::Initial(Initial { entries, end });
            self.message(cursor.revision, cursor.time_ms, Some(body)).into()
        };
        parts.into_iter().map(message).collect()
    }

    fn tell_changes(&mut self, changes: &Arc<Matching>, through: Revision) -> Vec<Message> {
        let shown = self.shown;
        let parts = self.course.parts_of_events(
            changes.places(),
            through,
            |place| {
                let logged = changes.at(*place);
                entry::event_size(&logged.change, logged.previous.as_ref(), shown)
            },
            |place| changes.at(*place).change.revision,
        );
        let mut messages = Vec::with_capacity(parts.len());
        let mut told = 0;
        for (part, complete) in parts {
            let Some(last) = part.last() else { continue };
            self.course.complete = complete;
            let last = &changes.at(*last).change;
            let head = self.message(last.revision, last.time_ms, None);
            let part = told..told + part.len();
            told = part.end;
            messages.push(Message::Events { head, changes: changes.clone(), part, shown });
        }
        messages
    }

    fn message(&mut self, revision: Revision, time_ms: i64, body: Option<Body>) -> WatchResponse {
        WatchResponse {
            revision: revision.0,
            time_ms,
            complete_through: self.course.complete.0,
            new_lineage: std::mem::take(&mut self.course.new_lineage),
            body,
        }
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::watch_response::Events;
    use prost::Message as _;

    use super::*;
    use crate::backend::{
        Change, ChangeKind, Deadline, Entry, GroupStamp, Key, LoggedChange, Removal, SharedChange,
    };

    const SHOWN: Shown = Shown { values: true, unchanged_values: false, previous: false };

    fn changes(revisions: &[u64]) -> Vec<LoggedChange> {
        let change = |revision: &u64| {
            let stamp = GroupStamp { revision: Revision(*revision), time_ms: 0 };
            let kind = ChangeKind::Removed(Removal::Deleted);
            let change = SharedChange::new(Change::new(Key::new(b"k"), stamp, kind, None, None));
            LoggedChange { change, previous: None }
        };
        revisions.iter().map(change).collect()
    }

    fn decoded(message: &Message) -> WatchResponse {
        let mut bytes = Vec::new();
        message.encode(&mut bytes).expect("a vector has room");
        WatchResponse::decode(&*bytes).expect("what was encoded can be decoded")
    }

    /// The number of events of each message, with how far it says to be complete.
    fn told(teller: &mut Teller, revisions: &[u64], through: u64) -> Vec<(usize, u64)> {
        let changes = Arc::new(Matching::from(changes(revisions)));
        let messages = teller.tell_changes(&changes, Revision(through));
        let brief = |message: Message| {
            let message = decoded(&message);
            match message.body {
                Some(Body::Events(events)) => (events.events.len(), message.complete_through),
                other => panic!("{other:?}"),
            }
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
        assert!(teller.tell_initial(&[], &cursor, false).is_empty());
        let messages = teller.tell_initial(&[], &cursor, true);
        assert_eq!(messages.len(), 1);
        assert_eq!(decoded(&messages[0]).complete_through, 3);
    }

    #[test]
    fn events_are_shown_as_asked_for() {
        let changes = changes(&[1, 2]);
        let previous = StoredEntry::of(SharedChange::new(set(b"before")));
        let changes = vec![
            LoggedChange { change: SharedChange::new(set(b"after")), previous },
            changes[1].clone(),
        ];
        let matching = Arc::new(Matching::from(changes.clone()));
        let forms = [(true, true), (true, false), (false, true), (false, false), (true, true)];
        for (values, previous) in forms {
            let shown = Shown { values, previous, ..SHOWN };
            let messages = Teller::new(shown, 1000).tell_changes(&matching, Revision(2));
            let event = |it: &LoggedChange| entry::event(&it.change, it.previous.as_ref(), shown);
            let events = changes.iter().map(event).collect();
            let body = Some(Body::Events(Events { events }));
            let told = decoded(&messages[0]);
            assert_eq!((told.body, told.revision, told.complete_through), (body, 2, 2));
        }
    }

    fn set(value: &'static [u8]) -> Change {
        let entry = Entry {
            value: value.into(),
            content_type: "text/plain".into(),
            version: 1,
            create_revision: Revision(1),
            mod_revision: Revision(1),
            created_at_ms: 5,
            updated_at_ms: 6,
            deadline: Deadline::Never,
        };
        let stamp = GroupStamp { revision: Revision(1), time_ms: 6 };
        Change::new(Key::new(b"k"), stamp, ChangeKind::Set, Some(entry), None)
    }
}
