//! Calls of several callers over one pipeline: what is queued is sent together.

use std::collections::HashMap;

use holdfast_proto::v1::{
    PipelineCall, PipelineRequest, SetRequest, pipeline_answer::Result as Outcome,
    pipeline_call::Operation, pipeline_service_client::PipelineServiceClient,
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Streaming, transport::Channel};

/// Most calls of one message.
const MAX_CALLS: usize = 1024;

/// A set, and who waits for its answer.
type Waiting = (SetRequest, oneshot::Sender<()>);

/// An open pipeline; its clones share it.
#[derive(Clone)]
pub struct Pipeline(mpsc::UnboundedSender<Waiting>);

impl Pipeline {
    /// Opens one for calls on a namespace.
    pub async fn open(channel: Channel, namespace: &'static str) -> Self {
        let (calls, queue) = mpsc::unbounded_channel();
        let (messages, mut sent) = mpsc::unbounded_channel();
        let stream = futures::stream::poll_fn(move |context| sent.poll_recv(context));
        let answers = PipelineServiceClient::new(channel).pipeline(stream).await;
        let answers = answers.expect("a pipeline opens").into_inner();
        tokio::spawn(carry(namespace, queue, messages, answers));
        Self(calls)
    }

    /// Sets, and waits for the answer.
    pub async fn set(&self, request: SetRequest) {
        let (answer, answered) = oneshot::channel();
        self.0.send((request, answer)).expect("the pipeline is open");
        answered.await.expect("a set succeeds");
    }
}

/// Sends what is queued as one message, and hands answers to who waits for them.
async fn carry(
    namespace: &'static str,
    mut queue: mpsc::UnboundedReceiver<Waiting>,
    messages: mpsc::UnboundedSender<PipelineRequest>,
    mut answers: Streaming<holdfast_proto::v1::PipelineResponse>,
) {
    let (mut id, mut queued, mut waiting) = (0, Vec::new(), HashMap::new());
    loop {
        tokio::select! {
            count = queue.recv_many(&mut queued, MAX_CALLS) => {
                if count == 0 {
                    return;
                }
                let calls = queued.drain(..).map(|(request, answer)| {
                    id += 1;
                    waiting.insert(id, answer);
                    PipelineCall { id, ordered: false, operation: Some(Operation::Set(request)) }
                });
                let message =
                    PipelineRequest { namespace: namespace.into(), calls: calls.collect() };
                messages.send(message).expect("the pipeline is open");
            }
            answered = answers.message() => {
                // Who still waits for an answer then finds out by itself.
                let Ok(Some(answered)) = answered else {
                    return;
                };
                for answer in answered.answers {
                    assert!(matches!(answer.result, Some(Outcome::Set(_))), "a set succeeds");
                    let waiting = waiting.remove(&answer.id).expect("it was asked for");
                    // The round may be over.
                    let _ = waiting.send(());
                }
            }
        }
    }
}
