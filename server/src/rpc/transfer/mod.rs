//! `AdminService.Export` and `Import`: the state of namespaces as messages, and back. What works on a backend without a
//! server speaks the same.

mod checksum;
mod decode;
mod export;
mod import;

pub use export::{export, export_all};
pub use import::Importer;

/// The version of the form.
const FORMAT: u32 = 1;
/// About the most bytes of a message.
const PART_BYTES: usize = 1 << 20;
