//! Leases: many kept alive over one stream, and the end of one with many keys.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Instant,
};

use futures::{
    SinkExt as _, StreamExt as _, TryStreamExt as _,
    channel::mpsc::{self, Receiver},
    stream,
};
use holdfast_proto::v1::{
    BatchSetRequest, DeleteRangeRequest, Expiry, GetNamespaceRequest, GetStatsRequest,
    GrantRequest, KeepAliveRequest, KeepAliveResponse, PipelineCall, PipelineRequest,
    PipelineResponse, RevokeRequest, Selector,
    admin_service_client::AdminServiceClient,
    batch_set_request::Item,
    expiry::Kind,
    keep_alive_response::Result as KeptAlive,
    kv_service_client::KvServiceClient,
    lease_service_client::LeaseServiceClient,
    namespace_service_client::NamespaceServiceClient,
    pipeline_answer::Result as PipelineResult,
    pipeline_call::Operation,
    pipeline_service_client::PipelineServiceClient,
    selector::{self, All},
};
use tonic::{Status, transport::Channel};

use super::{
    measure::{median, micros, percentile, rounds, scaled},
    set, set_request,
};

const LEASES: usize = 10_000;
const KEYS: usize = 10_000;
const ENDS: usize = 20;
/// How often a lease of 10 s is kept alive.
const INTERVAL_MS: f64 = 10_000.0 / 3.0;

/// Prints what both cost.
pub async fn run(channel: &Channel) {
    kept_alive(channel).await;
    ended(channel).await;
}

async fn kept_alive(channel: &Channel) {
    let mut leases = Vec::with_capacity(scaled(LEASES));
    for _ in 0..scaled(LEASES) {
        leases.push(grant(channel, "leases").await);
    }
    let before = revisions_and_events(channel).await;
    let mut rates = Vec::new();
    for _ in 0..rounds() {
        rates.push(keep_alive(channel, &leases).await);
    }
    let after = revisions_and_events(channel).await;
    let mut set_rates = Vec::new();
    for _ in 0..rounds() {
        set_rates.push(set_by_pipeline(channel, leases.len()).await);
    }
    let (rate, set_rate) = (median(rates), median(set_rates));
    let round_ms = leases.len() as f64 / rate * 1e3;
    println!(
        "{} leases kept alive over one stream: {rate:.0} renewals/s; sets over one stream, one a \
         message: {set_rate:.0}/s; ratio {:.2}",
        leases.len(),
        rate / set_rate
    );
    println!(
        "one round of all takes {round_ms:.1} ms: {:.1} % of the time, at one every {INTERVAL_MS:.0} ms; \
         revisions taken: {}, log events: {}",
        round_ms / INTERVAL_MS * 100.0,
        after.0 - before.0,
        after.1 - before.1
    );
}

/// Renewals a second of one round.
async fn keep_alive(channel: &Channel, leases: &[u64]) -> f64 {
    let (mut sender, receiver) = mpsc::channel(1024);
    let mut client = LeaseServiceClient::new(channel.clone());
    let answers = client.keep_alive(receiver).await.expect("a stream opens").into_inner();
    let start = Instant::now();
    let send = async {
        for lease_id in leases {
            let request = KeepAliveRequest { namespace: "leases".into(), lease_id: *lease_id };
            sender.send(request).await.expect("the stream goes on");
        }
        drop(sender);
    };
    let check = async |count: usize, answer: KeepAliveResponse| {
        assert!(matches!(answer.result, Some(KeptAlive::Lease(_))), "{answer:?}");
        Ok::<_, Status>(count + 1)
    };
    let (answered, ()) = futures::join!(answers.try_fold(0, check), send);
    assert_eq!(answered.expect("the stream goes on"), leases.len());
    leases.len() as f64 / start.elapsed().as_secs_f64()
}

/// Sets a second over one stream, each in a message of its own.
async fn set_by_pipeline(channel: &Channel, count: usize) -> f64 {
    let (mut sender, receiver): (_, Receiver<PipelineRequest>) = mpsc::channel(1024);
    let mut client = PipelineServiceClient::new(channel.clone());
    let answers = client.pipeline(receiver).await.expect("a stream opens").into_inner();
    let start = Instant::now();
    let send = async {
        for index in 0..count {
            let operation = Some(Operation::Set(set_request(0, index)));
            let call = PipelineCall { id: index as u64, operation, ..PipelineCall::default() };
            let request = PipelineRequest { namespace: "sets".into(), calls: vec![call] };
            sender.send(request).await.expect("the stream goes on");
        }
        drop(sender);
    };
    let check = async |count: usize, message: PipelineResponse| {
        let is_set = |result: &_| matches!(result, Some(PipelineResult::Set(_)));
        assert!(message.answers.iter().all(|answer| is_set(&answer.result)), "{message:?}");
        Ok::<_, Status>(count + message.answers.len())
    };
    let (answered, ()) = futures::join!(answers.try_fold(0, check), send);
    assert_eq!(answered.expect("the stream goes on"), count);
    count as f64 / start.elapsed().as_secs_f64()
}

async fn revisions_and_events(channel: &Channel) -> (u64, u64) {
    let request = GetNamespaceRequest { namespace: "leases".into() };
    let mut client = NamespaceServiceClient::new(channel.clone());
    let state = client.get_namespace(request).await.expect("a namespace can be asked for");
    let mut client = AdminServiceClient::new(channel.clone());
    let stats = client.get_stats(GetStatsRequest {}).await.expect("a server can be asked");
    (state.into_inner().revision, stats.into_inner().log_events)
}

