//! Metrics: each one stands here with its unit, what it says and what it is broken down by; docs/telemetry.md is made of it.
//!
//! Those of the semantic conventions have their names, ours begin with `millrace.`. What they are broken down by is bounded:
//! topics, partitions, stages, methods, stable codes; never a document, a tenant or a message. Recording costs nothing while
//! nobody has called [`enable`].

use std::sync::OnceLock;

use opentelemetry::metrics::{Counter, Histogram, Meter};
use opentelemetry::{KeyValue, Value};

use crate::names;

/// How a metric is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Rises; its rate says how much.
    Counter,
    /// Times and sizes; percentiles.
    Histogram,
    /// As it is at this moment.
    Gauge,
}

/// A metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name; where dots are not allowed they become underscores.
    pub name: &'static str,
    /// As UCUM has it: `s`, `By`, `{record}`.
    pub unit: &'static str,
    /// How it is read.
    pub kind: Kind,
    /// What it says.
    pub says: &'static str,
    /// What it is broken down by.
    pub by: &'static [&'static str],
    made: OnceLock<Made>,
}

#[derive(Debug)]
enum Made {
    Counter(Counter<u64>),
    Histogram(Histogram<f64>),
}

/// Bounds of times in seconds, as the conventions advise for messaging, and more for what waits.
const SECONDS: [f64; 18] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 30.0, 60.0,
];
/// Bounds of shares.
const SHARES: [f64; 10] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0];

const fn metric(
    kind: Kind,
    name: &'static str,
    unit: &'static str,
    says: &'static str,
    by: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        unit,
        kind,
        says,
        by,
        made: OnceLock::new(),
    }
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $id:ident: $kind:ident $name:literal $unit:literal $says:literal [$($by:expr),*];)*) => {
        $(
            #[doc = $says]
            pub static $id: Metric = metric(Kind::$kind, $name, $unit, $says, &[$($by),*]);
        )*
        /// All of them.
        pub static ALL: &[&Metric] = &[$(&$id),*];
    };
}

metrics! {
    RPC_SERVER: Histogram "rpc.server.call.duration" "s"
        "How long a call took that was answered here, the last message of its stream included."
        [names::RPC_SYSTEM, names::RPC_METHOD, names::RPC_STATUS];
    RPC_CLIENT: Histogram "rpc.client.call.duration" "s"
        "How long a call took that was made from here."
        [names::RPC_SYSTEM, names::RPC_METHOD, names::RPC_STATUS];
    CONSUMED: Counter "messaging.client.consumed.messages" "{message}"
        "Records received, once each time that they were delivered."
        [names::MESSAGING_SYSTEM, names::MESSAGING_DESTINATION, names::MESSAGING_GROUP];
    SENT: Counter "messaging.client.sent.messages" "{message}"
        "Records written, those of transactions that were aborted too."
        [names::MESSAGING_SYSTEM, names::MESSAGING_DESTINATION];
    OPERATION: Histogram "messaging.client.operation.duration" "s"
        "How long it took to have a single record acknowledged (send), or a transaction committed (commit)."
        [names::MESSAGING_SYSTEM, names::MESSAGING_OPERATION_NAME, names::MESSAGING_DESTINATION, names::ERROR_TYPE];
    PROCESS: Histogram "messaging.process.duration" "s"
        "How long an attempt at a record took."
        [names::MESSAGING_DESTINATION, names::STAGE, names::ERROR_TYPE];
    EMBEDDINGS: Histogram "gen_ai.client.embeddings.duration" "s"
        "How long the model took for a batch."
        [names::GEN_AI_OPERATION, names::GEN_AI_PROVIDER, names::GEN_AI_MODEL, names::ERROR_TYPE];
    INPUT_TOKENS: Counter "gen_ai.client.embeddings.operation.input_tokens" "{token}"
        "Tokens of the texts that the model was given, padding not counted."
        [names::GEN_AI_OPERATION, names::GEN_AI_PROVIDER, names::GEN_AI_MODEL];
    BACKENDS_LOST: Counter "millrace.backend.lost" "{backend}"
        "Backends of the model that were lost: they died, hung or gave nonsense, and were made anew or stood in for."
        [names::BACKEND];
    BATCH_FILL: Histogram "millrace.batch.fill" "1"
        "Of the tokens that the model computed for a batch, the share that was not padding."
        [names::GEN_AI_MODEL];
    BATCH_TEXTS: Counter "millrace.batch.texts" "{text}"
        "Texts that the model was given."
        [names::GEN_AI_MODEL];
    CACHE_LOOKUPS: Counter "millrace.cache.lookups" "{text}"
        "Texts whose vectors were looked for among those computed before: found, not found, or not to be read."
        [names::CACHE_RESULT];
    DEAD_LETTERS: Counter "millrace.dead_letters" "{record}"
        "Records that were given up, by the stable code of the reason."
        [names::STAGE, names::REASON];
    FAILURES: Counter "millrace.failures" "{attempt}"
        "Attempts that failed, by class and the stable code of the reason."
        [names::STAGE, names::FAILURE_CLASS, names::REASON];
    SEARCHABLE: Histogram "millrace.document.searchable.duration" "s"
        "From the acceptance of a revision until every search finds it."
        [];
    LAG_RECORDS: Gauge "millrace.stage.lag.records" "{record}"
        "Records of a partition that are not finished; 0 when idle. Missing while the end of the partition is not known."
        [names::STAGE, names::MESSAGING_DESTINATION, names::MESSAGING_PARTITION];
    LAG_TIME: Gauge "millrace.stage.lag.time" "s"
        "Age of the oldest record of a partition that was received and is not finished; 0 when idle."
        [names::STAGE, names::MESSAGING_DESTINATION, names::MESSAGING_PARTITION];
    WINDOW_RECORDS: Gauge "millrace.stage.window.records" "{record}"
        "Records received and not finished."
        [names::STAGE];
    WINDOW_BYTES: Gauge "millrace.stage.window.size" "By"
        "Bytes of them."
        [names::STAGE];
    PARTITIONS_STOPPED: Gauge "millrace.stage.partitions.stopped" "{partition}"
        "Partitions that are stopped until somebody acts; GetPipeline says why."
        [names::STAGE];
    PAUSED: Gauge "millrace.stage.paused" "1"
        "1 while an operator has the stage paused: its lag stands as it was then."
        [names::STAGE];
    READY: Gauge "millrace.ready" "1"
        "1 while the process is ready, else 0."
        [];
}

