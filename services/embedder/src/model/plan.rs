//! Which backends may run a model, in which order, and how each is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::endpoint::{Endpoint, EndpointOptions};
use super::failover::{Candidate, Failover, Patience};
use super::onnx::{Gpu, OnnxBackend, OnnxOptions, Provider};
use super::worker::Worker;
use super::{Loaded, MODEL_FILE, Manifest, ModelError, Tokenizer, auto, available_threads, faulty, verified};

/// What may run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The fastest of `cuda` and `cpu` that works here, found by measuring at start; the others stand in for it.
    Auto,
    /// A GPU, through the ONNX Runtime's CUDA provider.
    Cuda,
    /// The processor, through the ONNX Runtime.
    Cpu,
    /// An endpoint that speaks the OpenAI embeddings API.
    Endpoint,
}

impl Choice {
    /// For people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
            Self::Endpoint => "endpoint",
        }
    }
    /// Whether it runs in this process.
    pub fn is_local(self) -> bool {
        self != Self::Endpoint
    }
}

/// How a model is to be run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The model directory.
    pub dir: PathBuf,
    /// The preferred backend first; the next stands in while one before it does not work.
    pub backends: Vec<Choice>,
    /// The ONNX Runtime's shared library, for backends in this process.
    pub onnxruntime: PathBuf,
    /// Threads of the processor to compute with; none takes as many as the machine offers.
    pub threads: Option<usize>,
    /// The GPU.
    pub gpu: Gpu,
    /// Backends whose session is in a process of its own, so that a driver's crash is not ours.
    pub own_process: Vec<Choice>,
    /// The program that such a process is started from: one that begins with [`super::worker::main`].
    pub program: PathBuf,
    /// The endpoint, if it is one of the backends.
    pub endpoint: Option<EndpointOptions>,
    /// Longest time for one batch. A backend that takes longer hangs.
    pub call_limit: Duration,
}

/// An endpoint keeps its own limit; this much later its thread is given up too.
const BEYOND_ENDPOINT: Duration = Duration::from_secs(5);

impl Plan {
    /// Makes what the plan says. Where all runs in this process, one backend has embedded its canary; an endpoint is not
    /// asked, since it may be away. Blocking work of seconds.
    pub fn open(self) -> Result<Loaded, ModelError> {
        let manifest = Manifest::read(&self.dir)?;
        let remote = self.backends.contains(&Choice::Endpoint);
        let tokenizer = match Tokenizer::read(&self.dir, manifest.max_tokens)? {
            tokenizer if remote => tokenizer.keeping_text(),
            tokenizer => tokenizer,
        };
        if self.backends.iter().any(|choice| choice.is_local()) {
            // Told as what it is, and not as a backend that does not start.
            verified(&self.dir.join(MODEL_FILE), &manifest.sha256)?;
        }
        let gate = manifest.gate();
        let mut candidates = Vec::new();
        for choice in &self.backends {
            match choice {
                Choice::Auto => {
                    let all = [Choice::Cuda, Choice::Cpu].map(|choice| self.candidate(choice, &manifest, &tokenizer));
                    candidates.extend(auto::fastest_first(all.into(), &tokenizer, gate));
                }
                choice => candidates.push(self.candidate(*choice, &manifest, &tokenizer)),
            }
        }
        let mut backend = Failover::new(candidates, tokenizer.clone(), gate, Patience::default());
        if !remote {
            backend.prove().map_err(ModelError::Canary)?;
        }
        Ok(Loaded {
            manifest,
            tokenizer,
            backend: Box::new(backend),
            proven: !remote,
        })
    }

    fn candidate(&self, choice: Choice, manifest: &Manifest, tokenizer: &Tokenizer) -> Candidate {
        let plan = self.clone();
        let (manifest, pad_id) = (manifest.clone(), tokenizer.pad_id());
        let call_limit = match &self.endpoint {
            Some(endpoint) if choice == Choice::Endpoint => endpoint.timeout + BEYOND_ENDPOINT,
            _ => self.call_limit,
        };
        let make = move || -> Result<Box<dyn Backend>, ModelError> {
            let provider = match (choice, &plan.endpoint) {
                (Choice::Endpoint, Some(endpoint)) => {
                    return Ok(Box::new(Endpoint::new(endpoint.clone(), manifest.dimensions)?));
                }
                (Choice::Endpoint, None) => return Err(ModelError::NoEndpoint),
                (Choice::Cuda, _) => Provider::Cuda(plan.gpu),
                (Choice::Cpu | Choice::Auto, _) => Provider::Cpu,
            };
            let options = OnnxOptions {
                library: plan.onnxruntime.clone(),
                provider,
                threads: plan.threads.unwrap_or_else(available_threads),
                pad_id,
            };
            faulty::makes()?;
            let backend: Box<dyn Backend> = match plan.own_process.contains(&choice) {
                true => Box::new(Worker::start(&plan.program, &plan.dir, &manifest, options)?),
                false => Box::new(OnnxBackend::open(&plan.dir, &manifest, options)?),
            };
            Ok(faulty::on_order(backend))
        };
        Candidate {
            name: choice.name(),
            make: Arc::new(make),
            remote: choice == Choice::Endpoint,
            call_limit,
        }
    }
}
