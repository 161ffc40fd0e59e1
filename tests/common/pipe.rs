//! A pipeline stream.

use std::collections::{HashMap, VecDeque};

use holdfast_proto::v1::{
    pipeline_answer::Result as Outcome, pipeline_call::Operation as Op,
    pipeline_service_client::PipelineServiceClient, *,
};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{failure::Failure, namespace::Namespace};

/// An open pipeline.
pub struct Pipe {
    requests: Option<mpsc::UnboundedSender<PipelineRequest>>,
    answers: Streaming<PipelineResponse>,
    arrived: VecDeque<PipelineAnswer>,
    namespace: String,
    next_id: u64,
}

impl Pipe {
    pub async fn open(namespace: &Namespace) -> Self {
        let (requests, mut queue) = mpsc::unbounded_channel();
        let stream = futures::stream::poll_fn(move |context| queue.poll_recv(context));
        let mut client = PipelineServiceClient::new(namespace.channel.clone());
        let answers = client.pipeline(stream).await.expect("a pipeline opens");
        Pipe {
            requests: Some(requests),
            answers: answers.into_inner(),
            arrived: VecDeque::new(),
            namespace: namespace.name.clone(),
            next_id: 1,
        }
    }

    /// Sends one message of unordered calls; the id of the first, the others follow it.
    pub fn send(&mut self, operations: impl IntoIterator<Item = Op>) -> u64 {
        let calls = operations.into_iter().map(|operation| PipelineCall {
            id: 0,
            ordered: false,
            operation: Some(operation),
        });
        self.send_calls(calls.collect())
    }

    /// Sends one message of calls and numbers them; the id of the first.
    pub fn send_calls(&mut self, mut calls: Vec<PipelineCall>) -> u64 {
        let first = self.next_id;
        for call in &mut calls {
            call.id = self.next_id;
            self.next_id += 1;
        }
        self.send_raw(PipelineRequest { namespace: self.namespace.clone(), calls });
        first
    }

    /// Sends a message as it is.
    pub fn send_raw(&mut self, request: PipelineRequest) {
        let requests = self.requests.as_ref().expect("not finished");
        // A stream that has ended shows when its answers are read.
        let _ = requests.send(request);
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        self.requests = None;
    }

    /// The next answer; `None` when the stream has ended well.
    pub async fn next(&mut self) -> Result<Option<PipelineAnswer>, Failure> {
        while self.arrived.is_empty() {
            match self.answers.message().await? {
                Some(message) => self.arrived.extend(message.answers),
                None => return Ok(None),
            }
        }
        Ok(self.arrived.pop_front())
    }

    /// The next `count` answers by their ids.
    pub async fn answers(&mut self, count: usize) -> HashMap<u64, Outcome> {
        let mut answers = HashMap::new();
        for _ in 0..count {
            let answer = self.next().await.expect("the pipeline lives");
            let answer = answer.expect("the pipeline goes on");
            let outcome = answer.result.expect("an answer has a result");
            let twice = answers.insert(answer.id, outcome);
            assert!(twice.is_none(), "two answers for call {}", answer.id);
        }
        answers
    }

    /// Runs one operation.
    pub async fn run(&mut self, operation: Op) -> Outcome {
        let id = self.send([operation]);
        let mut answers = self.answers(1).await;
        answers.remove(&id).expect("the answer has the id of its call")
    }
}
