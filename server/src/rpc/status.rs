//! Why calls fail, as clients see it. The only place that makes errors of gRPC.

use std::{collections::HashMap, fmt::Display};

use holdfast_proto::v1::{self, ErrorReason};
use prost::Message;
use prost_types::Any;
use tonic::Code;
use tonic_types::pb::{
    BadRequest, ErrorInfo, QuotaFailure, RetryInfo, bad_request::FieldViolation,
    quota_failure::Violation,
};

use super::{entry, path::Path, validate::shown};
use crate::{
    backend::{BackendError, Key, Lineage, Revision},
    store::{
        LossCause,
        command::EntryView,
        error::{Refusal, StoreError},
        keys,
    },
};

/// After how long to try again what the server could not do.
const RETRY_DELAY: prost_types::Duration = prost_types::Duration { seconds: 0, nanos: 100_000_000 };

/// An error in the making: the same whether it becomes the status of a call or an answer of a pipeline.
#[derive(Debug)]
pub(super) struct Failure(Box<Parts>);

#[derive(Debug)]
struct Parts {
    code: Code,
    message: String,
    /// `None` where no rule of Holdfast was broken, but the server itself is.
    reason: Option<ErrorReason>,
    metadata: HashMap<String, String>,
    details: Vec<Any>,
}

impl Failure {
    /// A field is not as it must be. `problem` says how it is, how it must be, and what to do.
    pub fn invalid(reason: ErrorReason, field: impl Display, problem: impl Display) -> Self {
        let (field, description) = (field.to_string(), problem.to_string());
        let message = format!("{field}: {description}");
        let violation = FieldViolation { field, description, ..FieldViolation::default() };
        let bad_request = BadRequest { field_violations: vec![violation] };
        Self::new(Code::InvalidArgument, reason, message)
            .detail("google.rpc.BadRequest", &bad_request)
    }

    /// The server ends what it would else go on with for ever.
    pub fn stopping() -> Self {
        let message = "the server is stopping: connect again, or to another";
        Self::new(Code::Unavailable, ErrorReason::BackendUnavailable, message).retry()
    }

    /// The server contradicts itself.
    pub fn internal(message: &str) -> Self {
        Self(Box::new(Parts {
            code: Code::Internal,
            message: message.into(),
            reason: None,
            metadata: HashMap::new(),
            details: Vec::new(),
        }))
    }

    /// What is stored cannot be understood.
    pub fn corrupt(what: &str) -> Self {
        BackendError::Corrupt(format!("{what} cannot be read")).into()
    }

    fn new(code: Code, reason: ErrorReason, message: impl Into<String>) -> Self {
        let (message, metadata) = (message.into(), HashMap::new());
        Self(Box::new(Parts { code, message, reason: Some(reason), metadata, details: Vec::new() }))
    }

    fn metadata(mut self, name: &str, value: impl Display) -> Self {
        self.0.metadata.insert(name.into(), value.to_string());
        self
    }

    fn detail(mut self, name: &str, message: &impl Message) -> Self {
        self.0.details.push(any(name, message));
        self
    }

    fn retry(self) -> Self {
        self.detail("google.rpc.RetryInfo", &RetryInfo { retry_delay: Some(RETRY_DELAY) })
    }

    fn quota(self, subject: &str, limit: u64) -> Self {
        let description = format!("`{subject}` is {limit}");
        let violation = Violation { subject: subject.into(), description, ..Violation::default() };
        let quota_failure = QuotaFailure { violations: vec![violation] };
        self.metadata("quota", subject)
            .metadata("limit", limit)
            .detail("google.rpc.QuotaFailure", &quota_failure)
    }

    fn in_operation(mut self, branch: &str, index: usize) -> Self {
        self.0.message = format!("{branch}[{index}]: {}", self.0.message);
        self.metadata("branch", branch).metadata("operation", index)
    }
}

impl From<Failure> for v1::Status {
    fn from(Failure(parts): Failure) -> Self {
        let Parts { code, message, reason, metadata, mut details } = *parts;
        if let Some(reason) = reason {
            let name = reason.as_str_name();
            let name = name.strip_prefix("ERROR_REASON_").unwrap_or(name);
            let domain = "holdfast".into();
            let info = ErrorInfo { reason: name.into(), domain, metadata };
            details.insert(0, any("google.rpc.ErrorInfo", &info));
        }
        Self { code: code.into(), message, details }
    }
}

