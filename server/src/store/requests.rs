//! Which answers to requests with an id are kept in a namespace.

use std::collections::BTreeMap;

use hashbrown::HashMap;

use super::record::request::{DONE, RecordName, numbers};
use crate::backend::StoredEntry;

/// Which answers are kept in a namespace, as far as this server knows: how many, and which may go because their
/// client has them. It is only an index of what is stored, made anew from that when it is missing.
#[derive(Debug, Default)]
pub struct KeptRequests {
    clients: HashMap<u64, Client>,
    count: u64,
    /// When it was made from what is stored.
    read_at_ms: i64,
    /// Whether that has to be looked at again.
    is_doubted: bool,
}

/// What is kept for one client.
#[derive(Debug, Default)]
struct Client {
    /// How many answers each record has.
    records: BTreeMap<u64, u32>,
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
                let answers = numbers(&record.value).unwrap_or_default();
                kept.note(name, answers.len() as u32);
            }
        }
        for (client, Client { done_below, .. }) in former.iter().flat_map(|it| &it.clients) {
            kept.note_done(*client, *done_below);
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

    /// Whether it has to be made anew.
    pub fn is_doubted(&self) -> bool {
        self.is_doubted
    }

    /// Notes that something that was noted was not done.
    pub fn doubt(&mut self) {
        self.is_doubted = true;
    }

    /// Notes that so many answers were kept in a record.
    pub fn note(&mut self, RecordName { client, bucket }: RecordName, answers: u32) {
        *self.clients.entry(client).or_default().records.entry(bucket).or_default() += answers;
        self.count += u64::from(answers);
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

    /// The records that a client has no more use for, and how many answers each has.
    pub fn done(&self, client: u64, done_below: u64) -> impl Iterator<Item = (RecordName, u32)> {
        let known = self.clients.get(&client).into_iter();
        let end = RecordName::first_bucket(done_below);
        let done = known.flat_map(move |client| client.records.range(..end));
        done.map(move |(bucket, answers)| (RecordName { client, bucket: *bucket }, *answers))
    }

    /// Notes that a record is gone.
    pub fn forget(&mut self, RecordName { client, bucket }: RecordName) {
        if let Some(known) = self.clients.get_mut(&client) {
            self.count -= u64::from(known.records.remove(&bucket).unwrap_or_default());
            if known.records.is_empty() {
                self.clients.remove(&client);
            }
        }
    }
}
