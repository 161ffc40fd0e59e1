//! Random sequences of everything that can be done to a namespace.

use holdfast_proto::v1::{compare::Operand, pipeline_call::Operation as Op, *};
use proptest::{collection::vec, option, prelude::*, sample::select};

use crate::common::{
    build::{self, op},
    coordination,
};

/// One thing to do. What depends on what is there (a revision to compare with or to read at) is given
/// relative to it.
#[derive(Debug, Clone)]
pub enum Step {
    /// One call.
    Call(Op),
    /// A Set or Delete on condition that the key is as it is now (or, if false, as it was before).
    OnModRevision(Op, bool),
    /// A call on the lock with its token, or a write guarded by it; or, if false, with one that is not current.
    WithToken(Op, bool),
    /// A read at the revision this far back; beyond the newest if it is zero.
    ReadAt(Op, u64),
    /// Writes in one message of a pipeline.
    Pipeline(Vec<Op>),
    /// Time passes; wait for what is due to go, or do not.
    Advance {
        ms: u64,
        settle: bool,
    },
    Update(NamespaceSettings),
    Clear,
    /// Forget all but the last so many revisions.
    Compact(u64),
    DeleteNamespace,
    /// Watch again from this far back.
    Resume(u64),
    /// Watch from the initial state.
    Initial,
}

/// The only lock.
pub const LOCK: &str = "lock";

/// Longer than any sequence lasts.
const HOUR_MS: u64 = 3_600_000;

/// A sequence of them.
pub fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(step(), 1..60)
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => write().prop_map(Step::Call),
        8 => read().prop_map(Step::Call),
        3 => (conditional(), any::<bool>()).prop_map(|(op, now)| Step::OnModRevision(op, now)),
        3 => lease().prop_map(Step::Call),
        2 => lock().prop_map(Step::Call),
        2 => (prop_oneof![with_token(), write()], any::<bool>())
            .prop_map(|(op, current)| Step::WithToken(op, current)),
        3 => (read_at(), 0..12_u64).prop_map(|(op, back)| Step::ReadAt(op, back)),
        2 => vec(write(), 1..8).prop_map(Step::Pipeline),
        4 => (select(vec![1, 10, 50, 100, 1000]), any::<bool>())
            .prop_map(|(ms, settle)| Step::Advance { ms, settle }),
        1 => settings().prop_map(Step::Update),
        1 => Just(Step::Clear),
        1 => (0..6_u64).prop_map(Step::Compact),
        1 => Just(Step::DeleteNamespace),
        2 => (0..12_u64).prop_map(Step::Resume),
        1 => Just(Step::Initial),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "a/1", "a/2", "ab", "b", "é", "n"])
}

fn value() -> impl Strategy<Value = &'static str> {
    select(vec!["", "x", "1", "-41", "007", "9223372036854775807"])
}

/// Deadlines that lie ahead: relative, of the clock, kept, none.
fn expiry() -> impl Strategy<Value = Option<Expiry>> {
    prop_oneof![
        4 => Just(None),
        4 => select(vec![1, 20, 60, 500]).prop_map(build::ttl),
        1 => Just(build::keep()),
        1 => Just(build::never()),
        2 => lease_id().prop_map(coordination::with_lease),
    ]
}

fn lease_id() -> impl Strategy<Value = u64> {
    select(vec![1, 2, 3])
}

fn lease() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (lease_id(), select(vec![20, 60, 500])).prop_map(|(id, ttl_ms)| {
            Op::Grant(GrantRequest { lease_id: Some(id), ..coordination::grant(ttl_ms) })
        }),
        3 => lease_id().prop_map(|id| Op::KeepAlive(coordination::keep_alive(id))),
        1 => lease_id().prop_map(|id| Op::Revoke(coordination::revoke(id))),
        2 => lease_id().prop_map(|id| Op::GetLease(coordination::get_lease(id))),
    ]
}

fn lock() -> impl Strategy<Value = Op> {
    let acquire = select(vec![b'a', b'b']).prop_map(|owner| {
        let id = String::from(char::from(owner));
        Op::Acquire(AcquireRequest {
            acquire_id: vec![owner; 16].into(),
            owner: Some(LockOwner { id, ..Default::default() }),
            ..coordination::acquire_for(LOCK, HOUR_MS)
        })
    });
    prop_oneof![2 => acquire, 1 => Just(Op::GetLock(coordination::get_lock(LOCK)))]
}

/// Calls on the lock that want its token.
fn with_token() -> impl Strategy<Value = Op> {
    let lock = Lock { name: LOCK.to_owned(), ..Default::default() };
    select(vec![
        Op::Renew(coordination::renew(&lock)),
        Op::Release(coordination::release(&lock)),
        Op::UpdateValue(coordination::update_value(&lock, "v")),
        Op::BreakLock(coordination::break_lock(&lock, "why")),
    ])
}

/// These, or a moment that has passed.
fn any_expiry() -> impl Strategy<Value = Option<Expiry>> {
    prop_oneof![9 => expiry(), 1 => Just(build::expires_at(1))]
}

fn new_expiry() -> impl Strategy<Value = Option<Expiry>> {
    any_expiry().prop_filter("set_ttl needs a new expiry", |expiry| {
        expiry.is_some() && *expiry != build::keep()
    })
}

fn selector() -> impl Strategy<Value = Selector> {
    prop_oneof![
        key().prop_map(build::key),
        select(vec!["a", "a/", "é", "z"]).prop_map(build::prefix),
        (key(), option::of(key())).prop_filter_map(
            "a range does not end before it starts",
            |(start, end)| {
                let end = end.map(str::as_bytes);
                (end.is_none_or(|end| end >= start.as_bytes())).then(|| build::range(start, end))
            }
        ),
        select(vec!["*", "a*", "?", "a/?", "*1", "*a*"]).prop_map(build::glob),
        Just(build::all()),
    ]
}