/// Metrics are recorded from here on, with instruments of this meter.
pub fn enable(meter: &Meter) {
    for metric in ALL {
        let made = match metric.kind {
            Kind::Counter => {
                let counter = meter.u64_counter(metric.name).with_unit(metric.unit);
                Made::Counter(counter.with_description(metric.says).build())
            }
            Kind::Histogram => {
                let bounds = if metric.unit == "s" {
                    SECONDS.to_vec()
                } else {
                    SHARES.to_vec()
                };
                let histogram = meter.f64_histogram(metric.name).with_unit(metric.unit);
                Made::Histogram(histogram.with_description(metric.says).with_boundaries(bounds).build())
            }
            // Whoever knows it is asked.
            Kind::Gauge => continue,
        };
        // A second call finds the same instruments.
        let _ = metric.made.set(made);
    }
}

impl Metric {
    /// Whether anybody wants it.
    pub fn is_enabled(&self) -> bool {
        self.made.get().is_some()
    }

    /// Adds to a counter. The attributes are asked for only where anybody wants it.
    pub fn add<const N: usize>(&self, count: usize, attributes: impl FnOnce() -> [(&'static str, Value); N]) {
        if let Some(Made::Counter(counter)) = self.made.get() {
            counter.add(count as u64, &given(attributes()));
        }
    }

    /// Records a value in a histogram, as [`Self::add`].
    pub fn record<const N: usize>(&self, value: f64, attributes: impl FnOnce() -> [(&'static str, Value); N]) {
        if let Some(Made::Histogram(histogram)) = self.made.get() {
            histogram.record(value, &given(attributes()));
        }
    }
}

/// Those that have a value: an empty text stands for none.
fn given<const N: usize>(attributes: [(&'static str, Value); N]) -> Vec<KeyValue> {
    let given = attributes
        .into_iter()
        .filter(|(_, value)| !matches!(value, Value::String(text) if text.as_str().is_empty()));
    given.map(|(name, value)| KeyValue::new(name, value)).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_name_is_given_once_and_says_what_it_is() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            assert!(metric.says.ends_with('.') && !metric.unit.is_empty(), "{metric:?}");
        }
    }
}