impl From<Failure> for tonic::Status {
    fn from(failure: Failure) -> Self {
        let code = failure.0.code;
        // Holdfast's own message is on the wire what `google.rpc.Status` is.
        let status = v1::Status::from(failure);
        let details = status.encode_to_vec().into();
        Self::with_details(code, status.message, details)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { refusal, revision } => refused(refusal, revision),
            StoreError::LineageChanged { lineage, valid_through } => {
                lineage_changed(lineage).metadata("valid_through", valid_through)
            }
            StoreError::NotEmpty { namespace } => {
                let name = namespace.as_str();
                let message = format!(
                    "the namespace {} has keys, locks or leases already: import it with `replace` to \
                     put what is imported in their place",
                    shown(name)
                );
                Self::new(Code::FailedPrecondition, ErrorReason::NamespaceNotEmpty, message)
                    .metadata("namespace", name)
            }
            StoreError::Contended { attempts } => {
                let message = format!(
                    "others kept changing what the request reads; it was tried {attempts} times: \
                     try again later, or read less"
                );
                overloaded(message)
            }
            StoreError::Overloaded => {
                overloaded("too much waits for this namespace already: try again later")
            }
            StoreError::Backend(error) => error.into(),
        }
    }
}

impl From<BackendError> for Failure {
    fn from(error: BackendError) -> Self {
        match error {
            BackendError::Compacted { oldest } => {
                let message = format!(
                    "the revision asked for is no longer held; the oldest that can be read at or \
                     resumed from is {oldest}"
                );
                Self::new(Code::OutOfRange, ErrorReason::Compacted, message)
                    .metadata("oldest_revision", oldest)
            }
            BackendError::Future { newest } => {
                let message = format!(
                    "the revision asked for is not there yet; the newest of this namespace is {newest}"
                );
                Self::new(Code::OutOfRange, ErrorReason::FutureRevision, message)
                    .metadata("newest_revision", newest)
            }
            BackendError::Lost { lineage, valid_through } => {
                lineage_changed(lineage).metadata("valid_through", valid_through)
            }
            BackendError::Full { what, limit } => {
                let message = format!(
                    "the backend is full: its `{what}` is {limit}; remove something, or raise the limit"
                );
                Self::new(Code::ResourceExhausted, ErrorReason::QuotaExceeded, message)
                    .quota(what, limit)
            }
            BackendError::Unavailable(problem) => {
                let message = format!(
                    "the backend is unavailable: {problem}; nothing was applied, try again"
                );
                Self::new(Code::Unavailable, ErrorReason::BackendUnavailable, message).retry()
            }
            BackendError::OutcomeUnknown(problem) => {
                let message = format!(
                    "the outcome is unknown: {problem}; the write may or may not have been applied"
                );
                Self::new(Code::Unknown, ErrorReason::OutcomeUnknown, message)
            }
            BackendError::Corrupt(problem) => {
                let message = format!("stored data is corrupt and not served: {problem}");
                Self::new(Code::DataLoss, ErrorReason::Corrupt, message)
            }
        }
    }
}

