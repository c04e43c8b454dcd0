//! `millrace bench pipeline`: from Submit to searchable, on whole stacks of its own.
//!
//! One file a figure: [`model`] (b), [`free`] (e), [`tenants`] (g). [`super::documents`] is what goes in, [`searchable`] what has
//! come out, [`super::processor`] who has used the cores. Services make no traces: what those cost is `bench trace`'s to say.
//!
//! Each document is to become searchable once, and some of them are searched for.

mod free;
mod model;
mod searchable;
mod tenants;

use std::path::PathBuf;

use anyhow::{Context, Result};
use millrace_embedder::batch::BatchLimits;

use super::embed::bare::Model;
use super::report::Row;
use crate::output::Progress;

/// One figure of `bench pipeline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Figure {
    /// With the real model, beside a bare loop of it
    B,
    /// With a model that costs nothing, and where the time goes
    E,
    /// A small tenant beside one that submits a hundred times as much
    G,
}

/// All of them.
pub const FIGURES: [Figure; 3] = [Figure::B, Figure::E, Figure::G];

/// What is measured, and on what.
#[derive(Debug)]
pub struct Setup {
    /// These.
    pub figures: Vec<Figure>,
    /// Documents of a run; none: as many as the figure has by itself.
    pub documents: Option<usize>,
    /// Text files; none: the crates of the cargo registry.
    pub corpus: Option<PathBuf>,
    /// How often each figure is taken.
    pub runs: usize,
    /// The real model: the bare loop's. A stack's embedder has its own directory, which holds the same.
    pub model: Model,
    /// A GPU's session in the embedder's process.
    pub in_process: bool,
    /// Bounds of the embedder's batches.
    pub limits: BatchLimits,
}

impl Setup {
    /// What makes a stack's embedder run the model so.
    fn environment(&self) -> Vec<(String, String)> {
        let own_process = if self.in_process { "[]" } else { r#"["cuda"]"# };
        let (model, limits) = (&self.model, &self.limits);
        let variables = [
            ("ONNXRUNTIME", model.onnxruntime.display().to_string()),
            ("MODEL__OPENVINO__LIBRARY", model.openvino.library.display().to_string()),
            ("MODEL__OPENVINO__PRECISION", model.openvino.precision.name().to_owned()),
            ("MODEL__BACKENDS", format!("[{:?}]", model.choice.name())),
            ("MODEL__OWN_PROCESS", own_process.to_owned()),
            ("BATCH__MAX_BATCH_TOKENS", limits.max_batch_tokens.to_string()),
            ("BATCH__MAX_BATCH_TEXTS", limits.max_batch_texts.to_string()),
            ("BATCH__PREPARED_BATCHES", limits.prepared_batches.to_string()),
            ("BATCH__MAX_WAITING_TOKENS", limits.max_waiting_tokens.to_string()),
        ];
        let streams = model
            .openvino
            .streams
            .map(|streams| ("MODEL__OPENVINO__STREAMS", streams.to_string()));
        let named = |(key, value)| (format!("MILLRACE_EMBEDDER_{key}"), value);
        variables.into_iter().chain(streams).map(named).collect()
    }
}

/// Takes the figures.
pub async fn run(setup: &Setup, progress: &Progress) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for figure in &setup.figures {
        rows.extend(match figure {
            Figure::B => model::run(setup, progress).await.context("bench b")?,
            Figure::E => free::run(setup, progress).await.context("bench e")?,
            Figure::G => tenants::run(setup, progress).await.context("bench g")?,
        });
    }
    Ok(rows)
}
