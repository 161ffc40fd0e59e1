//! What stands beside the services of `holdfast.v1`, and the log.

use futures::stream;
use holdfast_proto::v1::{GetServerInfoRequest, admin_service_client::AdminServiceClient};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::{v1, v1alpha};

use super::harness::{holdfastd, start};

const SERVICES: [&str; 8] = [
    "holdfast.v1.AdminService",
    "holdfast.v1.KvService",
    "holdfast.v1.LeaseService",
    "holdfast.v1.LockService",
    "holdfast.v1.NamespaceService",
    "holdfast.v1.PipelineService",
    "holdfast.v1.TransactionService",
    "holdfast.v1.WatchService",
];

#[tokio::test]
async fn health_answers_for_the_server_and_each_service() {
    let program = start(&[]).await;
    let mut health = program.health().await;
    for service in SERVICES.into_iter().chain([""]) {
        let request = HealthCheckRequest { service: service.into() };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    let unknown = HealthCheckRequest { service: "holdfast.v1.NoService".into() };
    assert_eq!(health.check(unknown).await.unwrap_err().code(), Code::NotFound);
}

macro_rules! reflected_services {
    ($version:ident, $channel:expr) => {{
        use $version::{
            ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
            server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
        };
        let request = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut client = ServerReflectionClient::new($channel);
        let answers = client.server_reflection_info(stream::iter([request])).await.unwrap();
        let answer = answers.into_inner().message().await.unwrap().unwrap();
        match answer.message_response {
            Some(MessageResponse::ListServicesResponse(list)) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn reflection_lists_the_services_in_both_versions() {
    let program = start(&[]).await;
    let listed = [
        reflected_services!(v1, program.channel().await),
        reflected_services!(v1alpha, program.channel().await),
    ];
    for names in listed {
        for service in SERVICES.into_iter().chain(["grpc.health.v1.Health"]) {
            assert!(names.iter().any(|name| name == service), "{service} in {names:?}");
        }
    }
}

#[tokio::test]
async fn the_server_says_what_it_is() {
    let program = start(&[]).await;
    let mut admin = AdminServiceClient::new(program.channel().await);
    let info = admin.get_server_info(GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(
        (info.version.as_str(), info.backend.as_str()),
        (env!("CARGO_PKG_VERSION"), "memory")
    );
    assert_eq!(info.limits.unwrap().max_value_bytes, 1 << 20);
    assert!(info.started_at_ms <= info.time_ms);
}

#[tokio::test]
async fn alone_the_program_keeps_its_state_in_files_and_says_where() {
    let call = holdfastd(&["--listen", "127.0.0.1:0"]);
    let directory = call.path("").canonicalize().unwrap();
    let program = call.start().await;
    assert!(directory.join("holdfast-data/journal-00000001.jsonl").exists());
    let address = program.address().to_owned();
    program.signal("TERM").await;
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    for told in ["survives", &address, "files:holdfast-data", &directory.display().to_string()] {
        assert!(log.lines().next().unwrap().contains(told), "{told}: {log}");
    }
}

#[tokio::test]
async fn every_line_of_a_json_log_is_an_object() {
    let program = start(&["--log-format", "json"]).await;
    let address = program.address().to_owned();
    program.signal("INT").await;
    let (status, log) = program.ended().await;
    assert_eq!(status, Some(0), "{log}");
    let lines: Vec<serde_json::Value> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let start = lines.iter().find(|line| line["address"] == address.as_str()).expect(&log);
    assert_eq!((&start["level"], &start["backend"]), (&"INFO".into(), &"memory:".into()));
    assert!(start["message"].as_str().unwrap().contains("survives nothing"), "{start}");
}

#[tokio::test]
async fn the_log_says_no_more_than_it_is_set_to() {
    let program = start(&["--log-filter", "error"]).await;
    program.signal("TERM").await;
    assert_eq!(program.ended().await, (Some(0), String::new()));
}
