//! What is kept comes back: after any order of commits and snapshots, any failure, and any loss of what was not synced;
//! and what is damaged is refused.

mod damage;
pub mod disk;
mod faults;
mod following;
mod fuzz;
mod lines;
mod options;
mod repair;
mod roundtrip;
mod staging;
pub mod state;
mod torn;
