//! Bad input for the parts of calls on keys: selectors, batches, transactions, numbers, page tokens.

use holdfast_proto::v1::{compare::Operand, operation::Kind, pipeline_call::Operation as Op, *};

use super::errors_calls::{Bad, refuses, step};
use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    bad_selectors_are_refused,
    bad_batches_are_refused,
    bad_transactions_are_refused,
    bad_numbers_are_refused,
    bad_page_tokens_are_refused,
}

async fn bad_selectors_are_refused(ns: Namespace) {
    let long = "x".repeat(1025);
    let long_end = vec![b'x'; 1025];
    let (selector, bad_glob) = (ErrorReason::InvalidSelector, ErrorReason::InvalidGlob);
    let bad = [
        (None, selector, ""),
        (Some(Selector::default()), selector, ""),
        (Some(prefix("")), selector, ".prefix"),
        (Some(prefix(&long)), selector, ".prefix"),
        (Some(range("b", Some(b"a"))), selector, ".range"),
        (Some(range(&long, None)), selector, ".range"),
        (Some(range("", Some(&long_end))), selector, ".range"),
        (Some(glob("")), bad_glob, ".glob"),
        (Some(glob(&long)), bad_glob, ".glob"),
        (Some(glob("a[b")), bad_glob, ".glob"),
        (Some(glob("[")), bad_glob, ".glob"),
        (Some(glob("[a-")), bad_glob, ".glob"),
        (Some(glob("[!")), bad_glob, ".glob"),
        (Some(glob("[a\\]")), bad_glob, ".glob"),
        (Some(glob("a\\")), bad_glob, ".glob"),
    ];
    let mut table: Vec<Bad> = Vec::new();
    for (selector, reason, rest) in bad {
        let path = |start: &str| -> &'static str { format!("{start}{rest}").leak() };
        let selected = selector.clone();
        let in_list = operation::List { selector: selector.clone(), ..Default::default() };
        let in_delete = operation::DeleteRange { selector: selector.clone(), limit: None };
        table.extend([
            (
                Op::List(ListRequest { selector: selected.clone(), ..Default::default() }),
                reason,
                path("selector"),
            ),
            (
                Op::Count(CountRequest { selector: selected.clone(), ..Default::default() }),
                reason,
                path("selector"),
            ),
            (
                Op::DeleteRange(DeleteRangeRequest { selector: selected, ..Default::default() }),
                reason,
                path("selector"),
            ),
            (step(Kind::List(in_list)), reason, path("then[0].list.selector")),
            (step(Kind::DeleteRange(in_delete)), reason, path("then[0].delete_range.selector")),
        ]);
    }
    refuses(&ns, table).await;
}

async fn bad_batches_are_refused(ns: Namespace) {
    let many: Vec<String> = (0..1025).map(|number| number.to_string()).collect();
    let reason = ErrorReason::InvalidBatch;
    let none: [&str; 0] = [];
    let table: Vec<Bad> = vec![
        (Op::BatchGet(batch_get(&none)), reason, "keys"),
        (Op::BatchSet(batch_set([])), reason, "items"),
        (Op::BatchDelete(batch_delete(&none)), reason, "keys"),
        (Op::BatchGet(batch_get(&many)), reason, "keys"),
        (Op::BatchSet(batch_set(many.iter().map(|name| item(name, "")))), reason, "items"),
        (Op::BatchDelete(batch_delete(&many)), reason, "keys"),
        (Op::BatchGet(batch_get(&["a", "b", "a"])), reason, "keys[2]"),
        (
            Op::BatchSet(batch_set([item("a", "1"), item("b", "1"), item("a", "1")])),
            reason,
            "items[2]",
        ),
        (Op::BatchDelete(batch_delete(&["a", "b", "a"])), reason, "keys[2]"),
    ];
    refuses(&ns, table).await;
}

async fn bad_transactions_are_refused(ns: Namespace) {
    let many = |kind: fn(&str) -> Operation| vec![kind("k"); 1025];
    let with = |comparison: i32, operand| {
        let compares = vec![Compare { key: "k".into(), comparison, operand }];
        Op::Transact(TransactRequest { compares, ..transact([op::get("k")]) })
    };
    let (batch, compares) = (ErrorReason::InvalidBatch, ErrorReason::InvalidCompare);
    let (equal, less) = (Comparison::Equal.into(), Comparison::Less.into());
    let good = compare("k", Comparison::Equal, Operand::Version(1));
    let table: Vec<Bad> = vec![
        (
            Op::Transact(TransactRequest {
                compares: vec![good; 1025],
                ..transact([op::get("k")])
            }),
            batch,
            "compares",
        ),
        (Op::Transact(transact(many(op::get))), batch, "then"),
        (
            Op::Transact(TransactRequest { otherwise: many(op::get), ..transact([op::get("k")]) }),
            batch,
            "otherwise",
        ),
        (with(equal, None), compares, "compares[0].operand"),
        (with(0, Some(Operand::Version(1))), compares, "compares[0].comparison"),
        (with(99, Some(Operand::Version(1))), compares, "compares[0].comparison"),
        (with(less, Some(Operand::Exists(true))), compares, "compares[0].comparison"),
        (
            Op::Transact(transact([op::get("k"), Operation::default()])),
            ErrorReason::InvalidOperation,
            "then[1]",
        ),
        (
            Op::Transact(TransactRequest {
                otherwise: vec![Operation::default()],
                ..transact([op::get("k")])
            }),
            ErrorReason::InvalidOperation,
            "otherwise[0]",
        ),
    ];
    refuses(&ns, table).await;
    let empty = ns.fails(transact([]), ErrorReason::InvalidBatch).await;
    assert_eq!(ns.value("k").await.as_deref(), Some("alive"), "{empty:?}");
}

async fn bad_numbers_are_refused(ns: Namespace) {
    let reason = ErrorReason::InvalidField;
    let limited = |limit| DeleteRangeRequest { limit: Some(limit), ..delete_range(prefix("none")) };
    let in_list = operation::List { selector: Some(all()), limit: 1001, ..Default::default() };
    let in_delete = |limit| Op::Transact(transact([op::delete_range(all(), Some(limit))]));
    let table: Vec<Bad> = vec![
        (Op::List(ListRequest { page_size: 10_001, ..list(all()) }), reason, "page_size"),
        (Op::List(ListRequest { page_size: u32::MAX, ..list(all()) }), reason, "page_size"),
        (Op::History(HistoryRequest { limit: 1_001, ..history("k") }), reason, "limit"),
        (Op::DeleteRange(limited(0)), reason, "limit"),
        (Op::DeleteRange(limited(10_001)), reason, "limit"),
        (step(Kind::List(in_list)), reason, "then[0].list.limit"),
        (in_delete(0), reason, "then[0].delete_range.limit"),
        (in_delete(10_001), reason, "then[0].delete_range.limit"),
    ];
    refuses(&ns, table).await;
}

async fn bad_page_tokens_are_refused(ns: Namespace) {
    let reason = ErrorReason::InvalidPageToken;
    let mut table: Vec<Bad> = Vec::new();
    for length in [1, 8, 16, 40, 100, 5000] {
        for byte in [0, 0x61, 0xff] {
            let page_token: prost::bytes::Bytes = vec![byte; length].into();
            let list = ListRequest { page_token: page_token.clone(), ..list(all()) };
            let get = BatchGetRequest { page_token, ..batch_get(&["k"]) };
            table.push((Op::List(list), reason, "page_token"));
            table.push((Op::BatchGet(get), reason, "page_token"));
        }
    }
    refuses(&ns, table).await;
}
