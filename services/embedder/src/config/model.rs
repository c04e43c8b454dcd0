use std::path::{Path, PathBuf};
use std::time::Duration;

use millrace_runtime::config::ConfigError;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::EndpointConfig;
use crate::batch::BatchLimits;
use crate::model::onnx::Gpu;
use crate::model::openvino::OpenVino;
use crate::model::{Choice, Plan};

/// As Linux has it.
const MOST_NICE: u8 = 19;

/// Where the model is and how it runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder with model.onnx, tokenizer.json and model.toml. At an endpoint, model.onnx is not needed, and the sha256 of
    /// model.toml says which weights the endpoint is meant to have: it is stamped on every vector as the model's revision.
    pub dir: PathBuf,
    /// What runs the model, the preferred one first: the next stands in while one before it does not work. Empty: the
    /// endpoint where one is configured, else the processor.
    pub backends: Vec<Choice>,
    /// Threads of the processor to compute with; without it as many as the machine offers.
    pub threads: Option<usize>,
    /// How much backends on the processor give way to whatever else wants it: what the nice value of their threads is raised by,
    /// 0 to 19.
    pub nice: u8,
    /// Backends whose session is in a process of its own, so that a driver's crash is not the embedder's.
    pub own_process: Vec<Choice>,
    /// Longest time for one batch, but at an endpoint. A backend that takes longer hangs: it is given up and made anew.
    pub batch_timeout_ms: u64,
    /// The GPU, for the backend `cuda`.
    pub gpu: GpuConfig,
    /// OpenVINO, for the backend `openvino`.
    pub openvino: OpenVino,
    /// The endpoint, for the backend `endpoint`.
    pub endpoint: EndpointConfig,
}

impl Default for ModelConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            backends: Vec::new(),
            threads: None,
            nice: 10,
            own_process: vec![Choice::Cuda],
            batch_timeout_ms: 60_000,
            gpu: GpuConfig::default(),
            openvino: OpenVino::default(),
            endpoint: EndpointConfig::default(),
        }
    }
}

/// `[model.gpu]`: a GPU of this machine.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GpuConfig {
    /// Its number.
    pub device: i32,
    /// Memory of it that the model may take, in MiB; 0: what there is.
    pub memory_limit_mib: usize,
}

impl ModelConfig {
    /// Refuses what cannot work, beside this runtime, with calls that may take so long and batches of at most so much.
    pub(super) fn check(&self, onnxruntime: &Path, call_ms: u64, batch: &BatchLimits) -> Result<(), ConfigError> {
        let refused = |key: &str, message: &str| Err(ConfigError::refused(key, message));
        if self.dir.as_os_str().is_empty() {
            return refused(
                "model.dir",
                "must be the folder of model.onnx, tokenizer.json and model.toml",
            );
        }
        self.check_backends()?;
        if self.backends().contains(&Choice::OpenVino) && !self.openvino.is_set() {
            return refused(
                "model.openvino.library",
                "must be the path of libopenvino_c.so: PyPI's wheel `openvino` has it in openvino/libs, OpenVINO's archives in \
                 runtime/lib",
            );
        }
        if self.backends().iter().any(|choice| choice.is_onnx()) && onnxruntime.as_os_str().is_empty() {
            return refused("onnxruntime", "must be the path of libonnxruntime");
        }
        // A backend may hang twice before another one stands in for it.
        let longest = call_ms / 3;
        if !(1..=longest).contains(&self.batch_timeout_ms) {
            return refused(
                "model.batch_timeout_ms",
                &format!("must be 1 to a third of calls.timeout_ms ({longest})"),
            );
        }
        if self.threads == Some(0) {
            return refused(
                "model.threads",
                "must be at least 1, or left out for all of the machine",
            );
        }
        if self.nice > MOST_NICE {
            return refused("model.nice", &format!("must be 0 to {MOST_NICE}"));
        }
        if self.openvino.streams == Some(0) {
            return refused("model.openvino.streams", "must be at least 1, or left out");
        }
        if self.openvino.streams > Some(batch.max_batch_texts) {
            let why = "must not be above batch.max_batch_texts: the others would have nothing to do";
            return refused("model.openvino.streams", why);
        }
        match self.endpoint.is_set() {
            true => self.endpoint.check(call_ms),
            false => Ok(()),
        }
    }

    /// What runs the model; calls to an endpoint are driven by this runtime.
    pub(super) fn plan(&self, onnxruntime: &Path, runtime: Handle) -> Plan {
        Plan {
            dir: self.dir.clone(),
            backends: self.backends(),
            onnxruntime: onnxruntime.to_owned(),
            threads: self.threads,
            nice: self.nice,
            gpu: Gpu {
                device: self.gpu.device,
                memory_limit: Some(self.gpu.memory_limit_mib << 20).filter(|bytes| *bytes > 0),
            },
            openvino: self.openvino.clone(),
            own_process: self.own_process.clone(),
            program: this_program(),
            endpoint: self.endpoint.is_set().then(|| self.endpoint.options(runtime)),
            call_limit: Duration::from_millis(self.batch_timeout_ms),
        }
    }

    /// What runs the model, what was left out filled in.
    pub(super) fn backends(&self) -> Vec<Choice> {
        match (&self.backends[..], self.endpoint.is_set()) {
            ([], true) => vec![Choice::Endpoint],
            ([], false) => vec![Choice::Cpu],
            (given, _) => given.to_vec(),
        }
    }

    /// Refuses a list of backends that contradicts itself or the endpoint.
    fn check_backends(&self) -> Result<(), ConfigError> {
        let backends = self.backends();
        let count = |choice: Choice| backends.iter().filter(|other| **other == choice).count();
        let auto = count(Choice::Auto);
        let local = backends.iter().filter(|choice| choice.is_local()).count() - auto;
        let once = backends.iter().all(|choice| count(*choice) == 1);
        let rows = [
            (once, "names a backend twice"),
            (
                self.own_process
                    .iter()
                    .all(|choice| matches!(choice, Choice::Cuda | Choice::Cpu | Choice::OpenVino)),
                "is cuda, cpu, openvino or endpoint; model.own_process is cuda, cpu or openvino",
            ),
            (
                auto == 0 || local == 0,
                "names `auto` beside backends that it chooses from",
            ),
            (
                (count(Choice::Endpoint) == 1) == self.endpoint.is_set(),
                "must name `endpoint` if, and only if, model.endpoint.url is given",
            ),
        ];
        match rows.into_iter().find(|(usable, _)| !usable) {
            None => Ok(()),
            Some((_, why)) => Err(ConfigError::refused("model.backends", why)),
        }
    }
}

/// The program that runs, also when its file was replaced since it was started.
fn this_program() -> PathBuf {
    let running = PathBuf::from("/proc/self/exe");
    match running.exists() {
        true => running,
        false => std::env::current_exe().unwrap_or_default(),
    }
}
