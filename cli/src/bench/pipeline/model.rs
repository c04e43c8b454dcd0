//! (b) Submit to searchable with the real model, beside the best bare loop of the same runtime over the same
//! chunks.
//!
//! One after the other: no loop while a stack runs, no stack while a loop runs.

use anyhow::{Context, Result, ensure};
use millrace_testkit::Client;

use super::super::documents::{Prose, notes};
use super::super::embed::bare::{Bare, Batches};
use super::super::report::{Row, Target, Unit};
use super::super::whole;
use super::Setup;
use super::searchable::{Searchable, found};
use crate::output::Progress;

/// Of a run.
const DOCUMENTS: usize = 60;
/// Short documents before the clock starts: the broker's code is compiled as it runs, which takes both cores for as long.
const FIRST: usize = 5000;
/// One text in so many is enough to find the loop's batches.
const SWEPT: usize = 4;
/// Texts that the loop's session has run before it is measured.
const WARM_UP: usize = 64;

/// Runs in pairs; which goes first alternates.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let step = progress.step("b: the real model");
    let bench = Bench::prepare(setup, |what| step.say(what)).await?;
    let (documents, chunks) = (bench.prose.documents.len(), bench.prose.chunks.len());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for run in 0..setup.runs {
        for whole in [run % 2 == 0, run % 2 == 1] {
            let what = if whole { "submit to searchable" } else { bench.batches.1 };
            step.say(format!("{chunks} chunks, {what}, run {} of {}", run + 1, setup.runs));
            if whole {
                ours.push(bench.whole().await.context(what)?);
            } else {
                bare.push(bench.bare().await.context(what)?);
            }
        }
    }
    step.done("measured");
    Ok(vec![Row {
        figure: "b",
        name: format!(
            "submit to searchable, real model on {}, {documents} documents of prose, {chunks} chunks",
            setup.model.on()
        ),
        unit: Unit::ChunksPerSecond,
        millrace: ours,
        yardstick: bench.batches.1,
        beside: Ok(bare),
        target: Target::AtLeastTimes(0.90),
    }])
}

struct Bench<'a> {
    setup: &'a Setup,
    prose: Prose,
    batches: Batches,
}

impl<'a> Bench<'a> {
    async fn prepare(setup: &'a Setup, say: impl Fn(String)) -> Result<Self> {
        let (corpus, model) = (setup.corpus.clone(), setup.model.dir.clone());
        let documents = setup.documents.unwrap_or(DOCUMENTS);
        let gather = move || Prose::gather(corpus.as_deref(), &model, documents);
        let prose = tokio::task::spawn_blocking(gather).await??;
        let mut bench = Self {
            setup,
            prose,
            batches: Batches::default(),
        };
        let some: Vec<String> = bench.prose.chunks.iter().step_by(SWEPT).cloned().collect();
        bench.batches = bench.loaded().await?.best(setup.model.choice, &some, say).await?;
        Ok(bench)
    }

    async fn loaded(&self) -> Result<Bare> {
        let chunks = &self.prose.chunks;
        Bare::load(self.setup.model.clone(), &chunks[..WARM_UP.min(chunks.len())]).await
    }

    /// Chunks a second of the loop.
    async fn bare(&self) -> Result<f64> {
        self.loaded().await?.rate(&self.prose.chunks, self.batches.0).await
    }

    /// Chunks a second of a whole stack.
    async fn whole(&self) -> Result<f64> {
        whole::on_stack(self.setup.environment(), false, async |stack| {
            let client = Client::new(&stack.addresses, "bench")?;
            let mut searchable = Searchable::of(stack).await?;
            searchable.pass(&client, &notes("first", FIRST)).await?;
            let passed = searchable.pass(&client, &self.prose.documents).await?;
            ensure!(
                passed.chunks == self.prose.chunks.len(),
                "{} chunks became searchable, the loop has {}",
                passed.chunks,
                self.prose.chunks.len()
            );
            found(&client, &self.prose.documents).await?;
            Ok(passed.chunks_per_second())
        })
        .await
    }
}
