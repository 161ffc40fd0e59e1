//! The server of `WatchService`: as the generated one would be, but that events are encoded once for all watches that show
//! them in the same way.

use std::{
    convert::Infallible,
    ops::Range,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{BufMut, Bytes};
use futures::future::BoxFuture;
use holdfast_proto::v1::{
    WatchResponse, watch_response::Events, watch_service_server::SERVICE_NAME,
};
use prost::Message as _;
use tonic::{
    Status,
    body::Body,
    codec::{EncodeBuf, Encoder},
    codegen::{Service, http},
    server::{Grpc, NamedService},
};

use super::{
    Services,
    entry::{self, Shown},
    single::{self, AnswersBy},
};
use crate::{backend::LoggedChange, store::Matching};

const WATCH: &str = "/holdfast.v1.WatchService/Watch";
/// The number and kind of the field `events` of a `WatchResponse`.
const EVENTS: u8 = (7 << 3) | 2;

/// Serves watches.
#[derive(Clone)]
pub(super) struct Watching {
    pub services: Arc<Services>,
    /// The largest request, in bytes.
    pub max_bytes: usize,
}

impl NamedService for Watching {
    const NAME: &'static str = SERVICE_NAME;
}

impl Service<http::Request<Body>> for Watching {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let watching = self.clone();
        single::serve(WATCH, request, async move |request| {
            let mut grpc = Grpc::new(AnswersBy::new(MessageEncoder))
                .max_decoding_message_size(watching.max_bytes);
            grpc.server_streaming(watching, request).await
        })
    }
}

/// A `WatchResponse`.
#[derive(Debug)]
pub(super) enum Message {
    /// With all that is in it.
    Whole(WatchResponse),
    /// With a part of some changes as its body.
    Events {
        /// The response without its body.
        head: WatchResponse,
        changes: Arc<Matching>,
        part: Range<usize>,
        shown: Shown,
    },
}

impl From<WatchResponse> for Message {
    fn from(response: WatchResponse) -> Self {
        Self::Whole(response)
    }
}

impl Message {
    pub(super) fn encode(&self, out: &mut impl BufMut) -> Result<(), prost::EncodeError> {
        match self {
            Self::Whole(response) => response.encode(out),
            Self::Events { head, changes, part, shown } => {
                head.encode(out)?;
                let events = || {
                    let places = changes.places()[part.clone()].iter();
                    places.map(|place| changes.told(*place, form(*shown), |it| event(it, *shown)))
                };
                out.put_u8(EVENTS);
                prost::encode_length_delimiter(events().map(Bytes::len).sum(), out)?;
                events().for_each(|event| out.put_slice(event));
                Ok(())
            }
        }
    }
}

/// One event, as the message `Events`: those of several, one after the other, are that of all of them.
fn event(logged: &LoggedChange, shown: Shown) -> Bytes {
    let event = entry::event(&logged.change, logged.previous.as_ref(), shown);
    Events { events: vec![event] }.encode_to_vec().into()
}

/// A number for each way in which watches show events.
fn form(shown: Shown) -> usize {
    usize::from(shown.values) + 2 * usize::from(shown.previous)
}

#[derive(Clone)]
struct MessageEncoder;

impl Encoder for MessageEncoder {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(out).map_err(|error| Status::internal(error.to_string()))
    }
}
