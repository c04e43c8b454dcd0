//! What the model alone reaches: the yardstick beside which the pipeline's own figure stands.

use std::time::{Duration, Instant};

use crate::model::{Loaded, ModelError, ModelSource, TextError, Tokens};

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The model did not load.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A text that the model does not take.
    #[error("text {index} cannot be embedded: {source}")]
    Text {
        /// Its place in the list.
        index: usize,
        /// Why.
        source: TextError,
    },
    /// The model failed or gave a vector that is none.
    #[error("embedding failed: {0}")]
    Failed(String),
    /// Nothing to measure.
    #[error("there are no texts to measure with")]
    NoTexts,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Texts embedded.
    pub chunks: usize,
    /// Their tokens, padding not counted.
    pub tokens: usize,
    /// Time for tokenising, running and checking; loading the model is not in it.
    pub took: Duration,
    /// What tokenising took of that, on one thread.
    pub tokenising: Duration,
}

impl Measured {
    /// Chunks a second.
    pub fn chunks_per_second(&self) -> f64 {
        self.chunks as f64 / self.took.as_secs_f64().max(f64::EPSILON)
    }

    /// Chunks a second of the model, which is given tokens.
    pub fn of_the_model(&self) -> f64 {
        self.chunks as f64 / (self.took - self.tokenising).as_secs_f64().max(f64::EPSILON)
    }
}

/// Chunks a second of the model alone: no broker, no queue, every text known in advance, in batches of `batch` texts of
/// similar length. Blocking: it takes as long as the texts do, and loads a model of its own.
pub fn model_alone(source: &ModelSource, chunks: Vec<String>, batch: usize) -> Result<f64, BenchError> {
    Ok(measure(&mut Loaded::load(source)?, &chunks, batch)?.chunks_per_second())
}

/// The same with a model that is already loaded.
pub fn measure(model: &mut Loaded, chunks: &[String], batch: usize) -> Result<Measured, BenchError> {
    if chunks.is_empty() {
        return Err(BenchError::NoTexts);
    }
    let gate = model.gate();
    let start = Instant::now();
    let mut tokenised: Vec<Tokens> = chunks
        .iter()
        .enumerate()
        .map(|(index, text)| {
            model
                .tokenizer
                .tokenize(text)
                .map_err(|source| BenchError::Text { index, source })
        })
        .collect::<Result<_, _>>()?;
    let tokenising = start.elapsed();
    tokenised.sort_by_key(Tokens::len);
    for inputs in tokenised.chunks(batch.max(1)) {
        let inputs: Vec<&Tokens> = inputs.iter().collect();
        let vectors = model
            .backend
            .embed(&inputs)
            .map_err(|e| BenchError::Failed(e.to_string()))?;
        for vector in vectors {
            gate.pass(vector).map_err(|e| BenchError::Failed(e.to_string()))?;
        }
    }
    Ok(Measured {
        chunks: chunks.len(),
        tokens: tokenised.iter().map(Tokens::len).sum(),
        took: start.elapsed(),
        tokenising,
    })
}
