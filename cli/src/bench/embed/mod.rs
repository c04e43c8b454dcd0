//! `millrace bench embed`: the embedder's batches beside a bare loop over the same runtime, on real prose.
//!
//! Figure a: chunks a second, beside the best of a loop that knows all texts in advance, sorts them by length and is run with
//! batches of 1 to 64 texts (to 256 on a GPU), and whose time for tokenising is not counted. c: mixed lengths, beside batches in
//! the order of arrival with the same bounds, and of 32 texts however long. d: how long a query takes while documents saturate
//! the model, beside one batch of documents. Both sides judge every vector.

pub mod bare;
mod prose;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use millrace_embedder::batch::{BatchLimits, Class, Embedder, batcher};
use millrace_embedder::model::onnx::Gpu;
use millrace_embedder::model::openvino::OpenVino;
use millrace_embedder::model::{Choice, Loaded, Plan, Tokens};

use super::report::{Row, Target, Unit, median, percentile};
use crate::output::Progress;
use bare::{Bare, Model};
use prose::{Lengths, Prose};

/// What is measured, and on what.
#[derive(Debug)]
pub struct Setup {
    /// Model directory.
    pub model: PathBuf,
    /// The ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// OpenVINO's, with its precision and its streams.
    pub openvino: OpenVino,
    /// Backends to measure, those of this process.
    pub backends: Vec<Choice>,
    /// A GPU's session in this process.
    pub in_process: bool,
    /// Bounds of Millrace's batches, and of those in the order of arrival.
    pub limits: BatchLimits,
    /// Text files; none: the crates of the cargo registry.
    pub corpus: Option<PathBuf>,
    /// How often each figure is taken.
    pub runs: usize,
    /// Seconds that a figure is taken over, about.
    pub seconds: f64,
}

/// Chunks of a part, and parts in flight, as in the pipeline.
const PART: usize = 32;
const PARTS_IN_FLIGHT: usize = 64;
/// Of a device with large batches there must be more: so many batches' worth.
const BATCHES_IN_FLIGHT: usize = 8;
/// A batch of a loop that counts texts alone: sentence-transformers' default.
const TEXTS_OF_A_LOOP: usize = 32;
/// A query is about so long.
const QUERY_TOKENS: usize = 12;
const QUERIES: usize = 100;

/// Takes the figures.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let prose = Prose::gather(setup.corpus.as_deref())?;
    let mut rows = Vec::new();
    for &choice in &setup.backends {
        rows.extend(
            of_backend(setup, choice, &prose, progress)
                .await
                .with_context(|| format!("backend {}", choice.name()))?,
        );
    }
    Ok(rows)
}

async fn of_backend(setup: &Setup, choice: Choice, prose: &Prose, progress: &Progress) -> Result<Vec<Row>> {
    let model = Model {
        dir: setup.model.clone(),
        choice,
        onnxruntime: setup.onnxruntime.clone(),
        openvino: setup.openvino.clone(),
    };
    let on = model.on();
    let plan = Plan {
        dir: setup.model.clone(),
        backends: vec![choice],
        onnxruntime: setup.onnxruntime.clone(),
        threads: None,
        nice: 0,
        gpu: Gpu::default(),
        openvino: setup.openvino.clone(),
        own_process: if setup.in_process {
            Vec::new()
        } else {
            vec![Choice::Cuda]
        },
        program: std::env::current_exe()?,
        endpoint: None,
        call_limit: Duration::from_secs(60),
    };
    let step = progress.step(format!("{on}: loading"));
    let (bare, ours) = tokio::task::spawn_blocking(move || anyhow::Ok((model.load()?, plan.open()?))).await??;
    step.done("loaded");
    let tokenizer = bare.tokenizer.clone();
    let (embedder, batches) = batcher(ours, setup.limits.clone());
    let batches = tokio::spawn(batches.run());
    let mut lab = Lab {
        setup,
        choice,
        on,
        in_flight: PARTS_IN_FLIGHT.max(BATCHES_IN_FLIGHT * setup.limits.max_batch_texts / PART),
        embedder,
        bare: Bare::new(bare),
        rows: Vec::new(),
    };
    for lengths in [
        Lengths::About(64),
        Lengths::About(128),
        Lengths::About(200),
        Lengths::Mixed,
    ] {
        let step = progress.step(format!("{}: {lengths}", lab.on));
        let texts = |count: usize| prose.texts(&tokenizer, lengths, count);
        lab.throughput(lengths, texts, |what| step.say(what)).await?;
        step.done("measured");
    }
    let step = progress.step(format!("{}: queries", lab.on));
    lab.queries(
        prose.texts(&tokenizer, Lengths::About(128), 4_096),
        prose.texts(&tokenizer, Lengths::About(QUERY_TOKENS), QUERIES),
    )
    .await?;
    step.done("measured");
    let Lab { rows, embedder, .. } = lab;
    drop(embedder);
    batches.await??;
    Ok(rows)
}

