//! Logs: text for people, JSON lines for machines, on standard output. What is written can be changed while the process
//! runs; a line that repeats is cut off.

use std::convert::Infallible;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Registry, reload};

use super::TelemetryError;
use super::limit::{self, Limit};

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
pub struct Log {
    /// `text` or `json`.
    pub format: Format,
    /// What is written, as `tracing-subscriber` reads it: `info`, `warn,millrace_kafka=debug`.
    pub filter: String,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: Format::Text,
            filter: "info".to_owned(),
        }
    }
}

/// Starts logging for the whole process, panics included. Once a process, before anything else.
pub fn init(log: &Log) -> Result<Lines, TelemetryError> {
    let (filter, change) = reload::Layer::new(filter(&log.filter)?);
    let limit = Limit::default();
    let lines = tracing_subscriber::fmt::layer();
    let lines = match log.format {
        Format::Text => lines.with_filter(limit.clone()).boxed(),
        Format::Json => {
            let lines = lines.json().flatten_event(true).with_current_span(true);
            lines.with_filter(limit.clone()).boxed()
        }
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    started.map_err(|e| TelemetryError::Started(e.to_string()))?;
    log_panics();
    Ok(Lines { change, limit })
}

/// What is written, while the process runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lines {
    change: reload::Handle<EnvFilter, Registry>,
    limit: Limit,
}

impl Lines {
    /// Writes this from now on, until the process ends: `warn,millrace_kafka=debug`.
    pub fn write(&self, text: &str) -> Result<(), TelemetryError> {
        let filter = filter(text)?;
        let changed = self.change.reload(filter);
        changed.map_err(|error| TelemetryError::Started(error.to_string()))?;
        tracing::info!(filter = text, "the log's filter was changed");
        Ok(())
    }

    /// What is written now.
    pub fn written(&self) -> String {
        self.change.with_current(ToString::to_string).unwrap_or_default()
    }

    /// Says from time to time how many lines were left out because they repeated.
    pub(super) async fn tell_of_left_out(&self) -> Infallible {
        let mut window = tokio::time::interval(limit::WINDOW);
        loop {
            window.tick().await;
            self.tell_left_out();
        }
    }

    pub(super) fn tell_left_out(&self) {
        for (place, lines) in self.limit.left_out() {
            tracing::warn!(place, lines, "lines that repeat were left out");
        }
    }
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
