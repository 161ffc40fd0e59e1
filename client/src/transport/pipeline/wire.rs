//! The messages of a pipeline on the wire. A call is encoded by whoever makes it, straight into the message
//! that will bring it, and an answer is decoded by whoever waits for it: the stream itself only carries bytes.

use std::ops::Range;

use bytes::{BufMut as _, Bytes};
use holdfast_proto::v1;
use prost::{
    DecodeError, Message as _,
    bytes::Buf,
    encoding::{
        DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
        encoded_len_varint, key_len, skip_field,
    },
};
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

use crate::{
    error::Failure,
    transport::{MAX_MESSAGE_BYTES, Rpc},
};

/// `PipelineRequest.namespace` and `.calls`.
const NAMESPACE: u32 = 1;
const CALLS: u32 = 2;
/// `PipelineCall.id` and `PipelineAnswer.id`.
const ID: u32 = 1;
/// `PipelineResponse.answers`.
const ANSWERS: u32 = 1;
/// `PipelineAnswer.status`.
const STATUS: u32 = 2;

/// Calls on one namespace: a `PipelineRequest`, its calls encoded already.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) namespace: String,
    pub(super) calls: Vec<u8>,
}

/// One answer: a `PipelineAnswer`, still encoded.
#[derive(Debug)]
pub(super) struct Answer {
    bytes: Bytes,
    /// It is most of what came with it, so that parts of it may keep all of that in memory.
    is_most: bool,
}

/// Adds a call to those of a message. The request leaves out its namespace; `bytes` is its encoded length.
pub(super) fn put_call<R: Rpc>(
    id: u64,
    field: u32,
    request: &R,
    bytes: usize,
    calls: &mut Vec<u8>,
) {
    let body = key_len(field) + encoded_len_varint(bytes as u64) + bytes;
    let call = key_len(ID) + encoded_len_varint(id) + body;
    encode_key(CALLS, WireType::LengthDelimited, calls);
    encode_varint(call as u64, calls);
    encode_key(ID, WireType::Varint, calls);
    encode_varint(id, calls);
    encode_key(field, WireType::LengthDelimited, calls);
    encode_varint(bytes as u64, calls);
    request.encode_raw(calls);
}

/// The ids of the answers in a `PipelineResponse`, each with where in the message it is.
pub(super) fn answers(
    message: &[u8],
) -> impl Iterator<Item = Result<(u64, Range<usize>), DecodeError>> {
    let mut rest = message;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            match next_field(&mut rest) {
                Ok((ANSWERS, Some(answer))) => {
                    let end = message.len() - rest.len();
                    let id = id_of(answer);
                    return Some(id.map(|id| (id, end - answer.len()..end)));
                }
                // What a newer server says that this client does not know.
                Ok(_) => {}
                Err(error) => {
                    rest = &[];
                    return Some(Err(error));
                }
            }
        }
        None
    })
}

impl Answer {
    /// A part of a message.
    pub(super) fn new(message: &Bytes, range: Range<usize>) -> Self {
        let is_most = range.len() >= message.len() / 4;
        Self { bytes: message.slice(range), is_most }
    }

    /// What it says of a call: its response, or why it failed.
    pub(super) fn read<R: Rpc>(&self, field: u32) -> Result<R::Response, Failure> {
        if self.bytes.len() > MAX_MESSAGE_BYTES {
            return Err(Failure::from_status(too_large(self.bytes.len())));
        }
        // Values are copied, lest a small one keep a large message in memory.
        let read = match self.is_most {
            true => read::<R>(self.bytes.clone(), field),
            false => read::<R>(&*self.bytes, field),
        };
        match read {
            Ok(Some(outcome)) => outcome.map_err(Failure::from_wire),
            Ok(None) => Err(bad("it is of another kind than the call")),
            Err(error) => Err(bad(&error.to_string())),
        }
    }
}

fn read<R: Rpc>(
    mut answer: impl Buf,
    field: u32,
) -> Result<Option<Result<R::Response, v1::Status>>, DecodeError> {
    while answer.has_remaining() {
        let (tag, wire_type) = decode_key(&mut answer)?;
        if wire_type == WireType::LengthDelimited && tag == field {
            return Ok(Some(Ok(R::Response::decode_length_delimited(answer)?)));
        }
        if wire_type == WireType::LengthDelimited && tag == STATUS {
            return Ok(Some(Err(v1::Status::decode_length_delimited(answer)?)));
        }
        skip_field(wire_type, tag, &mut answer, DecodeContext::default())?;
    }
    Ok(None)
}

/// The id of an answer: 0 if it has none, as no call has.
fn id_of(mut answer: &[u8]) -> Result<u64, DecodeError> {
    while !answer.is_empty() {
        let (tag, wire_type) = decode_key(&mut answer)?;
        if (tag, wire_type) == (ID, WireType::Varint) {
            return decode_varint(&mut answer);
        }
        skip_field(wire_type, tag, &mut answer, DecodeContext::default())?;
    }
    Ok(0)
}

