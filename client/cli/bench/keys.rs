//! Which keys a run has, how they are chosen, filled and removed.

use bytes::Bytes;
use holdfast_client::{Error, Namespace, Raw, Selector};
use rand::{Rng, distr::Distribution as _};
use rand_distr::Zipf;

use super::args::BenchArgs;

/// What all keys and locks of all runs begin with.
const PREFIX: &str = "holdfast-bench";

/// Most keys and bytes of values that are written at once before the load begins.
const MAX_BATCH_KEYS: u64 = 1000;
const MAX_BATCH_BYTES: u64 = 1 << 20;

/// The keys of one run: under a prefix that no other run has, so that whatever else is in the namespace is left
/// alone.
#[derive(Clone)]
pub struct Keys {
    prefix: String,
    count: u64,
    zipf: Option<Zipf<f64>>,
}

impl Keys {
    pub fn new(args: &BenchArgs) -> Self {
        let zipf = args.zipf.map(|exponent| {
            let zipf = Zipf::new(args.keys as f64, exponent);
            zipf.expect("there is a key, and the exponent was checked to be positive")
        });
        Self { prefix: format!("{PREFIX}:{:016x}:", rand::random::<u64>()), count: args.keys, zipf }
    }

    /// The number of a key. By Zipf's law the first are chosen most often.
    pub fn choose(&self, random: &mut impl Rng) -> u64 {
        match &self.zipf {
            Some(zipf) => (zipf.sample(random) as u64).clamp(1, self.count) - 1,
            None => random.random_range(0..self.count),
        }
    }

    /// A key that has a value of the size asked for.
    pub fn value(&self, number: u64) -> String {
        format!("{}key:{number:09}", self.prefix)
    }

    /// A key that has a number.
    pub fn counter(&self, number: u64) -> String {
        format!("{}counter:{number:09}", self.prefix)
    }

    /// A lock.
    pub fn lock(&self, number: u64) -> String {
        format!("{}lock:{number:09}", self.prefix)
    }

    /// The key that is set last.
    pub fn end(&self) -> String {
        format!("{}end", self.prefix)
    }

    /// All keys with values from one on.
    pub fn from(&self, number: u64) -> Selector {
        Selector::range(self.value(number)..self.value(self.count))
    }

    /// All keys of the run.
    pub fn all(&self) -> Selector {
        Selector::prefix(&self.prefix)
    }

    /// Sets every key that has a value, so that reads find something.
    pub async fn fill(&self, namespace: &Namespace<Raw>, value: &Bytes) -> Result<(), Error> {
        let batch = (MAX_BATCH_BYTES / (value.len() as u64 + 64)).clamp(1, MAX_BATCH_KEYS);
        let mut next = 0;
        while next < self.count {
            let end = self.count.min(next + batch);
            let items = (next..end).map(|number| (self.value(number), value.clone()));
            namespace.set_many(items).await?;
            next = end;
        }
        Ok(())
    }

    /// Removes every key of the run, and nothing else.
    pub async fn remove(&self, namespace: &Namespace<Raw>) -> Result<(), Error> {
        while namespace.delete_range(self.all()).await?.more {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(count: u64, zipf: Option<f64>) -> Keys {
        let zipf = zipf.map(|exponent| Zipf::new(count as f64, exponent).expect("a good exponent"));
        Keys { prefix: "test:".to_owned(), count, zipf }
    }

    #[test]
    fn uniform_keys_are_all_chosen_and_none_beyond() {
        let (keys, mut random) = (keys(8, None), rand::rng());
        let mut seen = [0; 8];
        (0..8_000).for_each(|_| seen[keys.choose(&mut random) as usize] += 1);
        assert!(seen.iter().all(|count| (700..1300).contains(count)), "{seen:?}");
    }

    #[test]
    fn by_zipf_the_first_key_comes_most_often() {
        let (keys, mut random) = (keys(100, Some(1.0)), rand::rng());
        let mut seen = [0; 100];
        (0..10_000).for_each(|_| seen[keys.choose(&mut random) as usize] += 1);
        // The first has 1/H(100) = 19.3 % of all.
        assert!((1_600..2_300).contains(&seen[0]), "{seen:?}");
        assert!(seen[0] > seen[10] && seen[10] > seen[99], "{seen:?}");
    }
}
