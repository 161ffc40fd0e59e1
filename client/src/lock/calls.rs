//! Single calls on locks.

use futures::{Stream, TryStreamExt as _};
use holdfast_proto::v1;

use super::LockInfo;
use crate::{
    Answer, Error,
    call::{Pending, awaitable_with_header, call_options, pages, turn_page, write_options},
};

/// Tells who holds a lock; made by [`Namespace::get_lock`](crate::Namespace::get_lock).
#[must_use = "a call does nothing until it is awaited"]
pub struct GetLock {
    pub(super) call: Pending<v1::GetLockRequest>,
}

impl GetLock {
    call_options!();

    async fn answer(&mut self) -> Result<Answer<Option<LockInfo>>, Error> {
        let response = self.call.send().await?;
        let lock = response.lock.map(LockInfo::from_wire);
        Ok(Answer::new(response.revision, response.time_ms, lock))
    }
}

awaitable_with_header!([] GetLock => Option<LockInfo>);

/// Lists locks; made by [`Namespace::list_locks`](crate::Namespace::list_locks). End it with
/// [`stream`](Self::stream) or [`all`](Self::all). Every page is as of its own moment.
#[must_use = "a list does nothing until it is read"]
pub struct ListLocks {
    pub(super) call: Pending<v1::ListLocksRequest>,
}

impl ListLocks {
    /// How many the server sends at a time, up to 1,000; 100 unless set.
    pub fn page_size(mut self, locks: u32) -> Self {
        self.call.request.page_size = locks;
        self
    }

    call_options!();

    /// The locks, read page by page. An error ends the stream.
    pub fn stream(self) -> impl Stream<Item = Result<LockInfo, Error>> + Send + Unpin + use<> {
        pages(self.call, turn_page!(locks as LockInfo))
    }

    /// All of them at once.
    ///
    /// # Errors
    /// [`Error::Unavailable`] and the other failures of any call.
    pub async fn all(self) -> Result<Vec<LockInfo>, Error> {
        self.stream().try_collect().await
    }
}

/// Gives a hold up; made by [`Namespace::release_lock`](crate::Namespace::release_lock).
#[must_use = "a call does nothing until it is awaited"]
pub struct ReleaseLock {
    pub(super) call: Pending<v1::ReleaseRequest>,
}

impl ReleaseLock {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<bool>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.released))
    }
}

awaitable_with_header!([] ReleaseLock => bool);

/// Takes a lock away; made by [`Namespace::break_lock`](crate::Namespace::break_lock).
#[must_use = "a call does nothing until it is awaited"]
pub struct BreakLock {
    pub(super) call: Pending<v1::BreakLockRequest>,
}

impl BreakLock {
    call_options!();
    write_options!();

    async fn answer(&mut self) -> Result<Answer<bool>, Error> {
        let response = self.call.send().await?;
        Ok(Answer::new(response.revision, response.time_ms, response.broken))
    }
}

awaitable_with_header!([] BreakLock => bool);
