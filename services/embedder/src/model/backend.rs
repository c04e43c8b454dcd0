//! What computes: the seam between the batcher and whatever runs the model.

use std::time::Duration;

use super::canary;
use super::pooling::Gate;
use super::tokenizer::{Tokenizer, Tokens};

/// The device of what does not compute in this process.
pub const REMOTE: &str = "remote";

/// What a backend says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// For example `onnxruntime`.
    pub name: &'static str,
    /// Its version, as it says itself; of an endpoint, the model that it is asked for.
    pub version: String,
    /// For example `cpu` or `cuda:0`; `remote` for an endpoint.
    pub device: String,
    /// What it computes in: `f32`, `bf16`; `unknown` of an endpoint.
    pub precision: &'static str,
    /// Threads of this process that it computes with.
    pub threads: usize,
    /// Parts of a batch that it computes at once, each with as many of its threads: a batch is to have a multiple of so many
    /// texts. 1 where it takes a batch as a whole.
    pub streams: usize,
    /// Whether a text's vector is the same to 1e-5 whatever else is in its batch. Where it is not, none is remembered: a cache
    /// would make the company of one batch last.
    pub batch_independent: bool,
    /// The preferred backend, while this one stands in for it.
    pub stands_in_for: Option<&'static str>,
}

impl Description {
    /// Nothing is known of it but its name, as long as it has not been made.
    pub fn of_none(name: &'static str) -> Self {
        Self {
            name,
            version: String::new(),
            device: "none".into(),
            precision: "unknown",
            threads: 0,
            streams: 1,
            batch_independent: true,
            stands_in_for: None,
        }
    }
}

/// Why a backend did not compute a batch. None of these texts quotes an input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BackendError {
    /// It failed: one input's fault or its own. Who has the batch finds out.
    #[error("{0}")]
    Failed(String),
    /// It refuses the batch for what one of the inputs is.
    #[error("{0}")]
    Refused(String),
    /// It has no memory for a batch of this size.
    #[error("{0}")]
    TooLarge(String),
    /// It computes nothing now: nothing is said about the inputs.
    #[error(transparent)]
    Outage(#[from] Outage),
}

impl BackendError {
    /// Of what a runtime said that has no code for a lack of memory: `no_memory` are words that it has for it.
    pub(super) fn said(text: String, no_memory: &[&str]) -> Self {
        match no_memory.iter().any(|words| text.contains(words)) {
            true => Self::TooLarge(text),
            false => Self::Failed(text),
        }
    }
}

/// Why a backend computes nothing, whatever it is given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Outage {
    /// It is away, or what it gives is of no use.
    #[error("{0}")]
    Broken(String),
    /// It asks for patience.
    #[error("it asks for patience")]
    RateLimited {
        /// For so long.
        retry_after: Duration,
    },
    /// It refuses us, or does not know what it is asked for: somebody has to correct a configuration.
    #[error("{0}")]
    Config(String),
}

/// Ends a call that hangs.
pub type Interrupt = Box<dyn Fn() + Send>;

/// Runs a model. Called from one thread of its own and allowed to block it.
pub trait Backend: Send + 'static {
    /// One vector per input, in order, pooled but neither scaled nor judged: [`super::Gate`] does that. An input's
    /// vector must not depend on the others beyond the rounding of what it computes in; [`Description::batch_independent`]
    /// says how much that is.
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError>;

    /// Whether it computes: asked of it, not of its absence of errors.
    fn canary(&mut self, tokenizer: &Tokenizer, gate: Gate) -> Result<(), Outage> {
        canary::sing(tokenizer, gate, |inputs| self.embed(inputs))
    }

    /// Ends a call that hangs, from another thread, where that is possible.
    fn interrupt(&self) -> Option<Interrupt> {
        None
    }

    /// Which of several instances computes: another number once another one does.
    fn incarnation(&self) -> u64 {
        0
    }

    /// What this is.
    fn describe(&self) -> Description;
}
