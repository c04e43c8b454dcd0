//! Metrics, for whoever fetches `/metrics`, and sent to the OTLP receiver where there is one.

use millrace_flow::progress::{PartitionProgress, PartitionState, ProgressReader, StageProgress, StageState};
use millrace_telemetry::metrics::{self, Metric};
use millrace_telemetry::names;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{AsyncInstrument, Meter, MeterProvider as _};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider};
use prometheus::{Encoder as _, Registry, TextEncoder};

use super::{SEND_TIMEOUT, TelemetryError};
use crate::readiness::Readiness;
use crate::stage::StageHandle;

/// What the process measures. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    provider: SdkMeterProvider,
    meter: Meter,
    registry: Registry,
}

/// The content type of [`Metrics::text`].
pub const TEXT: &str = prometheus::TEXT_FORMAT;

impl Metrics {
    pub(super) fn start(resource: Resource, endpoint: Option<&str>) -> Result<Self, TelemetryError> {
        let registry = Registry::new();
        let refused = |why: String| TelemetryError::Metrics(why);
        let fetched = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(|error| refused(error.to_string()))?;
        let mut provider = SdkMeterProvider::builder().with_resource(resource).with_reader(fetched);
        if let Some(endpoint) = endpoint {
            let sent = MetricExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(SEND_TIMEOUT)
                .build()
                .map_err(|error| refused(error.to_string()))?;
            provider = provider.with_reader(PeriodicReader::builder(sent).build());
        }
        let provider = provider.build();
        let meter = provider.meter_with_scope(millrace_telemetry::scope());
        metrics::enable(&meter);
        Ok(Self {
            provider,
            meter,
            registry,
        })
    }

    /// All of them as Prometheus reads them.
    pub fn text(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// Tells of stages and of readiness, each time that somebody asks.
    pub(crate) fn observe(&self, stages: &[StageHandle], readiness: &Readiness) {
        let stages: Vec<ProgressReader> = stages.iter().map(|stage| stage.progress.clone()).collect();
        let readiness = readiness.clone();
        let of_stage = |metric: &'static Metric, value: fn(&StageProgress) -> f64| {
            self.gauge(metric, {
                let stages = stages.clone();
                move |gauge| {
                    for stage in &stages {
                        let stage = stage.borrow();
                        gauge.observe(value(&stage), &[KeyValue::new(names::STAGE, stage.name.clone())]);
                    }
                }
            });
        };
        of_stage(&metrics::WINDOW_RECORDS, |stage| stage.window_records as f64);
        of_stage(&metrics::WINDOW_BYTES, |stage| stage.window_bytes as f64);
        of_stage(&metrics::PARTITIONS_STOPPED, |stage| {
            let stopped = stage.partitions.iter().filter(|p| p.state == PartitionState::Stopped);
            stopped.count() as f64
        });
        of_stage(&metrics::PAUSED, |stage| {
            f64::from(u8::from(stage.state == StageState::Paused))
        });
        let of_partition = |metric: &'static Metric, value: fn(&PartitionProgress) -> Option<f64>| {
            self.gauge(metric, {
                let stages = stages.clone();
                move |gauge| {
                    for stage in &stages {
                        let stage = stage.borrow();
                        for partition in &stage.partitions {
                            let Some(value) = value(partition) else { continue };
                            let by = [
                                KeyValue::new(names::STAGE, stage.name.clone()),
                                KeyValue::new(names::MESSAGING_DESTINATION, partition.topic.clone()),
                                KeyValue::new(names::MESSAGING_PARTITION, partition.partition.to_string()),
                            ];
                            gauge.observe(value, &by);
                        }
                    }
                }
            });
        };
        of_partition(&metrics::LAG_RECORDS, |partition| {
            partition.lag_records.map(|lag| lag as f64)
        });
        of_partition(&metrics::LAG_TIME, |partition| Some(partition.lag_ms as f64 / 1000.0));
        self.gauge(&metrics::READY, move |gauge| {
            gauge.observe(f64::from(u8::from(readiness.is_ready())), &[]);
        });
    }

    fn gauge(&self, metric: &Metric, look: impl Fn(&dyn AsyncInstrument<f64>) + Send + Sync + 'static) {
        let gauge = self.meter.f64_observable_gauge(metric.name).with_unit(metric.unit);
        // It lives as long as the meter's provider.
        let _ = gauge.with_description(metric.says).with_callback(look).build();
    }

    pub(super) fn stop(&self) -> opentelemetry_sdk::error::OTelSdkResult {
        self.provider.shutdown()
    }
}
