//! `millrace bench pipeline`: from Submit to searchable, on whole stacks of its own.
//!
//! One file a figure: [`model`] (b), [`free`] (e), [`tenants`] (g). [`documents`] is what goes in, [`searchable`] what has
//! come out, [`processor`] who has used the cores. Services make no traces: what those cost is `bench trace`'s to say.
//!
//! Each document is to become searchable once, and some of them are searched for.

mod documents;
mod free;
mod model;
mod processor;
mod searchable;
mod tenants;

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::report::Row;
use crate::output::Progress;
use crate::stack::fetch::Cache;

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
    /// Where model and runtime are.
    pub cache: Cache,
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
