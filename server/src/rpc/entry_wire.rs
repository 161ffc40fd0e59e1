//! Entries as they are on the wire, without messages made of them first: for answers of which there are many. What comes
//! out is what prost makes of [`super::entry::encode`], which a test compares.

use prost::encoding::{
    WireType, encode_key, encode_varint, encoded_len_varint, int64, key_len, uint64,
};

use super::entry;
use crate::{
    backend::{Deadline, Entry, Key},
    store::keys,
};

/// An answer that is about one entry: `GetResponse`, or `SetResponse` without an entry before. The two are alike up to
/// `created`, which only the second has.
#[derive(Debug)]
pub(super) struct EntryAnswer<'a> {
    pub revision: u64,
    pub time_ms: i64,
    pub entry: Option<Shown<'a>>,
    pub created: bool,
}

/// An entry, and whether its value travels.
#[derive(Debug)]
pub(super) struct Shown<'a> {
    pub key: &'a Key,
    pub entry: &'a Entry,
    pub with_value: bool,
}

/// The fields of both responses.
const REVISION: u32 = 1;
const TIME_MS: u32 = 2;
const ENTRY: u32 = 3;
const CREATED: u32 = 4;

/// What takes fields: their bytes, or only how many these are.
trait Fields {
    fn unsigned(&mut self, tag: u32, value: u64);
    fn signed(&mut self, tag: u32, value: i64);
    fn bytes(&mut self, tag: u32, value: &[u8]);
}

impl Fields for usize {
    fn unsigned(&mut self, tag: u32, value: u64) {
        *self += uint64::encoded_len(tag, &value);
    }

    fn signed(&mut self, tag: u32, value: i64) {
        *self += int64::encoded_len(tag, &value);
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        *self += delimited_len(tag, value.len());
    }
}

impl Fields for Vec<u8> {
    fn unsigned(&mut self, tag: u32, value: u64) {
        uint64::encode(tag, &value, self);
    }

    fn signed(&mut self, tag: u32, value: i64) {
        int64::encode(tag, &value, self);
    }

    fn bytes(&mut self, tag: u32, value: &[u8]) {
        put_head(tag, value.len(), self);
        self.extend_from_slice(value);
    }
}

impl EntryAnswer<'_> {
    /// Writes it as the field `field` of the message `PipelineAnswer` with this `id`, and that as the field `answers`.
    pub fn put(&self, answers: u32, id: (u32, u64), field: u32, out: &mut Vec<u8>) {
        let entry = self.entry.as_ref().map(|entry| {
            let mut length = 0;
            entry.tell(&mut length);
            (entry, length)
        });
        let mut length = 0;
        self.tell_head(&mut length);
        length += entry.as_ref().map_or(0, |(_, length)| delimited_len(ENTRY, *length));
        length += usize::from(self.created) * (key_len(CREATED) + 1);
        let answer = uint64::encoded_len(id.0, &id.1) + delimited_len(field, length);
        out.reserve(delimited_len(answers, answer));
        put_head(answers, answer, out);
        out.unsigned(id.0, id.1);
        put_head(field, length, out);
        self.tell_head(out);
        if let Some((entry, length)) = entry {
            put_head(ENTRY, length, out);
            entry.tell(out);
        }
        if self.created {
            out.unsigned(CREATED, 1);
        }
    }

    fn tell_head(&self, fields: &mut impl Fields) {
        if self.revision != 0 {
            fields.unsigned(REVISION, self.revision);
        }
        if self.time_ms != 0 {
            fields.signed(TIME_MS, self.time_ms);
        }
    }
}

impl Shown<'_> {
    /// The fields of an `Entry` by their numbers. What is zero or empty is left out, unless its presence means something.
    fn tell(&self, fields: &mut impl Fields) {
        let Entry { value, content_type, version, deadline, .. } = self.entry;
        fields.bytes(1, entry::text(self.key.as_bytes()).as_bytes());
        if self.with_value {
            fields.bytes(2, value);
        }
        if !content_type.is_empty() {
            fields.bytes(3, entry::text(content_type).as_bytes());
        }
        let numbers =
            [*version, self.entry.create_revision.0, self.entry.mod_revision.0].into_iter();
        for (tag, number) in (4..).zip(numbers).filter(|(_, number)| *number != 0) {
            fields.unsigned(tag, number);
        }
        let times = [self.entry.created_at_ms, self.entry.updated_at_ms].into_iter();
        for (tag, time_ms) in (7..).zip(times).filter(|(_, time_ms)| *time_ms != 0) {
            fields.signed(tag, time_ms);
        }
        match deadline {
            Deadline::Never => {}
            Deadline::At(at_ms) => fields.signed(9, *at_ms),
            Deadline::Of(lease) => {
                if let Some(id) = keys::lease_id(lease) {
                    fields.unsigned(10, id);
                }
            }
        }
    }
}

fn delimited_len(tag: u32, length: usize) -> usize {
    key_len(tag) + encoded_len_varint(length as u64) + length
}

fn put_head(tag: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(tag, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use holdfast_proto::v1::{
        GetResponse, PipelineAnswer, PipelineResponse, SetResponse, pipeline_answer::Result as Of,
    };
    use prost::Message as _;

    use super::*;
    use crate::backend::{ContentType, Revision};

    fn entries() -> Vec<Entry> {
        let plain = Entry {
            value: Bytes::new(),
            content_type: ContentType::UNKNOWN,
            version: 1,
            create_revision: Revision(3),
            mod_revision: Revision(u64::from(u32::MAX)),
            created_at_ms: 0,
            updated_at_ms: -1,
            deadline: Deadline::Never,
        };
        let ends = Entry {
            value: Bytes::from(vec![0; 300]),
            content_type: "text/plain".into(),
            deadline: Deadline::At(1 << 40),
            ..plain.clone()
        };
        let leased = Entry { deadline: Deadline::Of(Box::new(keys::lease(7))), ..plain.clone() };
        let foreign = Entry { content_type: ContentType::new(b"\xff"), ..plain.clone() };
        vec![plain, ends, leased, foreign]
    }

    #[test]
    fn an_answer_is_what_the_message_would_be() {
        let key = Key::new(b"key");
        for (revision, time_ms, created) in [(0, 0, false), (1 << 52, 1 << 41, true)] {
            for entry in entries().iter().map(Some).chain([None]) {
                for with_value in [false, true] {
                    let shown = entry.map(|entry| Shown { key: &key, entry, with_value });
                    let answer = EntryAnswer { revision, time_ms, entry: shown, created };
                    let entry = entry.map(|entry| entry::encode(&key, entry, with_value));
                    let response = match created {
                        false => (3, Of::Get(GetResponse { revision, time_ms, entry })),
                        true => {
                            let previous = None;
                            let set = SetResponse { revision, time_ms, entry, created, previous };
                            (4, Of::Set(set))
                        }
                    };
                    let (field, result) = (response.0, Some(response.1));
                    let message =
                        PipelineResponse { answers: vec![PipelineAnswer { id: 900, result }] };
                    let mut encoded = Vec::new();
                    answer.put(1, (1, 900), field, &mut encoded);
                    assert_eq!(encoded, message.encode_to_vec());
                }
            }
        }
    }
}
