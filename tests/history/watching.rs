//! Clients that watch: they open watches of all kinds, leave off in the midst, and resume.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use holdfast_proto::v1::{
    lock_service_client::LockServiceClient, watch_service_client::WatchServiceClient, *,
};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tonic::{
    Status, Streaming,
    transport::{Channel, Endpoint},
};

use crate::{
    client::connect,
    common::{build, failure::Failure, namespace::Namespace},
    history::{Recorder, Session},
    servers::{AWAY, PATIENCE},
    workload::{LOCKS, selector},
};

/// After what silence a watch says how far it has come.
const PROGRESS_MS: u64 = 200;

/// How long a watch may be silent before it is given up: its connection may be gone.
const SILENCE: Duration = Duration::from_millis(1500);

/// What can be watched.
pub trait Watched: Clone + std::fmt::Debug + Send + 'static {
    type Message: Told;

    fn open(
        self,
        channel: Channel,
    ) -> impl Future<Output = Result<Streaming<Self::Message>, Status>> + Send;

    /// The same of other keys or locks, from another start.
    fn other(&self, around: u64, random: &mut StdRng) -> Self;

    /// The same from where another watch has come to.
    fn resumed(&self, after: u64, lineage: &str, or_initial: bool) -> Self;
}

/// A message of a watch.
pub trait Told: std::fmt::Debug + Send + 'static {
    type Event: Clone;

    fn complete_through(&self) -> u64;

    fn events(&self) -> &[Self::Event];

    fn revision_of(event: &Self::Event) -> u64;

    /// The lineage that it names, if it names one.
    fn lineage(&self) -> Option<&str>;
}

/// Where a run ends.
#[derive(Debug, Clone)]
pub struct End {
    pub lineage: String,
    pub revision: u64,
}

/// Somebody who watches.
pub struct Observer {
    pub recorder: Arc<Recorder>,
    pub endpoints: Vec<Endpoint>,
    pub random: StdRng,
    /// Up to where it is to watch, once that is known.
    pub end: watch::Receiver<Option<End>>,
}

impl Observer {
    /// Watches until the end.
    pub async fn run<W: Watched>(mut self, first: W) -> Vec<Session<W, W::Message>> {
        let mut sessions = Vec::new();
        let mut request = first;
        let mut complete = 0;
        let mut lineage = None;
        let mut late_at = None;
        loop {
            let session = self.session(request.clone(), None).await;
            let told = session.messages.last().map_or(0, |(_, it)| it.complete_through());
            complete = complete.max(told);
            let named = session.messages.iter().filter_map(|(_, message)| message.lineage()).last();
            lineage = named.map(str::to_owned).or(lineage);
            let reason = session.end.as_ref().map(|end| end.reason.clone()).unwrap_or_default();
            if session.messages.is_empty() {
                // The server may be away for a while.
                tokio::time::sleep(AWAY).await;
            }
            let is_empty = session.messages.is_empty() && reason.is_empty();
            if !is_empty || sessions.is_empty() {
                sessions.push(session);
            }
            let end = self.end.borrow().clone();
            if let Some(end) = &end {
                if told >= end.revision {
                    return sessions;
                }
                let late_at = late_at.get_or_insert_with(|| Instant::now() + PATIENCE / 3);
                if Instant::now() > *late_at {
                    sessions.last_mut().expect("one was pushed").starved = true;
                    return sessions;
                }
            }
            let is_lost = !reason.is_empty();
            let goes_on = end.is_some() || self.random.random_bool(0.7);
            request = match lineage.as_ref().filter(|_| complete > 0 && goes_on) {
                Some(lineage) => request.resumed(complete, lineage, is_lost),
                None => {
                    let around = self.around(complete);
                    complete = 0;
                    request.other(around, &mut self.random)
                }
            };
        }
    }

    /// A revision that may have been compacted, may be the last, or may not have come yet.
    fn around(&mut self, complete: u64) -> u64 {
        (complete + self.random.random_range(0..60)).saturating_sub(50)
    }

    /// One watch, until it ends or is left; for one who takes down the whole log, with how far that has come and of which
    /// lineage: one of another is left at once.
    pub async fn session<W: Watched>(
        &mut self,
        request: W,
        witnessed: Option<(&AtomicU64, &str)>,
    ) -> Session<W, W::Message> {
        let opened = self.recorder.now();
        let mut session = Session {
            request: request.clone(),
            opened,
            closed: opened,
            messages: Vec::new(),
            end: None,
            starved: false,
        };
        self.attend(request, &mut session, witnessed).await;
        session.closed = self.recorder.now();
        session
    }

    async fn attend<W: Watched>(
        &mut self,
        request: W,
        session: &mut Session<W, W::Message>,
        witnessed: Option<(&AtomicU64, &str)>,
    ) {
        let channel = connect(&self.endpoints, &mut self.random);
        let mut stream = match timeout(SILENCE, request.open(channel)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(status)) => {
                session.end = Some(Failure::from(status));
                return;
            }
            Err(_) => return,
        };
        let most = match witnessed {
            Some(_) => usize::MAX,
            None => self.random.random_range(1..60),
        };
        while self.is_wanted(session.messages.len(), most, session.messages.last().map(|it| &it.1))
        {
            match timeout(SILENCE, stream.message()).await {
                Ok(Ok(Some(message))) => {
                    let other = |(_, lineage)| message.lineage().is_some_and(|it| it != lineage);
                    let is_other = witnessed.is_some_and(other);
                    if let Some((complete, _)) = witnessed.filter(|_| !is_other) {
                        complete.fetch_max(message.complete_through(), Ordering::SeqCst);
                    }
                    session.messages.push((self.recorder.now(), message));
                    if is_other {
                        break;
                    }
                }
                Ok(Err(status)) => {
                    session.end = Some(Failure::from(status));
                    break;
                }
                Ok(Ok(None)) | Err(_) => break,
            }
        }
    }

    /// Whether a session is to go on that has had so many messages.
    fn is_wanted(&self, had: usize, most: usize, last: Option<&impl Told>) -> bool {
        match &*self.end.borrow() {
            Some(end) => last.is_none_or(|last| last.complete_through() < end.revision),
            None => had < most,
        }
    }

    /// A namespace by way of one of the servers.
    pub fn namespace(&mut self, name: &str) -> Namespace {
        Namespace {
            name: name.to_owned(),
            channel: connect(&self.endpoints, &mut self.random),
            endpoint: self.endpoints[0].clone(),
            servers: Vec::new(),
        }
    }
}

