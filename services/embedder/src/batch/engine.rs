//! The model's own thread: runs batches, finds the input that a failure is about, and asks the canary.

use tokio::sync::{mpsc, watch};

use super::safe::SafeSize;
use crate::cache::probation::Proof;
use crate::model::backend::REMOTE;
use crate::model::{Backend, BackendError, Description, Gate, Loaded, Outage, Tokenizer, Tokens};

/// Whether the model computes, as the last batch or canary showed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It does.
    Good,
    /// It does not; the sentence says what was seen.
    Broken(String),
}

/// Why one input of a batch has no vector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum InputError {
    /// The model works, but fails on this input.
    #[error("{0}")]
    Failed(String),
    /// The model works, and refuses this input.
    #[error("{0}")]
    Refused(String),
    /// The model does not work now.
    #[error(transparent)]
    Outage(Outage),
}

impl InputError {
    /// A stable code.
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Failed(_) => "MODEL_FAILED",
            Self::Refused(_) => "TEXT_REFUSED",
            Self::Outage(_) => "MODEL_UNAVAILABLE",
        }
    }
}

type Computed = Result<crate::model::Vector, InputError>;

/// What the thread is given.
pub(super) enum Job<T> {
    /// Embed these.
    Batch(Vec<(T, Tokens)>),
    /// Find out whether the model still computes.
    Canary,
}

/// What it gives back.
pub(super) struct Done<T> {
    /// Empty after a canary.
    pub(super) results: Vec<(T, Computed)>,
    /// What the job shows about the vectors until then, its own among them.
    pub(super) proof: Proof,
}

pub(super) struct Engine {
    tokenizer: Tokenizer,
    backend: Box<dyn Backend>,
    gate: Gate,
    health: watch::Sender<Health>,
    at_work: watch::Sender<Description>,
    safe: SafeSize,
    proven: bool,
    /// Of the instance that computed the last job.
    incarnation: u64,
}

impl Engine {
    pub(super) fn new(model: Loaded, health: watch::Sender<Health>, at_work: watch::Sender<Description>) -> Self {
        Self {
            gate: model.gate(),
            proven: model.proven,
            incarnation: model.backend.incarnation(),
            tokenizer: model.tokenizer,
            backend: model.backend,
            health,
            at_work,
            safe: SafeSize::default(),
        }
    }

    /// Works until nobody gives jobs or takes results any more.
    pub(super) fn run<T>(mut self, mut jobs: mpsc::Receiver<Job<T>>, done: mpsc::Sender<Done<T>>) {
        if !self.proven {
            // What it showed stands in the health.
            let _ = self.canary();
            self.tell_what_computes();
        }
        while let Some(job) = jobs.blocking_recv() {
            let finished = match job {
                Job::Batch(batch) => self.batch(batch),
                Job::Canary => self.sing(),
            };
            self.tell_what_computes();
            if done.blocking_send(finished).is_err() {
                break;
            }
        }
    }

    fn batch<T>(&mut self, batch: Vec<(T, Tokens)>) -> Done<T> {
        let (tags, tokens): (Vec<T>, Vec<Tokens>) = batch.into_iter().unzip();
        let mut results = self.compute(&tokens.iter().collect::<Vec<_>>());
        let outage = results.iter().find_map(|result| match result {
            Err(InputError::Outage(outage)) => Some(outage.clone()),
            _ => None,
        });
        let (verdict, sang) = match outage {
            Some(outage) => (self.see(Err(outage)), false),
            None if results.iter().all(Result::is_ok) => (self.see(Ok(())), false),
            None => (self.canary(), true),
        };
        let proof = self.proof(&verdict, sang);
        // A model that does not work judges no input.
        if let Err(outage) = verdict {
            for result in results.iter_mut().filter(|result| result.is_err()) {
                *result = Err(InputError::Outage(outage.clone()));
            }
        }
        Done {
            results: tags.into_iter().zip(results).collect(),
            proof,
        }
    }

    /// What a job shows about what was computed until its end.
    ///
    /// | since the job before | proof |
    /// |---|---|
    /// | another instance computes: made anew, or another backend | lost |
    /// | an outage, or a canary that is wrong | lost |
    /// | vectors that depend on their batch | lost |
    /// | a canary that is right, as the last thing | passed |
    /// | vectors of an endpoint, which is asked no canary at work | passed |
    /// | vectors | none |
    fn proof(&mut self, seen: &Result<(), Outage>, sang: bool) -> Proof {
        let now = self.backend.incarnation();
        let same = std::mem::replace(&mut self.incarnation, now) == now;
        let at_work = self.backend.describe();
        if !same || seen.is_err() || !at_work.batch_independent {
            Proof::Lost
        } else if sang || at_work.device == REMOTE {
            Proof::Passed
        } else {
            Proof::None
        }
    }

