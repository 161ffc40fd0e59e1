//! Bad input for calls on locks and leases, and for what any write may carry.

use holdfast_proto::v1::{
    acquire_request::Duration, compare::Operand, pipeline_call::Operation as Op, *,
};
use prost::bytes::Bytes;

use super::errors_calls::{Bad, refuses};
use crate::common::{
    build::*, coordination::*, failure::Failure, lock_watcher::LockWatcher, namespace::Namespace,
};

crate::cases! {
    bad_names_of_locks_are_refused,
    bad_acquires_are_refused,
    bad_changes_of_locks_are_refused,
    waiting_in_a_pipeline_is_refused,
    bad_leases_are_refused,
    bad_guards_are_refused,
    bad_request_ids_are_refused,
    an_acquire_has_no_request_id,
    bad_lists_of_locks_and_leases_are_refused,
    bad_watches_of_locks_are_refused,
    a_bad_keep_alive_is_answered_by_itself,
}

const CENTURY_MS: u64 = 36_600 * 24 * 3_600_000;

fn held(name: &str) -> Lock {
    Lock { name: name.to_owned(), token: 1, ..Default::default() }
}

async fn bad_names_of_locks_are_refused(ns: Namespace) {
    let reason = ErrorReason::InvalidLock;
    let mut table: Vec<Bad> = Vec::new();
    for bad in ["", "a\0b", &"l".repeat(1025), &"é".repeat(513)] {
        let compared = compare(bad, Comparison::Equal, Operand::LockToken(1));
        let write = SetRequest { options: guarded([&held("good"), &held(bad)]), ..set("k", "1") };
        table.extend([
            (Op::Acquire(acquire(bad)), reason, "name"),
            (Op::Renew(renew(&held(bad))), reason, "name"),
            (Op::Release(release(&held(bad))), reason, "name"),
            (Op::UpdateValue(update_value(&held(bad), "v")), reason, "name"),
            (Op::GetLock(get_lock(bad)), reason, "name"),
            (Op::BreakLock(break_lock(&held(bad), "")), reason, "name"),
            (Op::Set(write), reason, "options.guards[1].lock"),
            (
                Op::Transact(TransactRequest {
                    compares: vec![compared],
                    ..transact([op::get("k")])
                }),
                reason,
                "compares[0].key",
            ),
        ]);
    }
    let long = "l".repeat(1025);
    table.push((Op::ListLocks(list_locks(&long)), reason, "prefix"));
    refuses(&ns, table).await;
}

async fn bad_acquires_are_refused(ns: Namespace) {
    let (lock, expiry) = (ErrorReason::InvalidLock, ErrorReason::InvalidExpiry);
    let identified =
        |id: &[u8]| AcquireRequest { acquire_id: Bytes::copy_from_slice(id), ..acquire("l") };
    let lasting = |duration| AcquireRequest { duration: Some(duration), ..acquire("l") };
    let mut table: Vec<Bad> = vec![
        (Op::Acquire(identified(&[])), lock, "acquire_id"),
        (Op::Acquire(identified(&[1; 15])), lock, "acquire_id"),
        (Op::Acquire(identified(&[1; 17])), lock, "acquire_id"),
        (
            Op::Acquire(AcquireRequest { value: vec![0; 4097].into(), ..acquire("l") }),
            lock,
            "value",
        ),
        (Op::Acquire(lasting(Duration::TtlMs(0))), expiry, "ttl_ms"),
        (Op::Acquire(lasting(Duration::TtlMs(CENTURY_MS))), expiry, "ttl_ms"),
        (Op::Acquire(lasting(Duration::TtlMs(u64::MAX))), expiry, "ttl_ms"),
        (Op::Acquire(lasting(Duration::LeaseId(0))), expiry, "lease_id"),
    ];
    let long = "o".repeat(1025);
    let none = LockOwner::default;
    let owners = [
        ("owner.id", LockOwner { id: long.clone(), ..none() }),
        ("owner.who", LockOwner { who: long.clone(), ..none() }),
        ("owner.reason", LockOwner { reason: long.clone(), ..none() }),
        ("owner.operation", LockOwner { operation: long.clone(), ..none() }),
        ("owner.client_version", LockOwner { client_version: long, ..none() }),
    ];
    for (field, owner) in owners {
        let request = AcquireRequest { owner: Some(owner), ..acquire("l") };
        table.push((Op::Acquire(request), lock, field));
    }
    let too_long = AcquireRequest { wait_ms: 24 * 3_600_000 + 1, ..acquire("l") };
    table.push((Op::Acquire(too_long), ErrorReason::InvalidField, "wait_ms"));
    refuses(&ns, table).await;
    assert_eq!(ns.lock("l").await, None);
}

