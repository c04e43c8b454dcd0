//! The model: its directory, its tokenizer, what runs it, and the judge of what comes out.
//!
//! A model directory holds `model.onnx`, `tokenizer.json` and `model.toml` ([`Manifest`]). Loading verifies the
//! checksum of the very bytes that then run, checks the graph's inputs and outputs, and embeds a canary. Where the model
//! runs at an [`endpoint`] the directory says what it is, and its tokenizer counts; `model.onnx` is not read.
//!
//! A [`Plan`] names the backends that may run it. [`auto`] orders them by their speed, [`failover`] keeps one of them at work.

pub mod auto;
pub mod backend;
mod calibration;
pub mod canary;
pub mod endpoint;
pub mod failover;
mod faulty;
mod graph;
mod library;
mod local;
pub mod manifest;
pub mod onnx;
pub mod openvino;
pub mod plan;
pub mod pooling;
pub mod tokenizer;
pub mod worker;

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

pub use backend::{Backend, BackendError, Description, Outage};
pub use manifest::Manifest;
pub use pooling::{BadVector, Gate, Vector};
pub use tokenizer::{TextError, Tokenizer, Tokens};

pub use plan::{Choice, Plan};

use endpoint::EndpointError;
use local::Local;
use onnx::{OnnxOptions, Provider};
use openvino::OpenVino;

/// The model file's name in a model directory.
pub const MODEL_FILE: &str = "model.onnx";

/// Why a model cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file of the model directory cannot be read.
    #[error("reading {} failed; a model directory holds model.onnx, tokenizer.json and model.toml", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// `model.toml` says something that cannot be.
    #[error("{} is not a model manifest: {what}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The model file is another one than the manifest speaks of.
    #[error(
        "{} has sha256 {found}, its manifest says {expected}: the file is damaged or another export; fetch it again",
        path.display()
    )]
    Checksum {
        /// The file.
        path: PathBuf,
        /// What the manifest says.
        expected: String,
        /// What was found.
        found: String,
    },
    /// `tokenizer.json` cannot be used.
    #[error("{} is not a tokenizer: {what}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The ONNX runtime cannot be loaded.
    #[error("loading the ONNX runtime from {} failed: {what}", library.display())]
    Runtime {
        /// The shared library.
        library: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// The runtime refuses the model.
    #[error("the ONNX runtime cannot run the model: {what}")]
    Session {
        /// What it said.
        what: String,
    },
    /// OpenVINO cannot be loaded.
    #[error(
        "loading OpenVINO from {} failed: {what}; it is libopenvino_c.so of OpenVINO 2025.1 or newer, with its other libraries \
         beside it: PyPI's wheel `openvino` has them in openvino/libs, OpenVINO's archives in runtime/lib",
        library.display()
    )]
    OpenVino {
        /// The shared library.
        library: PathBuf,
        /// What is wrong.
        what: String,
    },
    /// OpenVINO refuses the model.
    #[error("OpenVINO, from {}, cannot run the model: {what}", library.display())]
    OpenVinoModel {
        /// The shared library.
        library: PathBuf,
        /// What it said.
        what: String,
    },
    /// The model runs and gives nonsense.
    #[error("the model does not pass its canary: {0}")]
    Canary(Outage),
    /// The endpoint cannot be asked as it is configured.
    #[error("the model's endpoint cannot be asked: {0}")]
    Endpoint(#[from] EndpointError),
    /// The process that is to run the model is lost at its start.
    #[error("the model's process, {}, did not start", program.display())]
    Worker {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The process that is to run the model cannot.
    #[error("the model's process cannot run it: {what}")]
    InWorker {
        /// What it said.
        what: String,
    },
    /// An endpoint is to run the model and none is configured.
    #[error("the model is to run at an endpoint, and none is configured")]
    NoEndpoint,
}

/// Where a model is, and what it alone is run on.
#[derive(Debug, Clone)]
pub struct ModelSource {
    /// The model directory.
    pub dir: PathBuf,
    /// The ONNX runtime's shared library.
    pub onnxruntime: PathBuf,
    /// Threads to compute with; none takes as many as the machine offers.
    pub threads: Option<usize>,
    /// What to compute on.
    pub provider: Provider,
}

/// A model that can be asked.
pub struct Loaded {
    /// What its directory says.
    pub manifest: Manifest,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// What runs it.
    pub backend: Box<dyn Backend>,
    /// Whether it has embedded its canary.
    pub proven: bool,
}

impl Loaded {
    /// Loads a model into this process, on one backend that nobody stands in for: verified, and its canary embedded. Blocking
    /// work of a second or so.
    pub fn load(source: &ModelSource) -> Result<Self, ModelError> {
        Self::on(&source.dir, |tokenizer| {
            Local::Onnx(OnnxOptions {
                library: source.onnxruntime.clone(),
                provider: source.provider,
                threads: source.threads.unwrap_or_else(available_threads),
                pad_id: tokenizer.pad_id(),
            })
        })
    }

    /// The same on OpenVINO.
    pub fn load_on_openvino(dir: &Path, openvino: &OpenVino, threads: Option<usize>) -> Result<Self, ModelError> {
        let threads = threads.unwrap_or_else(available_threads);
        Self::on(dir, |tokenizer| Local::OpenVino(openvino.options(threads, tokenizer)))
    }

    fn on(dir: &Path, local: impl FnOnce(&Tokenizer) -> Local) -> Result<Self, ModelError> {
        let manifest = Manifest::read(dir)?;
        let tokenizer = Tokenizer::read(dir, manifest.max_tokens)?;
        let opened = local(&tokenizer).open(dir, &manifest)?;
        opened.log();
        let mut loaded = Self {
            manifest,
            tokenizer,
            backend: opened.backend,
            proven: false,
        };
        let gate = loaded.gate();
        let sung = loaded.backend.canary(&loaded.tokenizer, gate);
        sung.map_err(ModelError::Canary)?;
        loaded.proven = true;
        Ok(loaded)
    }

    /// The judge of its vectors.
    pub fn gate(&self) -> Gate {
        self.manifest.gate()
    }
}

fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    std::fs::read(path).map_err(|source| ModelError::Read {
        path: path.to_owned(),
        source,
    })
}

/// A file's bytes, if they are the ones meant.
fn verified(path: &Path, expected: &str) -> Result<Vec<u8>, ModelError> {
    let bytes = read(path)?;
    let found: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    if found == expected {
        Ok(bytes)
    } else {
        Err(ModelError::Checksum {
            path: path.to_owned(),
            expected: expected.to_owned(),
            found,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_than_the_manifest_means_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(MODEL_FILE);
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(verified(&path, abc).unwrap(), b"abc");
        let error = verified(&path, &abc.replace('b', "c")).unwrap_err();
        assert!(error.to_string().contains(abc), "{error}");
    }
}
