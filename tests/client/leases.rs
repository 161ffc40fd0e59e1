//! Leases of the typed client.

use std::time::Duration;

use futures::{StreamExt as _, future::join_all};
use holdfast_client::{
    Change, Client, Compare, Error, LeaseId, LeaseLoss, Op, Removal, Selector, Ttl, WatchItem,
};

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    proxy::Proxy,
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_lease_keeps_itself_and_its_keys_alive() {
    with_namespace("lease", async |ns| {
        let ttl = Duration::from_secs(2);
        let lease = ns.grant_lease(ttl).await.expect("granted");
        let set = ns.set("k", "v").lease(&lease).await.expect("answers");
        assert_eq!((set.metadata.lease_id, set.metadata.expires_at), (Some(lease.id()), None));
        assert!(matches!(ns.ttl("k").await.expect("answers"), Ttl::Remaining(_)));
        // What ends by its own twice that time later is the clock of this test.
        let mut ended = ns.watch_keys(Selector::key("clock")).expiries().await.expect("stands");
        ns.set("clock", "").ttl(2 * ttl).await.expect("answers");
        while !matches!(ended.next().await, Some(Ok(WatchItem::Event(_)))) {}
        assert!(lease.is_alive());
        let entry = ns.get::<String>("k").await.expect("answers").expect("is there");
        assert_eq!(entry.metadata, set.metadata);
    });
}

#[test]
fn many_leases_are_kept_alive_together() {
    with_namespace("leases", async |ns| {
        let ttl = Duration::from_secs(2);
        let grants = (0..200).map(|_| ns.grant_lease(ttl).into_future());
        let leases: Vec<_> =
            join_all(grants).await.into_iter().map(|lease| lease.expect("granted")).collect();
        assert_eq!(ns.list_leases().page_size(7).all().await.expect("answers").len(), 200);
        let mut ended = ns.watch_keys(Selector::key("clock")).expiries().await.expect("stands");
        ns.set("clock", "").ttl(2 * ttl).await.expect("answers");
        while !matches!(ended.next().await, Some(Ok(WatchItem::Event(_)))) {}
        assert!(leases.iter().all(holdfast_client::Lease::is_alive));
    });
}

#[test]
fn revoking_a_lease_removes_its_keys_at_once() {
    with_namespace("lease_revoke", async |ns| {
        let chosen = LeaseId::new(0xfeed_0000_0000_0002);
        let lease = ns.grant_lease(HOUR).id(chosen).await.expect("granted");
        ns.set_many([("a", 1), ("b", 2)]).lease(&lease).await.expect("answers");
        let contents = ns.get_lease(lease.id()).attached().await.expect("answers");
        let contents = contents.expect("there is one");
        assert_eq!((contents.keys, contents.more), (vec!["a".to_owned(), "b".to_owned()], false));
        let attached = ns
            .transaction()
            .compare(Compare::key("a").lease().equal_to(lease.id()))
            .then(Op::set("c", &3).lease(&lease))
            .then(Op::set("b", &2));
        assert!(attached.await.expect("answers").succeeded);
        let detached = ns.transaction().compare(Compare::key("b").without_lease());
        assert!(detached.then(Op::get("b")).await.expect("answers").succeeded);

        let mut watch = ns.watch::<i32>(Selector::all()).await.expect("stands");
        let (id, lost) = (lease.id(), lease.lost());
        let revoked = lease.revoke().await.expect("answers");
        assert_eq!((revoked.revoked, revoked.keys), (true, 2));
        assert_eq!(lost.await, LeaseLoss::Revoked);
        for key in ["a", "c"] {
            let Some(Ok(WatchItem::Event(event))) = watch.next().await else {
                panic!("there are events");
            };
            assert_eq!((event.key.as_str(), event.change), (key, Change::Deleted));
            assert_eq!(event.removal, Some(Removal::Revoked));
        }
        assert_eq!(ns.get_lease(id).await.expect("answers"), None);
        assert!(!ns.revoke_lease(id).await.expect("answers").revoked);
        let late = ns.set("d", &4).lease(id).await;
        assert!(matches!(late, Err(Error::LeaseNotFound { lease, .. }) if lease == id));
        let late = ns.keep_alive_once(id).await;
        assert!(matches!(late, Err(Error::LeaseNotFound { lease, .. }) if lease == id));
        let again = ns.grant_lease(HOUR).id(id).await;
        assert!(matches!(again, Err(Error::LeaseIdUsed { lease }) if lease == id));
    });
}

