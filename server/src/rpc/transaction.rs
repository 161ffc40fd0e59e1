//! `TransactionService`: the request to a transaction, and the reply to its response.

use holdfast_proto::v1::{
    self, ErrorReason as Reason, OperationResult, TransactRequest, TransactResponse,
    operation_result, transaction_service_server::TransactionService,
};

use super::{
    dispatch::{Call, operations},
    entry, kv,
    path::Path,
    status::Failure,
    validate::{self, Checks, MAX_BATCH},
};
use crate::{
    backend::Revision,
    store::command::{
        Command, Compare, Comparison, Condition, Delete, DeleteRange, EntryView, Increment, List,
        Operand, Operation, OperationReply, Set, SetTtl, TransactReply, Transaction,
    },
};

/// Most entries of a list, and how many where none is said.
const LIST_LIMIT: (u32, u32) = (100, 1000);

operations! {
    TransactionService {
        transact: Transact(TransactRequest) -> TransactResponse;
    }
}

pub(super) fn transact(request: TransactRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let TransactRequest { compares, then, otherwise, .. } = request;
    if compares.is_empty() && then.is_empty() && otherwise.is_empty() {
        let problem = "is empty, and so is the rest; say what to compare or to do";
        return Err(Failure::invalid(Reason::InvalidBatch, Path::of("then"), problem));
    }
    for (name, length) in
        [("compares", compares.len()), ("then", then.len()), ("otherwise", otherwise.len())]
    {
        if length > MAX_BATCH {
            let problem = format!("has {length}, at most {MAX_BATCH} are allowed");
            return Err(Failure::invalid(Reason::InvalidBatch, Path::of(name), problem));
        }
    }
    let compares = compares.into_iter().enumerate();
    let compares = compares.map(|(index, it)| compare(it, Path::item("compares", index)));
    let compares = compares.collect::<Result<_, _>>()?;
    let then = branch(then, "then", checks)?;
    let otherwise = branch(otherwise, "otherwise", checks)?;
    let transaction = Transaction { compares, then, otherwise };
    Ok(Call::write(Command::Transact(transaction)))
}

pub(super) fn response(
    revision: u64,
    time_ms: i64,
    reply: &TransactReply<EntryView>,
) -> TransactResponse {
    TransactResponse {
        revision,
        time_ms,
        succeeded: reply.succeeded,
        failed_compares: reply.failed_compares.iter().map(|index| *index as u32).collect(),
        results: reply.results.iter().map(result).collect(),
    }
}

fn compare(compare: v1::Compare, at: Path) -> Result<Compare, Failure> {
    use v1::compare::Operand as Asked;
    // A lock has a name like a key, but stands elsewhere.
    let key = match compare.operand {
        Some(Asked::LockToken(_)) => validate::lock(&compare.key, at.field("key")),
        _ => validate::key(&compare.key, at.field("key")),
    }?;
    let invalid = |name, problem: String| {
        Err(Failure::invalid(Reason::InvalidCompare, at.field(name), problem))
    };
    let comparison = match v1::Comparison::try_from(compare.comparison) {
        Ok(v1::Comparison::Equal) => Comparison::Equal,
        Ok(v1::Comparison::NotEqual) => Comparison::NotEqual,
        Ok(v1::Comparison::Less) => Comparison::Less,
        Ok(v1::Comparison::Greater) => Comparison::Greater,
        Ok(v1::Comparison::Unspecified) => {
            return invalid("comparison", "is missing; say how to compare".into());
        }
        Err(_) => {
            let number = compare.comparison;
            return invalid("comparison", format!("is {number}, which is no comparison"));
        }
    };
    let operand = match compare.operand {
        Some(Asked::Exists(_))
            if !matches!(comparison, Comparison::Equal | Comparison::NotEqual) =>
        {
            let problem = "does not fit `exists`; use COMPARISON_EQUAL or COMPARISON_NOT_EQUAL";
            return invalid("comparison", problem.into());
        }
        Some(Asked::Exists(exists)) => Operand::Exists(exists),
        Some(Asked::Version(version)) => Operand::Version(version),
        Some(Asked::CreateRevision(revision)) => Operand::CreateRevision(Revision(revision)),
        Some(Asked::ModRevision(revision)) => Operand::ModRevision(Revision(revision)),
        Some(Asked::Value(value)) => Operand::Value(value),
        Some(Asked::LeaseId(lease)) => Operand::Lease(lease),
        Some(Asked::LockToken(token)) => Operand::LockToken(Revision(token)),
        None => return invalid("operand", "is missing; say what to compare with".into()),
    };
    Ok(Compare { key, comparison, operand })
}

