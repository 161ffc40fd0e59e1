//! Locks and elections of the typed client.

use std::{
    cell::Cell,
    time::{Duration, SystemTime},
};

use futures::{FutureExt as _, StreamExt as _, future::join_all};
use holdfast_client::{
    Acquired, Change, Client, Compare, Error, LeaderStream, LockChange, LockGuard, LockItem,
    LockLoss, LockOwner, LockStream, Namespace, Op, Selector, TransactOptions, WatchItem,
};

use crate::{
    fixture::{self, PATIENCE, with_namespace},
    proxy::{LostAnswers, Proxy},
};

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn a_lock_has_one_holder_whom_others_can_see() {
    with_namespace("lock", async |ns| {
        let owner = LockOwner::new("host/1").who("ann").reason("backup").operation("copying");
        let asked = ns.lock("job").ttl(HOUR).owner(owner.clone()).value("shown");
        let hold = asked.try_acquire().await.expect("answers").into_guard().expect("is free");
        assert!(hold.is_held());
        match ns.lock("job").try_acquire().await.expect("answers") {
            Acquired::Taken(holder) => {
                assert_eq!((holder.token, holder.owner), (hold.token(), owner));
                assert_eq!((holder.value, holder.ttl), ("shown".into(), Some(HOUR)));
            }
            Acquired::Held(other) => panic!("two hold it: {hold:?} and {other:?}"),
        }
        let late = ns.lock("job").wait(Duration::from_millis(20)).acquire().await;
        assert!(matches!(&late, Err(Error::LockTaken { holder }) if holder.name == "job"));
        assert_eq!(hold.update_value("else").await.expect("is held").value, "else");
        assert_eq!(hold.renew().await.expect("is held").token, hold.token());
        let listed = ns.list_locks("jo").all().await.expect("answers");
        assert_eq!(listed.iter().map(|lock| lock.token).collect::<Vec<_>>(), [hold.token()]);
        assert!(ns.list_locks("x").all().await.expect("answers").is_empty());
        let (token, lost) = (hold.token(), hold.lost());
        assert!(hold.release().await.expect("answers"));
        assert_eq!(lost.await, LockLoss::Released);
        assert_eq!(ns.get_lock("job").await.expect("answers"), None);
        assert!(!ns.release_lock("job", token).await.expect("answers"));
    });
}

#[test]
fn dropping_a_hold_lets_the_next_have_it() {
    with_namespace("lock_drop", async |ns| {
        let first = ns.lock("job").ttl(HOUR).acquire().await.expect("is free");
        let waiting = tokio::spawn(ns.lock("job").ttl(HOUR).wait(PATIENCE).acquire());
        until_waiting(&ns, 1).await;
        let token = first.token();
        drop(first);
        let next = waiting.await.expect("no panic").expect("gets it");
        assert!(next.is_held() && next.token() > token);
    });
}

#[test]
fn a_cancelled_acquire_leaves_no_place_and_no_hold() {
    with_namespace("lock_cancel", async |ns| {
        let first = ns.lock("job").ttl(HOUR).acquire().await.expect("is free");
        let waiting = tokio::spawn(ns.lock("job").ttl(HOUR).acquire());
        until_waiting(&ns, 1).await;
        waiting.abort();
        until_waiting(&ns, 0).await;
        first.release().await.expect("answers");
        assert_eq!(ns.get_lock("job").await.expect("answers"), None);
        // Wherever it is interrupted.
        for polls in 0..60 {
            let acquiring = tokio::spawn(ns.lock("job").ttl(HOUR).acquire());
            for _ in 0..polls {
                tokio::task::yield_now().await;
            }
            acquiring.abort();
        }
        until_free(&ns).await;
    });
}

#[test]
fn a_hold_outlives_its_ttl_by_renewals() {
    with_namespace("lock_renewals", async |ns| {
        let ttl = Duration::from_secs(2);
        let hold = ns.lock("job").ttl(ttl).acquire().await.expect("is free");
        let granted = hold.info().expires_at;
        let other = ns.lock("job").wait(2 * ttl).acquire().await;
        assert!(matches!(other, Err(Error::LockTaken { .. })), "{other:?}");
        assert!(hold.is_held() && hold.info().expires_at > granted);
    });
}

