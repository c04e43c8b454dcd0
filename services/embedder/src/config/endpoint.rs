use std::path::PathBuf;
use std::time::Duration;

use millrace_runtime::config::ConfigError;
use millrace_runtime::settings::Secret;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::model::endpoint::{EndpointOptions, Key};

/// `[model.endpoint]`: an endpoint that speaks the OpenAI embeddings API.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct EndpointConfig {
    /// Address before `/embeddings`, for example `http://127.0.0.1:11434/v1` or `https://api.example.com/v1`. Empty: there is none.
    pub url: String,
    /// Certificate authorities (PEM) that an `https://` endpoint's certificate must come from; without it the system's.
    pub ca_file: PathBuf,
    /// The model's name there.
    pub model: String,
    /// The key that it is shown as a bearer token, if it asks for one.
    pub api_key: Secret,
    /// A file with the key, in its place.
    pub api_key_file: PathBuf,
    /// Longest time for an answer.
    pub timeout_ms: u64,
}

impl Default for EndpointConfig {
    fn default() -> Self {
        Self {
            url: String::new(),
            ca_file: PathBuf::new(),
            model: String::new(),
            api_key: Secret::default(),
            api_key_file: PathBuf::new(),
            // A process that stops waits for the call under way: below the time that it is given for that.
            timeout_ms: 20_000,
        }
    }
}

impl EndpointConfig {
    /// Whether there is one.
    pub fn is_set(&self) -> bool {
        !self.url.is_empty()
    }

    /// Refuses what cannot work. A call takes no longer than the work on the record that waits for it.
    pub(super) fn check(&self, longest_ms: u64) -> Result<(), ConfigError> {
        let https = self.url.starts_with("https://");
        let keys = [!self.api_key.is_empty(), !self.api_key_file.as_os_str().is_empty()];
        let timeout = format!("must be 1 to calls.timeout_ms ({longest_ms})");
        let rows = [
            (
                "url",
                https || self.url.starts_with("http://"),
                "must begin with http:// or https://",
            ),
            (
                "ca_file",
                https || self.ca_file.as_os_str().is_empty(),
                "must be left out where the url does not begin with https://",
            ),
            (
                "url",
                !self.url.contains('@'),
                "must hold no user or password: api_key is for those",
            ),
            (
                "model",
                !self.model.is_empty(),
                "must be the model's name at the endpoint",
            ),
            (
                "api_key_file",
                keys != [true, true],
                "must be left out where api_key is given",
            ),
            (
                "timeout_ms",
                (1..=longest_ms).contains(&self.timeout_ms),
                timeout.as_str(),
            ),
        ];
        match rows.into_iter().find(|(_, usable, _)| !usable) {
            None => Ok(()),
            Some((key, _, why)) => Err(ConfigError::refused(&format!("model.endpoint.{key}"), why)),
        }
    }

    /// How to reach it; its calls are driven by this runtime.
    pub fn options(&self, runtime: Handle) -> EndpointOptions {
        let key = match &self.api_key {
            given if !given.is_empty() => Key::Given(given.clone()),
            _ if self.api_key_file.as_os_str().is_empty() => Key::None,
            _ => Key::File(self.api_key_file.clone()),
        };
        EndpointOptions {
            url: self.url.clone(),
            model: self.model.clone(),
            ca_file: self.ca_file.clone(),
            key,
            timeout: Duration::from_millis(self.timeout_ms),
            runtime,
        }
    }
}
