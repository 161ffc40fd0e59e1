//! Transactions against a server that answers by a script.

use std::sync::{Arc, Mutex};

use holdfast_proto::v1::{
    self,
    transaction_service_server::{TransactionService, TransactionServiceServer},
};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};
use tonic_types::pb;

use crate::{Client, Error, Op, Revision, TransactOptions};

struct Script {
    answers: Mutex<std::vec::IntoIter<Result<bool, Status>>>,
    asked: Mutex<Vec<v1::TransactRequest>>,
}

#[tonic::async_trait]
impl TransactionService for Script {
    async fn transact(
        &self,
        request: Request<v1::TransactRequest>,
    ) -> Result<Response<v1::TransactResponse>, Status> {
        self.asked.lock().expect("no panic").push(request.into_inner());
        let answer = self.answers.lock().expect("no panic").next();
        let succeeded = answer.unwrap_or_else(|| Err(Status::internal("the script is over")))?;
        Ok(Response::new(v1::TransactResponse { revision: 9, succeeded, ..Default::default() }))
    }
}

/// A client of a server that answers each transaction with the next of `answers`: whether all compares
/// hold, or an error.
async fn scripted(answers: Vec<Result<bool, Status>>) -> (Client, Arc<Script>) {
    let script =
        Arc::new(Script { answers: Mutex::new(answers.into_iter()), asked: Mutex::default() });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tonic::transport::Server::builder()
        .add_service(TransactionServiceServer::from_arc(Arc::clone(&script)))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let client = Client::builder(address.to_string()).connect_lazy();
    (client.expect("a client"), script)
}

impl Script {
    fn times_asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }

    fn request_ids(&self) -> Vec<Option<v1::RequestId>> {
        let asked = self.asked.lock().expect("no panic");
        asked.iter().map(|request| request.options.clone()?.request_id).collect()
    }
}

fn unreachable_client() -> Client {
    let client = Client::builder("127.0.0.1:1").connect_lazy();
    client.expect("a client")
}

