//! The Rust client of Holdfast, a state service: namespaced keys with expiry, atomic batches and
//! transactions, locks, leases, and watch streams that lose nothing.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use futures::StreamExt as _;
//! use holdfast_client::{Change, Client, Error, Selector, WatchItem};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, Serialize, Deserialize)]
//! struct Session {
//!     user: String,
//!     visits: u32,
//! }
//!
//! #[tokio::main]
//! async fn main() -> Result<(), Error> {
//!     let client = Client::connect("http://127.0.0.1:4653").await?;
//!     let sessions = client.namespace("sessions");
//!
//!     // Writes: with expiry, with conditions.
//!     let session = Session { user: "ann".into(), visits: 1 };
//!     sessions.set("s:1", &session).ttl(Duration::from_secs(60)).await?;
//!     match sessions.set("s:1", &session).if_absent().await {
//!         Err(Error::ConditionNotMet { current, .. }) => println!("taken: {current:?}"),
//!         other => println!("created: {}", other?.created),
//!     }
//!
//!     // Reads: a missing key is `None`.
//!     if let Some(entry) = sessions.get::<Session>("s:1").await? {
//!         println!("{} at revision {}", entry.value.user, entry.mod_revision());
//!     }
//!
//!     // A transaction: run again if somebody interferes.
//!     let visits = sessions
//!         .transact(async |tx| {
//!             let Some(mut session) = tx.get::<Session>("s:1").await? else {
//!                 return Ok(0);
//!             };
//!             session.visits += 1;
//!             tx.set_expiring("s:1", &session, holdfast_client::Expiry::Keep)?;
//!             Ok(session.visits)
//!         })
//!         .await?;
//!     println!("visit {}", visits.value);
//!
//!     // A watch: reconnects and resumes by itself.
//!     let mut ended = sessions.watch::<Session>(Selector::prefix("s:")).expiries().await?;
//!     while let Some(item) = ended.next().await {
//!         if let WatchItem::Event(event) = item? {
//!             assert!(matches!(event.change, Change::Expired));
//!             println!("{} ended, it was {:?}", event.key, event.previous);
//!         }
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Where to begin
//!
//! - [`Client`] and [`ClientBuilder`]: servers, TLS, tokens, timeouts.
//! - [`Namespace`]: every call on keys begins here, as a builder that is awaited directly.
//! - [`codec`]: values as JSON (the default), MessagePack, Postcard, protobuf, text, bytes, or a form of one's own.
//! - [`Transaction`] compares, then acts; [`Namespace::transact`] runs a closure until nobody has interfered.
//! - [`Namespace::near_cache`]: the keys of a prefix in memory, kept true by a watch.
//! - [`Watch`]: changes as they happen, and [`Cursor`]s to come back to.
//! - [`Namespace::lock`], [`Namespace::grant_lease`], [`Namespace::election`]: who may do what, and for how long.
//! - [`Error`]: one enum to match on.
//!
//! # Locks and leases
//!
//! A lock has at most one holder, for a TTL that the client renews in the background. The [`LockGuard`] knows of
//! its loss by its own clock, before anybody else can get the lock; what must never happen without it is a
//! write with a guard. A [`Lease`] keeps keys and locks alive as long as this program is. An [`Election`] is a
//! lock with a value, to be watched.
//!
//! ```no_run
//! # use std::time::Duration;
//! # use holdfast_client::{Acquired, Client, Error};
//! # async fn example(client: Client) -> Result<(), Error> {
//! let jobs = client.namespace("jobs");
//! match jobs.lock("nightly").who("ann").ttl(Duration::from_secs(15)).try_acquire().await? {
//!     Acquired::Taken(lock) => println!("{} is at it", lock.owner),
//!     Acquired::Held(hold) => {
//!         tokio::select! {
//!             // Refused with `Error::LockLost` if another has the lock by then.
//!             written = async { jobs.set("report", "done").guard(&hold).await } => drop(written?),
//!             loss = hold.lost() => println!("lost: {loss}"),
//!         }
//!         hold.release().await?;
//!     }
//! }
//!
//! let lease = jobs.grant_lease(Duration::from_secs(10)).await?;
//! jobs.set("worker:7", "10.0.0.7").lease(&lease).await?;
//! lease.revoke().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # How calls travel
//!
//! Calls of all tasks share streams to the server, and nobody notices: whatever waits to be sent goes together
//! as soon as the connection takes more, and nothing waits for company. So a call alone is as fast as can be,
//! and many at once cost little each. One connection is enough for a few; where more than 16 calls are under
//! way, up to three more are made and help, so that client and server need not take turns. Calls that are made
//! at the same time have no order. Requests over 16 KiB, waits for a lock, and calls on namespaces as such go
//! alone, as unary calls. So does everything for a while where the server, or a proxy before it, does not let
//! streams pass; [`ClientBuilder::pipeline`] has it so always.
//!
//! Up to 16 MiB of calls wait at a time for each connection, 512 bytes and the request counted for each, and
//! further ones wait for room, in turn. The timeout counts from the start. A call that is dropped before it is
//! sent is not sent.
//!
//! Of several servers one is used as long as it is good. One that cannot be reached, does not answer in time,
//! or cannot reach its backend is avoided for a while, the longer the more often it fails.
//!
//! A client belongs to the Tokio runtime in which it was made: its connections end with that. When the last
//! clone of a client is dropped, nothing of it goes on.
//!
//! # What is tried again
//!
//! Every call but an [export](Client::export) and an [import](Client::import) is tried again, a bounded number of times
//! with growing, jittered waits and within its timeout, if the server could not be reached, has too much to do, or its
//! answer was lost. That is safe for writes, too: each has an id by which the server knows it again, so that it is
//! applied once and answered twice. If the last attempt fails and one of them may have been applied, the write is
//! [`Error::OutcomeUnknown`], or [`Error::DeadlineExceeded`] if there was no time left: never a clean failure. The
//! writes that the server cannot know again are an import and the
//! [end of a namespace](Namespace::delete_namespace), which takes with it what others are known by: a write sent again
//! after that is applied to what has come then, unless it names the
//! [lineage that it expects](Set::expected_lineage).
//!
//! A call is over when its future is dropped; a write may have been applied then.

