//! Which answers to requests with an id are kept in a namespace.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::record::request::{DONE, RecordName, numbers};
use crate::backend::StoredEntry;

/// Which answers are kept in a namespace, as far as this server knows: how much they are, and which may go because their
/// client has them. It is only an index of what is stored, made anew from that when it is missing.
#[derive(Debug, Default)]
pub struct KeptRequests {
    clients: HashMap<u64, Client>,
    total: Amount,
    /// When it was made from what is stored.
    read_at_ms: i64,
    /// Whether that has to be looked at again.
    is_doubted: bool,
}

/// So many answers, in records of so many bytes.
#[derive(Debug, Default, Clone, Copy)]
pub struct Amount {
    /// How many answers.
    pub answers: u64,
    /// How many bytes the records of them have.
    pub bytes: u64,
}

/// What a commit added to a record.
#[derive(Debug, Clone, Copy)]
pub struct Added {
    /// The record.
    pub record: RecordName,
    /// How many answers.
    pub answers: u64,
    /// How many bytes the record has now.
    pub record_bytes: u64,
}

/// What is kept for one client.
#[derive(Debug, Default)]
struct Client {
    /// What each record has.
    records: BTreeMap<u64, Amount>,
    /// The client is done with all requests before this one, as far as it told this server. Known only while something
    /// is kept for the client, so that it takes no room of its own.
    done_below: u64,
}

impl KeptRequests {
    /// An index of these records, which takes over what a former one knew besides.
    pub fn of(
        records: impl Iterator<Item = StoredEntry>,
        time_ms: i64,
        former: Option<&Self>,
    ) -> Self {
        let mut kept = Self { read_at_ms: time_ms, ..Self::default() };
        for record in records.filter(|record| record.value != DONE) {
            if let Some(name) = RecordName::parse(record.key()) {
                let answers = numbers(&record.value).unwrap_or_default().len() as u64;
                let record_bytes = record.value.len() as u64;
                kept.note(Added { record: name, answers, record_bytes });
            }
        }
        for (client, Client { done_below, .. }) in former.iter().flat_map(|it| &it.clients) {
            kept.note_done(*client, *done_below);
        }
        kept
    }

    /// How much is kept.
    pub fn total(&self) -> Amount {
        self.total
    }

    /// When it was made.
    pub fn read_at_ms(&self) -> i64 {
        self.read_at_ms
    }

    /// Whether it has to be made anew.
    pub fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Notes that something that was noted was not done.
    pub fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Notes what was added to a record.
    pub fn note(&mut self, added: Added) {
        let RecordName { client, bucket } = added.record;
        let record = self.clients.entry(client).or_default().records.entry(bucket).or_default();
        self.total.bytes = self.total.bytes - record.bytes + added.record_bytes;
        self.total.answers += added.answers;
        record.bytes = added.record_bytes;
        record.answers += added.answers;
    }

    /// Notes that a client is done with all requests before this one.
    pub fn note_done(&mut self, client: u64, done_below: u64) {
        if let Some(client) = self.clients.get_mut(&client) {
            client.done_below = client.done_below.max(done_below);
        }
    }

    /// The first request that a client is not done with, as far as is known.
    pub fn done_below(&self, client: u64) -> u64 {
        self.clients.get(&client).map_or(0, |client| client.done_below)
    }

    /// The records that a client has no more use for, and what each has.
    pub fn done(&self, client: u64, done_below: u64) -> impl Iterator<Item = (RecordName, Amount)> {
        let known = self.clients.get(&client).into_iter();
        let end = RecordName::first_bucket(done_below);
        let done = known.flat_map(move |client| client.records.range(..end));
        done.map(move |(bucket, amount)| (RecordName { client, bucket: *bucket }, *amount))
    }

    /// Notes that a record is gone.
    pub fn forget(&mut self, RecordName { client, bucket }: RecordName) {
        if let Some(known) = self.clients.get_mut(&client) {
            let gone = known.records.remove(&bucket).unwrap_or_default();
            self.total.answers -= gone.answers;
            self.total.bytes -= gone.bytes;
            if known.records.is_empty() {
                self.clients.remove(&client);
            }
        }
    }
}
