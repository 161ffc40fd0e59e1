//! `PipelineService`: many operations over one stream.
//!
//! Whatever is queued is taken in together: its writes become one submission for each namespace, its looks at
//! single keys one read. While writes are under way, more are taken in and wait for their turn together.
//!
//! Invariant: writes of a stream are submitted in the order in which they came, the next only once the ones
//! before are done. Everything that waits or is under way is bounded; beyond that the stream is not read on, and
//! nothing runs on while the client does not take its answers.
//!
//! When the server stops, what is queued is taken in once more, as far as there is room. The stream ends with an
//! error after the answers to everything taken in: a call that is then without an answer was not carried out.

mod answers;
mod done;
mod server;

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use futures::{
    FutureExt as _, Stream, StreamExt as _,
    future::BoxFuture,
    future::join_all,
    stream::{self, FuturesUnordered},
};
use holdfast_proto::v1::{ErrorReason, PipelineCall};
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use answers::Answers;
use done::Done;
pub(super) use server::Pipelines;

use super::{
    Limits, MESSAGE_BYTES, Services,
    dispatch::{self, Call, Checked},
    path::Path,
    read::{Lookup, Query, Read},
    status::Failure,
    validate::{self, Latest},
};
use crate::{
    backend::{BackendError, NamespaceName},
    store::{Store, Submission, error::StoreError},
};

/// Most calls of one message, and about the most that wait.
const MAX_CALLS: usize = 4096;
/// About the most bytes of writes, and of reads ordered after them, that wait.
const MAX_BYTES: usize = 8 << 20;
/// Most namespaces written to together.
const MAX_PARTS: usize = 64;
/// About the most reads that wait for others.
const MAX_WAITING_READS: usize = 64;
/// Most reads under way.
const MAX_READING: usize = 16;
/// Most looks made in one read.
const MAX_LOOKUPS: usize = 256;
/// Answers the calls of a stream, message by message.
fn answers(
    services: &Services,
    calls: Streaming<Incoming>,
) -> impl Stream<Item = Result<Bytes, Status>> + Send + use<> {
    // A token of its own: it is polled at every step, and streams need not contend for one.
    let stopping = services.stopping.child_token();
    let pipeline = Pipeline::new(services.store.clone(), services.limits, stopping, calls);
    stream::unfold(pipeline, |mut pipeline| async {
        pipeline.next().await.map(|message| (message, pipeline))
    })
}

/// A `PipelineRequest` whose calls are still encoded, as the wire cannot tell messages from bytes: taken apart one by one
/// they need not all be moved about in memory, where each is as large as the largest.
#[derive(Clone, PartialEq, Message)]
struct Incoming {
    #[prost(string, tag = "1")]
    namespace: String,
    #[prost(bytes = "bytes", repeated, tag = "2")]
    calls: Vec<Bytes>,
}

/// One stream of calls.
struct Pipeline<S> {
    store: Arc<Store>,
    limits: Limits,
    stopping: CancellationToken,
    incoming: S,
    is_open: bool,
    /// What the stream ends with once all else is answered.
    error: Option<Status>,
    /// Writes, and the reads ordered after them, that wait for those under way.
    waiting: Round,
    writing: Option<BoxFuture<'static, Written>>,
    /// Reads that wait for others to be done.
    reads: VecDeque<Reading>,
    reading: FuturesUnordered<BoxFuture<'static, Vec<Done>>>,
    /// What has been done, for which there is no room yet in the message to come.
    done: VecDeque<Done>,
    /// The message to come.
    answers: Answers,
}

/// Writes that are submitted together, a part for each namespace.
#[derive(Default)]
struct Round {
    calls: usize,
    bytes: usize,
    parts: Vec<Part>,
}

struct Part {
    name: NamespaceName,
    ids: Vec<u64>,
    submissions: Vec<Submission>,
    /// Reads that have to see these writes and all before them.
    ordered: Reads,
}

/// Reads of one namespace.
#[derive(Default)]
struct Reads {
    lookups: Vec<(u64, Lookup)>,
    queries: Vec<(u64, Box<Query>)>,
}

/// What is read in one step.
enum Reading {
    Lookups(NamespaceName, Vec<(u64, Lookup)>),
    Query(NamespaceName, u64, Box<Query>),
}

/// What came of a round.
struct Written {
    done: Vec<Done>,
    ordered: Vec<(NamespaceName, Reads)>,
}

impl<S: Stream<Item = Result<Incoming, Status>> + Unpin> Pipeline<S> {
    fn new(store: Arc<Store>, limits: Limits, stopping: CancellationToken, incoming: S) -> Self {
        Self {
            store,
            limits,
            stopping,
            incoming,
            is_open: true,
            error: None,
            waiting: Round::default(),
            writing: None,
            reads: VecDeque::new(),
            reading: FuturesUnordered::new(),
            done: VecDeque::new(),
            answers: Answers::default(),
        }
    }

