//! `KvService`: requests to commands and reads, replies to responses.

use std::pin::Pin;

use futures::Stream;
use holdfast_proto::v1::{
    self, BatchDeleteRequest, BatchDeleteResponse, BatchGetRequest, BatchGetResponse,
    BatchSetRequest, BatchSetResponse, CountRequest, CountResponse, DeleteRangeRequest,
    DeleteRangeResponse, DeleteRequest, DeleteResponse, ErrorReason, ExistsRequest, ExistsResponse,
    GetRequest, GetResponse, GetTtlRequest, GetTtlResponse, HistoryRequest, HistoryResponse,
    IncrementRequest, IncrementResponse, ListRequest, ListResponse, ScanRequest, ScanResponse,
    SetRequest, SetResponse, SetTtlRequest, SetTtlResponse, batch_set_request,
    kv_service_server::KvService,
};
use tonic::{Request, Response, Status};

use super::{
    dispatch::{Call, operations},
    entry,
    entry_wire::{EntryAnswer, Shown},
    list,
    path::Path,
    read::{Look, Query},
    status::Failure,
    validate::{self, Checks},
};
use crate::{
    backend::Revision,
    store::Answer,
    store::command::{
        Command, Condition, Delete, DeleteRange, DeleteRangeReply, DeleteReply, EntryView,
        Increment, Reply, Set, SetReply, SetTtl,
    },
};

/// Most changes of an answer of `History`, and how many where none is said.
const HISTORY_LIMIT: (u32, u32) = (100, 1000);

operations! {
    KvService {
        get: Get(GetRequest) -> GetResponse;
        set: Set(SetRequest) -> SetResponse;
        delete: Delete(DeleteRequest) -> DeleteResponse;
        exists: Exists(ExistsRequest) -> ExistsResponse;
        get_ttl: GetTtl(GetTtlRequest) -> GetTtlResponse;
        set_ttl: SetTtl(SetTtlRequest) -> SetTtlResponse;
        increment: Increment(IncrementRequest) -> IncrementResponse;
        list: List(ListRequest) -> ListResponse;
        count: Count(CountRequest) -> CountResponse;
        history: History(HistoryRequest) -> HistoryResponse;
        delete_range: DeleteRange(DeleteRangeRequest) -> DeleteRangeResponse;
        batch_get: BatchGet(BatchGetRequest) -> BatchGetResponse;
        batch_set: BatchSet(BatchSetRequest) -> BatchSetResponse;
        batch_delete: BatchDelete(BatchDeleteRequest) -> BatchDeleteResponse;
    }
    beside {
        type ScanStream = Pin<Box<dyn Stream<Item = Result<ScanResponse, Status>> + Send>>;

        async fn scan(
            &self,
            request: Request<ScanRequest>,
        ) -> Result<Response<Self::ScanStream>, Status> {
            let messages = list::scan(self.store.clone(), request.into_inner())?;
            Ok(Response::new(Box::pin(messages)))
        }
    }
}

pub(super) fn get(request: GetRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let key = validate::key(&request.key, Path::of("key"))?;
    match (request.touch, request.at_revision) {
        (None, None) => Ok(Call::look(key, Look::Get)),
        (None, Some(at)) => Ok(Call::query(Query::GetAt { key, at: Revision(at) })),
        (Some(_), Some(_)) => {
            let problem = "cannot change what a former revision held; leave out `at_revision`";
            Err(Failure::invalid(ErrorReason::InvalidExpiry, Path::of("touch"), problem))
        }
        (touch, None) => {
            let expiry = checks.new_expiry(touch, Path::of("touch"))?;
            Ok(Call::write(Command::Touch(SetTtl { key, expiry })))
        }
    }
}

pub(super) fn set(request: SetRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let set = Set {
        key: validate::key(&request.key, Path::of("key"))?,
        value: checks.value(&request.value, Path::of("value"))?,
        content_type: validate::content_type(&request.content_type, Path::of("content_type"))?,
        expiry: checks.expiry(request.expiry, Path::of("expiry"))?,
        condition: validate::condition(request.condition, Path::of("condition"))?,
        return_previous: request.return_previous,
    };
    Ok(Call::write(Command::Set(set)))
}

pub(super) fn delete(request: DeleteRequest) -> Result<Call, Failure> {
    let delete = Delete {
        key: validate::key(&request.key, Path::of("key"))?,
        condition: validate::condition(request.condition, Path::of("condition"))?,
        return_previous: request.return_previous,
    };
    Ok(Call::write(Command::Delete(delete)))
}

pub(super) fn exists(request: &ExistsRequest) -> Result<Call, Failure> {
    let key = validate::key(&request.key, Path::of("key"))?;
    Ok(Call::look(key, Look::Exists))
}

pub(super) fn get_ttl(request: &GetTtlRequest) -> Result<Call, Failure> {
    let key = validate::key(&request.key, Path::of("key"))?;
    Ok(Call::look(key, Look::Ttl))
}

pub(super) fn set_ttl(request: SetTtlRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let set_ttl = SetTtl {
        key: validate::key(&request.key, Path::of("key"))?,
        expiry: checks.new_expiry(request.expiry, Path::of("expiry"))?,
    };
    Ok(Call::write(Command::SetTtl(set_ttl)))
}

