//! The ONNX Runtime in this process, loaded from the library that the configuration names.
//!
//! | provider | library | computes in |
//! |---|---|---|
//! | CPU | any | f32 |
//! | CUDA | one built for it, with libonnxruntime_providers_cuda.so beside it; finds CUDA and cuDNN as the linker does | f32, without TF32: vectors of a GPU and of a processor are the same to 1e-5 |

use std::path::{Path, PathBuf};

use ort::environment::Environment;
use ort::ep::{CUDA, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session, SessionInputValue};
use ort::value::TensorRef;

use super::backend::{Backend, BackendError, Description};
use super::graph::{Graph, POOLED, Steps, with_pooling};
use super::library::Library;
use super::manifest::Manifest;
use super::tokenizer::Tokens;
use super::{MODEL_FILE, ModelError, verified};

/// The backend's name in [`Description`].
pub(super) const NAME: &str = "onnxruntime";

/// What a session computes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    /// The processor.
    Cpu,
    /// A GPU.
    Cuda(Gpu),
}

/// A GPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gpu {
    /// Its number.
    pub device: i32,
    /// Bytes of its memory for the session's arena; none takes what there is.
    pub memory_limit: Option<usize>,
}

impl Provider {
    /// What is registered beside the processor, which every session has.
    fn dispatch(self) -> Option<ExecutionProviderDispatch> {
        let Self::Cuda(gpu) = self else { return None };
        let cuda = CUDA::default().with_device_id(gpu.device).with_tf32(false);
        let cuda = match gpu.memory_limit {
            Some(bytes) => cuda.with_memory_limit(bytes),
            None => cuda,
        };
        // Without it a session that cannot have its GPU would run on the processor and not say so.
        Some(cuda.build().error_on_failure())
    }

    pub(super) fn device(self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            Self::Cuda(gpu) => format!("cuda:{}", gpu.device),
        }
    }
}

/// Rows on a GPU are padded to a multiple of eight tokens: its kernels want that, and shapes come again.
const GPU_STEPS: &Steps = &[(0, 8)];

/// A model on the ONNX Runtime.
pub struct OnnxBackend {
    session: Session,
    pooled: RunOptions<HasSelectedOutputs>,
    version: String,
    provider: Provider,
    threads: usize,
    graph: Graph,
}

/// What the session needs to know besides the model's bytes.
#[derive(Debug, Clone)]
pub struct OnnxOptions {
    /// The runtime's shared library.
    pub library: PathBuf,
    /// What to compute on.
    pub provider: Provider,
    /// Threads to compute with.
    pub threads: usize,
    /// Token that fills rows of a batch.
    pub pad_id: u32,
}

impl OnnxBackend {
    /// The model of a directory. Its file is read again each time: what runs is what was verified, and nobody keeps the bytes
    /// meanwhile.
    pub fn open(dir: &Path, manifest: &Manifest, options: OnnxOptions) -> Result<Self, ModelError> {
        let model = verified(&dir.join(MODEL_FILE), &manifest.sha256)?;
        Self::new(&model, manifest, options)
    }