fn refused(refusal: Refusal<EntryView>, revision: Revision) -> Failure {
    match refusal {
        Refusal::ConditionNotMet { current } => condition_not_met(current.as_deref(), revision),
        Refusal::NotANumber { problem } => {
            Failure::new(Code::FailedPrecondition, ErrorReason::NotANumber, problem)
        }
        Refusal::TooLarge { what, size, limit } => {
            let message = format!(
                "{size} {what} are too many for one request: at most {limit} are allowed; split it"
            );
            Failure::new(Code::ResourceExhausted, ErrorReason::TooLarge, message)
                .metadata("what", what)
                .metadata("limit", limit)
        }
        Refusal::QuotaExceeded { quota, limit } => {
            let message = format!(
                "the namespace would exceed its `{quota}` of {limit}; remove something, or raise it"
            );
            Failure::new(Code::ResourceExhausted, ErrorReason::QuotaExceeded, message)
                .quota(quota, limit)
        }
        Refusal::LineageChanged { lineage } => lineage_changed(lineage),
        Refusal::LockLost { lock, token, cause } => lock_lost(&lock, token, &cause),
        Refusal::LeaseNotFound { lease } => {
            let message = format!("there is no lease {lease}: it has ended, or never was");
            Failure::new(Code::FailedPrecondition, ErrorReason::LeaseNotFound, message)
                .metadata("lease_id", lease)
        }
        Refusal::LeaseIdUsed { lease } => {
            let message = format!(
                "the lease id {lease} is in use, or was less than an hour ago; choose another at random, or \
                 leave it to the server"
            );
            Failure::new(Code::AlreadyExists, ErrorReason::LeaseIdUsed, message)
                .metadata("lease_id", lease)
        }
        Refusal::RequestReused { seq } => {
            let problem = format!(
                "has the seq {seq}, with which this client has sent another request; count up with every \
                 request, and send the same one again unchanged"
            );
            let options = Path::of("options");
            Failure::invalid(ErrorReason::RequestReused, options.field("request_id"), problem)
        }
        Refusal::RequestDone { seq, done_below } => {
            let problem = format!(
                "is {seq}, but this client has said with another request that it is done with all below \
                 {done_below}: whatever came of this one, it is not applied now"
            );
            let options = Path::of("options");
            let id = options.field("request_id");
            Failure::invalid(ErrorReason::InvalidRequestId, id.field("seq"), problem)
        }
        Refusal::TooManyRequests { unit, limit } => {
            let message = format!(
                "the answers to requests with an id that are kept for this namespace have reached their bound \
                 of {limit} {unit}: raise `done_below`, or try again later"
            );
            overloaded(message).metadata("limit", limit)
        }
        Refusal::TooManyWaiters { limit } => {
            overloaded(format!("{limit} wait for this lock already: try again later"))
                .metadata("limit", limit)
        }
        Refusal::Operation { branch, index, refusal } => {
            refused(*refusal, revision).in_operation(branch, index)
        }
    }
}

fn condition_not_met(current: Option<&EntryView>, revision: Revision) -> Failure {
    let found = match current {
        Some(current) => format!("the key has mod_revision {}", current.entry().mod_revision),
        None => "the key does not exist".into(),
    };
    let current = current.map(|current| entry::view(current, false));
    let detail = v1::ConditionNotMet { current, revision: revision.0 };
    let message = format!("the condition does not hold: {found}, as of revision {revision}");
    Failure::new(Code::Aborted, ErrorReason::ConditionNotMet, message)
        .detail("holdfast.v1.ConditionNotMet", &detail)
}

fn lock_lost(lock: &Key, token: Revision, cause: &LossCause) -> Failure {
    let name = keys::lock_name(lock);
    let how = match cause {
        LossCause::Expired => "it was not renewed in time",
        LossCause::Released => "it was given up",
        LossCause::Broken { .. } => "it was taken away",
        LossCause::LeaseExpired => "its lease was not kept alive",
        LossCause::LeaseRevoked => "its lease was revoked",
        LossCause::Abandoned => "its caller had gone when it was granted",
        LossCause::Unknown => "it ended long ago, or never was",
    };
    let message = format!("the lock {} is not held with the token {token}: {how}", shown(&name));
    let failure = Failure::new(Code::FailedPrecondition, ErrorReason::LockLost, message)
        .metadata("lock", name)
        .metadata("token", token)
        .metadata("cause", cause.name());
    match cause {
        LossCause::Broken { reason } => failure.metadata("reason", reason),
        _ => failure,
    }
}

fn overloaded(message: impl Into<String>) -> Failure {
    Failure::new(Code::ResourceExhausted, ErrorReason::Overloaded, message).retry()
}

fn lineage_changed(lineage: Option<Lineage>) -> Failure {
    let message = match lineage {
        Some(lineage) => format!("the namespace has another history: its lineage is {lineage}"),
        None => "the namespace has another history: it does not exist".into(),
    };
    Failure::new(Code::FailedPrecondition, ErrorReason::LineageChanged, message)
        .metadata("lineage", entry::lineage(lineage))
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}
