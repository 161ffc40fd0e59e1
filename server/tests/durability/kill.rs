//! Killed while it is written to, again and again: what was acknowledged is there, and nothing by half.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use holdfast_proto::v1::{
    BatchSetRequest, CompactRequest, Event, EventType, Expiry, GetRequest, Selector, SetRequest,
    WatchRequest, admin_service_client::AdminServiceClient, batch_set_request::Item, expiry,
    kv_service_client::KvServiceClient, selector, watch_request, watch_response::Body,
};
use tokio::sync::watch;
use tonic::transport::Channel;

use super::harness::{Program, start};

const ROUNDS: u64 = 8;
const WRITERS: u64 = 8;
const NAMESPACES: [&str; 2] = ["even", "odd"];

/// Whether the log is forgotten as it is written.
#[derive(Clone, Copy)]
enum History {
    Kept,
    Forgotten,
}

/// What was acknowledged: the key and its namespace, and the revision.
type Acknowledged = BTreeMap<(usize, String), u64>;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills() {
    let directory = tempfile::tempdir().unwrap();
    // Small enough that snapshots are made and journals filled ahead, and killed in the middle, all the time.
    let url = format!(
        "files:{}?snapshot_every=64KiB&fill_ahead=64KiB",
        directory.path().join("data").display()
    );
    survives_kills(&url).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_in_a_database_survives_kills() {
    let directory = tempfile::tempdir().unwrap();
    survives_kills(&format!("sqlite:{}", directory.path().join("data").display())).await;
}

/// The log that a snapshot has collected may be forgotten before it is written, and more.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kills_while_the_log_is_forgotten() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    let url = format!("files:{}?snapshot_every=64KiB", data.display());
    kill_again_and_again(&url, History::Forgotten).await;
}

async fn survives_kills(url: &str) {
    let (program, all) = kill_again_and_again(url, History::Kept).await;
    for (index, namespace) in NAMESPACES.into_iter().enumerate() {
        let events = all_events(&program, namespace).await;
        check_events(&events, &all, index);
    }
}

/// Answers what was acknowledged, and a program that has it.
async fn kill_again_and_again(url: &str, history: History) -> (Program, Acknowledged) {
    let mut all = Acknowledged::new();
    let mut unknown = BTreeSet::new();
    for round in 0..ROUNDS {
        let program = start(&["--backend", url]).await;
        check(&program, &all, &unknown).await;
        let (acknowledged, lost) = write_until_killed(program, round, history).await;
        for (key, revision) in acknowledged {
            let former = all.insert(key.clone(), revision);
            assert_eq!(former, None, "{key:?} is written once");
        }
        unknown.extend(lost);
    }
    let program = start(&["--backend", url]).await;
    check(&program, &all, &unknown).await;
    (program, all)
}

/// Writes from many sides, and kills the program in the middle of it.
async fn write_until_killed(
    program: Program,
    round: u64,
    history: History,
) -> (Vec<((usize, String), u64)>, Vec<(usize, String)>) {
    let (count, mut counted) = watch::channel(0);
    let count = Arc::new((count, AtomicU64::new(0)));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let (kv, count) = (program.kv().await, count.clone());
        let forgetting = match history {
            History::Kept => None,
            History::Forgotten => Some(AdminServiceClient::new(program.channel().await)),
        };
        writers
            .push(tokio::spawn(async move { write(kv, forgetting, round, writer, &count).await }));
    }
    // Another moment in each round, by a number that is the same in each run.
    let enough = 50 + round * 7919 % 400;
    counted.wait_for(|count| *count >= enough).await.unwrap();
    program.signal("KILL").await;
    program.ended().await;
    let (mut acknowledged, mut unknown) = (Vec::new(), Vec::new());
    for writer in writers {
        let (known, lost) = writer.await.unwrap();
        acknowledged.extend(known);
        unknown.extend(lost);
    }
    (acknowledged, unknown)
}

/// Writes until it fails; what was acknowledged, and what was not.
async fn write(
    mut kv: KvServiceClient<Channel>,
    mut forgetting: Option<AdminServiceClient<Channel>>,
    round: u64,
    writer: u64,
    count: &(watch::Sender<u64>, AtomicU64),
) -> (Vec<((usize, String), u64)>, Option<(usize, String)>) {
    let mut acknowledged = Vec::new();
    for number in 0.. {
        let namespace = (writer % 2) as usize;
        let key = format!("r{round}w{writer}n{number}");
        let written = match number % 4 {
            0 => set_expiring(&mut kv, namespace, &key).await,
            _ => set_both(&mut kv, namespace, &key).await,
        };
        let revision = match written {
            Ok(revision) => revision,
            Err(_) => return (acknowledged, Some((namespace, key))),
        };
        acknowledged.push(((namespace, key), revision));
        if let Some(admin) = &mut forgetting {
            let namespace = NAMESPACES[namespace].into();
            // It fails only where the program is killed, which the next write finds out.
            let _ = admin.compact(CompactRequest { namespace, through_revision: revision }).await;
        }
        count.0.send_replace(count.1.fetch_add(1, Ordering::Relaxed) + 1);
    }
    (acknowledged, None)
}

