//! What a bench found, for people and for programs.

use std::fs;

use serde_json::{Value, json};

use crate::output;

/// How a figure is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Less is better.
    Seconds,
    /// Less is better.
    Milliseconds,
    /// More is better.
    RecordsPerSecond,
    /// Less is better.
    Mebibytes,
    /// More is better.
    DocumentsPerSecond,
    /// More is better.
    ChunksPerSecond,
    /// More is better.
    Percent,
}

impl Unit {
    fn show(self, figure: f64) -> String {
        match self {
            Self::Seconds => format!("{figure:.3} s"),
            Self::Milliseconds => format!("{figure:.1} ms"),
            Self::Mebibytes => format!("{figure:.0} MiB"),
            Self::RecordsPerSecond | Self::DocumentsPerSecond | Self::ChunksPerSecond if figure < 100.0 => {
                format!("{figure:.1}/s")
            }
            Self::RecordsPerSecond | Self::DocumentsPerSecond | Self::ChunksPerSecond => format!("{figure:.0}/s"),
            Self::Percent => format!("{figure:.2} %"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Seconds => "s",
            Self::Milliseconds => "ms",
            Self::RecordsPerSecond => "records/s",
            Self::Mebibytes => "MiB",
            Self::DocumentsPerSecond => "documents/s",
            Self::ChunksPerSecond => "chunks/s",
            Self::Percent => "%",
        }
    }
}

/// What a figure is to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Target {
    /// The figure itself, at most.
    AtMost(f64),
    /// The figure itself, at least.
    AtLeast(f64),
    /// The figure itself, less than.
    Under(f64),
    /// The figure divided by the yardstick's, at most.
    AtMostTimes(f64),
    /// The figure divided by the yardstick's, at least.
    AtLeastTimes(f64),
    /// The yardstick's figure divided by this one, at least.
    TimesFaster(f64),
    /// Nothing: it is for knowing.
    None,
}

/// One line of the table.
#[derive(Debug, Clone)]
pub struct Row {
    /// Letter of the figure.
    pub figure: &'static str,
    /// What was measured.
    pub name: String,
    /// How figures are read.
    pub unit: Unit,
    /// Millrace's, one a run.
    pub millrace: Vec<f64>,
    /// What it stands beside.
    pub yardstick: &'static str,
    /// The yardstick's, one a run; or why there are none.
    pub beside: Result<Vec<f64>, String>,
    /// What it is to be.
    pub target: Target,
}

/// Middle of the figures; of an even number the mean of both; of none NaN.
pub fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.len(), sorted.len() / 2) {
        (0, _) => f64::NAN,
        (count, half) if count % 2 == 1 => sorted[half],
        (_, half) => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}

/// Nearest rank; of none NaN.
pub fn percentile(figures: &[f64], percent: usize) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

impl Row {
    fn figure(&self) -> f64 {
        median(&self.millrace)
    }

    fn beside(&self) -> Option<f64> {
        self.beside
            .as_ref()
            .ok()
            .map(|figures| median(figures))
            .filter(|m| m.is_finite())
    }

    /// The figure divided by the yardstick's; the other way round where the target is to be so many times faster.
    fn ratio(&self) -> Option<f64> {
        let (ours, theirs) = (self.figure(), self.beside()?);
        Some(match self.target {
            Target::TimesFaster(_) => theirs / ours,
            _ => ours / theirs,
        })
    }

    fn target(&self) -> String {
        match self.target {
            Target::AtMost(limit) => format!("≤ {}", self.unit.show(limit)),
            Target::AtLeast(limit) => format!("≥ {}", self.unit.show(limit)),
            Target::Under(limit) => format!("< {}", self.unit.show(limit)),
            Target::AtMostTimes(times) => format!("≤ {times} times"),
            Target::AtLeastTimes(times) => format!("≥ {times} of it"),
            Target::TimesFaster(times) => format!("≥ {times} times faster"),
            Target::None => "-".to_owned(),
        }
    }

    /// None where there is no target, or nothing to hold it against.
    fn met(&self) -> Option<bool> {
        let ratio = self.ratio();
        match self.target {
            Target::AtMost(limit) => Some(self.figure() <= limit),
            Target::AtLeast(limit) => Some(self.figure() >= limit),
            Target::Under(limit) => Some(self.figure() < limit),
            Target::AtMostTimes(times) => ratio.map(|ratio| ratio <= times),
            Target::AtLeastTimes(times) | Target::TimesFaster(times) => ratio.map(|ratio| ratio >= times),
            Target::None => None,
        }
    }

    fn json(&self) -> Value {
        json!({
            "figure": self.figure, "name": self.name, "unit": self.unit.name(),
            "millrace": rounded(self.figure()), "runs": rounded_all(&self.millrace),
            "yardstick": self.yardstick, "yardstick_median": self.beside().map(rounded),
            "yardstick_runs": self.beside.as_ref().ok().map(|runs| rounded_all(runs)),
            "skipped": self.beside.as_ref().err(),
            "ratio": self.ratio().map(rounded), "target": self.target(), "met": self.met(),
        })
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e4).round() / 1e4
}

