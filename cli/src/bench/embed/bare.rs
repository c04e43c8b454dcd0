//! The bare loop: a model in this process that is given texts which are all known, in batches of similar length.
//!
//! How long tokenising took is not counted. Its session is as the embedder's: on OpenVINO it has as many streams.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use millrace_embedder::bench::measure;
use millrace_embedder::model::onnx::{Gpu, Provider};
use millrace_embedder::model::openvino::OpenVino;
use millrace_embedder::model::{Choice, Loaded, ModelSource};

/// A size of batches in texts, and how the table calls it.
pub type Batches = (usize, &'static str);

/// Sizes to try. A processor gains nothing from the largest.
const SWEEP: [Batches; 8] = [
    (1, "bare loop, batches of 1"),
    (4, "bare loop, batches of 4"),
    (8, "bare loop, batches of 8"),
    (16, "bare loop, batches of 16"),
    (32, "bare loop, batches of 32"),
    (64, "bare loop, batches of 64"),
    (128, "bare loop, batches of 128"),
    (256, "bare loop, batches of 256"),
];
const SWEEP_OF_A_PROCESSOR: usize = 64;
/// A GPU has nothing to do with less.
const LEAST_OF_A_GPU: usize = 16;
/// The first runs of a session are slow.
const WARM_UP: usize = 8;

/// A model, and what it runs on.
#[derive(Debug, Clone)]
pub struct Model {
    /// Its directory.
    pub dir: PathBuf,
    /// What it runs on: this processor by one of two runtimes, or a GPU.
    pub choice: Choice,
    /// The ONNX Runtime's library.
    pub onnxruntime: PathBuf,
    /// OpenVINO's, with its precision and its streams.
    pub openvino: OpenVino,
}

impl Model {
    /// Loads it into this process. Blocking.
    pub fn load(&self) -> Result<Loaded> {
        let provider = match self.choice {
            Choice::OpenVino => return self.on_openvino(),
            Choice::Cuda => Provider::Cuda(Gpu::default()),
            Choice::Cpu => Provider::Cpu,
            Choice::Auto | Choice::Endpoint => bail!("a bare loop runs on cpu, cuda or openvino"),
        };
        Ok(Loaded::load(&ModelSource {
            dir: self.dir.clone(),
            onnxruntime: self.onnxruntime.clone(),
            threads: None,
            provider,
        })?)
    }

    fn on_openvino(&self) -> Result<Loaded> {
        let loaded = Loaded::load_on_openvino(&self.dir, &self.openvino, None)?;
        let (wanted, found) = (self.openvino.precision.name(), loaded.backend.describe().precision);
        ensure!(
            found == wanted,
            "OpenVINO computes in {found} here, not in {wanted}: the log says why"
        );
        Ok(loaded)
    }

    /// What it runs on, and in which precision where there is a choice.
    pub fn on(&self) -> String {
        match self.choice {
            Choice::OpenVino => format!("{}, {}", self.choice.name(), self.openvino.precision.name()),
            _ => self.choice.name().to_owned(),
        }
    }
}

/// The model of the loop.
pub struct Bare(Option<Loaded>);

impl Bare {
    /// Of a model that is loaded.
    pub fn new(model: Loaded) -> Self {
        Self(Some(model))
    }

    /// Loads a model, and runs it once over these texts.
    pub async fn load(model: Model, warm_up: &[String]) -> Result<Self> {
        let model = tokio::task::spawn_blocking(move || model.load()).await??;
        let mut bare = Self::new(model);
        bare.warm_up(warm_up).await?;
        Ok(bare)
    }

    /// Runs it over texts before anything is measured.
    pub async fn warm_up(&mut self, texts: &[String]) -> Result<()> {
        self.rate(texts, WARM_UP).await.map(drop)
    }

    /// What the model does, which goes to a thread of its own and comes back.
    pub async fn with<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Loaded) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut model = self.0.take().context("the bare model is lost")?;
        let work = move || work(&mut model).map(|done| (model, done));
        let (model, done) = tokio::task::spawn_blocking(work).await??;
        self.0 = Some(model);
        Ok(done)
    }

    /// Chunks a second with batches of so many texts.
    pub async fn rate(&mut self, texts: &[String], batch: usize) -> Result<f64> {
        let texts = texts.to_vec();
        self.with(move |model| Ok(measure(model, &texts, batch)?.of_the_model()))
            .await
    }

    /// The batches that these texts are quickest with.
    pub async fn best(&mut self, choice: Choice, texts: &[String], say: impl Fn(String)) -> Result<Batches> {
        let (mut best, mut best_rate) = (SWEEP[0], 0.0);
        for (batch, yardstick) in SWEEP {
            let of_use = match choice {
                Choice::Cpu | Choice::OpenVino => batch <= SWEEP_OF_A_PROCESSOR,
                _ => batch >= LEAST_OF_A_GPU,
            };
            if !of_use {
                continue;
            }
            say(format!("{} chunks, bare loop with batches of {batch}", texts.len()));
            let rate = self.rate(texts, batch).await?;
            if rate > best_rate {
                (best, best_rate) = ((batch, yardstick), rate);
            }
        }
        Ok(best)
    }
}