/// The status of an error as the server makes it.
pub(crate) fn status(code: Code, reason: &str) -> Status {
    let info = pb::ErrorInfo {
        reason: reason.to_owned(),
        domain: "holdfast".to_owned(),
        metadata: Default::default(),
    };
    let rich = pb::Status {
        code: code as i32,
        message: String::new(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    Status::with_details(code, "", rich.encode_to_vec().into())
}

/// A transaction must be able to run in a task of its own.
#[tokio::test]
async fn a_transaction_can_be_spawned_and_a_failing_closure_sends_nothing() {
    let namespace = unreachable_client().namespace("n");
    let transaction = tokio::spawn(async move {
        namespace
            .transact(async |tx| {
                tx.set("a", &1)?;
                assert_eq!(tx.get::<u32>("a").await?, Some(1));
                Err::<(), _>(Error::TransactionEnded)
            })
            .await
    });
    let ended = transaction.await.expect("no panic");
    assert!(matches!(ended, Err(Error::TransactionEnded)));
}

#[tokio::test]
async fn a_transaction_that_does_nothing_sends_nothing() {
    let namespace = unreachable_client().namespace("n");
    let done = namespace.transact(async |_| Ok(7)).await.expect("no call");
    assert_eq!((done.value, done.header, done.attempts), (7, None, 1));
}

#[tokio::test]
async fn a_conflict_runs_the_closure_again() {
    let (client, script) = scripted(vec![Ok(false), Ok(false), Ok(true)]).await;
    let namespace = client.namespace("n");
    let done = namespace.transact(async |tx| tx.set("a", &1)).await;
    let done = done.expect("the third attempt succeeds");
    assert_eq!(done.attempts, 3);
    assert_eq!(done.header.expect("a write").revision, Revision::new(9));
    assert_eq!(script.times_asked(), 3);
}

#[tokio::test]
async fn attempts_are_bounded_and_told() {
    let (client, script) = scripted(vec![Ok(false), Ok(false), Ok(true)]).await;
    let options = TransactOptions::new().max_attempts(2);
    let namespace = client.namespace("n");
    let done =
        namespace.transact_with(options, async |tx| -> Result<(), Error> { tx.set("a", &1) }).await;
    assert!(matches!(done, Err(Error::Conflict { attempts: 2 })), "{done:?}");
    assert_eq!(script.times_asked(), 2);
}

#[tokio::test]
async fn an_error_of_the_callers_own_rolls_back() {
    #[derive(Debug)]
    enum Mine {
        Holdfast,
        Enough,
    }
    impl From<Error> for Mine {
        fn from(_: Error) -> Self {
            Mine::Holdfast
        }
    }
    let (client, script) = scripted(vec![]).await;
    let namespace = client.namespace("n");
    let enough = namespace
        .transact_with(TransactOptions::new(), async |tx| {
            tx.set("a", &1)?;
            Err::<(), _>(Mine::Enough)
        })
        .await;
    assert!(matches!(enough, Err(Mine::Enough)), "{enough:?}");
    assert_eq!(script.times_asked(), 0);
}

#[tokio::test]
async fn a_write_that_was_surely_not_applied_is_sent_again() {
    let away = status(Code::Unavailable, "BACKEND_UNAVAILABLE");
    let busy = status(Code::ResourceExhausted, "OVERLOADED");
    let (client, script) = scripted(vec![Err(away), Err(busy), Ok(true)]).await;
    let transaction = client.namespace("n").transaction();
    let outcome = transaction.then(Op::set("a", "1")).await;
    assert!(outcome.expect("the third attempt").succeeded);
    assert_eq!(script.times_asked(), 3);
}

#[tokio::test]
async fn a_write_whose_answer_is_lost_is_sent_again_by_the_same_id() {
    let (client, script) = scripted(vec![Err(Status::unknown("reset")), Ok(true), Ok(true)]).await;
    let namespace = client.namespace("n");
    for _ in 0..2 {
        let outcome = namespace.transaction().then(Op::delete("a")).await;
        assert!(outcome.expect("the last attempt").succeeded);
    }
    let ids = script.request_ids();
    let numbers: Vec<_> = ids.iter().flatten().map(|id| (id.seq, id.done_below)).collect();
    assert_eq!(numbers, [(1, 1), (1, 1), (2, 2)]);
    assert!(ids.iter().flatten().all(|id| id.client_id.len() == 8));
}

#[tokio::test]
async fn a_write_that_may_have_been_applied_never_fails_cleanly() {
    let lost = || Err(Status::unknown("reset"));
    let away = || Err(status(Code::Unavailable, "BACKEND_UNAVAILABLE"));
    let (client, script) = scripted(vec![lost(), away(), away(), away(), away()]).await;
    let transaction = client.namespace("n").transaction();
    let outcome = transaction.then(Op::delete("a")).await;
    assert!(matches!(outcome, Err(Error::OutcomeUnknown { .. })), "{outcome:?}");
    assert_eq!(script.times_asked(), 5);
}

#[tokio::test]
async fn guards_go_with_the_write_at_the_end() {
    let (client, script) = scripted(vec![Ok(true)]).await;
    let options = TransactOptions::new().guard_token("job", 7);
    let namespace = client.namespace("n");
    let transacted = namespace.transact_with(options, async |tx| tx.set("a", "1"));
    transacted.await.expect("committed");
    let asked = script.asked.lock().expect("no panic");
    let guards = &asked[0].options.as_ref().expect("options").guards;
    assert_eq!(*guards, [v1::Guard { lock: "job".to_owned(), token: 7 }]);
}

#[tokio::test]
async fn a_transaction_that_only_reads_is_sent_again() {
    let (client, script) = scripted(vec![Err(Status::unknown("reset")), Ok(true)]).await;
    let transaction = client.namespace("n").transaction();
    let outcome = transaction.then(Op::get("a")).await;
    assert!(outcome.expect("the second attempt").succeeded);
    assert_eq!(script.request_ids(), [None, None]);
}

#[tokio::test]
async fn a_value_that_does_not_fit_the_codec_sends_nothing() {
    let unfit = std::collections::HashMap::from([((1, 2), 3)]);
    let (client, script) = scripted(vec![]).await;
    let transaction = client.namespace("n").transaction();
    let outcome = transaction.then(Op::set("a", &unfit)).await;
    assert!(matches!(outcome, Err(Error::Codec { key, .. }) if key == "a"));
    assert_eq!(script.times_asked(), 0);
}
