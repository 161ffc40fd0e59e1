//! A disk that is full: nothing is acknowledged that is not kept, reads go on, and so do writes once there is room.

use holdfast_proto::v1::{GetRequest, SetRequest, kv_service_client::KvServiceClient};
use tokio::process::Command;
use tonic::{Code, Status, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus,
};
use tonic_types::StatusExt as _;

use super::harness::{Program, holdfastd, start};

/// The largest file that the program can write at first.
const LIMIT_BYTES: usize = 1 << 20;

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    refuses_writes_until_there_is_room("files").await;
}

#[tokio::test]
async fn a_full_disk_refuses_writes_to_a_database_until_there_is_room() {
    refuses_writes_until_there_is_room("sqlite").await;
}

async fn refuses_writes_until_there_is_room(scheme: &str) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("{scheme}:{}", directory.path().join("data").display());
    // The limit is given in blocks of 512 bytes; beyond it, writes fail as on a full disk.
    let limit = format!("trap '' XFSZ; ulimit -S -f {}", LIMIT_BYTES / 512);
    let call = holdfastd(&["--listen", "127.0.0.1:0", "--backend", &url]);
    let program = call.after(&limit).start().await;
    let mut kv = program.kv().await;
    let mut healths = watch_healths(&program).await;
    assert_healths(&mut healths, ServingStatus::Serving).await;
    let mut kept = 0;
    let status = loop {
        match set(&mut kv, kept).await {
            Ok(()) => kept += 1,
            Err(status) => break status,
        }
    };
    assert_not_applied(&status);
    assert!(kept > 10, "{kept}");
    assert_healths(&mut healths, ServingStatus::NotServing).await;
    assert_not_applied(&set(&mut kv, kept).await.unwrap_err());
    assert_held(&mut kv, kept).await;

    let process = program.process().to_string();
    let raised = Command::new("prlimit")
        .args(["--pid", &process, "--fsize=unlimited:"])
        .status()
        .await
        .unwrap();
    assert!(raised.success());
    // Each attempt is an answer, so that this does not spin.
    while let Err(status) = set(&mut kv, kept).await {
        assert_not_applied(&status);
    }
    assert_healths(&mut healths, ServingStatus::Serving).await;
    program.signal("KILL").await;
    let (_, log) = program.ended().await;
    for told in ["the health is NOT_SERVING", "the health is SERVING"] {
        assert_eq!(log.matches(told).count(), 1, "{told}: {log}");
    }

    let program = start(&["--backend", &url]).await;
    assert_held(&mut program.kv().await, kept + 1).await;
}

/// The streams that tell the health of the server and of a service.
async fn watch_healths(program: &Program) -> [Streaming<HealthCheckResponse>; 2] {
    let mut client = program.health().await;
    let mut watch = async |service: &str| {
        let request = HealthCheckRequest { service: service.into() };
        client.watch(request).await.unwrap().into_inner()
    };
    [watch("").await, watch("holdfast.v1.KvService").await]
}

/// The next that is told.
async fn assert_healths(
    healths: &mut [Streaming<HealthCheckResponse>; 2],
    expected: ServingStatus,
) {
    for health in healths {
        assert_eq!(health.message().await.unwrap().unwrap().status(), expected);
    }
}

fn assert_not_applied(status: &Status) {
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().unwrap().reason, "BACKEND_UNAVAILABLE", "{status:?}");
    assert!(details.retry_info().is_some(), "{status:?}");
}

async fn set(kv: &mut KvServiceClient<Channel>, number: usize) -> Result<(), Status> {
    let request = SetRequest {
        namespace: "n".into(),
        key: format!("key{number}"),
        value: vec![b'v'; 8192].into(),
        ..SetRequest::default()
    };
    kv.set(request).await.map(drop)
}

/// Whether just so many keys are there.
async fn assert_held(kv: &mut KvServiceClient<Channel>, count: usize) {
    for number in 0..=count {
        let key = format!("key{number}");
        let request = GetRequest { namespace: "n".into(), key, ..GetRequest::default() };
        let held = kv.get(request).await.unwrap().into_inner().entry.is_some();
        assert_eq!(held, number < count, "key{number}");
    }
}
