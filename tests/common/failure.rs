//! Errors as a client sees them, from unary calls, streams and pipelines alike.

use std::collections::HashMap;

use holdfast_proto::v1::{self, ConditionNotMet, ErrorReason};
use prost::Message;
use tonic::Code;
use tonic_types::pb::{BadRequest, ErrorInfo, QuotaFailure, RetryInfo};

/// A decoded error.
#[derive(Debug, Clone, Default)]
pub struct Failure {
    pub code: i32,
    pub message: String,
    pub domain: String,
    pub reason: String,
    pub metadata: HashMap<String, String>,
    /// The paths of the fields at fault.
    pub fields: Vec<String>,
    pub condition: Option<ConditionNotMet>,
    pub has_retry: bool,
    pub has_quota: bool,
}

impl Failure {
    /// Checks everything that the documentation says of this reason, and hands the failure back.
    #[track_caller]
    pub fn expect(self, reason: ErrorReason) -> Self {
        let name = reason.as_str_name().trim_start_matches("ERROR_REASON_");
        assert_eq!(self.reason, name, "{self:?}");
        assert_eq!(self.domain, "holdfast", "{self:?}");
        assert_eq!(Code::from(self.code), code_of(reason), "{self:?}");
        assert!(!self.message.is_empty(), "{self:?}");
        if code_of(reason) == Code::InvalidArgument {
            assert!(!self.fields.is_empty(), "no field violation: {self:?}");
        }
        if reason == ErrorReason::QuotaExceeded {
            assert!(self.has_quota, "no QuotaFailure: {self:?}");
        }
        if reason == ErrorReason::BackendUnavailable {
            assert!(self.has_retry, "no RetryInfo: {self:?}");
        }
        if matches!(reason, ErrorReason::LeaseNotFound | ErrorReason::LeaseIdUsed) {
            self.number("lease_id");
        }
        if reason == ErrorReason::LockLost {
            self.number("token");
            for name in ["lock", "cause"] {
                assert!(self.metadata.contains_key(name), "no `{name}` in {self:?}");
            }
        }
        let conflict = reason == ErrorReason::ConditionNotMet;
        assert_eq!(self.condition.is_some(), conflict, "{self:?}");
        self
    }

    /// The metadata under this name as a number.
    #[track_caller]
    pub fn number(&self, name: &str) -> u64 {
        let text = self.metadata.get(name);
        text.and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("no number `{name}` in {self:?}"))
    }
}

impl From<tonic::Status> for Failure {
    fn from(status: tonic::Status) -> Self {
        let details =
            v1::Status::decode(status.details()).expect("details are a google.rpc.Status");
        Failure::from(v1::Status {
            code: status.code().into(),
            message: status.message().to_owned(),
            ..details
        })
    }
}

impl From<v1::Status> for Failure {
    fn from(status: v1::Status) -> Self {
        let mut failure =
            Failure { code: status.code, message: status.message, ..Failure::default() };
        for detail in status.details {
            let name = detail.type_url.rsplit('/').next().unwrap_or_default();
            failure.take_detail(name, &detail.value);
        }
        failure
    }
}

impl Failure {
    fn take_detail(&mut self, name: &str, bytes: &[u8]) {
        match name {
            "google.rpc.ErrorInfo" => {
                let info: ErrorInfo = decode(bytes);
                self.domain = info.domain;
                self.reason = info.reason;
                self.metadata = info.metadata;
            }
            "google.rpc.BadRequest" => {
                let bad: BadRequest = decode(bytes);
                for violation in bad.field_violations {
                    assert!(!violation.description.is_empty(), "{violation:?}");
                    self.fields.push(violation.field);
                }
            }
            "google.rpc.RetryInfo" => {
                let retry: RetryInfo = decode(bytes);
                self.has_retry = retry.retry_delay.is_some();
            }
            "google.rpc.QuotaFailure" => {
                let quota: QuotaFailure = decode(bytes);
                self.has_quota = !quota.violations.is_empty();
            }
            "holdfast.v1.ConditionNotMet" => self.condition = Some(decode(bytes)),
            other => panic!("an undocumented detail: {other}"),
        }
    }
}

fn decode<M: Message + Default>(bytes: &[u8]) -> M {
    M::decode(bytes).expect("a detail is what its type URL says")
}

/// The documented status of a reason.
fn code_of(reason: ErrorReason) -> Code {
    use ErrorReason as R;
    match reason {
        R::Unspecified => Code::Ok,
        R::InvalidNamespace
        | R::InvalidKey
        | R::InvalidValue
        | R::InvalidContentType
        | R::InvalidExpiry
        | R::InvalidCondition
        | R::InvalidSelector
        | R::InvalidGlob
        | R::InvalidBatch
        | R::InvalidCompare
        | R::InvalidOperation
        | R::InvalidPageToken
        | R::InvalidSettings
        | R::InvalidField
        | R::InvalidLock
        | R::InvalidRequestId
        | R::RequestReused => Code::InvalidArgument,
        R::ConditionNotMet => Code::Aborted,
        R::LineageChanged
        | R::NotANumber
        | R::LockLost
        | R::LeaseNotFound
        | R::NamespaceNotEmpty => Code::FailedPrecondition,
        R::LeaseIdUsed => Code::AlreadyExists,
        R::Compacted | R::FutureRevision => Code::OutOfRange,
        R::TooLarge | R::QuotaExceeded | R::Overloaded => Code::ResourceExhausted,
        R::BackendUnavailable | R::ReadOnly => Code::Unavailable,
        R::OutcomeUnknown => Code::Unknown,
        R::Corrupt => Code::DataLoss,
    }
}