/// Two keys in one revision.
async fn set_both(
    kv: &mut KvServiceClient<Channel>,
    namespace: usize,
    key: &str,
) -> Result<u64, tonic::Status> {
    let item = |key: String| Item {
        key,
        value: r#"{"some": "JSON"}"#.into(),
        content_type: "application/json".into(),
        ..Item::default()
    };
    let request = BatchSetRequest {
        namespace: NAMESPACES[namespace].into(),
        items: vec![item(key.into()), item(format!("{key}'"))],
        ..BatchSetRequest::default()
    };
    Ok(kv.batch_set(request).await?.into_inner().revision)
}

/// One that is gone at once, and has to be told as expired once.
async fn set_expiring(
    kv: &mut KvServiceClient<Channel>,
    namespace: usize,
    key: &str,
) -> Result<u64, tonic::Status> {
    let request = SetRequest {
        namespace: NAMESPACES[namespace].into(),
        key: key.into(),
        value: "short".into(),
        expiry: Some(Expiry { kind: Some(expiry::Kind::TtlMs(1)) }),
        ..SetRequest::default()
    };
    Ok(kv.set(request).await?.into_inner().revision)
}

async fn check(program: &Program, all: &Acknowledged, unknown: &BTreeSet<(usize, String)>) {
    let mut kv = program.kv().await;
    for ((namespace, key), revision) in all.iter().filter(|((_, key), _)| !expires(key)) {
        for key in [key.clone(), format!("{key}'")] {
            let held = mod_revision(&mut kv, *namespace, &key).await;
            assert_eq!(held, Some(*revision), "{key} was acknowledged");
        }
    }
    for (namespace, key) in unknown.iter().filter(|(_, key)| !expires(key)) {
        let first = mod_revision(&mut kv, *namespace, key).await;
        let second = mod_revision(&mut kv, *namespace, &format!("{key}'")).await;
        assert_eq!(first, second, "{key} is there by half");
    }
}

fn expires(key: &str) -> bool {
    let number = key.rsplit('n').next().unwrap().parse::<u64>().unwrap();
    number % 4 == 0
}

async fn mod_revision(
    kv: &mut KvServiceClient<Channel>,
    namespace: usize,
    key: &str,
) -> Option<u64> {
    let namespace = NAMESPACES[namespace].into();
    let request = GetRequest { namespace, key: key.into(), ..GetRequest::default() };
    kv.get(request).await.unwrap().into_inner().entry.map(|entry| entry.mod_revision)
}

/// The whole log of a namespace, up to a key that is written last.
async fn all_events(program: &Program, namespace: &str) -> Vec<Event> {
    let all = Selector { kind: Some(selector::Kind::All(selector::All {})) };
    let after = watch_request::AfterRevision { revision: 0, or_initial: false };
    let request = WatchRequest {
        namespace: namespace.into(),
        selectors: vec![all],
        start: Some(watch_request::Start::AfterRevision(after)),
        ..WatchRequest::default()
    };
    let mut watch = program.watches().await.watch(request).await.unwrap().into_inner();
    let request = SetRequest {
        namespace: namespace.into(),
        key: "the end".into(),
        expiry: Some(Expiry { kind: Some(expiry::Kind::TtlMs(1)) }),
        ..SetRequest::default()
    };
    program.kv().await.set(request).await.unwrap();
    let mut events: Vec<Event> = Vec::new();
    loop {
        let message = watch.message().await.unwrap().expect("the watch goes on");
        if let Some(Body::Events(more)) = message.body {
            events.extend(more.events);
        }
        let is_last = |event: &Event| event.r#type() == EventType::Expire && event.key == "the end";
        if events.last().is_some_and(is_last) {
            return events;
        }
    }
}

fn check_events(events: &[Event], all: &Acknowledged, namespace: usize) {
    let mut revisions = BTreeMap::new();
    let (mut set, mut expired) = (BTreeMap::new(), BTreeMap::new());
    for pair in events.windows(2) {
        let step = pair[1].revision - pair[0].revision;
        assert!(step <= 1, "revisions are without gaps: {} {}", pair[0].revision, pair[1].revision);
    }
    for event in events {
        assert_eq!(revisions.insert((event.revision, &event.key), ()), None, "{event:?}");
        let seen = match event.r#type() {
            EventType::Set => set.insert(&event.key, event.revision),
            EventType::Expire => expired.insert(&event.key, event.revision),
            other => panic!("{other:?} was not done: {event:?}"),
        };
        assert_eq!(seen, None, "once: {event:?}");
    }
    for ((_, key), revision) in all.iter().filter(|((of, _), _)| *of == namespace) {
        assert_eq!(set.get(key), Some(revision), "{key} was acknowledged");
    }
    for (key, revision) in set {
        let gone = expired.get(key).copied();
        if key == "the end" || expires_exactly(key) {
            assert!(gone > Some(revision), "{key} has expired");
        } else {
            assert_eq!(gone, None, "{key}");
        }
    }
}

fn expires_exactly(key: &str) -> bool {
    !key.ends_with('\'') && expires(key)
}