async fn bad_changes_of_locks_are_refused(ns: Namespace) {
    let (lock, field) = (ErrorReason::InvalidLock, ErrorReason::InvalidField);
    let expiry = ErrorReason::InvalidExpiry;
    let lasting = |ttl_ms| RenewRequest { ttl_ms: Some(ttl_ms), ..renew(&held("l")) };
    let by_id = |id: &[u8]| {
        let hold = Some(release_request::Hold::AcquireId(Bytes::copy_from_slice(id)));
        ReleaseRequest { hold, ..release(&held("l")) }
    };
    let table: Vec<Bad> = vec![
        (Op::Renew(lasting(0)), expiry, "ttl_ms"),
        (Op::Renew(lasting(CENTURY_MS)), expiry, "ttl_ms"),
        (Op::UpdateValue(update_value(&held("l"), &"v".repeat(4097))), lock, "value"),
        (Op::BreakLock(break_lock(&held("l"), &"r".repeat(1025))), field, "reason"),
        (Op::Release(by_id(&[])), lock, "acquire_id"),
        (Op::Release(by_id(&[1; 15])), lock, "acquire_id"),
        (Op::Release(ReleaseRequest { hold: None, ..release(&held("l")) }), lock, "hold"),
    ];
    refuses(&ns, table).await;
}