/// What the sets of another client are counted as.
const UNCOUNTED: u8 = 0;
const QUIET: u8 = 1;
const ENDING: u8 = 2;
const DELETING: u8 = 3;

/// Ends leases with many keys, in turns with deletes of as many keys, while another client sets keys of another
/// namespace.
async fn ended(channel: &Channel) {
    let phase = Arc::new(AtomicU8::new(QUIET));
    let setter =
        tokio::spawn(set_all_the_time(KvServiceClient::new(channel.clone()), phase.clone()));
    tokio::time::sleep(super::measure::round()).await;
    let (mut end_us, mut delete_us) = (Vec::new(), Vec::new());
    for _ in 0..scaled(ENDS) {
        phase.store(UNCOUNTED, Ordering::SeqCst);
        let lease = grant(channel, "ending").await;
        set_keys(channel, Some(lease)).await;
        end_us.push(during(&phase, ENDING, revoke(channel, lease)).await);
        set_keys(channel, None).await;
        delete_us.push(during(&phase, DELETING, delete_all(channel)).await);
    }
    phase.store(u8::MAX, Ordering::SeqCst);
    let latencies = setter.await.expect("sets go on");
    let (end_us, delete_us) = (median(end_us), median(delete_us));
    println!(
        "a lease with {} keys ends in {:.1} ms; a delete of as many takes {:.1} ms; ratio {:.2}",
        scaled(KEYS),
        end_us / 1e3,
        delete_us / 1e3,
        end_us / delete_us
    );
    println!(
        "{:<52} {:>8} {:>8} {:>8}",
        "latency in µs of sets in another namespace", "p50", "p99", "count"
    );
    let quiet_p99 = print_latencies("nothing else going on", &latencies, QUIET);
    let p99 = print_latencies("while such a lease ends", &latencies, ENDING);
    print_latencies("while as many keys are deleted", &latencies, DELETING);
    println!("ratio of the p99 while a lease ends to that without: {:.2}", p99 / quiet_p99);
}

fn print_latencies(what: &str, latencies: &[(u8, f64)], phase: u8) -> f64 {
    let of_phase = latencies.iter().filter(|(of, _)| *of == phase).map(|(_, latency)| *latency);
    let of_phase: Vec<_> = of_phase.collect();
    if of_phase.is_empty() {
        println!("{what:<52} {:>8} {:>8} {:>8}", "-", "-", 0);
        return f64::NAN;
    }
    let (p50, p99) = (percentile(of_phase.clone(), 50), percentile(of_phase.clone(), 99));
    println!("{what:<52} {p50:>8.0} {p99:>8.0} {:>8}", of_phase.len());
    p99
}

async fn during(phase: &AtomicU8, what: u8, work: impl Future<Output = ()>) -> f64 {
    phase.store(what, Ordering::SeqCst);
    let start = Instant::now();
    work.await;
    let taken_us = micros(start.elapsed());
    phase.store(UNCOUNTED, Ordering::SeqCst);
    taken_us
}

/// One set after the other; answers how long each took, and the phase that it fell into with its beginning or end.
async fn set_all_the_time(kv: KvServiceClient<Channel>, phase: Arc<AtomicU8>) -> Vec<(u8, f64)> {
    let mut latencies = Vec::new();
    loop {
        let (before, start) = (phase.load(Ordering::SeqCst), Instant::now());
        if before == u8::MAX {
            return latencies;
        }
        set(kv.clone(), 0, latencies.len()).await;
        let after = phase.load(Ordering::SeqCst);
        let of = if before == UNCOUNTED { after } else { before };
        latencies.push((of, micros(start.elapsed())));
    }
}

async fn grant(channel: &Channel, namespace: &str) -> u64 {
    let request =
        GrantRequest { namespace: namespace.into(), ttl_ms: 600_000, ..GrantRequest::default() };
    let answer = LeaseServiceClient::new(channel.clone()).grant(request).await;
    answer.expect("a lease is granted").into_inner().lease.expect("it is always set").lease_id
}

async fn set_keys(channel: &Channel, lease: Option<u64>) {
    let expiry = lease.map(|lease| Expiry { kind: Some(Kind::LeaseId(lease)) });
    let item = |index| Item {
        key: format!("key:{index:012}"),
        value: vec![b'x'; 64].into(),
        expiry,
        ..Item::default()
    };
    let items: Vec<_> = (0..scaled(KEYS)).map(item).collect();
    stream::iter(items.chunks(1000))
        .for_each(|items| async {
            let request = BatchSetRequest {
                namespace: "ending".into(),
                items: items.to_vec(),
                ..BatchSetRequest::default()
            };
            let answer = KvServiceClient::new(channel.clone()).batch_set(request).await;
            answer.expect("a batch can be set");
        })
        .await;
}

async fn revoke(channel: &Channel, lease_id: u64) {
    let request =
        RevokeRequest { namespace: "ending".into(), lease_id, ..RevokeRequest::default() };
    let answer = LeaseServiceClient::new(channel.clone()).revoke(request).await;
    assert_eq!(answer.expect("a lease can be revoked").into_inner().keys as usize, scaled(KEYS));
}

async fn delete_all(channel: &Channel) {
    let request = DeleteRangeRequest {
        namespace: "ending".into(),
        selector: Some(Selector { kind: Some(selector::Kind::All(All {})) }),
        ..DeleteRangeRequest::default()
    };
    let answer = KvServiceClient::new(channel.clone()).delete_range(request).await;
    assert_eq!(answer.expect("keys can be deleted").into_inner().deleted as usize, scaled(KEYS));
}
