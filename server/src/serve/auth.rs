//! Bearer tokens.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{HeaderMap, header::AUTHORIZATION},
    middleware::Next,
    response::Response,
};
use subtle::{Choice, ConstantTimeEq as _};
use tonic::Status;

use crate::config::Secret;

/// Orchestrators ask it, and have no token.
const OPEN_TO_ALL: &str = "/grpc.health.v1.Health/";

/// The tokens that are accepted.
#[derive(Clone)]
pub(super) struct Tokens(Arc<[Secret]>);

impl Tokens {
    /// `None` where nobody needs a token.
    pub(super) fn new(tokens: &[Secret]) -> Option<Self> {
        (!tokens.is_empty()).then(|| Self(tokens.into()))
    }

    /// How long it takes tells nothing about the tokens but their lengths.
    fn accept(&self, token: &str) -> bool {
        let matches = |known: &Secret| known.expose().as_bytes().ct_eq(token.as_bytes());
        self.0.iter().map(matches).fold(Choice::from(0), |any, one| any | one).into()
    }
}

/// Answers `UNAUTHENTICATED` to who shows no accepted token.
pub(super) async fn require_token(
    State(tokens): State<Tokens>,
    request: Request,
    next: Next,
) -> Response {
    let is_open = request.uri().path().starts_with(OPEN_TO_ALL);
    let problem = match bearer(request.headers()) {
        _ if is_open => None,
        None => Some("this server wants a token: send the metadata `authorization: Bearer TOKEN`"),
        Some(token) if !tokens.accept(token) => Some("this server does not accept the token"),
        Some(_) => None,
    };
    match problem {
        None => next.run(request).await,
        Some(message) => Status::unauthenticated(message).into_http(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
