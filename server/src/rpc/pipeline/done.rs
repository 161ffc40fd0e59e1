//! What has been done for calls and is not told yet. Values in it are shared with the store; each is copied only when there is
//! room for its answer in a message, for together answers may be many times as large as the calls.

use std::{iter::Zip, vec::IntoIter};

use holdfast_proto::v1::pipeline_answer::Result as Outcome;

use super::answers::Answers;
use crate::{
    backend::NamespaceName,
    rpc::{
        MESSAGE_BYTES, dispatch, entry, kv,
        read::{self, Look},
        status::Failure,
    },
    store::{Answer, Snapshot, error::StoreError},
};

/// About what an answer about an entry without its value takes.
const ENTRY_BYTES: usize = 96;

/// The fields `get` and `set` of a `PipelineAnswer`.
const GET: u32 = 3;
const SET: u32 = 4;

/// What has been done for some calls.
pub(super) enum Done {
    /// Writes of a namespace, or why not.
    Written(NamespaceName, Zip<IntoIter<u64>, IntoIter<Result<Answer, StoreError>>>),
    /// Looks at single keys, one for each slot of what was read from `next` on.
    Looked { calls: IntoIter<(u64, Look)>, found: Snapshot, next: usize },
    /// Looks that nothing could be read for.
    Failed(IntoIter<(u64, Look)>, StoreError),
    /// Another read.
    Queried(Option<Box<(u64, Result<Outcome, Failure>)>>),
}

impl Done {
    /// What came of looking at some keys.
    pub fn looked(calls: Vec<(u64, Look)>, found: Result<Snapshot, StoreError>) -> Self {
        let calls = calls.into_iter();
        match found {
            Ok(found) => Self::Looked { calls, found, next: 0 },
            Err(error) => Self::Failed(calls, error),
        }
    }

    /// Adds answers while there is room for them in a message; answers whether these were all.
    pub fn tell(&mut self, answers: &mut Answers) -> bool {
        self.reserve(answers);
        while answers.bytes() < MESSAGE_BYTES {
            if !self.tell_next(answers) {
                return true;
            }
        }
        false
    }

    fn reserve(&self, answers: &mut Answers) {
        let (count, bytes) = match self {
            Self::Written(_, calls) => (calls.len(), calls.len() * ENTRY_BYTES),
            Self::Looked { calls, found, next } => {
                let left = found.entries[*next..].iter().flatten();
                (calls.len(), left.map(|entry| entry::size(entry, true)).sum())
            }
            Self::Failed(..) | Self::Queried(_) => return,
        };
        answers.reserve(count, bytes.min(MESSAGE_BYTES));
    }

    /// Adds one answer, if there is one left.
    fn tell_next(&mut self, answers: &mut Answers) -> bool {
        match self {
            Self::Written(name, calls) => {
                let Some((id, outcome)) = calls.next() else { return false };
                if let Some(set) = outcome.as_ref().ok().and_then(kv::set_answer) {
                    answers.push_entry(id, SET, &set);
                } else {
                    let outcome = outcome.map_err(Failure::from);
                    answers.push(id, outcome.and_then(|it| dispatch::answer(name, it)));
                }
            }
            Self::Looked { calls, found, next } => {
                let Some((id, look)) = calls.next() else { return false };
                let entry = found.entries[*next].as_ref();
                *next += 1;
                match look {
                    Look::Get => answers.push_entry(id, GET, &read::get_answer(entry, found)),
                    look => answers.push(id, Ok(look.answer(entry, found))),
                }
            }
            Self::Failed(calls, error) => {
                let Some((id, _)) = calls.next() else { return false };
                answers.push(id, Err(error.clone().into()));
            }
            Self::Queried(query) => {
                let Some(query) = query.take() else { return false };
                let (id, outcome) = *query;
                answers.push(id, outcome);
            }
        }
        true
    }
}
