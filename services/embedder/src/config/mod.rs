//! Configuration of the embedder: file, environment `MILLRACE_EMBEDDER_…`, flags. [`model`] is where the model is and what runs
//! it, [`endpoint`] one that is somebody else's, [`lanes`] what documents weigh.

mod endpoint;
mod lanes;
mod model;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::{RegistryConfig, check_stage, default_instance};
use millrace_runtime::telemetry::{Log, Traces};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::batch::BatchLimits;
use crate::cache::CacheOptions;
use crate::model::Plan;
pub use endpoint::EndpointConfig;
pub use lanes::Lanes;
pub use model::{GpuConfig, ModelConfig};

/// What an embedder needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stable name of this process: member of the consumer group, part of the transactional id. One process a name.
    pub instance: String,
    /// Address of the gRPC server; port 0 takes a free one.
    pub listen: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    pub http: String,
    /// Address of `/v1/embeddings`, as OpenAI's clients ask for it; port 0 takes a free one. Empty: it is not served.
    pub openai: String,
    /// The ONNX runtime's shared library. Not needed where the model runs at an endpoint, or on OpenVINO alone.
    pub onnxruntime: PathBuf,
    /// The model.
    pub model: ModelConfig,
    /// How texts share the model.
    pub batch: BatchLimits,
    /// Lanes of documents, and what they weigh.
    pub lanes: Lanes,
    /// Vectors that were computed before.
    pub cache: CacheOptions,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// Bounds of the stage.
    pub stage: Limits,
    /// How its records are worked on.
    pub calls: Calls,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: default_instance(),
            listen: "127.0.0.1:7702".into(),
            http: "127.0.0.1:7712".into(),
            openai: String::new(),
            onnxruntime: PathBuf::new(),
            model: ModelConfig::default(),
            batch: BatchLimits::default(),
            lanes: Lanes::default(),
            cache: CacheOptions::default(),
            kafka: KafkaConfig::default(),
            registry: RegistryConfig::default(),
            // Parts in flight beyond what fills batches only wait inside, and are thrown away by a shutdown.
            stage: Limits {
                max_in_flight: 64,
                ..Limits::default()
            },
            calls: Calls {
                concurrency: 64,
                ..Calls::default()
            },
            log: Log::default(),
            traces: Traces::default(),
        }
    }
}

impl Config {
    /// Refuses what cannot work, naming the key.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refused = |key: &str, message: &str| Err(ConfigError::refused(key, message));
        if self.instance.is_empty() {
            return refused("instance", "must be a name that no other embedder has");
        }
        self.model
            .check(&self.onnxruntime, self.calls.timeout_ms, &self.batch)?;
        check_stage(&self.stage, &self.calls)?;
        self.lanes.check()?;
        self.cache
            .check()
            .map_err(|(key, why)| ConfigError::refused(key, &why))?;
        self.batch
            .check()
            .map_err(|message| ConfigError::refused("batch", message))
    }

    /// What runs the model; calls to an endpoint are driven by this runtime.
    pub fn plan(&self, runtime: Handle) -> Plan {
        self.model.plan(&self.onnxruntime, runtime)
    }
}
