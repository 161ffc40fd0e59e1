//! A cluster whose slots move while they are used, and of which one node stands still.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use holdfast_proto::v1::SetRequest;

use crate::{
    common::{build::*, namespace::Namespace, redis::Cluster},
    fixture::*,
};

crate::cases! {
    a_slot_that_moves_under_load_loses_nothing,
    namespaces_are_spread_over_the_nodes,
    a_node_that_stands_still_holds_up_expiry_on_no_other,
}

async fn a_slot_that_moves_under_load_loses_nothing() {
    const CALLERS: usize = 4;
    let cluster = Arc::new(Cluster::start(None).expect("it is installed"));
    let server = serve(&cluster.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    let client = typed(&ns).await;
    let mut watch = watch_record(&client).await;
    let (count, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (client, count, over) = (client.clone(), count.clone(), over.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    seen.push(client.increment("n", 1).await.expect("it comes through"));
                    count.fetch_add(1, Ordering::Relaxed);
                }
                seen
            })
        })
        .collect();
    let mut record = Record::default();
    record.write_until_done(&ns).await;
    let (name, nodes) = (ns.name.clone(), cluster.clone());
    let moving = tokio::task::spawn_blocking(move || {
        for _ in 0..3 {
            let (slot, from) = nodes.slot_of(&name);
            nodes.move_slot(slot, from, (from + 1) % nodes.nodes.len());
        }
    });
    while !moving.is_finished() {
        record.write(&ns).await;
    }
    moving.await.expect("the slot has been moved");
    let before = count.load(Ordering::Relaxed);
    while count.load(Ordering::Relaxed) < before + 100 {
        record.write_until_done(&ns).await;
    }
    over.store(true, Ordering::Relaxed);
    let mut seen = Vec::new();
    for caller in callers {
        seen.extend(caller.await.expect("it does not fail"));
    }
    seen.sort_unstable();
    let all = 1..=i64::try_from(seen.len()).expect("few");
    assert!(seen.into_iter().eq(all), "each was applied once");
    record.write_until_done(&ns).await;
    record.check(&mut watch).await;
    for key in record.done.keys() {
        assert!(ns.get(key).await.is_some(), "{key} was acknowledged");
    }
}

async fn namespaces_are_spread_over_the_nodes() {
    let cluster = Cluster::start(None).expect("it is installed");
    let server = serve(&cluster.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    for number in 0..30_u32 {
        let sibling = ns.sibling(&number.to_string());
        sibling.set("k", number.to_string()).await;
        assert_eq!(sibling.value("k").await, Some(number.to_string()));
    }
    for node in &cluster.nodes {
        let keys: usize = node.run(&["DBSIZE"]);
        assert!(keys > 10, "{keys}");
    }
    let listed = ns.ok(holdfast_proto::v1::ListNamespacesRequest::default()).await;
    assert_eq!(listed.namespaces.len(), 30);
    assert_eq!(ns.ok(count(all())).await.count, 0);
}

async fn a_node_that_stands_still_holds_up_expiry_on_no_other() {
    let cluster = Cluster::start(None).expect("it is installed");
    let server = serve(&cluster.url()).await;
    let ns = Namespace::fresh(&server, "ns");
    // All servers ask the node of the names for the time.
    let still = usize::from(cluster.slot_of("names").1 == 0);
    let mut siblings = (0..).map(|number: u32| ns.sibling(&number.to_string()));
    let mut on = |is_still: bool| {
        siblings.find(|it| (cluster.slot_of(&it.name).1 == still) == is_still).expect("one is")
    };
    let (held_up, free) = (on(true), on(false));
    let mut watch = watch_record(&typed(&free).await).await;
    held_up.ok(SetRequest { expiry: ttl(500), ..set("k", "") }).await;
    free.ok(SetRequest { expiry: ttl(700), ..set("w", "") }).await;
    cluster.nodes[still].pause();
    let (_, written) = next_key(&mut watch).await;
    tokio::select! {
        (_, expired) = next_key(&mut watch) => assert!(expired > written),
        _ = held_up.call(get("k")) => panic!("what waits for the node has been given up before"),
    }
    cluster.nodes[still].go_on();
}
