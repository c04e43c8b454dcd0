//! (c) What one stage adds to a record at low load: from the input's acknowledgement to the output in the hands of a
//! `read_committed` reader, beside one bare transaction from its begin to the same reader.
//!
//! One record at a time, at irregular moments; stage and bare transaction in turns.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use millrace_flow::runner::Limits;
use millrace_flow::{Headers, Output};
use millrace_kafka::yardstick::BareTransaction;
use millrace_kafka::{Producer, Tail, TailConfig, TailEvent, tail};
use rand::Rng;
use tokio::time::{sleep, timeout};

use super::report::{Row, Target, Unit, percentile};
use super::stages::{self, Echo, Setup};
use super::workload::{Workload, index_of};
use super::{Lab, PARTITIONS};

/// Records of a run.
const SAMPLES: u64 = 200;
/// Not counted: connections are made and metadata fetched.
const WARM_UP: u64 = 10;
const LIMIT: Duration = Duration::from_secs(60);

pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let step = lab.progress.step("c: latency");
    let (mut stage, mut bare) = (Vec::new(), Vec::new());
    for run in 0..lab.runs {
        step.say(format!("run {} of {}", run + 1, lab.runs));
        let (ours, theirs) = once(lab, run).await?;
        stage.push(ours);
        bare.push(theirs);
    }
    step.done("measured");
    let row = |percent, target| {
        let of = |runs: &[Vec<f64>]| runs.iter().map(|times| percentile(times, percent)).collect();
        Row {
            figure: "c",
            name: format!("one stage at low load, p{percent}"),
            unit: Unit::Milliseconds,
            millrace: of(&stage),
            yardstick: "one bare transaction",
            beside: Ok(of(&bare)),
            target,
        }
    };
    Ok(vec![row(50, Target::None), row(99, Target::AtMostTimes(3.0))])
}

/// Milliseconds of each record: through the stage, and in a bare transaction.
async fn once(lab: &Lab, run: usize) -> Result<(Vec<f64>, Vec<f64>)> {
    let input = lab.topic(&format!("c{run}.in"), PARTITIONS).await?;
    let output = lab.topic(&format!("c{run}.out"), PARTITIONS).await?;
    let bare_output = lab.topic(&format!("c{run}.bare"), PARTITIONS).await?;
    let workload = Workload::new(SAMPLES + WARM_UP, 200);
    let setup = Setup {
        group: lab.name(&format!("c{run}")),
        instance: "0".into(),
        input: input.clone(),
        limits: Limits::default(),
    };
    let service = Echo {
        topic: output.as_str().into(),
        text: None,
        first: Arc::<OnceLock<_>>::default(),
    };
    let mut stage = stages::start(&lab.kafka, &setup, service);
    let samples = async {
        let tail_of = |topic: &str| {
            tail(
                &lab.kafka,
                TailConfig {
                    topic: topic.to_owned(),
                    ..TailConfig::default()
                },
            )
        };
        let (mut through, mut beside) = (tail_of(&output)?, tail_of(&bare_output)?);
        let producer = Producer::new(&lab.kafka, "millrace-bench")?;
        let (kafka, topic, id) = (
            lab.kafka.clone(),
            bare_output.clone(),
            lab.name(&format!("c{run}.bare")),
        );
        let bare = tokio::task::spawn_blocking(move || BareTransaction::new(&kafka, &id, &topic)).await??;
        let bare = Arc::new(bare);
        let text = super::workload::prose();
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for index in 0..workload.records {
            let (key, value) = (workload.key(index), Workload::value(&text, index, workload.bytes));
            let record = Output {
                topic: input.clone(),
                partition: None,
                key: key.clone().into(),
                value: Some(value.clone().into()),
                headers: Headers::default(),
            };
            producer.send(record).await?;
            let since = Instant::now();
            let seen = arrival(&mut through, index).await?;
            ours.push(seen.saturating_duration_since(since));
            sleep(irregular()).await;

            let since = Instant::now();
            let writer = bare.clone();
            let written = tokio::task::spawn_blocking(move || writer.write(key.as_bytes(), &value));
            let seen = arrival(&mut beside, index).await?;
            written.await??;
            theirs.push(seen.saturating_duration_since(since));
            sleep(irregular()).await;
        }
        let counted = |times: Vec<Duration>| {
            let counted = times.into_iter().skip(WARM_UP as usize);
            counted.map(|time| time.as_secs_f64() * 1e3).collect::<Vec<_>>()
        };
        anyhow::Ok((counted(ours), counted(theirs)))
    };
    let samples = tokio::select! {
        samples = samples => samples?,
        error = stage.ended() => return Err(error),
    };
    stage.stop().await?;
    workload.verify(&lab.kafka, &output, None, |_| {}).await?;
    lab.remove(&[&input, &output, &bare_output], &[&setup.group]).await?;
    Ok(samples)
}

/// So that records meet every phase of whatever runs at intervals.
pub fn irregular() -> Duration {
    Duration::from_micros(rand::rng().random_range(20_000..50_000))
}

/// When the record was in the reader's hands.
async fn arrival(tail: &mut Tail, index: u64) -> Result<Instant> {
    let wait = async {
        while let Some(event) = tail.next().await {
            let now = Instant::now();
            if let TailEvent::Record(record) = event
                && record.value.as_deref().and_then(index_of) == Some(index)
            {
                return Some(now);
            }
        }
        None
    };
    let seen = timeout(LIMIT, wait).await.context("an output did not come")?;
    seen.context("the reader has died")
}