async fn waiting_in_a_pipeline_is_refused(ns: Namespace) {
    let mut pipe = ns.pipe().await;
    let request = AcquireRequest { wait_ms: 1, ..acquire("l") };
    match pipe.run(Op::Acquire(request)).await {
        pipeline_answer::Result::Status(status) => {
            let failure = Failure::from(status).expect(ErrorReason::InvalidField);
            assert!(failure.fields[0].ends_with("wait_ms"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(ns.lock("l").await, None);
}

async fn bad_leases_are_refused(ns: Namespace) {
    let (expiry, field) = (ErrorReason::InvalidExpiry, ErrorReason::InvalidField);
    let none = with_lease(0);
    let in_batch = batch_set_request::Item { expiry: none, ..item("k", "1") };
    let table: Vec<Bad> = vec![
        (Op::Grant(grant(0)), expiry, "ttl_ms"),
        (Op::Grant(grant(CENTURY_MS)), expiry, "ttl_ms"),
        (Op::Grant(grant(u64::MAX)), expiry, "ttl_ms"),
        (Op::Grant(GrantRequest { lease_id: Some(0), ..grant(9) }), field, "lease_id"),
        (Op::Revoke(revoke(0)), field, "lease_id"),
        (Op::GetLease(get_lease(0)), field, "lease_id"),
        (Op::Set(SetRequest { expiry: none, ..set("k", "1") }), expiry, "expiry"),
        (Op::SetTtl(set_ttl("k", none)), expiry, "expiry"),
        (Op::Get(GetRequest { touch: none, ..get("k") }), expiry, "touch"),
        (Op::BatchSet(batch_set([in_batch])), expiry, "items[0].expiry"),
        (Op::Transact(transact([op::set_with("k", "1", none)])), expiry, "then[0].set.expiry"),
    ];
    refuses(&ns, table).await;
}

/// Every kind of write with these options.
fn every_write(options: &Option<WriteOptions>) -> Vec<Op> {
    let writes = [
        Op::Get(GetRequest { touch: ttl(9), ..get("k") }),
        Op::Set(set("k", "1")),
        Op::Delete(delete("k")),
        Op::SetTtl(set_ttl("k", ttl(9))),
        Op::Increment(increment("n", 1)),
        Op::DeleteRange(delete_range(all())),
        Op::BatchSet(batch_set([item("k", "1")])),
        Op::BatchDelete(batch_delete(&["k"])),
        Op::Transact(transact([op::get("k")])),
        Op::Acquire(acquire("l")),
        Op::Renew(renew(&held("l"))),
        Op::Release(release(&held("l"))),
        Op::UpdateValue(update_value(&held("l"), "v")),
        Op::BreakLock(break_lock(&held("l"), "")),
        Op::Grant(grant(60_000)),
        Op::Revoke(revoke(1)),
    ];
    writes.map(|write| with_options(write, options.clone())).to_vec()
}

async fn bad_guards_are_refused(ns: Namespace) {
    let named: Vec<Lock> = (0..17).map(|number| held(&number.to_string())).collect();
    let too_many = guarded(&named);
    let twice = guarded([&held("a"), &held("b"), &held("a")]);
    let nameless = guarded([&held("")]);
    let mut table: Vec<Bad> = Vec::new();
    for (options, reason, field) in [
        (too_many, ErrorReason::InvalidField, "options.guards"),
        (twice, ErrorReason::InvalidField, "options.guards[2].lock"),
        (nameless, ErrorReason::InvalidLock, "options.guards[0].lock"),
    ] {
        table.extend(every_write(&options).into_iter().map(|write| (write, reason, field)));
    }
    refuses(&ns, table).await;
}

async fn bad_request_ids_are_refused(ns: Namespace) {
    let reason = ErrorReason::InvalidRequestId;
    let mut table: Vec<Bad> = Vec::new();
    for (options, field) in [
        (numbered(&Bytes::new(), 1), "options.request_id.client_id"),
        (numbered(&unique(7), 1), "options.request_id.client_id"),
        (numbered(&unique(9), 1), "options.request_id.client_id"),
        (numbered(&unique(8), 0), "options.request_id.seq"),
        (numbered_done(&unique(8), 3, 4), "options.request_id.done_below"),
    ] {
        table.extend(every_write(&options).into_iter().map(|write| (write, reason, field)));
    }
    refuses(&ns, table).await;
}

async fn an_acquire_has_no_request_id(ns: Namespace) {
    let request = AcquireRequest { options: numbered(&unique(8), 1), ..acquire("l") };
    let reason = ErrorReason::InvalidRequestId;
    refuses(&ns, vec![(Op::Acquire(request), reason, "options.request_id")]).await;
    assert_eq!(ns.lock("l").await, None);
}

async fn bad_lists_of_locks_and_leases_are_refused(ns: Namespace) {
    let locks = || list_locks("");
    let leases = ListLeasesRequest::default;
    let mut table: Vec<Bad> = vec![
        (
            Op::ListLocks(ListLocksRequest { page_size: 1001, ..locks() }),
            ErrorReason::InvalidField,
            "page_size",
        ),
        (
            Op::ListLeases(ListLeasesRequest { page_size: 1001, ..leases() }),
            ErrorReason::InvalidField,
            "page_size",
        ),
    ];
    for token in ["x", "00", "é", &"0".repeat(80), &"f".repeat(5000)] {
        let reason = ErrorReason::InvalidPageToken;
        let page_token = || token.to_owned().into();
        table.extend([
            (
                Op::ListLocks(ListLocksRequest { page_token: page_token(), ..locks() }),
                reason,
                "page_token",
            ),
            (
                Op::ListLeases(ListLeasesRequest { page_token: page_token(), ..leases() }),
                reason,
                "page_token",
            ),
        ]);
    }
    for name in ["a", "b", "c"] {
        ns.hold(acquire(name)).await;
    }
    let page = ns.ok(ListLocksRequest { page_size: 1, ..locks() }).await;
    let of_another = ListLocksRequest { page_token: page.next_page_token, ..list_locks("a") };
    table.push((Op::ListLocks(of_another), ErrorReason::InvalidPageToken, "page_token"));
    refuses(&ns, table).await;
}

async fn bad_watches_of_locks_are_refused(ns: Namespace) {
    use watch_locks_request::Locks;
    let watching = |locks| WatchLocksRequest { locks, ..watch_locks("") };
    let paced = |ms| WatchLocksRequest { progress_interval_ms: Some(ms), ..watch_locks("") };
    let (lock, field) = (ErrorReason::InvalidLock, ErrorReason::InvalidField);
    let table = [
        (watching(None), lock, "locks"),
        (watching(Some(Locks::Name(String::new()))), lock, "name"),
        (watching(Some(Locks::Name("a\0".into()))), lock, "name"),
        (watching(Some(Locks::Prefix("p".repeat(1025)))), lock, "prefix"),
        (paced(0), field, "progress_interval_ms"),
        (paced(99), field, "progress_interval_ms"),
        (paced(3_600_001), field, "progress_interval_ms"),
    ];
    for (request, reason, path) in table {
        let Err(failure) = LockWatcher::open(&ns, request).await else {
            panic!("{path} is not refused");
        };
        let failure = failure.expect(reason);
        assert!(failure.fields[0].starts_with(path), "{path} expected: {failure:?}");
    }
}

async fn a_bad_keep_alive_is_answered_by_itself(ns: Namespace) {
    let mut keeper = crate::common::keeper::Keeper::open(&ns).await;
    let lease = ns.lease(60_000).await;
    keeper.send(&ns, 0);
    keeper.send(&Namespace { name: "_bad".into(), ..ns.clone() }, lease);
    keeper.send(&ns, lease);
    let mut refused = Vec::new();
    for answer in keeper.answers(3).await {
        match kept(answer) {
            Ok(kept) => assert_eq!(kept.lease_id, lease),
            Err(failure) => refused.push(failure),
        }
    }
    assert_eq!(refused.len(), 2, "{refused:?}");
    for failure in refused {
        let reason = match failure.fields[0].as_str() {
            "namespace" => ErrorReason::InvalidNamespace,
            _ => ErrorReason::InvalidField,
        };
        failure.expect(reason);
    }
}