pub(super) fn increment(request: IncrementRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let increment = Increment {
        key: validate::key(&request.key, Path::of("key"))?,
        delta: request.delta,
        initial: request.initial,
        expiry: checks.expiry(request.expiry, Path::of("expiry"))?,
    };
    Ok(Call::write(Command::Increment(increment)))
}

pub(super) fn count(request: &CountRequest) -> Result<Call, Failure> {
    let selector = validate::selector(request.selector.as_ref(), Path::of("selector"))?;
    Ok(Call::query(Query::Count(selector)))
}

pub(super) fn history(request: &HistoryRequest) -> Result<Call, Failure> {
    let (default, max) = HISTORY_LIMIT;
    Ok(Call::query(Query::History {
        key: validate::key(&request.key, Path::of("key"))?,
        before: request.before_revision.map(Revision),
        limit: validate::limit(request.limit, default, max, Path::of("limit"))?,
    }))
}

pub(super) fn delete_range(request: DeleteRangeRequest) -> Result<Call, Failure> {
    let delete = DeleteRange {
        selector: validate::selector(request.selector.as_ref(), Path::of("selector"))?,
        limit: validate::delete_limit(request.limit, Path::of("limit"))?,
    };
    Ok(Call::write(Command::DeleteRange(delete)))
}

pub(super) fn batch_set(request: BatchSetRequest, checks: &mut Checks) -> Result<Call, Failure> {
    let items = &request.items;
    validate::batch_size(items.len(), "items")?;
    let checked = items.iter().enumerate();
    let checked = checked.map(|(index, item)| self::item(item, Path::item("items", index), checks));
    let sets = checked.collect::<Result<_, _>>()?;
    validate::distinct(items.iter().map(|item| item.key.as_str()), "items")?;
    Ok(Call::write(Command::BatchSet(sets)))
}

pub(super) fn batch_delete(request: BatchDeleteRequest) -> Result<Call, Failure> {
    let keys = validate::keys(&request.keys, "keys")?;
    Ok(Call::write(Command::BatchDelete(keys)))
}

fn item(item: &batch_set_request::Item, at: Path, checks: &mut Checks) -> Result<Set, Failure> {
    Ok(Set {
        key: validate::key(&item.key, at.field("key"))?,
        value: checks.value(&item.value, at.field("value"))?,
        content_type: validate::content_type(&item.content_type, at.field("content_type"))?,
        expiry: checks.expiry(item.expiry, at.field("expiry"))?,
        condition: Condition::None,
        return_previous: false,
    })
}

/// The answer of a `Get` that touched the entry.
pub(super) fn get_response(revision: u64, time_ms: i64, entry: Option<&EntryView>) -> GetResponse {
    GetResponse { revision, time_ms, entry: entry.map(|entry| entry::view(entry, true)) }
}

/// The answer to a set that does not show the entry before.
pub(super) fn set_answer(answer: &Answer) -> Option<EntryAnswer<'_>> {
    let Reply::Set(SetReply { entry, created, previous: None }) = &answer.reply else {
        return None;
    };
    Some(EntryAnswer {
        revision: answer.revision.0,
        time_ms: answer.time_ms,
        entry: Some(Shown { key: entry.key(), entry: entry.entry(), with_value: false }),
        created: *created,
    })
}

pub(super) fn set_response(
    revision: u64,
    time_ms: i64,
    reply: &SetReply<EntryView>,
) -> SetResponse {
    SetResponse {
        revision,
        time_ms,
        entry: Some(entry::view(&reply.entry, false)),
        created: reply.created,
        previous: previous(reply.previous.as_deref()),
    }
}

pub(super) fn delete_response(
    revision: u64,
    time_ms: i64,
    reply: &DeleteReply<EntryView>,
) -> DeleteResponse {
    let DeleteReply { deleted, previous: before } = reply;
    DeleteResponse { revision, time_ms, deleted: *deleted, previous: previous(before.as_deref()) }
}

pub(super) fn set_ttl_response(revision: u64, time_ms: i64, found: bool) -> SetTtlResponse {
    SetTtlResponse { revision, time_ms, found }
}

pub(super) fn increment_response(revision: u64, time_ms: i64, value: i64) -> IncrementResponse {
    IncrementResponse { revision, time_ms, value }
}

pub(super) fn delete_range_response(
    revision: u64,
    time_ms: i64,
    DeleteRangeReply { deleted, more }: DeleteRangeReply,
) -> DeleteRangeResponse {
    DeleteRangeResponse { revision, time_ms, deleted, more }
}

pub(super) fn batch_set_response(
    revision: u64,
    time_ms: i64,
    entries: &[EntryView],
) -> BatchSetResponse {
    let entries = entries.iter().map(|entry| entry::view(entry, false)).collect();
    BatchSetResponse { revision, time_ms, entries }
}

pub(super) fn batch_delete_response(
    revision: u64,
    time_ms: i64,
    deleted: Vec<bool>,
) -> BatchDeleteResponse {
    BatchDeleteResponse { revision, time_ms, deleted }
}

/// The entry before a write, with its value.
pub(super) fn previous(previous: Option<&EntryView>) -> Option<v1::Entry> {
    previous.map(|previous| entry::view(previous, true))
}
