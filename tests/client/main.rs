//! The typed client, the command line and the tour of the README against a real server.

mod fixture;
mod program;
mod proxy;
#[path = "../common/program.rs"]
mod workspace;

mod cache;
mod cli_bench;
mod cli_keys;
mod cli_leases;
mod cli_locks;
mod cli_namespaces;
mod cli_ranges;
mod cli_transfer;
mod cli_txn;
mod cli_watch;
mod codecs;
mod examples;
mod leases;
mod locks;
mod pipeline;
mod retries;
mod shared_watches;
mod tour;
mod transfers;
mod typed;
mod typed_watch;
