//! Every request to a server in this process: messages that are right by their descriptors, and changes of them. Each gets
//! a status or an answer, and no task of the server panics.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use futures::StreamExt as _;
use holdfast_proto::{FILE_DESCRIPTOR_SET, v1::GetStatsRequest};
use prost::{
    Message as _,
    bytes::{Buf as _, BufMut as _},
};
use prost_types::{
    DescriptorProto, FieldDescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    transport::Channel,
};

use crate::{
    common::{RUNTIME, backends::TestServer, call::Call as _},
    harness::{fuzz_times, random::Random},
};

/// How many requests are sent unless it is said for how long.
const REQUESTS: u64 = 1500;
/// How long streams are listened to, that may go on for ever.
const PATIENCE: Duration = Duration::from_millis(20);
/// How deep messages are nested.
const DEPTH: u32 = 5;

/// Panics of the threads that serve.
static PANICS: AtomicU64 = AtomicU64::new(0);

#[test]
fn every_request_gets_an_answer_or_a_status() {
    let protos = FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let messages = Messages(
        protos
            .file
            .iter()
            .flat_map(|file| {
                let package = file.package().to_owned();
                file.message_type.iter().flat_map(move |it| nested(&format!(".{package}"), it))
            })
            .collect(),
    );
    let mut methods = Vec::new();
    for file in protos.file.iter().filter(|file| file.package() == "holdfast.v1") {
        for service in &file.service {
            for method in &service.method {
                let path = format!("/{}.{}/{}", file.package(), service.name(), method.name());
                methods.push((path, method.input_type().to_owned()));
            }
        }
    }
    assert!(methods.len() > 40, "{methods:?}");
    let mut random = Random::new(7);
    let mut examples = Vec::new();
    for _ in 0..12 {
        for (index, (_, input)) in methods.iter().enumerate() {
            let mut example = vec![index as u8];
            messages.write(input, DEPTH, &mut random, &mut example);
            examples.push(example);
        }
    }
    count_panics();
    let server = TestServer::on_url("memory:");
    let channel = server.connect();
    fuzz_times("requests", REQUESTS, &examples, |bytes| {
        let Some((method, message)) = bytes.split_first() else { return };
        let (path, input) = &methods[usize::from(*method) % methods.len()];
        let answered = RUNTIME.block_on(call(channel.clone(), path, message.to_vec()));
        let panics = PANICS.swap(0, Ordering::Relaxed);
        assert_eq!(panics, 0, "{path} with {input} makes the server panic");
        if let Err(status) = answered {
            // What cannot be decoded is told by the transport, in words of its own.
            let is_garbled = status.code() == Code::Internal && status.message().contains("decode");
            let is_told = !matches!(
                status.code(),
                Code::Internal | Code::Unknown | Code::DataLoss | Code::Unavailable
            );
            assert!(is_told || is_garbled, "{path}: {status:?}");
        }
    });
    RUNTIME.block_on(GetStatsRequest {}.send(channel)).unwrap();
}

/// Sends one message and hears what comes at first.
async fn call(channel: Channel, path: &str, message: Vec<u8>) -> Result<(), Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.expect("the server is there");
    let path = path.parse().expect("the path is one");
    let messages = futures::stream::iter([message]);
    let work = async {
        let answer = client.streaming(Request::new(messages), path, Raw).await?;
        let mut answers = answer.into_inner().take(3);
        while let Some(answer) = answers.next().await {
            answer?;
        }
        Ok(())
    };
    tokio::time::timeout(PATIENCE, work).await.unwrap_or(Ok(()))
}

fn count_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        // Other tests have threads of other names.
        if std::thread::current().name().is_some_and(|name| name.starts_with("tokio")) {
            PANICS.fetch_add(1, Ordering::Relaxed);
        }
        hook(info);
    }));
}

/// All messages by their names.
struct Messages(std::collections::HashMap<String, DescriptorProto>);

fn nested(prefix: &str, message: &DescriptorProto) -> Vec<(String, DescriptorProto)> {
    let name = format!("{prefix}.{}", message.name());
    let within = message.nested_type.iter().flat_map(|it| nested(&name, it));
    let within: Vec<_> = within.collect();
    [(name, message.clone())].into_iter().chain(within).collect()
}

impl Messages {
    /// Writes a message with some of its fields, each with something that it may well have.
    fn write(&self, name: &str, depth: u32, random: &mut Random, out: &mut Vec<u8>) {
        for field in &self.0[name].field {
            let count = match (field.name(), field.label()) {
                ("namespace", _) => 1,
                (_, Label::Repeated) => random.below(4),
                _ => random.below(2),
            };
            for _ in 0..count {
                self.write_field(field, depth, random, out);
            }
        }
    }

    fn write_field(
        &self,
        field: &FieldDescriptorProto,
        depth: u32,
        random: &mut Random,
        out: &mut Vec<u8>,
    ) {
        let tag = |wire: u64| (field.number() as u64) << 3 | wire;
        let bytes = match field.r#type() {
            Type::Message if depth == 0 => return,
            Type::Message => {
                let mut message = Vec::new();
                self.write(field.type_name(), depth - 1, random, &mut message);
                message
            }
            Type::String => text(field.name(), random),
            Type::Bytes => match random.below(3) {
                0 => vec![7; 16],
                1 => vec![7; 8],
                _ => text(field.name(), random),
            },
            Type::Fixed64 | Type::Double => {
                varint(tag(1), out);
                return out.put_u64_le(random.next());
            }
            _ => {
                varint(tag(0), out);
                let edges = [0, 1, 2, 3, 30_000, 1 << 40, i64::MAX as u64, u64::MAX];
                return varint(random.pick(&edges), out);
            }
        };
        varint(tag(2), out);
        varint(bytes.len() as u64, out);
        out.extend(bytes);
    }
}

fn text(field: &str, random: &mut Random) -> Vec<u8> {
    let texts: &[&str] = match field {
        "namespace" => &["n", "n", "n", "m", "", "_", "a/b"],
        "pattern" | "glob" => &["a*", "[a-z]", "[", "*", "\\"],
        _ => &["a", "b", "ab", "7", "", "\0", "\u{e9}"],
    };
    random.pick(texts).as_bytes().to_vec()
}

fn varint(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Messages as bytes.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = usize;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, message: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&message);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = from.remaining();
        from.advance(length);
        Ok(Some(length))
    }
}
