//! What is imported, checked.

use holdfast_proto::v1::{
    self, ErrorReason as Reason, TransferLease, TransferLock, TransferStart,
    transfer_lock::Duration,
};

use super::FORMAT;
use crate::{
    backend::{Deadline, Entry, Key, Revision},
    rpc::{Limits, namespace, path::Path, status::Failure, validate},
    store::{self, HoldDuration, MovedLease, MovedLock, keys},
};

/// Revisions stay below 2^53; so many are left for what is yet to come.
const MAX_REVISION: u64 = (1 << 53) - (1 << 40);

/// The last moment that is taken, in the year 5138, in milliseconds since the Unix epoch.
const MAX_TIME_MS: i64 = 99_999_999_999_999;

fn time(time_ms: i64, at: Path) -> Result<i64, Failure> {
    validate::within(time_ms, 0, MAX_TIME_MS, at)
}

pub(super) fn start(start: &TransferStart) -> Result<store::TransferStart, Failure> {
    let at = Path::of("start");
    if start.format != FORMAT {
        let problem = format!("is {}, this server knows {FORMAT}", start.format);
        return Err(Failure::invalid(Reason::InvalidField, at.field("format"), problem));
    }
    validate::within(start.revision, 0, MAX_REVISION, at.field("revision"))?;
    Ok(store::TransferStart {
        namespace: validate::namespace(&start.namespace)?,
        settings: namespace::checked_settings(&start.settings.unwrap_or_default())?,
        revision: Revision(start.revision),
        lineage: None,
        time_ms: time(start.time_ms, at.field("time_ms"))?,
        expected_entries: start.expected_entries,
    })
}

pub(super) fn lease(lease: TransferLease, at: Path) -> Result<MovedLease, Failure> {
    let TransferLease { id, ttl_ms, granted_at_ms, expires_at_ms, is_chosen } = lease;
    Ok(MovedLease {
        id: validate::lease(id, Reason::InvalidField, at.field("id"))?,
        ttl_ms: validate::ttl(ttl_ms, at.field("ttl_ms"))?,
        granted_at_ms: time(granted_at_ms, at.field("granted_at_ms"))?,
        expires_at_ms: time(expires_at_ms, at.field("expires_at_ms"))?,
        is_chosen,
    })
}

pub(super) fn lock(
    lock: TransferLock,
    start: &store::TransferStart,
    at: Path,
) -> Result<MovedLock, Failure> {
    validate::lock(&lock.name, at.field("name"))?;
    let duration = match lock.duration {
        Some(Duration::TtlMs(ttl_ms)) => {
            HoldDuration::Ttl(validate::ttl(ttl_ms, at.field("ttl_ms"))?)
        }
        Some(Duration::LeaseId(id)) => {
            let field = at.field("lease_id");
            HoldDuration::Lease(validate::lease(id, Reason::InvalidField, field)?)
        }
        None => {
            let problem = "has neither `ttl_ms` nor `lease_id`; set one";
            return Err(Failure::invalid(Reason::InvalidLock, at, problem));
        }
    };
    if matches!(duration, HoldDuration::Ttl(_)) && lock.expires_at_ms.is_none() {
        let problem = "is missing; a hold with a `ttl_ms` ends by itself";
        return Err(Failure::invalid(Reason::InvalidLock, at.field("expires_at_ms"), problem));
    }
    let expires_at_ms = lock.expires_at_ms.map(|at_ms| time(at_ms, at.field("expires_at_ms")));
    let token = validate::within(lock.token, 1, start.revision.0, at.field("token"))?;
    // A hold that was renewed since its namespace was exported says so.
    let mod_revision =
        validate::within(lock.mod_revision, token, MAX_REVISION, at.field("mod_revision"))?;
    Ok(MovedLock {
        token: Revision(token),
        mod_revision: Revision(mod_revision),
        version: validate::within(lock.version, 1, MAX_REVISION, at.field("version"))?,
        acquired_at_ms: time(lock.acquired_at_ms, at.field("acquired_at_ms"))?,
        updated_at_ms: time(lock.updated_at_ms, at.field("updated_at_ms"))?,
        acquire_id: validate::acquire_id(&lock.acquire_id, at.field("acquire_id"))?,
        owner: validate::owner(lock.owner, at.field("owner"))?,
        value: validate::lock_value(&lock.value, at.field("value"))?,
        name: lock.name,
        duration,
        expires_at_ms: expires_at_ms.transpose()?,
    })
}

pub(super) fn entry(
    entry: v1::Entry,
    start: &store::TransferStart,
    limits: &Limits,
    at: Path,
) -> Result<(Key, Entry), Failure> {
    let key = validate::key(&entry.key, at.field("key"))?;
    let Some(value) = &entry.value else {
        let problem = "is missing; an entry travels with its value";
        return Err(Failure::invalid(Reason::InvalidValue, at.field("value"), problem));
    };
    let deadline = match (entry.expires_at_ms, entry.lease_id) {
        (None, None) => Deadline::Never,
        (Some(at_ms), None) => Deadline::At(time(at_ms, at.field("expires_at_ms"))?),
        (None, Some(id)) => {
            let field = at.field("lease_id");
            Deadline::Of(Box::new(keys::lease(validate::lease(id, Reason::InvalidExpiry, field)?)))
        }
        (Some(_), Some(_)) => {
            let problem = "is set beside `expires_at_ms`; an entry ends in one way";
            return Err(Failure::invalid(Reason::InvalidExpiry, at.field("lease_id"), problem));
        }
    };
    let last = start.revision.0;
    let modified = validate::within(entry.mod_revision, 1, last, at.field("mod_revision"))?;
    let created =
        validate::within(entry.create_revision, 1, modified, at.field("create_revision"))?;
    let entry = Entry {
        value: validate::Checks::new(*limits).value(value, at.field("value"))?,
        content_type: validate::content_type(&entry.content_type, at.field("content_type"))?,
        version: validate::within(entry.version, 1, MAX_REVISION, at.field("version"))?,
        create_revision: Revision(created),
        mod_revision: Revision(modified),
        created_at_ms: time(entry.created_at_ms, at.field("created_at_ms"))?,
        updated_at_ms: time(entry.updated_at_ms, at.field("updated_at_ms"))?,
        deadline,
    };
    Ok((key, entry))
}
