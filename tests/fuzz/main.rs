//! What reads bytes or text from outside, on input that is almost right: exported lines, globs, selectors, URLs, and every
//! request to a server. Decoders that are not public have such tests beside them, run by the same harness.

#[path = "../common/mod.rs"]
mod common;

mod harness;
mod lines;
mod patterns;
mod requests;
mod urls;
