"""Holdfast from Python: set and get, compare-and-set, an error, a watch that sees a key expire, a write under
a lock, a lease, and a request that is sent twice and applied once.

Usage: python example.py HOST:PORT
"""

import os
import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from holdfast.v1 import error_pb2
from holdfast.v1.kv_pb2 import GetRequest, IncrementRequest, SetRequest
from holdfast.v1.kv_pb2_grpc import KvServiceStub
from holdfast.v1.lease_pb2 import GrantRequest, KeepAliveRequest, RevokeRequest
from holdfast.v1.lease_pb2_grpc import LeaseServiceStub
from holdfast.v1.lock_pb2 import AcquireRequest, LockOwner, ReleaseRequest
from holdfast.v1.lock_pb2_grpc import LockServiceStub
from holdfast.v1.transaction_pb2 import COMPARISON_EQUAL, Compare, Operation, TransactRequest
from holdfast.v1.transaction_pb2_grpc import TransactionServiceStub
from holdfast.v1.types_pb2 import EVENT_TYPE_EXPIRE, REMOVAL_REASON_TTL
from holdfast.v1.types_pb2 import Condition, Expiry, Guard, RequestId, Selector, WriteOptions
from holdfast.v1.watch_pb2 import WatchRequest
from holdfast.v1.watch_pb2_grpc import WatchServiceStub

NAMESPACE = "python-example"
SECONDS = 10  # Every call has a deadline; without one, gRPC waits for ever.


def set_and_get(kv):
    written = kv.Set(
        SetRequest(namespace=NAMESPACE, key="greeting", value=b"hello", content_type="text/plain"),
        timeout=SECONDS,
    )
    print(f"set greeting: revision {written.revision}, version {written.entry.version}")

    found = kv.Get(GetRequest(namespace=NAMESPACE, key="greeting"), timeout=SECONDS)
    assert found.entry.value == b"hello" and found.entry.content_type == "text/plain"
    print(f"get greeting: {found.entry.value.decode()}")

    # A missing key is an answer without an entry, not an error.
    nothing = kv.Get(GetRequest(namespace=NAMESPACE, key="nobody"), timeout=SECONDS)
    assert not nothing.HasField("entry")
    print(f"get nobody: missing at revision {nothing.revision}")


def compare_and_set(kv, transactions):
    def replace(seen, value):
        """Writes `value` if the entry is still the one seen, else reads what is there instead."""
        request = TransactRequest(
            namespace=NAMESPACE,
            compares=[Compare(key="leader", comparison=COMPARISON_EQUAL, mod_revision=seen)],
            then=[Operation(set=Operation.Set(key="leader", value=value))],
            otherwise=[Operation(get=Operation.Get(key="leader"))],
        )
        return transactions.Transact(request, timeout=SECONDS)

    seen = kv.Set(
        SetRequest(namespace=NAMESPACE, key="leader", value=b"nobody"), timeout=SECONDS
    ).entry.mod_revision

    won = replace(seen, b"alice")
    assert won.succeeded and won.results[0].set.entry.mod_revision == won.revision
    print(f"alice replaces revision {seen}: done at revision {won.revision}")

    # Compares that do not hold are an answer too.
    lost = replace(seen, b"bob")
    assert not lost.succeeded and list(lost.failed_compares) == [0]
    current = lost.results[0].get.entry
    assert current.value == b"alice" and current.mod_revision == won.revision
    print(f"bob replaces revision {seen}: failed compares {list(lost.failed_compares)}, "
          f"it is {current.value.decode()} since revision {current.mod_revision}")


def read_an_error(kv):
    create = SetRequest(
        namespace=NAMESPACE,
        key="greeting",
        value=b"hi",
        condition=Condition(absent=Condition.Absent()),
    )
    try:
        kv.Set(create, timeout=SECONDS)
    except grpc.RpcError as error:
        info, conflict = error_details_pb2.ErrorInfo(), error_pb2.ConditionNotMet()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)  # Does nothing where the detail is of another type.
            detail.Unpack(conflict)
        assert error.code() == grpc.StatusCode.ABORTED
        assert (info.domain, info.reason) == ("holdfast", "CONDITION_NOT_MET")
        assert conflict.current.key == "greeting"
        print(f"create greeting: {info.reason}, it exists since revision "
              f"{conflict.current.create_revision}")
    else:
        raise AssertionError("a key that exists was created")


