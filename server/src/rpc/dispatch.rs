//! The one way of all operations on data, whether they come alone or in a pipeline: from a request to a checked
//! [`Call`], and from what came of it to an answer.

use holdfast_proto::v1::{
    ErrorReason, pipeline_answer::Result as Outcome, pipeline_call::Operation,
};
use tracing::Instrument as _;

use super::{
    Limits, Services, kv, lease, list, lock,
    options::Options,
    path::Path,
    read::{Look, Lookup, Query, Read},
    status::Failure,
    transaction,
    validate::{self, Checks, Latest},
};
use crate::{
    backend::{Key, NamespaceName},
    store::{
        Answer, Submission,
        command::{Command, Reply},
    },
};

/// A request that was found fine, apart from a moment that the clock has to be asked about.
pub(super) struct Checked {
    /// What to do.
    pub call: Call,
    /// To be checked against the store's clock before anything is done.
    pub latest: Option<Latest>,
}

/// What to do about a request.
pub(super) enum Call {
    /// A write. What it answers tells by itself how it is encoded.
    Write(Submission),
    /// A read.
    Read(Read),
}

impl Call {
    /// A write of this command, without options.
    pub fn write(command: Command) -> Self {
        Self::Write(Submission::command_only(command))
    }

    /// A look at a key.
    pub fn look(key: Key, look: Look) -> Self {
        Self::Read(Read::Lookup(Lookup { key, look }))
    }

    /// Another read.
    pub fn query(query: Query) -> Self {
        Self::Read(Read::Query(Box::new(query)))
    }
}

impl Services {
    /// Runs one operation that came alone.
    pub async fn run(&self, operation: Operation) -> Result<Outcome, Failure> {
        let (namespace, method) = describe(&operation);
        let span = tracing::debug_span!("call", method, namespace);
        let name = validate::namespace(namespace);
        self.run_in(name, operation).instrument(span).await
    }

    async fn run_in(
        &self,
        name: Result<NamespaceName, Failure>,
        operation: Operation,
    ) -> Result<Outcome, Failure> {
        let name = name?;
        let Checked { call, latest } = check(operation, &name, self.limits)?;
        if let Some(latest) = latest {
            latest.check(self.store.backend().now_ms().await?)?;
        }
        match call {
            Call::Write(submission) => answer(&name, self.submit(&name, submission).await?),
            Call::Read(read) => read.run(&self.store, &name).await,
        }
    }

    /// Does one piece of work.
    pub async fn submit(
        &self,
        name: &NamespaceName,
        submission: Submission,
    ) -> Result<Answer, Failure> {
        let outcome = self.store.submit(name, vec![submission]).await.pop();
        Ok(outcome.ok_or_else(|| Failure::internal("a write was not answered"))??)
    }
}

/// Checks an operation on a namespace. It may leave out the namespace's name, but not give another.
pub(super) fn check(
    mut operation: Operation,
    name: &NamespaceName,
    limits: Limits,
) -> Result<Checked, Failure> {
    let (own, _) = describe(&operation);
    if !own.is_empty() && own != name.as_str() {
        let problem = format!(
            "is {}, but the message is about {}; leave it out, or send another message",
            validate::shown(own),
            validate::shown(name.as_str()),
        );
        let field = Path::of("namespace");
        return Err(Failure::invalid(ErrorReason::InvalidNamespace, field, problem));
    }
    let options = Options::take(&mut operation)?;
    let mut checks = Checks::new(limits);
    let call = match operation {
        Operation::Get(request) => kv::get(request, &mut checks),
        Operation::Set(request) => kv::set(request, &mut checks),
        Operation::Delete(request) => kv::delete(request),
        Operation::Exists(request) => kv::exists(&request),
        Operation::GetTtl(request) => kv::get_ttl(&request),
        Operation::SetTtl(request) => kv::set_ttl(request, &mut checks),
        Operation::Increment(request) => kv::increment(request, &mut checks),
        Operation::List(request) => list::list(request, name),
        Operation::Count(request) => kv::count(&request),
        Operation::History(request) => kv::history(&request),
        Operation::DeleteRange(request) => kv::delete_range(request),
        Operation::BatchGet(request) => list::batch_get(request, name),
        Operation::BatchSet(request) => kv::batch_set(request, &mut checks),
        Operation::BatchDelete(request) => kv::batch_delete(request),
        Operation::Transact(request) => transaction::transact(request, &mut checks),
        Operation::Acquire(request) => lock::acquire(request),
        Operation::Renew(request) => lock::renew(&request),
        Operation::Release(request) => lock::release(&request),
        Operation::UpdateValue(request) => lock::update_value(&request),
        Operation::GetLock(request) => lock::get_lock(&request),
        Operation::ListLocks(request) => lock::list_locks(request, name),
        Operation::BreakLock(request) => lock::break_lock(request),
        Operation::Grant(request) => lease::grant(&request),
        Operation::KeepAlive(request) => lease::keep_alive(&request),
        Operation::Revoke(request) => lease::revoke(&request),
        Operation::GetLease(request) => lease::get_lease(&request),
        Operation::ListLeases(request) => lease::list_leases(request, name),
    }?;
    let call = match call {
        Call::Write(bare) => Call::Write(options.submission(bare.work)),
        Call::Read(read) => Call::Read(read),
    };
    Ok(Checked { call, latest: checks.into_latest() })
}

