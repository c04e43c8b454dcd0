//! Configuration of ingest: file, environment `MILLRACE_INGEST_…`, flags.

use std::path::PathBuf;

use millrace_events::{Lane, Tenant};
use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::{RegistryConfig, check_stage, default_instance};
use millrace_runtime::telemetry::{Log, Traces};
use serde::{Deserialize, Serialize};

use crate::pipeline::chunk::MIN_CHUNK_TOKENS;
use crate::pipeline::lanes::LaneConfig;

/// No embedding model that is run here takes more.
const MAX_CHUNK_TOKENS: usize = 8192;

/// What an ingest process needs to know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stable name of this process: member of the consumer group, part of the transactional id. One process a name.
    pub instance: String,
    /// Address of the gRPC server; port 0 takes a free one.
    pub listen: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    pub http: String,
    /// Folder of the replicas. One process a folder; what is in it can be read again from the topics.
    pub data_dir: PathBuf,
    /// The embedding model's tokenizer.json: chunks are measured with it.
    pub tokenizer: PathBuf,
    /// Longest chunk in tokens of that tokenizer, special ones included; not above what the model takes.
    pub max_chunk_tokens: usize,
    /// Lanes of documents.
    pub lanes: LaneConfig,
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
            listen: "127.0.0.1:7701".into(),
            http: "127.0.0.1:7711".into(),
            data_dir: "data/ingest".into(),
            tokenizer: PathBuf::new(),
            max_chunk_tokens: 200,
            lanes: LaneConfig::default(),
            kafka: KafkaConfig::default(),
            registry: RegistryConfig::default(),
            // A megabyte of text in flight is a few of its parts: more at once only wait for a processor.
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
        let refused = |key: &str, message: String| Err(ConfigError::refused(key, message));
        if self.instance.is_empty() {
            return refused("instance", "must be a name that no other ingest has".into());
        }
        if self.data_dir.as_os_str().is_empty() {
            return refused("data_dir", "must be a folder that this process may write".into());
        }
        if self.tokenizer.as_os_str().is_empty() {
            return refused(
                "tokenizer",
                "must be the path of the embedding model's tokenizer.json".into(),
            );
        }
        if !(MIN_CHUNK_TOKENS..=MAX_CHUNK_TOKENS).contains(&self.max_chunk_tokens) {
            let message =
                format!("must be {MIN_CHUNK_TOKENS} to {MAX_CHUNK_TOKENS}, and not above what the model takes");
            return refused("max_chunk_tokens", message);
        }
        if self.lanes.names.contains(&Lane::BASE) {
            return refused(
                "lanes.names",
                "has an empty name: the base lane has none and is always there".into(),
            );
        }
        if let Some((tenant, lane)) = self.lanes.tenants.iter().find(|(_, lane)| !self.lanes.has(lane)) {
            let message = format!("puts tenant {tenant} into lane {lane}, which is not among lanes.names");
            return refused("lanes.tenants", message);
        }
        if let Some(name) = self
            .lanes
            .tenants
            .keys()
            .find(|name| Tenant::new(name.as_str()).is_err())
        {
            return refused("lanes.tenants", format!("names {name}, which is no tenant"));
        }
        check_stage(&self.stage, &self.calls)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use millrace_runtime::config::load_from;

    use super::*;

    fn shipped() -> Result<Config, ConfigError> {
        load_from("ingest", Some(Path::new("ingest.toml")), [], ())
    }

    #[test]
    fn the_shipped_file_is_usable_and_says_the_defaults() {
        let config = shipped().unwrap();
        config.check().unwrap();
        let defaults = Config {
            tokenizer: config.tokenizer.clone(),
            ..Config::default()
        };
        assert_eq!(config, defaults);
    }

    #[test]
    fn what_cannot_work_is_named() {
        type Change = fn(&mut Config);
        let rows: [(Change, &str); 8] = [
            (|c| c.lanes.names = [Lane::BASE].into(), "lanes.names"),
            (
                |c| c.lanes.tenants = [("a".to_owned(), Lane::new("bulk").unwrap())].into(),
                "lanes.tenants",
            ),
            (|c| c.instance.clear(), "instance"),
            (|c| c.data_dir = PathBuf::new(), "data_dir"),
            (|c| c.tokenizer = PathBuf::new(), "tokenizer"),
            (|c| c.max_chunk_tokens = 10, "max_chunk_tokens"),
            (|c| c.stage.max_in_flight = 0, "stage.max_in_flight"),
            (|c| c.calls.timeout_ms = 0, "calls.timeout_ms"),
        ];
        for (change, key) in rows {
            let mut config = shipped().unwrap();
            change(&mut config);
            let error = config.check().unwrap_err().to_string();
            assert!(error.contains(key), "{key}: {error}");
        }
    }

    #[test]
    fn the_environment_goes_before_the_file() {
        let set = [("MILLRACE_INGEST_KAFKA__BOOTSTRAP_SERVERS".to_owned(), "b:1".to_owned())];
        let config: Config = load_from("ingest", Some(Path::new("ingest.toml")), set, ()).unwrap();
        assert_eq!(config.kafka.bootstrap_servers, "b:1");
    }
}