    /// The next answers; nothing once the stream has ended and everything is answered.
    async fn next(&mut self) -> Option<Result<Bytes, Status>> {
        loop {
            self.take_queued().await;
            self.run_ready();
            if let Some(response) = self.answers.take() {
                return Some(Ok(response));
            }
            if !self.is_open && self.writing.is_none() && self.reading.is_empty() {
                return self.error.take().map(Err);
            }
            self.wait().await;
        }
    }

    /// Takes in what has come, as far as there is room; if the server is stopping, for the last time.
    async fn take_queued(&mut self) {
        let is_stopping = self.stopping.is_cancelled();
        while self.has_room()
            && let Some(message) = self.incoming.next().now_or_never()
        {
            self.take(message).await;
        }
        if is_stopping && self.is_open {
            self.end(Failure::stopping().into());
        }
    }

    /// Runs everything that can be done without waiting.
    fn run_ready(&mut self) {
        loop {
            if self.writing.is_none() && !self.waiting.parts.is_empty() {
                let round = std::mem::take(&mut self.waiting);
                self.writing = Some(write(self.store.clone(), round).boxed());
            }
            let written = self.writing.as_mut().and_then(|writing| writing.now_or_never());
            let has_written = written.is_some();
            if let Some(written) = written {
                self.note_written(written);
            }
            if !self.read_ready() && !has_written {
                return;
            }
        }
    }

    /// Starts reads and notes what has been read, while answers fit into a message; answers whether there was any.
    fn read_ready(&mut self) -> bool {
        let mut has_read = false;
        loop {
            self.tell_done();
            if self.answers.bytes() >= MESSAGE_BYTES {
                return has_read;
            }
            while self.reading.len() < MAX_READING
                && let Some(reading) = self.reads.pop_front()
            {
                self.reading.push(reading.run(self.store.clone()).boxed());
            }
            let Some(Some(done)) = self.reading.next().now_or_never() else {
                return has_read;
            };
            self.done.extend(done);
            has_read = true;
        }
    }

    /// Answers what has been done, as far as it fits into a message.
    fn tell_done(&mut self) {
        while let Some(done) = self.done.front_mut()
            && done.tell(&mut self.answers)
        {
            self.done.pop_front();
        }
    }

    /// Waits until something has come or is done.
    async fn wait(&mut self) {
        let has_room = self.has_room();
        let writing = async {
            match &mut self.writing {
                Some(writing) => writing.await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            written = writing => self.note_written(written),
            Some(done) = self.reading.next() => self.done.extend(done),
            message = self.incoming.next(), if has_room => self.take(message).await,
            () = self.stopping.cancelled(), if self.is_open => {}
        }
    }

    fn note_written(&mut self, written: Written) {
        self.writing = None;
        self.done.extend(written.done);
        for (name, ordered) in written.ordered {
            self.queue_reads(&name, ordered);
        }
    }

    fn queue_reads(&mut self, name: &NamespaceName, Reads { mut lookups, queries }: Reads) {
        if let Some(Reading::Lookups(known, waiting)) = self.reads.back_mut()
            && known == name
        {
            let room = MAX_LOOKUPS - waiting.len();
            waiting.extend(lookups.drain(..room.min(lookups.len())));
        }
        while !lookups.is_empty() {
            let rest = lookups.split_off(lookups.len().min(MAX_LOOKUPS));
            self.reads.push_back(Reading::Lookups(name.clone(), lookups));
            lookups = rest;
        }
        let queries = queries.into_iter();
        self.reads.extend(queries.map(|(id, query)| Reading::Query(name.clone(), id, query)));
    }

    fn has_room(&self) -> bool {
        self.is_open
            && self.waiting.calls < MAX_CALLS
            && self.waiting.bytes < MAX_BYTES
            && self.waiting.parts.len() < MAX_PARTS
            && self.reads.len() < MAX_WAITING_READS
            && self.answers.bytes() < MESSAGE_BYTES
            && self.done.is_empty()
    }

    async fn take(&mut self, message: Option<Result<Incoming, Status>>) {
        let taken = match message {
            Some(Ok(message)) => self.take_message(message).await,
            Some(Err(error)) => Err(error),
            None => {
                self.is_open = false;
                return;
            }
        };
        if let Err(error) = taken {
            self.end(error);
        }
    }

    /// Takes in nothing more.
    fn end(&mut self, error: Status) {
        self.is_open = false;
        self.error = Some(error);
    }

    /// Takes in the calls of a message. A call that is no good is answered by its error, what is no message ends the
    /// stream.
    async fn take_message(&mut self, message: Incoming) -> Result<(), Status> {
        let name = validate::namespace(&message.namespace)?;
        let count = message.calls.len();
        if !(1..=MAX_CALLS).contains(&count) {
            let problem =
                format!("has {count}, 1 to {MAX_CALLS} are allowed; send several messages");
            let calls = Path::of("calls");
            return Err(Failure::invalid(ErrorReason::InvalidBatch, calls, problem).into());
        }
        tracing::debug!(namespace = name.as_str(), count, "pipeline");
        let mut now_ms = None;
        let mut unordered = Reads::default();
        let mut calls = message.calls.into_iter();
        while let Some(call) = calls.next() {
            let PipelineCall { id, ordered, operation } =
                PipelineCall::decode(call).map_err(|error| Status::internal(error.to_string()))?;
            let read_bytes = match &operation {
                Some(operation) if ordered => operation.encoded_len(),
                _ => 0,
            };
            let checked = operation
                .ok_or_else(no_operation)
                .and_then(|operation| dispatch::check(operation, &name, self.limits));
            let call = match checked {
                Ok(Checked { call, latest: None }) => Ok(call),
                Ok(Checked { call, latest: Some(latest) }) => {
                    check_latest(&self.store, &latest, &mut now_ms).await.map(|()| call)
                }
                Err(failure) => Err(failure),
            };
            let read = match call {
                Ok(Call::Write(submission)) => {
                    self.waiting.write(&name, id, submission, calls.len());
                    continue;
                }
                Ok(Call::Read(read)) => read,
                Err(failure) => {
                    self.answers.push(id, Err(failure));
                    continue;
                }
            };
            match ordered {
                true => {
                    self.waiting.bytes += read_bytes;
                    self.waiting.part(&name).ordered.push(id, read);
                }
                false => unordered.push(id, read),
            }
        }
        self.queue_reads(&name, unordered);
        Ok(())
    }
}

impl Round {
    /// Adds a write; there is to be room for so many more, for submissions are too large to be moved about.
    fn write(&mut self, name: &NamespaceName, id: u64, submission: Submission, more: usize) {
        self.bytes += submission.bytes();
        let part = self.part(name);
        part.ids.reserve(1 + more);
        part.ids.push(id);
        part.submissions.reserve(1 + more);
        part.submissions.push(submission);
    }

