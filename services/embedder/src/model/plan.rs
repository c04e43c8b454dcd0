//! Which backends may run a model, in which order, and how each is made.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::backend::Backend;
use super::endpoint::{Endpoint, EndpointOptions};
use super::failover::{Candidate, Failover, Patience};
use super::local::Local;
use super::onnx::{Gpu, OnnxOptions, Provider};
use super::openvino::OpenVino;
use super::worker::Worker;
use super::{Loaded, MODEL_FILE, Manifest, ModelError, Tokenizer, auto, available_threads, faulty, verified};

/// What may run a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choice {
    /// The fastest of `cuda`, `cpu` and, where there is one, `openvino` that works here, found by measuring at start; the others
    /// stand in for it.
    Auto,
    /// A GPU, through the ONNX Runtime's CUDA provider.
    Cuda,
    /// The processor, through the ONNX Runtime.
    Cpu,
    /// The processor, through OpenVINO.
    OpenVino,
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
            Self::OpenVino => "openvino",
            Self::Endpoint => "endpoint",
        }
    }
    /// Whether it runs on this machine, and reads the model's file.
    pub fn is_local(self) -> bool {
        self != Self::Endpoint
    }
    /// Whether it needs the ONNX Runtime.
    pub fn is_onnx(self) -> bool {
        matches!(self, Self::Auto | Self::Cuda | Self::Cpu)
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
    /// How much backends that compute on the processor give way to others on it: what their threads' nice value is raised by.
    pub nice: u8,
    /// The GPU.
    pub gpu: Gpu,
    /// OpenVINO, if there is one.
    pub openvino: OpenVino,
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
                    let openvino = self.openvino.is_set().then_some(Choice::OpenVino);
                    // The last one is the reference.
                    let all = [Choice::Cuda].into_iter().chain(openvino).chain([Choice::Cpu]);
                    let all = all
                        .map(|choice| self.candidate(choice, &manifest, &tokenizer))
                        .collect();
                    candidates.extend(auto::fastest_first(all, &tokenizer, gate));
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
        let manifest = manifest.clone();
        let call_limit = match &self.endpoint {
            Some(endpoint) if choice == Choice::Endpoint => endpoint.timeout + BEYOND_ENDPOINT,
            _ => self.call_limit,
        };
        let local = self.local(choice, tokenizer);
        let make = move || -> Result<Box<dyn Backend>, ModelError> {
            let Some(local) = local.clone() else {
                let endpoint = plan.endpoint.clone().ok_or(ModelError::NoEndpoint)?;
                return Ok(Box::new(Endpoint::new(endpoint, manifest.dimensions)?));
            };
            faulty::makes()?;
            if local.is_on_processor() {
                give_way(plan.nice);
            }
            let opened = match plan.own_process.contains(&choice) {
                true => Worker::start(&plan.program, &plan.dir, &manifest, local)?,
                false => local.open(&plan.dir, &manifest)?,
            };
            opened.log();
            Ok(faulty::on_order(opened.backend))
        };
        Candidate {
            name: choice.name(),
            make: Arc::new(make),
            remote: choice == Choice::Endpoint,
            call_limit,
        }
    }

    /// What a choice is on this machine; none for an endpoint.
    fn local(&self, choice: Choice, tokenizer: &Tokenizer) -> Option<Local> {
        let threads = self.threads.unwrap_or_else(available_threads);
        let provider = match choice {
            Choice::Endpoint => return None,
            Choice::OpenVino => return Some(Local::OpenVino(self.openvino.options(threads, tokenizer))),
            Choice::Cuda => Provider::Cuda(self.gpu),
            Choice::Cpu | Choice::Auto => Provider::Cpu,
        };
        Some(Local::Onnx(OnnxOptions {
            library: self.onnxruntime.clone(),
            provider,
            threads,
            pad_id: tokenizer.pad_id(),
        }))
    }
}

/// Lowers this thread's priority, and with it that of all threads and processes that it starts from then on.
#[cfg(target_os = "linux")]
fn give_way(nice: u8) {
    if let Err(error) = rustix::process::nice(nice.into()) {
        tracing::warn!(%error, "the model's threads keep the priority of others");
    }
}

/// Elsewhere it would be the whole process's.
#[cfg(not(target_os = "linux"))]
fn give_way(_: u8) {}
