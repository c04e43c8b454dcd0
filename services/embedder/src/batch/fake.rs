//! A backend for tests: counts `a`s and `b`s, fails when told to.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::{BatchLimits, Batcher, Embedder, ModelInfo};
use crate::cache::Cache;
use crate::model::manifest::Pooling;
use crate::model::{Backend, BackendError, Description, Loaded, Manifest, Tokens, tokenizer};

/// Gives `[a, b]`, how often each is in a text. Fails on three `b`s, panics on four, refuses five, and fails on
/// everything while it is broken. Takes 16 tokens.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fake {
    broken: Arc<Mutex<Option<BackendError>>>,
    calls: Arc<AtomicUsize>,
    texts: Arc<AtomicUsize>,
    lies: Arc<AtomicBool>,
    incarnation: Arc<AtomicU64>,
    dependent: Arc<AtomicBool>,
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
    /// Texts that it gave a vector for, canaries not among them.
    pub(crate) fn texts(&self) -> usize {
        self.texts.load(Ordering::Relaxed)
    }
    /// From now on each text has the same vector: finite, and no meaning.
    pub(crate) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }
    /// From now on its vectors depend on their batch, it says.
    pub(crate) fn depend_on_the_batch(&self) {
        self.dependent.store(true, Ordering::Relaxed);
    }
    /// Another instance takes over.
    pub(crate) fn reborn(&self) {
        self.incarnation.fetch_add(1, Ordering::Relaxed);
    }
}

impl Backend for Fake {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if let Some(error) = &*self.broken.lock().unwrap() {
            return Err(error.clone());
        }
        if self.lies.load(Ordering::Relaxed) {
            return Ok(vec![vec![7.0, 7.0]; inputs.len()]);
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
            _ => {
                self.texts.fetch_add(inputs.len(), Ordering::Relaxed);
                Ok(inputs
                    .iter()
                    .map(|input| vec![count(input, 1) as f32, count(input, 2) as f32])
                    .collect())
            }
        }
    }

    fn incarnation(&self) -> u64 {
        self.incarnation.load(Ordering::Relaxed)
    }

    fn describe(&self) -> Description {
        Description {
            version: "1".into(),
            device: "test".into(),
            batch_independent: !self.dependent.load(Ordering::Relaxed),
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
    let (embedder, batcher) = batcher_with(&fake, manifest(), None);
    (embedder, batcher, fake)
}

/// The same around this one, with a cache.
pub(crate) fn batcher_with(fake: &Fake, manifest: Manifest, cache: Option<Cache>) -> (Embedder, Batcher) {
    let model = Loaded {
        manifest,
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
    super::batcher_with(model, limits, cache)
}
