//! Single calls on leases.

use futures::{Stream, TryStreamExt as _};
use holdfast_proto::v1::{self, keep_alive_response};

use super::{LeaseContents, LeaseInfo, Revoked};
use crate::{
    Answer, Error,
    call::{Pending, awaitable_with_header, call_options, pages, turn_page, write_options},
};

/// Keeps a lease alive once; made by [`Namespace::keep_alive_once`](crate::Namespace::keep_alive_once). One that has
/// ended is [`Error::LeaseNotFound`].
#[must_use = "a call does nothing until it is awaited"]
pub struct KeepAliveOnce {
    pub(super) call: Pending<v1::KeepAliveRequest>,
}

impl KeepAliveOnce {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<LeaseInfo>, Error> {
        let response = self.call.send().await?;
        match response.result {
            Some(keep_alive_response::Result::Lease(lease)) => {
                Ok(Answer::new(response.revision, response.time_ms, LeaseInfo::from_wire(lease)))
            }
            _ => Err(Error::protocol("the answer names no lease")),
        }
    }
}

awaitable_with_header!([] KeepAliveOnce => LeaseInfo);

/// Ends a lease; made by [`Namespace::revoke_lease`](crate::Namespace::revoke_lease).
#[must_use = "a call does nothing until it is awaited"]
pub struct RevokeLease {
    pub(super) call: Pending<v1::RevokeRequest>,
}

impl RevokeLease {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<Revoked>, Error> {
        let response = self.call.send().await?;
        let revoked = Revoked::from_wire(&response);
        Ok(Answer::new(response.revision, response.time_ms, revoked))
    }
}

awaitable_with_header!([] RevokeLease => Revoked);

/// Tells what is known of a lease; made by [`Namespace::get_lease`](crate::Namespace::get_lease).
#[must_use = "a call does nothing until it is awaited"]
pub struct GetLease {
    pub(super) call: Pending<v1::GetLeaseRequest>,
}

impl GetLease {
    /// Asks for what is attached to it as well.
    pub fn attached(mut self) -> GetLeaseContents {
        self.call.request.attached = true;
        GetLeaseContents { call: self.call }
    }

    call_options!();

    async fn answer(&mut self) -> Result<Answer<Option<LeaseInfo>>, Error> {
        let response = self.call.send().await?;
        let lease = response.lease.map(LeaseInfo::from_wire);
        Ok(Answer::new(response.revision, response.time_ms, lease))
    }
}

awaitable_with_header!([] GetLease => Option<LeaseInfo>);

/// Tells what is known of a lease and what is attached to it; made by [`GetLease::attached`].
#[must_use = "a call does nothing until it is awaited"]
pub struct GetLeaseContents {
    call: Pending<v1::GetLeaseRequest>,
}

impl GetLeaseContents {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<Option<LeaseContents>>, Error> {
        let response = self.call.send().await?;
        let contents = response.lease.map(|lease| LeaseContents {
            info: LeaseInfo::from_wire(lease),
            keys: response.keys,
            locks: response.locks,
            more: response.more,
        });
        Ok(Answer::new(response.revision, response.time_ms, contents))
    }
}

awaitable_with_header!([] GetLeaseContents => Option<LeaseContents>);

/// Lists leases; made by [`Namespace::list_leases`](crate::Namespace::list_leases). End it with
/// [`stream`](Self::stream) or [`all`](Self::all). Every page is as of its own moment.
#[must_use = "a list does nothing until it is read"]
pub struct ListLeases {
    pub(super) call: Pending<v1::ListLeasesRequest>,
}

impl ListLeases {
    /// How many the server sends at a time, up to 1,000; 100 unless set.
    pub fn page_size(mut self, leases: u32) -> Self {
        self.call.request.page_size = leases;
        self
    }

    call_options!();

    /// The leases, read page by page. An error ends the stream.
    pub fn stream(self) -> impl Stream<Item = Result<LeaseInfo, Error>> + Send + Unpin + use<> {
        pages(self.call, turn_page!(leases as LeaseInfo))
    }

    /// All of them at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the other failures of any call.
    pub async fn all(self) -> Result<Vec<LeaseInfo>, Error> {
        self.stream().try_collect().await
    }
}
