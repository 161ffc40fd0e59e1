//! What the parts share: how much there is to do, rates, latencies, medians.

use std::{
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};

/// Cuts counts and times to this share, for a run that only shows that everything works.
const SCALE: &str = "HOLDFAST_BENCH_SCALE";

/// So many, or the share of them that was asked for.
pub fn scaled(count: usize) -> usize {
    ((count as f64 * scale()) as usize).max(1)
}

/// How long a round is.
pub fn round() -> Duration {
    Duration::from_secs(1).mul_f64(scale().max(0.01))
}

/// How many rounds a median is of.
pub fn rounds() -> usize {
    if scale() < 1.0 { 1 } else { 5 }
}

/// The share of everything that was asked for.
pub fn scale() -> f64 {
    static SCALED: OnceLock<f64> = OnceLock::new();
    *SCALED.get_or_init(|| {
        let Ok(text) = std::env::var(SCALE) else {
            return 1.0;
        };
        let scale = text.parse().ok().filter(|scale| *scale > 0.0 && *scale <= 1.0);
        scale.unwrap_or_else(|| panic!("{SCALE} is a number above 0 and up to 1, not `{text}`"))
    })
}

/// What came of calls made for a while.
pub struct Calls {
    /// Calls a second.
    pub rate: f64,
    /// How long each took, in microseconds.
    pub latencies_us: Vec<f64>,
}

/// Somebody who makes one call after the other.
pub trait Caller: Clone + Send + 'static {
    /// Makes a call, given the number of this caller and how many calls it has made before.
    fn call(&mut self, caller: usize, call: usize) -> impl Future<Output = ()> + Send;
}

/// Lets so many callers, each a clone of this one, make calls for a round.
pub async fn calls_of(callers: usize, caller: &impl Caller) -> Calls {
    let (start, round) = (Instant::now(), round());
    let tasks = (0..callers).map(|number| {
        let mut caller = caller.clone();
        tokio::spawn(async move {
            let mut latencies_us = Vec::new();
            let mut now = Instant::now();
            while now - start < round {
                caller.call(number, latencies_us.len()).await;
                let before = std::mem::replace(&mut now, Instant::now());
                latencies_us.push(micros(now - before));
            }
            latencies_us
        })
    });
    let tasks: Vec<_> = tasks.collect();
    let mut latencies_us = Vec::new();
    for task in tasks {
        latencies_us.extend(task.await.expect("a caller does not fail"));
    }
    Calls { rate: latencies_us.len() as f64 / start.elapsed().as_secs_f64(), latencies_us }
}

/// The same with callers that are a function of a client.
pub async fn calls<T, F>(callers: usize, client: &T, call: fn(T, usize, usize) -> F) -> Calls
where
    T: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    calls_of(callers, &ByFunction(client.clone(), call)).await
}

struct ByFunction<T, F>(T, fn(T, usize, usize) -> F);

impl<T: Clone, F> Clone for ByFunction<T, F> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), self.1)
    }
}

impl<T, F> Caller for ByFunction<T, F>
where
    T: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    fn call(&mut self, caller: usize, call: usize) -> impl Future<Output = ()> + Send {
        (self.1)(self.0.clone(), caller, call)
    }
}

/// The value in the middle.
pub fn median(values: Vec<f64>) -> f64 {
    percentile(values, 50)
}

/// The value that so many percent do not exceed.
pub fn percentile(mut values: Vec<f64>, percent: usize) -> f64 {
    assert!(!values.is_empty(), "there is something to take a percentile of");
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// Microseconds.
pub fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
