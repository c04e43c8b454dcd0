//! What a process tells of itself: [`log`] lines, [`metrics`], and [`traces`] where somebody takes them.

use std::convert::Infallible;
use std::time::Duration;

mod limit;
pub mod log;
pub mod metrics;
mod sampling;
pub mod traces;

pub use log::{Format, Lines, Log};
pub use metrics::Metrics;
pub use traces::Traces;

/// For one request to the receiver.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// The sections of a configuration that this is about, and who tells.
#[derive(Debug, Clone, Copy)]
pub struct Telling<'c> {
    /// Stable name of the process in its consumer groups.
    pub instance: &'c str,
    /// `[log]`.
    pub log: &'c Log,
    /// `[traces]`.
    pub traces: &'c Traces,
}

/// Why telemetry could not be started.
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
    /// The share of traces is none.
    #[error("traces.sample is {0}: write a share of the traces from 0 to 1, for example 0.1")]
    Sample(f64),
    /// The address of the collector is none.
    #[error(
        "traces.endpoint `{endpoint}` cannot be used: {why}; write http://HOST:4317, the address of an OTLP receiver over gRPC"
    )]
    Endpoint {
        /// What was given.
        endpoint: String,
        /// What is wrong with it.
        why: String,
    },
    /// Metrics cannot be made.
    #[error("metrics cannot be started: {0}")]
    Metrics(String),
    /// Logging was started before in this process.
    #[error("logging is started already in this process: {0}")]
    Started(String),
}

/// What operators ask a process for, beside its health.
#[derive(Debug, Clone)]
pub struct Ops {
    /// What is logged.
    pub lines: Lines,
    /// What is measured.
    pub metrics: Metrics,
}

/// What was started; to be stopped when the process has done its work.
#[derive(Debug)]
#[must_use = "what is not stopped loses its last spans"]
pub struct Telemetry {
    /// What a process needs of it to be asked about itself.
    pub ops: Ops,
    sending: Option<traces::Sending>,
}

/// Starts logs and traces. Once a process, within a tokio runtime, before anything else. `service` is the process's short
/// name.
pub fn init(service: &str, telling: Telling<'_>) -> Result<Telemetry, TelemetryError> {
    let lines = log::init(telling.log)?;
    let (resource, endpoint) = (
        traces::resource(service, telling.instance),
        traces::endpoint(telling.traces)?,
    );
    let metrics = Metrics::start(resource.clone(), traces::metrics_endpoint()?.as_deref())?;
    Ok(Telemetry {
        ops: Ops { lines, metrics },
        sending: traces::start(resource, endpoint, telling.traces)?,
    })
}

impl Telemetry {
    /// Goes on as long as the process does.
    pub async fn keep_telling(&self) -> Infallible {
        self.ops.lines.tell_of_left_out().await
    }

    /// Sends what has not been sent yet, for some seconds at most.
    pub async fn stop(self) {
        self.ops.lines.tell_left_out();
        // Each waits for the receiver, side by side.
        let (metrics, sending) = (self.ops.metrics, self.sending);
        let metrics = tokio::task::spawn_blocking(move || metrics.stop());
        let spans = tokio::task::spawn_blocking(move || sending.map_or(Ok(()), traces::Sending::stop));
        for stopped in [metrics.await, spans.await] {
            match stopped {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%error, "the last spans or metrics were not sent"),
                Err(error) => tracing::warn!(%error, "the last spans or metrics were not sent"),
            }
        }
    }
}
