//! (a) The workload of Parallel Consumer's README: 10,000 records of 0 to 5 ms each, 1,000 keys, one partition, 100 in
//! flight, one output a record, all committed exactly once.
//!
//! Timed as its bench times it: from the first record processed to the moment at which the group's committed offset is
//! seen at the end of the topic. Both draw the same times for the same records.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result};
use millrace_flow::runner::Limits;

use super::report::{Row, Target, Unit};
use super::stages::{self, Setup, Simulated, uniform};
use super::timer::TimerThread;
use super::workload::Workload;
use super::{Lab, peers};

const RECORDS: u64 = 10_000;
const LONGEST: Duration = Duration::from_millis(5);
const IN_FLIGHT: usize = 100;

pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let workload = Workload {
        partitions: 1,
        ..Workload::new(RECORDS, 105)
    };
    let step = lab.progress.step("a: parallel work");
    let mut took = Vec::new();
    for run in 0..lab.runs {
        step.say(format!("Millrace, run {} of {}", run + 1, lab.runs));
        took.push(once(lab, &workload, run).await?);
    }
    let parallel_consumer = match &lab.peers {
        None => Err(peers::NONE.to_owned()),
        Some(peers) => {
            step.say("Parallel Consumer");
            Ok(peers.parallel_consumer(lab.runs, RECORDS).await?)
        }
    };
    step.done("measured");
    let row = |name: &str, yardstick, beside, target| Row {
        figure: "a",
        name: name.to_owned(),
        unit: Unit::Seconds,
        millrace: took.clone(),
        yardstick,
        beside,
        target,
    };
    Ok(vec![
        row(
            "10,000 records of 0 to 5 ms, to all committed",
            "the work alone, 100 at once",
            Ok(vec![floor()]),
            Target::AtMost(0.45),
        ),
        row(
            "the same",
            "Parallel Consumer, transactional",
            parallel_consumer,
            Target::TimesFaster(3.0),
        ),
    ])
}

/// Seconds that the work takes with as many at once, and nothing else.
fn floor() -> f64 {
    let work = (0..RECORDS as i64).map(|offset| uniform(0, offset));
    LONGEST.as_secs_f64() * work.sum::<f64>() / IN_FLIGHT as f64
}

/// Seconds to all committed.
async fn once(lab: &Lab, workload: &Workload, run: usize) -> Result<f64> {
    let input = lab.topic(&format!("a{run}.in"), workload.partitions).await?;
    let output = lab.topic(&format!("a{run}.out"), workload.partitions).await?;
    workload.fill(&lab.kafka, &input).await?;
    let setup = Setup {
        group: lab.name(&format!("a{run}")),
        instance: "0".into(),
        input: input.clone(),
        limits: Limits {
            max_in_flight: IN_FLIGHT,
            ..Limits::default()
        },
    };
    let timer = TimerThread::start()?;
    let first = Arc::<OnceLock<_>>::default();
    let service = Simulated {
        topic: output.as_str().into(),
        longest: LONGEST,
        timer: timer.timer(),
        slow: None,
        first: first.clone(),
    };
    let committed = lab.committed(&setup.group, &input, workload.partitions)?;
    let mut stage = stages::start(&lab.kafka, &setup, service);
    let end = stage.until_committed(committed, workload.ends()).await?;
    stage.stop().await?;
    let first = first.get().context("no record came")?;
    workload.verify(&lab.kafka, &output, None, |_| {}).await?;
    lab.remove(&[&input, &output], &[&setup.group]).await?;
    Ok(end.duration_since(*first).as_secs_f64())
}
