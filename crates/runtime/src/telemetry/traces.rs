//! Spans, sent to an OTLP receiver. Without the address of one, or with OTEL_SDK_DISABLED=true, none are made.

use std::time::Duration;

use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, SpanLimits};
use serde::{Deserialize, Serialize};

use super::sampling::{KeepFailures, Sampling};
use super::{SEND_TIMEOUT, TelemetryError};

/// OpenTelemetry's own names of the receiver's address, the first one that is set counts.
const ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
const METRICS_ENDPOINT: [&str; 2] = ["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
/// OpenTelemetry's own switch.
const DISABLED: &str = "OTEL_SDK_DISABLED";
const NAMESPACE: &str = "millrace";
/// A batch of the model has a link for each record in it, a commit for each that it finishes. The SDK's own 128 would lose
/// the rest silently.
const MAX_LINKS: u32 = 8192;
/// Spans that wait to be sent, some tens of megabytes; more are dropped, and the log says so.
const QUEUE: usize = 32_768;
const BATCH: usize = 2048;
const EVERY: Duration = Duration::from_millis(500);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

/// The `[traces]` section of every service's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// OTLP receiver over gRPC, `http://HOST:4317`. Empty: the environment's OTEL_EXPORTER_OTLP_ENDPOINT; without that one
    /// either, no traces.
    pub endpoint: String,
    /// Share of the traces that begin here and are kept, from 0 to 1. A caller's own decision goes before it; what failed
    /// is kept in any case.
    pub sample: f64,
}

impl Default for Traces {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            sample: 1.0,
        }
    }
}

/// Spans are being sent.
#[derive(Debug)]
pub(super) struct Sending(SdkTracerProvider);

/// Where to send traces, if anywhere.
pub(super) fn endpoint(traces: &Traces) -> Result<Option<String>, TelemetryError> {
    let given = Some(traces.endpoint.clone()).filter(|address| !address.is_empty());
    usable(given.or_else(named_by_environment))
}

/// Where the environment says that traces go.
pub fn named_by_environment() -> Option<String> {
    known(ENDPOINT)
}

/// Where to send metrics: where the environment says. Those that keep traces alone are no place for them.
pub(super) fn metrics_endpoint() -> Result<Option<String>, TelemetryError> {
    usable(known(METRICS_ENDPOINT))
}

fn known(names: [&str; 2]) -> Option<String> {
    // Empty is as good as unset.
    let mut given = names.iter().filter_map(|name| std::env::var(name).ok());
    given.find(|address| !address.is_empty())
}

fn usable(endpoint: Option<String>) -> Result<Option<String>, TelemetryError> {
    let disabled = std::env::var(DISABLED).is_ok_and(|value| value.eq_ignore_ascii_case("true"));
    let Some(endpoint) = endpoint.filter(|address| !address.is_empty() && !disabled) else {
        return Ok(None);
    };
    // Without a scheme the exporter would speak TLS, which this build does not.
    match endpoint.starts_with("http://") {
        true => Ok(Some(endpoint)),
        false => Err(refused(&endpoint, "it does not begin with http://".into())),
    }
}

fn refused(endpoint: &str, why: String) -> TelemetryError {
    TelemetryError::Endpoint {
        endpoint: endpoint.to_owned(),
        why,
    }
}

pub(super) fn start(
    resource: Resource,
    endpoint: Option<String>,
    traces: &Traces,
) -> Result<Option<Sending>, TelemetryError> {
    if !(0.0..=1.0).contains(&traces.sample) {
        return Err(TelemetryError::Sample(traces.sample));
    }
    let Some(endpoint) = endpoint else {
        return Ok(None);
    };
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.clone())
        .with_timeout(SEND_TIMEOUT)
        .build()
        .map_err(|error| refused(&endpoint, error.to_string()))?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE)
        .with_max_export_batch_size(BATCH)
        .with_scheduled_delay(EVERY)
        .build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
    let provider = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_sampler(Sampling::of_roots(traces.sample))
        .with_span_limits(SpanLimits {
            max_links_per_span: MAX_LINKS,
            ..SpanLimits::default()
        })
        .with_span_processor(KeepFailures(batches))
        .build();
    global::set_tracer_provider(provider.clone());
    millrace_telemetry::enable();
    tracing::info!(endpoint, sample = traces.sample, "traces are sent");
    Ok(Some(Sending(provider)))
}

/// Who sends. The environment's OTEL_RESOURCE_ATTRIBUTES are added by the SDK.
pub(super) fn resource(service: &str, instance: &str) -> Resource {
    Resource::builder()
        .with_service_name(format!("{NAMESPACE}-{service}"))
        .with_attributes([
            KeyValue::new("service.namespace", NAMESPACE),
            KeyValue::new("service.instance.id", instance.to_owned()),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ])
        .build()
}

impl Sending {
    /// Blocks.
    pub(super) fn stop(self) -> OTelSdkResult {
        self.0.shutdown_with_timeout(STOP_TIMEOUT)
    }
}
