//! Spans as they are sent, for whoever receives them: `millrace up`, and tests.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;

/// Every span of a request, with the `service.name` of who sent it.
pub fn spans(request: ExportTraceServiceRequest) -> impl Iterator<Item = (String, Span)> {
    request.resource_spans.into_iter().flat_map(|resource| {
        let sender = resource.resource.as_ref();
        let service = sender
            .map(|sender| attribute(&sender.attributes, "service.name"))
            .unwrap_or_default();
        let spans = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.map(move |span| (service.clone(), span))
    })
}

/// One attribute as text; empty where there is none.
pub fn attribute(all: &[KeyValue], name: &str) -> String {
    let found = all.iter().find(|attribute| attribute.key == name);
    found.map(text).unwrap_or_default()
}

/// Attributes by name; numbers and truth values as text.
pub fn attributes(all: &[KeyValue]) -> BTreeMap<String, String> {
    all.iter()
        .map(|attribute| (attribute.key.clone(), text(attribute)))
        .collect()
}

/// Trace and span ids that a span is linked to.
pub fn links(span: &Span) -> Vec<(String, String)> {
    let links = span.links.iter();
    links.map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
}

/// An id as it is written.
pub fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn text(attribute: &KeyValue) -> String {
    match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::BoolValue(value)) => value.to_string(),
        Some(Value::IntValue(value)) => value.to_string(),
        Some(Value::DoubleValue(value)) => value.to_string(),
        other => format!("{other:?}"),
    }
}
