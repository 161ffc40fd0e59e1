//! The Rust client of Holdfast, a state service: namespaced keys with expiry, atomic batches and
//! transactions, and watch streams that lose nothing.
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
//! - [`codec`]: values as JSON (the default), bytes, text, or a form of one's own.
//! - [`Transaction`] compares, then acts; [`Namespace::transact`] runs a closure until nobody has interfered.
//! - [`Watch`]: changes as they happen, and [`Cursor`]s to come back to.
//! - [`Error`]: one enum to match on.
//!
//! # What is tried again
//!
//! A call is tried again, a bounded number of times with growing, jittered waits and within its timeout,
//! where that is safe: reads always; writes only if they surely were not applied, because the server said
//! so or was never reached. A write whose answer was lost is [`Error::OutcomeUnknown`], never applied
//! twice by this client.

mod admin;
mod batch;
mod call;
mod client;
pub mod codec;
mod error;
mod event;
mod kv;
mod list;
mod namespace;
mod namespaces;
mod operation;
mod optimistic;
mod retry;
mod transaction;
mod transport;
mod types;
mod watch;
mod wire;

/// The Rust of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub use admin::{Limits, ServerInfo, Stats};
pub use batch::{BatchDelete, BatchGet, BatchSet};
pub use client::{Client, ClientBuilder, Tls};
pub use codec::{BoxError, Codec, Decode, Encode, Json, Raw, Text};
pub use error::{Branch, Error, Step};
pub use event::{Change, Event, EventType};
pub use kv::{
    Count, Delete, DeleteOutcome, DeleteRange, DeleteRangeOutcome, Exists, Get, GetTtl, History,
    HistoryPage, Increment, Set, SetOutcome, SetTtl,
};
pub use list::{EntryStream, List, Page, PageToken, Scan};
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
    Compare, CompareKey, CompareProperty, EncodedEntry, OpResult, Transaction, TransactionOutcome,
};
pub use types::{
    Answer, Cursor, Entry, Expiry, Header, Lineage, Metadata, ParseCursorError, Revision, Selector,
    Timestamp, Ttl,
};
pub use watch::{Watch, WatchItem, WatchStream};
