//! What is printed at the end.

use std::{collections::BTreeMap, fmt, time::Duration};

use indicatif::HumanCount;
use serde::Serialize;

use super::{
    args::BenchArgs,
    tally::{Counts, Latencies},
    watch::Fanout,
};
use crate::shape::{in_words, millis};

/// All that a run has shown.
#[derive(Serialize)]
pub struct Report {
    namespace: String,
    transport: &'static str,
    callers: u32,
    connections: u32,
    keys: u64,
    value_bytes: u64,
    zipf: Option<f64>,
    mix: BTreeMap<&'static str, u32>,
    /// Operations a second that were to begin.
    rate: Option<f64>,
    interrupted: bool,
    elapsed_ms: u64,
    operations: Vec<Row>,
    total: Row,
    watch: Option<FanoutShape>,
    errors: Vec<ErrorShape>,
}

/// What came of one kind of operation.
#[derive(Serialize)]
struct Row {
    operation: &'static str,
    count: u64,
    failed: u64,
    per_second: f64,
    latency_us: Quantiles,
}

/// In microseconds; from when an operation was due, if there was a rate.
#[derive(Serialize)]
struct Quantiles {
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

#[derive(Serialize)]
struct FanoutShape {
    watchers: u64,
    events: u64,
    per_second: f64,
    lateness_us: Quantiles,
}

#[derive(Serialize)]
struct ErrorShape {
    message: String,
    count: u64,
}

impl Report {
    pub fn new(
        (namespace, args): (&str, &BenchArgs),
        (elapsed, interrupted): (Duration, bool),
        counts: &Counts,
        fanout: Option<&Fanout>,
    ) -> Self {
        let row = |operation, latencies: &Latencies, failed| Row {
            operation,
            count: latencies.len(),
            failed,
            per_second: latencies.len() as f64 / elapsed.as_secs_f64(),
            latency_us: Quantiles::new(latencies),
        };
        let (all, failed) = counts.total();
        let calls = counts.errors.iter().map(|(message, count)| (message.clone(), *count));
        let watches = fanout.iter().flat_map(|fanout| &fanout.errors);
        let watches = watches.map(|message| (format!("watch: {message}"), 1));
        Self {
            namespace: namespace.to_owned(),
            transport: if args.unary { "unary" } else { "pipeline" },
            callers: args.callers,
            connections: args.connections,
            keys: args.keys,
            value_bytes: args.value_size,
            zipf: args.zipf,
            mix: args.mix.weights().iter().map(|(kind, weight)| (kind.name(), *weight)).collect(),
            rate: args.rate,
            interrupted,
            elapsed_ms: millis(elapsed),
            operations: counts
                .kinds()
                .map(|(kind, latencies, failed)| row(kind.name(), latencies, failed))
                .collect(),
            total: row("all", &all, failed),
            watch: fanout.map(FanoutShape::new),
            errors: calls
                .chain(watches)
                .map(|(message, count)| ErrorShape { message, count })
                .collect(),
        }
    }

    /// Whether nothing failed.
    pub fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }
}

impl FanoutShape {
    fn new(fanout: &Fanout) -> Self {
        Self {
            watchers: fanout.watchers,
            events: fanout.events,
            per_second: fanout.events as f64 / fanout.elapsed.as_secs_f64(),
            lateness_us: Quantiles::new(&fanout.lateness),
        }
    }
}

impl Quantiles {
    fn new(latencies: &Latencies) -> Self {
        let at = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            mean: latencies.mean() / 1e3,
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: latencies.max() as f64 / 1e3,
        }
    }

    fn columns(&self) -> [String; 6] {
        [self.mean, self.p50, self.p90, self.p99, self.p999, self.max].map(micros)
    }
}

/// Microseconds with as many digits as say something.
pub fn micros(micros: f64) -> String {
    if micros < 100.0 { format!("{micros:.1}") } else { HumanCount(micros as u64).to_string() }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.fmt_head(f)?;
        writeln!(f, "\n")?;
        let columns = ["mean", "p50", "p90", "p99", "p99.9", "max µs"].map(str::to_owned);
        line(f, "operation", ["per s", "count", "failed"].map(str::to_owned), &columns)?;
        let total = (self.operations.len() > 1).then_some(&self.total);
        for row in self.operations.iter().chain(total) {
            let counts = [row.per_second as u64, row.count, row.failed];
            let counts = counts.map(|count| HumanCount(count).to_string());
            line(f, row.operation, counts, &row.latency_us.columns())?;
        }
        if let Some(watch) = &self.watch {
            let counts = [watch.per_second as u64, watch.events].map(HumanCount);
            let counts = [counts[0].to_string(), counts[1].to_string(), String::new()];
            line(f, "events", counts, &watch.lateness_us.columns())?;
        }
        write!(f, "\n{}", in_words(Duration::from_millis(self.elapsed_ms)))?;
        if self.interrupted {
            f.write_str(", interrupted")?;
        }
        for error in &self.errors {
            write!(f, "\n{} × {}", HumanCount(error.count), error.message)?;
        }
        Ok(())
    }
}

impl Report {
    /// What was done, in a sentence.
    fn fmt_head(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { callers, connections, value_bytes, transport, .. } = self;
        let way = if *transport == "unary" { "unary calls" } else { "a pipeline" };
        let (callers, connections) =
            (counted(*callers, "caller"), counted(*connections, "connection"));
        write!(f, "{callers} over {connections}, by {way}; ")?;
        write!(f, "{} keys, ", HumanCount(self.keys))?;
        match self.zipf {
            Some(exponent) => write!(f, "by Zipf's law with exponent {exponent}")?,
            None => f.write_str("all as often")?,
        }
        write!(f, "; values of {value_bytes} bytes")?;
        if let Some(rate) = self.rate {
            write!(f, "; {rate} operations due per second, latencies from when they were due")?;
        }
        if let Some(watch) = &self.watch {
            let watchers = watch.watchers;
            write!(f, "; {watchers} watchers, lateness of events from when their set was due")?;
        }
        Ok(())
    }
}

fn counted(number: u32, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    counts: [String; 3],
    columns: &[String; 6],
) -> fmt::Result {
    let [rate, count, failed] = counts;
    write!(f, "{name:<10} {rate:>10} {count:>12} {failed:>8}")?;
    columns.iter().try_for_each(|column| write!(f, " {column:>9}"))?;
    writeln!(f)
}
