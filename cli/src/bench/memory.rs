//! `millrace bench memory`: what a process holds at most while its stage is stalled in front of a large backlog.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use millrace_oracle::watch::peak_kib;
use serde::Deserialize;

use super::child::{self, Child, Kind, Process};
use super::report::{Row, Target, Unit};
use super::workload::Workload;
use super::{Lab, PARTITIONS};

const LIMIT_MIB: f64 = 512.0;
/// Neither the window nor the peak has grown for so long: it will not.
const STILL: Duration = Duration::from_secs(10);
const LIMIT: Duration = Duration::from_secs(120);

/// One line of the child's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
struct Held {
    records: u64,
    bytes: u64,
}

/// Fills a topic, lets a child run into it, and reads its VmHWM.
pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, records, bytes) in [
        ("1,000,000 of 2 KB", 1_000_000, 2000),
        ("50,000 of 50 KB", 50_000, 50_000),
    ] {
        let step = lab.progress.step(format!("memory: {name}"));
        let topic = format!("memory.{bytes}");
        let input = lab.topic(&format!("{topic}.in"), PARTITIONS).await?;
        let output = lab.topic(&format!("{topic}.out"), PARTITIONS).await?;
        step.say("filling its topic");
        Workload::new(records, bytes).fill(&lab.kafka, &input).await?;
        let (mut peaks, mut held) = (Vec::new(), Held { records: 0, bytes: 0 });
        for run in 0..lab.runs {
            step.say(format!("run {} of {}: the stage is stalled", run + 1, lab.runs));
            let child = Child {
                kind: Kind::Stalled,
                kafka: child::KafkaArgs::from(&lab.kafka),
                group: lab.name(&format!("{topic}.{run}")),
                input: input.clone(),
                output: output.clone(),
                mark: 0,
            };
            let (peak, last) = weigh(&child).await?;
            peaks.push(peak);
            held = last;
        }
        lab.remove(&[&input, &output], &[]).await?;
        step.done(format!(
            "holds {} records, {} MiB of them counted",
            held.records,
            held.bytes >> 20
        ));
        rows.push(Row {
            figure: "m",
            name: format!("peak memory of a stalled stage before {name}"),
            unit: Unit::Mebibytes,
            millrace: peaks,
            yardstick: "what its window counts",
            beside: Ok(vec![(held.bytes >> 20) as f64]),
            target: Target::Under(LIMIT_MIB),
        });
    }
    Ok(rows)
}

/// The child's peak in MiB once it no longer grows, and what it then holds.
async fn weigh(child: &Child) -> Result<(f64, Held)> {
    let mut process = Process::start(child)?;
    let id = process.id().context("the child ended at once")?;
    let began = Instant::now();
    let mut last = (Held { records: 0, bytes: 0 }, 0);
    let mut changed = began;
    loop {
        let held: Held = serde_json::from_str(&process.said().await?).context("the child says something else")?;
        let peak_kib = peak_kib(id.cast_signed()).context("this system has no /proc to read memory from")?;
        if (held, peak_kib) != last {
            last = (held, peak_kib);
            changed = Instant::now();
        }
        if held.records > 0 && changed.elapsed() >= STILL {
            process.kill().await?;
            return Ok((peak_kib as f64 / 1024.0, held));
        }
        if began.elapsed() > LIMIT {
            bail!("the stage did not come to rest within {} s: {last:?}", LIMIT.as_secs());
        }
    }
}
