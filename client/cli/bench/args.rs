//! What can be said to `bench`, and what cannot be meant.

use std::{str::FromStr, time::Duration};

use clap::{Args, value_parser};
use rand::Rng;

use super::{operation::Kind, watch::STAMP_BYTES};
use crate::{failure::Failure, parse};

#[derive(Args)]
pub struct BenchArgs {
    /// How many callers make one call after the other
    #[arg(
        short,
        long,
        value_name = "NUMBER",
        default_value_t = 64,
        value_parser = value_parser!(u32).range(1..=100_000)
    )]
    pub callers: u32,
    /// How many connections callers and watchers share
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 1,
        value_parser = value_parser!(u32).range(1..=10_000)
    )]
    pub connections: u32,
    /// How many keys they choose from
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 10_000,
        value_parser = value_parser!(u64).range(1..=100_000_000)
    )]
    pub keys: u64,
    /// How large values are: 256, 4KiB …
    #[arg(long, value_name = "BYTES", default_value = "256", value_parser = parse::bytes)]
    pub value_size: u64,
    /// What they do, with weights: get set del exists incr list txn lock
    #[arg(long, value_name = "KIND=WEIGHT,…", default_value = "get=80,set=20")]
    pub mix: Mix,
    /// Choose some keys more often than others, by Zipf's law; about 1 is usual, and larger is more uneven
    #[arg(long, value_name = "EXPONENT", value_parser = positive)]
    pub zipf: Option<f64>,
    /// How long to go on
    #[arg(
        short,
        long,
        value_name = "DURATION",
        default_value = "10s",
        value_parser = parse::duration,
        conflicts_with = "count"
    )]
    pub duration: Duration,
    /// Stop after so many operations instead
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Begin so many operations a second, whether or not those before have ended
    #[arg(long, value_name = "PER SECOND", value_parser = positive)]
    pub rate: Option<f64>,
    /// How many watches follow all that is written
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        value_parser = value_parser!(u32).range(..=100_000)
    )]
    pub watchers: u32,
    /// How many locks callers choose from; unless set, each has its own
    #[arg(long, value_name = "NUMBER", value_parser = value_parser!(u32).range(1..))]
    pub locks: Option<u32>,
    /// How many entries a `list` reads
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 100,
        value_parser = value_parser!(u32).range(1..=1000)
    )]
    pub page_size: u32,
    /// Let keys that are set end after this time
    #[arg(long, value_name = "DURATION", value_parser = parse::duration)]
    pub ttl: Option<Duration>,
    /// Make unary calls, as other languages do, instead of sending what waits over one pipeline
    #[arg(long)]
    pub unary: bool,
    /// Leave the keys there at the end
    #[arg(long)]
    pub keep: bool,
}

impl BenchArgs {
    /// Refuses what cannot be meant together.
    pub fn check(&self) -> Result<(), Failure> {
        if self.watchers > 0 && self.value_size < STAMP_BYTES as u64 {
            return Err(Failure::usage(format!(
                "with --watchers, values carry the time at which they were due: --value-size must be at \
                 least {STAMP_BYTES}, not {}",
                self.value_size
            )));
        }
        if self.watchers > 0 && !self.mix.has(Kind::Set) {
            return Err(Failure::usage(
                "--watchers follow what is set: --mix needs `set` with a weight above 0",
            ));
        }
        if self.locks.is_some() && !self.mix.has(Kind::Lock) {
            return Err(Failure::usage("--locks says nothing without `lock` in --mix"));
        }
        if self.duration.is_zero() {
            return Err(Failure::usage("--duration must be above zero"));
        }
        Ok(())
    }
}

/// How often callers do what: kinds with their weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mix(Vec<(Kind, u32)>);

impl Mix {
    /// The kinds with their weights, none twice, all above zero.
    pub fn weights(&self) -> &[(Kind, u32)] {
        &self.0
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.0.iter().any(|(of, _)| *of == kind)
    }

    /// One of the kinds, each as often as its weight says.
    pub fn pick(&self, random: &mut impl Rng) -> Kind {
        let sum = self.0.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let mut rest = random.random_range(0..sum);
        let picked = self.0.iter().find(|(_, weight)| match rest.checked_sub((*weight).into()) {
            Some(less) => {
                rest = less;
                false
            }
            None => true,
        });
        picked.expect("the number is below the sum of the weights").0
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut weights: Vec<(Kind, u32)> = Vec::new();
        for part in text.split(',') {
            let (name, weight) = part.trim().split_once('=').unwrap_or((part.trim(), "1"));
            let kind = Kind::from_str(name)?;
            let weight = weight
                .parse()
                .map_err(|_| format!("the weight of {name:?} is not a whole number: {weight:?}"))?;
            if weights.iter().any(|(of, _)| *of == kind) {
                return Err(format!("{name:?} stands there twice"));
            }
            weights.push((kind, weight));
        }
        weights.retain(|(_, weight)| *weight > 0);
        if weights.is_empty() {
            return Err("no kind has a weight above 0".to_owned());
        }
        Ok(Self(weights))
    }
}

fn positive(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "not a number above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_kinds_with_weights() {
        let mix: Mix = "get=80, set=20,del=0,lock".parse().expect("a mix");
        assert_eq!(mix.weights(), [(Kind::Get, 80), (Kind::Set, 20), (Kind::Lock, 1)]);
        assert!(mix.has(Kind::Lock) && !mix.has(Kind::Delete));
        for text in ["", "get=", "get=-1", "get=1.5", "got=1", "get=1,get=2", "get=0", "get=1,"] {
            assert!(Mix::from_str(text).is_err(), "{text}");
        }
    }

    #[test]
    fn kinds_come_as_often_as_their_weights_say() {
        let mix: Mix = "get=3,set=1".parse().expect("a mix");
        let mut random = rand::rng();
        let gets = (0..10_000).filter(|_| mix.pick(&mut random) == Kind::Get).count();
        assert!((7_000..8_000).contains(&gets), "{gets}");
    }

    #[test]
    fn rates_are_above_zero() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for text in ["0", "-1", "inf", "NaN", "many"] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