struct Lab<'a> {
    setup: &'a Setup,
    choice: Choice,
    on: String,
    in_flight: usize,
    embedder: Embedder,
    bare: Bare,
    rows: Vec<Row>,
}

impl Lab<'_> {
    /// Figure a, and c for mixed lengths.
    async fn throughput(
        &mut self,
        lengths: Lengths,
        texts: impl Fn(usize) -> Vec<String>,
        say: impl Fn(String),
    ) -> Result<()> {
        let warm = texts(64);
        self.bare.warm_up(&warm).await?;
        ours(&self.embedder, &warm, self.in_flight).await?;
        let rate = self.bare.rate(&warm, 16).await?.max(self.bare.rate(&warm, 64).await?);
        let count = (rate * self.setup.seconds).clamp(64.0, 100_000.0) as usize;
        let texts = texts(count);
        let (batch, yardstick) = self.bare.best(self.choice, &texts, &say).await?;
        let (mut loops, mut batched, mut bounded, mut counted) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for run in 0..self.setup.runs {
            say(format!("{count} chunks, run {} of {}", run + 1, self.setup.runs));
            loops.push(self.bare.rate(&texts, batch).await?);
            batched.push(ours(&self.embedder, &texts, self.in_flight).await?);
            if lengths == Lengths::Mixed {
                bounded.push(self.in_order_of_arrival(&texts, self.setup.limits.clone()).await?);
                counted.push(self.in_order_of_arrival(&texts, by_count()).await?);
            }
        }
        let tokens = self.tokens(&texts).await?;
        let tokens_per_second = median(&batched) * tokens as f64 / texts.len() as f64;
        let name = &self.on;
        self.rows.push(Row {
            figure: "a",
            name: format!("{name}, {lengths}: {tokens_per_second:.0} tokens/s"),
            unit: Unit::ChunksPerSecond,
            millrace: batched.clone(),
            yardstick,
            beside: Ok(loops),
            target: Target::AtLeastTimes(0.95),
        });
        if lengths == Lengths::Mixed {
            let beside = [
                ("batches in order of arrival, same bounds", bounded),
                ("32 texts in order of arrival", counted),
            ];
            self.rows.extend(beside.map(|(yardstick, rates)| Row {
                figure: "c",
                name: format!("{name}, {lengths}"),
                unit: Unit::ChunksPerSecond,
                millrace: batched.clone(),
                yardstick,
                beside: Ok(rates),
                target: Target::AtLeastTimes(1.5),
            }));
        }
        Ok(())
    }

    async fn tokens(&mut self, texts: &[String]) -> Result<usize> {
        let texts = texts.to_vec();
        self.bare
            .with(move |model| Ok(tokenised(model, &texts)?.iter().map(Tokens::len).sum()))
            .await
    }

    /// Chunks a second of batches with these bounds, filled as texts come.
    async fn in_order_of_arrival(&mut self, texts: &[String], limits: BatchLimits) -> Result<f64> {
        let texts = texts.to_vec();
        self.bare
            .with(move |model| {
                let gate = model.gate();
                let tokens = tokenised(model, &texts)?;
                let began = Instant::now();
                for batch in arrivals(&tokens, &limits) {
                    let inputs: Vec<&Tokens> = batch.iter().collect();
                    for vector in model.backend.embed(&inputs)? {
                        gate.pass(vector)?;
                    }
                }
                Ok(tokens.len() as f64 / began.elapsed().as_secs_f64())
            })
            .await
    }

    /// Figure d.
    async fn queries(&mut self, documents: Vec<String>, queries: Vec<String>) -> Result<()> {
        let batch_ms = self.batch_ms(&documents).await?;
        let (mut p99, mut idle) = (Vec::new(), Vec::new());
        for _ in 0..self.setup.runs {
            idle.push(percentile(&ask(&self.embedder, &queries).await?, 99));
            let bulk = async {
                loop {
                    ours(&self.embedder, &documents, self.in_flight).await?;
                }
            };
            let asked = async {
                // Until the waiting room is full.
                ours(&self.embedder, &documents[..64], self.in_flight).await?;
                ask(&self.embedder, &queries).await
            };
            let never: Result<f64> = tokio::select! {
                ended = bulk => ended,
                asked = asked => asked.map(|times| percentile(&times, 99)),
            };
            p99.push(never?);
        }
        let name = &self.on;
        self.rows.push(Row {
            figure: "d",
            name: format!(
                "{name}, a query's p99 while documents saturate the model (idle: {:.1} ms)",
                median(&idle)
            ),
            unit: Unit::Milliseconds,
            millrace: p99,
            yardstick: "one full batch of documents",
            beside: Ok(batch_ms),
            target: Target::AtMostTimes(2.0),
        });
        Ok(())
    }

    /// How long a full batch takes, one a run.
    async fn batch_ms(&mut self, documents: &[String]) -> Result<Vec<f64>> {
        let (texts, limits, runs) = (documents.to_vec(), self.setup.limits.clone(), self.setup.runs);
        self.bare
            .with(move |model| {
                let tokens = tokenised(model, &texts)?;
                let batch = arrivals(&tokens, &limits).next().context("no documents")?;
                let inputs: Vec<&Tokens> = batch.iter().collect();
                let once = |_| {
                    let began = Instant::now();
                    model.backend.embed(&inputs)?;
                    Ok(began.elapsed().as_secs_f64() * 1e3)
                };
                (0..=runs).map(once).skip(1).collect()
            })
            .await
    }
}

