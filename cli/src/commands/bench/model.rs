use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use millrace_embedder::batch::BatchLimits;
use millrace_embedder::model::Choice;
use millrace_embedder::model::openvino::{OpenVino, Precision};

/// How a model is run, and in which batches.
#[derive(Debug, clap::Args)]
pub(super) struct OfModel {
    /// The ONNX Runtime's library [default: the local stack's]
    #[arg(long, value_name = "FILE")]
    pub(super) onnxruntime: Option<PathBuf>,
    /// OpenVINO's C library, for the backend openvino
    #[arg(long, value_name = "FILE")]
    openvino: Option<PathBuf>,
    /// What it computes in: f32 or bf16
    #[arg(long, value_name = "NAME", default_value = "f32", value_parser = precision)]
    precision: Precision,
    /// Parts of a batch that it computes at once [default: the embedder's]
    #[arg(long, value_name = "N")]
    streams: Option<NonZeroUsize>,
    /// Largest batch: rows times longest row
    #[arg(long, value_name = "N", default_value_t = BatchLimits::default().max_batch_tokens)]
    max_batch_tokens: usize,
    /// Largest batch in texts
    #[arg(long, value_name = "N", default_value_t = BatchLimits::default().max_batch_texts)]
    max_batch_texts: usize,
    /// Full batches handed over while another one runs
    #[arg(long, value_name = "N", default_value_t = BatchLimits::default().prepared_batches)]
    prepared_batches: usize,
    /// A GPU's session in the embedder's process, not in one of its own
    #[arg(long)]
    pub(super) in_process: bool,
}

impl OfModel {
    pub(super) fn openvino(&self, backends: &[Choice]) -> Result<OpenVino> {
        ensure!(
            self.openvino.is_some() || !backends.contains(&Choice::OpenVino),
            "the backend openvino needs --openvino FILE, its C library: of PyPI's wheel openvino, for example"
        );
        Ok(OpenVino {
            library: absolute(self.openvino.as_ref())?.unwrap_or_default(),
            precision: self.precision,
            streams: self.streams.map(NonZeroUsize::get),
        })
    }

    /// Limits that the embedder takes.
    pub(super) fn limits(&self) -> Result<BatchLimits> {
        let defaults = BatchLimits::default();
        let limits = BatchLimits {
            max_batch_tokens: self.max_batch_tokens,
            max_batch_texts: self.max_batch_texts,
            prepared_batches: self.prepared_batches,
            max_waiting_tokens: defaults.max_waiting_tokens.max(8 * self.max_batch_tokens),
            ..defaults
        };
        limits.check().map_err(anyhow::Error::msg)?;
        Ok(limits)
    }
}

/// A stack's services have a working directory of their own.
pub(super) fn absolute(path: Option<&PathBuf>) -> Result<Option<PathBuf>> {
    Ok(path.map(std::path::absolute).transpose()?)
}

pub(super) fn backend(name: &str) -> Result<Choice, String> {
    let known = [Choice::Cpu, Choice::Cuda, Choice::OpenVino];
    let found = known.into_iter().find(|choice| choice.name() == name);
    found.ok_or_else(|| "it is cpu, cuda or openvino".to_owned())
}

fn precision(name: &str) -> Result<Precision, String> {
    Precision::named(name).ok_or_else(|| "it is f32 or bf16".to_owned())
}