#[test]
fn a_lease_is_lost_while_the_network_is_cut_before_its_keys_are_gone() {
    with_namespace("lease_cut", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let lease = far.grant_lease(Duration::from_secs(2)).await.expect("granted");
        far.set("k", "v").lease(&lease).await.expect("answers");
        let mut watch = ns.watch::<String>(Selector::all()).expiries().await.expect("stands");
        proxy.block();
        let Some(Ok(WatchItem::Event(event))) = watch.next().await else {
            panic!("the key ends");
        };
        assert_eq!((event.key.as_str(), event.removal), ("k", Some(Removal::Lease)));
        // By its own clock alone.
        assert!(!lease.is_alive());
        assert_eq!(lease.lost().await, LeaseLoss::NotKeptAlive);
    });
}

#[test]
fn a_lease_survives_broken_connections() {
    with_namespace("lease_reconnect", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let ttl = Duration::from_secs(3);
        let lease = far.grant_lease(ttl).await.expect("granted");
        let granted = ns.get_lease(lease.id()).await.expect("answers").expect("is there");
        for _ in 0..3 {
            let mut ended = ns.watch_keys(Selector::key("clock")).expiries().await.expect("stands");
            ns.set("clock", "").ttl(ttl / 2).await.expect("answers");
            while !matches!(ended.next().await, Some(Ok(WatchItem::Event(_)))) {}
            proxy.cut();
        }
        assert!(lease.is_alive());
        let now = ns.get_lease(lease.id()).await.expect("answers").expect("is there");
        assert!(now.expires_at > granted.expires_at);
    });
}

#[test]
fn the_server_tells_that_a_lease_is_gone() {
    with_namespace("lease_gone", async |ns| {
        let lease = ns.grant_lease(Duration::from_secs(3)).await.expect("granted");
        assert!(ns.revoke_lease(lease.id()).await.expect("answers").revoked);
        let lost = tokio::time::timeout(PATIENCE, lease.lost()).await;
        assert_eq!(lost.expect("in time"), LeaseLoss::Ended);
    });
}

#[test]
fn a_lease_can_be_handed_over_by_its_id() {
    with_namespace("lease_detach", async |ns| {
        let chosen = LeaseId::new(0xfeed_0000_0000_0001);
        let lease = ns.grant_lease(HOUR).id(chosen).await.expect("granted");
        let id = lease.detach();
        assert_eq!(id, chosen);
        let kept = ns.keep_alive_once(id).await.expect("is there");
        assert_eq!((kept.id, kept.ttl), (id, HOUR));
        assert!(ns.revoke_lease(id).await.expect("answers").revoked);
    });
}

#[test]
fn a_lease_that_has_ended_before_its_grant_is_told_is_none() {
    with_namespace("lease_late", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        proxy.hold_back();
        let granting = far.grant_lease(Duration::from_secs(1)).into_future();
        let granting = tokio::spawn(granting);
        while ns.list_leases().all().await.expect("answers").is_empty() {}
        while !ns.list_leases().all().await.expect("answers").is_empty() {}
        proxy.let_go();
        let late = granting.await.expect("no panic");
        assert!(matches!(late, Err(Error::LeaseNotFound { .. })), "{late:?}");
    });
}

#[test]
fn a_lease_lives_on_over_another_server_where_one_falls_silent() {
    with_namespace("lease_silence", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let builder = Client::builder(proxy.address.to_string()).timeout(PATIENCE);
        let client = builder.endpoint(fixture::shared().to_string()).connect().await;
        let far = client.expect("the server answers").namespace(ns.name());
        let ttl = Duration::from_secs(3);
        let lease = far.grant_lease(ttl).await.expect("granted");
        proxy.hold_back();
        let mut ended = ns.watch_keys(Selector::key("clock")).expiries().await.expect("stands");
        ns.set("clock", "").ttl(2 * ttl).await.expect("answers");
        while !matches!(ended.next().await, Some(Ok(WatchItem::Event(_)))) {}
        assert!(lease.is_alive(), "{lease:?}");
    });
}
