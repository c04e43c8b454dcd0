//! The model's own thread: runs batches, finds the input that a failure is about, and asks the canary.

use tokio::sync::{mpsc, watch};

use crate::model::{Backend, Gate, Loaded, Tokenizer, Tokens, canary};

/// Whether the model computes, as the last batch or canary showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Good,
    /// It does not; the sentence says what was seen.
    Broken(String),
}

/// Why one input of a batch has no vector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum InputError {
    /// The model works, but not on this input.
    Input(String),
    /// The model does not work.
    Model(String),
}

type Computed = Result<crate::model::Vector, InputError>;

/// What the thread is given.
pub(super) enum Job<T> {
    /// Embed these.
    Batch(Vec<(T, Tokens)>),
    /// Find out whether the model still computes.
    Canary,
}

/// What it gives back: empty after a canary.
pub(super) type Done<T> = Vec<(T, Computed)>;

pub(super) struct Engine {
    tokenizer: Tokenizer,
    backend: Box<dyn Backend>,
    gate: Gate,
    health: watch::Sender<Health>,
}

impl Engine {
    pub(super) fn new(model: Loaded, health: watch::Sender<Health>) -> Self {
        Self {
            gate: model.gate(),
            tokenizer: model.tokenizer,
            backend: model.backend,
            health,
        }
    }

    /// Works until nobody gives jobs or takes results any more.
    pub(super) fn run<T>(mut self, mut jobs: mpsc::Receiver<Job<T>>, done: mpsc::Sender<Done<T>>) {
        while let Some(job) = jobs.blocking_recv() {
            let results = match job {
                Job::Batch(batch) => self.batch(batch),
                Job::Canary => {
                    self.canary();
                    Vec::new()
                }
            };
            if done.blocking_send(results).is_err() {
                break;
            }
        }
    }

    fn batch<T>(&mut self, batch: Vec<(T, Tokens)>) -> Done<T> {
        let (tags, tokens): (Vec<T>, Vec<Tokens>) = batch.into_iter().unzip();
        let mut results = self.compute(&tokens.iter().collect::<Vec<_>>());
        if results.iter().all(Result::is_ok) {
            self.say(Health::Good);
        } else if let Health::Broken(why) = self.canary() {
            for result in results.iter_mut().filter(|result| result.is_err()) {
                *result = Err(InputError::Model(why.clone()));
            }
        }
        tags.into_iter().zip(results).collect()
    }

    /// One result per input. A batch that fails is halved until the failing inputs stand alone, so that one bad input,
    /// or too large a batch, costs nobody else their vector.
    fn compute(&mut self, inputs: &[&Tokens]) -> Vec<Computed> {
        let why = match self.backend.embed(inputs) {
            Ok(vectors) if vectors.len() == inputs.len() => {
                let judge = |vector| self.gate.pass(vector).map_err(|bad| InputError::Input(bad.to_string()));
                return vectors.into_iter().map(judge).collect();
            }
            Ok(vectors) => format!("the model gave {} vectors for {} texts", vectors.len(), inputs.len()),
            Err(error) => error.to_string(),
        };
        if inputs.len() == 1 {
            return vec![Err(InputError::Input(why))];
        }
        tracing::warn!(texts = inputs.len(), error = %why, "a batch failed, trying it in halves");
        let (first, second) = inputs.split_at(inputs.len() / 2);
        let mut results = self.compute(first);
        results.extend(self.compute(second));
        results
    }

    fn canary(&mut self) -> Health {
        let health = match canary::sing(&self.tokenizer, self.backend.as_mut(), self.gate) {
            Ok(()) => Health::Good,
            Err(why) => Health::Broken(why),
        };
        self.say(health.clone());
        health
    }

    fn say(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            if changed {
                match &health {
                    Health::Good => tracing::info!("the model computes again"),
                    Health::Broken(why) => tracing::error!(error = %why, "the model does not compute"),
                }
                *known = health;
            }
            changed
        });
    }
}