    /// Loads the runtime and makes a session of a model's bytes (bytes and not a path: what was verified is what runs).
    fn new(model: &[u8], manifest: &Manifest, options: OnnxOptions) -> Result<Self, ModelError> {
        let environment = environment(&options.library)?;
        let refused = |what: String| ModelError::Session { what };
        let session = Session::builder(&environment)
            .map_err(|e| refused(e.to_string()))?
            .with_log_level(LogLevel::Warning)
            .map_err(|e| refused(e.to_string()))?
            .with_intra_threads(options.threads)
            .map_err(|e| refused(e.to_string()))?
            // Patterns are kept for every shape ever seen, and our shapes are as many as texts have lengths.
            .with_memory_pattern(false)
            .map_err(|e| refused(e.to_string()))?
            .with_execution_providers(options.provider.dispatch().as_slice())
            .map_err(|e| refused(e.to_string()))?
            .commit_from_memory(&with_pooling(model, manifest))
            .map_err(|e| refused(e.to_string()))?;
        let names = |outlets: &[ort::value::Outlet]| outlets.iter().map(|o| o.name().to_owned()).collect::<Vec<_>>();
        let (inputs, outputs) = (names(session.inputs()), names(session.outputs()));
        let graph = Graph::new(manifest, options.pad_id, &inputs, &outputs).map_err(refused)?;
        // What is not asked for is not copied from the device.
        let pooled = RunOptions::new().map_err(|e| refused(e.to_string()))?;
        let pooled = pooled.with_outputs(OutputSelector::no_default().with(POOLED));
        Ok(Self {
            session,
            pooled,
            version: ort::util::probe(&options.library).map_or_else(|| "unknown".into(), |minor| format!("1.{minor}")),
            provider: options.provider,
            threads: options.threads,
            graph,
        })
    }

    fn run(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, ort::Error> {
        if inputs.iter().all(|tokens| tokens.is_empty()) {
            return Ok(Vec::new());
        }
        let steps = match self.provider {
            Provider::Cpu => &[],
            Provider::Cuda(_) => GPU_STEPS,
        };
        let rows = self.graph.rows(inputs, steps);
        let values = self.graph.inputs(&rows).map(|(name, values)| {
            let value = TensorRef::from_array_view((rows.shape, values))?;
            Ok((name, value.into()))
        });
        let values = values.collect::<Result<Vec<(&str, SessionInputValue<'_>)>, ort::Error>>()?;
        let outputs = self.session.run_with_options(values, &self.pooled)?;
        let (shape, pooled) = outputs[POOLED].try_extract_tensor::<f32>()?;
        self.graph.vectors(inputs, shape, pooled).map_err(ort::Error::new)
    }
}

impl Backend for OnnxBackend {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.run(inputs)
            .map_err(|e| BackendError::said(e.to_string(), &NO_MEMORY))
    }

    fn describe(&self) -> Description {
        Description {
            name: NAME,
            version: self.version.clone(),
            device: self.provider.device(),
            precision: "f32",
            threads: self.threads,
            streams: 1,
            batch_independent: true,
            stands_in_for: None,
        }
    }
}

/// What the runtime, CUDA and cuBLAS say when there is no memory left. It has no code of its own for that.
const NO_MEMORY: [&str; 6] = [
    "Failed to allocate memory",
    "out of memory",
    "OutOfMemory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "Available memory of",
];

/// The runtime of this process. It allows one environment and one library, so both are kept.
fn environment(library: &Path) -> Result<Environment, ModelError> {
    static LOADED: Library<Environment> = Library::none();
    let loaded = LOADED.load(library, |path| {
        let environment = ort::init_from(path).map_err(|e| e.to_string())?;
        let environment = environment.with_name("millrace").with_telemetry(false).build();
        let environment = environment.map_err(|e| e.to_string())?;
        environment.set_log_level(LogLevel::Warning);
        Ok(environment)
    });
    loaded.map_err(|what| ModelError::Runtime {
        library: library.to_owned(),
        what,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named() {
        let options = OnnxOptions {
            library: "/nowhere/libonnxruntime.so".into(),
            provider: Provider::Cpu,
            threads: 1,
            pad_id: 0,
        };
        let error = OnnxBackend::new(b"", &crate::batch::fake::manifest(), options)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("/nowhere/libonnxruntime.so"), "{error}");
    }

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        let arena = "Non-zero status code returned while running MatMul node. BFCArena::AllocateRawInternal Available \
                     memory of 12 is smaller than requested bytes of 4096";
        for (said, too_large) in [
            (arena, true),
            ("CUDA failure 2: out of memory", true),
            ("illegal memory access", false),
        ] {
            let failure = BackendError::said(said.into(), &NO_MEMORY);
            assert_eq!(matches!(failure, BackendError::TooLarge(_)), too_large, "{failure}");
        }
    }
}
