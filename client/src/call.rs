//! What all builders of calls have in common.

use std::time::Duration;

use futures::{
    StreamExt as _, TryStreamExt as _,
    stream::{self, BoxStream},
};

use crate::{Client, Error, transport::Rpc};

/// A request in the making. What goes wrong on the way is told when it is sent, so that builders chain.
#[derive(Debug)]
pub(crate) struct Pending<R> {
    pub(crate) client: Client,
    pub(crate) request: R,
    pub(crate) timeout: Option<Duration>,
    pub(crate) failed: Option<Error>,
}

impl<R> Pending<R> {
    pub(crate) fn new(client: Client, request: R) -> Self {
        Self { client, request, timeout: None, failed: None }
    }

    /// Keeps the first error for later.
    pub(crate) fn unless_failed<T>(&mut self, result: Result<T, Error>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed.get_or_insert(error);
                None
            }
        }
    }
}

impl<R: Rpc> Pending<R> {
    pub(crate) async fn send(&mut self) -> Result<R::Response, Error> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.client.transport.call_in_place(&mut self.request, self.timeout).await,
        }
    }

    /// Sends the request as it is now; the builder goes on.
    pub(crate) async fn send_again(&self) -> Result<R::Response, Error> {
        let transport = &self.client.transport;
        transport.call(self.request.clone(), self.timeout).await
    }
}

/// Reads a list page by page. `turn` takes the items out of an answer, puts its token into the request, and says whether
/// there is more. An error ends the stream.
pub(crate) fn pages<R: Rpc + Sync, T: Send + 'static>(
    call: Pending<R>,
    turn: fn(&mut R, R::Response) -> (Vec<T>, bool),
) -> BoxStream<'static, Result<T, Error>> {
    let pages = stream::try_unfold(Some(call), move |call| async move {
        let Some(mut call) = call else {
            return Ok(None);
        };
        let response = call.send_again().await?;
        let (page, more) = turn(&mut call.request, response);
        let page = stream::iter(page.into_iter().map(Ok));
        Ok::<_, Error>(Some((page, more.then_some(call))))
    });
    pages.try_flatten().boxed()
}

/// What [`pages`] does with the answers to a request that lists.
macro_rules! turn_page {
    ($items:ident as $item:ty) => {
        |request, mut response| {
            request.page_token = std::mem::take(&mut response.next_page_token);
            let items = response.$items.into_iter().map(<$item>::from_wire).collect();
            (items, !request.page_token.is_empty())
        }
    };
}

/// The setting every call has.
macro_rules! call_options {
    () => {
        /// How long the call may take with all its attempts, instead of the client's setting.
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.call.timeout = Some(timeout);
            self
        }
    };
}

/// The settings every write has.
macro_rules! write_options {
    () => {
        /// Applies the write only if the namespace still has this lineage, else it is
        /// [`Error::LineageChanged`](crate::Error::LineageChanged). A namespace that does not exist has
        /// the empty one.
        pub fn expected_lineage(mut self, lineage: impl Into<$crate::Lineage>) -> Self {
            $crate::wire::expect_lineage(&mut self.call.request.options, lineage.into());
            self
        }

        /// Applies the write only if this hold of a lock of the same namespace is current at the commit, else
        /// it is [`Error::LockLost`](crate::Error::LockLost). Up to 16 holds can be named.
        pub fn guard(mut self, hold: impl Into<$crate::Guard>) -> Self {
            $crate::wire::guard(&mut self.call.request.options, hold.into());
            self
        }

        /// Applies the write only if this lock is held by this token; like [`guard`](Self::guard), for whoever
        /// has only the token.
        pub fn guard_token(self, lock: impl Into<String>, token: impl Into<$crate::Token>) -> Self {
            self.guard($crate::Guard::new(lock, token))
        }
    };
}

/// The settings of a write with a condition.
macro_rules! condition_options {
    () => {
        /// Only if the key exists and was last changed at this revision; else it is
        /// [`Error::ConditionNotMet`](crate::Error::ConditionNotMet).
        pub fn if_revision(mut self, mod_revision: impl Into<$crate::Revision>) -> Self {
            self.call.request.condition = Some($crate::wire::if_revision(mod_revision.into()));
            self
        }

        /// Only if the key exists; else it is
        /// [`Error::ConditionNotMet`](crate::Error::ConditionNotMet).
        pub fn if_present(mut self) -> Self {
            self.call.request.condition = Some($crate::wire::if_present());
            self
        }
    };
}

/// Ways to say when an entry ends, over one method `expiry`.
macro_rules! expiry_options {
    () => {
        /// Ends the entry so long after the commit: 1 ms to 100 years.
        pub fn ttl(self, ttl: std::time::Duration) -> Self {
            self.expiry($crate::Expiry::Ttl(ttl))
        }

        /// Ends the entry at this moment: a [`Timestamp`](crate::Timestamp) or a `SystemTime`.
        pub fn expires_at(self, time: impl Into<$crate::Timestamp>) -> Self {
            self.expiry($crate::Expiry::At(time.into()))
        }

        /// Ends the entry with this lease: a [`Lease`](crate::Lease) or its id. One that does not exist is
        /// [`Error::LeaseNotFound`](crate::Error::LeaseNotFound).
        pub fn lease(self, lease: impl Into<$crate::LeaseId>) -> Self {
            self.expiry($crate::Expiry::Lease(lease.into()))
        }

        /// Never ends the entry by itself, whatever the default TTL of the namespace.
        pub fn no_expiry(self) -> Self {
            self.expiry($crate::Expiry::Never)
        }
    };
}

/// Makes a builder one that is awaited directly, over its method `send`.
macro_rules! awaitable {
    ([$($generics:tt)*] $builder:ty => $output:ty) => {
        impl<$($generics)*> std::future::IntoFuture for $builder {
            type Output = Result<$output, $crate::Error>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(self) -> Self::IntoFuture {
                Box::pin(self.send())
            }
        }
    };
}

/// The same over a method `send` that only borrows the builder, so that the future has room for it once.
macro_rules! awaitable_in_place {
    ([$($generics:tt)*] $builder:ty => $output:ty) => {
        impl<$($generics)*> std::future::IntoFuture for $builder {
            type Output = Result<$output, $crate::Error>;
            type IntoFuture = futures::future::BoxFuture<'static, Self::Output>;

            fn into_future(mut self) -> Self::IntoFuture {
                Box::pin(async move { self.send().await })
            }
        }
    };
}

/// The same for a builder whose answer does not hold its header: over `answer(&mut self) -> Answer<_>`.
macro_rules! awaitable_with_header {
    ([$($generics:tt)*] $builder:ty => $output:ty) => {
        impl<$($generics)*> $builder {
            /// Sends the call and answers with the revision and time of the state as well.
            ///
            /// # Errors
            /// Those of the call itself.
            pub async fn with_header(mut self) -> Result<$crate::Answer<$output>, $crate::Error> {
                self.answer().await
            }

            async fn send(&mut self) -> Result<$output, $crate::Error> {
                Ok(self.answer().await?.value)
            }
        }
        $crate::call::awaitable_in_place!([$($generics)*] $builder => $output);
    };
}

pub(crate) use {
    awaitable, awaitable_in_place, awaitable_with_header, call_options, condition_options,
    expiry_options, turn_page, write_options,
};
