//! How an error is read from a gRPC status.

use std::{collections::HashMap, error::Error as StdError, time::Duration};

use holdfast_proto::v1;
use prost::Message as _;
use tonic::{Code, Status};
use tonic_types::pb;

use super::{Branch, Error, Step};
use crate::{LeaseId, Lineage, LockLoss, Revision, Token, wire};

/// A failed attempt, with what matters for trying again.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) cause: Cause,
}

/// How far a failed attempt has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The server has answered.
    Answered,
    /// The request never left this machine.
    NotSent,
    /// The connection broke, and the request may have been run.
    Lost,
}

impl Failure {
    pub(crate) fn from_status(status: Status) -> Self {
        let details = Details::of(&status);
        if let Some(error) = details.error(&status) {
            return Self { error, cause: Cause::Answered };
        }
        Self::without_reason(status, details)
    }

    /// What a status among the messages of a stream means.
    pub(crate) fn from_wire(status: v1::Status) -> Self {
        Self::from_status(into_status(status))
    }

    /// Whether the request may have been run although no answer says so.
    pub(crate) fn may_be_applied(&self) -> bool {
        self.cause == Cause::Lost || matches!(self.error, Error::OutcomeUnknown { .. })
    }

    /// Whether the same may work a little later.
    pub(crate) fn is_passing(&self) -> bool {
        use Error::{DeadlineExceeded, Overloaded, Unavailable};
        let is_trouble =
            matches!(self.error, Unavailable { .. } | Overloaded { .. } | DeadlineExceeded);
        is_trouble || self.cause != Cause::Answered
    }

    /// The same for another who waits for the same stream.
    pub(crate) fn duplicate(&self) -> Self {
        Self { error: self.error.duplicate(), cause: self.cause }
    }

    /// A status that this client's own transport, a proxy, or the server's gRPC library has made.
    fn without_reason(status: Status, details: Details) -> Self {
        let message = describe_status(&status);
        let answered = |error| Self { error, cause: Cause::Answered };
        let unavailable = |cause| Self {
            error: Error::Unavailable {
                message: message.clone(),
                retry_after: details.retry_after,
            },
            cause,
        };
        if sources(&status).any(is_unsent) {
            return unavailable(Cause::NotSent);
        }
        if sources(&status).any(|source| source.is::<tonic::TimeoutExpired>()) {
            return answered(Error::DeadlineExceeded);
        }
        // What the other side says has no source; what has one is trouble on the way.
        if sources(&status).next().is_some() {
            return unavailable(Cause::Lost);
        }
        match status.code() {
            Code::DeadlineExceeded => answered(Error::DeadlineExceeded),
            Code::Unauthenticated => answered(Error::Unauthenticated { message }),
            Code::PermissionDenied => answered(Error::PermissionDenied { message }),
            Code::Unavailable | Code::Unknown | Code::Cancelled => unavailable(Cause::Lost),
            // What gRPC libraries say of a message that they do not let in.
            Code::OutOfRange => answered(Error::TooLarge { message, step: None }),
            // An answer, but not one that says what became of a write.
            Code::Internal => Self {
                error: Error::Other { code: Code::Internal as i32, reason: None, message },
                cause: Cause::Lost,
            },
            code => answered(Error::Other {
                code: code as i32,
                reason: details.info.map(|info| info.reason),
                message,
            }),
        }
    }
}

/// A status among the messages of a stream as one that ends a call.
pub(crate) fn into_status(status: v1::Status) -> Status {
    let details = status.encode_to_vec().into();
    Status::with_details(Code::from_i32(status.code), status.message, details)
}

/// What the details of a status hold, as far as this client knows them.
#[derive(Default)]
struct Details {
    info: Option<pb::ErrorInfo>,
    bad_request: Option<pb::BadRequest>,
    retry_after: Option<Duration>,
    condition_not_met: Option<v1::ConditionNotMet>,
}

