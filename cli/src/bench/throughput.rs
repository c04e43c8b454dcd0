//! (b) Records a second through one stage that does nothing, beside a bare loop of the same client, and beside Java's.
//!
//! Stage and bare loop are timed alike: from the first record that they see to the moment at which all is committed.

use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use millrace_flow::runner::Limits;
use millrace_kafka::yardstick::{LoopConfig, bare_loop};

use super::report::{Row, Target, Unit};
use super::stages::{self, Echo, Setup, Text};
use super::workload::{Workload, prose};
use super::{Lab, PARTITIONS, peers};

/// Records, bytes in, bytes out of Java's loop.
const JAVA: (u64, usize, usize) = (200_000, 700, 2300);

/// A broker that has just started compiles its code while it runs: what is measured first would pay for it.
pub async fn warm_up(lab: &Lab) -> Result<()> {
    let step = lab.progress.step("warming up");
    step.say("a bare loop and a stage over 200,000 records");
    let bench = Bench::new(lab, Workload::new(200_000, 200), None, "warm").await?;
    bench.bare(0).await?;
    bench.stage(0).await?;
    bench.end().await?;
    step.done("done");
    Ok(())
}

pub async fn run(lab: &Lab) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (name, records, bytes) in [("200 B", 400_000, 200), ("50 KB", 8000, 50_000)] {
        let step = lab.progress.step(format!("b: {name}"));
        let (mut ours, mut bare) = (Vec::new(), Vec::new());
        let bench = Bench::new(lab, Workload::new(records, bytes), None, name).await?;
        for run in 0..lab.runs {
            step.say(format!("run {} of {}", run + 1, lab.runs));
            ours.push(bench.stage(run).await?);
            bare.push(bench.bare(run).await?);
        }
        bench.end().await?;
        step.done("measured");
        rows.push(Row {
            figure: "b",
            name: format!("a stage that does nothing, records of {name}"),
            unit: Unit::RecordsPerSecond,
            millrace: ours,
            yardstick: "a bare loop of the same client",
            beside: Ok(bare),
            target: Target::AtLeastTimes(0.8),
        });
    }
    rows.push(beside_java(lab).await?);
    Ok(rows)
}

async fn beside_java(lab: &Lab) -> Result<Row> {
    let step = lab.progress.step("b: 700 B to 2.3 KB");
    let (records, from, to) = JAVA;
    let text = prose();
    let bench = Bench::new(
        lab,
        Workload::new(records, from),
        Some(Text::Prose(text.clone(), to)),
        "java",
    )
    .await?;
    let mut ours = Vec::new();
    let mut java = match &lab.peers {
        None => Err(peers::NONE.to_owned()),
        Some(_) => Ok(Vec::new()),
    };
    for run in 0..lab.runs {
        step.say(format!("run {} of {}", run + 1, lab.runs));
        ours.push(bench.stage(run).await?);
        if let (Some(peers), Ok(java)) = (&lab.peers, &mut java) {
            java.push(peers.java_loop(JAVA, &text).await?);
        }
    }
    bench.end().await?;
    step.done("measured");
    Ok(Row {
        figure: "b",
        name: "a stage that turns 700 B into 2.3 KB".into(),
        unit: Unit::RecordsPerSecond,
        millrace: ours,
        yardstick: "Java's client, one thread",
        beside: java,
        target: Target::AtLeastTimes(1.0),
    })
}

/// One input topic, read again and again.
struct Bench<'l> {
    lab: &'l Lab,
    workload: Workload,
    text: Option<Text>,
    input: String,
    name: String,
}

impl<'l> Bench<'l> {
    async fn new(lab: &'l Lab, workload: Workload, text: Option<Text>, name: &str) -> Result<Self> {
        let name = name.replace(' ', "");
        let input = lab.topic(&format!("b.{name}.in"), PARTITIONS).await?;
        workload.fill(&lab.kafka, &input).await?;
        Ok(Self {
            lab,
            workload,
            text,
            input,
            name,
        })
    }

    async fn stage(&self, run: usize) -> Result<f64> {
        let name = format!("b.{}.{run}.stage", self.name);
        let output = self.lab.topic(&name, PARTITIONS).await?;
        let setup = Setup {
            group: self.lab.name(&name),
            instance: "0".into(),
            input: self.input.clone(),
            limits: Limits::default(),
        };
        let first = Arc::<OnceLock<_>>::default();
        let service = Echo {
            topic: output.as_str().into(),
            text: self.text.clone(),
            first: first.clone(),
        };
        let committed = self.lab.committed(&setup.group, &self.input, PARTITIONS)?;
        let mut stage = stages::start(&self.lab.kafka, &setup, service);
        let end = stage.until_committed(committed, self.workload.ends()).await?;
        stage.stop().await?;
        let first = first.get().context("no record came")?;
        let seconds = end.duration_since(*first).as_secs_f64();
        self.verified(&output, &setup.group, seconds).await
    }

    async fn bare(&self, run: usize) -> Result<f64> {
        let name = format!("b.{}.{run}.bare", self.name);
        let output = self.lab.topic(&name, PARTITIONS).await?;
        let group = self.lab.name(&name);
        let config = LoopConfig {
            group: group.clone(),
            instance: "0".into(),
            input: self.input.clone(),
            output: output.clone(),
            records: Some(self.workload.records),
        };
        let (kafka, text) = (self.lab.kafka.clone(), self.text.clone());
        let transform = move |input: &[u8], value: &mut Vec<u8>| {
            if let Some(text) = &text {
                *value = text.write(input);
            }
        };
        let report = tokio::task::spawn_blocking(move || bare_loop(&kafka, &config, transform)).await??;
        self.verified(&output, &group, report.took.as_secs_f64()).await
    }

    /// Records a second, if the outputs are right.
    async fn verified(&self, output: &str, group: &str, seconds: f64) -> Result<f64> {
        self.workload.verify(&self.lab.kafka, output, None, |_| {}).await?;
        self.lab.remove(&[output], &[group]).await?;
        Ok(self.workload.records as f64 / seconds)
    }

    async fn end(self) -> Result<()> {
        self.lab.remove(&[&self.input], &[]).await
    }
}
