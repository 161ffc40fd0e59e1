//! What is kept comes back: after any order of commits, after a kill and after failures; and what is not ours is refused.

mod failures;
mod fuzz;
mod opening;
mod roundtrip;
mod state;
