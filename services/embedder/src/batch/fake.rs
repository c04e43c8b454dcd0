//! A backend for tests: counts `a`s and `b`s, fails when told to.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{BatchLimits, Batcher, Embedder, ModelInfo};
use crate::model::manifest::Pooling;
use crate::model::{Backend, BackendError, Description, Loaded, Manifest, Tokens, tokenizer};

/// Gives `[a, b]`, how often each is in a text. Fails on three `b`s, panics on four, refuses five, and fails on
/// everything while it is broken. Takes 16 tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    broken: Arc<Mutex<Option<BackendError>>>,
    calls: Arc<AtomicUsize>,
}

impl Fake {
    pub(crate) fn break_down(&self, broken: bool) {
        self.answer(broken.then(|| BackendError::Failed("the device is gone".into())));
    }
    /// Answers everything with this.
    pub(crate) fn answer(&self, error: Option<BackendError>) {
        *self.broken.lock().unwrap() = error;
    }
    pub(crate) fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }
}

impl Backend for Fake {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = &*self.broken.lock().unwrap() {
            return Err(error.clone());
        }
        let count = |input: &Tokens, id| input.ids.iter().filter(|found| **found == id).count();
        // The canary's sentences have neither.
        if inputs.iter().all(|input| count(input, 1) + count(input, 2) == 0) {
            return Ok(vec![vec![1.0, 0.0], vec![1.0, 0.1], vec![0.0, 1.0]]);
        }
        match inputs.iter().map(|input| count(input, 2)).max() {
            Some(3) => Err(BackendError::Failed("three".into())),
            Some(4) => panic!("four"),
            Some(5) => Err(BackendError::Refused("five".into())),
            _ => Ok(inputs
                .iter()
                .map(|input| vec![count(input, 1) as f32, count(input, 2) as f32])
                .collect()),
        }
    }

    fn describe(&self) -> Description {
        Description {
            version: "1".into(),
            device: "test".into(),
            ..Description::of_none("fake")
        }
    }
}

pub(crate) fn manifest() -> Manifest {
    Manifest {
        id: "fake".into(),
        dtype: "f32".into(),
        dimensions: 2,
        pooling: Pooling::Mean,
        query_prefix: String::new(),
        document_prefix: String::new(),
        normalized: false,
        max_tokens: 16,
        sha256: "0".repeat(64),
    }
}

/// What a [`Fake`] is.
pub(crate) fn info() -> ModelInfo {
    ModelInfo {
        model: manifest().identity(),
        max_tokens: 16,
        prefixes: super::Prefixes::default(),
    }
}

/// A batcher around a [`Fake`], with small limits.
pub(crate) fn batcher() -> (Embedder, Batcher, Fake) {
    let fake = Fake::default();
    let model = Loaded {
        manifest: manifest(),
        tokenizer: tokenizer::tests::trapped(16),
        backend: Box::new(fake.clone()),
        proven: true,
    };
    let limits = BatchLimits {
        max_batch_tokens: 100,
        max_waiting_tokens: 300,
        queue_requests: 2,
        ..BatchLimits::default()
    };
    let (embedder, batcher) = super::batcher(model, limits);
    (embedder, batcher, fake)
}
