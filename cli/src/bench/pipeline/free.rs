//! (e) Submit to searchable with a model that costs nothing, and the processor time of each process meanwhile.

use anyhow::{Context, Result};
use millrace_testkit::{Client, ModelEndpoint, Stack};

use super::super::documents::of_short_chunks;
use super::super::processor;
use super::super::report::{Row, Target, Unit};
use super::super::whole;
use super::Setup;
use super::searchable::{Passed, Searchable, found};
use crate::output::Progress;

/// Of a run.
const DOCUMENTS: usize = 1000;
/// Before the clock starts: connections, schemas and caches are made, and the broker's code is compiled.
const FIRST: usize = 500;
const GOAL: f64 = 3000.0;

/// One run.
struct Ran {
    passed: Passed,
    /// Seconds of each process.
    used: Vec<(String, f64)>,
}

/// Each run on a stack of its own.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let documents = setup.documents.unwrap_or(DOCUMENTS);
    let step = progress.step("e: a model that costs nothing");
    let mut runs = Vec::new();
    for run in 0..setup.runs {
        step.say(format!("{documents} documents, run {} of {}", run + 1, setup.runs));
        runs.push(once(documents).await?);
    }
    step.done("measured");
    rows(documents, &runs)
}

async fn once(documents: usize) -> Result<Ran> {
    let model = ModelEndpoint::start(whole::DIMENSIONS, None).await?;
    whole::on_stack(model.environment(), false, async |stack| {
        measured(stack, documents).await
    })
    .await
}

async fn measured(stack: &Stack, documents: usize) -> Result<Ran> {
    let client = Client::new(&stack.addresses, "bench")?;
    let mut searchable = Searchable::of(stack).await?;
    searchable.pass(&client, &of_short_chunks("first", FIRST)).await?;
    let documents = of_short_chunks("measured", documents);
    let before = processor::used(stack)?;
    let passed = searchable.pass(&client, &documents).await?;
    let mut used = processor::used(stack)?;
    for ((_, seconds), (_, before)) in used.iter_mut().zip(before) {
        *seconds -= before;
    }
    found(&client, &documents).await?;
    Ok(Ran { passed, used })
}

fn rows(documents: usize, runs: &[Ran]) -> Result<Vec<Row>> {
    let processes = &runs.first().context("no run")?.used;
    let row = |name, unit, millrace, target| Row {
        figure: "e",
        name,
        unit,
        millrace,
        yardstick: "",
        beside: Ok(Vec::new()),
        target,
    };
    let mut rows = vec![row(
        format!("submit to searchable, a model that costs nothing, {documents} documents of short chunks"),
        Unit::ChunksPerSecond,
        runs.iter().map(|ran| ran.passed.chunks_per_second()).collect(),
        Target::AtLeast(GOAL),
    )];
    rows.extend(processes.iter().enumerate().map(|(at, (process, _))| {
        let of_a_thousand = |ran: &Ran| 1000.0 * ran.used[at].1 / ran.passed.chunks as f64;
        row(
            format!("processor time of {process}, 1,000 chunks"),
            Unit::Seconds,
            runs.iter().map(of_a_thousand).collect(),
            Target::None,
        )
    }));
    Ok(rows)
}
