//! The indexer's configuration.

use std::path::PathBuf;
use std::time::Duration;

use millrace_flow::layers::Calls;
use millrace_flow::runner::Limits;
use millrace_kafka::KafkaConfig;
use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::{RegistryConfig, check_stage, default_instance};
use millrace_runtime::telemetry::{Log, Traces};
use serde::{Deserialize, Serialize};

/// All of it. Defaults < file < environment (`MILLRACE_INDEXER_…`) < flags.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Stable name of this process in its consumer group; no two may share one.
    pub instance: String,
    /// Where gRPC is served, HOST:PORT.
    pub listen: String,
    /// Address of `/healthz`, `/readyz` and `/metrics`; port 0 takes a free one.
    pub http: String,
    /// Folder of the index; exactly one process uses it.
    pub data_dir: PathBuf,
    /// Address of the embedder, for queries by text.
    pub embedder: String,
    /// How to reach Kafka.
    pub kafka: KafkaConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// Bounds of the index stage.
    pub stage: Limits,
    /// How its records are worked on.
    pub calls: Calls,
    /// Bounds of searches.
    pub search: Search,
    /// Clean-up of replaced revisions.
    pub sweep: Sweep,
    /// The embedded engine.
    #[cfg(feature = "embedded")]
    pub embedded: crate::index::embedded::EmbeddedConfig,
    /// Logs.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
}

/// Bounds of searches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Search {
    /// The most time that a search may have, in milliseconds; callers may ask for less.
    pub longest_ms: u64,
}

/// Clean-up of replaced revisions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Sweep {
    /// How long a replaced revision stays for searches that still run, in milliseconds; above `search.longest_ms`.
    pub grace_ms: u64,
    /// Documents cleaned in one pass.
    pub documents: usize,
    /// Days that a deleted document is remembered, so that a late older revision stays refused.
    pub keep_deleted_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            instance: default_instance(),
            listen: "127.0.0.1:7703".into(),
            http: "127.0.0.1:7713".into(),
            data_dir: "index".into(),
            embedder: "http://127.0.0.1:7702".into(),
            kafka: KafkaConfig::default(),
            registry: RegistryConfig::default(),
            stage: Limits::default(),
            calls: Calls::default(),
            search: Search::default(),
            sweep: Sweep::default(),
            #[cfg(feature = "embedded")]
            embedded: crate::index::embedded::EmbeddedConfig::default(),
            log: Log::default(),
            traces: Traces::default(),
        }
    }
}

impl Default for Search {
    fn default() -> Self {
        Self { longest_ms: 30_000 }
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self {
            grace_ms: 60_000,
            documents: 65_536,
            keep_deleted_days: 45,
        }
    }
}

impl Search {
    /// [`Self::longest_ms`].
    pub fn longest(&self) -> Duration {
        Duration::from_millis(self.longest_ms)
    }
}

impl Config {
    /// Refuses values that contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        // A search reads its clock when it begins and when it ends: half a second covers both.
        const MARGIN_MS: u64 = 500;
        let refused = |key, message: String| Err(ConfigError::refused(key, message));
        let (longest, grace) = (self.search.longest_ms, self.sweep.grace_ms);
        if longest == 0 {
            return refused("search.longest_ms", "a search needs time: at least 1".into());
        }
        if grace < longest.saturating_add(MARGIN_MS) {
            let least = longest.saturating_add(MARGIN_MS);
            let message = format!(
                "{grace} is too short: points must outlive every search that may want them, so at least {least} \
                 (search.longest_ms and {MARGIN_MS})"
            );
            return refused("sweep.grace_ms", message);
        }
        if self.sweep.documents == 0 {
            return refused("sweep.documents", "at least 1, or nothing is ever cleaned up".into());
        }
        if self.instance.is_empty() {
            return refused("instance", "a stable name, for example the host's".into());
        }
        if self.data_dir.as_os_str().is_empty() {
            return refused("data_dir", "the folder of the index".into());
        }
        check_stage(&self.stage, &self.calls)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_file_says_the_defaults_and_they_are_accepted() {
        let file = Some(std::path::Path::new("indexer.toml"));
        let shipped: Config = millrace_runtime::config::load_from("indexer", file, [], ()).unwrap();
        shipped.check().unwrap();
        assert_eq!(shipped, Config::default());
    }

    #[test]
    fn clean_up_waits_for_the_longest_search() {
        let mut config = Config::default();
        config.search.longest_ms = config.sweep.grace_ms;
        let refused = config.check().unwrap_err().to_string();
        assert!(
            refused.contains("sweep.grace_ms") && refused.contains("60500"),
            "{refused}"
        );
    }
}