impl Details {
    fn of(status: &Status) -> Self {
        let mut details = Self::default();
        let Ok(rich) = pb::Status::decode(status.details()) else {
            return details;
        };
        for any in rich.details {
            let name = any.type_url.rsplit('/').next().unwrap_or_default();
            let value = any.value.as_slice();
            match name {
                "google.rpc.ErrorInfo" => details.info = pb::ErrorInfo::decode(value).ok(),
                "google.rpc.BadRequest" => {
                    details.bad_request = pb::BadRequest::decode(value).ok();
                }
                "google.rpc.RetryInfo" => {
                    details.retry_after = pb::RetryInfo::decode(value)
                        .ok()
                        .and_then(|info| info.retry_delay)
                        .and_then(|delay| Duration::try_from(delay).ok());
                }
                "holdfast.v1.ConditionNotMet" => {
                    details.condition_not_met = v1::ConditionNotMet::decode(value).ok();
                }
                _ => {}
            }
        }
        details
    }

    /// The error that the reason stands for, if it is one that this client knows.
    fn error(&self, status: &Status) -> Option<Error> {
        use v1::ErrorReason as Reason;
        let info = self.info.as_ref().filter(|info| info.domain == "holdfast")?;
        let reason = Reason::from_str_name(&format!("ERROR_REASON_{}", info.reason))?;
        let message = status.message().to_owned();
        let number = |name: &str| number(&info.metadata, name).map(Revision::new);
        let step = step(&info.metadata);
        Some(match reason {
            Reason::Unspecified => return None,
            Reason::InvalidNamespace
            | Reason::InvalidKey
            | Reason::InvalidValue
            | Reason::InvalidContentType
            | Reason::InvalidExpiry
            | Reason::InvalidCondition
            | Reason::InvalidSelector
            | Reason::InvalidGlob
            | Reason::InvalidBatch
            | Reason::InvalidCompare
            | Reason::InvalidOperation
            | Reason::InvalidPageToken
            | Reason::InvalidSettings
            | Reason::InvalidField
            | Reason::InvalidLock
            | Reason::InvalidRequestId => self.invalid(info.reason.clone(), message),
            Reason::ConditionNotMet => self.condition_not_met(),
            Reason::LineageChanged => Error::LineageChanged {
                lineage: Lineage::new(info.metadata.get("lineage").cloned().unwrap_or_default()),
                valid_through: number("valid_through"),
            },
            Reason::NotANumber => Error::NotANumber { message, step },
            Reason::LockLost => lock_lost(&info.metadata),
            Reason::LeaseNotFound => Error::LeaseNotFound { lease: lease(&info.metadata), step },
            Reason::LeaseIdUsed => Error::LeaseIdUsed { lease: lease(&info.metadata) },
            Reason::RequestReused => Error::RequestReused { message },
            Reason::NamespaceNotEmpty => Error::NamespaceNotEmpty {
                namespace: info.metadata.get("namespace").cloned().unwrap_or_default(),
            },
            Reason::Compacted => {
                Error::Compacted { oldest: number("oldest_revision").unwrap_or_default() }
            }
            Reason::FutureRevision => {
                Error::FutureRevision { newest: number("newest_revision").unwrap_or_default() }
            }
            Reason::TooLarge => Error::TooLarge { message, step },
            Reason::QuotaExceeded => Error::QuotaExceeded { message, step },
            Reason::Overloaded => Error::Overloaded { message, retry_after: self.retry_after },
            Reason::BackendUnavailable | Reason::ReadOnly => {
                Error::Unavailable { message, retry_after: self.retry_after }
            }
            Reason::OutcomeUnknown => Error::OutcomeUnknown { message },
            Reason::Corrupt => Error::Corrupt { message },
        })
    }

    fn invalid(&self, reason: String, message: String) -> Error {
        let violation = self.bad_request.as_ref().and_then(|bad| bad.field_violations.first());
        Error::Invalid {
            reason,
            field: violation.map(|violation| violation.field.clone()),
            message,
        }
    }

    fn condition_not_met(&self) -> Error {
        let detail = self.condition_not_met.clone().unwrap_or_default();
        Error::ConditionNotMet {
            current: detail.current.map(|entry| Box::new(wire::split(entry).0)),
            revision: Revision::new(detail.revision),
        }
    }
}

