//! What was compared, as a table and as JSON.

use std::{fs, io, path::Path, time::SystemTime};

use serde::Serialize;

use super::{measure, peer, plot};

/// All that was compared in a run.
#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    /// The share of the full counts and times; figures of less than 1 show only that everything works.
    scale: f64,
    rounds: usize,
    lines: Vec<Line>,
}

/// Where and when.
#[derive(Serialize)]
struct Machine {
    time: String,
    system: String,
    processor: String,
    processors: usize,
    /// At the beginning, before anything was started.
    load_average: String,
    peers: Vec<String>,
}

/// Two figures and their ratio.
#[derive(Serialize)]
pub struct Line {
    pub what: String,
    pub against: String,
    unit: Unit,
    holdfast: f64,
    other: f64,
    pub ratio: f64,
    #[serde(flatten)]
    pub goal: Option<Goal>,
    met: Option<bool>,
}

/// What figures are in.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    PerSecond,
    Micros,
    Nanos,
    Bytes,
}

/// What a ratio should be.
#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

impl Goal {
    /// How far it is reached: 1 or more if it is.
    pub fn reached(self, ratio: f64) -> f64 {
        match self {
            Self::AtLeast(least) => ratio / least,
            Self::AtMost(most) => most / ratio,
        }
    }

    pub fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Report {
    pub fn new() -> Self {
        Self {
            machine: Machine::this(),
            scale: measure::scale(),
            rounds: measure::rounds(),
            lines: Vec::new(),
        }
    }

    /// Adds what was compared, and prints it, so that one sees how far the run is.
    pub fn add(
        &mut self,
        what: &str,
        against: &str,
        unit: Unit,
        (holdfast, other): (f64, f64),
        goal: Option<Goal>,
    ) {
        let ratio = holdfast / other;
        let line = Line {
            what: what.to_owned(),
            against: against.to_owned(),
            unit,
            holdfast,
            other,
            ratio,
            goal,
            met: goal.map(|goal| goal.reached(ratio) >= 1.0),
        };
        println!("{what} / {against}: {ratio:.2}");
        self.lines.push(line);
    }

    /// The table of goals and that of all else.
    pub fn markdown(&self) -> String {
        let Machine { time, system, processor, processors, load_average, peers } = &self.machine;
        let mut text = format!(
            "\n{time}, {system}, {processors} × {processor}, load average {load_average} before; {}; medians of \
             {} rounds, scale {}\n\n\
             | what | against | Holdfast | other | ratio | goal | |\n\
             | --- | --- | --- | --- | --- | --- | --- |\n",
            peers.join("; "),
            self.rounds,
            self.scale,
        );
        for (line, goal) in self.lines.iter().filter_map(|line| Some((line, line.goal?))) {
            let met = if line.met == Some(true) { "met" } else { "**missed**" };
            text += &format!("{} {} | {met} |\n", line.cells(), goal.text());
        }
        text += "\n| without a goal | against | Holdfast | other | ratio |\n\
                 | --- | --- | --- | --- | --- |\n";
        for line in self.lines.iter().filter(|line| line.goal.is_none()) {
            text += &format!("{}\n", line.cells());
        }
        text
    }

    /// Writes `compare.json`, `compare.md` and `compare.svg` into a directory.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)?;
        fs::write(directory.join("compare.json"), serde_json::to_vec_pretty(self)?)?;
        fs::write(directory.join("compare.md"), self.markdown())?;
        fs::write(directory.join("compare.svg"), plot::svg(&self.lines))
    }
}

impl Line {
    fn cells(&self) -> String {
        let Self { what, against, unit, holdfast, other, ratio, .. } = self;
        let [holdfast, other] = [holdfast, other].map(|figure| unit.text(*figure));
        format!("| {what} | {against} | {holdfast} | {other} | {ratio:.2} |")
    }
}

impl Unit {
    fn text(self, figure: f64) -> String {
        match self {
            Self::PerSecond => format!("{}/s", grouped(figure)),
            Self::Micros => format!("{figure:.0} µs"),
            Self::Nanos => format!("{figure:.0} ns"),
            Self::Bytes => format!("{:.1} MiB", figure / f64::from(1 << 20)),
        }
    }
}

/// Three digits that say something, in groups of three.
fn grouped(figure: f64) -> String {
    let unit = 10_f64.powi((figure.max(1.0).log10().floor() as i32 - 2).max(0));
    let digits = ((figure / unit).round() * unit).to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Machine {
    fn this() -> Self {
        let file = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = file("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.map(|line| line.trim_start_matches(['\t', ' ', ':']));
        let loads = file("/proc/loadavg");
        let kernel = file("/proc/sys/kernel/osrelease");
        Self {
            time: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            system: format!("{} {}", std::env::consts::OS, kernel.trim()).trim().to_owned(),
            processor: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            processors: std::thread::available_parallelism().map_or(0, usize::from),
            load_average: loads.split(' ').next().unwrap_or("unknown").to_owned(),
            peers: [peer::etcd::version(), peer::redis::version()].into_iter().flatten().collect(),
        }
    }
}
