//! How the program ends.

use futures::{StreamExt as _, stream};
use holdfast_proto::v1::{
    BatchSetRequest, GetRequest, PipelineCall, PipelineRequest, ScanRequest, ScanResponse,
    Selector, WatchRequest, batch_set_request::Item, pipeline_call::Operation,
    pipeline_service_client::PipelineServiceClient, selector, watch_response::Body,
};
use tokio::net::TcpStream;
use tonic::{Code, Status, Streaming};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};

use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_types::StatusExt as _;

use super::harness::{Program, start};

const VALUES: usize = 32;

#[tokio::test]
async fn calls_in_flight_finish_and_then_the_program_ends() {
    let program = start(&[]).await;
    let mut health = watch_health(&program).await;
    let scan = held_scan(&program).await;
    program.signal("TERM").await;
    assert_stopping(&mut health).await;
    let messages: Vec<_> = scan.collect().await;
    let entries: usize =
        messages.iter().map(|message| message.as_ref().unwrap().entries.len()).sum();
    assert_eq!(entries, VALUES);
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("stopped") && !log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn watches_end_as_unavailable() {
    let program = start(&[]).await;
    let mut health = watch_health(&program).await;
    let mut watches = program.watches().await;
    let request =
        WatchRequest { namespace: "n".into(), selectors: vec![all()], ..WatchRequest::default() };
    let mut watch = watches.watch(request).await.unwrap().into_inner();
    let created = watch.message().await.unwrap().unwrap();
    assert!(matches!(created.body, Some(Body::Created(_))), "{created:?}");

    program.signal("TERM").await;
    assert_stopping(&mut health).await;
    let end = loop {
        match watch.message().await {
            // Progress may come at any time.
            Ok(message) => assert!(message.is_some(), "the watch ended without a status"),
            Err(status) => break status,
        }
    };
    assert_ended_by_stop(&end);
    assert_eq!(program.ended().await.0, Some(0));
}

#[tokio::test]
async fn streams_without_end_do_not_hold_up_the_stop() {
    let program = start(&["--shutdown-drain-timeout", "1h"]).await;
    let mut health = watch_health(&program).await;
    let mut pipelines = PipelineServiceClient::new(program.channel().await);
    let mut answers = pipelines.pipeline(stream::pending()).await.unwrap().into_inner();
    let mut reflection = ServerReflectionClient::new(program.channel().await);
    let asked = reflection.server_reflection_info(stream::pending()).await;
    let mut reflected = asked.unwrap().into_inner();

    program.signal("TERM").await;
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert_stopping(&mut health).await;
    assert_eq!(health.message().await.unwrap(), None);
    assert_ended_by_stop(&answers.message().await.unwrap_err());
    assert_eq!(reflected.message().await.unwrap(), None);
}

#[tokio::test]
async fn what_a_pipeline_has_received_is_answered_before_it_ends() {
    let program = start(&[]).await;
    let mut health = watch_health(&program).await;
    let keys = write_values(&program).await;
    let request = PipelineRequest {
        namespace: "n".into(),
        calls: (1..).zip(keys.iter().cycle()).take(8 * VALUES).map(get_by_pipeline).collect(),
    };
    // The stream of requests has no end.
    let requests = stream::iter([request]).chain(stream::pending());
    let mut client = PipelineServiceClient::new(program.channel().await);
    let mut answers = client.pipeline(requests).await.unwrap().into_inner();
    // The first answer shows that the message has been received; the others are too large to be sent unread.
    let mut answered = answers.message().await.unwrap().unwrap().answers.len();
    assert!(answered < 8 * VALUES, "nothing is in flight");

    program.signal("TERM").await;
    assert_stopping(&mut health).await;
    let end = loop {
        match answers.message().await {
            Ok(message) => answered += message.expect("an end with a status").answers.len(),
            Err(status) => break status,
        }
    };
    assert_eq!(answered, 8 * VALUES);
    assert_ended_by_stop(&end);
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
}

#[tokio::test]
async fn the_drain_timeout_cuts_off_what_does_not_finish() {
    let program = start(&["--shutdown-drain-timeout", "10ms"]).await;
    let _scan = held_scan(&program).await;
    program.signal("TERM").await;
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("cut off"), "{log}");
}

#[tokio::test]
async fn who_has_connected_and_says_nothing_does_not_hold_up_the_stop() {
    let program = start(&["--shutdown-drain-timeout", "1h"]).await;
    let _silent = TcpStream::connect(program.address()).await.unwrap();
    // Once this is answered the other has been accepted.
    let mut health = watch_health(&program).await;
    program.signal("TERM").await;
    assert_stopping(&mut health).await;
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    assert!(!log.contains("WARN"), "{log}");
}

#[tokio::test]
async fn a_second_signal_ends_the_program_at_once() {
    for (signal, status) in [("TERM", 143), ("INT", 130)] {
        let program = start(&["--shutdown-drain-timeout", "1h"]).await;
        let mut health = watch_health(&program).await;
        let _scan = held_scan(&program).await;
        program.signal("TERM").await;
        assert_stopping(&mut health).await;
        program.signal(signal).await;
        assert_eq!(program.ended().await.0, Some(status));
    }
}

/// A scan whose answer the client does not read: it stays in flight until it does.
async fn held_scan(program: &Program) -> Streaming<ScanResponse> {
    write_values(program).await;
    let request =
        ScanRequest { namespace: "n".into(), selector: Some(all()), ..ScanRequest::default() };
    // The answer begins when the server has received the call.
    program.kv().await.scan(request).await.unwrap().into_inner()
}

/// Writes more than a client receives without reading.
async fn write_values(program: &Program) -> Vec<String> {
    let keys: Vec<_> = (0..VALUES).map(|number| format!("k{number}")).collect();
    let item = |key: &String| Item {
        key: key.clone(),
        value: vec![b'v'; 1 << 16].into(),
        ..Item::default()
    };
    let items = keys.iter().map(item).collect();
    let batch = BatchSetRequest { namespace: "n".into(), items, ..BatchSetRequest::default() };
    program.kv().await.batch_set(batch).await.unwrap();
    keys
}

async fn watch_health(program: &Program) -> Streaming<HealthCheckResponse> {
    let mut client = program.health().await;
    let mut health = client.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let now = health.message().await.unwrap().unwrap();
    assert_eq!(now.status(), ServingStatus::Serving);
    health
}

async fn assert_stopping(health: &mut Streaming<HealthCheckResponse>) {
    let now = health.message().await.unwrap().unwrap();
    assert_eq!(now.status(), ServingStatus::NotServing);
}

fn assert_ended_by_stop(end: &Status) {
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    assert!(end.message().contains("stopping"), "{end}");
    let details = end.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "BACKEND_UNAVAILABLE", "{end}");
    assert!(details.retry_info().is_some(), "{end}");
}

fn get_by_pipeline((id, key): (u64, &String)) -> PipelineCall {
    let get = GetRequest { key: key.clone(), ..GetRequest::default() };
    PipelineCall { id, operation: Some(Operation::Get(get)), ..PipelineCall::default() }
}

fn all() -> Selector {
    Selector { kind: Some(selector::Kind::All(selector::All {})) }
}
