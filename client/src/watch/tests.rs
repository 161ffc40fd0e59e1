//! Watches against a server that plays a script: what it is asked, and what it answers, one connection
//! after the other.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{StreamExt as _, stream};
use holdfast_proto::v1::{
    self,
    watch_request::Start,
    watch_response::{Body, Created, Events, Initial},
    watch_service_server::{WatchService, WatchServiceServer},
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Request, Response, Status};

use crate::{
    Change, Client, Cursor, Error, Lineage, Revision, Selector, WatchItem, WatchStream,
    optimistic::tests::status,
};

/// Marks where a script says nothing more, but keeps the connection open.
const SILENCE: &str = "silence";

pub(crate) type Answers = Vec<Result<v1::WatchResponse, Status>>;

struct Script {
    connections: Mutex<std::vec::IntoIter<Answers>>,
    asked: mpsc::UnboundedSender<v1::WatchRequest>,
}

#[tonic::async_trait]
impl WatchService for Script {
    type WatchStream = stream::BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<v1::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.asked.send(request.into_inner()).expect("the test listens");
        let answers = self.connections.lock().expect("no panic").next();
        let answers = answers.ok_or_else(|| Status::permission_denied("the script is over"))?;
        let played = stream::iter(answers).then(|answer| async {
            match answer {
                Err(status) if status.message() == SILENCE => std::future::pending().await,
                answer => answer,
            }
        });
        Ok(Response::new(played.boxed()))
    }
}

/// A client of a server that answers each watch with the next of `connections`.
pub(crate) async fn scripted(
    connections: Vec<Answers>,
) -> (Client, mpsc::UnboundedReceiver<v1::WatchRequest>) {
    let (address, requests) = server(connections).await;
    let client = Client::builder(address).connect_lazy();
    (client.expect("a client"), requests)
}

/// The address of such a server.
async fn server(connections: Vec<Answers>) -> (String, mpsc::UnboundedReceiver<v1::WatchRequest>) {
    let (asked, requests) = mpsc::unbounded_channel();
    let script = Arc::new(Script { connections: Mutex::new(connections.into_iter()), asked });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let server = tonic::transport::Server::builder()
        .add_service(WatchServiceServer::from_arc(script))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    (address.to_string(), requests)
}

pub(crate) fn created(
    lineage: &str,
    revision: u64,
    reset: bool,
) -> Result<v1::WatchResponse, Status> {
    message(
        revision,
        0,
        Body::Created(Created {
            lineage: lineage.to_owned(),
            revision,
            compacted_revision: 0,
            reset,
        }),
    )
}

pub(crate) fn sets(
    complete_through: u64,
    sets: &[(&str, u64)],
) -> Result<v1::WatchResponse, Status> {
    let events = sets
        .iter()
        .map(|(key, revision)| v1::Event {
            r#type: v1::EventType::Set as i32,
            revision: *revision,
            key: (*key).to_owned(),
            entry: Some(entry(key, *revision)),
            ..Default::default()
        })
        .collect();
    message(complete_through, complete_through, Body::Events(Events { events }))
}

pub(crate) fn initial(revision: u64, key: &str, end: bool) -> Result<v1::WatchResponse, Status> {
    let entries = vec![entry(key, revision)];
    let complete_through = if end { revision } else { 0 };
    message(revision, complete_through, Body::Initial(Initial { entries, end }))
}

fn entry(key: &str, mod_revision: u64) -> v1::Entry {
    v1::Entry {
        key: key.to_owned(),
        value: Some(mod_revision.to_string().into()),
        content_type: "application/json".to_owned(),
        mod_revision,
        ..Default::default()
    }
}

fn message(revision: u64, complete_through: u64, body: Body) -> Result<v1::WatchResponse, Status> {
    Ok(v1::WatchResponse { revision, complete_through, body: Some(body), ..Default::default() })
}

fn broken() -> Result<v1::WatchResponse, Status> {
    Err(Status::unavailable("the connection broke"))
}

pub(crate) fn silence() -> Result<v1::WatchResponse, Status> {
    Err(Status::unavailable(SILENCE))
}

/// The stream in words, up to and without the error that ends every script.
async fn told(stream: WatchStream<u64>) -> Vec<String> {
    stream
        .map(|item| match item {
            Ok(WatchItem::Event(event)) => match event.change {
                Change::Set(entry) => format!("{}={}", event.key, entry.value),
                other => format!("{} {other:?}", event.key),
            },
            Ok(WatchItem::Initial(entry)) => format!("initial {}={}", entry.key(), entry.value),
            Ok(WatchItem::InitialEnd(cursor)) => format!("end {cursor}"),
            Ok(WatchItem::Progress(cursor)) => format!("through {cursor}"),
            Ok(WatchItem::Reset) => "reset".to_owned(),
            Err(Error::PermissionDenied { .. }) => "over".to_owned(),
            Err(error) => format!("error {error:?}"),
        })
        .collect()
        .await
}

#[tokio::test]
async fn a_broken_watch_resumes_without_loss_or_duplicate() {
    let (client, mut requests) = scripted(vec![
        vec![created("l", 5, false), sets(6, &[("a", 6), ("a", 7)]), broken()],
        vec![created("l", 6, false), sets(8, &[("a", 7), ("b", 7), ("a", 8)])],
    ])
    .await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let stream = watch.await.expect("a watch");
    assert_eq!(
        told(stream).await,
        ["a=6", "a=7", "through 6@l", "b=7", "a=8", "through 8@l", "over"]
    );
    let starts = [requests.recv().await, requests.recv().await, requests.recv().await]
        .map(|request| request.expect("three connections"))
        .map(|request| (request.start, request.lineage));
    assert!(matches!(starts[0], (Some(Start::Now(_)), None)));
    for ((start, lineage), through) in starts[1..].iter().zip([6, 8]) {
        assert!(matches!(start, Some(Start::AfterRevision(after)) if after.revision == through));
        assert_eq!(lineage.as_deref(), Some("l"));
    }
}

