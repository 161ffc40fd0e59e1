//! Bad input for every field of every call on keys, alone and in a pipeline.

use holdfast_proto::v1::{
    compare::Operand, operation::Kind, pipeline_answer::Result as Outcome,
    pipeline_call::Operation as Op, *,
};

use crate::common::{build::*, failure::Failure, namespace::Namespace};

crate::cases! {
    bad_keys_are_refused,
    bad_values_and_content_types_are_refused,
    bad_expiries_are_refused,
    bad_conditions_are_refused,
}

/// A request, why it is refused, and the field that is at fault (or the message that the field is in).
pub type Bad = (Op, ErrorReason, &'static str);

/// Sends each request alone and in a pipeline: it is refused, names its field, and changes nothing.
pub async fn refuses(ns: &Namespace, table: Vec<Bad>) {
    ns.set("k", "1").await;
    let before = (ns.revision().await, ns.ok(count(all())).await.count);
    let mut pipe = ns.pipe().await;
    for (operation, reason, field) in table {
        let failure = ns.send(operation.clone()).await;
        let failure = failure.expect_err("refused").expect(reason);
        let at_fault = failure.fields.iter().any(|found| is_in(found, field));
        assert!(at_fault, "{field} expected: {failure:?}");
        let Outcome::Status(status) = pipe.run(operation).await else {
            panic!("{field} is refused alone only")
        };
        let piped = Failure::from(status).expect(reason);
        assert!(piped.fields.iter().any(|found| found.contains(field)), "{piped:?}");
    }
    assert_eq!((ns.revision().await, ns.ok(count(all())).await.count), before);
    ns.set("k", "alive").await;
}

/// Whether a path is this field, or lies in it.
fn is_in(path: &str, field: &str) -> bool {
    path.strip_prefix(field).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

pub fn step(kind: Kind) -> Op {
    Op::Transact(transact([Operation { kind: Some(kind) }]))
}

async fn bad_keys_are_refused(ns: Namespace) {
    let mut table: Vec<Bad> = Vec::new();
    for bad in ["", "a\0b", &"k".repeat(1025), &"é".repeat(513)] {
        let reason = ErrorReason::InvalidKey;
        table.extend([
            (Op::Get(get(bad)), reason, "key"),
            (Op::Set(set(bad, "1")), reason, "key"),
            (Op::Delete(delete(bad)), reason, "key"),
            (Op::Exists(exists(bad)), reason, "key"),
            (Op::GetTtl(get_ttl(bad)), reason, "key"),
            (Op::SetTtl(set_ttl(bad, ttl(9))), reason, "key"),
            (Op::Increment(increment(bad, 1)), reason, "key"),
            (Op::History(history(bad)), reason, "key"),
            (Op::BatchGet(batch_get(&["good", bad])), reason, "keys[1]"),
            (Op::BatchSet(batch_set([item("good", "1"), item(bad, "1")])), reason, "items[1].key"),
            (Op::BatchDelete(batch_delete(&["good", bad])), reason, "keys[1]"),
            (Op::List(list(key(bad))), reason, "selector.key"),
            (Op::Count(count(key(bad))), reason, "selector.key"),
            (Op::DeleteRange(delete_range(key(bad))), reason, "selector.key"),
            (Op::Transact(transact([op::get("good"), op::get(bad)])), reason, "then[1].get.key"),
            (
                Op::Transact(transact([op::get("a"), op::get("b"), op::set(bad, "1")])),
                reason,
                "then[2].set.key",
            ),
            (Op::Transact(transact([op::delete(bad)])), reason, "then[0].delete.key"),
            (Op::Transact(transact([op::set_ttl(bad, ttl(9))])), reason, "then[0].set_ttl.key"),
            (Op::Transact(transact([op::increment(bad, 1)])), reason, "then[0].increment.key"),
            (Op::Transact(transact([op::list(key(bad))])), reason, "then[0].list.selector.key"),
            (
                Op::Transact(transact([op::delete_range(key(bad), None)])),
                reason,
                "then[0].delete_range.selector.key",
            ),
            (
                Op::Transact(TransactRequest {
                    otherwise: vec![op::get(bad)],
                    ..transact([op::get("a")])
                }),
                reason,
                "otherwise[0].get.key",
            ),
            (
                Op::Transact(TransactRequest {
                    compares: vec![compare(bad, Comparison::Equal, Operand::Version(1))],
                    ..transact([op::get("a")])
                }),
                reason,
                "compares[0].key",
            ),
        ]);
    }
    refuses(&ns, table).await;
}

async fn bad_values_and_content_types_are_refused(ns: Namespace) {
    let huge = vec![0; (1 << 20) + 1];
    let huge = huge.as_slice();
    let reason = ErrorReason::InvalidValue;
    let mut table: Vec<Bad> = vec![
        (Op::Set(set("k", huge)), reason, "value"),
        (Op::BatchSet(batch_set([item("a", "1"), item("b", huge)])), reason, "items[1].value"),
        (Op::Transact(transact([op::set("k", huge)])), reason, "then[0].set.value"),
    ];
    for bad in ["x".repeat(129), "a\nb".to_owned(), "\0".to_owned(), "a\u{7f}".to_owned()] {
        let reason = ErrorReason::InvalidContentType;
        let in_item = batch_set_request::Item { content_type: bad.clone(), ..item("k", "1") };
        let in_step =
            operation::Set { key: "k".into(), content_type: bad.clone(), ..Default::default() };
        table.extend([
            (Op::Set(SetRequest { content_type: bad, ..set("k", "1") }), reason, "content_type"),
            (Op::BatchSet(batch_set([in_item])), reason, "items[0].content_type"),
            (step(Kind::Set(in_step)), reason, "then[0].set.content_type"),
        ]);
    }
    refuses(&ns, table).await;
}

async fn bad_expiries_are_refused(ns: Namespace) {
    let reason = ErrorReason::InvalidExpiry;
    let century = 36_600 * 24 * 3_600_000_u64;
    let too_far = i64::try_from(century).expect("small") + ns.ok(get("k")).await.time_ms;
    let bad = [
        Some(Expiry::default()),
        ttl(0),
        ttl(century),
        ttl(u64::MAX),
        expires_at(too_far),
        expires_at(i64::MAX),
    ];
    let mut table: Vec<Bad> = Vec::new();
    for expiry in bad {
        table.extend([
            (Op::Get(GetRequest { touch: expiry, ..get("k") }), reason, "touch"),
            (Op::Set(SetRequest { expiry, ..set("k", "1") }), reason, "expiry"),
            (Op::SetTtl(set_ttl("k", expiry)), reason, "expiry"),
            (Op::Increment(IncrementRequest { expiry, ..increment("n", 1) }), reason, "expiry"),
            (
                Op::BatchSet(batch_set([batch_set_request::Item { expiry, ..item("k", "1") }])),
                reason,
                "items[0].expiry",
            ),
            (
                Op::Transact(transact([op::set_with("k", "1", expiry)])),
                reason,
                "then[0].set.expiry",
            ),
            (Op::Transact(transact([op::set_ttl("k", expiry)])), reason, "then[0].set_ttl.expiry"),
            (
                step(Kind::Increment(operation::Increment {
                    key: "n".into(),
                    expiry,
                    ..Default::default()
                })),
                reason,
                "then[0].increment.expiry",
            ),
        ]);
    }
    // What only some calls refuse.
    for expiry in [None, keep()] {
        table.push((Op::SetTtl(set_ttl("k", expiry)), reason, "expiry"));
        table.push((
            Op::Transact(transact([op::set_ttl("k", expiry)])),
            reason,
            "then[0].set_ttl.expiry",
        ));
    }
    table.push((Op::Get(GetRequest { touch: keep(), ..get("k") }), reason, "touch"));
    table.push((
        Op::Get(GetRequest { touch: ttl(9), at_revision: Some(1), ..get("k") }),
        reason,
        "touch",
    ));
    refuses(&ns, table).await;
}

async fn bad_conditions_are_refused(ns: Namespace) {
    let condition = Some(Condition::default());
    let reason = ErrorReason::InvalidCondition;
    let table: Vec<Bad> = vec![
        (Op::Set(SetRequest { condition, ..set("k", "1") }), reason, "condition"),
        (Op::Delete(DeleteRequest { condition, ..delete("k") }), reason, "condition"),
    ];
    refuses(&ns, table).await;
}
