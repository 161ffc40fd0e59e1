//! The line that shows, on a terminal, how a load goes.

use std::{
    convert::Infallible,
    io::{IsTerminal as _, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{report::micros, tally::Tally, watch::Watchers};

const TICK: Duration = Duration::from_millis(500);

/// Shows how far the load has come, until dropped.
pub async fn show(tally: &Tally, watchers: Option<&Watchers>) -> Infallible {
    let line = Line::new();
    let (mut before, mut counted) = (0, Instant::now());
    let mut ticks = tokio::time::interval(TICK);
    loop {
        ticks.tick().await;
        let (latencies, failed) = tally.sum().total();
        let now = Instant::now();
        let rate = (latencies.len() - before) as f64 / (now - counted).as_secs_f64();
        (before, counted) = (latencies.len(), now);
        let quantile = |quantile| micros(latencies.value_at_quantile(quantile) as f64 / 1e3);
        let mut text = format!(
            "{}/s now, {} in all, p50 {} µs, p99 {} µs",
            HumanCount(rate as u64),
            HumanCount(latencies.len()),
            quantile(0.5),
            quantile(0.99),
        );
        if failed > 0 {
            text += &format!(", {} failed", HumanCount(failed));
        }
        if let Some(watchers) = watchers {
            text += &format!(", {} events", HumanCount(watchers.events()));
        }
        line.0.set_message(text);
    }
}

/// A line that is gone when dropped.
struct Line(ProgressBar);

impl Line {
    fn new() -> Self {
        let target = match stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let line = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("{spinner} {elapsed} {msg}");
        line.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
        line.enable_steady_tick(TICK / 2);
        Self(line)
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
