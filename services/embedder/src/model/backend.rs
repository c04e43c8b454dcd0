//! What computes: the seam between the batcher and whatever runs the model.

use super::tokenizer::Tokens;

/// What a backend says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For example `onnxruntime`.
    pub name: &'static str,
    /// Its version, as it says itself.
    pub version: String,
    /// For example `cpu`.
    pub device: &'static str,
    /// Threads it computes with.
    pub threads: usize,
}

/// The backend did not compute a batch. It may be one input's fault or the backend's: who has the batch finds out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BackendError(pub String);

/// Runs a model. Called from one thread of its own and allowed to block it.
pub trait Backend: Send + 'static {
    /// One vector per input, in order, pooled but neither scaled nor judged: [`super::Gate`] does that. An input's
    /// vector must not depend on the others beyond rounding.
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError>;

    /// What this is.
    fn describe(&self) -> Description;
}