#[tokio::test]
async fn what_ends_the_stream_for_all_ends_the_watch() {
    let ends = || vec![created("l", 5, false), Err(Status::data_loss("it cannot be read"))];
    let (client, mut requests) = scripted(vec![ends(), ends(), ends()]).await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let told = told(watch.await.expect("a watch")).await;
    assert!(matches!(&told[..], [error] if error.contains("it cannot be read")), "{told:?}");
    requests.recv().await.expect("one connection");
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn where_the_stream_for_all_has_lost_its_place_the_watch_asks_for_its_own() {
    let compacted = || Err(status(Code::OutOfRange, "COMPACTED"));
    let (client, mut requests) = scripted(vec![
        vec![created("l", 5, false), sets(6, &[("a", 6)]), compacted()],
        vec![created("l", 6, false), sets(7, &[("b", 7)]), compacted()],
    ])
    .await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let told = told(watch.await.expect("a watch")).await;
    assert_eq!(told[..4], ["a=6", "through 6@l", "b=7", "through 7@l"]);
    assert!(matches!(&told[4..], [end] if end.starts_with("error Compacted")), "{told:?}");
    requests.recv().await.expect("the first connection");
    let own = requests.recv().await.expect("the second connection");
    assert!(matches!(own.start, Some(Start::AfterRevision(after)) if after.revision == 6));
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_broken_snapshot_is_told_and_begun_again() {
    let (client, _requests) = scripted(vec![
        vec![created("l", 5, false), initial(5, "a", false), broken()],
        vec![created("l", 6, false), initial(6, "a", true)],
    ])
    .await;
    let watch = client.namespace("n").watch::<u64>(Selector::all()).initial();
    let stream = watch.await.expect("a watch");
    assert_eq!(stream.cursor(), None);
    assert_eq!(told(stream).await, ["initial a=5", "reset", "initial a=6", "end 6@l", "over"]);
}

#[tokio::test]
async fn a_cursor_that_is_of_no_use_resets_the_watch_if_it_may() {
    let (client, mut requests) =
        scripted(vec![vec![created("new", 3, true), initial(3, "a", true)]]).await;
    let cursor = Cursor { lineage: Lineage::from("old"), revision: Revision::new(90) };
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let stream = watch.after(cursor).or_initial().await.expect("a watch");
    assert_eq!(told(stream).await, ["reset", "initial a=3", "end 3@new", "over"]);
    let asked = requests.recv().await.expect("a request");
    assert_eq!(asked.lineage.as_deref(), Some("old"));
    assert!(matches!(
        asked.start,
        Some(Start::AfterRevision(after)) if after.or_initial && after.revision == 90
    ));
}

#[tokio::test]
async fn a_value_that_cannot_be_read_does_not_end_the_watch() {
    let mut odd = sets(7, &[("a", 6), ("b", 7)]).expect("a message");
    if let Some(Body::Events(events)) = &mut odd.body {
        events.events[0].entry.as_mut().expect("an entry").content_type = "image/png".to_owned();
    }
    let (client, _requests) = scripted(vec![vec![created("l", 5, false), Ok(odd)]]).await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let told = told(watch.await.expect("a watch")).await;
    assert!(told[0].contains("UnexpectedContentType"), "{}", told[0]);
    assert_eq!(told[1..], ["b=7", "through 7@l", "over"]);
}

#[tokio::test]
async fn silence_is_a_broken_connection() {
    let (client, _requests) = scripted(vec![
        vec![created("l", 5, false), silence()],
        vec![created("l", 5, false), sets(6, &[("a", 6)])],
    ])
    .await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    let watch = watch.progress_interval(Duration::from_millis(200));
    let stream = watch.await.expect("a watch");
    assert_eq!(told(stream).await, ["a=6", "through 6@l", "over"]);
}

#[tokio::test]
async fn a_watch_that_may_not_be_fails_where_it_is_awaited() {
    let (client, _requests) = scripted(vec![]).await;
    let watch = client.namespace("n").watch::<u64>(Selector::all());
    assert!(matches!(watch.await, Err(Error::PermissionDenied { .. })));
}

#[tokio::test]
async fn a_watch_that_cannot_begin_at_one_server_begins_at_the_next() {
    for starts_with_state in [false, true] {
        let away = || vec![Err(status(Code::Unavailable, "BACKEND_UNAVAILABLE"))];
        let (first, mut refused) = server(vec![away(), away()]).await;
        let begins = if starts_with_state { initial(5, "a", true) } else { sets(6, &[("a", 6)]) };
        let script = vec![created("l", 5, false), begins, silence()];
        let (second, _requests) = server(vec![script]).await;
        let client = Client::builder(first).endpoint(second).connect_lazy().expect("a client");
        let watch = client.namespace("n").watch::<u64>(Selector::all());
        let watch = if starts_with_state { watch.initial() } else { watch };
        let mut stream = watch.await.expect("the second server tells");
        let told = stream.next().await.expect("it goes on").expect("no error");
        let is_initial = matches!(told, WatchItem::Initial(_));
        assert_eq!(is_initial, starts_with_state, "{told:?}");
        refused.recv().await.expect("the first server was asked");
        assert!(refused.try_recv().is_err(), "and not again");
    }
}
