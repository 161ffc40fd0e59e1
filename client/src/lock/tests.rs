//! Holds against a server that plays a script: what it is asked, and what it answers.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{FutureExt as _, Stream};
use holdfast_proto::v1::{
    self,
    acquire_response::Outcome,
    lock_service_server::{LockService, LockServiceServer},
    release_request::Hold,
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

use crate::{Acquired, Client, Error, LockLoss, Namespace, Token};

const HOUR: Duration = Duration::from_secs(3600);

/// How long the server takes for an answer that comes late.
const LATE: Duration = Duration::from_millis(150);

/// What the server is asked for.
#[derive(Debug)]
enum Asked {
    Acquire(v1::AcquireRequest),
    Renew(v1::RenewRequest),
    Release(v1::ReleaseRequest),
}

/// What it answers to a request for a lock.
enum Answer {
    Granted,
    Late,
    Taken,
    Lost,
    Refused,
    Nothing,
}

struct Script {
    answers: Mutex<std::vec::IntoIter<Answer>>,
    asked: mpsc::UnboundedSender<Asked>,
    renewing: Renewing,
}

/// How it takes renewals.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Renewing {
    Renewed,
    Away,
    Broken,
}

fn lock() -> v1::Lock {
    v1::Lock { name: "job".to_owned(), token: 7, ttl_ms: 3_600_000, ..Default::default() }
}

impl Script {
    fn note(&self, asked: Asked) {
        // A test that has seen enough listens no more.
        let _ = self.asked.send(asked);
    }
}

#[tonic::async_trait]
impl LockService for Script {
    type WatchLocksStream =
        Pin<Box<dyn Stream<Item = Result<v1::WatchLocksResponse, Status>> + Send>>;

