//! What came of all calls: latencies in histograms, failures with their messages.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hdrhistogram::Histogram;
use holdfast_client::Error;

use super::operation::Kind;

/// How many histograms share what is recorded, so that callers seldom wait for one another; not one for each, which
/// would take much memory with many callers.
const SHARDS: usize = 16;

/// How many different errors are told apart in a shard.
const MAX_ERRORS: usize = 20;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// Latencies in nanoseconds.
pub type Latencies = Histogram<u64>;

/// No latencies yet.
pub fn no_latencies() -> Latencies {
    Histogram::new(DIGITS).expect("a histogram may have three digits")
}

/// Counts for all callers.
pub struct Tally(Vec<Mutex<Counts>>);

/// What came of some calls.
#[derive(Clone)]
pub struct Counts {
    kinds: Vec<(Kind, Latencies, u64)>,
    /// How often each error came.
    pub errors: BTreeMap<String, u64>,
}

impl Tally {
    pub fn new(kinds: impl Iterator<Item = Kind>) -> Self {
        let kinds = kinds.map(|kind| (kind, no_latencies(), 0)).collect();
        let counts = Counts { kinds, errors: BTreeMap::new() };
        Self((0..SHARDS).map(|_| Mutex::new(counts.clone())).collect())
    }

    /// Notes how long a call took, if it succeeded; else why it failed.
    pub fn record(&self, shard: usize, kind: Kind, latency: Duration, done: Result<(), Error>) {
        let counts = &mut *lock(&self.0[shard % SHARDS]);
        let of_kind = counts.kinds.iter_mut().find(|(of, ..)| *of == kind);
        let (_, latencies, failed) = of_kind.expect("only what is in the mix is called");
        match done {
            Ok(()) => record(latencies, latency),
            Err(error) => {
                *failed += 1;
                let is_room = counts.errors.len() < MAX_ERRORS;
                let error = Some(error.to_string())
                    .filter(|error| is_room || counts.errors.contains_key(error));
                let error = error.unwrap_or_else(|| "other errors".to_owned());
                *counts.errors.entry(error).or_default() += 1;
            }
        }
    }

    /// All together.
    pub fn sum(&self) -> Counts {
        let mut shards = self.0.iter().map(lock);
        let mut sum = shards.next().expect("there is a shard").clone();
        for shard in shards {
            for ((_, latencies, failed), (_, of_shard, failed_there)) in
                sum.kinds.iter_mut().zip(&shard.kinds)
            {
                add(latencies, of_shard);
                *failed += failed_there;
            }
            for (error, count) in &shard.errors {
                *sum.errors.entry(error.clone()).or_default() += count;
            }
        }
        sum
    }
}

impl Counts {
    /// Each kind with its latencies, and how many calls failed.
    pub fn kinds(&self) -> impl Iterator<Item = (Kind, &Latencies, u64)> {
        self.kinds.iter().map(|(kind, latencies, failed)| (*kind, latencies, *failed))
    }

    /// The same of all kinds together.
    pub fn total(&self) -> (Latencies, u64) {
        self.kinds().fold((no_latencies(), 0), |(mut all, sum), (_, latencies, failed)| {
            add(&mut all, latencies);
            (all, sum + failed)
        })
    }
}

/// Adds a latency.
pub fn record(latencies: &mut Latencies, latency: Duration) {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
    latencies.record(nanos).expect("a histogram grows as it needs to");
}

/// Adds all that is in another.
pub fn add(latencies: &mut Latencies, other: &Latencies) {
    latencies.add(other).expect("a histogram grows as it needs to");
}

fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    // Counting cannot be left half done.
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_add_up() {
        let tally = Tally::new([Kind::Get, Kind::Set].into_iter());
        for shard in 0..100 {
            tally.record(shard, Kind::Get, Duration::from_micros(100), Ok(()));
        }
        tally.record(0, Kind::Set, Duration::from_secs(3600), Ok(()));
        tally.record(1, Kind::Set, Duration::ZERO, Err(Error::DeadlineExceeded));
        let sum = tally.sum();
        let counts: Vec<_> = sum.kinds().map(|(_, all, failed)| (all.len(), failed)).collect();
        assert_eq!(counts, [(100, 0), (1, 1)]);
        let (total, failed) = sum.total();
        assert_eq!((total.len(), failed), (101, 1));
        assert_eq!(total.value_at_quantile(0.5) / 1000, 100);
        assert_eq!(sum.errors.values().sum::<u64>(), 1);
    }
}