mod admin;
mod batch;
#[cfg(feature = "near-cache")]
mod cache;
mod call;
mod client;
pub mod codec;
mod election;
mod error;
mod event;
#[cfg(test)]
#[path = "../../tests/fuzz/harness.rs"]
mod fuzz;
mod ids;
mod kv;
mod lease;
mod life;
mod list;
mod lock;
mod namespace;
mod namespaces;
mod operation;
mod optimistic;
mod request_id;
mod retry;
mod transaction;
mod transfer;
mod transport;
mod types;
mod watch;
mod wire;

/// The Rust of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

/// So does that of the page on locks, leases and retries.
#[cfg(doctest)]
#[doc = include_str!("../../docs/coordination.md")]
struct Coordination;

pub use admin::{Limits, ServerInfo, Stats};
pub use batch::{BatchDelete, BatchGet, BatchSet};
#[cfg(feature = "near-cache")]
pub use cache::{Cached, Freshness, NearCache, NearCacheBuilder, SharedEntry};
pub use client::{Client, ClientBuilder, Tls};
#[cfg(feature = "msgpack")]
pub use codec::MessagePack;
#[cfg(feature = "postcard")]
pub use codec::Postcard;
pub use codec::{BoxError, Codec, Decode, Encode, Json, Prost, Raw, Text};
pub use election::{Campaign, Election, Leader, LeaderStream, Leadership};
pub use error::{Branch, Error, Step};
pub use event::{Change, Event, EventType, Removal};
pub use ids::{LeaseId, Token};
pub use kv::{
    Count, Delete, DeleteOutcome, DeleteRange, DeleteRangeOutcome, Exists, Get, GetTtl, History,
    HistoryPage, Increment, Set, SetOutcome, SetTtl,
};
pub use lease::{
    GetLease, GetLeaseContents, GrantLease, KeepAliveOnce, Lease, LeaseContents, LeaseInfo,
    LeaseLoss, ListLeases, RevokeLease, Revoked,
};
pub use list::{EntryStream, List, Page, PageToken, Scan};
pub use lock::{
    AcquireLock, Acquired, BreakLock, GetLock, Guard, ListLocks, LockChange, LockEvent, LockGuard,
    LockInfo, LockItem, LockLoss, LockOwner, LockStream, ReleaseLock, WatchLocks,
};
pub use namespace::Namespace;
pub use namespaces::{
    ClearNamespace, Compact, DeleteNamespace, GetNamespace, NamespaceInfo, NamespaceSettings,
    Namespaces, UpdateSettings,
};
pub use operation::{
    DeleteOp, DeleteRangeOp, GetOp, IncrementOp, IntoOperation, ListOp, Op, Operation, SetOp,
    SetTtlOp,
};
pub use optimistic::{Committed, TransactOptions, Tx};
pub use transaction::{
    Compare, CompareKey, CompareLock, CompareProperty, EncodedEntry, OpResult, Transaction,
    TransactionOutcome,
};
pub use transfer::{Export, Import, Imported, ImportedNamespace, TransferProgress, Transferred};
pub use types::{
    Answer, Cursor, Entry, Expiry, Header, Lineage, Metadata, ParseCursorError, Revision, Selector,
    Timestamp, Ttl,
};
pub use watch::{Watch, WatchItem, WatchStream};
