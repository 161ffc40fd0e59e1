//! Which answers to requests with an id are kept in a namespace.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::record::request::{RecordName, numbers};
use crate::backend::StoredEntry;

/// Which answers are kept in a namespace, as far as this server knows: how many, and which may go because their
/// client has them. It is only an index of what is stored, made anew from that when it is missing.
#[derive(Debug, Default)]
pub struct KeptRequests {
    clients: HashMap<u64, BTreeMap<u64, u32>>,
    count: u64,
    /// When it was made from what is stored.
    read_at_ms: i64,
}

impl KeptRequests {
    /// An index of these records.
    pub fn of(records: impl Iterator<Item = StoredEntry>, time_ms: i64) -> Self {
        let mut kept = Self { read_at_ms: time_ms, ..Self::default() };
        for record in records {
            if let Some(name) = RecordName::parse(record.key()) {
                let answers = numbers(&record.value).unwrap_or_default();
                kept.note(name, answers.len() as u32);
            }
        }
        kept
    }

    /// How many answers are kept.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// When it was made.
    pub fn read_at_ms(&self) -> i64 {
        self.read_at_ms
    }

    /// Notes that so many answers were kept in a record.
    pub fn note(&mut self, RecordName { client, bucket }: RecordName, answers: u32) {
        *self.clients.entry(client).or_default().entry(bucket).or_default() += answers;
        self.count += u64::from(answers);
    }

    /// The records that a client has no more use for, and how many answers each has.
    pub fn done(&self, client: u64, done_below: u64) -> impl Iterator<Item = (RecordName, u32)> {
        let buckets = self.clients.get(&client).into_iter();
        let end = RecordName::first_bucket(done_below);
        let done = buckets.flat_map(move |buckets| buckets.range(..end));
        done.map(move |(bucket, answers)| (RecordName { client, bucket: *bucket }, *answers))
    }

    /// Notes that a record is gone.
    pub fn forget(&mut self, RecordName { client, bucket }: RecordName) {
        if let Some(buckets) = self.clients.get_mut(&client) {
            self.count -= u64::from(buckets.remove(&bucket).unwrap_or_default());
            if buckets.is_empty() {
                self.clients.remove(&client);
            }
        }
    }
}