fn number(metadata: &HashMap<String, String>, name: &str) -> Option<u64> {
    metadata.get(name)?.parse().ok()
}

fn lock_lost(metadata: &HashMap<String, String>) -> Error {
    let text = |name: &str| metadata.get(name).cloned().unwrap_or_default();
    Error::LockLost {
        lock: text("lock"),
        token: Token::new(number(metadata, "token").unwrap_or_default()),
        cause: LockLoss::from_wire(&text("cause"), text("reason")),
    }
}

fn lease(metadata: &HashMap<String, String>) -> LeaseId {
    LeaseId::new(number(metadata, "lease_id").unwrap_or_default())
}

fn step(metadata: &HashMap<String, String>) -> Option<Step> {
    let branch = match metadata.get("branch")?.as_str() {
        "then" => Branch::Then,
        "otherwise" => Branch::Otherwise,
        _ => return None,
    };
    Some(Step { branch, operation: metadata.get("operation")?.parse().ok()? })
}

/// The causes of a status, outermost first.
fn sources(status: &Status) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(status.source(), |&error| error.source())
}

/// Whether an error says that a request never left this machine: there was no connection, or it went away
/// before the request was written to it.
fn is_unsent(error: &(dyn StdError + 'static)) -> bool {
    error.is::<tonic::ConnectError>()
        || error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled)
}

