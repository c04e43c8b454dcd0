//! Configuration of the embedder: file, environment `MILLRACE_EMBEDDER_…`, flags.

use std::path::PathBuf;

use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::{RegistryConfig, check_stage, default_instance};
use millrace_runtime::telemetry::Telemetry;
use serde::{Deserialize, Serialize};

use crate::batch::BatchLimits;
use crate::model::ModelSource;

/// What an embedder needs to know.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stable name of this process: member of the consumer group, part of the transactional id. One process a name.
    pub instance: String,
    /// Address of the gRPC server; port 0 takes a free one.
    pub listen: String,
    /// The ONNX runtime's shared library.
    pub onnxruntime: PathBuf,
    /// The model.
    pub model: ModelConfig,
    /// How texts share the model.
    pub batch: BatchLimits,
    /// Kafka.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// Bounds of the stage.
    pub stage: Limits,
    /// How its records are worked on.
    pub calls: Calls,
    /// Logs.
    pub log: Telemetry,
}

/// Where the model is and how it runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Folder with model.onnx, tokenizer.json and model.toml.
    pub dir: PathBuf,
    /// Threads to compute with; without it as many as the machine offers.
    pub threads: Option<usize>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: default_instance(),
            listen: "127.0.0.1:7702".into(),
            onnxruntime: PathBuf::new(),
            model: ModelConfig::default(),
            batch: BatchLimits::default(),
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
            log: Telemetry::default(),
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
        if self.model.dir.as_os_str().is_empty() {
            return refused(
                "model.dir",
                "must be the folder of model.onnx, tokenizer.json and model.toml",
            );
        }
        if self.onnxruntime.as_os_str().is_empty() {
            return refused("onnxruntime", "must be the path of libonnxruntime");
        }
        if self.model.threads == Some(0) {
            return refused(
                "model.threads",
                "must be at least 1, or left out for all of the machine",
            );
        }
        check_stage(&self.stage, &self.calls)?;
        self.batch
            .check()
            .map_err(|message| ConfigError::refused("batch", message))
    }

    /// What to load.
    pub fn model_source(&self) -> ModelSource {
        ModelSource {
            dir: self.model.dir.clone(),
            onnxruntime: self.onnxruntime.clone(),
            threads: self.model.threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As `millrace up` writes it.
    const WRITTEN: &str = r#"
        instance = "local-0"
        listen = "127.0.0.1:0"
        onnxruntime = "/cache/libonnxruntime.so"
        model.dir = "/cache/model"
        kafka.bootstrap_servers = "127.0.0.1:19092"
        registry.url = "http://127.0.0.1:18081"
    "#;

    #[test]
    fn the_shortest_file_is_enough() {
        let config: Config = toml::from_str(WRITTEN).unwrap();
        config.check().unwrap();
        assert_eq!((config.stage.max_in_flight, config.model_source().threads), (64, None));
    }

    #[test]
    fn what_cannot_work_is_named() {
        for (from, to, key) in [
            ("local-0", "", "instance"),
            ("/cache/model", "", "model.dir"),
            ("/cache/libonnxruntime.so", "", "onnxruntime"),
            ("model.dir", "model.threads = 0\nmodel.dir", "model.threads"),
            (
                "registry.url",
                "stage.max_in_flight = 0\nregistry.url",
                "stage.max_in_flight",
            ),
            ("registry.url", "calls.timeout_ms = 0\nregistry.url", "calls.timeout_ms"),
            (
                "registry.url",
                "batch.queue_requests = 0\nregistry.url",
                "batch.queue_requests",
            ),
        ] {
            let config: Config = toml::from_str(&WRITTEN.replacen(from, to, 1)).unwrap();
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn the_shipped_file_is_usable_and_says_the_defaults() {
        let shipped: Config = toml::from_str(include_str!("../embedder.toml")).unwrap();
        shipped.check().unwrap();
        let defaults = Config {
            onnxruntime: shipped.onnxruntime.clone(),
            model: shipped.model.clone(),
            ..Config::default()
        };
        assert_eq!(toml::to_string(&shipped).unwrap(), toml::to_string(&defaults).unwrap());
    }

    #[test]
    fn a_typo_is_refused() {
        assert!(toml::from_str::<Config>("modle.dir = 'x'").is_err());
    }
}
