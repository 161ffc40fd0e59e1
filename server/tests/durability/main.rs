//! The real `holdfastd` on a disk: killed at any moment, without room on the disk, started twice.
#![expect(clippy::unwrap_used, reason = "in a test a panic is the report")]

mod coordination;
mod events;
#[expect(dead_code, reason = "the other suite uses all of it")]
#[path = "../program/harness.rs"]
mod harness;
mod kill;
mod owner;
mod room;
