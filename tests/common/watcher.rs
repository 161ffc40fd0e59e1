//! A watch that checks every message against what all watches promise.

use std::collections::HashSet;

use holdfast_proto::v1::{
    watch_response::{Body, Created},
    watch_service_client::WatchServiceClient,
    *,
};
use tonic::Streaming;

use super::{failure::Failure, namespace::Namespace};

/// An open watch whose `created` has been read.
pub struct Watcher {
    pub created: Created,
    /// The revision to resume from.
    pub complete_through: u64,
    /// The lineage that the namespace got while it was watched.
    pub new_lineage: Option<String>,
    stream: Streaming<WatchResponse>,
    in_initial: bool,
    last_event: (u64, i64),
    keys_of_revision: HashSet<String>,
}

impl Watcher {
    pub async fn open(namespace: &Namespace, mut request: WatchRequest) -> Result<Self, Failure> {
        request.namespace.clone_from(&namespace.name);
        let asked_initial = matches!(request.start, Some(watch_request::Start::Initial(_)));
        let mut client = WatchServiceClient::new(namespace.channel.clone());
        let mut stream = client.watch(request).await?.into_inner();
        let message = stream.message().await?.expect("a watch begins with created");
        let Some(Body::Created(created)) = message.body else {
            panic!("created comes first, not {message:?}");
        };
        let in_initial = asked_initial || created.reset;
        if in_initial {
            assert_eq!(message.complete_through, 0, "nothing to resume from yet");
        } else {
            assert_eq!(message.complete_through, created.revision);
        }
        Ok(Watcher {
            last_event: (created.revision, 0),
            complete_through: message.complete_through,
            new_lineage: None,
            stream,
            in_initial,
            keys_of_revision: HashSet::new(),
            created,
        })
    }

    /// The next message.
    pub async fn next(&mut self) -> Result<WatchResponse, Failure> {
        let message = self.stream.message().await?;
        let message = message.expect("a watch does not end by itself");
        self.check(&message);
        Ok(message)
    }

    /// The initial state, up to its end mark, and its revision.
    pub async fn initial(&mut self) -> (Vec<Entry>, u64) {
        let mut entries = Vec::new();
        loop {
            let message = self.next().await.expect("the watch lives");
            match message.body {
                Some(Body::Initial(initial)) => {
                    assert_eq!(message.revision, self.created.revision);
                    entries.extend(initial.entries);
                    if initial.end {
                        return (entries, message.revision);
                    }
                }
                other => panic!("the initial state is not over, but {other:?} came"),
            }
        }
    }

    /// All events until everything up to this revision has been delivered.
    pub async fn events_through(&mut self, revision: u64) -> Vec<Event> {
        let mut events = Vec::new();
        while self.complete_through < revision {
            let message = self.next().await.expect("the watch lives");
            if let Some(Body::Events(found)) = message.body {
                events.extend(found.events);
            }
        }
        events
    }

    /// At least this many events, as they come.
    pub async fn events(&mut self, count: usize) -> Vec<Event> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await.expect("the watch lives");
            if let Some(Body::Events(found)) = message.body {
                events.extend(found.events);
            }
        }
        events
    }

    /// The error that the watch ends with, after whatever it still delivers.
    pub async fn end(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.next().await {
                return failure;
            }
        }
    }

    fn check(&mut self, message: &WatchResponse) {
        if !message.new_lineage.is_empty() {
            assert!(self.new_lineage.is_none(), "new_lineage twice");
            self.new_lineage = Some(message.new_lineage.clone());
        }
        match message.body.as_ref().expect("a message has a body") {
            Body::Created(_) => panic!("created twice"),
            Body::Initial(initial) => {
                assert!(self.in_initial, "an initial state that has ended, or was not asked");
                self.in_initial = !initial.end;
            }
            Body::Events(events) => {
                assert!(!self.in_initial, "events inside the initial state");
                assert!(!events.events.is_empty(), "a message of no events");
                for event in &events.events {
                    self.check_event(event);
                }
                assert_eq!(message.revision, self.last_event.0);
            }
            Body::Progress(_) => assert!(!self.in_initial, "progress inside the initial state"),
        }
        self.check_progress(message.complete_through);
    }

    /// Ordered, unique, atomic: an event is newer than all that was said to be complete.
    fn check_event(&mut self, event: &Event) {
        let (revision, time_ms) = self.last_event;
        assert!(event.revision > self.complete_through, "late: {event:?}");
        assert!(event.revision >= revision, "out of order: {event:?}");
        assert!(event.time_ms >= time_ms, "time went back: {event:?}");
        if event.revision > revision {
            self.keys_of_revision.clear();
        }
        let new = self.keys_of_revision.insert(event.key.clone());
        assert!(new, "two events of one key and revision: {event:?}");
        if let Some(entry) = &event.entry {
            assert_eq!(entry.mod_revision, event.revision);
            assert_eq!(entry.updated_at_ms, event.time_ms);
        }
        self.last_event = (event.revision, event.time_ms);
    }

    fn check_progress(&mut self, complete_through: u64) {
        if self.in_initial {
            assert_eq!(complete_through, 0, "nothing to resume from yet");
            return;
        }
        assert!(complete_through >= self.complete_through, "progress went back");
        self.complete_through = complete_through;
    }
}