/// The message of a status with its innermost cause: a refused connection is far more telling than
/// "transport error".
fn describe_status(status: &Status) -> String {
    let cause = sources(status).last();
    let cause = cause.map(ToString::to_string).unwrap_or_default();
    match (status.message(), cause.as_str()) {
        ("", "") => status.code().description().to_owned(),
        ("", cause) => cause.to_owned(),
        (message, cause) if message.contains(cause) => message.to_owned(),
        (message, cause) => format!("{message}: {cause}"),
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn any(name: &str, message: &impl prost::Message) -> Any {
        Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
    }

    fn status(code: Code, reason: &str, metadata: &[(&str, &str)], more: Vec<Any>) -> Status {
        let info = pb::ErrorInfo {
            reason: reason.to_owned(),
            domain: "holdfast".to_owned(),
            metadata: metadata
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect(),
        };
        let mut details = vec![any("google.rpc.ErrorInfo", &info)];
        details.extend(more);
        let rich = pb::Status { code: code as i32, message: "said".to_owned(), details };
        Status::with_details(code, "said", rich.encode_to_vec().into())
    }

    fn error(code: Code, reason: &str, metadata: &[(&str, &str)], more: Vec<Any>) -> Error {
        let failure = Failure::from_status(status(code, reason, metadata, more));
        assert_eq!(failure.cause, Cause::Answered);
        failure.error
    }

    #[test]
    fn a_condition_not_met_carries_the_current_entry() {
        let detail = v1::ConditionNotMet {
            current: Some(v1::Entry { key: "a".to_owned(), mod_revision: 7, ..Default::default() }),
            revision: 9,
        };
        let more = vec![any("holdfast.v1.ConditionNotMet", &detail)];
        match error(Code::Aborted, "CONDITION_NOT_MET", &[], more) {
            Error::ConditionNotMet { current: Some(current), revision } => {
                assert_eq!(current.key, "a");
                assert_eq!(current.mod_revision, Revision::new(7));
                assert_eq!(revision, Revision::new(9));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn metadata_becomes_fields() {
        assert!(matches!(
            error(Code::OutOfRange, "COMPACTED", &[("oldest_revision", "12")], vec![]),
            Error::Compacted { oldest } if oldest == Revision::new(12)
        ));
        assert!(matches!(
            error(Code::OutOfRange, "FUTURE_REVISION", &[("newest_revision", "3")], vec![]),
            Error::FutureRevision { newest } if newest == Revision::new(3)
        ));
        assert!(matches!(
            error(
                Code::FailedPrecondition,
                "LINEAGE_CHANGED",
                &[("lineage", "l2"), ("valid_through", "5")],
                vec![]
            ),
            Error::LineageChanged { lineage, valid_through }
                if lineage.as_str() == "l2" && valid_through == Some(Revision::new(5))
        ));
        let metadata = [("branch", "otherwise"), ("operation", "2")];
        assert!(matches!(
            error(Code::FailedPrecondition, "NOT_A_NUMBER", &metadata, vec![]),
            Error::NotANumber { step: Some(Step { branch: Branch::Otherwise, operation: 2 }), .. }
        ));
    }

    #[test]
    fn a_lost_lock_tells_what_became_of_it() {
        let metadata =
            [("lock", "job"), ("token", "7"), ("cause", "broken"), ("reason", "too slow")];
        assert!(matches!(
            error(Code::FailedPrecondition, "LOCK_LOST", &metadata, vec![]),
            Error::LockLost { lock, token, cause: LockLoss::Broken { reason } }
                if lock == "job" && token == Token::new(7) && reason == "too slow"
        ));
    }

    #[test]
    fn a_lease_is_named_by_its_id() {
        let metadata = [("lease_id", "18446744073709551615")];
        assert!(matches!(
            error(Code::FailedPrecondition, "LEASE_NOT_FOUND", &metadata, vec![]),
            Error::LeaseNotFound { lease, step: None } if lease == LeaseId::new(u64::MAX)
        ));
        assert!(matches!(
            error(Code::AlreadyExists, "LEASE_ID_USED", &metadata, vec![]),
            Error::LeaseIdUsed { lease } if lease == LeaseId::new(u64::MAX)
        ));
    }

    #[test]
    fn an_invalid_request_names_its_field() {
        let bad = pb::BadRequest {
            field_violations: vec![pb::bad_request::FieldViolation {
                field: "key".to_owned(),
                ..Default::default()
            }],
        };
        let more = vec![any("google.rpc.BadRequest", &bad)];
        match error(Code::InvalidArgument, "INVALID_KEY", &[], more) {
            Error::Invalid { reason, field, .. } => {
                assert_eq!(reason, "INVALID_KEY");
                assert_eq!(field.as_deref(), Some("key"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_retry_delay_is_read() {
        let retry =
            pb::RetryInfo { retry_delay: Some(prost_types::Duration { seconds: 2, nanos: 0 }) };
        let more = vec![any("google.rpc.RetryInfo", &retry)];
        let error = error(Code::Unavailable, "BACKEND_UNAVAILABLE", &[], more);
        assert!(matches!(error, Error::Unavailable { .. }));
        assert_eq!(error.retry_after(), Some(Duration::from_secs(2)));
    }

    #[test]
    fn a_status_without_reason_is_a_lost_connection_or_what_its_code_says() {
        let lost = Failure::from_status(Status::unknown("h2 protocol error"));
        assert_eq!(lost.cause, Cause::Lost);
        let denied = Failure::from_status(Status::permission_denied("no"));
        assert!(matches!(denied.error, Error::PermissionDenied { .. }));
        let internal = Failure::from_status(Status::internal("a bug"));
        assert_eq!(internal.cause, Cause::Lost);
        assert!(matches!(internal.error, Error::Other { code: 13, .. }));
        let late = Failure::from_status(Status::deadline_exceeded("late"));
        assert!(matches!(late.error, Error::DeadlineExceeded));
        let large = Failure::from_status(Status::out_of_range("message length too large"));
        assert!(matches!(large, Failure { error: Error::TooLarge { .. }, cause: Cause::Answered }));
    }

    #[test]
    fn a_reason_of_a_newer_server_is_kept() {
        assert!(matches!(
            error(Code::FailedPrecondition, "LOCK_GONE", &[], vec![]),
            Error::Other { reason: Some(reason), .. } if reason == "LOCK_GONE"
        ));
    }

    #[test]
    fn a_failed_connect_was_never_sent() {
        let refused = tonic::ConnectError("refused".into());
        let failure = Failure::from_status(Status::from_error(Box::new(refused)));
        assert_eq!(failure.cause, Cause::NotSent);
    }
}
