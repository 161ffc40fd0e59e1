//! `LockService`: requests to commands and reads, replies to responses.

use std::pin::Pin;

use futures::Stream;
use holdfast_proto::v1::{
    self, AcquireRequest, AcquireResponse, BreakLockRequest, BreakLockResponse,
    ErrorReason as Reason, GetLockRequest, GetLockResponse, ListLocksRequest, ListLocksResponse,
    ReleaseRequest, ReleaseResponse, RenewRequest, RenewResponse, UpdateValueRequest,
    UpdateValueResponse, WatchLocksRequest, WatchLocksResponse, acquire_request::Duration,
    acquire_response::Outcome, lock_service_server::LockService, pipeline_answer,
    pipeline_call::Operation, release_request::Hold,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tracing::Instrument as _;

use super::{
    Caller, MESSAGE_BYTES, Services,
    dispatch::{self, Call, operations, response},
    page_token::{self, Kind},
    path::Path,
    read::Query,
    status::Failure,
    validate,
};
use crate::{
    backend::{NamespaceName, Revision},
    store::{
        HoldDuration, LockView, Owner, ReadState, Store,
        command::{
            Acquire, AcquireReply, BreakLock, Command, EntryView, HoldName, LockReply, Release,
            Renew, UpdateLock, Wait,
        },
    },
};

/// How many locks a page has at the most, and how many where none is said.
const PAGE_SIZE: (u32, u32) = (100, 1000);
/// How long a hold lasts where nothing is said.
const HOLD_TTL_MS: u64 = 30_000;
/// More than what a lock has beside its texts and its value.
const OVERHEAD: usize = 128;

operations! {
    LockService {
        renew: Renew(RenewRequest) -> RenewResponse;
        release: Release(ReleaseRequest) -> ReleaseResponse;
        update_value: UpdateValue(UpdateValueRequest) -> UpdateValueResponse;
        get_lock: GetLock(GetLockRequest) -> GetLockResponse;
        list_locks: ListLocks(ListLocksRequest) -> ListLocksResponse;
        break_lock: BreakLock(BreakLockRequest) -> BreakLockResponse;
    }
    beside {
        async fn acquire(
            &self,
            request: Request<AcquireRequest>,
        ) -> Result<Response<AcquireResponse>, Status> {
            let caller = Caller::gone(request.extensions());
            let request = request.into_inner();
            let outcome = match request.wait_ms {
                0 => self.run(Operation::Acquire(request)).await?,
                _ => self.acquire_in_time(request, caller).await?,
            };
            response!(outcome, Acquire)
        }

        type WatchLocksStream =
            Pin<Box<dyn Stream<Item = Result<WatchLocksResponse, Status>> + Send>>;

        async fn watch_locks(
            &self,
            request: Request<WatchLocksRequest>,
        ) -> Result<Response<Self::WatchLocksStream>, Status> {
            let messages = self.lock_messages(&request.into_inner())?;
            Ok(Response::new(Box::pin(messages)))
        }
    }
}

impl Services {
    /// Takes a lock, or waits for it until the server stops.
    async fn acquire_in_time(
        &self,
        mut request: AcquireRequest,
        caller: CancellationToken,
    ) -> Result<pipeline_answer::Result, Failure> {
        let name = validate::namespace(&request.namespace)?;
        let wait = validate::wait(std::mem::take(&mut request.wait_ms), Path::of("wait_ms"))?;
        let checked = dispatch::check(Operation::Acquire(request), &name, self.limits)?;
        let Call::Write(submission) = checked.call else {
            return Err(Failure::internal("to take a lock was taken for a read"));
        };
        let span = tracing::debug_span!("call", method = "Acquire", namespace = name.as_str());
        let acquired = self.store.acquire(&name, submission, wait, caller).instrument(span);
        tokio::select! {
            biased;
            answer = acquired => dispatch::answer(&name, answer?),
            () = self.stopping.cancelled() => Err(Failure::stopping()),
        }
    }
}

/// Locks to list.
pub(super) struct ListLocks {
    /// What its token is bound to: the request without page size and token.
    request: ListLocksRequest,
    after: Option<String>,
    limit: usize,
}

impl ListLocks {
    /// Reads the page.
    pub async fn run(
        self,
        store: &Store,
        name: &NamespaceName,
    ) -> Result<ListLocksResponse, Failure> {
        let Self { request, after, limit } = self;
        let (state, mut locks, mut last) =
            store.locks(name, &request.prefix, after.as_deref(), limit).await?;
        let fitting = fitting(&locks);
        if fitting < locks.len() {
            locks.truncate(fitting);
            last = locks.last().map(|lock| lock.name.clone());
        }
        let token = |last: String| page_token::after_name(Kind::Locks, &request, &last);
        Ok(ListLocksResponse {
            revision: state.revision.0,
            time_ms: state.time_ms,
            next_page_token: last.map(token).unwrap_or_default(),
            locks: locks.into_iter().map(encode).collect(),
        })
    }
}

pub(super) fn acquire(request: AcquireRequest) -> Result<Call, Failure> {
    if request.wait_ms != 0 {
        let problem = format!(
            "is {}, but in a pipeline nothing waits: leave it out, or call LockService.Acquire",
            request.wait_ms
        );
        return Err(Failure::invalid(Reason::InvalidField, Path::of("wait_ms"), problem));
    }
    let acquire = Acquire {
        lock: validate::lock(&request.name, Path::of("name"))?,
        acquire_id: validate::acquire_id(&request.acquire_id, Path::of("acquire_id"))?,
        owner: validate::owner(request.owner, Path::of("owner"))?,
        value: validate::lock_value(&request.value, Path::of("value"))?,
        duration: match request.duration {
            None => HoldDuration::Ttl(HOLD_TTL_MS),
            Some(Duration::TtlMs(ttl_ms)) => {
                HoldDuration::Ttl(validate::ttl(ttl_ms, Path::of("ttl_ms"))?)
            }
            Some(Duration::LeaseId(id)) => {
                let at = Path::of("lease_id");
                HoldDuration::Lease(validate::lease(id, Reason::InvalidExpiry, at)?)
            }
        },
        wait: Wait::No,
        renew_to_keep: request.renew_to_keep,
    };
    Ok(Call::write(Command::Acquire(Box::new(acquire))))
}

pub(super) fn renew(request: &RenewRequest) -> Result<Call, Failure> {
    let ttl_ms = request.ttl_ms.map(|ttl_ms| validate::ttl(ttl_ms, Path::of("ttl_ms")));
    let renew = Renew {
        lock: validate::lock(&request.name, Path::of("name"))?,
        token: Revision(request.token),
        ttl_ms: ttl_ms.transpose()?,
    };
    Ok(Call::write(Command::Renew(renew)))
}

pub(super) fn release(request: &ReleaseRequest) -> Result<Call, Failure> {
    let lock = validate::lock(&request.name, Path::of("name"))?;
    let hold = match &request.hold {
        Some(Hold::Token(token)) => HoldName::Token(Revision(*token)),
        Some(Hold::AcquireId(id)) => {
            HoldName::AcquireId(validate::acquire_id(id, Path::of("acquire_id"))?)
        }
        None => {
            let problem = "is missing; set `token` or `acquire_id`";
            return Err(Failure::invalid(Reason::InvalidLock, Path::of("hold"), problem));
        }
    };
    Ok(Call::write(Command::Release(Release::new(lock, hold))))
}

pub(super) fn update_value(request: &UpdateValueRequest) -> Result<Call, Failure> {
    let update = UpdateLock {
        lock: validate::lock(&request.name, Path::of("name"))?,
        token: Revision(request.token),
        value: validate::lock_value(&request.value, Path::of("value"))?,
    };
    Ok(Call::write(Command::UpdateLock(update)))
}

pub(super) fn get_lock(request: &GetLockRequest) -> Result<Call, Failure> {
    let lock = validate::lock(&request.name, Path::of("name"))?;
    Ok(Call::query(Query::GetLock(lock)))
}

pub(super) fn list_locks(
    mut request: ListLocksRequest,
    name: &NamespaceName,
) -> Result<Call, Failure> {
    validate::lock_prefix(&request.prefix, Path::of("prefix"))?;
    let (default, max) = PAGE_SIZE;
    let page_size = std::mem::take(&mut request.page_size);
    let limit = validate::limit(page_size, default, max, Path::of("page_size"))?;
    let token = std::mem::take(&mut request.page_token);
    request.namespace = name.as_str().into();
    let after = page_token::name(Kind::Locks, &request, &token)?.map(str::to_owned);
    Ok(Call::query(Query::ListLocks(ListLocks { request, after, limit })))
}

pub(super) fn break_lock(request: BreakLockRequest) -> Result<Call, Failure> {
    validate::break_reason(&request.reason, Path::of("reason"))?;
    let break_lock = BreakLock {
        lock: validate::lock(&request.name, Path::of("name"))?,
        token: Revision(request.token),
        reason: request.reason,
    };
    Ok(Call::write(Command::BreakLock(break_lock)))
}

pub(super) fn acquire_response(
    revision: u64,
    time_ms: i64,
    reply: &AcquireReply<EntryView>,
) -> Result<AcquireResponse, Failure> {
    let outcome = match reply {
        AcquireReply::Granted(lock) => Outcome::Lock(answered(lock)?),
        AcquireReply::Held(lock) => Outcome::Holder(answered(lock)?),
        AcquireReply::Queued | AcquireReply::Unattended => {
            return Err(Failure::internal("to take a lock was answered while it waits"));
        }
    };
    Ok(AcquireResponse { revision, time_ms, outcome: Some(outcome) })
}

pub(super) fn renew_response(
    revision: u64,
    time_ms: i64,
    lock: &LockReply<EntryView>,
) -> Result<RenewResponse, Failure> {
    Ok(RenewResponse { revision, time_ms, lock: Some(answered(lock)?) })
}

pub(super) fn release_response(revision: u64, time_ms: i64, released: bool) -> ReleaseResponse {
    ReleaseResponse { revision, time_ms, released }
}

pub(super) fn update_value_response(
    revision: u64,
    time_ms: i64,
    lock: &LockReply<EntryView>,
) -> Result<UpdateValueResponse, Failure> {
    Ok(UpdateValueResponse { revision, time_ms, lock: Some(answered(lock)?) })
}

pub(super) fn get_lock_response(state: &ReadState, found: Option<LockView>) -> GetLockResponse {
    GetLockResponse { revision: state.revision.0, time_ms: state.time_ms, lock: found.map(encode) }
}

pub(super) fn break_lock_response(revision: u64, time_ms: i64, broken: bool) -> BreakLockResponse {
    BreakLockResponse { revision, time_ms, broken }
}

/// A lock as a message.
pub(super) fn encode(lock: LockView) -> v1::Lock {
    let Owner { id, who, reason, operation, client_version } = lock.owner;
    v1::Lock {
        name: lock.name,
        token: lock.token.0,
        owner: Some(v1::LockOwner { id, who, reason, operation, client_version }),
        value: lock.value,
        acquired_at_ms: lock.acquired_at_ms,
        ttl_ms: lock.ttl_ms,
        expires_at_ms: lock.expires_at_ms,
        lease_id: lock.lease,
        waiting: lock.waiting,
    }
}

/// No less than the bytes that a lock takes in a message.
pub(super) fn size(lock: &LockView) -> usize {
    let Owner { id, who, reason, operation, client_version } = &lock.owner;
    let texts = [&lock.name, id, who, reason, operation, client_version];
    OVERHEAD + texts.map(String::len).iter().sum::<usize>() + lock.value.len()
}

fn answered(lock: &LockReply<EntryView>) -> Result<v1::Lock, Failure> {
    lock.view().map(encode).ok_or_else(|| Failure::corrupt("the record of a lock"))
}

/// How many of these locks fit into a message; one of them always does.
fn fitting(locks: &[LockView]) -> usize {
    let mut bytes = 0;
    let fits = |lock: &&LockView| {
        bytes += size(lock);
        bytes <= MESSAGE_BYTES
    };
    locks.iter().take_while(fits).count()
}
