//! The Holdfast server: keeps the state of other services, over gRPC.
//!
//! A request goes `rpc → store → backend`, and its answer the same way back. The modules in reading order:
//!
//! - [`serve`] puts the parts together, serves them and stops them;
//! - [`offline`] does without a server what can be done to stored state;
//! - [`rpc`] checks requests, turns them into commands and reads of the store, and encodes the answers: one
//!   file per service, and the only place that knows protobuf;
//! - [`store`] holds all meaning: commands and the one path on which they are committed, reads, watches, expiry;
//! - [`backend`] stores bytes: the contract of all backends, and what keeps to it;
//! - [`config`] is what can be set, [`clock`] where time comes from, [`busy_poll`] how threads wait for work, and
//!   [`memory`] how the program gets memory; they know nothing of the others.
//!
//! A module imports only those below it.

pub mod serve;

pub mod offline;

pub mod rpc;

pub mod store;

pub mod backend;

pub mod config;

pub mod clock;

pub mod busy_poll;

pub mod memory;

#[cfg(test)]
#[path = "../../tests/fuzz/harness.rs"]
mod fuzz;
