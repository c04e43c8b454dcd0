//! Logs: text for people, JSON lines for machines, on standard output.

use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One readable line an event.
    #[default]
    Text,
    /// One JSON object an event.
    Json,
}

/// The `[log]` section of every service's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Telemetry {
    /// `text` or `json`.
    pub format: Format,
    /// What is written, as `tracing-subscriber` reads it: `info`, `warn,millrace_kafka=debug`.
    pub filter: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Why logging could not be started.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("log.filter `{filter}` cannot be read: {why}; write for example `info` or `warn,millrace_kafka=debug`")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        why: String,
    },
    /// Logging was started before in this process.
    #[error("logging is started already in this process: {0}")]
    Started(String),
}

/// Starts logging for the whole process, panics included. Once a process, before anything else.
pub fn init(telemetry: &Telemetry) -> Result<(), TelemetryError> {
    let filter = filter(&telemetry.filter)?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter);
    match telemetry.format {
        Format::Text => lines.try_init(),
        Format::Json => lines.json().flatten_event(true).with_current_span(true).try_init(),
    }
    .map_err(|e| TelemetryError::Started(e.to_string()))?;
    log_panics();
    Ok(())
}

fn filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    EnvFilter::builder().parse(text).map_err(|e| TelemetryError::Filter {
        filter: text.to_owned(),
        why: e.to_string(),
    })
}

fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("a panic without a message");
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(at, message, %backtrace, "panicked");
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_cannot_be_read_is_named() {
        assert!(filter("warn,millrace_kafka=debug").is_ok());
        let error = filter("a=b=c").unwrap_err().to_string();
        assert!(error.contains("`a=b=c`") && error.contains("log.filter"), "{error}");
    }
}
