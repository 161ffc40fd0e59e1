//! Answers to requests with an id, as they are kept: several of one client in one record.
//!
//! A record is written by the last group of a commit, and the revisions that the commit gives are not known when it is
//! made. So what this very commit wrote is told by how many revisions came after it until the record was written:
//! with the revision of the record, which the backend notes, that is the revision.

use std::{cell::Cell, collections::BTreeMap};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::base64;
use crate::{
    backend::{Created, Deadline, Entry, GroupIndex, GroupStamp, Key, NewDeadline, Revision},
    store::{
        command::{EntryView, OperationReply, Reply},
        workspace::Seen,
    },
};

/// How many requests of a client, by their numbers, share a record.
pub const PER_RECORD: u64 = 16;
/// Most bytes of values that are kept with an answer; of larger ones it is said that they are left out.
const MAX_VALUE_BYTES: usize = 4096;
/// About the most bytes that an answer keeps of lists; what is beyond is left out as if the list had been cut there.
const MAX_LIST_BYTES: usize = 65_536;

/// The answers of one record by the numbers of their requests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Requests {
    /// The answers.
    pub answers: BTreeMap<u64, KeptAnswer>,
}

/// An answer that is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Of the request.
    pub fingerprint: u64,
    /// Where it was committed.
    stamp: KeptStamp,
    reply: Reply<KeptEntry>,
}

/// A revision and its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptStamp {
    /// As they are.
    At(u64, i64),
    /// So many revisions before that of the record, at its time.
    Back(u64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptEntry {
    key: String,
    #[serde(with = "base64", default, skip_serializing_if = "Bytes::is_empty")]
    value: Bytes,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_value_omitted: bool,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    content_type: String,
    version: u64,
    created: KeptStamp,
    modified: KeptStamp,
    #[serde(default, skip_serializing_if = "KeptDeadline::is_never")]
    deadline: KeptDeadline,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum KeptDeadline {
    #[default]
    Never,
    At(i64),
    /// So many milliseconds after the commit.
    After(u64),
    Of(String),
}

/// What is known of the revisions of a commit while it is being made.
#[derive(Debug, Clone, Copy)]
pub struct Revisions<'a> {
    /// The one that each group will have, if nobody else commits in between.
    pub expected: &'a [Revision],
    /// The last of them.
    pub last: Revision,
}

impl Requests {
    /// Makes revisions that were told by that of the record absolute, as it was written there.
    pub fn settle(&mut self, stamp: GroupStamp) {
        for answer in self.answers.values_mut() {
            answer.stamp = answer.stamp.settled(stamp);
            let settle = |entry: KeptEntry| KeptEntry {
                created: entry.created.settled(stamp),
                modified: entry.modified.settled(stamp),
                deadline: match entry.deadline {
                    KeptDeadline::After(ttl_ms) => {
                        KeptDeadline::At(stamp.time_ms.saturating_add_unsigned(ttl_ms))
                    }
                    deadline => deadline,
                },
                ..entry
            };
            let reply = std::mem::replace(&mut answer.reply, Reply::Expired);
            answer.reply = reply.map(&settle);
        }
    }
}

impl KeptAnswer {
    /// An answer of this commit, by a group of it.
    pub fn new(
        fingerprint: u64,
        reply: &Reply<Seen>,
        group: GroupIndex,
        revisions: Revisions<'_>,
    ) -> Self {
        Self { fingerprint, stamp: revisions.stamp(group), reply: kept(reply.clone(), revisions) }
    }

    /// An answer of a commit whose only revision is that of the record.
    pub fn of_whole(fingerprint: u64, reply: Reply<Seen>) -> Self {
        let revisions = Revisions { expected: &[], last: Revision(0) };
        Self { fingerprint, stamp: KeptStamp::Back(0), reply: kept(reply, revisions) }
    }

    /// Where it was committed, and what it was, in a record written at `stamp`.
    pub fn recall(&self, stamp: GroupStamp) -> (GroupStamp, Reply<EntryView>) {
        let at = self.stamp.resolve(stamp);
        (at, self.reply.clone().map(&|entry| entry.recall(stamp)))
    }
}

impl KeptStamp {
    fn resolve(self, record: GroupStamp) -> GroupStamp {
        match self {
            Self::At(revision, time_ms) => GroupStamp { revision: Revision(revision), time_ms },
            Self::Back(revisions) => {
                let revision = Revision(record.revision.0.saturating_sub(revisions));
                GroupStamp { revision, ..record }
            }
        }
    }

    fn settled(self, record: GroupStamp) -> Self {
        let GroupStamp { revision, time_ms } = self.resolve(record);
        Self::At(revision.0, time_ms)
    }
}

impl Revisions<'_> {
    /// The stamp of a group of the commit; one that is not there took no revision.
    fn stamp(self, GroupIndex(group): GroupIndex) -> KeptStamp {
        let revision = self.expected.get(group).copied().unwrap_or(self.last);
        KeptStamp::Back(self.last.0.saturating_sub(revision.0))
    }
}