/// Takes a field off a message: its number, and its bytes if it has a length.
fn next_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Option<&'a [u8]>), DecodeError> {
    let (tag, wire_type) = decode_key(rest)?;
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, tag, rest, DecodeContext::default())?;
        return Ok((tag, None));
    }
    let whole = *rest;
    skip_field(wire_type, tag, rest, DecodeContext::default())?;
    let mut bytes = &whole[..whole.len() - rest.len()];
    decode_varint(&mut bytes)?;
    Ok((tag, Some(bytes)))
}

fn bad(problem: &str) -> Failure {
    Failure::from_status(Status::internal(format!("a bad answer in a pipeline: {problem}")))
}

fn too_large(bytes: usize) -> Status {
    Status::out_of_range(format!(
        "the answer is too large: it has {bytes} bytes, {MAX_MESSAGE_BYTES} are accepted"
    ))
}

/// Leaves the messages as they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct AsIs;

impl Codec for AsIs {
    type Encode = Message;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for AsIs {
    type Item = Message;
    type Error = Status;

    fn encode(&mut self, message: Message, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let Message { namespace, calls } = message;
        to.reserve(namespace.len() + 16 + calls.len());
        encode_key(NAMESPACE, WireType::LengthDelimited, to);
        encode_varint(namespace.len() as u64, to);
        to.put_slice(namespace.as_bytes());
        to.put_slice(&calls);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        // What is sent is sent at once.
        BufferSettings::new(super::MESSAGE_BYTES, 1)
    }
}

impl Decoder for AsIs {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::{
        PipelineAnswer, PipelineRequest, PipelineResponse, pipeline_answer::Result as Outcome,
        pipeline_call::Operation,
    };

    use super::*;
    use crate::{error::Cause, fuzz::fuzz};

    #[test]
    fn messages_are_read_or_refused() {
        let get = v1::GetResponse { revision: 9, ..Default::default() };
        let status = v1::Status { code: 5, message: "no".to_owned(), ..Default::default() };
        let results = [Outcome::Get(get), Outcome::Status(status)];
        let answered = (1..).zip(results).map(|(id, it)| PipelineAnswer { id, result: Some(it) });
        let message = PipelineResponse { answers: answered.collect() };
        fuzz("pipeline_answers", &[message.encode_to_vec()], |bytes| {
            let message = Bytes::copy_from_slice(bytes);
            let found = answers(bytes).collect::<Result<Vec<_>, _>>();
            let is_good = PipelineResponse::decode(bytes).is_ok();
            assert!(found.is_ok() || !is_good, "a good message is refused");
            for (_, range) in found.unwrap_or_default() {
                let _ = Answer::new(&message, range).read::<v1::GetRequest>(3);
            }
        });
    }

    #[test]
    fn calls_are_what_the_server_expects() {
        let mut calls = Vec::new();
        let get = v1::GetRequest { key: "k".to_owned(), ..Default::default() };
        put_call(7, 3, &get, get.encoded_len(), &mut calls);
        let grant = v1::GrantRequest { ttl_ms: 5, ..Default::default() };
        put_call(1 << 40, 25, &grant, grant.encoded_len(), &mut calls);
        let message = PipelineRequest::decode(&*calls).expect("a message");
        let [first, second] = &*message.calls else {
            panic!("{message:?}");
        };
        assert_eq!((first.id, &first.operation), (7, &Some(Operation::Get(get))));
        assert_eq!((second.id, &second.operation), (1 << 40, &Some(Operation::Grant(grant))));
    }

    #[test]
    fn answers_are_found_by_their_ids() {
        let response = v1::GetResponse { revision: 9, ..Default::default() };
        let status = v1::Status { code: 5, message: "no".to_owned(), ..Default::default() };
        let message = PipelineResponse {
            answers: vec![
                PipelineAnswer { id: 300, result: Some(Outcome::Get(response.clone())) },
                PipelineAnswer { id: 2, result: Some(Outcome::Status(status.clone())) },
                PipelineAnswer { id: 0, result: None },
            ],
        };
        let message = Bytes::from(message.encode_to_vec());
        let found: Vec<_> = answers(&message).collect::<Result<_, _>>().expect("all are good");
        let read = |n: usize| Answer::new(&message, found[n].1.clone()).read::<v1::GetRequest>(3);
        assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [300, 2, 0]);
        assert_eq!(read(0).expect("is good"), response);
        assert_eq!(read(1).expect_err("is a failure").cause, Cause::Answered);
        assert_eq!(read(2).expect_err("is nothing").cause, Cause::Lost);
        let cut = message.slice(..message.len() - 3);
        assert!(answers(&cut).any(|answer| answer.is_err()));
    }
}
