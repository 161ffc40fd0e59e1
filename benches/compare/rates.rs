//! Gets and sets on `memory:`, beside a bare tonic echo and Redis.

use holdfast_client::Raw;
use holdfast_proto::v1::kv_service_client::KvServiceClient;

use super::{
    NAMESPACE,
    callers::{Call, Figures, Redis, Subject, Typed, Unary, fill, in_turns},
    peer::{self, echo::Echo},
    report::{Goal, Report, Unit},
    server::{self, Apart},
};

/// How many callers the rates are measured with.
const CALLERS: [usize; 3] = [1, 64, 1024];

/// Compares gets and sets.
pub async fn run(report: &mut Report) {
    let server = Apart::start("memory:");
    let namespace = server::connect(&server.address).await.namespace(NAMESPACE);
    let namespace = namespace.with_codec(Raw::new());
    let kv = KvServiceClient::new(server::channel(&server.address).await);
    let echo = Echo::start().await;
    let redis = peer::redis::Redis::start().await;
    fill(Typed(namespace.clone(), Call::Set)).await;
    if let Some(redis) = &redis {
        fill(Redis(redis.connection.clone(), Call::Set)).await;
    }
    for call in [Call::Get, Call::Set] {
        let typed = Typed(namespace.clone(), call);
        let unary = Unary(kv.clone(), call);
        let redis = redis.as_ref().map(|redis| Redis(redis.connection.clone(), call));
        let redis = redis.as_ref().map(|redis| redis as &dyn Subject);
        for callers in CALLERS {
            let subjects = [Some(&typed as &dyn Subject), Some(&unary), Some(&echo.client), redis];
            let [typed, unary, echo, redis] = in_turns(callers, subjects).await;
            let mut compare = |way: &str, ours, theirs, against, goals| {
                let what = format!("{} {way}, `memory:`, {}", call.name(), counted(callers));
                compare(report, &what, ours, theirs, against, goals);
            };
            compare("by the typed client", typed, echo, "bare tonic echo", of_echo(callers));
            let goals = (of_redis(callers), None);
            compare("by the typed client", typed, redis, redis_command(call), goals);
            let goals = ((callers == 64).then_some(Goal::AtLeast(0.9)), None);
            compare("by a unary call", unary, echo, "bare tonic echo", goals);
        }
    }
}

/// The goals of the rate and of the latency.
type Goals = (Option<Goal>, Option<Goal>);

fn of_echo(callers: usize) -> Goals {
    let rate = (callers == 64).then_some(Goal::AtLeast(12.0));
    let latency = (callers == 1).then_some(Goal::AtMost(0.6));
    (rate, latency)
}

fn of_redis(callers: usize) -> Option<Goal> {
    match callers {
        64 => Some(Goal::AtLeast(1.2)),
        1024 => Some(Goal::AtLeast(1.5)),
        _ => None,
    }
}

fn redis_command(call: Call) -> &'static str {
    match call {
        Call::Get => "Redis GET",
        Call::Set => "Redis SET",
    }
}

/// Reports the rate, or with one caller the latency, where both are there.
pub fn compare(
    report: &mut Report,
    what: &str,
    ours: Option<Figures>,
    theirs: Option<Figures>,
    against: &str,
    (rate, latency): Goals,
) {
    let Some((ours, theirs)) = ours.zip(theirs) else {
        return;
    };
    if what.ends_with(" 1 caller") {
        let figures = (ours.latency_us, theirs.latency_us);
        report.add(what, against, Unit::Micros, figures, latency);
    } else {
        report.add(what, against, Unit::PerSecond, (ours.rate, theirs.rate), rate);
    }
}

/// So many callers, in words.
pub fn counted(callers: usize) -> String {
    match callers {
        1 => "1 caller".to_owned(),
        _ => format!("{callers} callers"),
    }
}
