//! What begins another lineage of a namespace: it is deleted, replaced by what was exported, or its store loses
//! everything, or a part of it.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng, seq::IndexedRandom as _};
use tokio::time::{Instant, sleep, timeout};
use tonic::transport::Endpoint;

use holdfast_proto::v1::*;

use crate::{
    common::{build, coordination, namespace::Namespace, redis::Sentinels, transfer::Exported},
    faults::{Fault, Stage},
    servers::{AWAY, PATIENCE, Servers},
};

/// Begins another lineage of one namespace, or of all.
pub async fn begin_another(stage: &Stage, fault: Fault, random: &mut StdRng) {
    match fault {
        Fault::Wipe => return wipe(stage).await,
        Fault::Rewind | Fault::Failover => return lose_some(stage, fault, random).await,
        _ => {}
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
    recorder.change(begun, None);
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
        recorder.change(begun, None);
    }
}

/// Has the store go on from a part of what it had: what was written of late is gone, although it was acknowledged.
async fn lose_some(stage: &Stage, fault: Fault, random: &mut StdRng) {
    // Nothing else changes meanwhile: each lineage that anything goes on from is taken down.
    witnessed(stage, None).await;
    stage.witnessed.iter().for_each(|witnessed| witnessed.hold(true));
    let begun: Vec<_> = stage.recorders.iter().map(|it| it.now()).collect();
    let lasting = Duration::from_millis(random.random_range(1..300));
    let former: Vec<String> = stage.witnessed.iter().map(|witnessed| witnessed.lineage()).collect();
    let kept: Vec<_> = stage.recorders.iter().map(|it| it.now()).collect();
    match (&stage.servers.redis, &stage.servers.sentinels) {
        (Some((redis, _)), _) => {
            redis.lock().save();
            // How much is lost.
            sleep(lasting).await;
            let mut redis = redis.lock();
            redis.start_again();
            redis.forget();
        }
        (_, Some(sentinels)) => {
            let is_parted = random.random_bool(0.8);
            fail_over(sentinels.clone(), is_parted.then_some(lasting)).await;
        }
        _ => unreachable!("{fault} is for Redis"),
    }
    for ((recorder, begun), kept) in stage.recorders.iter().zip(begun).zip(kept) {
        recorder.change(begun, Some(kept));
    }
    witnessed(stage, Some(&former)).await;
    stage.witnessed.iter().for_each(|witnessed| witnessed.hold(false));
}

/// Kills the primary, which may have gone on without its replica for a while; it comes back as the replica of that.
async fn fail_over(sentinels: Arc<Mutex<Sentinels>>, parted: Option<Duration>) {
    let killed = tokio::task::spawn_blocking(move || {
        let mut sentinels = sentinels.lock();
        sentinels.catch_up();
        if let Some(lasting) = parted {
            sentinels.part();
            // How much is lost.
            std::thread::sleep(lasting);
        }
        let former = sentinels.fail_over();
        sentinels.rejoin(former);
    });
    killed.await.expect("there is another primary");
}

/// Waits until those who take down the log of each namespace are at the lineage that this has; not the former, where
/// these are given.
async fn witnessed(stage: &Stage, former: Option<&[String]>) {
    let late = Instant::now() + PATIENCE;
    for (index, witnessed) in stage.witnessed.iter().enumerate() {
        let server = &stage.servers.servers[0];
        let ns = at(&server.direct(), stage.recorders[index].namespace());
        let mut begun = None;
        loop {
            match timeout(PATIENCE / 6, ns.call(GetNamespaceRequest::default())).await {
                Ok(Ok(GetNamespaceResponse { namespace: Some(found), .. })) => {
                    let is_former = former.is_some_and(|former| former[index] == found.lineage);
                    let revision = if former.is_some() { found.revision } else { 0 };
                    if !is_former && witnessed.is_at(&found.lineage, *begun.get_or_insert(revision))
                    {
                        break;
                    }
                }
                // There is none, and so nothing of it to take down.
                Ok(Ok(_)) => break,
                _ => {}
            }
            assert!(Instant::now() < late, "nobody takes down {}: {witnessed:?}", ns.name);
            sleep(AWAY).await;
        }
    }
}

/// The leases that are imported: those for keys, then those for locks; in each pair the first lasts.
const LEASES: [u64; 4] = [1002, 1004, 1003, 1005];

/// What is imported in place of a namespace: some of the keys and locks that the clients use, some of them for a short
/// while, or as long as leases.
pub async fn exported(endpoint: &Endpoint) -> Exported {
    let ns = at(endpoint, "exported");
    let [lasting, brief, lasting_of_locks, brief_of_locks] = LEASES;
    // Each just before it is used: a machine that is busy takes its time.
    let grant = async |id, ttl_ms| {
        ns.ok(GrantRequest { lease_id: Some(id), ..coordination::grant(ttl_ms) }).await;
    };
    grant(lasting, 60_000).await;
    grant(lasting_of_locks, 60_000).await;
    for (name, lease) in [("lb", Some(lasting_of_locks)), ("m", Some(brief_of_locks)), ("la", None)]
    {
        if lease == Some(brief_of_locks) {
            grant(brief_of_locks, 2000).await;
        }
        let acquire = match lease {
            Some(id) => coordination::acquire_by(name, id),
            None => coordination::acquire_for(name, 3000),
        };
        let id = "exported".to_owned();
        let owner = Some(LockOwner { id, ..LockOwner::default() });
        ns.hold(AcquireRequest { owner, ..acquire }).await;
    }
    for (key, expiry) in [
        ("a", build::never()),
        ("b", build::ttl(1500)),
        ("n/0", build::never()),
        ("p/1", build::ttl(60_000)),
        ("p/1", build::keep()),
        ("c", coordination::with_lease(lasting)),
        ("p/2", coordination::with_lease(lasting)),
        ("p/3", coordination::with_lease(brief)),
    ] {
        if key == "p/3" {
            grant(brief, 1500).await;
        }
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