/// A watch of all keys after a revision, with previous values.
pub fn of_all_keys(namespace: &str, after: u64) -> WatchRequest {
    WatchRequest {
        namespace: namespace.to_owned(),
        with_previous: true,
        progress_interval_ms: Some(PROGRESS_MS),
        ..build::watch_after(build::all(), after)
    }
}

/// A watch of all locks after a revision.
pub fn of_all_locks(namespace: &str, after: u64) -> WatchLocksRequest {
    let after_revision =
        Some(watch_locks_request::AfterRevision { revision: after, or_initial: false });
    WatchLocksRequest {
        namespace: namespace.to_owned(),
        locks: Some(watch_locks_request::Locks::Prefix(String::new())),
        after_revision,
        progress_interval_ms: Some(PROGRESS_MS),
        ..WatchLocksRequest::default()
    }
}

impl Watched for WatchRequest {
    type Message = WatchResponse;

    async fn open(self, channel: Channel) -> Result<Streaming<WatchResponse>, Status> {
        Ok(WatchServiceClient::new(channel).watch(self).await?.into_inner())
    }

    fn other(&self, around: u64, random: &mut StdRng) -> Self {
        let selectors = (0..random.random_range(1..3)).map(|_| selector(random)).collect();
        let types = match random.random_range(0..4) {
            0 => vec![EventType::Expire.into()],
            1 => vec![EventType::Set.into(), EventType::Delete.into()],
            _ => Vec::new(),
        };
        let start = match random.random_range(0..4) {
            0 => None,
            1 => Some(watch_request::Start::Initial(watch_request::Initial {})),
            _ => build::after(around, random.random()),
        };
        WatchRequest {
            namespace: self.namespace.clone(),
            selectors,
            start,
            types,
            with_previous: random.random(),
            keys_only: random.random_bool(0.3),
            progress_interval_ms: Some(PROGRESS_MS),
            lineage: None,
        }
    }

    fn resumed(&self, after: u64, lineage: &str, or_initial: bool) -> Self {
        let start = build::after(after, or_initial);
        WatchRequest { start, lineage: Some(lineage.to_owned()), ..self.clone() }
    }
}

impl Watched for WatchLocksRequest {
    type Message = WatchLocksResponse;

    async fn open(self, channel: Channel) -> Result<Streaming<WatchLocksResponse>, Status> {
        Ok(LockServiceClient::new(channel).watch_locks(self).await?.into_inner())
    }

    fn other(&self, around: u64, random: &mut StdRng) -> Self {
        use watch_locks_request::{AfterRevision, Locks};
        let locks = match random.random_range(0..3) {
            0 => Locks::Name(LOCKS.choose(random).map(|&name| name.to_owned()).unwrap_or_default()),
            1 => Locks::Prefix("l".to_owned()),
            _ => Locks::Prefix(String::new()),
        };
        let (or_initial, has_start) = (random.random(), random.random());
        let after = AfterRevision { revision: around, or_initial };
        let after_revision = Some(after).filter(|_| has_start);
        WatchLocksRequest { locks: Some(locks), after_revision, lineage: None, ..self.clone() }
    }

    fn resumed(&self, after: u64, lineage: &str, or_initial: bool) -> Self {
        let after = watch_locks_request::AfterRevision { revision: after, or_initial };
        let lineage = Some(lineage.to_owned());
        WatchLocksRequest { after_revision: Some(after), lineage, ..self.clone() }
    }
}

impl Told for WatchResponse {
    type Event = Event;

    fn complete_through(&self) -> u64 {
        self.complete_through
    }

    fn events(&self) -> &[Event] {
        match &self.body {
            Some(watch_response::Body::Events(it)) => &it.events,
            _ => &[],
        }
    }

    fn revision_of(event: &Event) -> u64 {
        event.revision
    }

    fn lineage(&self) -> Option<&str> {
        let created = match &self.body {
            Some(watch_response::Body::Created(created)) => created.lineage.as_str(),
            _ => "",
        };
        [created, &self.new_lineage].into_iter().find(|it| !it.is_empty())
    }
}

impl Told for WatchLocksResponse {
    type Event = LockEvent;

    fn complete_through(&self) -> u64 {
        self.complete_through
    }

    fn events(&self) -> &[LockEvent] {
        match &self.body {
            Some(watch_locks_response::Body::Events(it)) => &it.events,
            _ => &[],
        }
    }

    fn revision_of(event: &LockEvent) -> u64 {
        event.revision
    }

    fn lineage(&self) -> Option<&str> {
        let created = match &self.body {
            Some(watch_locks_response::Body::Created(created)) => created.lineage.as_str(),
            _ => "",
        };
        [created, &self.new_lineage].into_iter().find(|it| !it.is_empty())
    }
}
