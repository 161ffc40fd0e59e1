//! A stream that keeps leases alive.

use holdfast_proto::v1::{lease_service_client::LeaseServiceClient, *};
use tokio::sync::mpsc;
use tonic::Streaming;

use super::{coordination::keep_alive, namespace::Namespace};

/// An open stream.
pub struct Keeper {
    requests: Option<mpsc::UnboundedSender<KeepAliveRequest>>,
    answers: Streaming<KeepAliveResponse>,
}

impl Keeper {
    pub async fn open(namespace: &Namespace) -> Self {
        let (requests, mut queue) = mpsc::unbounded_channel();
        let stream = futures::stream::poll_fn(move |context| queue.poll_recv(context));
        let mut client = LeaseServiceClient::new(namespace.channel.clone());
        let answers = client.keep_alive(stream).await.expect("a stream opens");
        Keeper { requests: Some(requests), answers: answers.into_inner() }
    }

    /// Asks for more time for a lease.
    pub fn send(&self, namespace: &Namespace, lease_id: u64) {
        let request =
            KeepAliveRequest { namespace: namespace.name.clone(), ..keep_alive(lease_id) };
        let requests = self.requests.as_ref().expect("not finished");
        // A stream that has ended shows when its answers are read.
        let _ = requests.send(request);
    }

    /// Says that nothing more will come.
    pub fn finish(&mut self) {
        self.requests = None;
    }

    /// The next answer; `None` when the stream has ended well.
    pub async fn next(&mut self) -> Option<KeepAliveResponse> {
        self.answers.message().await.expect("the stream lives")
    }

    /// The next so many answers.
    pub async fn answers(&mut self, count: usize) -> Vec<KeepAliveResponse> {
        let mut answers = Vec::new();
        while answers.len() < count {
            answers.push(self.next().await.expect("the stream goes on"));
        }
        answers
    }
}