    async fn acquire(
        &self,
        request: Request<v1::AcquireRequest>,
    ) -> Result<Response<v1::AcquireResponse>, Status> {
        let request = request.into_inner();
        let mut lock = lock();
        if let Some(v1::acquire_request::Duration::TtlMs(ttl_ms)) = request.duration {
            lock.ttl_ms = ttl_ms;
        }
        self.note(Asked::Acquire(request));
        let answer = self.answers.lock().expect("no panic").next();
        let outcome = match answer.unwrap_or(Answer::Taken) {
            Answer::Granted => Outcome::Lock(lock),
            Answer::Late => {
                tokio::time::sleep(LATE).await;
                Outcome::Lock(lock)
            }
            Answer::Taken => Outcome::Holder(lock),
            Answer::Lost => return Err(Status::unavailable("the connection broke")),
            Answer::Refused => return Err(Status::permission_denied("no more")),
            Answer::Nothing => std::future::pending().await,
        };
        Ok(Response::new(v1::AcquireResponse { outcome: Some(outcome), ..Default::default() }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        self.note(Asked::Renew(request.into_inner()));
        match self.renewing {
            Renewing::Renewed => {
                let lock = Some(v1::Lock { ttl_ms: 7_200_000, ..lock() });
                Ok(Response::new(v1::RenewResponse { lock, ..Default::default() }))
            }
            Renewing::Away => Err(Status::unavailable("away")),
            Renewing::Broken => Err(broken()),
        }
    }

    async fn release(
        &self,
        request: Request<v1::ReleaseRequest>,
    ) -> Result<Response<v1::ReleaseResponse>, Status> {
        self.note(Asked::Release(request.into_inner()));
        if self.renewing == Renewing::Away {
            return Err(Status::unavailable("away"));
        }
        Ok(Response::new(v1::ReleaseResponse { released: true, ..Default::default() }))
    }

    async fn update_value(
        &self,
        _: Request<v1::UpdateValueRequest>,
    ) -> Result<Response<v1::UpdateValueResponse>, Status> {
        Err(broken())
    }

    async fn get_lock(
        &self,
        _: Request<v1::GetLockRequest>,
    ) -> Result<Response<v1::GetLockResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn list_locks(
        &self,
        _: Request<v1::ListLocksRequest>,
    ) -> Result<Response<v1::ListLocksResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn break_lock(
        &self,
        _: Request<v1::BreakLockRequest>,
    ) -> Result<Response<v1::BreakLockResponse>, Status> {
        Err(Status::unimplemented("not in the script"))
    }

    async fn watch_locks(
        &self,
        _: Request<v1::WatchLocksRequest>,
    ) -> Result<Response<Self::WatchLocksStream>, Status> {
        Err(Status::unimplemented("not in the script"))
    }
}

/// The status that says that somebody took the lock away.
fn broken() -> Status {
    use prost::Message as _;
    use tonic_types::pb;
    let metadata = [("lock", "job"), ("token", "7"), ("cause", "broken"), ("reason", "enough")];
    let info = pb::ErrorInfo {
        reason: "LOCK_LOST".to_owned(),
        domain: "holdfast".to_owned(),
        metadata: metadata.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
    };
    let rich = pb::Status {
        code: tonic::Code::FailedPrecondition as i32,
        message: String::new(),
        details: vec![prost_types::Any {
            type_url: "type.googleapis.com/google.rpc.ErrorInfo".to_owned(),
            value: info.encode_to_vec(),
        }],
    };
    let code = tonic::Code::FailedPrecondition;
    Status::with_details(code, "", rich.encode_to_vec().into())
}

/// A namespace of a server that answers each request for a lock with the next of `answers`.
async fn scripted(
    answers: Vec<Answer>,
    renewing: Renewing,
) -> (Namespace, mpsc::UnboundedReceiver<Asked>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let answers = Mutex::new(answers.into_iter());
    let script = Arc::new(Script { answers, asked, renewing });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tonic::transport::Server::builder()
        .add_service(LockServiceServer::from_arc(script))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    let client = Client::builder(address.to_string()).connect_lazy();
    (client.expect("a client").namespace("n"), requests)
}

async fn acquire(requests: &mut mpsc::UnboundedReceiver<Asked>) -> v1::AcquireRequest {
    match requests.recv().await {
        Some(Asked::Acquire(request)) => request,
        other => panic!("not a request for a lock: {other:?}"),
    }
}

async fn renew(requests: &mut mpsc::UnboundedReceiver<Asked>) -> v1::RenewRequest {
    match requests.recv().await {
        Some(Asked::Renew(request)) => request,
        other => panic!("not a renewal: {other:?}"),
    }
}

async fn release(requests: &mut mpsc::UnboundedReceiver<Asked>) -> Hold {
    match requests.recv().await {
        Some(Asked::Release(request)) => request.hold.expect("names a hold"),
        other => panic!("not a release: {other:?}"),
    }
}

#[tokio::test]
async fn a_free_lock_is_had_by_one_request() {
    let (namespace, mut requests) = scripted(vec![Answer::Granted], Renewing::Renewed).await;
    let hold = namespace.lock("job").ttl(HOUR).acquire().await.expect("free");
    assert!(hold.is_held());
    assert_eq!((hold.name(), hold.token()), ("job", Token::new(7)));
    let asked = acquire(&mut requests).await;
    assert_eq!((asked.acquire_id.len(), asked.wait_ms), (16, 0));
    drop(hold);
    assert_eq!(release(&mut requests).await, Hold::Token(7));
}

#[tokio::test]
async fn a_lock_that_was_waited_for_counts_from_a_renewal() {
    let script = vec![Answer::Taken, Answer::Lost, Answer::Granted];
    let (namespace, mut requests) = scripted(script, Renewing::Renewed).await;
    let hold = namespace.lock("job").ttl(HOUR).wait(HOUR).acquire().await.expect("granted");
    let asked =
        [acquire(&mut requests).await, acquire(&mut requests).await, acquire(&mut requests).await];
    assert!(asked.iter().all(|request| request.acquire_id == asked[0].acquire_id));
    assert_eq!(asked[0].wait_ms, 0);
    assert_eq!(asked.each_ref().map(|request| request.renew_to_keep), [false, true, true]);
    assert!(asked[1].wait_ms >= asked[2].wait_ms && asked[2].wait_ms > 3_000_000);
    assert_eq!(renew(&mut requests).await.token, 7);
    assert_eq!(hold.info().ttl, Some(2 * HOUR));
}

#[tokio::test]
async fn a_wait_that_fails_after_a_lost_answer_may_have_got_the_lock() {
    let lost = std::iter::repeat_with(|| Answer::Lost).take(50);
    let until_time_is_up = [Answer::Taken].into_iter().chain(lost).collect();
    let until_refused = vec![Answer::Taken, Answer::Lost, Answer::Refused];
    for script in [until_time_is_up, until_refused] {
        let (namespace, _requests) = scripted(script, Renewing::Renewed).await;
        let wait = Duration::from_secs(1);
        let failed = namespace.lock("job").wait(wait).acquire().await;
        assert!(matches!(failed, Err(Error::OutcomeUnknown { .. })), "{failed:?}");
    }
    let script = vec![Answer::Taken, Answer::Refused];
    let (namespace, _requests) = scripted(script, Renewing::Renewed).await;
    let refused = namespace.lock("job").acquire().await;
    assert!(matches!(refused, Err(Error::PermissionDenied { .. })), "{refused:?}");
}

#[tokio::test]
async fn whoever_finds_the_lock_taken_is_told_by_whom() {
    let (namespace, _requests) = scripted(vec![], Renewing::Renewed).await;
    match namespace.lock("job").try_acquire().await {
        Ok(Acquired::Taken(holder)) => assert_eq!(holder.token, Token::new(7)),
        other => panic!("{other:?}"),
    }
    match namespace.lock("job").wait(Duration::from_millis(1)).acquire().await {
        Err(Error::LockTaken { holder }) => assert_eq!(holder.name, "job"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_acquire_that_is_dropped_gives_up_what_it_may_have_got() {
    let script = vec![Answer::Taken, Answer::Nothing];
    let (namespace, mut requests) = scripted(script, Renewing::Renewed).await;
    let waiting = tokio::spawn(namespace.lock("job").acquire());
    acquire(&mut requests).await;
    let asked = acquire(&mut requests).await;
    waiting.abort();
    assert_eq!(release(&mut requests).await, Hold::AcquireId(asked.acquire_id));
}

#[tokio::test]
async fn a_hold_is_renewed_in_the_background_until_it_is_dropped() {
    let (namespace, mut requests) = scripted(vec![Answer::Granted], Renewing::Renewed).await;
    let ttl = Duration::from_secs(1);
    let hold = namespace.lock("job").ttl(ttl).acquire().await.expect("free");
    acquire(&mut requests).await;
    for _ in 0..3 {
        assert_eq!(renew(&mut requests).await.token, 7);
    }
    let lost = hold.lost();
    drop(hold);
    assert_eq!(lost.await, LockLoss::Released);
    while let Some(asked) = requests.recv().await {
        if matches!(asked, Asked::Release(_)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_hold_that_cannot_be_renewed_is_lost_by_the_clock() {
    let (namespace, mut requests) = scripted(vec![Answer::Granted], Renewing::Away).await;
    let ttl = Duration::from_millis(200);
    let hold = namespace.lock("job").ttl(ttl).acquire().await.expect("free");
    assert_eq!(hold.lost().await, LockLoss::NotRenewed);
    assert!(!hold.is_held());
    let late = hold.renew().await;
    assert!(matches!(late, Err(Error::LockLost { cause: LockLoss::NotRenewed, .. })), "{late:?}");
    // The server may not know yet.
    drop(hold);
    while let Some(asked) = requests.recv().await {
        if matches!(asked, Asked::Release(_)) {
            return;
        }
    }
}

#[tokio::test]
async fn a_hold_that_the_server_says_is_lost_is_lost() {
    let (namespace, _requests) = scripted(vec![Answer::Granted], Renewing::Broken).await;
    let hold = namespace.lock("job").ttl(HOUR).acquire().await.expect("free");
    assert_eq!(hold.lost().now_or_never(), None);
    let left = hold.remaining();
    assert!(left > HOUR / 2 && left < HOUR, "{left:?}");
    let updated = hold.update_value("new").await;
    assert!(matches!(updated, Err(Error::LockLost { .. })), "{updated:?}");
    assert_eq!(hold.lost().await, LockLoss::Broken { reason: "enough".to_owned() });
    assert_eq!(hold.remaining(), Duration::ZERO);
}

#[tokio::test]
async fn the_background_finds_out_that_a_lock_was_taken_away() {
    let (namespace, _requests) = scripted(vec![Answer::Granted], Renewing::Broken).await;
    let ttl = Duration::from_secs(3);
    let hold = namespace.lock("job").ttl(ttl).acquire().await.expect("free");
    assert_eq!(hold.lost().await, LockLoss::Broken { reason: "enough".to_owned() });
}

#[tokio::test]
async fn a_hold_that_took_long_to_be_told_counts_from_a_renewal() {
    let (namespace, mut requests) = scripted(vec![Answer::Late], Renewing::Renewed).await;
    let asking = namespace.lock("job").ttl(2 * LATE).try_acquire();
    let hold = asking.await.expect("answers").into_guard().expect("is free");
    acquire(&mut requests).await;
    assert!(matches!(requests.try_recv(), Ok(Asked::Renew(_))));
    assert_eq!(hold.info().ttl, Some(2 * HOUR));
}

#[tokio::test]
async fn a_hold_that_was_lost_before_it_was_told_is_none() {
    let (namespace, mut requests) = scripted(vec![Answer::Late], Renewing::Broken).await;
    let late = namespace.lock("job").ttl(2 * LATE).try_acquire().await;
    assert!(matches!(late, Err(Error::LockLost { .. })), "{late:?}");
    // Who waits for it asks anew.
    let script = vec![Answer::Late, Answer::Taken];
    let (waited, mut asked) = scripted(script, Renewing::Broken).await;
    let waiting = tokio::spawn(waited.lock("job").ttl(2 * LATE).acquire());
    let first = acquire(&mut asked).await;
    renew(&mut asked).await;
    assert_ne!(acquire(&mut asked).await.acquire_id, first.acquire_id);
    waiting.abort();
    acquire(&mut requests).await;
}

#[tokio::test]
async fn a_release_that_fails_is_tried_again_in_the_background() {
    let (namespace, mut requests) = scripted(vec![Answer::Granted], Renewing::Away).await;
    let hold = namespace.lock("job").ttl(HOUR).acquire().await.expect("free");
    hold.release().await.expect_err("the server is away");
    while requests.try_recv().is_ok() {}
    assert_eq!(release(&mut requests).await, Hold::Token(7));
}
