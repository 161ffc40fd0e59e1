//! What is to take the place of a namespace.

use uuid::Uuid;

use super::{NamespaceName, Revision};

/// Names what is being staged, by one caller, to take the place of a namespace.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Staging {
    /// The namespace whose place it is to take.
    pub namespace: NamespaceName,
    /// No other has it.
    pub id: Uuid,
    /// Where its history has come to: no entry of it has a later revision.
    pub revision: Revision,
    /// How many entries were staged: what has lost some of them meanwhile does not take the place.
    pub entries: u64,
}
