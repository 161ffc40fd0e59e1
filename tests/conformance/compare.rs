//! Compares of transactions: what each says of what is there and of what is not.

use holdfast_proto::v1::{compare::Operand, *};

use super::transaction::with;
use crate::common::{build::*, namespace::Namespace};

crate::cases! {
    every_comparison_of_a_present_key,
    of_a_missing_key_only_not_equal_is_true,
    existence_always_has_an_answer,
    values_compare_by_bytes,
}

/// Whether a compare holds now.
async fn holds(ns: &Namespace, compare: Compare) -> bool {
    let answer = ns.ok(with([compare], transact([op::get("k")]))).await;
    let failed = if answer.succeeded { vec![] } else { vec![0] };
    assert_eq!(answer.failed_compares, failed);
    answer.succeeded
}

const ALL: [Comparison; 4] =
    [Comparison::Equal, Comparison::NotEqual, Comparison::Less, Comparison::Greater];

async fn every_comparison_of_a_present_key(ns: Namespace) {
    ns.set("k", "1").await;
    ns.set("k", "1").await;
    let entry = ns.get("k").await.expect("set");
    type Make = fn(u64) -> Operand;
    let operands: [(Make, u64); 3] = [
        (Operand::Version, entry.version),
        (Operand::CreateRevision, entry.create_revision),
        (Operand::ModRevision, entry.mod_revision),
    ];
    for (operand, actual) in operands {
        for other in [actual - 1, actual, actual + 1] {
            for comparison in ALL {
                let expected = match comparison {
                    Comparison::Equal => actual == other,
                    Comparison::NotEqual => actual != other,
                    Comparison::Less => actual < other,
                    Comparison::Greater => actual > other,
                    Comparison::Unspecified => unreachable!("not among them"),
                };
                let asked = compare("k", comparison, operand(other));
                assert_eq!(holds(&ns, asked.clone()).await, expected, "{asked:?}");
            }
        }
    }
}

async fn of_a_missing_key_only_not_equal_is_true(ns: Namespace) {
    let operands = [
        Operand::Version(0),
        Operand::Version(1),
        Operand::CreateRevision(0),
        Operand::ModRevision(0),
        Operand::ModRevision(u64::MAX),
        Operand::Value("".into()),
        Operand::Value("x".into()),
    ];
    for operand in operands {
        for comparison in ALL {
            let asked = compare("missing", comparison, operand.clone());
            let expected = comparison == Comparison::NotEqual;
            assert_eq!(holds(&ns, asked.clone()).await, expected, "{asked:?}");
        }
    }
}

async fn existence_always_has_an_answer(ns: Namespace) {
    ns.set("k", "").await;
    for (key, there) in [("k", true), ("missing", false)] {
        for asked in [true, false] {
            let equal = compare(key, Comparison::Equal, Operand::Exists(asked));
            assert_eq!(holds(&ns, equal).await, there == asked);
            let differs = compare(key, Comparison::NotEqual, Operand::Exists(asked));
            assert_eq!(holds(&ns, differs).await, there != asked);
        }
    }
}

async fn values_compare_by_bytes(ns: Namespace) {
    ns.set("k", [0x7f, 0xff]).await;
    let others: [&[u8]; 6] = [b"", &[0x7f], &[0x7f, 0xff], &[0x7f, 0xff, 0], &[0x80], &[0xff]];
    for other in others {
        let actual: &[u8] = &[0x7f, 0xff];
        let expected = [actual == other, actual != other, actual < other, actual > other];
        for (comparison, expected) in ALL.into_iter().zip(expected) {
            let operand = Operand::Value(other.to_vec().into());
            assert_eq!(holds(&ns, compare("k", comparison, operand)).await, expected);
        }
    }
}