#[test]
fn a_hold_is_lost_while_the_network_is_cut_before_another_has_the_lock() {
    with_namespace("lock_cut", async |ns| {
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let ttl = Duration::from_secs(2);
        let hold = far.lock("job").ttl(ttl).acquire().await.expect("is free");
        let waiting = tokio::spawn(ns.lock("job").ttl(HOUR).wait(PATIENCE).acquire());
        until_waiting(&ns, 1).await;
        proxy.block();
        let end = end_by_its_own_clock(&hold);
        let next = waiting.await.expect("no panic").expect("gets it in the end");
        // By its own clock alone, and before the grant, not just before the news of it.
        assert!(!hold.is_held());
        let granted = next.info().acquired_at;
        assert!(end <= SystemTime::from(granted), "{end:?}, {granted:?}");
        assert_eq!(hold.lost().await, LockLoss::NotRenewed);
        assert!(next.token() > hold.token());
        let stale = ns.set("k", "stale").guard(&hold).await;
        match stale {
            Err(Error::LockLost { lock, token, cause }) => {
                assert_eq!((lock.as_str(), token), ("job", hold.token()));
                assert_eq!(cause, LockLoss::Expired);
            }
            other => panic!("{other:?}"),
        }
        ns.set("k", "fresh").guard(&next).await.expect("is held");
    });
}

#[test]
fn whoever_loses_a_lock_by_force_is_told_why() {
    with_namespace("lock_break", async |ns| {
        let ttl = Duration::from_secs(3);
        let hold = ns.lock("job").ttl(ttl).acquire().await.expect("is free");
        let wrong = ns.break_lock("job", hold.token().get() + 1, "wrong");
        assert!(!wrong.await.expect("answers"));
        assert!(ns.break_lock("job", hold.token(), "enough").await.expect("answers"));
        assert_eq!(hold.lost().await, LockLoss::Broken { reason: "enough".to_owned() });
        assert!(matches!(hold.renew().await, Err(Error::LockLost { .. })));
    });
}

#[test]
fn guards_stand_on_every_write() {
    with_namespace("guards", async |ns| {
        let hold = ns.lock("job").ttl(HOUR).acquire().await.expect("is free");
        ns.set("a", &1).guard(&hold).await.expect("is held");
        ns.set_many([("b", 2)]).guard(&hold).await.expect("is held");
        let options = TransactOptions::new().guard(&hold);
        let moved = ns.transact_with(options.clone(), async |tx| tx.set("c", &3));
        moved.await.expect("is held");
        let compared = ns
            .transaction()
            .compare(Compare::lock("job").token().equal_to(hold.token()))
            .compare(Compare::lock("job").held())
            .then(Op::set("d", &4));
        assert!(compared.await.expect("answers").succeeded);

        let token = hold.token();
        hold.release().await.expect("answers");
        let set = ns.set("a", &5).guard_token("job", token).await.map(drop);
        let increment = ns.increment("n", 1).guard_token("job", token).await.map(drop);
        let batch = ns.delete_many(["b"]).guard_token("job", token).await.map(drop);
        let closure = ns.transact_with(options, async |tx| tx.set("c", &5)).await.map(drop);
        for refused in [set, increment, batch, closure] {
            let cause = match refused {
                Err(Error::LockLost { cause, .. }) => cause,
                other => panic!("{other:?}"),
            };
            assert_eq!(cause, LockLoss::Released);
        }
        let compared = ns.transaction().compare(Compare::lock("job").held());
        assert!(!compared.then(Op::set("d", &5)).await.expect("answers").succeeded);
    });
}

#[test]
fn holders_that_were_paused_overlap_with_others_unless_they_write_with_guards() {
    with_namespace("fencing", async |ns| {
        let written = register_of(&ns, false).await;
        assert!(!written.is_sorted(), "a late write was to come after one with a greater token");
        let written = register_of(&ns, true).await;
        assert!(written.is_sorted(), "{written:?}");
    });
}