    /// The part of a namespace, for one more call.
    fn part(&mut self, name: &NamespaceName) -> &mut Part {
        self.calls += 1;
        let known = self.parts.iter().position(|part| part.name == *name);
        let index = known.unwrap_or_else(|| {
            self.parts.push(Part {
                name: name.clone(),
                ids: Vec::new(),
                submissions: Vec::new(),
                ordered: Reads::default(),
            });
            self.parts.len() - 1
        });
        &mut self.parts[index]
    }
}

impl Reads {
    fn push(&mut self, id: u64, read: Read) {
        match read {
            Read::Lookup(lookup) => self.lookups.push((id, lookup)),
            Read::Query(query) => self.queries.push((id, query)),
        }
    }
}

impl Reading {
    async fn run(self, store: Arc<Store>) -> Vec<Done> {
        match self {
            Self::Lookups(name, lookups) => look_up(&store, &name, lookups).await,
            Self::Query(name, id, query) => {
                vec![Done::Queried(Some(Box::new((id, query.run(&store, &name).await))))]
            }
        }
    }
}

/// Checks a moment that a call names. The clock is asked at most once for all of a message.
async fn check_latest(
    store: &Store,
    latest: &Latest,
    now_ms: &mut Option<i64>,
) -> Result<(), Failure> {
    let now_ms = match *now_ms {
        Some(now_ms) => now_ms,
        None => *now_ms.insert(store.backend().now_ms().await?),
    };
    latest.check(now_ms)
}

/// Submits a round, all namespaces at the same time.
async fn write(store: Arc<Store>, round: Round) -> Written {
    let parts = round.parts.into_iter().map(|part| write_part(&store, part));
    let (done, ordered) = join_all(parts).await.into_iter().unzip();
    Written { done, ordered }
}

async fn write_part(store: &Arc<Store>, part: Part) -> (Done, (NamespaceName, Reads)) {
    let Part { name, ids, submissions, ordered } = part;
    let outcomes = match submissions.is_empty() {
        true => Vec::new(),
        false => store.submit(&name, submissions).await,
    };
    let calls = ids.into_iter().zip(outcomes);
    (Done::Written(name.clone(), calls), (name, ordered))
}

/// Looks at several keys in one read; where one of them cannot be read, at each by itself.
async fn look_up(store: &Store, name: &NamespaceName, lookups: Vec<(u64, Lookup)>) -> Vec<Done> {
    let mut keys = Vec::with_capacity(lookups.len());
    let mut asked = Vec::with_capacity(lookups.len());
    for (id, Lookup { key, look }) in lookups {
        store.count_read();
        keys.push(key);
        asked.push((id, look));
    }
    let found = store.read(name, &keys, None).await;
    let is_one_of_many =
        keys.len() > 1 && matches!(&found, Err(StoreError::Backend(BackendError::Corrupt(_))));
    if !is_one_of_many {
        return vec![Done::looked(asked, found)];
    }
    let mut done = Vec::with_capacity(keys.len());
    for (key, asked) in keys.into_iter().zip(asked) {
        done.push(Done::looked(vec![asked], store.read(name, &[key], None).await));
    }
    done
}

fn no_operation() -> Failure {
    let problem = "is missing; set one of its kinds";
    Failure::invalid(ErrorReason::InvalidOperation, Path::of("operation"), problem)
}