def watch_an_expiry(kv, watches):
    stream = watches.Watch(
        WatchRequest(
            namespace=NAMESPACE,
            selectors=[Selector(prefix="session:")],
            types=[EVENT_TYPE_EXPIRE],
            with_previous=True,
        ),
        timeout=SECONDS,
    )
    # Once `created` has come the watch stands: it sees whatever is committed from here on.
    created = next(stream)
    assert created.WhichOneof("body") == "created"

    written = kv.Set(
        SetRequest(namespace=NAMESPACE, key="session:1", value=b"alice", expiry=Expiry(ttl_ms=300)),
        timeout=SECONDS,
    )
    print(f"set session:1 for 300 ms: revision {written.revision}")

    event = next(event for message in stream for event in message.events.events)
    assert event.type == EVENT_TYPE_EXPIRE and event.reason == REMOVAL_REASON_TTL
    assert event.key == "session:1" and event.previous.value == b"alice"
    assert event.time_ms >= written.entry.expires_at_ms == written.time_ms + 300
    print(f"session:1 expired: revision {event.revision}, its value was {event.previous.value.decode()}")
    stream.cancel()


def write_under_a_lock(kv, locks):
    def acquire():
        # Another `acquire_id` for each attempt; a call that is repeated brings the same.
        request = AcquireRequest(
            namespace=NAMESPACE,
            name="report",
            acquire_id=os.urandom(16),
            owner=LockOwner(who="example"),
            ttl_ms=30_000,
        )
        return locks.Acquire(request, timeout=SECONDS)

    hold = acquire().lock
    guarded = SetRequest(
        namespace=NAMESPACE,
        key="report",
        value=b"done",
        options=WriteOptions(guards=[Guard(lock="report", token=hold.token)]),
    )
    written = kv.Set(guarded, timeout=SECONDS)
    print(f"lock report: token {hold.token}, written at revision {written.revision}")

    # A lock that another holds is an answer.
    taken = acquire()
    assert taken.WhichOneof("outcome") == "holder" and taken.holder.token == hold.token

    release = ReleaseRequest(namespace=NAMESPACE, name="report", token=hold.token)
    assert locks.Release(release, timeout=SECONDS).released
    try:
        kv.Set(guarded, timeout=SECONDS)
    except grpc.RpcError as error:
        info = error_details_pb2.ErrorInfo()
        for detail in rpc_status.from_call(error).details:
            detail.Unpack(info)
        assert (info.reason, info.metadata["cause"]) == ("LOCK_LOST", "released")
        print(f"written after the release: {info.reason}, {info.metadata['cause']}")
    else:
        raise AssertionError("written without the lock")


def live_as_long_as_a_lease(kv, leases):
    lease = leases.Grant(GrantRequest(namespace=NAMESPACE, ttl_ms=30_000), timeout=SECONDS).lease
    announce = SetRequest(
        namespace=NAMESPACE, key="worker:7", value=b"10.0.0.7", expiry=Expiry(lease_id=lease.lease_id)
    )
    kv.Set(announce, timeout=SECONDS)

    # One stream for all leases of a program, on which each is named again after a third of its TTL.
    alive = [KeepAliveRequest(namespace=NAMESPACE, lease_id=lease.lease_id)]
    for answer in leases.KeepAlive(iter(alive), timeout=SECONDS):
        assert answer.WhichOneof("result") == "lease" and answer.lease.keys == 1
        print(f"lease: {answer.lease.expires_at_ms - answer.time_ms} ms left, {answer.lease.keys} key")

    revoke = RevokeRequest(namespace=NAMESPACE, lease_id=lease.lease_id)
    ended = leases.Revoke(revoke, timeout=SECONDS)
    gone = kv.Get(GetRequest(namespace=NAMESPACE, key="worker:7"), timeout=SECONDS)
    assert ended.revoked and not gone.HasField("entry")
    print(f"revoked at revision {ended.revision}, with {ended.keys} key")


def apply_once(kv):
    # As if the first answer had been lost: the same message is sent again.
    name = RequestId(client_id=os.urandom(8), seq=1, done_below=1)
    request = IncrementRequest(
        namespace=NAMESPACE, key="visits", delta=1, options=WriteOptions(request_id=name)
    )
    first = kv.Increment(request, timeout=SECONDS)
    again = kv.Increment(request, timeout=SECONDS)
    assert (again.value, again.revision) == (first.value, first.revision)
    print(f"incremented twice, applied once: {again.value} at revision {again.revision}")


def main(address):
    with grpc.insecure_channel(address) as channel:
        kv = KvServiceStub(channel)
        set_and_get(kv)
        compare_and_set(kv, TransactionServiceStub(channel))
        read_an_error(kv)
        watch_an_expiry(kv, WatchServiceStub(channel))
        write_under_a_lock(kv, LockServiceStub(channel))
        live_as_long_as_a_lease(kv, LeaseServiceStub(channel))
        apply_once(kv)


if __name__ == "__main__":
    main(sys.argv[1])