fn tokenised(model: &Loaded, texts: &[String]) -> Result<Vec<Tokens>> {
    texts.iter().map(|text| Ok(model.tokenizer.tokenize(text)?)).collect()
}

/// Chunks a second through the batcher.
async fn ours(embedder: &Embedder, texts: &[String], in_flight: usize) -> Result<f64> {
    let began = Instant::now();
    let parts = texts
        .chunks(PART)
        .map(|part| embedder.embed(part.to_vec(), Class::Document));
    let done: Vec<usize> = stream::iter(parts)
        .buffer_unordered(in_flight)
        .map_ok(|vectors| vectors.len())
        .try_collect()
        .await?;
    let embedded: usize = done.into_iter().sum();
    if embedded != texts.len() {
        bail!("{embedded} vectors for {} texts", texts.len());
    }
    Ok(embedded as f64 / began.elapsed().as_secs_f64())
}

/// Milliseconds of each query, one after another.
async fn ask(embedder: &Embedder, queries: &[String]) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(queries.len());
    for query in queries {
        let began = Instant::now();
        embedder.embed(vec![query.clone()], Class::Query).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    Ok(times)
}

/// As loops in Python are written: so many texts at a time, however long.
fn by_count() -> BatchLimits {
    BatchLimits {
        max_batch_texts: TEXTS_OF_A_LOOP,
        max_batch_tokens: usize::MAX,
        ..BatchLimits::default()
    }
}

/// Cuts what comes as it comes, within the bounds.
fn arrivals<'a>(tokens: &'a [Tokens], limits: &'a BatchLimits) -> impl Iterator<Item = &'a [Tokens]> {
    let mut left = tokens;
    std::iter::from_fn(move || {
        let (mut rows, mut longest) = (0, 0);
        for text in left {
            let wider = longest.max(text.len());
            if rows > 0 && (rows == limits.max_batch_texts || (rows + 1) * wider > limits.max_batch_tokens) {
                break;
            }
            (rows, longest) = (rows + 1, wider);
        }
        let (batch, rest) = left.split_at(rows);
        left = rest;
        (rows > 0).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_in_order_of_arrival_keep_the_bounds() {
        let tokens = |len: usize| Tokens {
            ids: vec![1; len].into(),
            types: vec![0; len].into(),
            text: None,
        };
        let texts: Vec<Tokens> = [50, 10, 40, 5, 200, 5].map(tokens).into();
        let limits = BatchLimits {
            max_batch_tokens: 100,
            ..BatchLimits::default()
        };
        let lengths: Vec<Vec<usize>> = arrivals(&texts, &limits)
            .map(|batch| batch.iter().map(Tokens::len).collect())
            .collect();
        assert_eq!(lengths, [vec![50, 10], vec![40, 5], vec![200], vec![5]]);
    }
}
