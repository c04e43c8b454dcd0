//! OpenVINO in this process, loaded from the library that the configuration names. It computes on the processor alone.
//!
//! | precision | vectors |
//! |---|---|
//! | f32 | the ONNX Runtime's to 1e-5, and as little dependent on their batch |
//! | bf16 | their cosine to those in f32 is 0.9999 or more on the texts of the [`proof`]; a text's own differs by up to 2e-3 a value with what is in its batch, so none is remembered |
//!
//! Promises:
//! - The precision is the configured one: left to itself OpenVINO computes in bf16 where the processor has it.
//! - bf16 is held against f32 whenever the backend is made ([`proof`]), since there are versions that give nonsense in it
//!   (2025.4.1 on an EPYC with avx512_bf16). Where it fails, f32 computes, and a warning says why.
//! - What runs are the bytes that were verified, with the same pooling at their end as the ONNX Runtime's.
//!
//! A batch is computed in parts, a part a stream ([`streams`]): threads that share one part wait for each other after each layer, and
//! for as long as one of them has no processor ([ADR 29](../../../../../docs/adr/0029-streams-and-nice.md)).
//!
//! One OpenVINO a process, as with the ONNX Runtime.
//!
//! Rejected: OpenVINO as an execution provider of the ONNX Runtime (a build of the runtime that has it would take the place of
//! the one for `cpu` and `cuda`, and is tied to one version of OpenVINO); INT8 (other vectors: that is another model).

mod library;
mod proof;
mod session;
mod streams;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::backend::{Backend, BackendError, Description};
use super::tokenizer::{Tokenizer, Tokens};
use super::{MODEL_FILE, Manifest, ModelError, calibration, verified};
use proof::Embed;
use session::{Compiler, Session};

/// The backend's name in [`Description`].
pub(super) const NAME: &str = "openvino";

/// `[model.openvino]`: which OpenVINO, and what it computes in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OpenVino {
    /// Its C library, `libopenvino_c.so` and what follows, with its other libraries beside it. Empty: there is none.
    pub library: PathBuf,
    /// What it computes in.
    pub precision: Precision,
    /// Parts of a batch that are computed at once, each with its share of the threads, and no more than those. None: two for two
    /// threads, which is what was measured, and else one.
    pub streams: Option<usize>,
}

/// What to compute in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits with the exponent of 32, where that is as good as f32.
    Bf16,
}

impl Precision {
    /// As configured, and as OpenVINO calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
        }
    }

    /// What is called so.
    pub fn named(name: &str) -> Option<Self> {
        [Self::F32, Self::Bf16].into_iter().find(|known| known.name() == name)
    }

    /// Whether a text's vector is the same to 1e-5 whatever else is in its batch.
    pub(super) fn is_batch_independent(self) -> bool {
        self == Self::F32
    }
}

/// What the backend needs to know besides the model's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenVinoOptions {
    /// Its C library.
    pub library: PathBuf,
    /// What to compute in.
    pub precision: Precision,
    /// Threads to compute with.
    pub threads: usize,
    /// Parts of a batch that are computed at once, each with its share of the threads.
    pub streams: usize,
    /// Token that fills rows of a batch.
    pub pad_id: u32,
    /// Texts that bf16 is held against f32 with; empty for f32.
    pub proof: Vec<Tokens>,
}

impl OpenVino {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.library.as_os_str().is_empty()
    }

    /// What to make, for texts of this tokenizer.
    pub(super) fn options(&self, threads: usize, tokenizer: &Tokenizer) -> OpenVinoOptions {
        OpenVinoOptions {
            library: self.library.clone(),
            precision: self.precision,
            threads,
            streams: self
                .streams
                .unwrap_or(if threads == 2 { 2 } else { 1 })
                .clamp(1, threads.max(1)),
            pad_id: tokenizer.pad_id(),
            proof: match self.precision {
                Precision::F32 => Vec::new(),
                Precision::Bf16 => calibration::hard(tokenizer),
            },
        }
    }
}

/// A model on OpenVINO.
pub struct OpenVinoBackend {
    session: Session,
    version: String,
    threads: usize,
}

impl OpenVinoBackend {
    /// The model of a directory; and why it computes in f32, where bf16 was wanted.
    pub fn open(
        dir: &Path,
        manifest: &Manifest,
        options: &OpenVinoOptions,
    ) -> Result<(Self, Option<String>), ModelError> {
        let version = library::load(&options.library)?;
        let model = verified(&dir.join(MODEL_FILE), &manifest.sha256)?;
        let refused = |what: String| ModelError::OpenVinoModel {
            library: options.library.clone(),
            what,
        };
        let mut compiler = Compiler::new(&model, manifest, options).map_err(refused)?;
        drop(model);
        let session = proof::session(&mut compiler, options.precision, &options.proof, manifest.gate());
        let (session, fell_back) = session.map_err(refused)?;
        Ok((
            Self {
                session,
                version,
                threads: options.threads,
            },
            fell_back,
        ))
    }
}

impl Backend for OpenVinoBackend {
    fn embed(&mut self, inputs: &[&Tokens]) -> Result<Vec<Vec<f32>>, BackendError> {
        self.session
            .embed(inputs)
            .map_err(|said| BackendError::said(said, &NO_MEMORY))
    }

    fn describe(&self) -> Description {
        let precision = self.session.precision();
        Description {
            name: NAME,
            version: self.version.clone(),
            device: "cpu".into(),
            precision: precision.name(),
            threads: self.threads,
            streams: self.session.streams(),
            batch_independent: precision.is_batch_independent(),
            stands_in_for: None,
        }
    }
}

/// What OpenVINO and oneDNN say when there is no memory left. They have no code of their own for that.
const NO_MEMORY: [&str; 4] = ["bad_alloc", "out of memory", "out_of_memory", "Failed to allocate"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lack_of_memory_is_told_from_other_failures() {
        for (said, too_large) in [
            ("general error: Exception from src/inference: std::bad_alloc", true),
            ("general error: could not create a memory object: out of memory", true),
            ("parameter mismatch: shapes do not fit", false),
        ] {
            let failure = BackendError::said(said.into(), &NO_MEMORY);
            assert_eq!(matches!(failure, BackendError::TooLarge(_)), too_large, "{failure}");
        }
    }

    #[test]
    fn a_precision_is_found_by_its_name() {
        for precision in [Precision::F32, Precision::Bf16] {
            assert_eq!(Precision::named(precision.name()), Some(precision));
        }
        assert_eq!(Precision::named("int8"), None);
    }
}
