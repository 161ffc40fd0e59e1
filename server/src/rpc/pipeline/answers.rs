//! The answers of a pipeline that go next. Each is encoded as soon as there is room for it: a `PipelineResponse` is nothing but
//! its answers, one after the other, and encoded they are smaller and need not be moved about.

use bytes::Bytes;
use holdfast_proto::v1::{PipelineAnswer, pipeline_answer::Result as Outcome};
use prost::encoding::message;

use crate::rpc::{MESSAGE_BYTES, entry_wire::EntryAnswer, status::Failure};

/// The field `answers` of a `PipelineResponse`, and `id` of a `PipelineAnswer`.
const ANSWERS: u32 = 1;
const ID: u32 = 1;
/// Room for the first few answers, in bytes.
const FIRST_BYTES: usize = 4096;

/// Answers to be sent.
#[derive(Default)]
pub(super) struct Answers {
    encoded: Vec<u8>,
    /// Where each answer ends.
    ends: Vec<usize>,
}

impl Answers {
    /// How many bytes they take.
    pub fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Adds the answer to a call.
    pub fn push(&mut self, id: u64, outcome: Result<Outcome, Failure>) {
        let result = outcome.unwrap_or_else(|failure| Outcome::Status(failure.into()));
        if self.encoded.capacity() == 0 {
            self.encoded.reserve(FIRST_BYTES);
        }
        let answer = PipelineAnswer { id, result: Some(result) };
        message::encode(ANSWERS, &answer, &mut self.encoded);
        self.ends.push(self.encoded.len());
    }

    /// Adds an answer that is about one entry, of the kind that has this field in a `PipelineAnswer`.
    pub fn push_entry(&mut self, id: u64, kind: u32, answer: &EntryAnswer<'_>) {
        answer.put(ANSWERS, (ID, id), kind, &mut self.encoded);
        self.ends.push(self.encoded.len());
    }

    /// Makes room for so many answers that take about so many bytes.
    pub fn reserve(&mut self, count: usize, bytes: usize) {
        self.ends.reserve(count);
        self.encoded.reserve(bytes);
    }

    /// As many answers as fit into a message, but at least one, encoded; nothing if there is none.
    pub fn take(&mut self) -> Option<Bytes> {
        let mut taken = std::mem::take(self);
        if taken.encoded.len() > MESSAGE_BYTES {
            let fitting = taken.ends.partition_point(|end| *end <= MESSAGE_BYTES).max(1);
            let end = taken.ends[fitting - 1];
            self.ends.extend(taken.ends.drain(fitting..).map(|it| it - end));
            self.encoded = taken.encoded.split_off(end);
        }
        (!taken.ends.is_empty()).then(|| taken.encoded.into())
    }
}

#[cfg(test)]
mod tests {
    use holdfast_proto::v1::{ExistsResponse, GetResponse, PipelineResponse};
    use prost::Message as _;

    use super::*;

    fn exists(revision: u64) -> Outcome {
        Outcome::Exists(ExistsResponse { revision, time_ms: 7, exists: true })
    }

    fn taken(answers: &mut Answers) -> Option<Vec<PipelineAnswer>> {
        answers.take().map(|message| PipelineResponse::decode(message).expect("a message").answers)
    }

    #[test]
    fn answers_are_a_response() {
        let mut answers = Answers::default();
        answers.push(1, Ok(exists(9)));
        answers.push(2, Err(Failure::stopping()));
        answers.push(3, Ok(exists(10)));
        let status = Outcome::Status(Failure::stopping().into());
        let expected = [(1, exists(9)), (2, status), (3, exists(10))]
            .map(|(id, result)| PipelineAnswer { id, result: Some(result) });
        assert_eq!(taken(&mut answers).expect("there are some"), expected);
        assert_eq!((taken(&mut answers), answers.bytes()), (None, 0));
    }

    #[test]
    fn a_message_has_what_fits_and_at_least_one() {
        let large = |bytes| {
            let value = Some(vec![0; bytes].into());
            let entry = Some(holdfast_proto::v1::Entry { value, ..Default::default() });
            Outcome::Get(GetResponse { entry, ..Default::default() })
        };
        let mut answers = Answers::default();
        for (id, bytes) in
            [(1, MESSAGE_BYTES + 1), (2, MESSAGE_BYTES / 2), (3, 9), (4, MESSAGE_BYTES)]
        {
            answers.push(id, Ok(large(bytes)));
        }
        let ids = |answers: Vec<PipelineAnswer>| answers.iter().map(|it| it.id).collect::<Vec<_>>();
        let messages: Vec<_> = std::iter::from_fn(|| taken(&mut answers)).map(ids).collect();
        assert_eq!(messages, [vec![1], vec![2, 3], vec![4]]);
    }
}
