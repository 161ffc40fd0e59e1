//! The server of `PipelineService`: as the generated one would be, but that the answers come encoded.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut as _, Bytes};
use futures::{Stream, future::BoxFuture};
use holdfast_proto::v1::pipeline_service_server::SERVICE_NAME;
use tonic::{
    Request, Response, Status, Streaming,
    body::Body,
    codec::{EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService, StreamingService},
};

use super::Incoming;
use crate::rpc::{
    Services,
    single::{self, AnswersBy},
};

const PIPELINE: &str = "/holdfast.v1.PipelineService/Pipeline";

/// Serves pipelines.
#[derive(Clone)]
pub(in crate::rpc) struct Pipelines {
    pub services: Arc<Services>,
    /// The largest request, in bytes.
    pub max_bytes: usize,
}

impl NamedService for Pipelines {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Pipelines {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let pipelines = self.clone();
        single::serve(PIPELINE, request, async move |request| {
            let mut grpc =
                Grpc::new(AnswersBy::new(AsIs)).max_decoding_message_size(pipelines.max_bytes);
            grpc.streaming(pipelines, request).await
        })
    }
}

impl StreamingService<Incoming> for Pipelines {
    type Response = Bytes;
    type ResponseStream = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<Incoming>>) -> Self::Future {
        let answers = super::answers(&self.services, request.into_inner());
        ready(Ok(Response::new(Box::pin(answers))))
    }
}

#[derive(Clone)]
struct AsIs;

impl Encoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(message.len());
        to.put_slice(&message);
        Ok(())
    }
}
