//! The codec of all services: prost's, over memory in one piece.
//!
//! prost writes numbers byte by byte, and each byte that goes into a growing buffer of the transport costs as much as
//! many that are copied at once. So a message is encoded into plain memory first; and what is decoded is taken from the
//! transport as one piece, of which values are slices.

use std::marker::PhantomData;

use prost::{
    Message,
    bytes::{Buf as _, BufMut as _},
};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// How much memory is kept for the next message of a stream, in bytes.
const KEPT_BYTES: usize = 64 << 10;

/// Encodes messages of type `T` and decodes those of type `U`.
#[derive(Debug)]
pub struct WholeCodec<T, U> {
    types: PhantomData<(T, U)>,
}

/// Encodes messages of one type.
#[derive(Debug)]
pub struct WholeEncoder<T> {
    encoded: Vec<u8>,
    types: PhantomData<T>,
}

/// Decodes messages of one type.
#[derive(Debug)]
pub struct WholeDecoder<U> {
    types: PhantomData<U>,
}

impl<T, U> Default for WholeCodec<T, U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<U> Default for WholeDecoder<U> {
    fn default() -> Self {
        Self { types: PhantomData }
    }
}

impl<T, U> Codec for WholeCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = WholeEncoder<T>;
    type Decoder = WholeDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        WholeEncoder { encoded: Vec::new(), types: PhantomData }
    }

    fn decoder(&mut self) -> Self::Decoder {
        WholeDecoder::default()
    }
}

impl<T: Message> Encoder for WholeEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        self.encoded.reserve(message.encoded_len());
        message.encode_raw(&mut self.encoded);
        to.reserve(self.encoded.len());
        to.put_slice(&self.encoded);
        self.encoded.clear();
        self.encoded.shrink_to(KEPT_BYTES);
        Ok(())
    }
}

impl<U: Message + Default> Decoder for WholeDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let whole = from.copy_to_bytes(from.remaining());
        U::decode(whole).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
