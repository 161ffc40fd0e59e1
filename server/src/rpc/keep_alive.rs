//! `LeaseService.KeepAlive`: many leases kept alive over one stream.
//!
//! Whatever is queued is taken in together and becomes one submission for each namespace; while that is under way,
//! and while the client does not take its answers, the stream is not read on. So what it costs is bounded.
//!
//! When the server stops, what is queued is taken in once more, as far as there is room, and the stream ends with an
//! error after the answers to it.

use std::{collections::HashMap, sync::Arc};

use async_stream::try_stream;
use futures::{FutureExt as _, Stream, StreamExt as _, future::join_all};
use holdfast_proto::v1::{
    KeepAliveRequest, KeepAliveResponse, keep_alive_response, pipeline_answer::Result as Outcome,
};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    dispatch::{self, Call},
    lease,
    status::Failure,
    validate,
};
use crate::{
    backend::NamespaceName,
    store::{Store, Submission},
};

/// Most requests that are taken in together.
const MAX_TOGETHER: usize = 4096;
/// About the most bytes of them: names of namespaces can be of any length before they are checked.
const MAX_BYTES: usize = 1 << 20;

/// The answers to a stream of requests, one each.
pub(super) fn answers(
    store: Arc<Store>,
    stopping: CancellationToken,
    requests: impl Stream<Item = Result<KeepAliveRequest, Status>> + Send + Unpin,
) -> impl Stream<Item = Result<KeepAliveResponse, Status>> + Send {
    let mut incoming = Incoming { requests, stopping, end: None };
    try_stream! {
        while incoming.end.is_none() {
            let taken = incoming.take().await;
            for answer in keep_alive(&store, taken).await {
                yield answer;
            }
        }
        if let Some(Err(error)) = incoming.end {
            Err(error)?;
        }
    }
}

/// The requests of a stream.
struct Incoming<S> {
    requests: S,
    stopping: CancellationToken,
    /// How the stream ends, once nothing more is taken in.
    end: Option<Result<(), Status>>,
}

/// Renewals of one namespace, each with the place of its request.
#[derive(Default)]
struct Part {
    places: Vec<usize>,
    submissions: Vec<Submission>,
}

impl<S: Stream<Item = Result<KeepAliveRequest, Status>> + Unpin> Incoming<S> {
    /// What has come, as far as there is room; waits until there is something, or the end.
    async fn take(&mut self) -> Vec<KeepAliveRequest> {
        let mut is_last = self.stopping.is_cancelled();
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while taken.len() < MAX_TOGETHER && bytes < MAX_BYTES && self.end.is_none() {
            let message = match self.requests.next().now_or_never() {
                Some(message) => message,
                None if is_last || !taken.is_empty() => break,
                None => tokio::select! {
                    message = self.requests.next() => message,
                    () = self.stopping.cancelled() => {
                        is_last = true;
                        continue;
                    }
                },
            };
            match message {
                Some(Ok(request)) => {
                    bytes += request.encoded_len();
                    taken.push(request);
                }
                Some(Err(error)) => self.end = Some(Err(error)),
                None => self.end = Some(Ok(())),
            }
        }
        if is_last {
            self.end.get_or_insert(Err(Failure::stopping().into()));
        }
        taken
    }
}

/// Keeps leases alive, all namespaces at the same time; answers in the order of the requests.
async fn keep_alive(store: &Arc<Store>, requests: Vec<KeepAliveRequest>) -> Vec<KeepAliveResponse> {
    let mut parts: HashMap<NamespaceName, Part> = HashMap::new();
    let mut results = Vec::with_capacity(requests.len());
    for (place, request) in requests.iter().enumerate() {
        let checked = check(request).map(|(name, submission)| {
            let part = parts.entry(name).or_default();
            part.places.push(place);
            part.submissions.push(submission);
        });
        results.push(checked.err().map(Err));
    }
    let parts = parts.into_iter().map(|(name, part)| part.run(store, name));
    for (place, result) in join_all(parts).await.into_iter().flatten() {
        results[place] = Some(result);
    }
    let answered = |(request, result): (KeepAliveRequest, Option<Result<_, _>>)| {
        let unanswered = || Err(Failure::internal("a renewal was not answered"));
        result.unwrap_or_else(unanswered).unwrap_or_else(|failure| failed(request, failure))
    };
    requests.into_iter().zip(results).map(answered).collect()
}

