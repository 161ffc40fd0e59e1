//! A client that does what the workload says, and has everything recorded.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use holdfast_proto::v1::{pipeline_answer::Result as Answer, pipeline_call::Operation as Op, *};
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::timeout;
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

use crate::{
    common::{build, coordination::kept, failure::Failure, namespace::Namespace},
    history::{Call, Outcome, Recorder, Request, Sent, options},
    servers::AWAY,
    workload::{Step, Workload},
};

/// How long a call may take, beside the time it says that it waits.
const CALL_LIMIT: Duration = Duration::from_millis(1200);

/// How often a call is sent whose fate is not known, if it may be.
const MOST_ATTEMPTS: u32 = 6;

/// A namespace as a client works on it.
pub struct Member {
    pub namespace: String,
    pub recorder: Arc<Recorder>,
    pub workload: Workload,
}

/// One client: one call at a time, over one connection, whatever the namespace.
pub struct Client {
    pub index: usize,
    pub random: StdRng,
    pub endpoints: Vec<Endpoint>,
    members: Vec<Member>,
    channel: Channel,
}

impl Client {
    pub fn new(
        index: usize,
        mut random: StdRng,
        endpoints: Vec<Endpoint>,
        members: Vec<Member>,
    ) -> Self {
        let channel = connect(&endpoints, &mut random);
        Client { index, random, endpoints, members, channel }
    }

    /// Does so many steps.
    pub async fn run(mut self, steps: usize) {
        let mut done = 0;
        while done < steps {
            let at = self.random.random_range(0..self.members.len());
            let calls = match self.members[at].workload.next(&mut self.random) {
                Step::One(request, vanishes) => vec![self.perform(at, request, vanishes).await],
                Step::Message(operations) => self.pipe(at, operations).await,
            };
            let failed = calls.iter().all(is_away);
            // What a store that is away for seconds refuses is no load; what comes after that is to be some.
            if !calls.iter().all(is_refused) {
                done += calls.len();
            }
            let member = &mut self.members[at];
            for call in calls {
                member.workload.learn(&call);
                member.recorder.call(call);
            }
            if failed {
                // The server may be away for a while.
                tokio::time::sleep(AWAY).await;
            }
        }
    }

    /// Calls that travel in one message of a pipeline. Those that were not answered are not sent again.
    async fn pipe(&mut self, at: usize, operations: Vec<(Op, bool)>) -> Vec<Call> {
        let recorder = self.members[at].recorder.clone();
        let invoked = recorder.now();
        let numbered = (0..).zip(operations.iter().cloned());
        let calls = numbered.map(|(id, (operation, ordered))| {
            let operation = Some(operation);
            PipelineCall { id, ordered, operation }
        });
        let namespace = self.members[at].namespace.clone();
        let request = PipelineRequest { namespace, calls: calls.collect() };
        let mut answers = BTreeMap::new();
        // What came in time is in there.
        let _ = timeout(CALL_LIMIT, answer(self.channel.clone(), request, &mut answers)).await;
        if answers.len() < operations.len() {
            self.channel = connect(&self.endpoints, &mut self.random);
        }
        let returned = recorder.now();
        let mut calls = Vec::new();
        for (id, (operation, ordered)) in (0..).zip(operations) {
            let outcome =
                answers.remove(&id).unwrap_or(Outcome::Unknown { why: "no answer".to_owned() });
            calls.push(Call {
                client: self.index,
                invoked,
                returned,
                attempts: 1,
                sent: Some(Sent { message: (invoked, self.index), ordered }),
                request: Request::Do(operation),
                outcome,
            });
        }
        calls
    }

    /// One call, sent again if its fate is not known and that does no harm; perhaps its caller vanishes in the midst.
    async fn perform(&mut self, at: usize, request: Request, vanishes: bool) -> Call {
        let recorder = self.members[at].recorder.clone();
        let invoked = recorder.now();
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let limit = match vanishes {
                true => Duration::from_micros(self.random.random_range(0..4000)),
                false => CALL_LIMIT + waits(&request),
            };
            let outcome = match timeout(limit, self.send(at, &request)).await {
                Ok(outcome) => outcome,
                Err(_) => Outcome::Unknown { why: "no answer".to_owned() },
            };
            if !matches!(outcome, Outcome::Unknown { .. }) {
                break outcome;
            }
            self.channel = connect(&self.endpoints, &mut self.random);
            // The server may be away for a while.
            tokio::time::sleep(AWAY).await;
            if vanishes || attempts == MOST_ATTEMPTS || !can_be_repeated(&request) {
                break outcome;
            }
        };
        let returned = recorder.now();
        let client = self.index;
        Call { client, invoked, returned, attempts, sent: None, request, outcome }
    }

    async fn send(&self, at: usize, request: &Request) -> Outcome {
        let ns = Namespace {
            name: self.members[at].namespace.clone(),
            channel: self.channel.clone(),
            endpoint: self.endpoints[0].clone(),
            servers: Vec::new(),
        };
        let outcome = match request.clone() {
            Request::Do(op) => send(&ns, op).await.map(Outcome::Answered),
            Request::Clear => ns.call(ClearNamespaceRequest::default()).await.map(Outcome::Cleared),
            Request::Compact(through) => {
                ns.call(build::compact(through)).await.map(Outcome::Compacted)
            }
            Request::Update(settings) => ns.call(of_all(settings)).await.map(Outcome::Updated),
            Request::Look => ns.call(GetNamespaceRequest::default()).await.map(Outcome::Looked),
        };
        outcome.unwrap_or_else(failed)
    }
}