impl KeptEntry {
    /// `room` is how many bytes of values there is still room for.
    fn new(seen: &Seen, revisions: Revisions<'_>, room: &Cell<usize>) -> Self {
        let created = match seen.created() {
            Created::Before(revision, time_ms) => KeptStamp::At(revision.0, time_ms),
            Created::By(group) => revisions.stamp(group),
        };
        let modified = match seen {
            Seen::Stored(stored) => KeptStamp::At(stored.mod_revision.0, stored.updated_at_ms),
            Seen::Pending { group, .. } => revisions.stamp(*group),
        };
        // The records of locks and leases are never large, and nothing can be told without them.
        let is_value_omitted = seen.value().len() > room.get() && !seen.key().is_internal();
        if !is_value_omitted {
            room.set(room.get().saturating_sub(seen.value().len()));
        }
        Self {
            key: text(seen.key().as_bytes()),
            value: if is_value_omitted { Bytes::new() } else { seen.value().clone() },
            is_value_omitted,
            content_type: text(seen.content_type()),
            version: seen.version(),
            created,
            modified,
            deadline: match seen.deadline() {
                NewDeadline::Never => KeptDeadline::Never,
                NewDeadline::At(at_ms) => KeptDeadline::At(at_ms),
                NewDeadline::After(ttl_ms) => KeptDeadline::After(ttl_ms),
                NewDeadline::Of(key) => KeptDeadline::Of(text(key.as_bytes())),
            },
        }
    }

    fn recall(self, record: GroupStamp) -> EntryView {
        let (created, modified) = (self.created.resolve(record), self.modified.resolve(record));
        let key = Key::new(self.key.as_bytes());
        let entry = Entry {
            value: self.value,
            content_type: self.content_type.into(),
            version: self.version,
            create_revision: created.revision,
            mod_revision: modified.revision,
            created_at_ms: created.time_ms,
            updated_at_ms: modified.time_ms,
            deadline: match self.deadline {
                KeptDeadline::Never => Deadline::Never,
                KeptDeadline::At(at_ms) => Deadline::At(at_ms),
                KeptDeadline::After(ttl_ms) => {
                    Deadline::At(modified.time_ms.saturating_add_unsigned(ttl_ms))
                }
                KeptDeadline::Of(key) => Deadline::Of(Box::new(Key::new(key.as_bytes()))),
            },
        };
        match self.is_value_omitted {
            true => EntryView::WithoutValue(key, entry),
            false => EntryView::Written(key, entry),
        }
    }
}

/// A reply as it is kept.
fn kept(mut reply: Reply<Seen>, revisions: Revisions<'_>) -> Reply<KeptEntry> {
    shorten_lists(&mut reply);
    let room = Cell::new(MAX_VALUE_BYTES);
    reply.map(&|seen| KeptEntry::new(&seen, revisions, &room))
}

fn shorten_lists(reply: &mut Reply<Seen>) {
    let Reply::Transact(transaction) = reply else {
        return;
    };
    let mut bytes = 0;
    for result in &mut transaction.results {
        let OperationReply::List { entries, more, .. } = result else {
            continue;
        };
        let fitting = entries.iter().take_while(|entry| {
            // About what else there is to an entry.
            bytes += entry.key().as_bytes().len() + 128;
            bytes <= MAX_LIST_BYTES
        });
        let fitting = fitting.count();
        *more |= fitting < entries.len();
        entries.truncate(fitting);
    }
}

impl KeptDeadline {
    fn is_never(&self) -> bool {
        matches!(self, Self::Never)
    }
}

/// Keys and content types are text.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
