//! What services with a single method have in common that are not generated, because their answers come encoded.

use std::{convert::Infallible, future::ready, marker::PhantomData};

use futures::{FutureExt as _, future::BoxFuture};
use holdfast_proto::codec::WholeDecoder;
use prost::Message;
use tonic::{
    Status,
    body::Body,
    codec::{Codec, Encoder},
    codegen::http,
};

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

/// The codec of requests `R` whose answers have an encoder of their own.
pub(super) struct AnswersBy<E, R> {
    encoder: E,
    requests: PhantomData<R>,
}

impl<E, R> AnswersBy<E, R> {
    /// Answers are encoded by this encoder.
    pub fn new(encoder: E) -> Self {
        Self { encoder, requests: PhantomData }
    }
}

impl<E, R> Codec for AnswersBy<E, R>
where
    E: Encoder<Error = Status> + Clone + Send + 'static,
    E::Item: Send + 'static,
    R: Message + Default + Send + 'static,
{
    type Encode = E::Item;
    type Decode = R;
    type Encoder = E;
    type Decoder = WholeDecoder<R>;

    fn encoder(&mut self) -> E {
        self.encoder.clone()
    }

    fn decoder(&mut self) -> Self::Decoder {
        WholeDecoder::default()
    }
}
