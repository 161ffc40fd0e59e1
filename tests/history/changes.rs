//! What begins another lineage of a namespace: it is deleted, replaced by what was exported, or its store loses
//! everything.

use rand::{rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::timeout;
use tonic::transport::Endpoint;

use holdfast_proto::v1::*;

use crate::{
    common::{build, namespace::Namespace, transfer::Exported},
    faults::{Fault, Stage},
    servers::{PATIENCE, Servers},
};

/// Begins another lineage of one namespace, or of all.
pub async fn begin_another(stage: &Stage, fault: Fault, random: &mut StdRng) {
    if fault == Fault::Wipe {
        return wipe(stage).await;
    }
    let recorder = stage.recorders.choose(random).expect("there is one");
    let server = stage.servers.servers.choose(random).expect("there is one");
    let ns = at(&server.direct(), recorder.namespace());
    let begun = recorder.now();
    // Whether it succeeded is seen by what comes after.
    match fault {
        Fault::Import => drop(timeout(PATIENCE / 6, ns.import(&stage.exported, true)).await),
        _ => drop(timeout(PATIENCE / 6, ns.call(DeleteNamespaceRequest::default())).await),
    }
    recorder.change(begun);
}

/// Takes everything that there is: Redis is flushed or starts empty; a server that keeps nothing starts anew.
async fn wipe(stage: &Stage) {
    let Servers { servers, redis, .. } = &*stage.servers;
    let begun: Vec<_> = stage.recorders.iter().map(|it| it.now()).collect();
    match redis {
        Some((redis, _)) => {
            let mut redis = redis.lock();
            match begun.iter().sum::<u64>() % 2 {
                0 => redis.run::<()>(&["FLUSHALL"]),
                _ => redis.start_again(),
            }
        }
        None => {
            servers[0].kill().await;
            servers[0].start_again().await.unwrap_or_else(|log| panic!("it does not start: {log}"));
        }
    }
    for (recorder, begun) in stage.recorders.iter().zip(begun) {
        recorder.change(begun);
    }
}

/// What is imported in place of a namespace: some of the keys that the clients use, one of them for a short while.
pub async fn exported(endpoint: &Endpoint) -> Exported {
    let ns = at(endpoint, "exported");
    for (key, expiry) in [
        ("a", build::never()),
        ("b", build::ttl(1500)),
        ("n/0", build::never()),
        ("p/1", build::ttl(60_000)),
        ("p/1", build::keep()),
    ] {
        ns.ok(SetRequest { expiry, ..build::set(key, "7") }).await;
    }
    ns.export().await
}

/// A namespace at a server.
pub fn at(endpoint: &Endpoint, name: &str) -> Namespace {
    Namespace {
        name: name.to_owned(),
        channel: endpoint.connect_lazy(),
        endpoint: endpoint.clone(),
        servers: Vec::new(),
    }
}
