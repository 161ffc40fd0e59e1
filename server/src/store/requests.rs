//! Which answers to requests with an id are kept in a namespace.

use std::collections::{BTreeMap, HashMap};

use super::{
    RequestId, keys,
    record::{
        self,
        request::{PER_RECORD, Requests},
    },
};
use crate::backend::{Key, StoredEntry};

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
            let answers = record::decode::<Requests>(&record.value).unwrap_or_default().answers;
            if let Some((client, bucket)) = keys::parse_requests(record.key()) {
                kept.add(client, bucket, answers.len() as u32);
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

    /// Notes an answer that was kept.
    pub fn note(&mut self, request: &RequestId) {
        self.add(request.client, request.seq / PER_RECORD, 1);
    }

    /// The records that a client has no more use for, and how many answers each has.
    pub fn done(&self, client: u64, done_below: u64) -> impl Iterator<Item = (Key, u32)> {
        let buckets = self.clients.get(&client).into_iter();
        let done = buckets.flat_map(move |buckets| buckets.range(..done_below / PER_RECORD));
        done.map(move |(bucket, answers)| (keys::requests(client, *bucket), *answers))
    }

    /// Notes that a record is gone.
    pub fn forget(&mut self, record: &Key) {
        let Some((client, bucket)) = keys::parse_requests(record) else {
            return;
        };
        if let Some(buckets) = self.clients.get_mut(&client) {
            self.count -= u64::from(buckets.remove(&bucket).unwrap_or_default());
            if buckets.is_empty() {
                self.clients.remove(&client);
            }
        }
    }

    fn add(&mut self, client: u64, bucket: u64, answers: u32) {
        *self.clients.entry(client).or_default().entry(bucket).or_default() += answers;
        self.count += u64::from(answers);
    }
}
