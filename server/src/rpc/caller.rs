//! Who a call comes from.

use tokio_util::sync::CancellationToken;
use tonic::Extensions;

/// Who a call comes from. Whoever serves the services lays it among the extensions of each request; a caller of
/// whom nothing is known counts as there.
#[derive(Debug, Clone)]
pub struct Caller {
    gone: CancellationToken,
}

impl Caller {
    /// A caller that can no longer be answered once `gone` is cancelled.
    pub fn new(gone: CancellationToken) -> Self {
        Self { gone }
    }

    /// What is cancelled once the caller of a request can no longer be answered.
    pub(super) fn gone(extensions: &Extensions) -> CancellationToken {
        extensions.get::<Self>().map_or_else(CancellationToken::new, |it| it.gone.clone())
    }
}