    /// One result per input.
    ///
    /// | the backend | of one input | of several |
    /// |---|---|---|
    /// | gives a vector each | through the gate | through the gate |
    /// | fails, or gives another number of vectors | failed | each half again |
    /// | refuses | refused | each half again |
    /// | has no memory for it | failed | each half again, and batches of this size are halved unasked for a while |
    /// | has an outage | the outage | the outage for all, those not yet asked for too |
    ///
    /// So one bad input, or too large a batch, costs nobody else their vector, and a backend in trouble is left alone.
    fn compute(&mut self, inputs: &[&Tokens]) -> Vec<Computed> {
        let longest = inputs.iter().map(|tokens| tokens.len()).max().unwrap_or(0);
        let padded_tokens = inputs.len() * longest;
        if inputs.len() > 1 && self.safe.is_above(padded_tokens) {
            return self.halves(inputs);
        }
        let error = match self.backend.embed(inputs) {
            Ok(vectors) if vectors.len() == inputs.len() => {
                self.safe.went_well();
                let judge = |vector| {
                    self.gate
                        .pass(vector)
                        .map_err(|bad| InputError::Failed(bad.to_string()))
                };
                return vectors.into_iter().map(judge).collect();
            }
            Ok(vectors) => InputError::Failed(format!(
                "the model gave {} vectors for {} texts",
                vectors.len(),
                inputs.len()
            )),
            Err(BackendError::Failed(why)) => InputError::Failed(why),
            Err(BackendError::Refused(why)) => InputError::Refused(why),
            Err(BackendError::TooLarge(why)) => {
                let safe_tokens = self.safe.too_large(padded_tokens);
                tracing::warn!(padded_tokens, safe_tokens, error = %why, "the device has no memory for a batch");
                InputError::Failed(why)
            }
            Err(BackendError::Outage(outage)) => InputError::Outage(outage),
        };
        if inputs.len() == 1 || matches!(error, InputError::Outage(_)) {
            return vec![Err(error); inputs.len()];
        }
        tracing::warn!(texts = inputs.len(), %error, "a batch failed, trying it in halves");
        self.halves(inputs)
    }

    fn halves(&mut self, inputs: &[&Tokens]) -> Vec<Computed> {
        let (first, second) = inputs.split_at(inputs.len() / 2);
        let mut results = self.compute(first);
        match results.last() {
            Some(Err(InputError::Outage(outage))) => {
                let not_asked = Err(InputError::Outage(outage.clone()));
                results.resize(inputs.len(), not_asked);
            }
            _ => results.extend(self.compute(second)),
        }
        results
    }

    fn sing<T>(&mut self) -> Done<T> {
        let sung = self.canary();
        Done {
            results: Vec::new(),
            proof: self.proof(&sung, true),
        }
    }

    fn canary(&mut self) -> Result<(), Outage> {
        let sung = self.backend.canary(&self.tokenizer, self.gate);
        self.see(sung)
    }

    /// What an answer of the model says of its health; gives the answer back.
    ///
    /// | the last answer | health |
    /// |---|---|
    /// | vectors | good |
    /// | an outage | broken |
    /// | a request for patience | as it was: whoever asks for patience is there; broken gets this as its reason |
    fn see(&self, answer: Result<(), Outage>) -> Result<(), Outage> {
        let was_good = *self.health.borrow() == Health::Good;
        match &answer {
            Ok(()) => self.say(Health::Good),
            Err(Outage::RateLimited { .. }) if was_good => {}
            Err(outage) => self.say(Health::Broken(outage.to_string())),
        }
        answer
    }

    fn tell_what_computes(&self) {
        let description = self.backend.describe();
        self.at_work.send_if_modified(|known| {
            let changed = *known != description;
            if changed {
                *known = description;
            }
            changed
        });
    }

    fn say(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            if changed {
                match &health {
                    Health::Good => tracing::info!("the model computes"),
                    Health::Broken(why) => tracing::error!(error = %why, "the model does not compute"),
                }
                *known = health;
            }
            changed
        });
    }
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
