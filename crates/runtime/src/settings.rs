//! Sections that the configuration of every service has.

use serde::{Deserialize, Serialize};

/// `[registry]`: the schema registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistryConfig {
    /// Address of its Confluent-compatible API: `http://host:port`, and a path if it has one.
    pub url: String,
}

impl Default for RegistryConfig {
    fn default() -> Self {
        Self {
            url: "http://127.0.0.1:8081".into(),
        }
    }
}