/// Asks for these settings, and the defaults of those that are absent.
fn of_all(settings: NamespaceSettings) -> UpdateNamespaceRequest {
    let names = ["default_ttl_ms", "log_max_events", "log_max_age_ms", "log_max_bytes"];
    let paths = names.map(str::to_owned).to_vec();
    let update_mask = Some(prost_types::FieldMask { paths });
    UpdateNamespaceRequest { update_mask, ..build::update(settings) }
}

/// What a failure says of what became of a call.
fn failed(failure: Failure) -> Outcome {
    match failure.reason.as_str() {
        // Without a reason nobody has said.
        "" | "OUTCOME_UNKNOWN" => Outcome::Unknown { why: failure.message },
        _ => Outcome::Refused(failure),
    }
}

/// Whether nobody was there to do it.
fn is_away(call: &Call) -> bool {
    matches!(call.outcome, Outcome::Unknown { .. }) || is_refused(call)
}

/// Whether the store was not there to do it.
fn is_refused(call: &Call) -> bool {
    matches!(&call.outcome, Outcome::Refused(failure) if failure.reason == "BACKEND_UNAVAILABLE")
}

/// Sends one message of a pipeline, and collects its answers as they come.
async fn answer(
    channel: Channel,
    request: PipelineRequest,
    answers: &mut BTreeMap<u64, Outcome>,
) -> Result<(), Status> {
    let mut client = pipeline_service_client::PipelineServiceClient::new(channel);
    let mut messages = client.pipeline(futures::stream::iter([request])).await?.into_inner();
    while let Some(message) = messages.message().await? {
        for answer in message.answers {
            let outcome = match answer.result {
                Some(Answer::Status(status)) => failed(Failure::from(status)),
                Some(result) => Outcome::Answered(result),
                None => Outcome::Unknown { why: "an answer without a result".to_owned() },
            };
            answers.insert(answer.id, outcome);
        }
    }
    Ok(())
}

/// A connection of its own to one of the servers.
pub fn connect(endpoints: &[Endpoint], random: &mut StdRng) -> Channel {
    endpoints.choose(random).expect("there is a server").connect_lazy()
}

/// Sends a call by itself; all pages of a list. As the model gives it: without names of the namespace and its lineage.
async fn send(ns: &Namespace, op: Op) -> Result<Answer, Failure> {
    match op {
        Op::List(request) => list(ns, request).await.map(Answer::List),
        Op::KeepAlive(request) => keep_alive(ns, request).await,
        other => ns.send(other).await,
    }
}

async fn list(ns: &Namespace, request: ListRequest) -> Result<ListResponse, Failure> {
    let mut whole = ns.call(request.clone()).await?;
    while !whole.next_page_token.is_empty() {
        let page_token = std::mem::take(&mut whole.next_page_token);
        let page = ns.call(ListRequest { page_token, ..request.clone() }).await?;
        let (state, first) = ((page.revision, page.time_ms), (whole.revision, whole.time_ms));
        assert_eq!(state, first, "all pages are of the state of the first");
        whole.entries.extend(page.entries);
        whole.next_page_token = page.next_page_token;
    }
    Ok(ListResponse { lineage: String::new(), ..whole })
}

async fn keep_alive(ns: &Namespace, mut request: KeepAliveRequest) -> Result<Answer, Failure> {
    request.namespace.clone_from(&ns.name);
    let stream = futures::stream::iter([request]);
    let mut client = lease_service_client::LeaseServiceClient::new(ns.channel.clone());
    let mut answers = client.keep_alive(stream).await?.into_inner();
    let Some(answer) = answers.message().await? else {
        return Err(Failure {
            message: "ended without an answer".to_owned(),
            ..Failure::default()
        });
    };
    let lease = kept(answer.clone()).map_err(|failure| *failure)?;
    let result = Some(keep_alive_response::Result::Lease(lease));
    Ok(Answer::KeepAlive(KeepAliveResponse { namespace: String::new(), result, ..answer }))
}

/// How long a call says that it waits.
fn waits(request: &Request) -> Duration {
    match request {
        Request::Do(Op::Acquire(request)) => Duration::from_millis(request.wait_ms),
        _ => Duration::ZERO,
    }
}

/// Whether it is known again when it comes again.
fn can_be_repeated(request: &Request) -> bool {
    match request {
        Request::Do(Op::Acquire(_)) => true,
        Request::Do(op) => options(op).is_some_and(|options| options.request_id.is_some()),
        _ => false,
    }
}