/// The answer to a write of a namespace.
pub(super) fn answer(name: &NamespaceName, answer: Answer) -> Result<Outcome, Failure> {
    let Answer { revision, time_ms, reply } = answer;
    let revision = revision.0;
    Ok(match reply {
        Reply::Set(reply) => Outcome::Set(kv::set_response(revision, time_ms, &reply)),
        Reply::Delete(reply) => Outcome::Delete(kv::delete_response(revision, time_ms, &reply)),
        Reply::SetTtl(found) => Outcome::SetTtl(kv::set_ttl_response(revision, time_ms, found)),
        Reply::Touch(entry) => Outcome::Get(kv::get_response(revision, time_ms, entry.as_ref())),
        Reply::Increment(value) => {
            Outcome::Increment(kv::increment_response(revision, time_ms, value))
        }
        Reply::DeleteRange(reply) => {
            Outcome::DeleteRange(kv::delete_range_response(revision, time_ms, reply))
        }
        Reply::BatchSet(entries) => {
            Outcome::BatchSet(kv::batch_set_response(revision, time_ms, &entries))
        }
        Reply::BatchDelete(deleted) => {
            Outcome::BatchDelete(kv::batch_delete_response(revision, time_ms, deleted))
        }
        Reply::Transact(reply) => {
            Outcome::Transact(transaction::response(revision, time_ms, &reply))
        }
        Reply::Acquired(reply) => {
            Outcome::Acquire(lock::acquire_response(revision, time_ms, &reply)?)
        }
        Reply::Renewed(lock) => Outcome::Renew(lock::renew_response(revision, time_ms, &lock)?),
        Reply::Released(released) => {
            Outcome::Release(lock::release_response(revision, time_ms, released))
        }
        Reply::LockUpdated(lock) => {
            Outcome::UpdateValue(lock::update_value_response(revision, time_ms, &lock)?)
        }
        Reply::LockBroken(broken) => {
            Outcome::BreakLock(lock::break_lock_response(revision, time_ms, broken))
        }
        Reply::Granted(lease) => Outcome::Grant(lease::grant_response(revision, time_ms, &lease)?),
        Reply::KeptAlive(lease) => {
            Outcome::KeepAlive(lease::keep_alive_response(name, revision, time_ms, &lease)?)
        }
        Reply::Revoked(reply) => Outcome::Revoke(lease::revoke_response(revision, time_ms, reply)),
        Reply::Settings(_)
        | Reply::Expired
        | Reply::Present(_)
        | Reply::Cleared(_)
        | Reply::NamespaceDeleted(_) => {
            return Err(Failure::internal("a write was answered by what it did not ask for"));
        }
    })
}

/// Takes the response of one kind out of an outcome.
macro_rules! response {
    ($outcome:expr, $kind:ident) => {
        match $outcome {
            holdfast_proto::v1::pipeline_answer::Result::$kind(response) => {
                Ok(tonic::Response::new(response))
            }
            _ => Err(tonic::Status::internal("an operation was answered by another's response")),
        }
    };
}
pub(super) use response;

/// Implements a service: methods that do nothing but run an operation, and others `beside` them.
macro_rules! operations {
    (
        $service:ident { $($method:ident: $kind:ident($request:ty) -> $response:ty;)* }
        $(beside { $($others:tt)* })?
    ) => {
        #[tonic::async_trait]
        impl $service for super::Services {
            $(async fn $method(
                &self,
                request: tonic::Request<$request>,
            ) -> Result<tonic::Response<$response>, tonic::Status> {
                let operation = holdfast_proto::v1::pipeline_call::Operation::$kind(request.into_inner());
                super::dispatch::response!(self.run(operation).await?, $kind)
            })*
            $($($others)*)?
        }
    };
}
pub(super) use operations;

/// The namespace that an operation names, and what it is called.
fn describe(operation: &Operation) -> (&str, &'static str) {
    macro_rules! describe {
        ($($kind:ident)*) => {
            match operation {
                $(Operation::$kind(request) => (&request.namespace, stringify!($kind)),)*
            }
        };
    }
    describe! {
        Get Set Delete Exists GetTtl SetTtl Increment List Count History DeleteRange
        BatchGet BatchSet BatchDelete Transact
        Acquire Renew Release UpdateValue GetLock ListLocks BreakLock
        Grant KeepAlive Revoke GetLease ListLeases
    }
}
