//! What the services with a single method that are not generated have in common.

use std::{convert::Infallible, future::ready};

use futures::{FutureExt as _, future::BoxFuture};
use tonic::{Status, body::Body, codegen::http};

/// Serves a request, if it is for this method.
pub(super) fn serve<F>(
    method: &'static str,
    request: http::Request<Body>,
    run: impl FnOnce(http::Request<Body>) -> F,
) -> BoxFuture<'static, Result<http::Response<Body>, Infallible>>
where
    F: Future<Output = http::Response<Body>> + Send + 'static,
{
    match request.uri().path() == method {
        true => Box::pin(run(request).map(Ok)),
        false => Box::pin(ready(Ok(Status::unimplemented("").into_http()))),
    }
}
