//! A backend of this machine: told of alike whether it is made in this process or in one of its own.

use std::path::Path;

use super::backend::Backend;
use super::onnx::{OnnxBackend, OnnxOptions, Provider};
use super::openvino::{OpenVinoBackend, OpenVinoOptions};
use super::{Manifest, ModelError};

/// Which backend of this machine, and how.
#[derive(Debug, Clone)]
pub(super) enum Local {
    Onnx(OnnxOptions),
    OpenVino(OpenVinoOptions),
}

/// A backend that has been made.
pub(super) struct Opened {
    pub(super) backend: Box<dyn Backend>,
    /// Why it does not compute in what it was told to.
    pub(super) fell_back: Option<String>,
}

impl Local {
    /// Makes it in this process, with the model of a directory. The file is read again each time: what runs is what was
    /// verified, and nobody keeps the bytes meanwhile.
    pub(super) fn open(self, dir: &Path, manifest: &Manifest) -> Result<Opened, ModelError> {
        match self {
            Self::Onnx(options) => Ok(Opened {
                backend: Box::new(OnnxBackend::open(dir, manifest, options)?),
                fell_back: None,
            }),
            Self::OpenVino(options) => {
                let (backend, fell_back) = OpenVinoBackend::open(dir, manifest, &options)?;
                let backend = Box::new(backend);
                Ok(Opened { backend, fell_back })
            }
        }
    }

    /// As [`super::Description::name`] has it.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Onnx(_) => super::onnx::NAME,
            Self::OpenVino(_) => super::openvino::NAME,
        }
    }

    /// As [`super::Description::device`] has it.
    pub(super) fn device(&self) -> String {
        match self {
            Self::Onnx(options) => options.provider.device(),
            Self::OpenVino(_) => Provider::Cpu.device(),
        }
    }

    pub(super) fn is_on_processor(&self) -> bool {
        self.device() == Provider::Cpu.device()
    }

    pub(super) fn library(&self) -> &Path {
        match self {
            Self::Onnx(options) => &options.library,
            Self::OpenVino(options) => &options.library,
        }
    }

    pub(super) fn pad_id(&self) -> u32 {
        match self {
            Self::Onnx(options) => options.pad_id,
            Self::OpenVino(options) => options.pad_id,
        }
    }

    pub(super) fn threads(&self) -> usize {
        match self {
            Self::Onnx(options) => options.threads,
            Self::OpenVino(options) => options.threads,
        }
    }
}

impl Opened {
    pub(super) fn log(&self) {
        if let Some(why) = &self.fell_back {
            let backend = self.backend.describe();
            let (backend, precision) = (backend.name, backend.precision);
            tracing::warn!(backend, precision, %why, "a backend computes in another precision than configured");
        }
    }
}