fn check(request: &KeepAliveRequest) -> Result<(NamespaceName, Submission), Failure> {
    let name = validate::namespace(&request.namespace)?;
    match lease::keep_alive(request)? {
        Call::Write(submission) => Ok((name, submission)),
        Call::Read(_) => Err(Failure::internal("a renewal was taken for a read")),
    }
}

impl Part {
    async fn run(
        self,
        store: &Arc<Store>,
        name: NamespaceName,
    ) -> Vec<(usize, Result<KeepAliveResponse, Failure>)> {
        let outcomes = store.submit(&name, self.submissions).await;
        let response = |outcome: Result<_, _>| match dispatch::answer(&name, outcome?)? {
            Outcome::KeepAlive(response) => Ok(response),
            _ => Err(Failure::internal("a renewal was answered by what it did not ask for")),
        };
        self.places.into_iter().zip(outcomes.into_iter().map(response)).collect()
    }
}

/// Names what was asked about, but no namespace that is longer than one can be: no answer is to be as large as a request.
fn failed(request: KeepAliveRequest, failure: Failure) -> KeepAliveResponse {
    let KeepAliveRequest { mut namespace, lease_id } = request;
    if namespace.len() > validate::MAX_NAMESPACE_BYTES {
        namespace.clear();
    }
    let result = Some(keep_alive_response::Result::Status(failure.into()));
    KeepAliveResponse { namespace, lease_id, result, ..KeepAliveResponse::default() }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn request(lease_id: u64) -> Result<KeepAliveRequest, Status> {
        Ok(KeepAliveRequest { lease_id, ..KeepAliveRequest::default() })
    }

    fn incoming<S>(requests: S) -> Incoming<S> {
        Incoming { requests, stopping: CancellationToken::new(), end: None }
    }

    fn ids(taken: Vec<KeepAliveRequest>) -> Vec<u64> {
        taken.into_iter().map(|request| request.lease_id).collect()
    }

    fn code(end: &Option<Result<(), Status>>) -> Option<tonic::Code> {
        end.as_ref().map(|end| end.as_ref().map_or_else(Status::code, |()| tonic::Code::Ok))
    }

    #[tokio::test]
    async fn what_is_queued_is_taken_together() {
        let mut incoming = incoming(stream::iter([1, 2, 3].map(request)).chain(stream::pending()));
        assert_eq!(ids(incoming.take().await), [1, 2, 3]);
        assert_eq!(code(&incoming.end), None);
    }

    #[tokio::test]
    async fn what_is_taken_together_is_bounded() {
        let mut incoming = incoming(stream::iter((1..=MAX_TOGETHER as u64 + 5).map(request)));
        assert_eq!(incoming.take().await.len(), MAX_TOGETHER);
        assert_eq!(incoming.take().await.len(), 5);
        assert_eq!(code(&incoming.end), Some(tonic::Code::Ok));
        let large = KeepAliveRequest { namespace: "n".repeat(MAX_BYTES), lease_id: 1 };
        let mut incoming = super::tests::incoming(stream::iter([Ok(large), request(2)]));
        assert_eq!(ids(incoming.take().await), [1]);
    }

    #[tokio::test]
    async fn an_error_comes_after_what_was_sent_before_it() {
        let broken = Err(Status::aborted("broken"));
        let mut incoming = incoming(stream::iter([request(1), broken, request(2)]));
        assert_eq!(ids(incoming.take().await), [1]);
        assert_eq!(code(&incoming.end), Some(tonic::Code::Aborted));
    }

    #[tokio::test]
    async fn a_stop_lets_what_is_queued_be_taken_in() {
        let mut incoming = incoming(stream::iter([1, 2].map(request)).chain(stream::pending()));
        incoming.stopping.cancel();
        assert_eq!(ids(incoming.take().await), [1, 2]);
        assert_eq!(code(&incoming.end), Some(tonic::Code::Unavailable));
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let mut incoming = incoming(stream::pending());
        let stopping = incoming.stopping.clone();
        let (taken, ()) = tokio::join!(incoming.take(), async { stopping.cancel() });
        assert!(taken.is_empty());
        assert_eq!(code(&incoming.end), Some(tonic::Code::Unavailable));
    }
}