/// The tokens that clients leave in one register, in order. Half of them are paused between taking the lock and
/// writing, for so long that they have lost it and another holder has written.
async fn register_of(ns: &Namespace, guarded: bool) -> Vec<u64> {
    const CLIENTS_OF_A_KIND: usize = 4;
    let mut watch = ns.watch::<u64>(Selector::key("register")).await.expect("stands");
    let (writes, _) = tokio::sync::watch::channel(0_usize);
    let paused = join_all((0..CLIENTS_OF_A_KIND).map(|_| async {
        for _ in 0..5 {
            let hold = ns.lock("job").ttl(HOUR).acquire().await.expect("gets it");
            let token = hold.token();
            assert!(ns.break_lock("job", token, "paused").await.expect("answers"));
            let mut others = writes.subscribe();
            let before = *others.borrow_and_update();
            others.wait_for(|now| *now > before).await.expect("others write");
            // Whether it still has the lock it cannot know.
            assert!(hold.is_held());
            let write = ns.set("register", &token.get());
            match guarded {
                true => {
                    let refused = write.guard(&hold).await;
                    assert!(matches!(refused, Err(Error::LockLost { .. })), "{refused:?}");
                }
                false => drop(write.await.expect("answers")),
            }
        }
    }));
    let done = Cell::new(false);
    let steady = join_all((0..CLIENTS_OF_A_KIND).map(|_| async {
        while !done.get() {
            let hold = ns.lock("job").ttl(HOUR).acquire().await.expect("gets it");
            let write = ns.set("register", &hold.token().get());
            let write = if guarded { write.guard(&hold) } else { write };
            write.await.expect("is held");
            writes.send_modify(|count| *count += 1);
            hold.release().await.expect("answers");
        }
    }));
    tokio::join!(paused.map(|_| done.set(true)), steady);
    ns.delete("register").await.expect("answers");
    let mut written = Vec::new();
    loop {
        let item = watch.next().await.expect("goes on").expect("no error");
        if let WatchItem::Event(event) = item {
            match event.change {
                Change::Set(entry) => written.push(entry.value),
                _ => return written,
            }
        }
    }
}

#[test]
fn a_hold_by_a_lease_ends_with_it() {
    with_namespace("lock_lease", async |ns| {
        let lease = ns.grant_lease(HOUR).await.expect("granted");
        let hold = ns.lock("job").lease(&lease).acquire().await.expect("is free");
        assert_eq!(hold.info().lease_id, Some(lease.id()));
        assert!(hold.is_held());
        let revoked = lease.revoke().await.expect("answers");
        assert_eq!((revoked.revoked, revoked.locks), (true, 1));
        assert_eq!(hold.lost().await, LockLoss::LeaseRevoked);
        assert_eq!(ns.get_lock("job").await.expect("answers"), None);
    });
}

#[test]
fn a_watch_of_locks_misses_nothing_over_broken_connections() {
    with_namespace("lock_watch", async |ns| {
        let before = ns.lock("job:0").ttl(HOUR).acquire().await.expect("is free");
        let proxy = Proxy::to(fixture::shared()).await;
        let far = fixture::connect(proxy.address).await.namespace(ns.name());
        let mut watch = far.watch_locks("job:").await.expect("stands");
        match item(&mut watch).await {
            LockItem::State(lock) => assert_eq!(lock.token, before.token()),
            other => panic!("{other:?}"),
        }
        assert!(matches!(item(&mut watch).await, LockItem::StateEnd(_)));
        for round in 0..5 {
            let name = format!("job:{round}.1");
            let hold = ns.lock(&name).ttl(HOUR).acquire().await.expect("is free");
            hold.update_value("new").await.expect("is held");
            ns.lock("other").ttl(HOUR).try_acquire().await.expect("answers").into_guard();
            proxy.cut();
            let token = hold.token();
            ns.break_lock(&name, token, "enough").await.expect("answers");
            let changes = [
                change(&mut watch, &name).await,
                change(&mut watch, &name).await,
                change(&mut watch, &name).await,
            ];
            let [LockChange::Granted(granted), LockChange::ValueChanged(changed), end] = changes
            else {
                panic!("{changes:?}");
            };
            assert_eq!((granted.token, changed.value), (token, "new".into()));
            assert_eq!(end, LockChange::Broken { reason: "enough".to_owned() });
        }
    });
}

#[test]
fn leadership_passes_on_and_can_be_observed() {
    with_namespace("election", async |ns| {
        let election = ns.election("leader").ttl(HOUR);
        assert_eq!(election.leader().await.expect("answers"), None);
        let mut observed = election.observe().await.expect("stands");
        assert_eq!(leader(&mut observed).await, None);
        let first = election.campaign("a").await.expect("elected");
        assert_eq!(leader(&mut observed).await.as_deref(), Some("a"));
        let other = election.campaign("b").wait(PATIENCE);
        let waiting = tokio::spawn(other.into_future());
        until_waiting_for(&ns, "leader", 1).await;
        first.proclaim("a2").await.expect("leads");
        assert_eq!(leader(&mut observed).await.as_deref(), Some("a2"));
        let token = first.token();
        assert!(first.is_leader() && first.resign().await.expect("answers"));
        let second = waiting.await.expect("no panic").expect("elected");
        assert!(second.token() > token);
        while leader(&mut observed).await.as_deref() != Some("b") {}
        ns.set("k", "v").guard(&second).await.expect("leads");
        let now = election.leader().await.expect("answers").expect("there is one");
        assert_eq!((now.value, now.token), ("b".into(), second.token()));
        drop(second);
        while leader(&mut observed).await.is_some() {}
    });
}

