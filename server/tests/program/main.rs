//! The real `holdfastd`, from outside: how it starts, what it refuses, what it serves, how it ends.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod documentation;
mod harness;
mod offline;
mod refusals;
mod security;
mod services;
mod settings;
mod shutdown;