fn condition() -> impl Strategy<Value = Option<Condition>> {
    select(vec![None, None, build::absent(), build::present()])
}

fn set() -> impl Strategy<Value = SetRequest> {
    (key(), value(), any_expiry(), condition(), any::<bool>()).prop_map(
        |(key, value, expiry, condition, return_previous)| SetRequest {
            expiry,
            condition,
            return_previous,
            content_type: if return_previous { "t".into() } else { String::new() },
            ..build::set(key, value)
        },
    )
}

fn delete() -> impl Strategy<Value = DeleteRequest> {
    (key(), condition(), any::<bool>()).prop_map(|(key, condition, return_previous)| {
        DeleteRequest { condition, return_previous, ..build::delete(key) }
    })
}

fn conditional() -> impl Strategy<Value = Op> {
    prop_oneof![set().prop_map(Op::Set), delete().prop_map(Op::Delete)]
}

fn distinct_keys() -> impl Strategy<Value = Vec<&'static str>> {
    proptest::collection::btree_set(key(), 1..5).prop_map(|keys| keys.into_iter().rev().collect())
}

fn write() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => set().prop_map(Op::Set),
        2 => delete().prop_map(Op::Delete),
        2 => (key(), new_expiry()).prop_map(|(key, expiry)| Op::SetTtl(build::set_ttl(key, expiry))),
        1 => (key(), new_expiry()).prop_map(|(key, touch)| Op::Get(GetRequest { touch, ..build::get(key) })),
        3 => (key(), -2..3_i64, 0..2_i64, expiry()).prop_map(|(key, delta, initial, expiry)| {
            Op::Increment(IncrementRequest { initial, expiry, ..build::increment(key, delta) })
        }),
        1 => (selector(), option::of(1..3_u32)).prop_map(|(selector, limit)| {
            Op::DeleteRange(DeleteRangeRequest { limit, ..build::delete_range(selector) })
        }),
        2 => (distinct_keys(), value(), any_expiry()).prop_map(|(keys, value, expiry)| {
            let items = keys.into_iter().map(|key| build::item(key, value));
            Op::BatchSet(build::batch_set(items.map(|item| batch_set_request::Item { expiry, ..item })))
        }),
        1 => distinct_keys().prop_map(|keys| Op::BatchDelete(build::batch_delete(&keys))),
        5 => transact().prop_map(Op::Transact),
    ]
}

fn read() -> impl Strategy<Value = Op> {
    prop_oneof![
        key().prop_map(|key| Op::Exists(build::exists(key))),
        key().prop_map(|key| Op::GetTtl(build::get_ttl(key))),
        key().prop_map(|key| Op::History(build::history(key))),
        selector().prop_map(|selector| Op::Count(build::count(selector))),
        read_at(),
    ]
}

/// The reads that can be at an old revision.
fn read_at() -> impl Strategy<Value = Op> {
    prop_oneof![
        key().prop_map(|key| Op::Get(build::get(key))),
        (selector(), any::<bool>(), any::<bool>(), 0..4_u32).prop_map(
            |(selector, keys_only, reverse, page_size)| {
                Op::List(ListRequest { keys_only, reverse, page_size, ..build::list(selector) })
            }
        ),
        (distinct_keys(), any::<bool>()).prop_map(|(keys, keys_only)| {
            Op::BatchGet(BatchGetRequest { keys_only, ..build::batch_get(&keys) })
        }),
    ]
}

fn transact() -> impl Strategy<Value = TransactRequest> {
    (vec(compare(), 0..3), vec(operation(), 1..6), vec(operation(), 0..3)).prop_map(
        |(compares, then, otherwise)| TransactRequest {
            compares,
            then,
            otherwise,
            ..Default::default()
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let every = select(vec![
        Comparison::Equal,
        Comparison::NotEqual,
        Comparison::Less,
        Comparison::Greater,
    ]);
    let operand = prop_oneof![
        (1..4_u64).prop_map(Operand::Version),
        value().prop_map(|value| Operand::Value(value.into())),
        (0..4_u64).prop_map(Operand::LeaseId),
    ];
    prop_oneof![
        every.clone().prop_map(|how| build::compare(LOCK, how, Operand::LockToken(1))),
        (key(), every, operand).prop_map(|(key, how, what)| build::compare(key, how, what)),
        (key(), any::<bool>(), any::<bool>()).prop_map(|(key, equal, exists)| {
            let how = if equal { Comparison::Equal } else { Comparison::NotEqual };
            build::compare(key, how, Operand::Exists(exists))
        }),
    ]
}

fn operation() -> impl Strategy<Value = Operation> {
    let lasting = expiry().prop_filter("set_ttl needs a new expiry", |expiry| {
        expiry.is_some() && *expiry != build::keep()
    });
    prop_oneof![
        1 => key().prop_map(op::get),
        4 => (key(), value(), expiry()).prop_map(|(key, value, expiry)| op::set_with(key, value, expiry)),
        2 => key().prop_map(op::delete),
        1 => (selector(), option::of(1..3_u32)).prop_map(|(selector, limit)| op::delete_range(selector, limit)),
        1 => (key(), lasting).prop_map(|(key, expiry)| op::set_ttl(key, expiry)),
        2 => (key(), -2..3_i64).prop_map(|(key, delta)| op::increment(key, delta)),
        1 => selector().prop_map(op::list),
    ]
}

fn settings() -> impl Strategy<Value = NamespaceSettings> {
    (option::of(Just(100)), option::of(2..6_u64)).prop_map(|(default_ttl_ms, quota_max_keys)| {
        NamespaceSettings { default_ttl_ms, quota_max_keys, ..Default::default() }
    })
}