/// When a hold ends unless it is renewed, no earlier than it is so.
fn end_by_its_own_clock(hold: &LockGuard) -> SystemTime {
    // Held up between the two looks at a clock, it would be told too late.
    let looks = (0..1_000).map(|_| {
        let left = hold.remaining();
        SystemTime::now() + left
    });
    looks.min().expect("there are some")
}

async fn until_waiting(ns: &Namespace, callers: u32) {
    until_waiting_for(ns, "job", callers).await;
}

async fn until_waiting_for(ns: &Namespace, lock: &str, callers: u32) {
    loop {
        let held = ns.get_lock(lock).await.expect("answers").expect("is held");
        if held.waiting == callers {
            return;
        }
    }
}

async fn until_free(ns: &Namespace) {
    while ns.get_lock("job").await.expect("answers").is_some() {}
}

async fn item(watch: &mut LockStream) -> LockItem {
    let next = tokio::time::timeout(PATIENCE, watch.next()).await;
    next.expect("in time").expect("goes on").expect("no error")
}

/// What becomes of this lock next; of locks not asked for nothing comes.
async fn change(watch: &mut LockStream, name: &str) -> LockChange {
    loop {
        match item(watch).await {
            LockItem::Event(event) => {
                assert_eq!(event.name, name);
                return event.change;
            }
            LockItem::Progress(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn leader(observed: &mut LeaderStream) -> Option<String> {
    let next = tokio::time::timeout(PATIENCE, observed.next()).await;
    let leader = next.expect("in time").expect("goes on").expect("no error");
    leader.map(|leader| String::from_utf8_lossy(&leader.value).into_owned())
}

#[test]
fn who_gives_a_hold_up_relies_on_it_no_more() {
    with_namespace("lock_giving_up", async |ns| {
        let hold = ns.lock("job").ttl(HOUR).acquire().await.expect("is free");
        let lost = hold.lost();
        let mut releasing = Box::pin(hold.release());
        assert!(releasing.as_mut().now_or_never().is_none());
        assert_eq!(lost.now_or_never(), Some(LockLoss::Released));
        assert!(releasing.await.expect("answers"));
    });
}

#[test]
fn a_hold_by_a_lease_is_over_before_the_lease_is_revoked() {
    with_namespace("lease_giving_up", async |ns| {
        let lease = ns.grant_lease(HOUR).await.expect("granted");
        let hold = ns.lock("job").lease(&lease).acquire().await.expect("is free");
        let mut revoking = Box::pin(lease.revoke());
        assert!(revoking.as_mut().now_or_never().is_none());
        assert!(!hold.is_held());
        assert_eq!(revoking.await.expect("answers").locks, 1);
    });
}

#[test]
fn a_lock_whose_grant_was_lost_is_given_up_when_the_next_attempt_is_refused() {
    with_namespace("lock_lost_grant", async |ns| {
        let guard = ns.lock("guard").ttl(HOUR).acquire().await.expect("is free");
        let proxy = Proxy::losing(fixture::shared(), LostAnswers::one_in(2)).await;
        let builder = Client::builder(proxy.address.to_string()).timeout(PATIENCE);
        let client = builder.max_attempts(1_000).connect_lazy().expect("a client");
        let far = client.namespace(ns.name());
        // The first answer comes, the second does not, and until further notice there is no other.
        assert!(!far.exists("k").await.expect("answers"));
        proxy.close();
        let asking = far.lock("job").ttl(HOUR).guard(&guard).try_acquire();
        let asking = tokio::spawn(asking);
        while ns.get_lock("job").await.expect("answers").is_none() {}
        guard.release().await.expect("answers");
        proxy.unblock();
        let refused = asking.await.expect("no panic");
        assert!(matches!(&refused, Err(Error::LockLost { lock, .. }) if lock == "guard"));
        until_free(&ns).await;
    });
}
