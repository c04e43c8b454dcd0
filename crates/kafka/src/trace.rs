//! Spans of records, as OpenTelemetry's conventions for Kafka have them.
//!
//! | span | kind | parent | from, until |
//! |---|---|---|---|
//! | `process <topic>` | CONSUMER | whoever wrote the record; linked to it as well | received, what came of it is committed |
//! | `send <topic>` | PRODUCER | the record that it comes from, or the request | handed to the client, acknowledged or committed |
//! | `commit <topic>` | CLIENT | none: many records leave together, and are linked | begun, committed |
//!
//! A record without a `traceparent` is given that of its `send` span. One that brings its own keeps it: a dead letter and
//! what is redriven from it are the original's, byte for byte.

use std::time::Instant;

use millrace_flow::core::Transaction;
use millrace_flow::{Delivery, Headers, Output};
use millrace_telemetry::{Kind, Span, TRACEPARENT, is_enabled, metrics, names, span};

const SYSTEM: &str = "kafka";
/// Why the outputs of a record that was given up are kept in any trace.
const DEAD_LETTER: &str = "DEAD_LETTER";

/// Of a record that was received.
pub(crate) fn process(delivery: &Delivery, group: &str) -> Span {
    metrics::CONSUMED.add(1, || {
        [
            (names::MESSAGING_SYSTEM, SYSTEM.into()),
            (names::MESSAGING_DESTINATION, delivery.origin.topic.clone().into()),
            (names::MESSAGING_GROUP, group.to_owned().into()),
        ]
    });
    if !is_enabled() {
        return Span::none();
    }
    let (origin, sender) = (&delivery.origin, written_by(&delivery.headers));
    let started = span(Kind::Consumer, || format!("process {}", origin.topic))
        .with(|| {
            [
                (names::MESSAGING_SYSTEM, SYSTEM.into()),
                (names::MESSAGING_OPERATION_NAME, "process".into()),
                (names::MESSAGING_OPERATION_TYPE, "process".into()),
                (names::MESSAGING_DESTINATION, origin.topic.clone().into()),
                (names::MESSAGING_PARTITION, origin.partition.to_string().into()),
                (names::MESSAGING_OFFSET, origin.offset.into()),
                (names::MESSAGING_GROUP, group.to_owned().into()),
            ]
        })
        .linked([&sender])
        .start(&sender);
    key_and_value(&started, delivery.key.as_deref(), delivery.value.is_none());
    started
}

/// Of a record that is written for `cause`, or, without one, for whoever stands in its headers.
pub(crate) fn send(output: &Output, cause: &Span, buried: bool) -> Span {
    metrics::SENT.add(1, || {
        [
            (names::MESSAGING_SYSTEM, SYSTEM.into()),
            (names::MESSAGING_DESTINATION, output.topic.clone().into()),
        ]
    });
    if !is_enabled() {
        return Span::none();
    }
    let parent = match cause.is_some() {
        true => cause.clone(),
        false => written_by(&output.headers),
    };
    let started = span(Kind::Producer, || format!("send {}", output.topic))
        .with(|| {
            [
                (names::MESSAGING_SYSTEM, SYSTEM.into()),
                (names::MESSAGING_OPERATION_NAME, "send".into()),
                (names::MESSAGING_OPERATION_TYPE, "send".into()),
                (names::MESSAGING_DESTINATION, output.topic.clone().into()),
            ]
        })
        .start(&parent);
    key_and_value(&started, Some(&output.key), output.value.is_none());
    if buried {
        started.set(names::ERROR_TYPE, DEAD_LETTER);
    }
    started
}

/// Of a transaction.
pub(crate) fn commit(transaction: &Transaction, group: &str) -> Span {
    if !is_enabled() {
        return Span::none();
    }
    let topic = topic_of(transaction);
    let records = i64::try_from(transaction.records()).unwrap_or(i64::MAX);
    span(Kind::Client, || format!("commit {topic}"))
        .with(|| {
            [
                (names::MESSAGING_SYSTEM, SYSTEM.into()),
                (names::MESSAGING_OPERATION_NAME, "commit".into()),
                (names::MESSAGING_OPERATION_TYPE, "settle".into()),
                (names::MESSAGING_DESTINATION, topic.clone().into()),
                (names::MESSAGING_GROUP, group.to_owned().into()),
                (names::MESSAGING_BATCH, records.into()),
            ]
        })
        .linked(transaction.finished().map(|finished| finished.span))
        .start_root()
}

/// A single record was acknowledged, or a transaction committed; or not, and why.
pub(crate) fn took(operation: &'static str, topic: &str, began: Instant, error: Option<&'static str>) {
    metrics::OPERATION.record(began.elapsed().as_secs_f64(), || {
        [
            (names::MESSAGING_SYSTEM, SYSTEM.into()),
            (names::MESSAGING_OPERATION_NAME, operation.into()),
            (names::MESSAGING_DESTINATION, topic.to_owned().into()),
            (names::ERROR_TYPE, error.unwrap_or_default().into()),
        ]
    });
}

/// The topic that a transaction finishes records of.
pub(crate) fn topic_of(transaction: &Transaction) -> String {
    let first = transaction.positions.first();
    first
        .map(|(partition, _)| partition.topic.to_string())
        .unwrap_or_default()
}

/// What a record's headers become for whoever reads it.
pub(crate) fn carried(headers: &Headers, by: &Span) -> Option<Headers> {
    if headers.get(TRACEPARENT).is_some() {
        return None;
    }
    let context = by.trace_context()?;
    let mut carried = headers.clone();
    carried.push_trace(&context);
    Some(carried)
}

fn written_by(headers: &Headers) -> Span {
    headers
        .trace()
        .map_or_else(Span::none, |context| Span::remote(&context))
}

fn key_and_value(span: &Span, key: Option<&[u8]>, tombstone: bool) {
    if let Some(Ok(key)) = key.map(std::str::from_utf8) {
        span.set(names::MESSAGING_KEY, key.to_owned());
    }
    if tombstone {
        span.set(names::MESSAGING_TOMBSTONE, true);
    }
}
