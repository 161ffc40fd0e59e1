//! What is to take the place of a namespace.

use uuid::Uuid;

use super::Revision;

/// Names what is being staged, by one caller, to take the place of a namespace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Staging {
    /// No other has it.
    pub id: Uuid,
    /// Where its history has come to: no entry of it has a later revision.
    pub revision: Revision,
}
