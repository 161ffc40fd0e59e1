"""Holdfast from Python: set and get, compare-and-set, an error, and a watch that sees a key expire.

Usage: python example.py HOST:PORT
"""

import sys

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from holdfast.v1 import error_pb2
from holdfast.v1.kv_pb2 import GetRequest, SetRequest
from holdfast.v1.kv_pb2_grpc import KvServiceStub
from holdfast.v1.transaction_pb2 import COMPARISON_EQUAL, Compare, Operation, TransactRequest
from holdfast.v1.transaction_pb2_grpc import TransactionServiceStub
from holdfast.v1.types_pb2 import EVENT_TYPE_EXPIRE, REMOVAL_REASON_TTL, Condition, Expiry, Selector
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


def main(address):
    with grpc.insecure_channel(address) as channel:
        kv = KvServiceStub(channel)
        set_and_get(kv)
        compare_and_set(kv, TransactionServiceStub(channel))
        read_an_error(kv)
        watch_an_expiry(kv, WatchServiceStub(channel))


if __name__ == "__main__":
    main(sys.argv[1])