fn branch(
    operations: Vec<v1::Operation>,
    name: &'static str,
    checks: &mut Checks,
) -> Result<Vec<Operation>, Failure> {
    let operations = operations.into_iter().enumerate();
    operations.map(|(index, it)| operation(it, Path::item(name, index), checks)).collect()
}

fn operation(
    operation: v1::Operation,
    at: Path,
    checks: &mut Checks,
) -> Result<Operation, Failure> {
    use v1::operation::Kind;
    Ok(match operation.kind {
        None => {
            let problem = "is empty; set one of its kinds";
            return Err(Failure::invalid(Reason::InvalidOperation, at, problem));
        }
        Some(Kind::Get(get)) => {
            Operation::Get(validate::key(&get.key, at.field("get").field("key"))?)
        }
        Some(Kind::Set(it)) => Operation::Set(set(&it, at.field("set"), checks)?),
        Some(Kind::Delete(delete)) => Operation::Delete(Delete {
            key: validate::key(&delete.key, at.field("delete").field("key"))?,
            condition: Condition::None,
            return_previous: delete.return_previous,
        }),
        Some(Kind::DeleteRange(delete)) => {
            let at = at.field("delete_range");
            Operation::DeleteRange(DeleteRange {
                selector: validate::selector(delete.selector.as_ref(), at.field("selector"))?,
                limit: validate::delete_limit(delete.limit, at.field("limit"))?,
            })
        }
        Some(Kind::SetTtl(set_ttl)) => {
            let at = at.field("set_ttl");
            Operation::SetTtl(SetTtl {
                key: validate::key(&set_ttl.key, at.field("key"))?,
                expiry: checks.new_expiry(set_ttl.expiry, at.field("expiry"))?,
            })
        }
        Some(Kind::Increment(increment)) => {
            let at = at.field("increment");
            Operation::Increment(Increment {
                key: validate::key(&increment.key, at.field("key"))?,
                delta: increment.delta,
                initial: increment.initial,
                expiry: checks.expiry(increment.expiry, at.field("expiry"))?,
            })
        }
        Some(Kind::List(it)) => Operation::List(list(&it, at.field("list"))?),
    })
}

fn set(set: &v1::operation::Set, at: Path, checks: &mut Checks) -> Result<Set, Failure> {
    Ok(Set {
        key: validate::key(&set.key, at.field("key"))?,
        value: checks.value(&set.value, at.field("value"))?,
        content_type: validate::content_type(&set.content_type, at.field("content_type"))?,
        expiry: checks.expiry(set.expiry, at.field("expiry"))?,
        condition: Condition::None,
        return_previous: set.return_previous,
    })
}

fn list(list: &v1::operation::List, at: Path) -> Result<List, Failure> {
    let (default, max) = LIST_LIMIT;
    Ok(List {
        selector: validate::selector(list.selector.as_ref(), at.field("selector"))?,
        limit: validate::limit(list.limit, default, max, at.field("limit"))?,
        reverse: list.reverse,
        min_mod_revision: Revision(list.min_mod_revision),
        keys_only: list.keys_only,
    })
}

fn result(reply: &OperationReply<EntryView>) -> OperationResult {
    use operation_result::{Delete, DeleteRange, Get, Increment, Kind, List, Set, SetTtl};
    let kind = match reply {
        OperationReply::Get(found) => {
            let entry = found.as_ref().map(|found| entry::view(found, true));
            Kind::Get(Get { entry })
        }
        OperationReply::Set(reply) => Kind::Set(Set {
            entry: Some(entry::view(&reply.entry, false)),
            created: reply.created,
            previous: kv::previous(reply.previous.as_deref()),
        }),
        OperationReply::Delete(reply) => Kind::Delete(Delete {
            deleted: reply.deleted,
            previous: kv::previous(reply.previous.as_deref()),
        }),
        OperationReply::DeleteRange(reply) => {
            Kind::DeleteRange(DeleteRange { deleted: reply.deleted, more: reply.more })
        }
        OperationReply::SetTtl(found) => Kind::SetTtl(SetTtl { found: *found }),
        OperationReply::Increment(value) => Kind::Increment(Increment { value: *value }),
        OperationReply::List { entries, more, keys_only } => {
            let entries = entries.iter().map(|found| entry::view(found, !keys_only)).collect();
            Kind::List(List { entries, more: *more })
        }
    };
    OperationResult { kind: Some(kind) }
}
