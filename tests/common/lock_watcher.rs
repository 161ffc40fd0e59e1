//! A watch of locks that checks every message against what all such watches promise.

use holdfast_proto::v1::{
    lock_service_client::LockServiceClient,
    watch_locks_response::{Body, Created},
    *,
};
use tonic::Streaming;

use super::{failure::Failure, namespace::Namespace};

/// An open watch whose `created` has been read.
pub struct LockWatcher {
    pub created: Created,
    /// The revision to resume from.
    pub complete_through: u64,
    /// The lineage that the namespace got while it was watched.
    pub new_lineage: Option<String>,
    stream: Streaming<WatchLocksResponse>,
    in_state: bool,
    last_event: (u64, i64),
}

impl LockWatcher {
    pub async fn open(
        namespace: &Namespace,
        mut request: WatchLocksRequest,
    ) -> Result<Self, Failure> {
        request.namespace.clone_from(&namespace.name);
        let asked_state = request.after_revision.is_none();
        let mut client = LockServiceClient::new(namespace.channel.clone());
        let mut stream = client.watch_locks(request).await?.into_inner();
        let message = stream.message().await?.expect("a watch begins with created");
        let Some(Body::Created(created)) = message.body else {
            panic!("created comes first, not {message:?}");
        };
        let in_state = asked_state || created.reset;
        let complete = if in_state { 0 } else { created.revision };
        assert_eq!(message.complete_through, complete);
        Ok(LockWatcher {
            last_event: (created.revision, 0),
            complete_through: message.complete_through,
            new_lineage: None,
            stream,
            in_state,
            created,
        })
    }

    /// Opens a watch that is to succeed.
    pub async fn on(namespace: &Namespace, request: WatchLocksRequest) -> Self {
        match Self::open(namespace, request).await {
            Ok(watcher) => watcher,
            Err(failure) => panic!("{failure:?}"),
        }
    }

    /// The locks that are held at first, up to the end mark.
    pub async fn state(&mut self) -> Vec<Lock> {
        let mut locks = Vec::new();
        loop {
            let message = self.next().await.expect("the watch lives");
            match message.body {
                Some(Body::State(state)) => {
                    assert_eq!(message.revision, self.created.revision);
                    locks.extend(state.locks);
                    if state.end {
                        assert_eq!(self.complete_through, self.created.revision);
                        return locks;
                    }
                }
                other => panic!("the state is not over, but {other:?} came"),
            }
        }
    }

    /// At least this many events, as they come.
    pub async fn events(&mut self, count: usize) -> Vec<LockEvent> {
        let mut events = Vec::new();
        while events.len() < count {
            events.extend(self.some().await);
        }
        events
    }

    /// All events until everything up to this revision has been sent.
    pub async fn events_through(&mut self, revision: u64) -> Vec<LockEvent> {
        let mut events = Vec::new();
        while self.complete_through < revision {
            events.extend(self.some().await);
        }
        events
    }

    /// The error that the watch ends with, after whatever it still sends.
    pub async fn end(&mut self) -> Failure {
        loop {
            if let Err(failure) = self.next().await {
                return failure;
            }
        }
    }

    /// The events of the next message, if it has any.
    async fn some(&mut self) -> Vec<LockEvent> {
        match self.next().await.expect("the watch lives").body {
            Some(Body::Events(found)) => found.events,
            _ => Vec::new(),
        }
    }

    async fn next(&mut self) -> Result<WatchLocksResponse, Failure> {
        let message = self.stream.message().await?;
        let message = message.expect("a watch does not end by itself");
        self.check(&message);
        Ok(message)
    }

    fn check(&mut self, message: &WatchLocksResponse) {
        if !message.new_lineage.is_empty() {
            assert!(self.new_lineage.is_none(), "new_lineage twice");
            self.new_lineage = Some(message.new_lineage.clone());
        }
        match message.body.as_ref().expect("a message has a body") {
            Body::Created(_) => panic!("created twice"),
            Body::State(state) => {
                assert!(self.in_state, "a state that has ended, or was not asked");
                assert!(state.locks.is_sorted_by(|a, b| a.name < b.name), "{state:?}");
                self.in_state = !state.end;
            }
            Body::Events(events) => {
                assert!(!self.in_state, "events inside the state");
                assert!(!events.events.is_empty(), "a message of no events");
                for event in &events.events {
                    self.check_event(event);
                }
            }
            Body::Progress(_) => assert!(!self.in_state, "progress inside the state"),
        }
        if self.in_state {
            assert_eq!(message.complete_through, 0, "nothing to resume from yet");
        }
        assert!(message.complete_through >= self.complete_through, "progress went back");
        self.complete_through = message.complete_through;
    }

    /// Ordered, newer than all that was said to be complete, and with a lock where there is a holder.
    fn check_event(&mut self, event: &LockEvent) {
        let (revision, time_ms) = self.last_event;
        assert!(event.revision > self.complete_through, "late: {event:?}");
        assert!(event.revision >= revision, "out of order: {event:?}");
        assert!(event.time_ms >= time_ms, "time went back: {event:?}");
        let held = [LockEventType::Granted, LockEventType::ValueChanged].contains(&event.r#type());
        assert_eq!(event.lock.is_some(), held, "{event:?}");
        if let Some(lock) = &event.lock {
            assert_eq!((&lock.name, lock.token), (&event.name, event.token), "{event:?}");
        }
        if event.r#type() == LockEventType::Granted {
            assert_eq!(event.token, event.revision, "the token is the revision of the grant");
        }
        assert!(
            event.reason.is_empty() || event.r#type() == LockEventType::Broken,
            "a reason of nothing: {event:?}"
        );
        self.last_event = (event.revision, event.time_ms);
    }
}
