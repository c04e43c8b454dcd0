//! (e) One instance is killed by SIGKILL in the middle of its work and started again at once: from that start to the
//! first output of the new process in the hands of a `read_committed` reader. The bare loop, with the same static
//! membership and time-outs, is killed and started the same way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use millrace_kafka::{Tail, TailConfig, TailEvent, tail};
use tokio::time::timeout;

use super::child::{self, Child, Kind, Process};
use super::report::{Row, Target, Unit};
use super::workload::Workload;
use super::{Lab, PARTITIONS, stages};

const RECORDS: u64 = 300_000;
/// Outputs seen before the kill.
const BEFORE: u64 = 50_000;
const LIMIT: Duration = Duration::from_secs(120);

pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let step = lab.progress.step("e: kill and restart");
    let workload = Workload::new(RECORDS, 200);
    let input = lab.topic("e.in", PARTITIONS).await?;
    workload.fill(&lab.kafka, &input).await?;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..lab.runs {
        step.say(format!("run {} of {}", run + 1, lab.runs));
        ours.push(once(lab, &workload, &input, Kind::Echo, &format!("e.{run}.stage")).await?);
        bare.push(once(lab, &workload, &input, Kind::Loop, &format!("e.{run}.bare")).await?);
    }
    lab.remove(&[&input], &[]).await?;
    step.done("measured");
    Ok(vec![Row {
        figure: "e",
        name: "kill -9 and restart, to the first output".into(),
        unit: Unit::Seconds,
        millrace: ours,
        yardstick: "a bare loop of the same client",
        beside: Ok(bare),
        target: Target::AtMost(2.0),
    }])
}

async fn once(lab: &Lab, workload: &Workload, input: &str, kind: Kind, name: &str) -> Result<f64> {
    let output = lab.topic(name, PARTITIONS).await?;
    let group = lab.name(name);
    let child = |mark| Child {
        kind,
        kafka: child::KafkaArgs::from(&lab.kafka),
        group: group.clone(),
        input: input.to_owned(),
        output: output.clone(),
        mark,
    };
    let config = TailConfig {
        topic: output.clone(),
        ..TailConfig::default()
    };
    let mut reader = tail(&lab.kafka, config)?;
    let mut first = Process::start(&child(1))?;
    marked(&mut reader, b" 1", BEFORE, &mut first).await?;
    first.kill().await?;

    let since = Instant::now();
    let mut second = Process::start(&child(2))?;
    let seen = marked(&mut reader, b" 2", 1, &mut second).await?;
    drop(reader);
    let committed = lab.committed(&group, input, PARTITIONS)?;
    tokio::select! {
        all = stages::all_committed(committed, workload.ends()) => all?,
        error = second.ended() => return Err(error),
    };
    second.kill().await?;
    workload.verify(&lab.kafka, &output, None, |_| {}).await?;
    // The group's member is away, and not gone before its session ends: the group cannot be deleted yet.
    lab.remove(&[&output], &[]).await?;
    Ok(seen.duration_since(since).as_secs_f64())
}

/// Waits for so many outputs of a process; when the last of them came.
async fn marked(reader: &mut Tail, mark: &[u8], count: u64, process: &mut Process) -> Result<Instant> {
    let wait = async {
        let mut left = count;
        while let Some(event) = reader.next().await {
            let now = Instant::now();
            if let TailEvent::Record(record) = event
                && record.value.is_some_and(|value| value.ends_with(mark))
            {
                left -= 1;
                if left == 0 {
                    return Ok(now);
                }
            }
        }
        anyhow::bail!("the reader has died")
    };
    tokio::select! {
        seen = timeout(LIMIT, wait) => seen.context("no output came")?,
        error = process.ended() => Err(error),
    }
}
