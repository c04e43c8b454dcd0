//! docs/telemetry.md is what the code says: made by `UPDATE=1 cargo test -p millrace-telemetry`, held against it otherwise.

use std::fmt::Write as _;
use std::path::Path;

use millrace_telemetry::metrics::{ALL, Kind};
use millrace_telemetry::names::{SCHEMA_URL, SPANS};

const NAMES: &str = include_str!("../src/names.rs");

const HEAD: &str = "# Telemetry\n\n\
    Made from the code: `UPDATE=1 cargo test -p millrace-telemetry`. Names are those of OpenTelemetry's semantic conventions where \
    there are any; ours begin with `millrace.`. No text of a document is in any of it.\n\n\
    Both go to an OTLP receiver over gRPC that the environment names, `OTEL_EXPORTER_OTLP_ENDPOINT` or, for one of them, \
    `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_METRICS_ENDPOINT`; traces also to `[traces] endpoint` of a service's \
    configuration. Without any, `millrace up` keeps the last traces of a local stack itself, and `millrace \
    trace DOCUMENT` shows one; elsewhere none are made. Metrics are at `/metrics` in any case, in Prometheus's form: dots become \
    underscores, units and `_total` are added. `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_SDK_DISABLED` count as everywhere.\n";

const SAMPLING: &str = "Sampling is decided where a trace begins, `[traces] sample`, and travels in `traceparent`; a caller's own \
    decision goes before it. Of a trace that is not sampled, spans that failed and those of dead letters are kept. A batch and a \
    commit are kept if any record in them is. Log lines of a record have `trace_id` and `span_id`.\n";

fn made() -> String {
    let mut text = HEAD.to_owned();
    text.push_str("\n## Metrics\n| name | kind | unit | says | by |\n|---|---|---|---|---|\n");
    for metric in ALL {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Histogram => "histogram",
            Kind::Gauge => "gauge",
        };
        let by: Vec<String> = metric.by.iter().map(|name| format!("`{name}`")).collect();
        let (name, unit, says) = (metric.name, metric.unit, metric.says);
        writeln!(text, "| `{name}` | {kind} | `{unit}` | {says} | {} |", by.join(", ")).expect("a string");
    }
    writeln!(text, "\n## Spans\nSchema: {SCHEMA_URL}. {SAMPLING}").expect("a string");
    text.push_str("| name | kind | child of | from, until |\n|---|---|---|---|\n");
    for span in SPANS {
        writeln!(text, "| {} |", span.join(" | ")).expect("a string");
    }
    text.push_str("\n### Attributes\n| name | what it is |\n|---|---|\n");
    let mut doc = String::new();
    for line in NAMES.lines() {
        if let Some(words) = line.strip_prefix("/// ") {
            doc.push_str(words);
            doc.push(' ');
        } else if let Some(rest) = line.strip_prefix("pub const ") {
            let value = rest
                .split_once("&str = \"")
                .and_then(|(_, value)| value.strip_suffix("\";"));
            if let Some(value) = value.filter(|value| value.contains('.') && !value.contains('/')) {
                writeln!(text, "| `{value}` | {} |", doc.trim()).expect("a string");
            }
            doc.clear();
        } else {
            doc.clear();
        }
    }
    text
}

#[test]
fn the_reference_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/telemetry.md");
    let made = made();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &made).expect("docs/telemetry.md");
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == made,
        "docs/telemetry.md is out of date: UPDATE=1 cargo test -p millrace-telemetry"
    );
}