fn rounded_all(figures: &[f64]) -> Vec<f64> {
    figures.iter().map(|figure| rounded(*figure)).collect()
}

/// What the figures were taken on.
#[derive(Debug, Clone)]
pub struct Machine {
    cores: usize,
    processor: String,
    memory_mib: u64,
    load: String,
}

impl Machine {
    /// This one; unknown parts are left empty.
    pub fn this() -> Self {
        let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| Some(line.split_once(':')?.1.trim().to_owned()))
                .unwrap_or_default()
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal");
        Self {
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory_mib: memory
                .split(' ')
                .next()
                .and_then(|kib| kib.parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            load: read("/proc/loadavg").split(' ').take(1).collect(),
        }
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let build = if cfg!(debug_assertions) {
            "a DEBUG build, whose figures mean nothing"
        } else {
            "a release build"
        };
        format!(
            "{} cores ({}), {} MiB of memory, load {} before it began; {build}",
            self.cores, self.processor, self.memory_mib, self.load
        )
    }

    fn json(&self) -> Value {
        json!({
            "cores": self.cores, "processor": self.processor, "memory_mib": self.memory_mib, "load_before": self.load,
            "release_build": !cfg!(debug_assertions),
        })
    }
}

/// Shows rows on stdout.
pub fn show(rows: &[Row], runs: usize, machine: &Machine, as_json: bool) {
    if as_json {
        let rows: Vec<_> = rows.iter().map(Row::json).collect();
        output::json(&json!({"machine": machine.json(), "runs": runs, "rows": rows}));
        return;
    }
    output::line(machine.line());
    output::line(format_args!("medians of {runs}"));
    output::line("");
    let head = ["", "MEASURED", "MILLRACE", "YARDSTICK", "", "RATIO", "TARGET", "MET"].map(str::to_owned);
    let mut lines = vec![head];
    lines.extend(rows.iter().map(|row| {
        let beside = match (&row.beside, row.beside()) {
            (Err(_), _) => "SKIPPED".to_owned(),
            (Ok(_), Some(figure)) => row.unit.show(figure),
            (Ok(_), None) => String::new(),
        };
        let met = match row.met() {
            Some(true) => "yes",
            Some(false) => "no",
            None => "-",
        };
        [
            row.figure.to_owned(),
            row.name.clone(),
            row.unit.show(row.figure()),
            beside,
            row.yardstick.to_owned(),
            row.ratio()
                .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}")),
            row.target(),
            met.to_owned(),
        ]
    }));
    output::table(&lines);
    let mut told = Vec::new();
    for row in rows {
        if let Err(why) = &row.beside
            && !told.contains(&why)
        {
            output::line(format_args!("\nSKIPPED: {why}"));
            told.push(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(unit: Unit, millrace: &[f64], beside: &[f64], target: Target) -> Row {
        Row {
            figure: "a",
            name: "x".into(),
            unit,
            millrace: millrace.to_vec(),
            yardstick: "y",
            beside: Ok(beside.to_vec()),
            target,
        }
    }

    #[test]
    fn each_kind_of_target() {
        let met = |unit, ours, theirs, target| row(unit, &[ours], &[theirs], target).met();
        assert_eq!(met(Unit::Seconds, 0.45, 9.0, Target::AtMost(0.45)), Some(true));
        assert_eq!(met(Unit::Mebibytes, 512.0, 9.0, Target::Under(512.0)), Some(false));
        assert_eq!(met(Unit::Seconds, 0.4, 1.3, Target::TimesFaster(3.0)), Some(true));
        assert_eq!(met(Unit::Seconds, 0.5, 1.3, Target::TimesFaster(3.0)), Some(false));
        assert_eq!(
            met(Unit::RecordsPerSecond, 79.0, 100.0, Target::AtLeastTimes(0.8)),
            Some(false)
        );
        assert_eq!(
            met(Unit::Milliseconds, 30.0, 10.0, Target::AtMostTimes(3.0)),
            Some(true)
        );
        assert_eq!(met(Unit::Milliseconds, 30.0, 10.0, Target::None), None);
        let skipped = Row {
            beside: Err("no peers".into()),
            ..row(Unit::Seconds, &[0.4], &[], Target::TimesFaster(3.0))
        };
        assert_eq!((skipped.met(), skipped.ratio()), (None, None));
    }

    #[test]
    fn a_low_rate_has_a_decimal() {
        let shown = [99.96, 100.4, 41.62].map(|rate| Unit::ChunksPerSecond.show(rate));
        assert_eq!(shown, ["100.0/s", "100/s", "41.6/s"]);
    }

    #[test]
    fn medians_and_ranks() {
        assert_eq!((median(&[3.0, 1.0, 2.0]), median(&[1.0, 2.0])), (2.0, 1.5));
        assert!(median(&[]).is_nan());
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((percentile(&hundred, 50), percentile(&hundred, 99)), (50.0, 99.0));
    }
}
