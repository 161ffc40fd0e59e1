//! `LeaseService`: requests to commands and reads, replies to responses.

use std::pin::Pin;

use futures::Stream;
use holdfast_proto::v1::{
    self, ErrorReason as Reason, GetLeaseRequest, GetLeaseResponse, GrantRequest, GrantResponse,
    KeepAliveRequest, KeepAliveResponse, ListLeasesRequest, ListLeasesResponse, RevokeRequest,
    RevokeResponse, keep_alive_response, lease_service_server::LeaseService,
};
use tonic::{Request, Response, Status, Streaming};
use uuid::Uuid;

use super::{
    MESSAGE_BYTES,
    dispatch::{Call, operations},
    entry, keep_alive,
    page_token::{self, Kind},
    path::Path,
    read::Query,
    status::Failure,
    validate,
};
use crate::{
    backend::NamespaceName,
    store::{
        Attached, LeaseView, Store,
        command::{Command, EntryView, Grant, KeepAlive, LeaseReply, Revoke, RevokeReply},
    },
};

/// How many leases a page has at the most, and how many where none is said.
const PAGE_SIZE: (u32, u32) = (100, 1000);

operations! {
    LeaseService {
        grant: Grant(GrantRequest) -> GrantResponse;
        revoke: Revoke(RevokeRequest) -> RevokeResponse;
        get_lease: GetLease(GetLeaseRequest) -> GetLeaseResponse;
        list_leases: ListLeases(ListLeasesRequest) -> ListLeasesResponse;
    }
    beside {
        type KeepAliveStream =
            Pin<Box<dyn Stream<Item = Result<KeepAliveResponse, Status>> + Send>>;

        async fn keep_alive(
            &self,
            request: Request<Streaming<KeepAliveRequest>>,
        ) -> Result<Response<Self::KeepAliveStream>, Status> {
            let stopping = self.stopping.child_token();
            let answers = keep_alive::answers(self.store.clone(), stopping, request.into_inner());
            Ok(Response::new(Box::pin(answers)))
        }
    }
}

/// A lease to look at.
pub(super) struct GetLease {
    id: u64,
    attached: bool,
}

/// Leases to list.
pub(super) struct ListLeases {
    /// What its token is bound to: the request without page size and token.
    request: ListLeasesRequest,
    after: Option<u64>,
    limit: usize,
}

impl GetLease {
    /// Looks at the lease.
    pub async fn run(
        self,
        store: &Store,
        name: &NamespaceName,
    ) -> Result<GetLeaseResponse, Failure> {
        let (state, found) = match self.attached {
            true => store.lease_with_attached(name, self.id, MESSAGE_BYTES).await?,
            false => {
                let (state, found) = store.lease(name, self.id).await?;
                (state, found.map(|lease| (lease, Attached::default())))
            }
        };
        let (lease, attached) = found.unzip();
        let Attached { keys, locks, more } = attached.unwrap_or_default();
        let keys = keys.iter().map(|key| entry::text(key.as_bytes()).into_owned()).collect();
        Ok(GetLeaseResponse {
            revision: state.revision.0,
            time_ms: state.time_ms,
            lease: lease.as_ref().map(encode),
            keys,
            locks,
            more,
        })
    }
}

impl ListLeases {
    /// Reads the page.
    pub async fn run(
        self,
        store: &Store,
        name: &NamespaceName,
    ) -> Result<ListLeasesResponse, Failure> {
        let Self { request, after, limit } = self;
        let (state, leases, last) = store.leases(name, after, limit).await?;
        let token = |last| page_token::after_number(Kind::Leases, &request, last);
        Ok(ListLeasesResponse {
            revision: state.revision.0,
            time_ms: state.time_ms,
            leases: leases.iter().map(encode).collect(),
            next_page_token: last.map(token).unwrap_or_default(),
        })
    }
}

pub(super) fn grant(request: &GrantRequest) -> Result<Call, Failure> {
    let ttl_ms = validate::ttl(request.ttl_ms, Path::of("ttl_ms"))?;
    let (lease, is_chosen) = match request.lease_id {
        Some(id) => (validate::lease(id, Reason::InvalidField, Path::of("lease_id"))?, true),
        None => (random_id(), false),
    };
    Ok(Call::write(Command::Grant(Grant { lease, ttl_ms, is_chosen })))
}

pub(super) fn keep_alive(request: &KeepAliveRequest) -> Result<Call, Failure> {
    let lease = id(request.lease_id)?;
    Ok(Call::write(Command::KeepAlive(KeepAlive { lease })))
}

pub(super) fn revoke(request: &RevokeRequest) -> Result<Call, Failure> {
    let lease = id(request.lease_id)?;
    Ok(Call::write(Command::Revoke(Revoke { lease })))
}

pub(super) fn get_lease(request: &GetLeaseRequest) -> Result<Call, Failure> {
    let id = id(request.lease_id)?;
    Ok(Call::query(Query::GetLease(GetLease { id, attached: request.attached })))
}

pub(super) fn list_leases(
    mut request: ListLeasesRequest,
    name: &NamespaceName,
) -> Result<Call, Failure> {
    let (default, max) = PAGE_SIZE;
    let page_size = std::mem::take(&mut request.page_size);
    let limit = validate::limit(page_size, default, max, Path::of("page_size"))?;
    let token = std::mem::take(&mut request.page_token);
    request.namespace = name.as_str().into();
    let after = page_token::number(Kind::Leases, &request, &token)?;
    Ok(Call::query(Query::ListLeases(ListLeases { request, after, limit })))
}

pub(super) fn grant_response(
    revision: u64,
    time_ms: i64,
    lease: &LeaseReply<EntryView>,
) -> Result<GrantResponse, Failure> {
    Ok(GrantResponse { revision, time_ms, lease: Some(answered(lease)?) })
}

pub(super) fn keep_alive_response(
    name: &NamespaceName,
    revision: u64,
    time_ms: i64,
    lease: &LeaseReply<EntryView>,
) -> Result<KeepAliveResponse, Failure> {
    let lease = answered(lease)?;
    Ok(KeepAliveResponse {
        revision,
        time_ms,
        namespace: name.as_str().into(),
        lease_id: lease.lease_id,
        result: Some(keep_alive_response::Result::Lease(lease)),
    })
}

pub(super) fn revoke_response(
    revision: u64,
    time_ms: i64,
    RevokeReply { revoked, keys, locks }: RevokeReply,
) -> RevokeResponse {
    RevokeResponse { revision, time_ms, revoked, keys, locks }
}

fn encode(lease: &LeaseView) -> v1::Lease {
    v1::Lease {
        lease_id: lease.id,
        ttl_ms: lease.ttl_ms,
        granted_at_ms: lease.granted_at_ms,
        expires_at_ms: lease.expires_at_ms,
        keys: lease.keys,
        locks: lease.locks,
    }
}

fn answered(lease: &LeaseReply<EntryView>) -> Result<v1::Lease, Failure> {
    let view = lease.view().ok_or_else(|| Failure::corrupt("the record of a lease"))?;
    Ok(encode(&view))
}

fn id(lease_id: u64) -> Result<u64, Failure> {
    validate::lease(lease_id, Reason::InvalidField, Path::of("lease_id"))
}

/// An id that nobody else draws. The bits of a UUID that are not random lie at other places in its halves.
fn random_id() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    (high ^ low).max(1)
}
